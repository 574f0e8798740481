"""Methods on frozen features where the unlabelled images have other class shares than the labels.

    python -m benchmarks run pool_shares dev   --draws 3
    python -m benchmarks run pool_shares final --draws 3

A draw makes a pool whose commonest class is 1, 10 or 20 times as common as the rarest, in an order
of the draw, and labels 4 or 10 images for each class: the same number of every class, taken beside
the pool ("balanced"), or images of the pool at random ("natural"). In "offered" a quarter is of
random images, and in two rounds as many again are labelled as `label-next.csv` offers them; in
"picked" the others are as many of each class as there are. Both have figures "_of_all", with shares
in which chosen labels count in any case, and "_of_random", in which they never do. In the cells
"half outside" and "all outside" the images without a label are, to a half or all of them, of
classes that no label names (tin10 only). Every method fits a head; it is scored on images that are
never labelled, weighted so that classes are as common as in the pool. "auto" is the head that the
rules of `auto` select (`lib/raced.py`). Features are the first 256
principal axes of all images of a source, found without labels: heads on them are as good as on all,
and faster. A draw that has its line is not made again.
"""

import argparse
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from benchmarks.lib import arguments, record
from benchmarks.lib.pools import MORE_SIZES, Pool, embedded, opened, pool
from benchmarks.lib.raced import raced
from handful import methods
from handful.evaluation.active_learning import suggest
from handful.methods.class_shares import (
    EQUAL,
    ClassShares,
    calibrated_predictions,
    combined_shares,
    estimated_shares,
    even_counts,
    fit_head,
    towards_equal,
)
from handful.methods.class_shares import POOL as SHARES_POOL
from handful.methods.heads import principal

METHODS = ("features", "self_training", "propagation", "gaussian_mixture")
KINDS = ("balanced", "natural", "offered", "picked")
RATIOS = (1, 10, 20)
PER_CLASS = (4, 10)
OUTSIDE = {"half outside": 0.5, "all outside": 1.0}  # share of foreign images in the pool
MOST = 4_000  # images of a source to label from, and to score on
POOL = 2_000  # unlabelled images
AXES = 256
SURE = 1.645  # standard deviations of a 90 % interval


class Data(NamedTuple):
    """A source in principal axes, and foreign images where it has some."""

    source: Pool
    foreign: torch.Tensor  # (F, AXES)


class Draw(NamedTuple):
    """Labelled and unlabelled images of one draw, and the class shares of the unlabelled ones."""

    labeled: torch.Tensor
    labels: torch.Tensor
    unlabeled: torch.Tensor
    shares: np.ndarray  # (K,)
    counted: torch.Tensor  # (n,) whether a label is of an image that was not chosen


def main() -> None:
    options = parse()
    first = options.first + (1000 if options.part == "dev" else 0)
    for source in options.sources:
        data = None
        for draw in range(first, first + options.draws):
            for cell in cells(source, options.kinds):
                name = f"{source} {cell}"
                if record.recorded("pool_shares", name, options.part, draw):
                    continue
                data = data or loaded(source, options.part)
                figures = run(source, data, cell, draw)
                print(name, draw, figures, flush=True)
                settings = {"size": MORE_SIZES[source], "axes": AXES, "pool": POOL}
                if not options.dry:
                    record.append(
                        "pool_shares", name, options.part, figures, draw=draw, settings=settings
                    )


def cells(source: str, kinds: Sequence[str] = KINDS) -> list[str]:
    """Names of cells: ratio or foreign share, kind of labels, labels per class."""
    pools = [f"{ratio}:1" for ratio in RATIOS]
    found = [f"{x} {kind} {n}" for x in pools for kind in kinds for n in PER_CLASS]
    if source == "tin10" and "balanced" in kinds:
        found += [f"{outside} balanced {n}" for outside in OUTSIDE for n in PER_CLASS]
    return found


