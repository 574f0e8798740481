"""Accuracy against labels per class, for the methods that are fitted to features.

    python -m benchmarks run curves                      # every cell that has no line yet
    python -m benchmarks run curves sign-digits --dry    # print only
    python -m benchmarks run curves --plot               # docs/curves.svg from the lines

A cell is one source, one number of labels per class, one method and one draw. The features of a
source are computed once, and serve all its cells. Draws nest: a draw with 4 labels per class holds
the 2 of the same seed. Unlabelled images are drawn from those of the source by the method itself,
at most as many as its row in `SOURCES` says.
"""

import argparse
import time
from dataclasses import dataclass, replace

import matplotlib
import numpy as np
import torch

import handful
from benchmarks.lib import arguments, record
from benchmarks.lib.paths import DOCS
from handful import methods
from handful.data.cache import data_folder
from handful.data.imageset import ImageSet
from handful.data.splits import draw
from handful.methods.base import Fitted, as_json
from handful.progress import Reporter

PER_CLASS = (1, 2, 4, 10, 25, 100)
METHODS = ("features", "self_training", "propagation")
DRAWS = range(10)
PLOT = DOCS / "curves.svg"


@dataclass(frozen=True)
class Source:
    """Where images come from, and how many of them are used."""

    name: str
    title: str
    size: int  # pixels a side
    test_fraction: float = 0.0  # where the source has no test part
    images: int = 0  # outside the test part, drawn at random once; 0: all
    pool: int = 10_000  # unlabelled images of a fit, at most


SOURCES = {
    source.name: source
    for source in (
        Source("cifar10-jpeg", "CIFAR-10 (JPEG)", 160),
        Source("sign-digits", "Sign Language Digits", 224, test_fraction=0.3),
        Source("fashion-mnist", "Fashion-MNIST", 96, images=20_000),
    )
}


@dataclass(frozen=True, eq=False)
class Known:
    """Features and labels of a source, the test part apart."""

    images: ImageSet
    features: torch.Tensor  # (N, D) float32
    labels: torch.Tensor  # (N,)
    test_features: torch.Tensor  # (M, D) float32
    test_labels: torch.Tensor  # (M,)


def main() -> None:
    options = parse()
    if options.plot:
        return plot()
    for name in options.sources or SOURCES:
        source, known = SOURCES[name], None
        for per_class in PER_CLASS:
            for method in METHODS:
                for seed in DRAWS:
                    row = f"{name} {per_class} {method}"
                    if recorded(row, seed):
                        continue
                    known = known or embedded(source)
                    line = run(source, known, per_class, make(method, source), seed)
                    print(row, seed, line, flush=True)
                    if not options.dry:
                        append(row, source, known, per_class, make(method, source), seed, line)


def embedded(source: Source) -> Known:
    folder = data_folder() / source.name
    images = handful.load(
        folder if folder.is_dir() else source.name, test_fraction=source.test_fraction, seed=0
    )
    assert images.test is not None, f"{source.name} has no test part"
    if source.images:
        order = np.random.default_rng(0).permutation(len(images))
        images = replace(images[np.sort(order[: source.images])], test=images.test)
    found = handful.embed(
        images, size=source.size, reporter=Reporter(say=lambda text: print(text, flush=True))
    )
    features, labels = torch.from_numpy(found.features).float(), torch.from_numpy(found.labels)
    test = torch.from_numpy(found.test)
    return Known(images[:], features[~test], labels[~test], features[test], labels[test])


def make(name: str, source: Source) -> Fitted:
    limits = {} if name == "features" else {"limit": source.pool}
    method = methods.make(name, **limits)
    assert isinstance(method, Fitted)
    return method


def run(
    source: Source, known: Known, per_class: int, method: Fitted, seed: int
) -> dict[str, float | int]:
    images = known.images
    labeled = draw(images.labels, per_class, seed, images.groups, images.classes)
    pool = np.setdiff1d(np.arange(len(images)), labeled)
    begun = time.perf_counter()
    head = method.fit_features(
        known.features[labeled],
        known.labels[labeled],
        known.features[pool],
        len(images.classes),
        seed,
    )
    seconds = time.perf_counter() - begun
    with torch.inference_mode():
        right = head(known.test_features).argmax(dim=1) == known.test_labels
    return {
        "test_accuracy": round(right.float().mean().item(), 5),
        "n_test": len(right),
        "seconds": round(seconds, 1),
    }


def append(
    row: str,
    source: Source,
    known: Known,
    per_class: int,
    method: Fitted,
    seed: int,
    figures: dict[str, float | int],
) -> None:
    unlabeled = len(known.images) - per_class * len(known.images.classes)
    settings = {
        "source": source.name,
        "per_class": per_class,
        "method": as_json(method),
        "size": source.size,
        "unlabeled": 0 if method.name == "features" else min(unlabeled, source.pool),
    }
    record.append("curves", row, "final", figures, draw=seed, settings=settings)


def recorded(row: str, seed: int) -> bool:
    return any((line["name"], line["draw"]) == (row, seed) for line in record.read("curves"))


def plot() -> None:
    """One panel a source: the mean over draws, and a band of one standard deviation."""
    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "curves", "font.size": 9})
    figure, panels = pyplot.subplots(1, len(SOURCES), figsize=(9.6, 3.2), layout="constrained")
    for panel, source in zip(panels, SOURCES.values(), strict=True):
        for method in METHODS:
            points = [(n, accuracies(source.name, n, method)) for n in PER_CLASS]
            points = [(n, found) for n, found in points if found]
            if not points:
                continue
            x = [n for n, _ in points]
            mean = np.array([100 * np.mean(found) for _, found in points])
            spread = np.array(
                [100 * np.std(found, ddof=min(1, len(found) - 1)) for _, found in points]
            )
            panel.plot(x, mean, marker="o", markersize=3, label=method)
            panel.fill_between(x, mean - spread, mean + spread, alpha=0.15)
        panel.set(title=source.title, xscale="log", xlabel="labels per class")
        panel.set_xticks(PER_CLASS, [str(n) for n in PER_CLASS])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy, %")
    panels[0].legend(frameon=False)
    figure.savefig(PLOT, metadata={"Date": None})


def accuracies(source: str, per_class: int, method: str) -> list[float]:
    """Test accuracy of every draw that has a line."""
    row = f"{source} {per_class} {method}"
    return [
        line["figures"]["test_accuracy"] for line in record.read("curves") if line["name"] == row
    ]


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help=", ".join(SOURCES))
    parser.add_argument("--plot", action="store_true", help="draw docs/curves.svg and end")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    options = parser.parse_args()
    if unknown := set(options.sources) - set(SOURCES):
        parser.error(f"no source {', '.join(sorted(unknown))}; choose from {', '.join(SOURCES)}")
    return options


if __name__ == "__main__":
    main()
