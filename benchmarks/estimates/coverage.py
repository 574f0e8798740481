"""How often the interval of an estimate holds the truth: many draws of labels, each scored.

    python -m benchmarks run coverage dev   --draws 200
    python -m benchmarks run coverage final --draws 200 --sources mnist --per-class 10
    python -m benchmarks run coverage dev   --table

One pool of 10,000 images a source: a part of the training images (dev, seeds from 1000), or the
test images (final, seeds from 0). A draw takes `per-class` labels times the number of classes from
the pool; the truth is the accuracy of the model fitted on all of them on the rest of the pool,
each class weighted by its share in the population that the labels were drawn from:

    natural     any image of the pool with the same chance
    unbalanced  classes differ in how common they are by up to 20 to 1, in an order of the draw
    balanced    the same number of every class; the population is the pool

Draws are kept as they finish and are not done again; a cell gets its line when it has all of them.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import handful
import handful.evaluation.accuracy_estimate as estimates
import handful.evaluation.calibration as temperatures
import handful.methods.linear_head as fitted
from benchmarks.lib import arguments, record
from handful import methods, models
from handful.data.cache import cache_folder, data_folder
from handful.data.imageset import ImageSet
from handful.data.splits import development, draw
from handful.evaluation.accuracy_estimate import estimate
from handful.evaluation.calibration import calibrated
from handful.evaluation.cross_validation import out_of_fold
from handful.evaluation.metrics import accuracy_interval, calibration_error, reliability_bins
from handful.evaluation.pool_confidence import expected_accuracy
from handful.methods import heads
from handful.methods.base import Tunable
from handful.models.classifier import Normalize
from handful.models.feature_cache import features

SOURCES = ("mnist", "fashion-mnist", "cifar10-jpeg")
KINDS = ("natural", "unbalanced", "balanced")
POOL = 10_000
CONFIDENT = 1_000  # images without a label whose mean confidence is used
IMBALANCE = 20  # the commonest class to the rarest
LEVEL = 0.9
SURE = 0.95
# Draws made by other code are made again.
CODE = hashlib.sha256(
    b"".join(
        Path(path).read_bytes()
        for path in (
            estimates.__file__,
            temperatures.__file__,
            fitted.__file__,
            heads.__file__,
            __file__,
        )
    )
).hexdigest()[:16]

Head = Callable[[torch.Tensor], np.ndarray]  # features (m, D) -> probabilities (m, K)
# (features (n, D), labels (n,), K, seed) -> head
Fit = Callable[[torch.Tensor, np.ndarray, int, int], Head]


def main() -> None:
    options = parse()
    if options.table:
        return print_table(options.part)
    for source in options.sources:
        pool = None
        for kind in options.kinds:
            for per_class in options.per_class:
                name = f"{source} {kind} {per_class} {options.method}"
                if recorded(name, options.part) and not options.again:
                    print(f"{name}: has its line by the same code", flush=True)
                    continue
                pool = pool or Pool(source, options.part, options.size)
                run_cell(pool, kind, per_class, name, options)


class Pool:
    """Features and labels of the images that draws are taken from."""

    def __init__(self, source: str, part: str, size: int) -> None:
        folder = data_folder() / source
        images = handful.load(folder if folder.is_dir() else source)
        if part == "dev":
            images = development(replace(images, test=None), POOL, seed=1000)
        assert images.test is not None, f"{source} has no test part"
        self.images = images.test
        self.labels = self.images.labels
        self.classes = len(self.images.classes)
        self.features = embedded(self.images, size)
        self.shares = np.bincount(self.labels, minlength=self.classes) / len(self.labels)


def embedded(images: ImageSet, size: int) -> torch.Tensor:
    """(N, D) float32 features of EfficientNet-Lite0 at `size` pixels, from the cache if known."""
    lite = models.make("lite0", images.channels, size, stages=3)
    network = nn.Sequential(Normalize(list(lite.mean), list(lite.std)), lite)
    return features(images, network, size).float()


def run_cell(pool: Pool, kind: str, per_class: int, name: str, options: argparse.Namespace) -> None:
    scratch = cache_folder() / "coverage" / options.part / f"{name.replace(' ', '-')}.jsonl"
    scratch.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in scratch.open()] if scratch.exists() else []
    rows = [row for row in rows if row["code"] == CODE]
    first = 1000 if options.part == "dev" else 0
    for seed in range(first, first + options.draws):
        if any(row["draw"] == seed for row in rows):
            continue
        row = {"draw": seed, "code": CODE} | run_draw(pool, kind, per_class, seed, options.method)
        with scratch.open("a") as file:
            file.write(json.dumps(row) + "\n")
        rows.append(row)
    rows = [row for row in rows if first <= row["draw"] < first + options.draws]
    figures = summary(rows)
    print(name, json.dumps(figures), flush=True)
    if not options.dry:
        settings = {"method": options.method, "size": options.size, "level": LEVEL, "code": CODE}
        record.append("coverage", name, options.part, figures, settings=settings)


def run_draw(pool: Pool, kind: str, per_class: int, seed: int, method: str) -> dict[str, Any]:
    """One draw: its estimate, the truth, and what a held-out fifth would have said."""
    positions, shares = drawn(pool, kind, per_class, seed)
    labels = pool.labels[positions]
    seen = pool.features[positions]

    begun = time.perf_counter()
    fit = tuned(method, seen, labels, pool.classes, seed)

    def fit_and_predict(train: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray:
        return fit(seen[train], labels[train], pool.classes, seed)(seen[held])

    groups = None if pool.images.groups is None else pool.images.groups[positions]
    out = out_of_fold(labels, pool.classes, fit_and_predict, seed=seed, groups=groups)
    found = estimate(out, LEVEL)

    rest = np.setdiff1d(np.arange(len(pool.labels)), positions)
    predicted = fit(seen, labels, pool.classes, seed)(pool.features[rest])
    weights = (shares / np.bincount(pool.labels[rest], minlength=pool.classes))[pool.labels[rest]]
    row_alone = {f"{key}_alone": getattr(found, key) for key in ("accuracy", "low", "high")}
    some = np.random.default_rng(seed).choice(len(rest), CONFIDENT, p=weights / weights.sum())
    sharp = calibrated(predicted[some], found.temperature)
    seen_shares = np.bincount(labels, minlength=pool.classes) / len(labels)
    confidence = expected_accuracy(sharp, seen_shares, seen_shares if out.stratified else None)
    found = estimate(out, LEVEL, confidence=confidence)
    seconds = time.perf_counter() - begun
    right = predicted.argmax(axis=1) == pool.labels[rest]
    row = {
        "n": len(labels),
        "truth": float(weights @ right),
        "confidence": confidence,
        **row_alone,
        **{key: getattr(found, key) for key in KEPT},
        "seconds": seconds,
        **calibration(predicted, pool.labels[rest], weights, found.temperature),
        **held_out(seen, labels, pool.classes, fit, seed),
    }
    recalls = [right[pool.labels[rest] == label].mean() for label in np.unique(labels)]
    row["balanced_truth"] = float(np.mean(recalls))
    for threshold in (row for row in found.abstentions if row.target_accuracy == SURE):
        sharp = calibrated(predicted, found.temperature).max(axis=1)
        answered = sharp >= threshold.threshold
        row["answered_expected"] = threshold.share
        row["answered"] = float(weights @ answered)
        row["answered_right"] = float(weights[answered] @ right[answered] / weights[answered].sum())
    return row


KEPT = (
    "accuracy low high out_of_fold learning_curve effective_n temperature "
    "balanced_accuracy balanced_low balanced_high"
).split()


def drawn(pool: Pool, kind: str, per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the labelled images, and the class shares (K,) that they were drawn with."""
    generator = np.random.default_rng([seed, per_class])
    n = per_class * pool.classes
    if kind == "natural":
        return np.sort(generator.choice(len(pool.labels), n, replace=False)), pool.shares
    if kind == "balanced":
        return draw(pool.labels, per_class, seed), pool.shares
    shares = generator.permutation(np.geomspace(1, 1 / IMBALANCE, pool.classes))
    shares /= shares.sum()
    counts = generator.multinomial(n, shares)
    chosen = [
        generator.choice(np.flatnonzero(pool.labels == label), count, replace=False)
        for label, count in enumerate(counts)
    ]
    return np.sort(np.concatenate(chosen)), shares


