"""The list of doubtful labels."""

from benchmarks.lib import record
from benchmarks.lib.tables.shown import markdown, percent


def label_problems() -> str:
    """What the list of doubtful labels finds of the labels that were flipped."""
    rows = []
    for line in record.final("label_problems"):
        found = line["figures"]
        shown = found.get("shown", found["draws"])  # draws that have a list
        counts = [found["draws"], shown, found["n"], f"{found['wrong']:.0f}"]
        of_list = ["–"] * 3
        if shown:
            listed = f"{found['listed'] * found['draws'] / shown:.1f}"
            of_list = [listed, percent(found["precision"]), percent(found["recall"])]
        rows.append([line["name"], *counts, *of_list])
    header = ["source", "draws", "with a list", "labels", "flipped", "listed"]
    header += ["precision", "recall, all draws"]
    return markdown(header, rows)
