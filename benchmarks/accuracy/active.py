"""Labels chosen by `suggest` against labels of random images, from 2 to 20 a class.

    python -m benchmarks run active dev   --draws 3
    python -m benchmarks run active final --draws 10

A draw begins without a label. Every round labels as many images as make the next of BUDGETS, fits
`features` on all labels so far and scores it on images that are never labelled. "active" labels
what handful suggests, the random quarter included; "random" any images. Development draws are
seeds from 1000 on, see lib/pools.py. A draw that has its line is not made again.
"""

import argparse
import time

import numpy as np
import torch

from benchmarks.lib import arguments, record
from benchmarks.lib.pools import SIZES, Pool, pool
from handful.evaluation.active_learning import shuffled, suggest
from handful.evaluation.calibration import temperature_of
from handful.evaluation.cross_validation import Scheme, out_of_fold
from handful.methods.linear_head import Features

BUDGETS = (20, 40, 70, 100, 150, 200)
FOLDS = Scheme(folds=5, repeats=1, halves=0)  # for the temperature


def main() -> None:
    options = parse()
    first = 1000 if options.part == "dev" else 0
    for source in options.sources:
        data = None
        for draw in range(first, first + options.draws):
            for arm in ("random", "active"):
                name = f"{source} {arm}"
                if record.recorded("active", name, options.part, draw):
                    continue
                data = data or pool(source, options.part)
                begun = time.perf_counter()
                accuracies, choosing = run(data, arm, draw)
                figures = {
                    "labels": list(BUDGETS),
                    "accuracy": [round(share, 4) for share in accuracies],
                    "seconds": round(time.perf_counter() - begun, 1),
                    "choosing_seconds": round(choosing, 1),
                }
                print(name, draw, figures, flush=True)
                settings = {"size": SIZES[source], "pool": len(data.labels)}
                if not options.dry:
                    record.append(
                        "active", name, options.part, figures, draw=draw, settings=settings
                    )


def run(data: Pool, arm: str, draw: int) -> tuple[list[float], float]:
    """Accuracy at each of BUDGETS, and the seconds it took to choose."""
    labeled, counted = np.empty(0, np.int64), np.empty(0, bool)
    head, temperature = None, 1.0
    accuracies, choosing = [], 0.0
    for budget in BUDGETS:
        left = np.setdiff1d(np.arange(len(data.labels)), labeled)
        order = left[shuffled(len(left), draw * 1000 + len(labeled))]
        count = budget - len(labeled)
        begun = time.perf_counter()
        if arm == "active":
            some = data.features[order]
            guesses = None if head is None else (head(some) / temperature).softmax(dim=1).detach()
            known = torch.from_numpy(counted)
            found = suggest(some, data.features[labeled], guesses, count, known)
            order = order[[suggestion.position for suggestion in found]]
            counted = np.append(counted, [suggestion.why == "random" for suggestion in found])
        choosing += time.perf_counter() - begun
        labeled = np.concatenate([labeled, order[:count]])
        head, temperature = fit(data, labeled, draw)
        guess = head(data.scored).argmax(dim=1).numpy()
        accuracies.append(float((guess == data.truth).mean()))
    return accuracies, choosing


def fit(data: Pool, labeled: np.ndarray, seed: int) -> tuple[torch.nn.Linear, float]:
    """The head on the labels so far, and its temperature, as `handful fit` finds them."""
    x, labels = data.features[labeled], torch.from_numpy(data.labels[labeled])
    method = Features().tuned(x, labels, data.classes, seed)

    def fit_and_predict(train: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray:
        head = method.fit_features(x[train], labels[train], x[:0], data.classes, seed)
        return head(x[held]).softmax(dim=1).detach().numpy()

    out = out_of_fold(labels.numpy(), data.classes, fit_and_predict, FOLDS, seed)
    temperature = temperature_of(out)
    return method.fit_features(x, labels, x[:0], data.classes, seed), temperature


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("part", choices=("dev", "final"))
    parser.add_argument("--sources", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
