"""Write the tables of README.md and docs/results.md from the lines in benchmarks/results/.

    python benchmarks/tables.py          # rewrite what stands between the markers
    python benchmarks/tables.py --check  # exit 1 if that would change anything

A table stands between `<!-- table NAME -->` and `<!-- end -->`; NAME is a function below.
"""

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import fields
import record
from cells import split_name
from handful.evaluation.probes import PROBES
from handful.methods import METHODS
from handful.pipeline.auto.select import AUTO
from handful.pipeline.compare import Spread, spread
from handful.pipeline.recipes import RECIPES
from handful.pipeline.recipes.measured import measured
from handful.text import in_seconds
from measured import made_by

ROOT = Path(__file__).parent.parent
PAGES = (
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("results", "methods", "estimate")),
)
Line = dict[str, Any]
Lines = list[Line]
PER_CLASS = 10  # labels, of the curves that docs/methods.md repeats

# Row of the README's table → what it is, and the best figure that a report published for as many
# labels and the same help: none, unlabelled images, ImageNet weights.
HEADLINE = {
    "digits-supervised": ("digits 8x8, 10 labels per class, from scratch", None),
    "digits-deep-propagation": (
        "digits 8x8, with 1,338 unlabelled images, deep label propagation from scratch",
        None,
    ),
    "mnist-supervised": ("MNIST, 10 labels per class, from scratch", 0.8369),
    "mnist-fixmatch": (
        "MNIST, the same with 59,900 unlabelled images, FixMatch from scratch",
        0.97,
    ),
    "mnist-deep-propagation": (
        "MNIST, with the same images, deep label propagation from scratch",
        0.97,
    ),
    "sign-digits-supervised": (
        "Sign Language Digits (photographs), 10 labels per class, from scratch",
        None,
    ),
    "cifar10-jpeg-features": (
        "CIFAR-10 (JPEG), 10 labels per class, linear head on ImageNet features",
        0.2982,
    ),
    "cifar10-jpeg-self-training": (
        "CIFAR-10 (JPEG), the same with 49,900 unlabelled images, self-training",
        0.2982,
    ),
    "cifar10-jpeg-fine-tuning": (
        "CIFAR-10 (JPEG), the network fine-tuned on those guesses",
        0.2982,
    ),
}
# Recipes that are compared draw by draw.
TWINS = (
    ("mnist-uda-simple-cnn", "mnist-uda-simple-cnn-labels"),
    ("mnist-uda-deep-cnn", "mnist-uda-deep-cnn-labels"),
    ("mnist-uda-threshold", "mnist-uda-deep-cnn-labels"),
    ("mnist-uda-threshold", "mnist-uda-deep-cnn"),
)

# The same of a row with a budget: its name and budget → what it is, and the reports' best.
HEADLINE_TIMED = {
    ("cifar10-jpeg-simclr backbone=fast size=32 temperature=0.1 then=propagation", "20m"): (
        "CIFAR-10 (JPEG), 10 labels per class, SimCLR on all training images and label "
        "propagation, from scratch",
        0.1984,
    ),
}
# Rows that are only in docs/results.md.
MORE = ("sign-digits-fine-tuning", "tin10-features", "tin10-self-training", "tin10-fine-tuning")
BEST_SIMCLR = "mnist-simclr-resnet-128-full"
LABELS_ONLY = ("features", "supervised")


def headline() -> str:
    """Accuracy of every final row that has been run."""
    rows = [
        [what, accuracy(lines), published(report), minutes(lines), command(lines)]
        for name, (what, report) in HEADLINE.items()
        if (lines := record.final("draws", name))
    ]
    for (name, budget), (what, report) in HEADLINE_TIMED.items():
        lines = [
            x for x in record.final("minutes", name, apart="hardware") if x["budget"] == budget
        ]
        if lines := [x for x in lines if x["hardware"] == lines[-1]["hardware"]]:
            time = f"{in_seconds(budget) / 60:g} min"
            rows.append([what, accuracy(lines), published(report), time, command(lines)])
    header = ["task", "test accuracy", "reports' best", "time a draw", "command"]
    return markdown(header, rows)


def draws() -> str:
    """Every final draw of every row, with the estimate from the labels alone where made."""
    rows = []
    for name in (*HEADLINE, *MORE):
        for line in record.final("draws", name):
            figures = line["figures"]
            estimate = figures["estimate"]
            known = percent(estimate["accuracy"]) if estimate else "–"
            interval = (
                f"{percent(estimate['low'])} to {percent(estimate['high'])}" if estimate else ""
            )
            n = f"{figures['n_test']:,}"
            row = [name, line["draw"], percent(figures["test_accuracy"]), n, known, interval]
            rows.append([*row, f"{figures['seconds']:.0f}", line["commit"]])
    header = ["row", "draw", "test accuracy", "images", "estimate", "90 % interval", "s", "commit"]
    return markdown(header, rows)