def loaded(source: str, part: str) -> Data:
    whole = pool(source, part, MOST)
    coordinates = principal(whole.features, AXES)
    foreign = torch.empty(0, AXES)
    if source == "tin10":
        images = opened(source)
        order = np.random.default_rng(0).permutation(images.unlabeled)
        foreign = coordinates.of(embedded(images[order[:POOL]], MORE_SIZES[source]))
    scored = evenly(whole.truth, 2 * MOST)
    reduced = whole._replace(
        features=coordinates.of(whole.features),
        scored=coordinates.of(whole.scored[scored]),
        truth=whole.truth[scored],
    )
    return Data(reduced, foreign)


def evenly(items: np.ndarray, most: int) -> np.ndarray:
    return np.arange(len(items))[:: -(-len(items) // most)]


def drawn(data: Data, cell: str, seed: int) -> Draw:
    *kind_of_pool, kind, number = cell.split()
    per_class, what = int(number), " ".join(kind_of_pool)
    ratio = 1 if what in OUTSIDE else int(what.split(":")[0])
    source, generator = data.source, np.random.default_rng([seed, per_class, ratio])
    classes, labels = source.classes, source.labels
    shares = generator.permutation(np.geomspace(1, 1 / ratio, classes))
    everyone = np.arange(len(labels))
    n = per_class * classes
    first = n if kind == "natural" else n // 4  # images that are drawn at random
    counted = np.ones(n if kind == "balanced" else first, bool)
    if kind == "balanced":
        chosen = np.concatenate(
            [_some(generator, everyone[labels == k], per_class) for k in range(classes)]
        )
        inside = _by_shares(generator, np.setdiff1d(everyone, chosen), labels, shares, POOL)
    else:
        together = _by_shares(generator, everyone, labels, shares, POOL + n)
        chosen = _some(generator, together, first)
        if kind == "picked":
            picked = _even(generator, np.setdiff1d(together, chosen), labels, n - first)
            chosen, counted = np.append(chosen, picked), np.arange(first + len(picked)) < first
        while kind == "offered" and len(chosen) < n:
            found, random = _offered(source, together, chosen, counted, generator, seed)
            chosen, counted = np.append(chosen, found), np.append(counted, random)
        inside = np.setdiff1d(together, chosen)
    unlabeled = source.features[inside]
    if what in OUTSIDE:
        kept = 0 if OUTSIDE[what] == 1 else len(inside)
        foreign = len(inside) if kept else POOL
        unlabeled = torch.cat([unlabeled[:kept], data.foreign[:foreign]])
    known = torch.from_numpy(labels[chosen])
    return Draw(
        source.features[chosen],
        known,
        unlabeled,
        shares / shares.sum(),
        torch.from_numpy(counted),
    )


def _offered(
    source: Pool,
    together: np.ndarray,
    labeled: np.ndarray,
    counted: np.ndarray,
    generator: np.random.Generator,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """As many images as are labelled, as `label-next.csv` offers them, and which are random."""
    left = generator.permutation(np.setdiff1d(together, labeled))
    x, some = source.features[labeled], source.features[left]
    known = torch.from_numpy(source.labels[labeled])
    guesses = calibrated_predictions(x, known, some, source.classes, seed)
    probabilities, count = torch.from_numpy(guesses).float(), len(labeled)
    found = suggest(some, x, probabilities, count, torch.from_numpy(counted))
    random = np.array([one.why == "random" for one in found])
    return left[[one.position for one in found]], random


def _even(
    generator: np.random.Generator, positions: np.ndarray, labels: np.ndarray, n: int
) -> np.ndarray:
    """`n` of the positions, as many of each class as there are in turn."""
    shuffled = generator.permutation(positions)
    rank = np.zeros(len(shuffled), int)
    for k in np.unique(labels):
        of_class = labels[shuffled] == k
        rank[of_class] = np.arange(of_class.sum())
    return shuffled[np.argsort(rank, kind="stable")[:n]]


def _some(generator: np.random.Generator, positions: np.ndarray, n: int) -> np.ndarray:
    return generator.choice(positions, n, replace=False)


def _by_shares(
    generator: np.random.Generator,
    positions: np.ndarray,
    labels: np.ndarray,
    shares: np.ndarray,
    most: int,
) -> np.ndarray:
    """At most `most` of the positions, classes in the proportion of `shares` (K,), none empty."""
    there = np.bincount(labels[positions], minlength=len(shares))
    scale = min(float((there / shares).min()), most / shares.sum())
    wanted = np.maximum(1, np.round(scale * shares)).astype(int)
    return np.concatenate(
        [_some(generator, positions[labels[positions] == k], n) for k, n in enumerate(wanted)]
    )


def run(source: str, data: Data, cell: str, seed: int) -> dict[str, Any]:
    """Accuracy and seconds of every method, and how far the estimated shares are from the truth.

    `shares_apart` is the sum of absolute differences, `shares_inside` the part of classes whose
    share lies in its 90 % interval; `labels_apart` is that of the shares of the labels.
    """
    made = drawn(data, cell, seed)
    classes, truth = data.source.classes, data.source.truth
    weights = (made.shares / np.bincount(truth, minlength=classes))[truth]
    found = shares_of(made, classes, seed, made.counted)
    seen = np.bincount(made.labels.numpy(), minlength=classes) / len(made.labels)
    chosen = raced(source, made.labeled, made.labels, made.unlabeled, classes, seed, made.counted)
    figures: dict[str, Any] = {
        "auto": round(right_share(chosen.head, data, weights), 5),
        "auto_method": chosen.method,
        "pool": len(made.unlabeled),
        "shares_apart": round(float(np.abs(found.mean - made.shares).sum()), 4),
        "labels_apart": round(float(np.abs(seen - made.shares).sum()), 4),
        "shares_inside": round(
            float((np.abs(found.mean - made.shares) <= SURE * found.sd).mean()), 4
        ),
    }
    ways: dict[str, Any] = {"": None}
    if not made.counted.all():
        every = torch.ones_like(made.counted)
        ways["_of_all"] = shares_of(made, classes, seed, every).mean
        ways["_of_random"] = shares_of_random(made, classes, seed)
    for way, shares in ways.items():
        if shares is not None:
            figures["shares_apart" + way] = round(float(np.abs(shares - made.shares).sum()), 4)
        for name in METHODS if shares is None else METHODS[1:]:
            begun = time.perf_counter()
            head = fit_head(
                methods.make(name),  # type: ignore[arg-type]
                made.labeled,
                made.labels,
                made.unlabeled,
                classes,
                seed,
                shares,
                made.counted,
            )
            seconds = time.perf_counter() - begun
            figures[name + way] = round(right_share(head, data, weights), 5)
            figures[f"{name}{way}_seconds"] = round(seconds, 2)
    return figures


def right_share(head: nn.Module, data: Data, weights: np.ndarray) -> float:
    """Weighted share of the scored images that a head has right."""
    with torch.inference_mode():
        right = head(data.source.scored).argmax(dim=1).numpy() == data.source.truth
    return float(weights @ right)


def shares_of(made: Draw, classes: int, seed: int, counted: torch.Tensor) -> ClassShares:
    return estimated_shares(made.labeled, made.labels, made.unlabeled, classes, seed, counted)


def shares_of_random(made: Draw, classes: int, seed: int) -> np.ndarray:
    """(K,) shares as `estimated_shares` has them if chosen labels never count."""
    predicted = calibrated_predictions(made.labeled, made.labels, made.unlabeled, classes, seed)
    seen, told = (
        np.bincount(some.numpy(), minlength=classes)
        for some in (made.labels, made.labels[made.counted])
    )
    images = EQUAL + told * (not even_counts(made.labels[made.counted].numpy()))
    weight = min(1.0, SHARES_POOL * len(made.labels) / len(made.unlabeled))
    return towards_equal(combined_shares(predicted, seen / seen.sum(), images, weight)).mean


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("part", choices=("dev", "final"))
    parser.add_argument("--sources", nargs="+", default=list(MORE_SIZES), choices=list(MORE_SIZES))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
