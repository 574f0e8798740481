"""Whether answers are right as often as their confidence says: for a run's own images and new ones.

    python -m benchmarks run pool_answers dev --draws 3
    python -m benchmarks run pool_answers dev --draws 3 --pool 200

A draw labels images of a source at random ("natural") or the same number of each class
("balanced"); `--pool` of the others, by default all, are the images without a label. Heads are
fitted and calibrated as `fit` does. Temperatures that are compared:

- likelihood: the one under which the labels are most likely out of fold;
- folds: with the prior, and without predictions by models that saw no label of the class. It is
  saved with the model, for new images;
- pool: the same, of labelled images that are among the unlabelled ones. It is for images that the
  head learned from, whose answers are in `predictions.csv`, where they are few beside the labels.

Each has its error, the mean distance of confidence and accuracy over draws, its bias, and the
expected calibration error, on the images without a label ("own") and on images that no head has
seen ("new"). Features are the first AXES principal axes of all images of a source, found without
labels: heads on them are as good as on all, and faster. One line holds all draws of a source, a
number of labels and a method; those that have theirs are not made again.
"""

import argparse
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.lib import arguments, record
from benchmarks.lib.pools import ALL_SIZES, Pool, pool
from handful.data.splits import draw
from handful.evaluation.calibration import calibrated, fit_temperature, temperature_of
from handful.evaluation.cross_validation import THOROUGH, OutOfFold, Scheme, out_of_fold
from handful.evaluation.metrics import calibration_error, reliability_bins
from handful.methods import METHODS
from handful.methods.base import Fitted
from handful.methods.class_shares import fit_head
from handful.methods.heads import principal
from handful.pipeline.auto.candidates import MORE_FOLDS
from handful.pipeline.cross_validate import FOLDS

SOURCES = ("sign-digits", "tin10", "cifar10-jpeg", "steel", "fashion-mnist")
HEADS = ("features", "gaussian_mixture", "self_training")
KINDS = ("natural", "balanced")
PER_CLASS = (4, 10)
MOST = 1_500  # images of a source to label from, and to score on
AXES = 256


def main() -> None:
    options = parse()
    first = 1000 if options.part == "dev" else 0
    draws = range(first, first + options.draws)
    for source in options.sources:
        data = None
        for per_class in options.per_class:
            for method in options.methods:
                name = f"{source} {per_class} {method} {options.pool or 'all'}"
                lines = [x for x in record.read("pool_answers") if x["kind"] == options.part]
                if any(line["name"] == name for line in lines) and not options.again:
                    print(f"{name}: has its line", flush=True)
                    continue
                data = data or loaded(source, options.part)
                rows = [
                    run_draw(data, kind, per_class, method, seed, options.pool)
                    for kind in KINDS
                    for seed in draws
                ]
                figures = summary(rows)
                print(name, json.dumps(figures), flush=True)
                if not options.dry:
                    settings = {"source": source, "per_class": per_class, "method": method}
                    settings |= {"pool": options.pool, "size": ALL_SIZES[source], "axes": AXES}
                    record.append("pool_answers", name, options.part, figures, settings=settings)


def loaded(source: str, part: str) -> Pool:
    whole = pool(source, part, MOST)
    coordinates = principal(whole.features, AXES)
    return whole._replace(
        features=coordinates.of(whole.features), scored=coordinates.of(whole.scored)
    )


