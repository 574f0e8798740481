"""How many folds, and how many steps in each: the estimate of a trained network, simulated.

    python -m benchmarks run folds dev --draws 40

Each draw trains a small network on its labels, once for `STEPS` steps on all of them and once for
every fold of every scheme in SCHEMES. All training images have the same chance in a natural draw; a
balanced one has equally many of each class. The truth is the accuracy of the network of all labels
on the images without a label. The line compares each scheme's estimate with it: bias, root mean
square error (RMSE) and coverage, alone and in the mean with the mean confidence on the images
without a label.
"""

import argparse
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

import handful
from benchmarks.lib import arguments, record
from handful.data.cache import cache_folder, data_folder
from handful.data.imageset import ImageSet
from handful.evaluation.accuracy_estimate import usual_correction
from handful.evaluation.calibration import calibrated, fit_temperature
from handful.evaluation.cross_validation import Scheme
from handful.evaluation.metrics import wilson
from handful.methods.base import Task
from handful.pipeline.cross_validate import fold_predictor, predicted_out_of_fold
from handful.pipeline.options import InputSpec
from handful.pipeline.setup import prepare
from handful.training.plan import Plan
from handful.training.settings import Settings
from handful.training.trainer import train_task

LEVEL = 0.9
# name -> folds, share of the steps of the network of all labels
SCHEMES = {
    "3 folds, 100 %": (3, 1.0),
    "5 folds, 100 %": (5, 1.0),
    "3 folds, 60 %": (3, 0.6),
    "5 folds, 60 %": (5, 0.6),
    "5 folds, 20 %": (5, 0.2),
}
# name -> source, labels, balanced, side in pixels, steps
CELLS = {
    "digits-natural": ("digits", 60, False, 8, 300),
    "digits-balanced": ("digits", 60, True, 8, 300),
    "fashion-natural": ("fashion-mnist", 100, False, 14, 200),
    "hard-natural": ("cifar10-jpeg", 100, False, 16, 200),
}
POOL = 3_000  # images without a label, on which confidence and truth are measured


def main() -> None:
    options = parse()
    scratch = cache_folder() / "folds" / options.part
    scratch.mkdir(parents=True, exist_ok=True)
    for draw in range(options.first, options.first + options.draws):
        for cell in options.cells:
            path = scratch / f"{cell}-{draw}.npz"
            if not path.exists():
                np.savez(path, **run_draw(cell, draw))
                print(path.stem, flush=True)
    for cell in options.cells:
        found = [np.load(path) for path in sorted(scratch.glob(f"{cell}-[0-9]*.npz"))]
        figures = {"draws": len(found)} | {name: summary(name, found) for name in SCHEMES}
        print(cell)
        for name in SCHEMES:
            print("  ", name, figures[name])
        if not options.dry:
            record.append("folds", cell, options.part, figures)


def run_draw(cell: str, draw: int) -> dict[str, np.ndarray]:
    """Out-of-fold probabilities of every scheme, and those of the images without a label."""
    source, n, balanced, size, steps = CELLS[cell]
    images, truth = drawn(source, n, balanced, draw)
    wanted = {"steps": str(steps), "backbone.base": "16"}
    inputs = InputSpec(size, precision="fp32")
    settings, task = prepare(images, "supervised", settings=wanted, inputs=inputs)
    plan = Plan("fp32", 1, 0.01)
    rest = images[images.unlabeled]
    last = train_task(settings, task, draw, planned=plan).predictor
    found = {
        "labels": images.labels[images.labeled],
        "pool": last.predict_proba(rest).numpy(),
        "truth": truth[images.unlabeled],
        "balanced": np.array(balanced),
    }
    for name, (folds, share) in SCHEMES.items():
        found[name] = folds_of(settings, task, draw, plan, folds, share)
    return found


@lru_cache
def opened(source: str) -> ImageSet:
    """The training images, with their labels."""
    folder = data_folder() / source
    return replace(handful.load(folder if folder.is_dir() else source), test=None)


def drawn(source: str, n: int, balanced: bool, draw: int) -> tuple[ImageSet, np.ndarray]:
    """`n` labelled images, and POOL others without their labels; and the (N,) true labels."""
    images = opened(source)
    order = np.random.default_rng([draw, n]).permutation(images.labeled)
    if balanced:
        labels = images.labels[order]
        rank = np.zeros(len(order), int)
        for label in range(images.num_classes):
            own = np.flatnonzero(labels == label)
            rank[own] = np.arange(len(own))
        order = order[np.argsort(rank >= n // images.num_classes, kind="stable")]
    some = images[order[: n + POOL]]
    return some.seen(np.arange(n)), some.labels


def folds_of(
    settings: Settings, task: Task, draw: int, plan: Plan, folds: int, share: float
) -> np.ndarray:
    """(n, K) out-of-fold probabilities."""
    assert settings.schedule is not None
    steps = round(share * settings.schedule.steps)
    shorter = replace(settings, schedule=replace(settings.schedule, steps=steps))
    predictor = fold_predictor(shorter, task, draw, plan)
    out = predicted_out_of_fold(task, predictor, Scheme(folds, 1, 0), draw, None)
    return np.asarray(out.probabilities[0])


def summary(name: str, draws: list[Any]) -> dict[str, float]:
    """Bias, RMSE and coverage of a scheme's estimate, alone and with the pool's confidence."""
    folds, _ = SCHEMES[name]
    rows = []
    for draw in draws:
        labels, own = draw["labels"], draw[name]
        truth = float((draw["pool"].argmax(axis=1) == draw["truth"]).mean())
        plain = float((own.argmax(axis=1) == labels).mean())
        alone = plain + usual_correction(plain, 1 - 1 / folds)
        temperature = fit_temperature(own[None], labels)
        sure = float(calibrated(draw["pool"], temperature).max(axis=1).mean())
        rows.append((truth, plain, alone, sure, (alone + sure) / 2, len(labels)))
    truth, plain, alone, sure, both, n = np.array(rows).T
    figures = {}
    for key, guess, share in (
        ("plain", plain, 0.4),
        ("corrected", alone, 0.4),
        ("confidence", sure, 0.4),
        ("both", both, 0.4),
        ("both_wide", both, 0.6),
    ):
        error = guess - truth
        low, high = np.array([wilson(p, share * m, LEVEL) for p, m in zip(guess, n, strict=True)]).T
        figures[key] = {
            "bias": round(float(error.mean()), 4),
            "rmse": round(float(np.sqrt((error**2).mean())), 4),
            "covered": round(float(((low <= truth) & (truth <= high)).mean()), 3),
            "lower": round(float((low <= truth).mean()), 3),
        }
    return figures | {"truth": round(float(truth.mean()), 4)}


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("part", choices=("dev", "final"))
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=CELLS)
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--first", type=int, default=1000)
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
