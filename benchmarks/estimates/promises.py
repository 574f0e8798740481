"""Is every number in a promise true? Abstention, none of these, recall, groups, guessing.

    python -m benchmarks run promises dev
    python -m benchmarks run promises final --checks labels none

Features of EfficientNet-Lite0 as in `coverage`; development draws are seeds from 1000 on training
images, final ones seeds from 0 on test images. One line a check and cell:

    labels      a draw of labels, a fit of `features`, its estimate. Of the threshold for each
                target accuracy: in how many draws it was given, in how many its answers on new
                images are right less often than promised. Of the recall of each class: how often
                its interval holds the true one, by the number of labels of the class
    none        a run of few images of eight of ten classes: the share of other images of these
                eight classes that are flagged, beside what is promised, and of the two others
    groups      96 to 120 labels that are frames of 16 to 40 scenes (an image with noise on its
                features): how often the interval holds the accuracy on new scenes
    guessing    labels dealt as noise over eleven classes: what is said of such a model
    flat        a method that more labels do not help (nearest mean of two classes): what the
                correction for more labels adds where a measured loss counts, and where it is 0
"""

import argparse
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.estimates.coverage import Pool, drawn, tuned
from benchmarks.lib import arguments, record
from handful.errors import HandfulError
from handful.evaluation.accuracy_estimate import Estimate, estimate, learning_curve_correction
from handful.evaluation.calibration import TARGET_ACCURACIES, calibrated
from handful.evaluation.cross_validation import Scheme, out_of_fold
from handful.evaluation.novelty import fit_in_distribution

SIZES = {"mnist": 64, "fashion-mnist": 64, "cifar10-jpeg": 96}  # pixels the network sees
KINDS, PER_CLASS = ("natural", "unbalanced"), (10, 25)
NEW = 5_000  # images of a draw that the truth is taken on
IMAGES = (9, 20, 30, 49, 100, 146, 300)  # that a run has seen
KNOWN = 8  # classes of these
SCENES = {"16 of 6": (16, 6), "40 of 3": (40, 3), "30 uneven": (30, 0)}
NOISE = 0.3  # between the frames of a scene, in standard deviations of a feature
DEALT = 11  # classes of labels that are noise
BUCKETS = (5, 10, 15, 25, 1_000_000)  # labels of a class, from one up to below the next
Row = dict[str, Any]


def main() -> None:
    options = parse()
    first = 1000 if options.part == "dev" else 0
    pools: dict[str, Pool] = {}
    for name, source, run, draws in cells(options):
        if any((x["name"], x["kind"]) == (name, options.part) for x in record.read("promises")):
            continue
        if source and source not in pools:
            pools[source] = Pool(source, options.part, SIZES[source])
        figures = run(pools.get(source), range(first, first + draws))
        print(name, figures, flush=True)
        if not options.dry:
            record.append("promises", name, options.part, figures, settings={"size": SIZES})


Check = Callable[[Any, range], Row]


def cells(options: argparse.Namespace) -> list[tuple[str, str, Check, int]]:
    """Name, source, check and number of draws of every cell that is asked for."""
    found: list[tuple[str, str, Check, int]] = []
    for check in options.checks:
        if check == "flat":
            found += [(f"flat {n}", "", _flat(n), 10 * options.draws) for n in (20, 60)]
        for source in () if check == "flat" else options.sources:
            for name, run in CHECKS[check](options):
                found.append((f"{check} {source} {name}".strip(), source, run, options.draws))
    return found


def _labels(options: argparse.Namespace) -> list[tuple[str, Check]]:
    return [
        (f"{kind} {n}", lambda pool, draws, kind=kind, n=n: labels(pool, kind, n, draws))
        for n in options.per_class
        for kind in KINDS
    ]


