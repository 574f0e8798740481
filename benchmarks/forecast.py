"""How far off is the forecast? Predict accuracy at twice and four times the labels, then look.

    python benchmarks/forecast.py dev   --draws 10
    python benchmarks/forecast.py final --draws 10

Labels of random images, `features` on cached features. The truth is the accuracy of the same method
on the same labels and as many more, on images that are never labelled. One line a draw;
development draws are seeds from 1000 on, see pools.py. A draw that has its line is not made again.
"""

import argparse
import time

import numpy as np
import torch

import record
from handful.evaluation.accuracy_estimate import estimate
from handful.evaluation.cross_validation import out_of_fold
from handful.evaluation.learning_curve import TIMES, forecast, learning_slope
from handful.methods.linear_head import Features
from pools import SIZES, Pool, pool


def main() -> None:
    options = parse()
    first = 1000 if options.part == "dev" else 0
    for source in options.sources:
        data = None
        for per_class in options.per_class:
            name = f"{source} {per_class}"
            for draw in range(first, first + options.draws):
                if record.recorded("forecast", name, options.part, draw):
                    continue
                data = data or pool(source, options.part)
                begun = time.perf_counter()
                figures = run(data, per_class * data.classes, draw)
                figures["seconds"] = round(time.perf_counter() - begun, 1)
                print(name, draw, figures, flush=True)
                settings = {"size": SIZES[source], "pool": len(data.labels)}
                if not options.dry:
                    record.append(
                        "forecast", name, options.part, figures, draw=draw, settings=settings
                    )


def run(data: Pool, labels: int, draw: int) -> dict[str, object]:
    """What was forecast on the first `labels` of a random order of the pool, and what came."""
    order = np.random.default_rng([draw, 4]).permutation(len(data.labels))
    x, y = data.features[order], torch.from_numpy(data.labels[order])
    method = Features().tuned(x[:labels], y[:labels], data.classes, draw)

    def fit_and_predict(train: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray:
        head = method.fit_features(x[train], y[train], x[:0], data.classes, seed)
        return head(x[held]).softmax(dim=1).detach().numpy()

    out = out_of_fold(y[:labels].numpy(), data.classes, fit_and_predict, seed=draw)
    found = estimate(out)
    truth = [scored(data, x[: n * labels], y[: n * labels], draw) for n in (1, *TIMES)]
    slope = learning_slope(found, out)[0] if found.accuracy is not None else None
    return {
        "labels": labels,
        "estimate": found.accuracy,
        "out_of_fold": found.out_of_fold,
        "halves": float((out.halves.argmax(axis=2) == out.labels).mean()),
        "shares": [out.share, out.half_share],
        "slope": slope,
        "forecast": [[row.accuracy, row.low, row.high] for row in forecast(found, out)],
        "truth": truth,
    }


def scored(data: Pool, x: torch.Tensor, labels: torch.Tensor, seed: int) -> float:
    head = Features().fit_features(x, labels, x[:0], data.classes, seed)
    return float((head(data.scored).argmax(dim=1).numpy() == data.truth).mean())


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("dev", "final"))
    parser.add_argument("--sources", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--per-class", nargs="+", type=int, default=(4, 10))
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
