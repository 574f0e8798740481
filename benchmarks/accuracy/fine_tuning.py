"""Fine-tuning that starts in different ways, with a fixed number of steps.

    python -m benchmarks run fine_tuning dev --sources cifar10-jpeg --steps 150
    python -m benchmarks run fine_tuning dev --sources tin10 --set frozen_parts=5

A draw labels 10 images of each class; MOST images are the pool, and MOST others are scored. Each
start gets the same draws, images and steps. A draw that has its line is not made again.
"""

import argparse
import time
from itertools import product

import handful
from benchmarks.lib import arguments, record
from benchmarks.lib.pools import ALL_SIZES, opened, parts
from handful.cli.options import pairs
from handful.data.splits import draw as drawn
from handful.progress import Reporter

FILE = "fine_tuning"
STARTS = {
    "random head": {"first_head": "random", "embed_head": "self_training"},
    "fitted head": {"first_head": "linear", "embed_head": "self_training"},
    "mixture": {"embed_head": "gaussian_mixture", "embed_backbone": "lite0+lite2"},
}
PER_CLASS = 10
MOST = 3_000
SIZE = 96


def main() -> None:
    options = parse()
    first = 1000 if options.part == "dev" else 0
    given = pairs(options.set)
    for source, draw in product(options.sources, range(first, first + options.draws)):
        to_label, to_score = parts(opened(source), options.part, MOST)
        seen = to_label.seen(drawn(to_label.labels, PER_CLASS, draw))
        for start in options.starts:
            name = " ".join([source, start, *options.set])
            if record.recorded(FILE, name, options.part, draw):
                continue
            size = {"embed_size": str(ALL_SIZES[source]), "steps": str(options.steps)}
            settings = size | STARTS[start] | given
            begun = time.perf_counter()
            run = handful.fit(
                seen,
                "fine_tuning",
                seed=draw,
                size=SIZE,
                estimate="none",
                settings=settings,
                reporter=Reporter(say=lambda text: print(text, flush=True)),
            )
            seconds = round(time.perf_counter() - begun, 1)
            figures = {
                "test_accuracy": round(run.evaluate(to_score).accuracy, 5),
                "seconds": seconds,
            }
            print(name, draw, figures, flush=True)
            if not options.dry:
                record.append(FILE, name, options.part, figures, draw=draw, settings=settings)


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("part", choices=("dev", "final"))
    parser.add_argument("--sources", nargs="+", default=["cifar10-jpeg"], choices=list(ALL_SIZES))
    parser.add_argument("--starts", nargs="+", default=list(STARTS), choices=list(STARTS))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--set", nargs="+", default=[], help="settings of the method, NAME=VALUE")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