def run_draw(
    data: Pool, kind: str, per_class: int, name: str, seed: int, most: int
) -> dict[str, Any]:
    """Confidence, accuracy and calibration error of one draw, on its own and on new images."""
    generator = np.random.default_rng([seed, per_class])
    chosen = (
        draw(data.labels, per_class, seed)
        if kind == "balanced"
        else generator.choice(len(data.labels), per_class * data.classes, replace=False)
    )
    rest = np.setdiff1d(np.arange(len(data.labels)), chosen)
    rest = generator.permutation(rest)[: most or None]
    method = METHODS[name]()
    assert isinstance(method, Fitted)
    with_pool = name != "features"
    head = _Heads(method, data, chosen, rest if with_pool else rest[:0], seed)
    final = head.fitted(np.arange(len(chosen)), data.features[:0])
    out = head.out_of_fold(MORE_FOLDS if with_pool else THOROUGH)
    of_new = temperature_of(out)
    of_own = temperature_of(head.out_of_fold(FOLDS, among_unlabeled=True)) if with_pool else of_new
    likeliest = fit_temperature(out.probabilities, out.labels, spread=math.inf)
    temperatures = {"likelihood": likeliest, "folds": of_new, "pool": of_own}
    row: dict[str, Any] = {"kind": kind, "draw": seed, "temperatures": _rounded(temperatures)}
    for where, x, truth in (
        ("own", data.features[rest], data.labels[rest]),
        ("new", data.scored, data.truth),
    ):
        raw = probabilities(final, x)
        row[where] = {"accuracy": round(float((raw.argmax(axis=1) == truth).mean()), 4)}
        for key, temperature in temperatures.items():
            row[where][key] = _judged(calibrated(raw, temperature), truth)
    return row


class _Heads:
    """Heads of one method on parts of the labels of a draw."""

    def __init__(
        self, method: Fitted, data: Pool, chosen: np.ndarray, rest: np.ndarray, seed: int
    ) -> None:
        self.method, self.classes, self.seed = method, data.classes, seed
        self.known, self.pool = data.features[chosen], data.features[rest]
        self.labels = torch.from_numpy(data.labels[chosen])

    def fitted(self, train: np.ndarray, more: Tensor) -> nn.Module:
        """The head of labels at positions `train`, with `more` images without a label."""
        pool = torch.cat([self.pool, more])
        known, labels = self.known[train], self.labels[train]
        return fit_head(self.method, known, labels, pool, self.classes, self.seed)

    def out_of_fold(self, scheme: Scheme, among_unlabeled: bool = False) -> OutOfFold:
        def fit_and_predict(train: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray:
            seen = self.labels[train].unique()
            if len(seen) == 1:
                return np.tile(np.eye(self.classes)[seen], (len(held), 1))
            more = self.known[held if among_unlabeled else held[:0]]
            return probabilities(self.fitted(train, more), self.known[held])

        labels = self.labels.numpy()
        scheme = replace(scheme, halves=0)
        return out_of_fold(labels, self.classes, fit_and_predict, scheme, self.seed)


def probabilities(head: nn.Module, x: Tensor) -> np.ndarray:
    with torch.inference_mode():
        return head(x.float()).double().softmax(dim=1).numpy()


def _judged(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    confidence, right = found.max(axis=1), found.argmax(axis=1) == truth
    return _rounded(
        {
            "confidence": float(confidence.mean()),
            "ece": calibration_error(reliability_bins(confidence, right)),
            "certain": float((confidence >= 0.995).mean()),
            "certain_wrong": float((~right & (confidence >= 0.995)).mean()),
        }
    )


def _rounded(found: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 4) for key, value in found.items()}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the draws, and every draw."""
    figures: dict[str, Any] = {"draws": len(rows)}
    for where in ("own", "new"):
        accuracy = np.array([row[where]["accuracy"] for row in rows])
        figures[where] = {"accuracy": round(float(accuracy.mean()), 4)}
        for key in rows[0]["temperatures"]:
            apart = np.array([row[where][key]["confidence"] for row in rows]) - accuracy
            ece, certain, wrong = (
                float(np.mean([row[where][key][what] for row in rows]))
                for what in ("ece", "certain", "certain_wrong")
            )
            figures[where][key] = _rounded(
                {
                    "bias": float(apart.mean()),
                    "error": float(np.abs(apart).mean()),
                    "ece": ece,
                    "certain": certain,
                    "certain_wrong": wrong,
                }
            )
    return figures | {"every": rows}


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("part", choices=("dev", "final"))
    parser.add_argument("--sources", nargs="+", default=SOURCES, choices=SOURCES)
    parser.add_argument("--methods", nargs="+", default=HEADS, choices=HEADS)
    parser.add_argument("--per-class", nargs="+", type=int, default=PER_CLASS)
    parser.add_argument("--draws", type=int, default=3, help="of each kind")
    parser.add_argument("--pool", type=int, default=0, help="images without a label; 0: all")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