def throughput() -> str:
    """Training speed against the plain way, both in one run."""
    rows = []
    for line in record.final("throughput"):
        found = line["figures"]
        rates = [f"{found['ours']:,.0f}", f"{found['plain']:,.0f}", f"{found['ratio']:.2f}"]
        goal = f"{found['goal']:.1f}"
        rows.append([line["name"], *rates, goal, percent(found["share_of_peak"]), line["hardware"]])
    header = ["network", "images/s", "plain way", "ratio", "goal", "of bf16 peak", "on"]
    return markdown(header, rows)


def features_speed() -> str:
    """From files to features, against the plain way, both in one run."""
    rows = []
    for line in record.final("features_speed"):
        found = line["figures"]
        plain = max(found["plain"], found["plain_2_workers"])
        row = [line["name"], f"{found['ours']:.0f}", f"{plain:.0f}", f"{found['ratio']:.2f}"]
        rows.append([*row, f"{found['goal']:.1f}", line["hardware"]])
    return markdown(["network", "images/s", "plain way", "ratio", "goal", "on"], rows)


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


def label_problems() -> str:
    """What the list of doubtful labels finds of the labels that were flipped."""
    rows = []
    for line in record.final("label_problems"):
        found = line["figures"]
        counts = [found["draws"], found["n"], f"{found['wrong']:.0f}", f"{found['listed']:.1f}"]
        rows.append([line["name"], *counts, percent(found["precision"]), percent(found["recall"])])
    header = ["source", "draws", "labels", "flipped", "listed", "precision", "recall"]
    return markdown(header, rows)


def ingest() -> str:
    """Opening a folder: seconds and peak memory, beside a loop over the files with PIL."""
    rows = []
    for line in record.final("ingest"):
        for phase, found in line["figures"].items():
            own = found["peak_mb"] - found["of_which_imports_mb"]
            cells = [f"{found['seconds']:.1f}", found["peak_mb"], own]
            rows.append([line["name"], f"{line['files']:,}", phase, *cells])
    header = ["folder", "files", "what", "seconds", "peak MB", "without imports"]
    return markdown(header, rows)


def ingest_in_words() -> str:
    """What the first look at a folder of photographs takes."""
    line = record.final("ingest", "photos")[-1]
    first, again = (
        sum(line["figures"][phase]["seconds"] for phase in (f"open{when}", f"decode{when}"))
        for when in ("", " again")
    )
    return (
        f"Checking and decoding {line['files']:,} photographs of twelve megapixels took "
        f"{first:.0f} seconds the first time and {again:.0f} from then on, on "
        f"{line['hardware'].split(', ')[1]}."
    )


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


def peers() -> str:
    """What others make of the same draws of labels."""
    rows = []
    for name in dict.fromkeys(line["name"] for line in record.final("peers")):
        lines = record.final("peers", name)
        source, per_class, estimator = name.split()
        rows.append([source, per_class, f"`{estimator}`", accuracy(lines), minutes(lines)])
    return markdown(["source", "labels per class", "estimator", "test accuracy", "time"], rows)


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


class Choice(NamedTuple):
    """What `auto` reached on a cell, and what every method did alone on the same draws."""

    source: str
    per_class: int
    draws: list[int]
    chosen: float
    alone: dict[str, float]

    @property
    def lost(self) -> float:
        return max(self.alone.values()) - self.chosen

    @property
    def over(self) -> float:
        """Against the best that uses no unlabelled images."""
        return self.chosen - max(self.alone.get(name, 0.0) for name in LABELS_ONLY)


