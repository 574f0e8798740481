"""What `auto` and single methods reach on folders that no setting was chosen on.

    python -m benchmarks run unseen_folders letters $HANDFUL_DATA/letters --files /usr/share/fonts
    python -m benchmarks run unseen --sources letters --per-class 4 10 --draws 1

Cells are as those of `regret`; 40 % of the images of a folder are scored. What is found here may
change how `auto` works, but not its constants: a folder on which something was tuned is not unseen.
"""

import argparse
from itertools import product

from benchmarks.lib import arguments
from benchmarks.lib.cells import UNSEEN, Cell, fill
from handful.pipeline.auto.select import AUTO

FILE = "unseen"
METHODS = (AUTO, "features", "gaussian_mixture", "self_training", "supervised", "fine_tuning")


def main() -> None:
    options = parse()
    draws = range(options.first, options.first + options.draws)
    for source, per_class, draw in product(options.sources, options.per_class, draws):
        cells = (
            Cell(source, per_class, method, draw, options.budget, "final")
            for method in options.methods
        )
        fill(cells, FILE, dry=options.dry)


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    arguments.add_cells(parser, UNSEEN, METHODS, draws=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
