"""How often the interval holds the truth for `auto` as shipped: whole fits, each scored.

    python -m benchmarks run coverage_auto dev   --draws 1 --sources digits
    python -m benchmarks run coverage_auto final --draws 5

A draw divides a source into at most IMAGES images to learn from and SCORED images that are the
truth. In the final these are the images of its test part where that is large, else its training
images; a fixed test part would be as easy or as hard in every draw. The draw labels `--labels` of
the images to learn from: any image with the same chance (natural), or equally many of each class
(balanced). The others are the images without a label. The truth is the accuracy of the saved model;
where labels are balanced, each class counts alike. A draw that has its line is not run again.
"""

import argparse
import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

import handful
from benchmarks.estimates.coverage_trained import usual_width
from benchmarks.lib import arguments, record
from benchmarks.lib.cells import FIRST_DEVELOPMENT
from handful.data.cache import data_folder
from handful.data.imageset import ImageSet
from handful.data.splits import development, draw
from handful.text import in_seconds

FILE = "coverage_auto"
SOURCES = ("digits", "mnist", "fashion-mnist", "sign-digits", "tin10", "cifar10-jpeg", "steel")
IMAGES, SCORED = 5_000, 4_000
SHARE_SCORED = 0.4  # of a source's images with a label, at most
LARGE = 10_000  # images of a test part from which on it is a source of its own
SHORT = "40s"  # budget of a fit, unless another is given


def main() -> None:
    options = parse()
    first = options.first + (FIRST_DEVELOPMENT if options.part == "dev" else 0)
    for number in range(first, first + options.draws):
        for source in options.sources:
            for labels in options.labels:
                for kind in options.kinds:
                    name = f"{source} {kind} {labels} {options.method}"
                    name += f" {options.budget}" * (options.budget != SHORT)
                    if not record.recorded(FILE, name, options.part, number):
                        run(name, source, kind, labels, number, options)


def run(
    name: str, source: str, kind: str, labels: int, number: int, options: argparse.Namespace
) -> None:
    """One fit: its estimate and the truth."""
    images = drawn(divided(source, options.part, number), labels, kind == "balanced", number)
    test = images.test
    assert test is not None
    begun = time.perf_counter()
    try:
        fitted = handful.fit(
            images,
            options.method,
            seed=number,
            budget=in_seconds(options.budget),
            origins=dict.fromkeys(images[images.labeled].names, "random"),
        )
    except handful.HandfulError as error:
        print(name, number, error, flush=True)
        return
    seconds = time.perf_counter() - begun
    predicted = fitted.predict(test)
    right = np.array(predicted.labels) == np.array(test.classes)[test.labels]
    figures = {
        "truth": accuracy(right, test, images, kind),
        **{key: fitted.estimate[key] for key in KEPT},
        "holdout_width": usual_width(fitted.estimate["out_of_fold"], fitted.estimate["n"]),
        "method": fitted.record["method"]["name"],
        "steps": fitted.record["training"]["steps"],
        "seconds": seconds,
        "choice": [
            {key: row[key] for key in ("method", "accuracy", "seconds", "verdict")}
            for row in fitted.record["choice"]
        ],
    }
    print(
        f"{name} {number}: {figures['method']}, truth {figures['truth']:.3f}, estimate "
        f"{figures['accuracy']:.3f} ({figures['low']:.3f} to {figures['high']:.3f}), "
        f"{seconds:.0f} s",
        flush=True,
    )
    if not options.dry:
        record.append(
            FILE, name, options.part, rounded(figures), draw=number, budget=options.budget
        )


KEPT = (
    "accuracy low high n effective_n out_of_fold learning_curve selection confidence temperature"
).split()


def rounded(figures: dict[str, Any]) -> dict[str, Any]:
    return {
        key: round(value, 4) if isinstance(value, float) else value
        for key, value in figures.items()
    }


def accuracy(right: np.ndarray, test: ImageSet, images: ImageSet, kind: str) -> float:
    """Share of the test images that is right; with balanced labels every class counts alike."""
    if kind == "natural":
        return float(right.mean())
    present = np.unique(images.labels[images.labeled])
    return float(np.mean([right[test.labels == label].mean() for label in present]))


def drawn(images: ImageSet, labels: int, balanced: bool, number: int) -> ImageSet:
    """The images with `labels` of their labels."""
    if balanced:
        every = images.labels[images.labeled]
        return images.seen(images.labeled[draw(every, labels // images.num_classes, number)])
    generator = np.random.default_rng([number, labels])
    return images.seen(np.sort(generator.choice(images.labeled, labels, replace=False)))


@lru_cache(maxsize=1)
def divided(source: str, part: str, number: int) -> ImageSet:
    """At most IMAGES images to learn from, and a test part of at most SCORED, divided by a draw.

    Both are drawn from the same images, so that test images are like the labelled ones.
    """
    whole = population(source, part)
    scored = min(SCORED, round(SHARE_SCORED * len(whole.labeled)))
    images = development(whole, scored, seed=number)
    order = np.random.default_rng(number)
    kept = order.choice(len(images), min(IMAGES, len(images)), replace=False)
    return replace(images[np.sort(kept)], test=images.test)


@lru_cache(maxsize=1)
def population(source: str, part: str) -> ImageSet:
    """The images of a source that draws divide: of a large test part these, else all others."""
    folder = Path(data_folder()) / source
    images = handful.load(folder if folder.is_dir() else source)
    test, alone = images.test, replace(images, test=None)
    if part == "dev" or test is None or len(test) < LARGE:
        return alone
    return test


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("part", choices=("dev", "final"))
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=SOURCES)
    parser.add_argument("--kinds", nargs="+", default=["natural", "balanced"])
    parser.add_argument("--labels", nargs="+", type=int, default=[40, 100])
    parser.add_argument("--method", default="auto")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--budget", default=SHORT)
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
