"""ImageSet: images with labels (some unknown), class names, file names and groups.

Letters in shapes: N images, C channels (1 or 3), S working size.
"""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
import torch

from handful.data.cache import cache_folder, explained
from handful.data.class_names import normalized
from handful.data.decoding.value_range import Scale
from handful.data.store import BATCH, MEMORY_LIMIT, FileStore, Store
from handful.errors import HandfulError
from handful.progress import Total, Track, quiet
from handful.text import as_html_table, counted, for_terminal, name_in_text, some_of

__all__ = ["ImageSet", "Total", "Track", "quiet", "sorted_classes"]


LISTED = 12  # classes that are shown


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Images with the labels that are known. Subsets share the store and its pixels.

    `handful.load` makes one. `labels` are class numbers, -1 where unknown; `names` are file paths
    relative to the source.

    >>> images = handful.load("digits")
    >>> images
    ImageSet of 1,438 images from digits: 1,438 labelled, 0 not; 10 classes ('0': 142, '1': 146, ...
    >>> len(images), images.num_classes, images.test
    (1438, 10, ImageSet of 359 images from digits: 359 labelled, 0 not; ...)
    >>> images[:3].names
    ['train/00000', 'train/00001', 'train/00002']
    """

    store: Store
    rows: np.ndarray  # (N,) int64 rows of the store
    labels: np.ndarray  # (N,) int64, -1 where unknown
    classes: tuple[str, ...]  # index → name
    groups: np.ndarray | None = None  # (N,) int64; images of one group must never be split
    source: str = ""  # what the user typed
    test: "ImageSet | None" = None  # the labelled test part, if the source has one
    # Image name → "random" or "chosen": how the image was picked for labelling, if a file says so.
    origins: Mapping[str, str] = field(default_factory=dict)
    # What `groups` rest on: "source" (a column of the label file, folders, the caller), "copies"
    # (equal pixels alone), "crops" (the photos of crops), or the rule that was typed as --groups.
    grouped_by: str = "source"
    # Names of the images whose label a person has looked at again and confirmed.
    confirmed: frozenset[str] = frozenset()
    labels_by_folder: bool = False  # whether every label is the name of a folder of the source

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.rows):
            raise ValueError(
                f"labels must have one entry per image, got {len(self.labels)} labels for "
                f"{len(self.rows)} images; mark an image without a label with -1"
            )
        if len(self.labels) and not -1 <= self.labels.min() <= self.labels.max() < self.num_classes:
            raise ValueError(
                f"labels are class numbers from 0 to {self.num_classes - 1}, or -1 for unknown; "
                f"got {self.labels.min()} to {self.labels.max()}"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, positions: np.ndarray | slice | int) -> "ImageSet":
        """The images at these positions, or where a mask (N,) is true; without `test`.

        One position gives an ImageSet of one image.
        """
        if isinstance(positions, int | np.integer):
            positions = np.array([positions])
        groups = None if self.groups is None else self.groups[positions]
        rows, labels = self.rows[positions], self.labels[positions]
        return replace(self, rows=rows, labels=labels, groups=groups, test=None)

    def __repr__(self) -> str:
        counts = np.bincount(self.labels[self.labeled], minlength=self.num_classes)
        classes = [
            f"{name_in_text(name)}: {n}" for name, n in zip(self.classes, counts, strict=True)
        ]
        source = f" from {self.source}" if self.source else ""
        return for_terminal(
            f"ImageSet of {counted(len(self), 'image')}{source}: {len(self.labeled):,} labelled, "
            f"{len(self.unlabeled):,} not; {_counted_classes(classes)}"
        )

    def _repr_html_(self) -> str:
        counts = np.bincount(self.labels[self.labeled], minlength=self.num_classes)
        rows = [[name, f"{n:,}"] for name, n in zip(self.classes, counts, strict=True)]
        if len(rows) > LISTED:
            rows = [*rows[:LISTED], [f"and {len(rows) - LISTED} more", ""]]
        return as_html_table(repr(self), ["class", "labels"], rows)

    @property
    def in_source(self) -> int:
        """How many images the source has, of which these may be some.

        >>> images[:3].in_source
        1797
        """
        return max(self.store.whole, len(self.store.names))

    def with_labels(self, labels: np.ndarray | Sequence[int]) -> "ImageSet":
        """These images with other labels: (N,) class numbers, -1 where unknown.

        Only labels that are as they were stay confirmed, or the names of folders.

        >>> images[:2].with_labels([3, -1]).labels
        array([ 3, -1])
        """
        found = replace(self, labels=np.asarray(labels, np.int64))
        typed = (found.labels != self.labels) & (found.labels >= 0)
        found = replace(found, labels_by_folder=self.labels_by_folder and not typed.any())
        if not self.confirmed:
            return found
        kept = self[found.labels == self.labels].names
        return replace(found, confirmed=self.confirmed.intersection(kept))

    def seen(self, positions: np.ndarray | Sequence[int]) -> "ImageSet":
        """These images with every label removed except those at `positions`.

        >>> len(images.seen([0, 1, 2]).labeled)
        3
        """
        labels = np.full(len(self), -1, np.int64)
        labels[np.asarray(positions)] = self.labels[np.asarray(positions)]
        return self.with_labels(labels)

    def relabeled(self, classes: tuple[str, ...]) -> "ImageSet":
        """These images with labels that index `classes`; HandfulError if it lacks a used class.

        >>> images[:3].relabeled(("none", *images.classes)).labels - images[:3].labels
        array([1, 1, 1])
        """
        index = {normalized(name): number for number, name in enumerate(classes)}
        index |= {name: number for number, name in enumerate(classes)}
        numbers = [index.get(name, index.get(normalized(name), -1)) for name in self.classes]
        used = np.unique(self.labels[self.labels >= 0])
        if missing := sorted(self.classes[k] for k in used if numbers[k] < 0):
            raise HandfulError(
                f"class {missing[0]!r} of {self.source} is not among the {len(classes)} known "
                f"classes: {', '.join(map(name_in_text, classes))}"
            )
        table = np.array([*numbers, -1], np.int64)
        test = self.test and self.test.relabeled(classes)
        return replace(self, labels=table[self.labels], classes=classes, test=test)

    def known_to(self, classes: tuple[str, ...]) -> tuple["ImageSet", dict[str, int]]:
        """The labelled images of `classes`, with labels that index it, and counts of the others.

        The counts are name → number of images, for classes that are not in `classes`.

        >>> known, others = images.known_to(("0", "1"))
        >>> len(known), sum(others.values())
        (288, 1150)
        """
        known = {*classes, *map(normalized, classes)}
        foreign = [not {name, normalized(name)} & known for name in self.classes]
        out = np.array([*foreign, False])[self.labels]
        labels, counts = np.unique(self.labels[out], return_counts=True)
        left_out = {self.classes[k]: int(n) for k, n in zip(labels, counts, strict=True)}
        return self[~out].relabeled(classes), left_out

    def scaled_by(self, value_range: Scale | None) -> "ImageSet":
        """These images, with images of more than 8 bits scaled by `value_range`; None: unchanged.

        The shared store is not changed.

        >>> images.scaled_by(None) is images
        True
        """
        store = self.store
        if not isinstance(store, FileStore) or store.scaled_by(value_range) is store:
            return self
        test = self.test and self.test.scaled_by(value_range)
        return replace(self, store=store.scaled_by(value_range), test=test)

    def label(self, labels: str = "labels.csv", **options: Any) -> Any:
        """Open a page to label these images; as `handful.label`, which has the options.

        The result has the page's `address`, `images` with the labels so far, and `close()`.

        >>> page = images[:20].label("digits.csv")
        digits.csv is new...
        >>> page.close()
        ImageSet of 20 images from digits: 20 labelled, 0 not; ...
        """
        # By name: this package must not import one above it.
        return import_module("handful.labeling.notebook").label(self, labels, **options)

    @property
    def value_range(self) -> Scale | None:
        """The scale of images of more than 8 bits; None if there are no such images."""
        return self.store.value_range if isinstance(self.store, FileStore) else None

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> list[str]:
        """File paths relative to the source, or names such as "train/00012"."""
        return [self.store.names[row] for row in self.rows.tolist()]

    @property
    def files(self) -> list[str]:
        """Names of the files that the images are in: their own, but for crops."""
        return [self.store.file(row) for row in self.rows.tolist()]

    @property
    def channels(self) -> int:
        """1 if every image of the source is grey, else 3."""
        return self.store.channels

    @property
    def native_size(self) -> tuple[int, int] | None:
        """(height, width) if it is equal for all images, else None."""
        sizes = self.store.sizes[self.rows]
        if len(sizes) and (sizes == sizes[0]).all():
            return int(sizes[0, 0]), int(sizes[0, 1])
        return None

    @property
    def labeled(self) -> np.ndarray:
        """Positions of the images whose label is known."""
        return np.flatnonzero(self.labels >= 0)

    @property
    def unlabeled(self) -> np.ndarray:
        """Positions of the images whose label is unknown."""
        return np.flatnonzero(self.labels < 0)

    @property
    def counted(self) -> np.ndarray:
        """(n,) whether the label of each labelled image counts in estimates: it was not chosen."""
        names = self[self.labeled].names
        return np.array([self.origins.get(name) != "chosen" for name in names], dtype=bool)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the pixels' fingerprints, labels, classes, names and groups."""
        digest = hashlib.sha256(self.store.fingerprints[self.rows].tobytes())
        digest.update(self.labels.astype("<i8").tobytes())
        digest.update("\0".join(self.classes).encode(errors="surrogateescape"))
        digest.update("\0".join(self.names).encode(errors="surrogateescape"))
        if self.groups is not None:
            digest.update(self.groups.astype("<i8").tobytes())
        return f"sha256:{digest.hexdigest()}"

    def at(
        self, size: int, aspect: str = "crop", track: Track = quiet, channels: int | None = None
    ) -> torch.Tensor:
        """Pixels (N, C, S, S) uint8 of all images.

        Images are decoded once, in parallel, and cached. Large results are memory-mapped. Raises
        `Vanished` if a file can no longer be read.

        >>> images[:5].at(8).shape
        torch.Size([5, 1, 8, 8])

        Args:
            size: S, in pixels.
            aspect: how images become square. "crop" resizes the short side to S and keeps the
                centre, "pad" resizes the long side to S and adds black, "stretch" resizes both.
            channels: 1 or 3; by default `self.channels`.
        """
        pixels, places = self.store.pixels(
            self.rows, size, aspect, channels or self.channels, track
        )
        return torch.from_numpy(_gather(pixels, places))

    def stream(
        self, size: int, aspect: str = "crop", batch: int = 256, channels: int | None = None
    ) -> Iterator[torch.Tensor]:
        """The pixels of `at`, in batches of `batch` images, without holding or caching all of them.

        Images that can no longer be read are black. In that case it raises `Vanished` after the
        last batch, and the caller must discard its results.

        >>> [len(batch) for batch in images[:5].stream(8, batch=2)]
        [2, 2, 1]
        """
        channels = channels or self.channels
        rows = self.rows
        starts = range(0, len(rows), batch)
        if self.store.holds(size, aspect, channels):
            pixels, places = self.store.pixels(rows, size, aspect, channels)
            yield from (torch.from_numpy(pixels[places[at : at + batch]]) for at in starts)
        else:
            self.store.check(rows)
            batches = self.store.batches(rows, size, aspect, channels, batch)
            yield from (torch.from_numpy(pixels) for pixels in batches)
            self.store.check(rows)


def _counted_classes(classes: list[str]) -> str:
    """Classes with their counts, in brackets: "2 classes (fox: 1, hare: 1)"."""
    many = f"{len(classes)} class{'' if len(classes) == 1 else 'es'}"
    return f"{many} ({some_of(classes, LISTED)})" if classes else "no class"


def sorted_classes(names: set[str]) -> tuple[str, ...]:
    """Class names, sorted as numbers if all are integers ("2" before "10"), else as text."""
    if all(name.lstrip("-").isdecimal() for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _gather(pixels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """`pixels[rows]`: a view if the rows are consecutive, a memory-mapped file if large."""
    first = int(rows[0]) if len(rows) else 0
    if np.array_equal(rows, np.arange(first, first + len(rows))):
        return pixels[first : first + len(rows)]
    shape = (len(rows), *pixels.shape[1:])
    if np.prod(shape) <= MEMORY_LIMIT:
        return np.take(pixels, rows, axis=0)
    folder = cache_folder()
    with explained(folder / "gathered"):
        folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder)
        for start in range(0, len(rows), BATCH):
            file.write(pixels[rows[start : start + BATCH]].tobytes())
        file.flush()
    with file:
        gathered: np.ndarray = np.memmap(file, np.uint8, "c", shape=shape)
    return gathered
