"""Pre-trained networks trained further, from different starts, with a fixed number of steps.

    python -m benchmarks run fine_tuning dev --sources cifar10-jpeg --steps 150
    python -m benchmarks run fine_tuning dev --starts "last layers" --steps 120
    python -m benchmarks run fine_tuning dev --starts "fitted head" --shares 0 0.3 0.5
    python -m benchmarks run fine_tuning dev --starts "fixmatch, fitted head" --steps 80

A draw labels 10 images of each class; MOST images are the pool, and MOST others are scored. Each
start gets the same draws, images and steps. A draw that has its lines is not made again. One
training serves all shares of the first weights in the saved ones.

"last layers" is the default: lite2 at 160 pixels. The other starts of `fine_tuning` train all
layers of lite0 at 96 pixels, with the statistics of batch norm.
"""

import argparse
import time
from dataclasses import replace
from itertools import product

import handful
from benchmarks.lib import arguments, record
from benchmarks.lib.pools import ALL_SIZES, opened, parts
from handful.cli.options import pairs
from handful.data.imageset import ImageSet
from handful.data.splits import draw as drawn
from handful.pipeline.options import InputSpec
from handful.pipeline.run import Run
from handful.pipeline.setup import prepare
from handful.progress import Reporter
from handful.training.loop import fresh
from handful.training.weight_average import Average

FILE = "fine_tuning"
_ALL = {"trained_layers": "all", "frozen_norm": "false", "unlabeled_ratio": "8"}
STARTS = {
    "last layers": {"embed_backbone": "lite0+lite2"},
    "random head": {"first_head": "random", "embed_head": "self_training"} | _ALL,
    "fitted head": {"first_head": "linear", "embed_head": "self_training"} | _ALL,
    "mixture": {"embed_head": "gaussian_mixture", "embed_backbone": "lite0+lite2"} | _ALL,
    "fixmatch, random head": {"first_head": "random"},
    "fixmatch, fitted head": {"first_head": "linear"},
}
NETWORKS = {"last layers": ("lite2", 160)}  # and the side of its images in pixels
NETWORK = ("lite0", 96)  # of the other starts
PER_CLASS = 10
MOST = 3_000


def main() -> None:
    options = parse()
    first = 1000 if options.part == "dev" else 0
    given = pairs(options.set)
    for source, draw in product(options.sources, range(first, first + options.draws)):
        to_label, to_score = parts(opened(source), options.part, MOST)
        seen = to_label.seen(drawn(to_label.labels, PER_CLASS, draw))
        for start in options.starts:
            names = {share: name_of(source, start, options.set, share) for share in options.shares}
            if all(record.recorded(FILE, name, options.part, draw) for name in names.values()):
                continue
            method, network = method_of(start), NETWORKS.get(start, NETWORK)
            other = method == "fine_tuning" and start not in NETWORKS
            size = {"embed_size": str(ALL_SIZES[source])} if other else {}
            settings = size | {"steps": str(options.steps)} | STARTS[start] | given
            begun, busy = time.perf_counter(), time.process_time()
            run = trained(seen, method, network, settings, draw)
            figures = {
                "seconds": round(time.perf_counter() - begun, 1),
                "processor_seconds": round(time.process_time() - busy, 1),
            }
            for share, name in names.items():
                scored = with_start(run, seen, method, network, settings, draw, share)
                right = round(scored.evaluate(to_score).accuracy, 5)
                figures |= {"test_accuracy": right}
                print(name, draw, figures, flush=True)
                if options.dry or record.recorded(FILE, name, options.part, draw):
                    continue
                used = settings | ({"start_share": str(share)} if share else {})
                record.append(FILE, name, options.part, dict(figures), draw=draw, settings=used)


def name_of(source: str, start: str, given: list[str], share: float) -> str:
    return " ".join([source, start, *given, *([f"start_share={share:g}"] if share else [])])


def method_of(start: str) -> str:
    return start.split(",")[0] if "," in start else "fine_tuning"


def trained(
    seen: ImageSet, method: str, network: tuple[str, int], settings: dict[str, str], draw: int
) -> Run:
    backbone, size = network
    return handful.fit(
        seen,
        method,
        backbone=backbone,
        seed=draw,
        size=size,
        estimate="none",
        settings=settings,
        reporter=Reporter(say=lambda text: print(text, flush=True)),
    )


def with_start(
    run: Run,
    seen: ImageSet,
    method: str,
    network: tuple[str, int],
    settings: dict[str, str],
    draw: int,
    share: float,
) -> Run:
    """The run as a training with this `start_share` leaves it."""
    if not share:
        return run
    backbone, size = network
    how = {"inputs": InputSpec(size), "settings": settings}
    resolved, task = prepare(seen, method, backbone=backbone, **how)
    average = Average(fresh(resolved.method, task, draw), 0.0, share)
    average.model.load_state_dict(run.predictor.model.state_dict())
    return replace(run, predictor=replace(run.predictor, model=average.mixed))


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("part", choices=("dev", "final"))
    parser.add_argument("--sources", nargs="+", default=["cifar10-jpeg"], choices=list(ALL_SIZES))
    parser.add_argument("--starts", nargs="+", default=list(STARTS), choices=list(STARTS))
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument(
        "--shares", nargs="+", type=float, default=[0.0], help="of the first weights"
    )
    parser.add_argument("--set", nargs="+", default=[], help="settings of the method, NAME=VALUE")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
