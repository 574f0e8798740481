"""What a `--budget` says and what a fit takes, of each method.

    python -m benchmarks run budgets mnist --budgets 1m --draws 3

Development draws with ten labels per class. `auto` estimates within its budget, the others make
one fit. Nothing is known from earlier fits: features and stages without labels are made anew. A
cell that has its line from this hardware is not made again; one for which the budget is too short
is left out.
"""

import argparse
import os
import tempfile
from itertools import product
from unittest.mock import patch

from benchmarks.accuracy.minutes import TRAINED
from benchmarks.lib import arguments, record
from benchmarks.lib.cells import FIRST_DEVELOPMENT, SOURCES, Cell, fill_if_time_does, opened
from handful.pipeline.auto.select import AUTO

FILE = "budgets"
PER_CLASS = 10
METHODS = (*TRAINED, "simclr", "vicreg", "autoencoder", AUTO)
OF_COLOR = ("cmc", "fine_tuning")  # for photographs only


def main() -> None:
    options = parse()
    hardware = record.hardware()
    draws = range(FIRST_DEVELOPMENT, FIRST_DEVELOPMENT + options.draws)
    every = product(options.sources, draws, options.budgets, options.methods)
    for source, draw, budget, method in every:
        cell = Cell(source, PER_CLASS, method, draw, budget, "dev", hardware=hardware)
        opened(source, cell.part)  # its pixels stay in the cache that they are in
        with tempfile.TemporaryDirectory() as cache, patch.dict(os.environ, HANDFUL_CACHE=cache):
            fill_if_time_does(cell, FILE)


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("sources", nargs="+", metavar="SOURCE", choices=SOURCES)
    parser.add_argument("--budgets", nargs="+", default=["1m"])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS + OF_COLOR)
    return parser.parse_args()


if __name__ == "__main__":
    main()
