"""Heads on features in int8, beside the same heads on features in 32 bits.

    python -m benchmarks run int8 --draws 8
    python -m benchmarks run int8 --sources steel tin10 --networks lite0+lite2

A draw labels 4 or 10 images of each class; the other images to label from are the pool. Development
draws only: 1,500 images of the training part are to label from, at most, and as many others are
scored. A draw that has its line is not made again.
"""

import argparse
from itertools import product

import numpy as np
import torch

from benchmarks.lib import arguments, record
from benchmarks.lib.pools import ALL_SIZES, Pool, pool
from handful import methods
from handful.data.splits import draw as drawn
from handful.methods.class_shares import fit_head
from handful.models.engine import INT8

FILE = "int8"
NETWORKS = ("lite0", "lite0+lite2")
METHODS = ("features", "gaussian_mixture", "self_training")
PRECISIONS = ("fp32", INT8)
PER_CLASS = (4, 10)
MOST = 1_500


def main() -> None:
    options = parse()
    for source, network in product(options.sources, options.networks):
        name = f"{source} {network}"
        draws = range(1000, 1000 + options.draws)
        missing = [x for x in draws if not record.recorded(FILE, name, "dev", x)]
        if not missing:
            continue
        pools = {kind: pool(source, "dev", MOST, network, kind) for kind in PRECISIONS}
        for draw in missing:
            figures = {
                f"{kind} {method} {count}": accuracy(found, method, count, draw)
                for (kind, found), method, count in product(pools.items(), METHODS, PER_CLASS)
            }
            print(name, draw, figures, flush=True)
            if not options.dry:
                record.append(FILE, name, "dev", figures, draw=draw)


def accuracy(of: Pool, method: str, per_class: int, draw: int) -> float:
    """The share of the scored images that a head is right on."""
    chosen = drawn(of.labels, per_class, draw)
    head = fit_head(
        methods.make(method),
        of.features[chosen],
        torch.from_numpy(of.labels[chosen]),
        of.features[np.setdiff1d(np.arange(len(of.labels)), chosen)],
        of.classes,
        draw,
    )
    with torch.inference_mode():
        guesses = head(of.scored).argmax(dim=1).numpy()
    return round(float((guesses == of.truth).mean()), 5)


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("--sources", nargs="+", default=list(ALL_SIZES), choices=list(ALL_SIZES))
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
