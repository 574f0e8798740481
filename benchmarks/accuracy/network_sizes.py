"""Heads on frozen features: which networks, at which size of image, with mirrored views or not.

    python -m benchmarks run network_sizes --sizes 96 --draws 3
    python -m benchmarks run network_sizes --sources sign-digits steel --sizes 224 --mirrored

A draw labels 4 or 10 images of each class. The pool is of the other images to label from; of
`tin10` five of six images of the pool are of other classes, as in its folder. LABELED images of the
training part are to label from, at most, and SCORED others are scored. With `--mirrored` the
features are the mean over an image and its mirror image, for images in colour. Development draws
only. A draw that has its line is not made again.
"""

import argparse
from itertools import product

import numpy as np
import torch

from benchmarks.lib import arguments, record
from benchmarks.lib.pools import ALL_SIZES, opened, parts
from handful import methods
from handful.data.imageset import ImageSet
from handful.data.splits import draw as drawn
from handful.methods.base import classifier
from handful.methods.class_shares import fit_head
from handful.methods.linear_head import Features
from handful.models.feature_cache import features
from handful.pipeline.options import InputSpec
from handful.pipeline.setup import default_backbone, make_task

FILE = "network_sizes"
NETWORKS = ("lite0", "lite0+lite2")
METHODS = ("features", "gaussian_mixture", "self_training")
PER_CLASS = (4, 10)
LABELED, SCORED = 2_400, 1_600  # images to label from, and to score on
FOREIGN = 3_000  # images of other classes, of tin10
FOREIGN_SHARE = 5 / 6  # of the pool of tin10


def main() -> None:
    options = parse()
    draws = range(1000, 1000 + options.draws)
    for source, size in product(options.sources, options.sizes):
        to_label, to_score, foreign = image_sets(source)
        view = "mirrored" if options.mirrored else "plain"
        if view == "mirrored" and to_label.channels == 1:
            continue
        for network in options.networks:
            name = f"{source} {network} {size} {view}"
            missing = [x for x in draws if not record.recorded(FILE, name, "dev", x)]
            if not missing:
                continue
            known, scored, others = (
                embedded(some, network, size, view) for some in (to_label, to_score, foreign)
            )
            for draw in missing:
                figures = {}
                for per_class in PER_CLASS:
                    chosen = drawn(to_label.labels, per_class, draw)
                    pool = pool_of(known, others, chosen, draw)
                    for method in METHODS:
                        head = fit_head(
                            methods.make(method),
                            known[chosen],
                            torch.from_numpy(to_label.labels[chosen]),
                            pool,
                            to_label.num_classes,
                            draw,
                        )
                        with torch.inference_mode():
                            guesses = head(scored).argmax(dim=1).numpy()
                        right = float((guesses == to_score.labels).mean())
                        figures[f"{method} {per_class}"] = round(right, 5)
                print(name, draw, figures, flush=True)
                if not options.dry:
                    record.append(FILE, name, "dev", figures, draw=draw)


def image_sets(source: str) -> tuple[ImageSet, ImageSet, ImageSet]:
    """Images to label from, images to score on, and images of other classes."""
    images = opened(source)
    to_label, to_score = parts(images, "dev", 3_000)
    count = min(FOREIGN, len(images.unlabeled))
    others = np.random.default_rng(0).choice(images.unlabeled, count, replace=False)
    return to_label[:LABELED], to_score[:SCORED], images[np.sort(others)]


def embedded(images: ImageSet, network: str, size: int, view: str) -> torch.Tensor:
    """(N, D) float32 features; "mirrored": the mean with those of the mirror images."""
    task = make_task(images, default_backbone(Features(), network), InputSpec(size))
    body = classifier(task)
    body.head = torch.nn.Identity()
    if not len(images):
        return torch.empty(0, int(task.make_backbone().width))
    found = features(task.images, body, size).float()
    if view == "plain":
        return found
    return (found + features(task.images, body, size, view="flipped").float()) / 2


def pool_of(
    known: torch.Tensor, foreign: torch.Tensor, chosen: np.ndarray, draw: int
) -> torch.Tensor:
    """(M, D) features of the unlabelled images of a draw."""
    others = np.setdiff1d(np.arange(len(known)), chosen)
    others = np.random.default_rng(draw).permutation(others)
    if not len(foreign):
        return known[others]
    count = int(len(foreign) * (1 - FOREIGN_SHARE) / FOREIGN_SHARE)
    return torch.cat([known[others[:count]], foreign])


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("--sources", nargs="+", default=list(ALL_SIZES), choices=list(ALL_SIZES))
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[96, 160])
    parser.add_argument("--mirrored", action="store_true")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
