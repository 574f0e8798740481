"""Accuracy against labels per class."""

from benchmarks.lib import record
from benchmarks.lib.tables.shown import Lines, accuracy, markdown


def curves() -> str:
    """Accuracy against labels per class, a column for each fitted method."""
    cells: dict[tuple[str, int], dict[str, Lines]] = {}
    for line in record.final("curves"):
        made = line["settings"]
        row = cells.setdefault((made["source"], made["per_class"]), {})
        row.setdefault(made["method"]["name"], []).append(line)
    methods = ("features", "self_training", "propagation")
    rows = [
        [source, n, *(accuracy(found[name]) if name in found else "–" for name in methods)]
        for (source, n), found in sorted(cells.items())
    ]
    return markdown(["source", "labels per class", *methods], rows)