def held_out(
    seen: torch.Tensor, labels: np.ndarray, classes: int, fit: Fit, seed: int
) -> dict[str, float]:
    """The usual way: a fifth of the labels held out, Wilson's interval of what is right there."""
    generator = np.random.default_rng([seed, 20])
    order = generator.permutation(len(labels))
    held, train = np.split(order, [round(0.2 * len(labels))])
    right = (
        fit(seen[train], labels[train], classes, seed)(seen[held]).argmax(axis=1) == labels[held]
    )
    low, high = accuracy_interval(int(right.sum()), len(held), LEVEL)
    return {"holdout_low": low, "holdout_high": high}


def calibration(
    predicted: np.ndarray, labels: np.ndarray, weights: np.ndarray, temperature: float
) -> dict[str, float]:
    """Calibration error on new images before and after the temperature found out of fold."""
    sample = np.random.default_rng(0).choice(len(labels), len(labels), p=weights / weights.sum())
    predicted, labels = predicted[sample], labels[sample]  # as common as in the population
    row = {}
    for name, rows in (("before", predicted), ("after", calibrated(predicted, temperature))):
        bins = reliability_bins(rows.max(axis=1), rows.argmax(axis=1) == labels)
        row[f"calibration_error_{name}"] = calibration_error(bins)
    return row


