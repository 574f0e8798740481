"""The forecast of accuracy with more labels."""

from statistics import mean

from benchmarks.lib import record
from benchmarks.lib.tables.shown import markdown, percent


def forecast() -> str:
    """The forecast at twice and four times the labels against what then came."""
    rows = []
    for name in dict.fromkeys(line["name"] for line in record.final("forecast")):
        lines = [x["figures"] for x in record.final("forecast", name) if x["figures"]["forecast"]]
        source, per_class = name.split()
        for at, times in enumerate((2, 4)):
            found = [(x["forecast"][at], x["truth"][at + 1]) for x in lines]
            if not found:
                continue
            off = mean(abs(middle - truth) for (middle, _, _), truth in found)
            lean = mean(middle - truth for (middle, _, _), truth in found)
            held = mean(low <= truth <= high for (_, low, high), truth in found)
            width = mean(high - low for (_, low, high), _ in found)
            now = mean(x["truth"][0] for x in lines)
            came = mean(truth for _, truth in found)
            cells = [percent(now), percent(came), f"{100 * off:.1f}", f"{100 * lean:+.1f}"]
            row = [source, f"{10 * int(per_class)} × {times}", len(found), *cells]
            rows.append([*row, percent(held), percent(width)])
    header = ["source", "labels", "draws", "accuracy before", "then", "mean error", "bias"]
    return markdown([*header, "interval held", "width"], rows)
