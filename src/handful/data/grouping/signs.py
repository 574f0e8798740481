"""Signs that images may be of one scene: parts of names, running numbers, times and folders."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np

from handful.data.capture_time import Capture
from handful.data.grouping.rules import folder_key

_RUNS = re.compile(r"\d+|[^\W\d_]+|[\W_]+")  # of digits, of letters, of anything else
_TIME = re.compile(
    r"(?<!\d)((?:19|20)\d\d)[-_.]?(\d\d)[-_.]?(\d\d)[-_ T.]{0,3}([012]\d)[-_.:h]?([0-5]\d)"
    r"[-_.:m]?([0-5]\d)"
)
MOST_PARTS = 8  # parts of a name at whose end it is cut
GAPS = (1, 3, 7, 15, 31)  # of running numbers: 1, 2 to 3, 4 to 7, ...
SECONDS = (1.0, 5.0, 30.0, 120.0, 600.0)  # between two shots: up to 1, up to 5, ...


@dataclass(frozen=True)
class Partition:
    """A sign that names the group of each image."""

    what: str  # in words
    keys: tuple[str | None, ...]  # of each image; None: alone


@dataclass(frozen=True, eq=False)
class Line:
    """A sign that puts images in a row: images that are near on it may be of one scene."""

    what: str  # in words
    rows: tuple[str | None, ...]  # of each image; images of different rows are not near; None: none
    place: np.ndarray  # (N,) float64 in the row
    gaps: tuple[float, ...]  # upper ends of the distances that are looked at, rising

    def pairs(self) -> np.ndarray:
        """Pairs (P, 2) of positions that are at most the last of `gaps` apart."""
        order = sorted(
            (at for at, row in enumerate(self.rows) if row is not None),
            key=lambda at: (self.rows[at], self.place[at]),
        )
        found: list[tuple[int, int]] = []
        for start, one in enumerate(order):
            for other in order[start + 1 : start + 1 + MOST_NEAR]:
                if self.rows[other] != self.rows[one] or self.apart(one, other) > self.gaps[-1]:
                    break
                found.append((one, other))
        return np.array(found, np.int64).reshape(-1, 2)

    def apart(self, one: int, other: int) -> float:
        return abs(float(self.place[other] - self.place[one]))


MOST_NEAR = 32  # images on a line that one image is paired with, at most


def partitions(names: Sequence[str], labels: Sequence[str]) -> list[Partition]:
    """The ways to group images by the beginning of their names or by folders, the finest first.

    Ways that leave every image alone, or hold whole folders together, are left out.
    """
    found: dict[tuple[str | None, ...], Partition] = {}
    parts = [_parts(name) for name in names]
    longest = min(max(map(len, parts), default=0), MOST_PARTS)
    for length in range(1, longest):
        keys = tuple(
            f"{folder}/{''.join(runs[:length])}" if len(runs) > length else None
            for (folder, _), runs in zip(map(_split, names), parts, strict=True)
        )
        found.setdefault(_plain(keys), Partition(_beginning(names, keys), keys))
    folders = tuple(folder_key(name, label) for name, label in zip(names, labels, strict=True))
    found.setdefault(_plain(folders), Partition("the folders below the classes", folders))
    useful = [one for one in found.values() if 1 < len(set(one.keys) - {None}) < len(names)]
    return sorted(useful, key=lambda one: -len(set(one.keys)))


def numbers(names: Sequence[str]) -> Line | None:
    """The running numbers in names; None where there are none.

    Numbers that no two folders share count as one row: a camera counted, and folders came later.
    """
    parts = [_numbered(name) for name in names]
    counted = [(stem, number) for _, stem, number in parts if number is not None]
    if len(counted) < 2:
        return None
    folders = {folder for folder, _, _ in parts}
    one_row = len(set(counted)) == len(counted) and len(folders) > 1 and _interleaved(parts)
    rows = tuple(
        None if number is None else (stem if one_row else f"{folder}/{stem}")
        for folder, stem, number in parts
    )
    place = np.array([float(number or 0) for _, _, number in parts])
    return Line("running numbers in the names of files", rows, place, GAPS)


def times(captures: Sequence[Capture | None], names: Sequence[str]) -> Line | None:
    """When images were taken, from the files or from their names; None where too few say.

    Times of which most are equal were written by a program, not by a camera.
    """
    seconds = np.array([np.nan if one is None else one.seconds for one in captures])
    cameras = ["" if one is None else one.camera for one in captures]
    what = "the times at which images were taken"
    if np.isfinite(seconds).mean() < 0.5:
        seconds = np.array([_time_in(name) for name in names])
        cameras = [""] * len(names)
        what = "the times in the names of files"
    known = seconds[np.isfinite(seconds)]
    if len(known) < max(2, len(names) / 2) or len(np.unique(known)) < len(known) / 2:
        return None
    rows = tuple(
        camera if np.isfinite(when) else None for camera, when in zip(cameras, seconds, strict=True)
    )
    return Line(what, rows, np.nan_to_num(seconds), SECONDS)


def _split(name: str) -> tuple[str, str]:
    """Folder and stem of a name."""
    path = PurePosixPath(name)
    return str(path.parent), path.stem


def _parts(name: str) -> list[str]:
    """The runs of digits and letters in a stem, each with the other characters that follow it."""
    found: list[str] = []
    for run in _RUNS.findall(_split(name)[1]):
        if found and not run[0].isalnum():
            found[-1] += run
        else:
            found.append(run)
    return found


def _plain(keys: tuple[str | None, ...]) -> tuple[str | None, ...]:
    """The same for all keys that make the same groups."""
    number: dict[str | None, str] = {}
    counts = Counter(keys)
    return tuple(
        None if key is None or counts[key] == 1 else number.setdefault(key, str(len(number)))
        for key in keys
    )


def _beginning(names: Sequence[str], keys: Sequence[str | None]) -> str:
    counts = Counter(key for key in keys if key is not None)
    for key, count in counts.most_common():
        at = keys.index(key)
        shown = key.rpartition("/")[2]
        if count > 1:
            return f"names of files that begin alike, such as {shown!r} in {names[at]!r}"
    return "names of files that begin alike"


def _numbered(name: str) -> tuple[str, str, int | None]:
    """Folder, what stands before the last number of the stem, and that number."""
    folder, stem = _split(name)
    found = re.search(r"(\d{1,15})\D*$", stem)
    if found is None:
        return folder, stem, None
    return folder, stem[: found.start()], int(found[1])


def _interleaved(parts: Sequence[tuple[str, str, int | None]]) -> bool:
    """Whether the numbers of one folder lie between those of another."""
    rows = sorted((stem, number, folder) for folder, stem, number in parts if number is not None)
    changes = sum(one[2] != two[2] for one, two in pairwise(rows))
    return changes >= len({folder for folder, _, _ in parts})


def _time_in(name: str) -> float:
    """Seconds since the epoch, as a name such as IMG_20240131_093015 says, or NaN."""
    found = _TIME.search(_split(name)[1])
    if found is None:
        return np.nan
    year, month, day, hour, minute, second = map(int, found.groups())
    try:
        when = datetime(year, month, day, hour, minute, second)
    except ValueError:
        return np.nan
    return (when - datetime(1970, 1, 1)).total_seconds()
