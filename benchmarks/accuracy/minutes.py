"""Accuracy against minutes: each method with several budgets on the same draws of labels.

    python -m benchmarks run minutes dev mnist --budgets 30s 1m 2m 4m
    python -m benchmarks run minutes final fashion-mnist sign-digits --budgets 5m \\
        --methods supervised fixmatch --draws 5
    python -m benchmarks run minutes final tin10 --budgets 60m --methods simclr \\
        --set backbone=fast size=32 temperature=0.1 --draws 5
    python -m benchmarks run minutes --plot                # docs/minutes.svg from the dev lines

Nothing is estimated: all the time goes into the one fit. Each budget is a fit of its own, with a
schedule made for it; only a stage that sees no label is shared by the draws. A cell that has its
line from this hardware is not made again; one for which the budget is too short is left out.
"""

import argparse
from itertools import product

import matplotlib
import numpy as np

from benchmarks.lib import arguments, record
from benchmarks.lib.cells import FIRST_DEVELOPMENT, SOURCES, Cell, accuracies, fill_if_time_does
from benchmarks.lib.paths import DOCS
from handful.methods import METHODS
from handful.text import in_seconds

FILE = "minutes"
TRAINED = (
    "supervised",
    "pseudo_label",
    "mean_teacher",
    "uda",
    "fixmatch",
    "softmatch",
    "deep_propagation",
)
BUDGETS = ("30s", "1m", "2m", "4m")
DRAWS = 3
PER_CLASS = 10
PLOT = DOCS / "minutes.svg"


def main() -> None:
    options = parse()
    if options.plot:
        return plot()
    first = options.first + (FIRST_DEVELOPMENT if options.part == "dev" else 0)
    draws = range(first, first + options.draws)
    shared = {"given": tuple(options.set), "hardware": record.hardware()}
    cells = (
        Cell(source, options.per_class, method, draw, budget, options.part, **shared)
        for source, draw, budget, method in product(
            options.sources, draws, options.budgets, options.methods
        )
    )
    for cell in cells:
        fill_if_time_does(cell, FILE, dry=options.dry)


def plot() -> None:
    """A line a method on MNIST, 10 labels per class: the mean over development draws.

    Minutes are the same on the same hardware only: that of the last line.
    """
    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "minutes", "font.size": 9})
    figure, panel = pyplot.subplots(figsize=(5.6, 3.4), layout="constrained")
    draws = range(FIRST_DEVELOPMENT, FIRST_DEVELOPMENT + DRAWS)
    mine = [x for x in record.read(FILE) if x["kind"] == "dev" and x["name"].startswith("mnist-")]
    on = mine[-1]["hardware"] if mine else ""
    for method in TRAINED:
        points = {}
        for budget in BUDGETS:
            cell = Cell("mnist", PER_CLASS, method, draws[0], budget, "dev", hardware=on)
            found = accuracies(FILE, cell)
            if all(draw in found for draw in draws):
                points[in_seconds(budget) / 60] = [100 * found[draw] for draw in draws]
        if points:
            y = np.array(list(points.values()))  # (budgets, draws)
            (line,) = panel.plot(list(points), y.mean(axis=1), marker="o", ms=3, label=method)
            panel.plot(list(points), y, ".", ms=3, alpha=0.35, color=line.get_color())
    minutes = [in_seconds(budget) / 60 for budget in BUDGETS]
    panel.set(xscale="log", xlabel="minutes on one thread", ylabel="accuracy, %")
    panel.set_xticks(minutes, [f"{x:g}" for x in minutes])
    panel.minorticks_off()
    panel.grid(alpha=0.3)
    panel.legend(frameon=False, fontsize=8)
    figure.savefig(PLOT, metadata={"Date": None})


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("part", nargs="?", choices=("dev", "final"))
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help=", ".join(SOURCES))
    parser.add_argument("--methods", nargs="+", default=list(TRAINED), choices=METHODS)
    parser.add_argument("--budgets", nargs="+", default=list(BUDGETS))
    parser.add_argument("--per-class", type=int, default=PER_CLASS)
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE")
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--plot", action="store_true", help="draw docs/minutes.svg and end")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    options = parser.parse_args()
    if unknown := set(options.sources) - set(SOURCES):
        parser.error(f"no source {', '.join(sorted(unknown))}; choose from {', '.join(SOURCES)}")
    if not options.plot and not options.sources:
        parser.error("say dev or final, and at least one source")
    return options


if __name__ == "__main__":
    main()
