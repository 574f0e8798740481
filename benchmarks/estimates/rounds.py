"""Rounds of labelling as `label-next.csv` offers them: accuracy, estimate and its interval.

    python -m benchmarks run rounds dev   --draws 10
    python -m benchmarks run rounds final --draws 10 --rules random all --methods features race

A draw divides the images of a source anew into those to label from and those that are scored, which
are the truth. It begins with 20 labels of random images. Each round labels as many images as there
are labels, up to 160, and fits on all labels so far. Rules to choose by:

- random: random images, all of which count;
- all: a quarter is random; the others are chosen by the classifier of all labels, away from all
  labelled images and from the random ones of the round;
- outside: as `all`, but the classifier learned only the labels that do not count, and the choice is
  away from these only, once there are as many of them;
- cover: by the classifier of all labels, away from images whose labels do not count, once there are
  OUTSIDE of them, as `suggest` does it;
- apart: as `all`, but not away from the random images of the same round;
- taught: as `cover`, by a classifier that learned the labels that do not count, and guesses for as
  many random images as there are others;
- blind: as `outside`, from the first round on: without other labels all images weigh the same.

The method is `features`, or `race`: what the rules of `auto` select among heads (`lib/raced.py`).
Features are the first AXES principal axes of all images of a source, found without labels: heads
on them are as good as on all, and faster. One line holds all draws of a source, a rule and a
method; those that have theirs are not made again.
"""

import argparse
import time
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.lib import arguments, record
from benchmarks.lib.pools import ALL_SIZES, pool
from benchmarks.lib.raced import raced
from handful import methods
from handful.evaluation.accuracy_estimate import estimate
from handful.evaluation.active_learning import OUTSIDE, RANDOM_SHARE, RANK, doubt, herd
from handful.evaluation.calibration import calibrated
from handful.evaluation.cross_validation import OutOfFold, Scheme, out_of_fold
from handful.methods.heads import principal

SOURCES = ("digits", "mnist", "sign-digits", "tin10", "cifar10-jpeg")
RULES = ("random", "all", "outside", "cover", "taught", "apart", "blind")
STEPS = (20, 40, 80, 160)
MOST = 2_000  # images of a source to label from, and to score on
AXES = 256
FOLDS = Scheme(folds=10, repeats=2, halves=1)


class Data(NamedTuple):
    """(M, AXES) features to label from, (T, AXES) to score on, and the class numbers of both."""

    source: str
    x: Tensor
    labels: np.ndarray
    scored: Tensor
    truth: np.ndarray
    classes: int


class Fit(NamedTuple):
    """A head on the labels so far, and what the labels say of it."""

    method: str
    head: nn.Module
    out: OutOfFold


def main() -> None:
    options = parse()
    first = options.first + (1000 if options.part == "dev" else 0)
    draws = list(range(first, first + options.draws))
    for source in options.sources:
        whole = None
        for method in options.methods:
            for rule in options.rules:
                name = f"{source} {rule} {method}"
                if record.recorded("rounds", name, options.part, draws[0]):
                    continue
                whole = whole or loaded(source, options.part)
                figures = together([run(divided(whole, at), rule, method, at) for at in draws])
                print(name, summary(figures), flush=True)
                if not options.dry:
                    settings = {"axes": AXES, "pool": len(whole.labels), "labels": STEPS}
                    record.append(
                        "rounds", name, options.part, figures, draw=draws[0], settings=settings
                    )


