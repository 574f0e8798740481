"""The list of doubtful labels."""

from benchmarks.lib import record
from benchmarks.lib.tables.shown import markdown, percent


def label_problems() -> str:
    """What the list of doubtful labels finds of the labels that were flipped."""
    rows = []
    for line in record.final("label_problems"):
        found = line["figures"]
        counts = [found["draws"], found["n"], f"{found['wrong']:.0f}", f"{found['listed']:.1f}"]
        rows.append([line["name"], *counts, percent(found["precision"]), percent(found["recall"])])
    header = ["source", "draws", "labels", "flipped", "listed", "precision", "recall"]
    return markdown(header, rows)
