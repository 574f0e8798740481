"""Select the first images to label: typical and diverse ones, and some drawn at random.

They are written to a label file with empty labels. Once these are filled in, `fit` reads labels
and origins (random or chosen) from that file.
"""

from pathlib import Path

import numpy as np
import torch

from handful.csv_files import write_csv
from handful.data.imageset import ImageSet
from handful.data.labels.columns import ORIGIN
from handful.data.likeness import thumbnails
from handful.errors import HandfulError
from handful.evaluation.active_learning import (
    KNOWN,
    Suggestion,
    shuffled,
    suggest_new_scenes,
)
from handful.pipeline.embed import embed
from handful.progress import QUIET, Reporter

LABEL_FIRST = "label-first.csv"
LIMIT = 2_000  # candidates, drawn at random from more images: computing features takes time


def first_labels(
    images: ImageSet, count: int, seed: int = 0, reporter: Reporter = QUIET
) -> dict[str, Suggestion]:
    """Return image name → suggestion for `count` unlabelled images, the most useful first.

    Raises:
        HandfulError: there are fewer than `count` unlabelled images.
    """
    unlabeled = images.unlabeled
    if not 1 <= count <= len(unlabeled):
        raise HandfulError(
            f"--first-labels {count} asks for images without a label, of which {images.source} "
            f"has {len(unlabeled)}"
            + ("; ask for 1 or more, up to that many" if len(unlabeled) else "")
        )
    pool = unlabeled[shuffled(len(unlabeled), seed, max(LIMIT, count))]
    labeled = images.labeled[shuffled(len(images.labeled), seed, LIMIT)]
    candidates = images[np.concatenate([pool, labeled])]
    features = torch.from_numpy(embed(candidates, reporter=reporter).features)
    candidates.store.check(candidates.rows)  # what vanished has no features
    names = candidates.names
    suggestions = suggest_new_scenes(
        features[: len(pool)],
        features[len(pool) :],
        None,
        count,
        lambda positions: thumbnails(candidates[np.array(positions)]),
        thumbnails(candidates[len(pool) :][:KNOWN]),
        torch.from_numpy(candidates.counted),
    )
    return {names[suggestion.position]: suggestion for suggestion in suggestions}


def save(suggestions: dict[str, Suggestion], path: Path) -> None:
    """Write columns file, label (empty) and origin; HandfulError if the file exists."""
    if path.exists():
        raise HandfulError(
            f"{path} exists, perhaps with labels in it; move it, or give another --out"
        )
    rows = ([name, "", suggestion.origin] for name, suggestion in suggestions.items())
    write_csv(path, ["file", "label", ORIGIN], rows)