def together(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Key → (draws, steps) figures, in lists."""
    figures: dict[str, Any] = {key: [row[key] for row in rows] for key in rows[0]}
    return figures | {"seconds": round(sum(figures["seconds"]), 1)}


def summary(figures: dict[str, Any]) -> str:
    """Of every step: mean accuracy, mean error of the estimate ± its standard error, held."""
    truth, found, low, high = (
        np.array(figures[key], float) for key in ("truth", "accuracy", "low", "high")
    )
    error = found - truth
    spread = np.nanstd(error, axis=0, ddof=1) / np.sqrt(len(error))
    held = ((low <= truth) & (truth <= high)).mean(axis=0)
    return "; ".join(
        f"{100 * truth[:, at].mean():.1f} {100 * np.nanmean(error[:, at]):+.1f} "
        f"± {100 * spread[at]:.1f} {100 * held[at]:.0f} %"
        for at in range(len(STEPS))
    )


def loaded(source: str, part: str) -> Data:
    whole = pool(source, part, MOST)
    coordinates = principal(whole.features, AXES)
    x, scored = (coordinates.of(some) for some in (whole.features, whole.scored))
    return Data(source, x, whole.labels, scored, whole.truth, whole.classes)


def divided(whole: Data, draw: int) -> Data:
    """The images divided anew: a fixed scored part would be as wrong in every draw."""
    x, labels = torch.cat([whole.x, whole.scored]), np.concatenate([whole.labels, whole.truth])
    order = np.random.default_rng([draw, 1]).permutation(len(labels))
    inside, outside = order[: len(whole.labels)], order[len(whole.labels) :]
    return whole._replace(
        x=x[inside], labels=labels[inside], scored=x[outside], truth=labels[outside]
    )


def run(data: Data, rule: str, method: str, draw: int) -> dict[str, Any]:
    """Figures of each step, in lists."""
    begun = time.perf_counter()
    random = np.random.default_rng([draw, 2])
    labeled = random.choice(len(data.labels), STEPS[0], replace=False)
    counted = np.ones(len(labeled), bool)
    figures: dict[str, list[Any]] = {}
    fit = fitted(data, labeled, method, draw)
    for step in STEPS:
        if step > len(labeled):
            found, drawn = offered(data, labeled, counted, fit, rule, step - len(labeled), random)
            labeled = np.concatenate([labeled, found])
            counted = np.concatenate([counted, drawn])
            fit = fitted(data, labeled, method, draw)
        origins = np.where(counted, "random", "chosen").tolist()
        found_estimate = estimate(fit.out, origins=origins)
        with torch.inference_mode():
            right = fit.head(data.scored).argmax(dim=1).numpy() == data.truth
        for key, value in {
            "truth": float(right.mean()),
            **{key: getattr(found_estimate, key) for key in ("accuracy", "low", "high")},
            "method": fit.method,
        }.items():
            rounded = round(value, 4) if isinstance(value, float) else value
            figures.setdefault(key, []).append(rounded)
    return figures | {"seconds": round(time.perf_counter() - begun, 1)}


def fitted(data: Data, labeled: np.ndarray, method: str, seed: int) -> Fit:
    """The head of all labels so far: of `features`, or of what is selected among heads."""
    rest = np.setdiff1d(np.arange(len(data.labels)), labeled)
    x, labels, pool = data.x[labeled], torch.from_numpy(data.labels[labeled]), data.x[rest]

    def head_of(name: str, train: np.ndarray) -> nn.Module:
        made: Any = methods.make(name)
        return made.fit_features(x[train], labels[train], pool, data.classes, seed)

    def folds(name: str, scheme: Scheme) -> OutOfFold:
        def predicted(train: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray:
            with torch.inference_mode():
                return head_of(name, train)(x[held]).softmax(dim=1).numpy()

        return out_of_fold(labels.numpy(), data.classes, predicted, scheme, seed)

    if method == "race":
        return Fit(*raced(data.source, x, labels, pool, data.classes, seed))
    return Fit(method, head_of(method, np.arange(len(x))), folds(method, FOLDS))


def offered(
    data: Data,
    labeled: np.ndarray,
    counted: np.ndarray,
    fit: Fit,
    rule: str,
    count: int,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of `count` images to label next, and whether each was drawn at random."""
    left = random.permutation(np.setdiff1d(np.arange(len(data.labels)), labeled))
    drawn = count if rule == "random" else round(RANDOM_SHARE * count)
    chosen, others = left[:drawn], left[drawn:]
    outside = labeled[~counted]
    head: nn.Module | None = fit.head
    covered = np.concatenate([labeled, chosen])
    if rule in ("cover", "taught") and len(outside) >= OUTSIDE:
        covered = outside
        if rule == "taught":
            head = taught(data, fit, outside, random.choice(left, int(counted.sum()), False))
    elif rule == "apart":
        covered = labeled
    elif rule == "blind" or (rule == "outside" and len(outside) >= OUTSIDE):
        labels, covered, head = torch.from_numpy(data.labels[outside]), outside, None
        if len(labels.unique()) > 1:
            made: Any = methods.make("features")
            head = made.fit_features(data.x[outside], labels, data.x[:0], data.classes, 0)
    found = np.empty(0, np.int64)
    if count > drawn:
        weights = torch.ones(len(others)) if head is None else doubts(head, data.x[others], fit)
        coordinates = principal(data.x[left], RANK)
        known, some = (F.normalize(coordinates.of(data.x[at])) for at in (covered, others))
        found = others[herd(some, known, weights, count - drawn)]
    return np.concatenate([chosen, found]), np.arange(count) < drawn


def taught(data: Data, fit: Fit, outside: np.ndarray, guessed: np.ndarray) -> nn.Module:
    """A head of the labels of some images, and of guesses for others."""
    with torch.inference_mode():
        guesses = fit.head(data.x[guessed]).argmax(dim=1)
    x = data.x[np.concatenate([outside, guessed])]
    labels = torch.cat([torch.from_numpy(data.labels[outside]), guesses.clone()])
    made: Any = methods.make("features")
    learned: nn.Module = made.fit_features(x, labels, data.x[:0], data.classes, 0)
    return learned


def doubts(head: nn.Module, x: Tensor, fit: Fit) -> Tensor:
    """(m,) doubt of a head about images, at the temperature of the fit."""
    with torch.inference_mode():
        guesses = head(x).softmax(dim=1).double().numpy()
    return doubt(torch.from_numpy(calibrated(guesses, estimate(fit.out).temperature)).float())


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("part", choices=("dev", "final"))
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=list(ALL_SIZES))
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=RULES)
    parser.add_argument("--methods", nargs="+", default=["features"], choices=["features", "race"])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