def choices() -> list[Choice]:
    """Of each cell the means over draws.

    Of `auto` only the draws made by the code that made the last of a cell, and of those the ones
    that every method has which has any.
    """
    newest = {}
    for line in record.read("regret"):
        source, method = split_name(line["name"])
        if (method, line["kind"], line["budget"]) == ("auto", "final", "3m"):
            newest[source, line["per_class"]] = line["commit"]
    lines = [line for line in record.final("regret") if line["budget"] == "3m"]
    found: dict[tuple[str, int], dict[str, dict[int, float]]] = {}
    for line in lines:
        source, method = split_name(line["name"])
        key = source, line["per_class"]
        if method != "auto" or line["commit"] == newest[key]:
            by_draw = found.setdefault(key, {}).setdefault(method, {})
            by_draw[line["draw"]] = line["figures"]["test_accuracy"]
    made = []
    for (source, n), cell in sorted(found.items()):
        draws = set(cell.get("auto", {}))
        cell = {name: by_draw for name, by_draw in cell.items() if draws & by_draw.keys()}
        draws = draws.intersection(*map(set, cell.values()))
        means = {
            name: mean(by_draw[draw] for draw in draws) for name, by_draw in cell.items() if draws
        }
        if len(means) < 2:
            continue
        made.append(Choice(source, n, sorted(draws), means.pop("auto"), means))
    return made


def regret() -> str:
    """Of `auto` and of every method alone, the mean accuracy of each cell; and what `auto` lost."""
    made = choices()
    methods = [name for name in METHODS if any(name in cell.alone for cell in made)]
    rows = []
    for cell in made:
        alone = [percent(cell.alone[name]) if name in cell.alone else "–" for name in methods]
        points = [f"{100 * cell.lost:+.1f}", f"{100 * cell.over:+.1f}"]
        which = f"{cell.draws[0]} to {cell.draws[-1]}"
        chosen = f"**{percent(cell.chosen)}**"
        rows.append([cell.source, cell.per_class, which, chosen, *alone, *points])
    if made:
        means = [mean(cell.lost for cell in made), mean(cell.over for cell in made)]
        points = [f"**{100 * share:+.1f}**" for share in means]
        rows.append(["mean", "", "", "", *[""] * len(methods), *points])
    header = ["source", "labels per class", "draws", "auto", *methods, "regret"]
    return markdown([*header, "over the best without unlabelled images"], rows)


def regret_in_words() -> str:
    made = choices()
    lost = [100 * cell.lost for cell in made]
    worst = made[lost.index(max(lost))]
    return (
        f"On {len(made)} pairs of data set and number of labels, with 3 minutes on one thread, the "
        f"choice lost {mean(lost):.1f} points beside the best method alone in the mean, and "
        f"{max(lost):.1f} in the worst ({worst.source}, {worst.per_class} labels per class)."
    )


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


def budgets() -> str:
    """Of each method what a fit took, beside what it was given."""
    found: dict[tuple[str, ...], Lines] = {}
    for line in record.read("budgets"):
        if "turns" in line["figures"]:
            source, method = split_name(line["name"])
            key = (f"`{method}`", source, line["hardware"], line["budget"])
            found.setdefault(key, []).append(line)
    rows = []
    for key, lines in sorted(found.items(), key=_by_budget):
        over = ", ".join(f"{_over(line):+.1f} %" for line in lines)
        turns = ", ".join(str(line["figures"]["turns"]) for line in lines)
        rows.append([*key, f"**{over}**", turns, accuracy(lines)])
    header = ["method", "source", "on", "budget", "longer by", "turns", "development accuracy"]
    return markdown(header, rows)


def budgets_kept() -> str:
    """How many fits of one method met their budget, with steps fixed before and with a last step
    that moves on the way."""
    found: dict[tuple[str, ...], list[float]] = {}
    for line in record.read("budgets"):
        if split_name(line["name"])[1] != AUTO:
            way = "moved on the way" if "turns" in line["figures"] else "fixed before the first"
            found.setdefault((way, line["hardware"], line["budget"]), []).append(_over(line))
    rows = [
        [*key, str(len(over)), str(sum(abs(share) <= 5 for share in over)), _ends(over)]
        for key, over in sorted(found.items(), key=_by_budget)
    ]
    header = ["last step", "on", "budget", "fits", "within 5 %", "from, to"]
    return markdown(header, rows)


def _by_budget(row: tuple[tuple[str, ...], Any]) -> tuple[Any, ...]:
    """To sort rows by: what their key names, and the budget that is its last as a time."""
    *named, budget = row[0]
    return *named, in_seconds(budget)


def _over(line: Line) -> float:
    """By how many per cent a fit took longer than its budget."""
    return round(100 * (line["figures"]["seconds"] / in_seconds(line["budget"]) - 1), 3)


def _ends(shares: Sequence[float]) -> str:
    return f"{min(shares):+.1f} to {max(shares):+.1f} %"


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
            rows.append([*key, *cells, f"**{gained.mean:+.1f}**", _interval(gained)])
    header = ["source", "labels per class", "budget", "on", "method", "against", "draws"]
    return markdown([*header, "supervised", "this method", "difference", "90 % interval"], rows)


