"""From labels and features to an opinion: guesses for all images, and which come next."""

from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handful import models
from handful.evaluation.calibration import calibrated
from handful.labeling import learning
from handful.labeling.marks import LABEL
from handful.labeling.session import Opinion, Session
from handful.methods.linear_head import Features
from handful.pipeline import embed
from handful.pipeline.setup import default_backbone, default_size

BACKBONE = "lite0"


class Labeled:
    """The labelled images that have features, as arrays."""

    def __init__(
        self, numbers: list[int], rows: np.ndarray, marks: Mapping[int, Any], session: Session
    ) -> None:
        names = sorted({marks[n].label for n in numbers})
        index = {name: k for k, name in enumerate(names)}
        self.numbers, self.rows, self.classes = numbers, rows, tuple(names)
        self.labels = np.array([index[marks[n].label] for n in numbers], np.int64)
        self.origins = [marks[n].origin if _counts(marks[n]) else "chosen" for n in numbers]
        groups = [session.groups.get(session.names[n]) for n in numbers]
        self.groups = _numbered(groups) if any(groups) else None
        self.key = tuple(hash((n, marks[n].label)) for n in numbers)


def _counts(mark: Any) -> bool:
    """Whether the label may feed the estimate: it was drawn at random and given blind."""
    return mark.origin == "unknown" or (mark.origin == "random" and mark.seen in ("", "blind"))


def _numbered(groups: list[str | None]) -> np.ndarray:
    index: dict[object, int] = {}
    return np.array([index.setdefault(g or (at,), len(index)) for at, g in enumerate(groups)])


def labeled_rows(
    session: Session, row: np.ndarray, without: Set[int] = frozenset()
) -> Labeled | None:
    """The labelled images that have features, but for some; None unless they are of two classes."""
    marks, _ = session.snapshot()
    numbers = sorted(
        n for n, mark in marks.items()
        if mark.kind == LABEL and row[n] >= 0 and n not in session.hidden and n not in without
    )  # fmt: skip
    if len({marks[n].label for n in numbers}) < 2:
        return None
    return Labeled(numbers, row[numbers], marks, session)


def opinion_of(
    session: Session,
    features: Tensor,
    row: np.ndarray,
    at: list[int],
    coordinates: Any,
    temperature: float,
    version: int,
) -> Opinion:
    """Fit the head to the labels so far, predict all images, and choose those to label next.

    Choice and suggestions know nothing of the random sample, neither its images nor its labels:
    what chooses around them makes the classifier worse on them than on new images, and the estimate
    too low; suggestions, where an annotator follows wrong ones, make it too high. Pages of tiles
    are of all labels.

    Args:
        features: (M, D) float16; `row` maps numbers of images to rows, `at` rows to numbers.
        temperature: of the last estimate, for calibrated confidences.
    """
    changes = session.changes
    found = labeled_rows(session, row)
    chosen = labeled_rows(session, row, without=session.sample)
    shares, unbiased = np.zeros((len(at), 1), np.float32), None
    if found is not None:
        probabilities = _head_of(features, found, coordinates)(features)
        shares = calibrated(probabilities.numpy(), temperature)
        shares = with_random_shares(shares, found).astype(np.float32)
    if chosen is not None:
        unbiased = _head_of(features, chosen, coordinates)(features)
    suggested = None
    if chosen is not None and unbiased is not None:
        own = calibrated(unbiased.numpy(), temperature).astype(np.float32)
        suggested = chosen.classes, own
    return Opinion(
        version,
        () if found is None else found.classes,
        np.where(row >= len(at), -1, row),
        shares,
        tuple(_order(session, features, row, at, unbiased, coordinates)),
        changes,
        found is not None,
        suggested,
    )


def with_random_shares(probabilities: np.ndarray, found: Labeled) -> np.ndarray:
    """Probabilities (M, K) at the class shares of the random labels, instead of those of all.

    Pages add many labels of one class, which is then guessed too often; this turned half of the
    tiles of some pages wrong. Each class has one label more, so that none has a share of 0.
    """
    counts = np.bincount(found.labels, minlength=len(found.classes)) + 1
    random = [origin != "chosen" for origin in found.origins]
    drawn = np.bincount(found.labels[random], minlength=len(found.classes)) + 1
    rows = probabilities * (drawn / drawn.sum()) / (counts / counts.sum())
    return np.asarray(rows / rows.sum(axis=1, keepdims=True))


def _head_of(features: Tensor, found: Labeled, coordinates: Any) -> learning.Head:
    labels = torch.from_numpy(found.labels)
    return learning.fit_head(features[found.rows.tolist()], labels, len(found.classes), coordinates)


def _order(
    session: Session,
    features: Tensor,
    row: np.ndarray,
    at: list[int],
    probabilities: Tensor | None,
    coordinates: Any,
) -> list[int]:
    """Numbers of the images to label next, outside of the random sample."""
    marks, _ = session.snapshot()
    others = [n for n in at if n not in session.sample]
    numbers = [n for n in others if n not in marks][: learning.CANDIDATES]
    known = [n for n in others if n in marks][-learning.CANDIDATES :]
    pool = row[numbers].tolist()
    order = learning.choose(
        features[pool],
        features[row[known].tolist()],
        None if probabilities is None else probabilities[pool],
        coordinates,
        learning.AHEAD,
    )
    return [numbers[position] for position in order]


def feature_network(images: Any) -> tuple[Any, int]:
    """The network whose features the page uses, and its side in pixels: those of a usual `fit`."""
    spec = default_backbone(Features(), BACKBONE)
    if images.channels == 1 and models.mirrors(spec.name):
        spec = replace(spec, options={**spec.options, "mirrored": False})
    size = default_size(images, spec)
    return embed.feature_network(images, spec, size), size