def labels(pool: Pool, kind: str, per_class: int, draws: range) -> Row:
    """What became of the thresholds and of the intervals of recall, over draws of labels."""
    thresholds: dict[float, list[tuple[bool, float]]] = defaultdict(list)  # missed, answered
    recalls: dict[int, list[tuple[bool, bool, float]]] = defaultdict(list)  # held, lower, width
    for seed in draws:
        positions, shares = drawn(pool, kind, per_class, seed)
        known, x = pool.labels[positions], pool.features[positions]
        found, fit = _estimate(x, known, pool.classes, seed)
        rest = np.setdiff1d(np.arange(len(pool.labels)), positions)
        rest = np.random.default_rng(seed).permutation(rest)[:NEW]
        truth = pool.labels[rest]
        weights = (shares / np.bincount(truth, minlength=pool.classes))[truth]
        predicted = calibrated(
            fit(x, known, pool.classes, seed)(pool.features[rest]), found.temperature
        )
        right, sure = predicted.argmax(axis=1) == truth, predicted.max(axis=1)
        for row in found.abstentions:
            answered = weights * (sure >= row.threshold)
            accuracy = float(answered @ right / max(answered.sum(), 1e-12))
            share = float(answered.sum() / weights.sum())
            thresholds[row.target_accuracy].append((accuracy < row.target_accuracy, share))
        for one in found.per_class:
            recall = right[truth == one.label].mean()
            bucket = max(least for least in BUCKETS if one.n >= least)
            held = (one.low <= recall <= one.high, one.low <= recall, one.high - one.low)
            recalls[bucket].append(held)
    return {
        "draws": len(draws),
        "labels": per_class * pool.classes,
        "thresholds": {
            str(target): {
                "given": len(thresholds[target]),
                "missed": sum(missed for missed, _ in thresholds[target]),
                "answered": _mean([share for _, share in thresholds[target]]),
            }
            for target in TARGET_ACCURACIES
        },
        "recall": {
            str(least): {
                "classes": len(rows),
                "covered": _mean([row[0] for row in rows]),
                "lower_covered": _mean([row[1] for row in rows]),
                "width": _mean([row[2] for row in rows]),
            }
            for least, rows in sorted(recalls.items())
        },
    }


