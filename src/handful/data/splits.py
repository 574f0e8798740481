"""Draw labelled subsets and test parts; `folds` assigns folds.

Every choice is seeded, stratified by class and independent of the order of the classes. Images of
one group (one person, one burst, one set of duplicates) are never split.

Letters in shapes: N images, n labelled images.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from handful.data.imageset import ImageSet
from handful.errors import HandfulError
from handful.files import write_text

LEAST = 2  # labels of every class in a sample of labelled images, as far as there are so many


def draw(
    labels: np.ndarray,
    per_class: int,
    seed: int,
    groups: np.ndarray | None = None,
    classes: Sequence[str] = (),
) -> np.ndarray:
    """Positions of `per_class` labelled images of every class, in rising order.

    Draws with one seed are nested: the draw of 4 images per class lies within the draw of 40. With
    groups, whole groups are taken until every class has `per_class` images, so a class may get a
    few more.

    Args:
        labels: (N,) class numbers, -1 where unknown; images without a label are never drawn.
        per_class: HandfulError if it is less than 1 or more than the rarest class has.
        groups: (N,) group numbers, or None if every image is its own group.
        classes: names of the classes, for the error message.
    """
    labels = np.asarray(labels)
    counts = _counts(labels, len(classes))
    if per_class < 1 or per_class > counts.min():
        raise HandfulError(_wrong_budget(per_class, counts, classes))
    chosen = np.zeros(len(labels), bool)
    units = shuffled_units(labels, seed, groups)
    taken = np.zeros(len(counts), np.int64)
    for unit in units:
        if (taken[labels[unit]] < per_class).any():
            chosen[unit] = True
            taken += np.bincount(labels[unit], minlength=len(counts))
        if taken.min() >= per_class:
            break
    return np.flatnonzero(chosen)


def first(labels: np.ndarray, n: int) -> np.ndarray:
    """Positions of the first `n` labelled images, in the order of the source.

    HandfulError if there are fewer.
    """
    known = np.flatnonzero(np.asarray(labels) >= 0)
    if not 1 <= n <= len(known):
        raise HandfulError(f"first {n} asks for 1 to {len(known)} labelled images")
    return known[:n]


def evenly_spaced(items: Tensor, most: int) -> Tensor:
    """At most `most` of the items (N, ...), evenly spaced, starting with the first."""
    n = len(items)
    return items if n <= most else items[np.arange(most) * n // most]


def holdout(
    labels: np.ndarray, fraction: float, seed: int, groups: np.ndarray | None = None
) -> np.ndarray:
    """Positions of a stratified `fraction` of the labelled images, in rising order.

    Args:
        labels: (N,) class numbers, -1 where unknown.
        fraction: HandfulError outside of (0, 1), or if it leaves a class without images in a part.
        groups: (N,) group numbers; images of one group are never split.
    """
    labels = np.asarray(labels)
    if not 0 < fraction < 1:
        raise HandfulError(f"test_fraction is a share between 0 and 1, got {fraction}")
    n = round(fraction * int((labels >= 0).sum()))
    return _stratified(labels, n, seed, groups)


def development(images: ImageSet, n: int, seed: int) -> ImageSet:
    """The training images with `n` of them, stratified, as `test`: a part for choosing settings."""
    chosen = _stratified(images.labels, n, seed, images.groups)
    return with_test(images, chosen)


def with_test(images: ImageSet, positions: np.ndarray) -> ImageSet:
    """Move the images at `positions` into the test part."""
    rest = np.ones(len(images), bool)
    rest[positions] = False
    return replace(images[rest], test=images[positions])


def save_draw(path: Path, positions: Sequence[int], per_class: int, seed: int, data: str) -> None:
    """Write a draw as JSON, with a hash of its content.

    Args:
        data: hash of the image set that was drawn from.
    """
    record = {
        "data": data,
        "per_class": per_class,
        "seed": seed,
        "positions": [int(position) for position in positions],
    }
    write_text(path, json.dumps({**record, "hash": _hash(record)}))


def shuffled_units(labels: np.ndarray, seed: int, groups: np.ndarray | None) -> list[np.ndarray]:
    """Positions of the labelled images in a seeded order, as one array per group.

    Args:
        labels: (N,) class numbers, -1 where unknown.
        groups: (N,) group numbers, or None for one array per image.
    """
    order = _order(len(labels), seed)
    order = order[labels[order] >= 0]
    if groups is None:
        return list(order[:, None])
    together: dict[int, list[int]] = {}
    for position in order:
        together.setdefault(int(groups[position]), []).append(position)
    return [np.array(unit) for unit in together.values()]


def _order(n: int, seed: int) -> np.ndarray:
    """A seeded permutation of n; it rests on raw bits, which no version of NumPy changes."""
    bits = np.asarray(np.random.PCG64(seed).random_raw(n))
    return np.argsort(bits, kind="stable")


def _stratified(labels: np.ndarray, n: int, seed: int, groups: np.ndarray | None) -> np.ndarray:
    """Positions of `n` labelled images, in proportion to the classes; about `n` with groups."""
    counts = _counts(labels)
    targets = _shares(counts, n)
    if n < 1 or (targets >= counts).any():
        raise HandfulError(
            f"a test part of {n} of the {counts.sum()} labelled images would leave a class without "
            f"test or training images; choose a part between {len(counts)} and "
            f"{counts.sum() - len(counts)}"
        )
    chosen = np.zeros(len(labels), bool)
    taken = np.zeros(len(counts), np.int64)
    for unit in shuffled_units(labels, seed, groups):
        inside = np.bincount(labels[unit], minlength=len(counts))
        wanted = np.minimum(inside, np.maximum(targets - taken, 0)).sum()
        if 2 * wanted > len(unit) and (taken + inside < counts)[inside > 0].all():
            chosen[unit] = True
            taken += inside
    return np.flatnonzero(chosen)


def _shares(counts: np.ndarray, n: int) -> np.ndarray:
    """Split `n` into whole numbers proportional to `counts`, by the largest remainders."""
    exact = counts * (n / counts.sum())
    shares: np.ndarray = np.floor(exact).astype(np.int64)
    rest = n - shares.sum()
    shares[np.argsort(shares - exact, kind="stable")[:rest]] += 1
    return shares


def _counts(labels: np.ndarray, num_classes: int = 0) -> np.ndarray:
    known = labels[labels >= 0]
    if not len(known):
        raise HandfulError("no image has a label, so none can be drawn")
    return np.bincount(known, minlength=num_classes)


def _wrong_budget(per_class: int, counts: np.ndarray, classes: Sequence[str]) -> str:
    rarest = int(counts.argmin())
    name = classes[rarest] if classes else rarest
    if per_class < 1:
        return f"per_class={per_class} leaves nothing to learn from; use 1 to {counts[rarest]}"
    if not counts[rarest]:
        return f"class {name} has no labelled image, so no balanced draw is possible; label some"
    return (
        f"per_class={per_class} asks for more images than class {name} has ({counts[rarest]}); "
        f"the largest balanced budget here is per_class={counts[rarest]}"
    )


def _hash(record: dict[str, Any]) -> str:
    content = json.dumps(record, sort_keys=True).encode()
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def labeled_sample(
    items: np.ndarray, labels: Sequence[Any] | np.ndarray, most: int, seed: int
) -> np.ndarray:
    """Return about `most` of the items (N,), drawn at random, in their order.

    Of every class at least LEAST are kept, as far as there are so many.

    Args:
        labels: (M,) labels, at the positions that `items` holds.
    """
    if len(items) <= most:
        return items
    order = np.random.default_rng([seed, most]).permutation(items)
    kept, seen = list(order[:most]), Counter(labels[at] for at in order[:most])
    for at in order[most:]:
        if seen[labels[at]] < LEAST:
            seen[labels[at]] += 1
            kept.append(at)
    return np.sort(np.array(kept))
