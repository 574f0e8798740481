"""Chosen labels beside random ones."""

from statistics import mean, stdev

from benchmarks.lib import record
from benchmarks.lib.tables.shown import markdown, percent


def active() -> str:
    """Accuracy with chosen labels and with random ones, and what the choice is worth in labels."""
    rows = []
    for source in dict.fromkeys(line["name"].split()[0] for line in record.final("active")):
        arms = [
            {line["draw"]: line["figures"] for line in record.final("active", f"{source} {arm}")}
            for arm in ("random", "active")
        ]
        draws = sorted(arms[0].keys() & arms[1].keys())
        if len(draws) < 2:
            continue
        plain, chosen = ([arm[draw]["accuracy"] for draw in draws] for arm in arms)
        labels = arms[0][draws[0]]["labels"]
        curve = [mean(column) for column in zip(*plain, strict=True)]
        for at, budget in enumerate(labels):
            apart = [b[at] - a[at] for a, b in zip(plain, chosen, strict=True)]
            reached = mean(row[at] for row in chosen)
            points = f"{100 * mean(apart):+.1f} ± {100 * stdev(apart):.1f}"
            worth = _labels_for(reached, labels, curve)
            cells = [percent(curve[at]), percent(reached), points, worth]
            rows.append([source, len(draws), budget, *cells])
    header = ["source", "draws", "labels", "random", "chosen", "difference", "random labels for it"]
    return markdown(header, rows)


def _labels_for(accuracy: float, labels: list[int], curve: list[float]) -> str:
    """How many random labels reach an accuracy, between the budgets that were tried."""
    if accuracy <= curve[0]:
        return f"at most {labels[0]}"
    for n, more, low, high in zip(labels, labels[1:], curve, curve[1:], strict=False):
        if low < accuracy <= high:
            return f"{n * (more / n) ** ((accuracy - low) / (high - low)):.0f}"
    return f"over {labels[-1]}"
