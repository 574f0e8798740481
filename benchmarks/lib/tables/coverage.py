"""How often the interval of the estimate held the truth."""

import math
from collections import Counter
from statistics import mean, stdev
from typing import Any

from benchmarks.lib import record
from benchmarks.lib.tables.regret import of_auto
from benchmarks.lib.tables.shown import Line, Lines, markdown, percent


def coverage() -> str:
    """How often the 90 % interval of the estimate held the accuracy on all other images."""
    rows = []
    for line in record.final("coverage"):
        found = line["figures"]
        shares = [percent(found[key]) for key in ("covered", "lower_covered", "width", "narrower")]
        rows.append([line["name"], found["draws"], *shares, f"{found['seconds']:.2f}"])
    header = ["cell", "draws", "covered", "lower bound holds", "width", "narrower than hold-out"]
    return markdown([*header, "s an estimate"], rows)


def coverage_pooled() -> str:
    """The same over the cells of one number of labels per class, with the least of them."""
    rows = []
    lines = [line["figures"] | {"cell": line["name"].split()} for line in record.final("coverage")]
    for method, per_class in sorted({(x["cell"][3], int(x["cell"][2])) for x in lines}):
        some = [x for x in lines if x["cell"][2:] == [str(per_class), method]]
        keys = ("covered", "lower_covered", "width", "holdout_covered", "narrower")
        known = [[x[key] for x in some if key in x] for key in keys]
        means = [percent(mean(shares)) if shares else "–" for shares in known]
        least = percent(min(x["covered"] for x in some))
        rows.append([method, per_class, len(some), sum(x["draws"] for x in some), least, *means])
    header = ["method", "labels per class", "cells", "draws", "least covered", "covered"]
    header += ["lower bound holds", "width", "hold-out covered", "narrower than hold-out"]
    return markdown(header, rows)


def coverage_auto() -> str:
    """Whole fits of `auto` on each source: how often the interval held the truth."""
    lines = [x for x in record.final("coverage_auto") if x["name"].endswith(" auto")]
    by_source: dict[str, Lines] = {}
    for line in lines:
        by_source.setdefault(line["name"].split()[0], []).append(line)
    rows = [[source, *_of_fits(found)] for source, found in sorted(by_source.items())]
    if rows:
        rows.append(["all", *_of_fits(lines)])
    header = ["source", "fits", "truth inside", "lower bound holds", "mean error", "width"]
    header += ["narrower than hold-out", "methods chosen"]
    return markdown(header, rows)


def _holdout_width(found: list[dict[str, Any]]) -> float:
    return mean(x["holdout_width"] for x in found if math.isfinite(x["holdout_width"]))


def coverage_auto_in_words() -> str:
    """The whole fits of `auto` in a sentence."""
    found = [x["figures"] for x in record.final("coverage_auto") if x["name"].endswith(" auto")]
    inside = mean(x["low"] <= x["truth"] <= x["high"] for x in found)
    above = mean(x["low"] <= x["truth"] for x in found)
    error = 100 * mean(x["accuracy"] - x["truth"] for x in found)
    narrower = 1 - mean(x["high"] - x["low"] for x in found) / _holdout_width(found)
    return (
        f"In {len(found)} whole fits of the default on seven data sets, with 40 and 100 labels and "
        f"40 seconds each, the 90 % interval held the test accuracy in {percent(inside)}, and its "
        f"lower end in {percent(above)}. The estimate was {abs(error):.1f} points too "
        f"{'low' if error < 0 else 'high'} in the mean, and the interval {percent(narrower)} "
        f"narrower than that of a held-out fifth of the labels."
    )


def coverage_short() -> str:
    """Whole fits of `supervised` alone in a budget that is short for it."""
    by_cell: dict[tuple[str, str], Lines] = {}
    for line in record.final("coverage_auto"):
        source, *_, method, budget = line["name"].split()
        if method == "supervised":
            by_cell.setdefault((budget, source), []).append(line)
    rows = []
    for (budget, source), lines in sorted(by_cell.items()):
        found = [line["figures"] for line in lines]
        steps = sorted(x["steps"] for x in found)
        truths = sorted(x["truth"] for x in found)
        *shares, error, width, _, _ = _of_fits(lines)
        span = f"{percent(truths[0])} to {percent(truths[-1])}"
        rows.append([source, budget, f"{steps[0]} to {steps[-1]}", span, *shares, error, width])
    header = ["source", "budget", "steps", "truth", "fits", "truth inside", "lower bound holds"]
    return markdown([*header, "mean error", "width"], rows)


def coverage_default() -> str:
    """Fits of `auto` with the default budget: how often the interval held the truth."""
    found: dict[str, Lines] = {}
    for line in [*record.final("draws"), *of_auto("regret"), *of_auto("unseen")]:
        source, auto, _ = line["name"].partition("-auto")
        said = line["figures"].get("estimate")
        if auto and said:
            figures = {"truth": line["figures"]["test_accuracy"], **said}
            found.setdefault(source, []).append({"draw": line["draw"], "figures": figures})
    found["all"] = [line for source in sorted(found) for line in found[source]]
    rows = [
        [source, *_of_estimates(lines, list(map(_error, lines)))]
        for source, lines in sorted(found.items(), key=lambda item: (item[0] == "all", item[0]))
    ]
    header = ["source", "fits", "truth inside", "lower bound holds", "mean error", "width"]
    return markdown(header, rows)


def _error(line: Line) -> float:
    """Estimate less truth, in points."""
    return 100 * float(line["figures"]["accuracy"] - line["figures"]["truth"])


def _of_estimates(lines: Lines, independent: list[float]) -> list[Any]:
    """Number of fits, shares held, mean error with its standard error, and mean width.

    Args:
        independent: errors, in points, whose spread tells the standard error.
    """
    found = [line["figures"] for line in lines]
    count = len(independent)
    spread = stdev(independent) / math.sqrt(count) if count > 1 else math.nan
    return [
        len(found),
        percent(mean(x["low"] <= x["truth"] <= x["high"] for x in found)),
        percent(mean(x["low"] <= x["truth"] for x in found)),
        f"{mean(map(_error, lines)):+.1f} ± {spread:.1f}",
        percent(mean(x["high"] - x["low"] for x in found)),
    ]


def _of_fits(lines: Lines) -> list[Any]:
    """As `_of_estimates`, where fits of one draw depend on each other; and what was chosen."""
    found = [line["figures"] for line in lines]
    errors: dict[int, list[float]] = {}
    for line in lines:
        errors.setdefault(line["draw"], []).append(_error(line))
    width = mean(x["high"] - x["low"] for x in found)
    chosen = Counter(x["method"] for x in found).most_common()
    return [
        *_of_estimates(lines, [mean(some) for some in errors.values()]),
        percent(1 - width / _holdout_width(found)),
        ", ".join(f"{name} {count}" for name, count in chosen),
    ]