def probes() -> str:
    """What three probes read off each frozen encoder, over seeds of encoder and probe."""
    found: dict[str, Lines] = {}
    for line in record.final("probes"):
        found.setdefault(line["name"], []).append(line)
    rows = []
    for name, lines in found.items():
        figures = [line["figures"] for line in lines]
        read = [mean_spread([one[probe] for one in figures]) for probe in PROBES]
        rows.append([name, len(lines), figures[-1]["features"], *read])
    return markdown(["encoder", "seeds", "features", *PROBES], rows)


def recipes() -> str:
    """Every recipe: what its report published, and what was measured."""
    known = measured()
    rows = []
    for name, recipe in RECIPES.items():
        found = known.get(name)
        report = recipe.report or "–"
        cells = [f"`{name}`", report, recipe.what, published(recipe.published)]
        if found is None:
            rows.append([*cells, "–", recipe.data[-1].title, f"about {recipe.minutes:g}"])
            continue
        spread = f" ± {100 * found.std:.1f}" if found.std is not None else ""
        ours = f"**{100 * found.mean:.1f}**{spread} % (n = {found.n})"
        about = f"about {recipe.minutes:g}"
        rows.append([*cells, ours, found.on, f"{found.minutes:.1f}" if found.minutes else about])
    header = ["recipe", "report", "what", "published", "ours", "on", "minutes a draw"]
    return markdown(header, rows)


def gap() -> str:
    """Of rows as they are and with one thing changed, seed by seed, what the change does."""
    found: dict[str, Lines] = {}
    for line in record.final("gap"):
        found.setdefault(line["name"], []).append(line)
    rows = []
    for name, lines in found.items():
        recipe, variant = name.split(", ")
        as_is = {line["draw"]: _accuracy(line) for line in record.final("recipes", recipe)}
        both = [line for line in lines if line["draw"] in as_is]
        gained = spread([100 * (_accuracy(line) - as_is[line["draw"]]) for line in both])
        change = both[0]["figures"].get("pixel_change")
        cells = [f"`{recipe}`", variant, f"{change:.1f}" if change else "–", len(both)]
        means = [mean_spread([as_is[line["draw"]] for line in both]), accuracy(both)]
        rows.append([*cells, *means, f"**{gained.mean:+.1f}**", _interval(gained)])
    header = ["recipe", "changed", "a pixel by, of 255", "seeds", "as it is", "changed so"]
    return markdown([*header, "difference", "90 % interval"], rows)


def twins() -> str:
    """Recipes beside others on the same draws of labels, draw by draw."""
    rows = []
    for name, against in TWINS:
        ours, theirs = (
            {line["draw"]: _accuracy(line) for line in record.final("recipes", one)}
            for one in (name, against)
        )
        draws = sorted(ours.keys() & theirs.keys())
        gained = spread([100 * (ours[draw] - theirs[draw]) for draw in draws])
        means = [mean_spread([one[draw] for draw in draws]) for one in (theirs, ours)]
        interval = _interval(gained, 2)
        difference = f"**{gained.mean:+.2f}**"
        rows.append([f"`{name}`", f"`{against}`", len(draws), *means, difference, interval])
    header = ["recipe", "against", "draws", "that one", "this one", "difference", "90 % interval"]
    return markdown(header, rows)


def _interval(gained: Spread, digits: int = 1) -> str:
    """Of a difference in points; a dash where one draw tells none."""
    if gained.low is None or gained.high is None:
        return "–"
    return f"{gained.low:+.{digits}f} to {gained.high:+.{digits}f}"


def _accuracy(line: Line) -> float:
    found: float = line["figures"]["test_accuracy"]
    return found


def simclr_seeds() -> str:
    """The best row of SimCLR from each seed of pre-training, over draws of labels."""
    lines = record.final("recipes", BEST_SIMCLR)
    by_seed = {"0": lines} if lines else {}
    for line in record.final("pretraining_seeds"):
        recipe, seed = line["name"].split(", pre-training seed ")
        if recipe == BEST_SIMCLR:
            by_seed.setdefault(seed, []).append(line)
    rows = [[seed, len(some), accuracy(some)] for seed, some in sorted(by_seed.items())]
    means = [mean(line["figures"]["test_accuracy"] for line in x) for x in by_seed.values()]
    if len(means) > 1:
        rows.append(["all", "", f"**{100 * mean(means):.1f}** ± {100 * stdev(means):.1f} %"])
    return markdown(["seed of pre-training", "draws of labels", "test accuracy"], rows)


