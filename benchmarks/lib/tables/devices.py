"""Trainings of several devices against those of one."""

from benchmarks.lib import record
from benchmarks.lib.tables.shown import markdown


def devices() -> str:
    """How far the losses of several are from those of one, beside what rounding alone does."""
    rows = []
    for line in record.final("devices"):
        figures = line["figures"]
        apart, yardstick = figures["apart"], figures["yardstick"] or {}
        last = figures["last_loss"]
        rows.append(
            [
                f"`{line['name']}`",
                figures["steps"],
                f"{last['one']:.4f}",
                f"{last['several']:.4f}",
                *(_both(apart, yardstick, key) for key in ("first_steps", "median", "last_steps")),
            ]
        )
    differ = ["apart: first steps", "median", "last steps"]
    header = ["", "steps", "last loss of one", "of two", *differ]
    return markdown(header, rows)


def _both(apart: dict[str, float], yardstick: dict[str, float], key: str) -> str:
    """The difference, and that of the yardstick, as shares of the loss."""
    other = f"{yardstick[key]:.1e}" if key in yardstick else "–"
    return f"{apart[key]:.1e} ({other})"
