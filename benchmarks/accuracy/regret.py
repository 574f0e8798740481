"""What `auto` loses to the best method of each cell: source x labels per class x draw.

    python -m benchmarks run regret dev   --sources digits --per-class 10 --draws 1
    python -m benchmarks run regret final --budget 3m

Every method gets the same draws and the same budget; `auto` has to estimate within it, too, where
the others spend all of it on the one fit. A cell's regret is the mean accuracy of the best single
method less that of `auto`. Development draws are seeds from 1000 on, scored on a part cut from the
training images. A cell that has its line is not made again.
"""

import argparse
from dataclasses import replace
from itertools import product
from statistics import mean

from benchmarks.lib import arguments
from benchmarks.lib.cells import FIRST_DEVELOPMENT, SOURCES, Cell, accuracies, fill
from handful.pipeline.auto.select import AUTO

FILE = "regret"
METHODS = (
    AUTO,
    "features",
    "self_training",
    "gaussian_mixture",
    "propagation",
    "supervised",
    "fixmatch",
    "deep_propagation",
    "fine_tuning",
)


def main() -> None:
    options = parse()
    first = options.first + (FIRST_DEVELOPMENT if options.part == "dev" else 0)
    for source in options.sources:
        for per_class in options.per_class:
            cell = Cell(source, per_class, AUTO, first, options.budget, options.part)
            draws = range(first, first + options.draws)
            pairs = product(draws, options.methods)
            every = (replace(cell, draw=draw, method=method) for draw, method in pairs)
            fill(every, FILE, dry=options.dry)
            show(cell)


def show(cell: Cell) -> None:
    """The mean of every method on the draws that all of them have, and the regret."""
    cells = {method: accuracies(FILE, replace(cell, method=method)) for method in METHODS}
    cells = {method: found for method, found in cells.items() if found}
    shared = set.intersection(*map(set, cells.values())) if cells else set()
    if not shared:
        return
    means = {method: mean(found[draw] for draw in shared) for method, found in cells.items()}
    shown = ", ".join(f"{method} {100 * share:.1f}" for method, share in means.items())
    print(f"{cell.source}, {cell.per_class} per class, {len(shared)} draws: {shown}")
    if AUTO in means and len(means) > 1:
        best = max(share for method, share in means.items() if method != AUTO)
        print(f"  regret {100 * (best - means[AUTO]):.1f} points", flush=True)


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("part", choices=("dev", "final"))
    arguments.add_cells(parser, SOURCES, METHODS, draws=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