def method_settings(name: str) -> str:
    """The fields of a method, from its source."""
    rows = [[f"`{f.name}`", f"`{f.default}`", f.comment] for f in fields.settings(METHODS[name])]
    return markdown(["setting", "default", "what it is"], rows)


def method_figures(name: str) -> str:
    """Every final row and every recipe that was run with a method, by itself or after a stage."""
    recipes = [x for x in record.final("recipes") if made_by(RECIPES[x["name"]], x)]
    recipes.sort(key=lambda line: list(RECIPES).index(line["name"]))
    curves = [x for x in record.final("curves") if x["settings"]["per_class"] == PER_CLASS]
    files: tuple[tuple[Lines, Callable[[Line], str]], ...] = (
        (record.final("draws"), _row_title),
        (record.final("minutes", apart="hardware"), _timed_title),
        (curves, _curve_title),
        (recipes, _recipe_title),
    )
    rows = []
    for every, what in files:
        titled: dict[str, Lines] = {}
        for line in every:
            method = line["settings"]["method"]
            if name in (method["name"], method.get("then")):
                titled.setdefault(what(line), []).append(line)
        rows += [[title, accuracy(some), minutes(some)] for title, some in titled.items()]
    if rows:
        return markdown(["task", "test accuracy", "time a draw"], rows)
    if any(line["settings"]["method"]["name"] == name for line in record.read("minutes")):
        return "No final figures yet; [results.md](results.md) has some of development draws."
    return "No final figures yet."


def _row_title(line: Line) -> str:
    name: str = line["name"]
    return HEADLINE[name][0] if name in HEADLINE else name


def _timed_title(line: Line) -> str:
    source, method = split_name(line["name"])
    times = f"{line['per_class']} labels per class, `--budget {line['budget']}`"
    return f"{source}, {times}: `{method}` ({line['hardware'].split(', ')[2]})"


def _curve_title(line: Line) -> str:
    made = line["settings"]
    return f"{made['source']} at {made['size']} pixels, {made['per_class']} labels per class"


def _recipe_title(line: Line) -> str:
    return f"`{line['name']}`: {RECIPES[line['name']].what}"


TABLES: dict[str, Callable[[], str]] = {
    "recipes": recipes,
    **{f"settings_{name}": partial(method_settings, name) for name in METHODS},
    **{f"figures_{name}": partial(method_figures, name) for name in METHODS},
    "headline": headline,
    "draws": draws,
    "throughput": throughput,
    "features_speed": features_speed,
    "curves": curves,
    "coverage": coverage,
    "coverage_pooled": coverage_pooled,
    "label_problems": label_problems,
    "ingest": ingest,
    "active": active,
    "forecast": forecast,
    "peers": peers,
    "regret": regret,
    "regret_in_words": regret_in_words,
    "ingest_in_words": ingest_in_words,
    "gap": gap,
    "simclr_seeds": simclr_seeds,
    "minutes": minutes_grid,
    "budgets": budgets,
    "budgets_kept": budgets_kept,
    "timed": timed,
    "twins": twins,
    "pairs": pairs,
    "probes": probes,
}


def accuracy(lines: Lines) -> str:
    found = [line["figures"]["test_accuracy"] for line in lines]
    return f"{mean_spread(found)} (n = {len(found)})"


def mean_spread(found: Sequence[float]) -> str:
    """Mean and standard deviation, in percent."""
    around = f" ± {100 * stdev(found):.1f}" if len(found) > 1 else ""
    return f"**{100 * mean(found):.1f}**{around} %"


def published(report: float | None) -> str:
    return percent(report) if report is not None else "–"


def minutes(lines: Lines) -> str:
    seconds = mean(line["figures"]["seconds"] for line in lines)
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def command(lines: Lines) -> str:
    return f"`{lines[-1]['command']}`"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def markdown(header: list[str], rows: Iterable[list[Any]]) -> str:
    body = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in body)


def rendered(page: str) -> str:
    def fill(found: re.Match[str]) -> str:
        return f"<!-- table {found[1]} -->\n{TABLES[found[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", fill, page, flags=re.DOTALL)


def main() -> None:
    stale = [path for path in PAGES if rendered(path.read_text()) != path.read_text()]
    if "--check" in sys.argv:
        sys.exit(f"run python benchmarks/tables.py: {', '.join(map(str, stale))}" if stale else 0)
    for path in stale:
        path.write_text(rendered(path.read_text()))


if __name__ == "__main__":
    main()
