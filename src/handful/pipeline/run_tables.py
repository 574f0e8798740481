"""Write the tables of a run folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from handful.csv_files import write_csv
from handful.data.imageset import ImageSet
from handful.data.labels.columns import CONFIRMED, MARK
from handful.data.likeness import thumbnails
from handful.data.splits import save_draw
from handful.evaluation.active_learning import (
    KNOWN,
    POOL,
    RANDOM,
    how_many,
    shuffled,
    suggest_new_scenes,
)
from handful.evaluation.label_errors import LabelIssue
from handful.evaluation.novelty import fit_in_distribution, save_in_distribution
from handful.methods.base import Task
from handful.pipeline.artifacts import IN_DISTRIBUTION, ISSUES, LABEL_NEXT, LABELS, OUT_OF_FOLD
from handful.pipeline.run import Run, pixel_fingerprints
from handful.progress import Track


def images_to_predict(images: ImageSet) -> int:
    """Return how many images go through the network after training.

    All unlabelled ones for predictions.csv, and samples of both for label-next.csv.
    """
    unlabeled, labeled = len(images.unlabeled), len(images.labeled)
    return unlabeled + min(unlabeled, POOL) + min(labeled, POOL)


def save_labels(images: ImageSet, folder: Path, origins: Sequence[str]) -> None:
    """Write labels.csv: labels, origins and pixel hashes of the labelled images.

    A column `mark` tells labels that were confirmed, where there are any.
    """
    seen = images[images.labeled]
    names = [images.classes[k] for k in seen.labels]
    columns = {"file": seen.names, "label": names, "origin": origins}
    columns["pixels"] = pixel_fingerprints(seen)
    marks = [CONFIRMED if name in images.confirmed else "" for name in seen.names]
    if any(marks):
        columns[MARK] = marks
    write_csv(folder / LABELS, list(columns), map(list, zip(*columns.values(), strict=True)))


def save_label_next(
    run: Run, task: Task, seed: int, folder: Path, track: Track
) -> list[dict[str, str]]:
    """Write label-next.csv (images to label next) and familiar.safetensors (known features).

    Returns:
        file, reason and pixel hash of each suggestion for the record, from which a later run
        knows which of its labels were chosen.
    """
    images, predictor = task.images, run.predictor
    pool, labeled = (
        images[part[shuffled(len(part), seed)]] for part in (images.unlabeled, images.labeled)
    )
    pool_features, labeled_features = (
        predictor.features(part, track=track) for part in (pool, labeled)
    )
    # Features of images that the network was trained on are distributed unlike those of others.
    parts = [pool_features]
    if len(pool_features) < len(labeled_features):
        parts.append(labeled_features)
    save_in_distribution(
        fit_in_distribution(torch.cat([part for part in parts if len(part)])),
        folder / IN_DISTRIBUTION,
    )
    if not len(pool):
        return []
    probabilities = predictor.of_features(pool_features)
    confidence, predicted = (column.tolist() for column in probabilities.max(dim=1))
    count = how_many(len(images.labeled), len(pool))
    known = labeled[:KNOWN]
    suggestions = suggest_new_scenes(
        pool_features,
        labeled_features,
        probabilities,
        count,
        lambda positions: thumbnails(pool[np.array(positions)]),
        thumbnails(known),
        torch.from_numpy(labeled.counted),
    )
    names, fingerprints = pool.names, pixel_fingerprints(pool)

    def guess(at: int, why: str) -> list[str]:
        if why == RANDOM:  # its label counts in the estimate, so no guess may lead it
            return ["", ""]
        return [images.classes[predicted[at]], f"{confidence[at]:.4f}"]

    rows = (
        [names[at], "", why, *guess(at, why), str(rank)]
        for rank, (at, why) in enumerate(suggestions, 1)
    )
    header = ["file", "label", "why", "prediction", "confidence", "rank"]
    write_csv(folder / LABEL_NEXT, header, rows)
    return [{"file": names[at], "why": why, "pixels": fingerprints[at]} for at, why in suggestions]


def save_label_draw(images: ImageSet, per_class: int, seed: int, folder: Path) -> None:
    """Write draw.json: the positions of the labelled images, and a hash of all images."""
    save_draw(folder / "draw.json", images.labeled.tolist(), per_class, seed, images[:].hash)


def save_issues(issues: Sequence[LabelIssue], images: ImageSet, folder: Path) -> None:
    """Write label-issues.csv: labelled images predicted as another class, worst first."""
    names = images[images.labeled].names
    rows = (
        [
            names[issue.position],
            images.classes[issue.label],
            images.classes[issue.guess],
            f"{issue.label_probability:.4f}",
            f"{issue.guess_probability:.4f}",
        ]
        for issue in issues
    )
    write_csv(folder / ISSUES, ["file", "label", "guess", "p(label)", "p(guess)"], rows)


def save_out_of_fold(probabilities: np.ndarray, images: ImageSet, folder: Path) -> None:
    """Write out-of-fold.csv: the out-of-fold prediction of every labelled image.

    Args:
        probabilities: (n, K), at the temperature of the saved model.
    """
    seen = images[images.labeled]
    rows = (
        [
            name,
            images.classes[label],
            images.classes[shares.argmax()],
            *(f"{share:.4f}" for share in shares),
        ]
        for name, label, shares in zip(seen.names, seen.labels, probabilities, strict=True)
    )
    header = ["file", "label", "guess", *(f"p({name})" for name in images.classes)]
    write_csv(folder / OUT_OF_FOLD, header, rows)
