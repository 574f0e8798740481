"""What others make of the same draws."""

from benchmarks.lib import record
from benchmarks.lib.tables.shown import accuracy, markdown, minutes


def peers() -> str:
    """What others make of the same draws of labels."""
    rows = []
    for name in dict.fromkeys(line["name"] for line in record.final("peers")):
        lines = record.final("peers", name)
        source, per_class, estimator = name.split()
        rows.append([source, per_class, f"`{estimator}`", accuracy(lines), minutes(lines)])
    return markdown(["source", "labels per class", "estimator", "test accuracy", "time"], rows)
