"""The recipes, beside their reports and beside each other."""

from statistics import mean, stdev

from benchmarks.lib import record
from benchmarks.lib.tables.shown import (
    accuracy,
    accuracy_of,
    interval_of,
    markdown,
    mean_spread,
    published,
)
from handful.pipeline.compare import spread
from handful.pipeline.recipes import RECIPES
from handful.pipeline.recipes.measured import measured

# Recipes that are compared draw by draw.
TWINS = (
    ("mnist-uda-simple-cnn", "mnist-uda-simple-cnn-labels"),
    ("mnist-uda-deep-cnn", "mnist-uda-deep-cnn-labels"),
    ("mnist-uda-threshold", "mnist-uda-deep-cnn-labels"),
    ("mnist-uda-threshold", "mnist-uda-deep-cnn"),
)
BEST_SIMCLR = "mnist-simclr-resnet-128-full"


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


def twins() -> str:
    """Recipes beside others on the same draws of labels, draw by draw."""
    rows = []
    for name, against in TWINS:
        ours, theirs = (
            {line["draw"]: accuracy_of(line) for line in record.final("recipes", one)}
            for one in (name, against)
        )
        draws = sorted(ours.keys() & theirs.keys())
        gained = spread([100 * (ours[draw] - theirs[draw]) for draw in draws])
        means = [mean_spread([one[draw] for draw in draws]) for one in (theirs, ours)]
        interval = interval_of(gained, 2)
        difference = f"**{gained.mean:+.2f}**"
        rows.append([f"`{name}`", f"`{against}`", len(draws), *means, difference, interval])
    header = ["recipe", "against", "draws", "that one", "this one", "difference", "90 % interval"]
    return markdown(header, rows)


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
