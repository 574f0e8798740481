"""What a user would otherwise pick: scikit-learn's semi-supervised estimators on the same draws.

    python -m benchmarks run peers mnist --draws 0-4
    python -m benchmarks run peers mnist --draws 1000-1002 --dev 10000

Pixels in [0, 1], 50 principal components of the images used: those with a label, and some others.
`LabelSpreading` on a graph of nearest neighbours, 20,000 others; `SVC` on the labels alone;
`SelfTrainingClassifier` around a calibrated SVC, 5,000 others: it takes minutes with 20,000. A draw
is that of `draws`: the same images are labelled. All else is as scikit-learn has it.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier
from sklearn.svm import SVC

import handful
from benchmarks.lib import arguments, record
from benchmarks.lib.cells import in_development
from handful.pipeline.setup import subsample_labels

COMPONENTS = 50
# Name → unlabelled images, and the estimator.
METHODS: dict[str, tuple[int, Callable[[], Any]]] = {
    "LabelSpreading": (20_000, lambda: LabelSpreading(kernel="knn")),
    "SVC": (0, SVC),
    "SelfTrainingClassifier": (
        5_000,
        lambda: SelfTrainingClassifier(CalibratedClassifierCV(SVC(), ensemble=False)),
    ),
}


def main() -> None:
    options = parse()
    kind, images, scored = opened(options)
    size = images.native_size
    assert size is not None, "images of one size are needed"
    test = pixels(scored, size[0])
    for draw in range(options.draws[0], options.draws[-1] + 1):
        seen = subsample_labels(images, options.per_class, draw)
        others = np.random.default_rng(draw).permutation(seen.unlabeled)
        for name, (count, make) in METHODS.items():
            used = np.concatenate([seen.labeled, others[:count]])
            x, labels = pixels(seen[used], size[0]), seen.labels[used]
            begun = time.perf_counter()
            axes = PCA(COMPONENTS, random_state=0).fit(x)
            model = make().fit(axes.transform(x), labels)
            accuracy = float((model.predict(axes.transform(test)) == scored.labels).mean())
            figures = {
                "test_accuracy": round(accuracy, 5),
                "n_test": len(test),
                "seconds": round(time.perf_counter() - begun, 1),
            }
            row = f"{options.source} {options.per_class} {name}"
            print(row, draw, figures, flush=True)
            if not options.dry:
                record.append("peers", row, kind, figures, draw=draw)


def opened(options: argparse.Namespace) -> tuple[str, handful.ImageSet, handful.ImageSet]:
    """dev or final, the source, and what is scored: its test part, or one cut from the training."""
    images = handful.load(options.source)
    if options.dev:
        images = in_development(images, options.dev)
    assert images.test is not None, f"{options.source} has no test part"
    return "dev" if options.dev else "final", images, images.test


def pixels(images: handful.ImageSet, size: int) -> np.ndarray:
    """(N, D) in [0, 1]."""
    rows: np.ndarray = images.at(size).flatten(1).numpy() / np.float32(255)
    return rows


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("source", choices=("mnist", "fashion-mnist"))
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument(
        "--draws", default="0-4", type=lambda text: [int(x) for x in text.split("-")]
    )
    parser.add_argument("--dev", type=int, default=0, metavar="N", help="images to score on")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
