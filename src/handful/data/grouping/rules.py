"""Read `--groups`, and group images by their folders or names where it says so."""

import re
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from handful.data.class_names import normalized
from handful.data.imageset import ImageSet
from handful.errors import HandfulError

NONE, AUTO, FOLDER = "none", "auto", "folder"
LONGEST = 200  # characters of a regular expression
_REPEATED_PART = re.compile(r"\)[*+?{]|\\\d|\(\?P=")
_REPEATED = re.compile(r"[*+?{]")


def check_rule(rule: str) -> None:
    """HandfulError unless `rule` is none, auto, folder or a regular expression."""
    if rule in (NONE, AUTO, FOLDER):
        return
    asked = f"groups is {NONE}, {AUTO}, {FOLDER} or a regular expression for file names"
    if not rule or len(rule) > LONGEST:
        raise HandfulError(f"{asked} of at most {LONGEST} characters, got {len(rule)}")
    try:
        compiled = re.compile(rule)
    except (re.error, RecursionError, OverflowError) as error:
        raise HandfulError(
            f"{asked}, and {rule!r} is none: {error}; for example --groups '^([0-9]+)_' for names "
            f"such as 00012_00007.png"
        ) from None
    if compiled.fullmatch(""):
        raise HandfulError(
            f"{asked}, and {rule!r} matches nothing at all too, so it tells no groups apart; for "
            f"example --groups '^([0-9]+)_' for names such as 00012_00007.png"
        )


def safe_to_repeat(rule: str) -> bool:
    """Whether a rule from the record of a run, perhaps a stranger's, takes no long time to match.

    Repeated parts in brackets, references back and many repeated or optional letters may take time
    that doubles with every letter.
    """
    return not _REPEATED_PART.search(rule) and len(_REPEATED.findall(rule)) <= 2


def grouped_by_rule(images: ImageSet, rule: str) -> ImageSet:
    """The images and their test part, grouped by folder or regular expression; copies stay joined.

    An image that the rule gives no group is alone. Groups that the source gives stay as they are.

    Raises:
        HandfulError: the rule puts no image, or every image, into one group.
    """
    check_rule(rule)
    if rule in (NONE, AUTO) or (images.grouped_by == "source" and images.groups is not None):
        return images
    parts = [images] if images.test is None else [images, images.test]
    keys = [key for part in parts for key in _keys(part, rule)]
    _check_useful(keys[: len(images)], rule, images)
    before = [part.groups for part in parts if part.groups is not None]
    copies = np.concatenate(before) if len(before) == len(parts) else np.arange(len(keys))
    groups = joined(copies, keys)
    n = len(images)
    test = images.test and replace(images.test, groups=groups[n:], grouped_by=rule)
    return replace(images, groups=groups[:n], grouped_by=rule, test=test)


def joined(groups: np.ndarray, keys: list[str | None]) -> np.ndarray:
    """Group numbers (N,) after joining the groups (N,) whose images share a key."""
    first: dict[str, int] = {}
    pairs = [
        (first.setdefault(key, position), position)
        for position, key in enumerate(keys)
        if key is not None
    ]
    return linked(groups, np.array(pairs, np.int64).reshape(-1, 2))


def linked(groups: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Group numbers (N,) after joining the groups (N,) of each of the pairs (P, 2) of positions."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    number = np.unique(groups, return_inverse=True)[1]
    size = int(number.max()) + 1 if len(number) else 0
    ends = number[pairs]
    edges = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), (size, size))
    component: np.ndarray = connected_components(edges, directed=False)[1]
    return component[number].astype(np.int64)


def folder_key(name: str, label: str | None) -> str | None:
    """The folders of an image without that of its class; None for an image in no other folder."""
    folders = list(PurePosixPath(name).parts[:-1])
    if label is not None:
        own = [at for at, part in enumerate(folders) if normalized(part) == normalized(label)]
        if own:
            folders = folders[own[0] + 1 :]
    return "/".join(folders) or None


def _keys(images: ImageSet, rule: str) -> list[str | None]:
    """The group's name of each image, or None."""
    classes = (*images.classes, None)
    if rule == FOLDER:
        return [
            folder_key(name, classes[label])
            for name, label in zip(images.files, images.labels, strict=True)
        ]
    pattern = re.compile(rule)
    keys = []
    for name in images.files:
        found = pattern.search(name if "/" in rule else name.rpartition("/")[2])
        key = found and (found[1] if pattern.groups else found[0])
        keys.append(key or None)
    return keys


def _check_useful(keys: list[str | None], rule: str, images: ImageSet) -> None:
    known = {key for key in keys if key is not None}
    what = "folders below the classes" if rule == FOLDER else f"names that match {rule!r}"
    if not known:
        raise HandfulError(
            f"--groups {rule} finds no group: {images.source or 'the source'} has no {what}; "
            f"an image is named {images.names[0]!r}. Leave --groups out, or give another one"
        )
    if len(known) == 1 and None not in keys:
        raise HandfulError(
            f"--groups {rule} puts every image into the one group {known.pop()!r}, so none is left "
            f"to estimate on; leave --groups out, or give another one"
        )
