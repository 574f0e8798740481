"""Accuracy with a budget of minutes."""

from itertools import product
from statistics import mean

from benchmarks.lib import record
from benchmarks.lib.cells import split_name
from benchmarks.lib.tables.shown import Lines, accuracy, interval_of, markdown, percent
from handful.pipeline.compare import spread
from handful.text import in_seconds


def minutes_grid() -> str:
    """Of each method with each budget, the mean over development draws."""
    found: dict[tuple[str, int, str, str], dict[str, Lines]] = {}
    for line in record.read("minutes"):
        if line["kind"] == "dev":
            source, method = split_name(line["name"])
            key = (source, line["per_class"], line["hardware"], method)
            cell = found.setdefault(key, {})
            cell.setdefault(line["budget"], []).append(line)
    budgets = sorted({key for cell in found.values() for key in cell}, key=in_seconds)
    rows = [
        [*key, *(accuracy(cell[budget]) if budget in cell else "–" for budget in budgets)]
        for key, cell in found.items()
    ]
    return markdown(["source", "labels per class", "on", "method", *budgets], rows)


def timed() -> str:
    """Of each method with each budget, the final draws and their mean."""
    found: dict[tuple[str, ...], Lines] = {}
    for line in record.final("minutes", apart="hardware"):
        source, method = split_name(line["name"])
        key = (source, str(line["per_class"]), line["budget"], line["hardware"], f"`{method}`")
        found.setdefault(key, []).append(line)
    rows = []
    for key, lines in found.items():
        by_draw = sorted(lines, key=lambda line: line["draw"])
        each = [percent(line["figures"]["test_accuracy"]) for line in by_draw]
        rows.append([*key, accuracy(lines), ", ".join(each)])
    header = ["source", "labels per class", "budget", "on", "method", "test accuracy", "draws"]
    return markdown(header, rows)


def pairs() -> str:
    """Of each method the difference to `supervised` in the same minutes, draw by draw.

    Minutes are the same on the same hardware only.
    """
    found: dict[tuple[str, int, str, str], dict[str, dict[int, float]]] = {}
    for line in record.final("minutes", apart="hardware"):
        source, method = split_name(line["name"])
        key = (source, line["per_class"], line["budget"], line["hardware"])
        cell = found.setdefault(key, {})
        cell.setdefault(method, {})[line["draw"]] = line["figures"]["test_accuracy"]
    rows = []
    for key, cell in found.items():
        plain_ones = [method for method in cell if method.split(" ")[0] == "supervised"]
        for against, method in product(plain_ones, [one for one in cell if one not in plain_ones]):
            plain, by_draw = cell[against], cell[method]
            if not (draws := sorted(plain.keys() & by_draw.keys())):
                continue
            gained = spread([100 * (by_draw[draw] - plain[draw]) for draw in draws])
            means = [percent(mean(one[draw] for draw in draws)) for one in (plain, by_draw)]
            cells = [f"`{method}`", f"`{against}`", len(draws), *means]
            rows.append([*key, *cells, f"**{gained.mean:+.1f}**", interval_of(gained)])
    header = ["source", "labels per class", "budget", "on", "method", "against", "draws"]
    return markdown([*header, "supervised", "this method", "difference", "90 % interval"], rows)
