"""How often the interval holds the truth where a network is trained: five folds, once.

    python -m benchmarks run coverage_trained dev   --draws 15 --halves 1
    python -m benchmarks run coverage_trained final --draws 30
    python -m benchmarks run coverage_trained final --method fine_tuning --source tin10 \
        --size 64 --set steps=60 --unlabeled 1000

A draw is `handful.fit` on 10 labels per class in the mean, any training image with the same chance,
on a short schedule at 16 pixels; the truth is the accuracy of what it saves on the test images, of
which MNIST has 10,000 (dev: 10,000 training images, seeds from 1000). Beside the labelled images
as many others are given, without their labels, as --unlabeled says. With --halves 1 two fits on
half the labels are added, which show how accuracy rises with labels; the line then tells of both,
with and without the rise.

Draws are kept as they finish and are not done again; the line, which holds every draw, is written
when all are there.
"""

import argparse
import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

import handful
from benchmarks.lib import arguments, record
from benchmarks.lib.pools import opened
from handful.data.cache import cache_folder
from handful.data.splits import development
from handful.evaluation import accuracy_estimate, cross_validation
from handful.evaluation.cross_validation import Scheme
from handful.evaluation.metrics import wilson
from handful.pipeline import assess
from handful.training import loop, trainer

LEVEL = 0.9
HELD_OUT = 0.2
# Draws made by other code are made again.
CODE = hashlib.sha256(
    b"".join(
        Path(path).read_bytes()
        for path in (
            cross_validation.__file__,
            accuracy_estimate.__file__,
            trainer.__file__,
            loop.__file__,
            __file__,
        )
    )
).hexdigest()[:16]
KEPT = ("accuracy", "low", "high", "out_of_fold", "learning_curve", "effective_n", "n", "how")


def main() -> None:
    options = parse()
    name = f"{options.source} natural {options.per_class} {options.method}"
    name += "+halves" * (options.halves != assess.FOLDS.halves)
    assess.FOLDS = Scheme(assess.FOLDS.folds, assess.FOLDS.repeats, options.halves)
    scratch = cache_folder() / "coverage" / options.part / f"{name.replace(' ', '-')}.jsonl"
    scratch.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in scratch.open()] if scratch.exists() else []
    known = {row["draw"]: row for row in rows if row["code"] == CODE}
    images = opened(options.source)
    if options.part == "dev":
        images = development(replace(images, test=None), 10_000, seed=1000)
    first = options.first + (1000 if options.part == "dev" else 0)
    draws = range(first, first + options.draws)
    for draw in draws:
        if draw not in known:
            known[draw] = {"draw": draw, "code": CODE} | run_draw(images, draw, options)
            with scratch.open("a") as file:
                file.write(json.dumps(known[draw]) + "\n")
            print(json.dumps(known[draw]), flush=True)
    figures = summary([known[draw] for draw in draws])
    print(name, json.dumps(figures), flush=True)
    if not options.dry:
        keys = ("method", "size", "precision", "set", "halves", "unlabeled")
        settings = {key: getattr(options, key) for key in keys} | {"level": LEVEL}
        record.append("coverage", name, options.part, figures, settings=settings)


def run_draw(images: handful.ImageSet, draw: int, options: argparse.Namespace) -> dict[str, Any]:
    """One draw: its estimate and the truth."""
    assert images.test is not None, f"{options.source} has no test part"
    generator = np.random.default_rng([draw, options.per_class])
    n = options.per_class * images.num_classes
    labeled, others = np.split(generator.choice(images.labeled, n + options.unlabeled, False), [n])
    seen = images.seen(np.sort(labeled))[np.sort(np.concatenate([labeled, others]))]
    begun = time.perf_counter()
    run = handful.fit(
        seen,
        options.method,
        seed=draw,
        size=options.size,
        precision=options.precision,
        settings=dict(text.split("=", 1) for text in options.set),
        origins=dict.fromkeys(images[labeled].names, "random"),
    )
    seconds = time.perf_counter() - begun
    found = {key: run.estimate[key] for key in KEPT}
    return {"truth": run.evaluate(images.test).accuracy, **found, "seconds": round(seconds, 1)}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The line. Shares are of draws; accuracies, widths and gaps are in [0, 1]."""
    keys = ("truth", "accuracy", "low", "high", "seconds")
    column = {key: np.array([row[key] for row in rows]) for key in keys}
    truth, low, high = column["truth"], column["low"], column["high"]
    gap = column["accuracy"] - truth
    plain = [wilson(row["out_of_fold"], row["effective_n"], LEVEL) for row in rows]
    usual = np.mean([usual_width(row["out_of_fold"], row["n"]) for row in rows])
    figures = {
        "covered": ((low <= truth) & (truth <= high)).mean(),
        "lower_covered": (low <= truth).mean(),
        "width": (high - low).mean(),
        "holdout_width": usual,
        "narrower": 1 - (high - low).mean() / usual,
        "truth": truth.mean(),
        "gap": gap.mean(),
        "gap_sd": gap.std(ddof=1),
        "gap_uncorrected": np.mean([row["out_of_fold"] for row in rows]) - truth.mean(),
        "covered_uncorrected": np.mean(
            [a <= x <= b for x, (a, b) in zip(truth, plain, strict=True)]
        ),
        "seconds": float(np.median(column["seconds"])),
    }
    shown = ("draw", "truth", "out_of_fold", "accuracy", "low", "high")
    every = [{key: round(row[key], 4) for key in shown} for row in rows]
    rounded = {key: round(float(value), 4) for key, value in figures.items()}
    return {"draws": len(rows), "folds": assess.FOLDS.folds, **rounded, "every": every}


def usual_width(accuracy: float, n: int) -> float:
    """Mean width of Wilson's interval of a held-out fifth, for a model as accurate as in a fold."""
    held = round(HELD_OUT * n)
    right = np.arange(held + 1)
    widths = [high - low for low, high in (wilson(k / held, held, LEVEL) for k in right)]
    return float(binom.pmf(right, held, accuracy) @ np.array(widths))


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("part", choices=("dev", "final"))
    parser.add_argument("--source", default="mnist")
    parser.add_argument("--method", default="supervised")
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--draws", type=int, default=30)
    parser.add_argument("--first", type=int, default=0, help="draw to begin with")
    parser.add_argument("--halves", type=int, default=assess.FOLDS.halves, help="passes on halves")
    parser.add_argument("--size", type=int, default=16, help="pixels the network sees")
    parser.add_argument("--precision", default="bf16")
    short = ["steps=200", "backbone.base=16"]
    parser.add_argument("--set", nargs="+", default=short, metavar="NAME=VALUE")
    parser.add_argument("--unlabeled", type=int, default=0, help="images without a label")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
