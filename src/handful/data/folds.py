"""Assign labelled images to the folds of a cross-validation; groups are never split.

There are two strategies. Both keep the images of one group (one person, one burst, one set of
duplicates) in one fold. They differ in their random numbers and in where a group goes. Saved
estimates and published figures rest on the folds of each, so neither can replace the other.

- `stratified_folds` chooses a setting of a method. Fits on its folds are compared with each other,
  so class counts are kept as even as possible and there are fewer folds where a class is rare.
- `estimate_folds` estimates accuracy. There the folds must not be more even than new images are:
  they are stratified on request only, and their sizes are evened out instead.

Letters in shapes: n labelled images.
"""

import numpy as np

from handful.data.splits import shuffled_units
from handful.errors import HandfulError


def stratified_folds(
    labels: np.ndarray, k: int, seed: int, groups: np.ndarray | None = None
) -> np.ndarray:
    """(n,) fold number of every labelled image; the class counts of two folds differ by 1 at most.

    Class counts may differ by more where groups keep images together. There are fewer than `k`
    folds where a class has fewer than `k` images (or groups), but at least two.

    Args:
        labels: (n,) class numbers, 0 and up.
        k: folds wanted; HandfulError below 2.
        groups: (n,) group numbers, or None if every image is its own group.
    """
    labels = np.asarray(labels)
    if k < 2:
        raise HandfulError(f"folds={k} leaves nothing to test on; use 2 or more")
    counts = np.bincount(labels)
    units = shuffled_units(labels, seed, groups)
    units_with = np.zeros(len(counts), np.int64)  # per class: units that hold one of its images
    for unit in units:
        units_with[np.unique(labels[unit])] += 1
    k = max(2, min(k, int(units_with[counts > 0].min())))
    fold_of = np.empty(len(labels), np.int64)
    sizes = np.zeros((k, len(counts)), np.int64)
    # The largest groups first: small ones then even out what those leave uneven.
    for unit in sorted(units, key=len, reverse=True):
        inside = np.bincount(labels[unit], minlength=len(counts))
        crowded = sizes @ inside  # (k,) images of this unit's classes that each fold holds already
        fold = min(range(k), key=lambda at: (crowded[at], sizes[at].sum()))
        fold_of[unit] = fold
        sizes[fold] += inside
    return fold_of


def estimate_folds(
    labels: np.ndarray, k: int, seed: int, groups: np.ndarray | None, stratified: bool
) -> np.ndarray:
    """(n,) fold number of every labelled image; each unit goes to the fold with fewest images.

    A unit is a group, or one image. Units come in random order, class by class if `stratified`:
    then, without groups, the class counts of two folds differ by 1 at most. There are fewer than
    `k` folds where there are fewer units; HandfulError if there is only one.
    """
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    units = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    if len(units) < 2:
        raise HandfulError(
            f"all {len(labels)} labelled images are of one group, and an estimate needs two: a "
            f"site or a scene is never divided, and exact copies join the groups that they are in "
            f"(`handful data` lists copies). Label images of other groups, remove copies, or fit "
            f'with --estimate none (in Python estimate="none")'
        )
    k = min(k, len(units))
    generator = np.random.default_rng(seed)
    units = [units[index] for index in generator.permutation(len(units))]
    if stratified:
        units.sort(key=lambda unit: int(np.bincount(labels[unit]).argmax()))
    fold_of = np.empty(len(labels), np.int64)
    sizes = np.zeros(k, np.int64)
    for unit in units:
        fold = int(sizes.argmin())
        fold_of[unit] = fold
        sizes[fold] += len(unit)
    return fold_of
