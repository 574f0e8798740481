"""Loss curves of devices that train together, beside those of one."""

from benchmarks.lib import record
from benchmarks.lib.tables.shown import markdown


def devices() -> str:
    """The last line of each training."""
    lines = {line["name"]: line["figures"] for line in record.read("devices")}
    rows = []
    for name, found in lines.items():
        last, apart, yardstick = (found[key] for key in ("last_loss", "apart", "yardstick"))
        rows.append(
            [
                name,
                f"{found['steps']} of {found['batch']}",
                f"{found['devices']} × {found['device']}",
                f"{last['one']:.4f}",
                f"{last['several']:.4f}",
                *(f"{apart[key]:.1e}" for key in ("first_steps", "median", "last_steps")),
                "–" if yardstick is None else f"{yardstick['last_steps']:.1e}",
            ]
        )
    header = [
        "training",
        "steps, batch",
        "devices",
        "loss at the end, one",
        "together",
        "apart, first 10 steps",
        "median",
        "at the end",
        "another order, at the end",
    ]
    return markdown(header, rows)