def tuned(name: str, seen: torch.Tensor, labels: np.ndarray, classes: int, seed: int) -> Fit:
    """The fit of a method by name, its settings chosen once, on all labels, as in a fit."""
    if name == "ridge":
        return ridge
    method = methods.make(name)
    if isinstance(method, Tunable):
        method = method.tuned(seen, torch.from_numpy(labels), classes, seed)

    def fit(seen: torch.Tensor, labels: np.ndarray, classes: int, seed: int) -> Head:
        head = method.fit_features(seen, torch.from_numpy(labels), seen[:0], classes, seed)
        return lambda rows: head(rows).softmax(dim=1).detach().numpy()

    return fit


def ridge(seen: torch.Tensor, labels: np.ndarray, classes: int, seed: int) -> Head:
    """Ridge regression on one-hot labels in milliseconds, its strength by leave-one-out error.

    In the dual, so that one eigendecomposition serves all strengths; needs no seed.
    """
    x = seen.double().numpy()
    centre, targets = x.mean(axis=0), np.eye(classes)[labels]
    x, residual = x - centre, targets - targets.mean(axis=0)
    values, vectors = np.linalg.eigh(x @ x.T)
    values = np.maximum(values, 0)
    least, dual = np.inf, np.zeros_like(residual)
    for strength in np.logspace(-4, 2, 13) * values.mean():
        inverse = 1 / (values + strength)
        weights = vectors @ (inverse[:, None] * (vectors.T @ residual))  # (n, K)
        diagonal = vectors**2 @ inverse - 1 / (len(x) * strength)  # without the constant
        error = float(((weights / np.maximum(diagonal, 1e-12)[:, None]) ** 2).mean())
        if error < least:
            least, dual = error, weights
    head = (x.T @ dual).astype(np.float32)  # (D, K)
    bias = (targets.mean(axis=0) - centre @ head).astype(np.float32)
    return lambda rows: calibrated(np.exp(rows.numpy() @ head + bias), 0.2)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The line of a cell. Shares are of draws; accuracies, widths and gaps are in [0, 1]."""
    always = set.intersection(*(set(row) for row in rows)) - {"code"}
    column = {key: np.array([row[key] for row in rows]) for key in always}
    truth, low, high = column["truth"], column["low"], column["high"]
    width = high - low
    usual = column["holdout_high"] - column["holdout_low"]
    right = column["holdout_low"] <= truth, truth <= column["holdout_high"]
    balanced = [row for row in rows if row["balanced_low"] is not None]
    sure = [row for row in rows if "answered" in row]
    figures = {
        "draws": len(rows),
        "n": int(column["n"].max()),
        "covered": ((low <= truth) & (truth <= high)).mean(),
        "lower_covered": (low <= truth).mean(),
        "width": width.mean(),
        "holdout_width": usual.mean(),
        "holdout_covered": (right[0] & right[1]).mean(),
        "narrower": 1 - width.mean() / usual.mean(),
        "truth": truth.mean(),
        "gap": (column["accuracy"] - truth).mean(),
        "gap_sd": (column["accuracy"] - truth).std(ddof=1),
        "gap_uncorrected": (column["out_of_fold"] - truth).mean(),
        "balanced_given": len(balanced) / len(rows),
        "calibration_error_before": column["calibration_error_before"].mean(),
        "calibration_error_after": column["calibration_error_after"].mean(),
        "seconds": float(np.median(column["seconds"])),
        "threshold_found": len(sure) / len(rows),
    }
    if balanced:
        figures["balanced_covered"] = np.mean(
            [
                row["balanced_low"] <= row["balanced_truth"] <= row["balanced_high"]
                for row in balanced
            ]
        )
    if sure:
        for key in ("answered_expected", "answered", "answered_right"):
            figures[key] = np.mean([row[key] for row in sure])
    return {
        key: value if isinstance(value, int) else round(float(value), 4)
        for key, value in figures.items()
    }


def recorded(name: str, part: str) -> list[dict[str, Any]]:
    wanted = (name, part, CODE)
    return [
        line
        for line in record.read("coverage")
        if (line["name"], line["kind"], line["settings"].get("code")) == wanted
    ]


def print_table(part: str) -> None:
    """The last line of every cell, and what they come to together."""
    last = {
        line["name"]: line["figures"] for line in record.read("coverage") if line["kind"] == part
    }
    print(f"{'cell':42}covered  lower  width  narrower    gap   sd")
    cells = {name: figures for name, figures in last.items() if "covered" in figures}
    for name, row in cells.items():
        print(
            f"{name:42}{row['covered']:7.3f}{row['lower_covered']:7.3f}{row['width']:7.3f}"
            f"{row['narrower']:10.2f}{row['gap']:+7.3f}{row['gap_sd']:6.3f}"
        )
    for few, group in ((False, "pooled, more than 4 per class"), (True, "pooled, 4 per class")):
        rows = [row for name, row in cells.items() if (name.split()[2] == "4") == few]
        if rows:
            mean = {key: np.mean([row[key] for row in rows]) for key in rows[0] if key in SHOWN}
            least = min(row["covered"] for row in rows)
            print(
                f"{group:42}{mean['covered']:7.3f}{mean['lower_covered']:7.3f}"
                f"{mean['width']:7.3f}{mean['narrower']:10.2f}   least covered {least:.3f}"
            )


SHOWN = ("covered", "lower_covered", "width", "narrower")


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("part", choices=("dev", "final"))
    parser.add_argument("--sources", nargs="+", default=SOURCES, choices=SOURCES)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--per-class", nargs="+", type=int, default=(4, 10, 25))
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--method", default="features", help="or ridge, a plain reference")
    parser.add_argument("--size", type=int, default=96, help="pixels the network sees")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    parser.add_argument("--table", action="store_true", help="print the lines there are")
    return parser.parse_args()


if __name__ == "__main__":
    main()
