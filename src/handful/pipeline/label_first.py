"""The first images to label: typical ones, each unlike the others, and some drawn at random.

The file they are written to is a label file in waiting: with its blank labels filled in it is
given to `fit`, which reads from it which labels are a sample and which were chosen.
"""

from pathlib import Path

import numpy as np
import torch

from handful.csv_files import write_csv
from handful.data.imageset import ImageSet
from handful.data.labels.columns import ORIGIN
from handful.errors import HandfulError
from handful.evaluation.active_learning import Suggestion, shuffled, suggest
from handful.pipeline.embed import embed
from handful.progress import QUIET, Reporter

LABEL_FIRST = "label-first.csv"
LIMIT = 2_000  # images looked at, drawn at random from more: they are embedded, which takes a while


def first_labels(
    images: ImageSet, count: int, seed: int = 0, reporter: Reporter = QUIET
) -> dict[str, Suggestion]:
    """Image name → suggestion, for `count` of the unlabelled images, the most useful first."""
    unlabeled = images.unlabeled
    if not 1 <= count <= len(unlabeled):
        raise HandfulError(
            f"--first-labels {count} asks for images without a label, of which {images.source} "
            f"has {len(unlabeled)}"
            + ("; ask for 1 or more, up to that many" if len(unlabeled) else "")
        )
    pool = unlabeled[shuffled(len(unlabeled), seed, max(LIMIT, count))]
    known = images.labeled[shuffled(len(images.labeled), seed, LIMIT)]
    looked_at = images[np.concatenate([pool, known])]
    found = torch.from_numpy(embed(looked_at, reporter=reporter).features)
    looked_at.store.check(looked_at.rows)  # what vanished has no features
    names = looked_at.names
    suggestions = suggest(found[: len(pool)], found[len(pool) :], None, count)
    return {names[some.position]: some for some in suggestions}


def save(suggestions: dict[str, Suggestion], path: Path) -> None:
    """Columns file, label (blank) and origin. A file that is there, perhaps filled in, stays."""
    if path.exists():
        raise HandfulError(
            f"{path} exists, perhaps with labels in it; move it, or give another --out"
        )
    rows = ([name, "", some.origin] for name, some in suggestions.items())
    write_csv(path, ["file", "label", ORIGIN], rows)