def _estimate(
    x: torch.Tensor,
    known: np.ndarray,
    classes: int,
    seed: int,
    groups: np.ndarray | None = None,
    scheme: Scheme | None = None,
) -> tuple[Estimate, Any]:
    """The estimate of `features` on x (n, D) with labels (n,), and the function that fits it."""
    fit = tuned("features", x, known, classes, seed)

    def fit_and_predict(train: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray:
        return fit(x[train], known[train], classes, seed)(x[held])

    scheme = scheme or Scheme()
    out = out_of_fold(known, classes, fit_and_predict, scheme, seed=seed, groups=groups)
    return estimate(out), fit


def _none(_: argparse.Namespace) -> list[tuple[str, Check]]:
    return [(f"{n}", lambda pool, draws, n=n: none(pool, n, draws)) for n in IMAGES]


def none(pool: Pool, images: int, draws: range) -> Row:
    """The share of images that are flagged, of the kinds that a run has seen and of others."""
    own, other, promised = [], [], 0.0
    for seed in draws:
        order = np.random.default_rng([seed, images]).permutation(len(pool.labels))
        seen = order[pool.labels[order] < KNOWN]
        strange = order[pool.labels[order] >= KNOWN][:500]
        known = fit_in_distribution(pool.features[seen[:images]], seed)
        promised = float(known.flagged)
        for into, new in ((own, seen[images : images + 2000]), (other, strange)):
            into.append(float(known.out_of_distribution(pool.features[new]).float().mean()))
    error = float(np.std(own, ddof=1) / np.sqrt(len(own)))
    return {
        "draws": len(draws),
        "images": images,
        "promised": round(promised, 4),
        "flagged": _mean(own),
        "error": round(error, 4),
        "strange_flagged": _mean(other),
    }


def _groups(_: argparse.Namespace) -> list[tuple[str, Check]]:
    return [
        (name, lambda pool, draws, name=name: grouped(pool, SCENES[name], draws)) for name in SCENES
    ]


def grouped(pool: Pool, scenes: tuple[int, int], draws: range) -> Row:
    """How often the interval holds the accuracy on new scenes, labels being frames of scenes."""
    rows = []
    for seed in draws:
        generator = np.random.default_rng([seed, 7])
        count, frames = scenes
        sizes = np.full(count, frames) if frames else np.minimum(generator.geometric(0.25, 30), 25)
        scene = generator.choice(len(pool.labels), count, replace=False)
        groups = np.repeat(np.arange(count), sizes)
        x, known = _frames(pool, scene[groups], generator), pool.labels[scene[groups]]
        try:
            found, fit = _estimate(x, known, pool.classes, seed, groups)
        except HandfulError:  # a fold without two classes
            continue
        if found.accuracy is None:
            continue
        rest = generator.permutation(np.setdiff1d(np.arange(len(pool.labels)), scene))[:NEW]
        predicted = fit(x, known, pool.classes, seed)(_frames(pool, rest, generator))
        truth = float((predicted.argmax(axis=1) == pool.labels[rest]).mean())
        rows.append((truth, found.accuracy, found.low, found.high))
    truth, middle, low, high = np.array(rows, dtype=float).T
    return {
        "draws": len(rows),
        "covered": _mean((low <= truth) & (truth <= high)),
        "lower_covered": _mean(low <= truth),
        "width": _mean(high - low),
        "gap": _mean(middle - truth),
    }


def _frames(pool: Pool, positions: np.ndarray, generator: np.random.Generator) -> torch.Tensor:
    """Features of images with noise, as frames of one scene differ."""
    x = pool.features[positions]
    noise = torch.from_numpy(generator.normal(size=x.shape)).float()
    return x + NOISE * pool.features[:2000].std(dim=0) * noise


def _guessing(_: argparse.Namespace) -> list[tuple[str, Check]]:
    return [("", guessing)]


def guessing(pool: Pool, draws: range) -> Row:
    """What is said of models of labels that have nothing to do with the images, by five folds."""
    said, added, held = [], [], []
    for seed in draws:
        generator = np.random.default_rng([seed, 11])
        x = pool.features[generator.choice(len(pool.labels), 120, replace=False)]
        found, _ = _estimate(x, generator.integers(DEALT, size=120), DEALT, seed, None, ONCE)
        assert found.accuracy is not None and found.low is not None and found.high is not None
        said.append(found.guessing)
        added.append(found.learning_curve)
        held.append(found.low <= 1 / DEALT <= found.high)
    return {
        "draws": len(draws),
        "said": _mean(said),
        "added": _mean(added),
        "most_added": round(max(added), 4),
        "covered": _mean(held),
    }


ONCE = Scheme(5, 1, 0)


def _flat(n: int) -> Check:
    return lambda pool, draws: flat(n, draws)


def flat(n: int, draws: range) -> Row:
    """The correction for more labels where they bring nothing: as measured, and without losses."""
    added, without_losses, off, off_without = [], [], [], []
    for seed in draws:
        generator = np.random.default_rng([seed, n])
        known = generator.integers(2, size=n)
        x = 1.5 * known[:, None] + generator.normal(size=(n, 1))
        if min(np.bincount(known, minlength=2)) < 4:
            continue

        def fit_and_predict(
            train: np.ndarray, held: np.ndarray, seed: int, x: Any = x, known: Any = known
        ) -> np.ndarray:
            sides = [x[train][known[train] == k] for k in (0, 1)]
            middle = np.mean([side.mean() for side in sides if len(side)])
            return np.eye(2)[(x[held, 0] > middle).astype(int)]

        out = out_of_fold(known, 2, fit_and_predict, seed=seed)
        correction = learning_curve_correction(out, np.full(n, 1 / n))
        truth = _truth(x, known)
        plain = float(out.right.mean())
        added.append(correction)
        without_losses.append(max(correction, 0.0))
        off.append(plain + correction - truth)
        off_without.append(plain + max(correction, 0.0) - truth)
    return {
        "draws": len(added),
        "added": _mean(added),
        "added_without_losses": _mean(without_losses),
        "gap": _mean(off),
        "gap_without_losses": _mean(off_without),
        "error": round(float(np.sqrt(np.mean(np.square(off)))), 4),
        "error_without_losses": round(float(np.sqrt(np.mean(np.square(off_without)))), 4),
    }


def _truth(x: np.ndarray, known: np.ndarray) -> float:
    """Accuracy of the nearest mean on two normal distributions 1.5 apart."""
    from scipy.stats import norm

    middle = np.mean([x[known == k].mean() for k in (0, 1)])
    return float((norm.cdf(middle) + norm.sf(middle - 1.5)) / 2)


def _mean(values: Any) -> float:
    return round(float(np.mean(values)), 4) if len(values) else 0.0


CHECKS: dict[str, Callable[[argparse.Namespace], list[tuple[str, Check]]]] = {
    "labels": _labels,
    "none": _none,
    "groups": _groups,
    "guessing": _guessing,
}


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    every = (*CHECKS, "flat")
    parser.add_argument("part", choices=("dev", "final"))
    parser.add_argument("--checks", nargs="+", default=every, choices=every)
    parser.add_argument("--sources", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--per-class", nargs="+", type=int, default=PER_CLASS)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
