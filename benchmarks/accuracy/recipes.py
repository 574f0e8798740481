"""Run recipes on final draws and keep a line of each: what `handful recipes` shows as measured.

    python -m benchmarks run recipes mnist-mlp mnist-cnn            # the draws that each asks for
    python -m benchmarks run recipes cifar10-cnn-norm --draws 0-4 --out runs/cifar10-cnn-norm
    python -m benchmarks run recipes --list                         # what there is, what it takes
    python -m benchmarks run recipes cifar10-cnn-seeds --plot       # docs/cifar10-cnn-seeds.svg

A draw that has its line already, of the settings that the recipe has today, is not run again, nor
one of which another recipe that is the same run has a line: that line is repeated. --again runs it
all the same. With --out a run folder is left for each draw, a stopped run goes on, and the curves
are in the line. Afterwards: python -m benchmarks resources.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from benchmarks.lib import arguments, record
from benchmarks.lib.measured import made_by
from benchmarks.lib.paths import DOCS
from handful.pipeline.recipes import RECIPES, find
from handful.pipeline.recipes.recipe import Recipe
from handful.pipeline.recipes.reproduce import DrawResult, reproduce
from handful.progress import Reporter
from handful.report.seed_curves import plot_curves, read_history

TOLD = ("name", "report", "what", "published", "correction", "minutes", "draws")  # not run
KEPT = ("method", "schedule", "backbone", "input", "training")


def main() -> None:
    options = parse()
    if options.list:
        for recipe in RECIPES.values():
            done = len(known(recipe))
            print(f"{recipe.name:32} {done} of {recipe.draws} draws, {recipe.minutes:g} min each")
        return
    for recipe in map(find, options.names):
        plot(recipe) if options.plot else run(recipe, options)


def run(recipe: Recipe, options: argparse.Namespace) -> None:
    draws = options.draws or range(recipe.draws)
    if not options.again:
        repeat(recipe, set(draws) - known(recipe))
    done = set() if options.again else known(recipe)
    todo = [draw for draw in draws if draw not in done]
    if not todo:
        print(f"{recipe.name}: all draws are there", flush=True)
        return
    reporter = Reporter(say=lambda text: print(text, flush=True))
    out = Path(options.out) / recipe.name if options.out else None
    for outcome in reproduce(recipe, todo, out, reporter=reporter):
        keep(recipe, outcome)
        print(f"draw {outcome.draw}: {outcome.accuracy:.4f}, {outcome.seconds:.0f} s", flush=True)


def keep(recipe: Recipe, outcome: DrawResult) -> None:
    made = outcome.run.record
    figures = {
        "test_accuracy": round(outcome.accuracy, 5),
        "n_test": outcome.n,
        "seconds": outcome.seconds,
        "training_seconds": made["training"]["seconds"],
    }
    settings = {key: made[key] for key in KEPT}
    more = {"draw": outcome.draw, "on": outcome.on, "settings": settings}
    if outcome.run.folder is not None:
        more["history"] = [
            {key: float(f"{value:.4g}") for key, value in look.items()}
            for look in read_history(outcome.run.folder)
        ]
    record.append("recipes", recipe.name, "final", figures, **more)


def repeat(recipe: Recipe, draws: set[int]) -> None:
    """Of draws that a recipe which is the same run has lines of, the lines under this name too."""
    told = {field: getattr(recipe, field) for field in TOLD}
    same = [
        other
        for other in RECIPES.values()
        if other.name != recipe.name and replace(other, **told) == recipe
    ]
    lines = [x for x in record.read("recipes") if any(made_by(other, x) for other in same)]
    for line in {line["draw"]: line for line in lines}.values():
        if line["draw"] in draws:
            record.write("recipes", line | {"name": recipe.name, "same_run": line["name"]})
            print(f"{recipe.name}: draw {line['draw']} is that of {line['name']}", flush=True)


def plot(recipe: Recipe) -> None:
    """The curves of every draw whose line has them, and their band."""
    lines = [x for x in record.read("recipes") if made_by(recipe, x) and x.get("history")]
    histories = {line["draw"]: line["history"] for line in lines}
    if not histories:
        raise SystemExit(f"no line of {recipe.name} has curves; run it with --out")
    n = len(histories)
    plot_curves(histories, DOCS / f"{recipe.name}.svg", f"{recipe.name}, {n} seeds")


def known(recipe: Recipe) -> set[int]:
    """Draws of the recipe, as it is today, that have a line."""
    return {line["draw"] for line in record.read("recipes") if made_by(recipe, line)}


def draw_range(text: str) -> range:
    ends = [int(end) for end in text.split("-")]
    return range(ends[0], ends[-1] + 1)


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("names", nargs="*", help="recipes")
    parser.add_argument("--draws", type=draw_range, help="such as 0-4")
    parser.add_argument("--out", help="folder for the run folders")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--plot", action="store_true", help="draw the curves in the lines, and end")
    return parser.parse_args()


if __name__ == "__main__":
    main()
