"""Heads on the features of one backbone, or of several side by side.

    python -m benchmarks run backbones dev   --draws 6
    python -m benchmarks run backbones final --draws 5
    python -m benchmarks run backbones cost
    python -m benchmarks run backbones --plot            # docs/backbones.svg from the dev lines

A draw labels 4 or 10 images of each class; the other images to label from, at most POOL of them,
are the pool. All backbones and heads get the same draws and the same image sizes. A draw that has
its line is not made again. `cost` measures the time of an image with each network.
"""

import argparse
import math
import time
from itertools import product
from typing import Any

import matplotlib
import numpy as np
import torch

from benchmarks.lib import arguments, record
from benchmarks.lib.paths import DOCS
from benchmarks.lib.pools import ALL_SIZES, pool
from handful import methods
from handful.data.splits import draw as drawn
from handful.methods.class_shares import fit_head
from handful.methods.linear_head import Features
from handful.models.classifier import Classifier, Normalize
from handful.models.engine import forward, has_graph, resolved
from handful.models.feature_cache import in_evaluation_mode
from handful.pipeline.setup import default_backbone

FILE, COST = "backbones", "cost"
BACKBONES = ("lite0", "lite1", "lite2", "lite0+lite2", "lite1+lite2", "lite0+lite1+lite2")
METHODS = ("features", "gaussian_mixture", "self_training")
PER_CLASS = (4, 10)
PLOT = DOCS / "backbones.svg"
MOST = 3_000  # images of a source to label from, and to score on
POOL = 2_000  # unlabelled images


def main() -> None:
    options = parse()
    if options.plot:
        return plot()
    if options.part == "cost":
        return cost(options.backbones)
    first = 1000 if options.part == "dev" else 0
    for source, backbone in product(options.sources, options.backbones):
        name, draws = f"{source} {backbone}", range(first, first + options.draws)
        missing = [x for x in draws if not record.recorded(FILE, name, options.part, x)]
        if not missing:
            continue
        begun = time.perf_counter()
        images = pool(source, options.part, MOST, backbone)
        print(f"{name}: features after {time.perf_counter() - begun:.0f} s", flush=True)
        settings = {"size": ALL_SIZES[source], "pool": POOL, "threads": torch.get_num_threads()}
        for draw in missing:
            figures = scores(images, draw, options.methods)
            print(name, draw, figures, flush=True)
            if not options.dry:
                record.append(FILE, name, options.part, figures, draw=draw, settings=settings)


def plot() -> None:
    """Accuracy against the time of an image, one panel for each number of labels per class."""
    from benchmarks.lib.tables import backbones as table

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "backbones", "font.size": 9})
    figure, panels = pyplot.subplots(1, len(PER_CLASS), figsize=(7.2, 3.2), layout="constrained")
    names = table.everywhere()
    times = [table.relative_cost(name) for name in names]
    for panel, per_class in zip(panels, PER_CLASS, strict=True):
        for method in METHODS:
            column = f"{method} {per_class}"
            y = [100 * table.mean_accuracy(name, column) for name in names]
            panel.plot(times, y, marker="o", ms=3, label=method)
        panel.set_title(f"{per_class} labels per class")
        panel.set(xlabel="time of an image, lite0 = 1", ylabel="accuracy, mean over sources, %")
        panel.set_xticks(times, names, rotation=40, ha="right", fontsize=7)
        panel.grid(alpha=0.3)
    panels[-1].legend(frameon=False, fontsize=8)
    figure.savefig(PLOT, metadata={"Date": None})


def scores(images: Any, draw: int, names: list[str]) -> dict[str, float]:
    """Accuracy of each method at each number of labels per class."""
    found = {}
    for per_class, name in product(PER_CLASS, names):
        chosen = drawn(images.labels, per_class, draw)
        others = np.setdiff1d(np.arange(len(images.labels)), chosen)
        some = np.random.default_rng(draw).permutation(others)[:POOL]
        head = fit_head(
            methods.make(name),
            images.features[chosen],
            torch.from_numpy(images.labels[chosen]),
            images.features[some],
            images.classes,
            draw,
        )
        with torch.inference_mode():
            guesses = head(images.scored).argmax(dim=1).numpy()
        found[f"{name} {per_class}"] = round(float((guesses == images.truth).mean()), 5)
    return found


def cost(backbones: list[str], size: int = 160, images: int = 16, rounds: int = 3) -> None:
    """Keep the processor time of an image with each network: the least of some passes.

    It is processor time on one thread, and all networks are measured in one run in turn, so other
    work on the machine hardly matters.
    """
    torch.set_num_threads(1)
    pixels = torch.zeros(images, 3, size, size, dtype=torch.uint8)
    runs = {}
    for name in backbones:
        spec = default_backbone(Features(), name)
        backbone: Any = spec.make(3, size)
        network = Classifier(backbone, 1, Normalize(list(backbone.mean), list(backbone.std)))
        network.head = torch.nn.Identity()
        precision = resolved("auto", has_graph(network))
        runs[name] = forward(in_evaluation_mode(network), precision, len(pixels))
        runs[name](pixels)
    least = dict.fromkeys(backbones, math.inf)
    for _, name in product(range(rounds), backbones):
        begun = time.process_time()
        runs[name](pixels)
        least[name] = min(least[name], (time.process_time() - begun) / images)
    figures = {name: round(1000 * seconds, 2) for name, seconds in least.items()}
    print(figures, flush=True)
    record.append(FILE, COST, "dev", figures, settings={"size": size})


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("part", nargs="?", choices=("dev", "final", "cost"), default="dev")
    parser.add_argument("--sources", nargs="+", default=list(ALL_SIZES), choices=list(ALL_SIZES))
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--plot", action="store_true", help="draw docs/backbones.svg and end")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
