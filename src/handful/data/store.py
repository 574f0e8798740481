"""Stores of images: arrays in memory, or files that are decoded once and cached.

Letters in shapes: N images of the store, C channels (1 or 3), H height, W width, S working size.
"""

import hashlib
import json
import mmap
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL
import torch
import torch.nn.functional as F

from handful.data import decode
from handful.data.cache import VERSION, about, cache_folder, explained, locked, read_about, used
from handful.data.cache_entries import keep_within_limit, remove
from handful.data.decoding.value_range import Scale, fingerprints_at, merged
from handful.data.opened import Files, Folder
from handful.data.skipped import Skipped as Skipped
from handful.data.thread_pool import in_order
from handful.errors import HandfulError
from handful.files import beside
from handful.progress import Track, quiet

MEMORY_LIMIT = 2**29  # bytes; larger pixel arrays are memory-mapped
BATCH = 64  # images decoded by one worker at a time
ONE_THREAD = 96  # pixels a side up to which resizing takes no more than reading a tiny file


class Vanished(HandfulError):
    """Raised for images that could be read when their folder was opened, but no longer can."""

    def __init__(self, store: "Store", rows: np.ndarray) -> None:
        first = int(rows[0])
        others, what = (f" and {len(rows) - 1:,} others", "them") if len(rows) > 1 else ("", "it")
        super().__init__(
            f"{store.shown(first)}{others} could be read a moment ago, but "
            f"not now ({store.lost[first]}); run the same command again to leave {what} out"
        )
        self.store = store
        self.rows = rows


class Held(NamedTuple):
    """Decoded pixels of a store."""

    settings: tuple[Any, ...]  # see `Store._settings`
    pixels: np.ndarray  # (n, C, S, S) uint8
    rows: np.ndarray  # (n,) rising rows of the store; all of them unless files have vanished


@dataclass(eq=False, kw_only=True)
class Store(ABC):
    """Images in a fixed order. An ImageSet is a list of rows, so subsets share the pixels."""

    names: list[str]
    fingerprints: np.ndarray  # (N, 16) uint8; equal rows are equal pixels
    sizes: np.ndarray  # (N, 2) int64, height and width
    grey: np.ndarray  # (N,) bool; red, green and blue are equal in every pixel
    skipped: tuple[Skipped, ...] = ()
    other: Mapping[str, int] = field(default_factory=dict)  # ending → files that are no images
    whole: int = 0  # files of the source where the store holds a part of them, as of a shard
    whole_labeled: int = 0  # images with a label of which the images are a sample; 0: of no more

    def __post_init__(self) -> None:
        self._held: Held | None = None  # the pixels of the last call
        self.lost: dict[int, str] = {}  # row → why it can no longer be read

    def __getstate__(self) -> dict[str, Any]:
        """The state without pixels, for a spawned process: it reads them from the cache."""
        return {**self.__dict__, "_held": None}

    @property
    def channels(self) -> int:
        """1 if every image is grey, else 3."""
        return 1 if self.grey.all() else 3

    @property
    def source(self) -> str:
        """The folder or the address of the images, or "" if they are in memory."""
        return ""

    def file(self, row: int) -> str:
        """The name of the file that an image is in: its own, but for crops."""
        return self.names[row]

    @property
    def in_folder(self) -> bool:
        """Whether the names are those of files in a folder of this machine."""
        return False

    def shown(self, row: int) -> str:
        """The path or the address of an image, for messages."""
        return self.names[row]

    @abstractmethod
    def batch(self, rows: np.ndarray, size: int, aspect: str, channels: int) -> np.ndarray:
        """Pixels (len(rows), channels, S, S) uint8 made from the source; zeros for lost rows."""

    def pixels(
        self, rows: np.ndarray, size: int, aspect: str, channels: int, track: Track = quiet
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (n, channels, S, S) uint8, and the positions (len(rows),) of `rows` among the n.

        The pixels come from memory or the cache, or are decoded. Raises `Vanished` if one of the
        rows can no longer be read.
        """
        settings = self._settings(size, aspect, channels)
        if self._held is None or self._held.settings != settings:
            self._held = self._cached(rows, size, aspect, channels, track)
        places = np.searchsorted(self._held.rows, rows)
        known = places < len(self._held.rows)
        known[known] = self._held.rows[places[known]] == rows[known]
        if not known.all():
            raise self.vanished(rows)
        return self._held.pixels, places

    def holds(self, size: int, aspect: str, channels: int) -> bool:
        """Whether `pixels` has these pixels in memory."""
        return self._held is not None and self._held.settings == self._settings(
            size, aspect, channels
        )

    def let_go(self) -> None:
        """Give the memory of pixels that are memory-mapped back to the system.

        They are read again where they are needed. Call it between the parts of a job that reads
        all pixels: what was read counts as this process's memory.
        """
        mapped = None if self._held is None else getattr(self._held.pixels, "base", None)
        if isinstance(mapped, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)  # nobody writes to it, so nothing is lost

    def batches(
        self, rows: np.ndarray, size: int, aspect: str, channels: int, batch: int = BATCH
    ) -> Iterator[np.ndarray]:
        """The pixels of `rows` in batches of `batch` images, decoded ahead in parallel.

        Rows that can no longer be read are zeros and listed in `lost`: call `check` afterwards.
        """
        check_aspect(size, aspect)
        parts = [rows[start : start + batch] for start in range(0, len(rows), batch)]
        threads = self._threads(rows, size)
        return in_order(lambda part: self.batch(part, size, aspect, channels), parts, threads)

    def _threads(self, rows: np.ndarray, size: int) -> int:
        """How many threads make pixels of these rows; 0 is one for each core."""
        return 0

    def check(self, rows: np.ndarray) -> None:
        """Raise `Vanished` if some of the rows are known to be lost."""
        if self.lost and not self.lost.keys().isdisjoint(rows.tolist()):
            raise self.vanished(rows)

    def vanished(self, rows: np.ndarray) -> Vanished:
        """The error that lists those of these rows that are lost."""
        return Vanished(self, np.array([row for row in rows.tolist() if row in self.lost]))

    def _cached(
        self, wanted: np.ndarray, size: int, aspect: str, channels: int, track: Track
    ) -> Held:
        settings = self._settings(size, aspect, channels)
        while True:  # repeats only if files have vanished while others were decoded
            rows = np.array([r for r in range(len(self.names)) if r not in self.lost], np.int64)
            if not len(rows):
                raise self.vanished(wanted)
            path = self._path(settings, rows)
            shape = (len(rows), channels, size, size)
            found = _open_pixels(path, shape)
            if found is None:
                with locked(path):
                    found = _open_pixels(path, shape)  # another process may have built it
                    if found is None:
                        self._build(path, rows, settings, track)
                        found = _open_pixels(path, shape)
                keep_within_limit()
            if found is not None:
                used(path)
                return Held(settings, found, rows)
            if len(self.lost) == len(self.names) - len(rows):
                raise HandfulError(
                    f"the cache file {path} cannot be read back; remove it and try again"
                )

    def _build(self, path: Path, rows: np.ndarray, settings: tuple[Any, ...], track: Track) -> None:
        """Write the pixels of `rows`, copied from the arrays of other sets, or decoded.

        If files vanish meanwhile, the pixels of the others are written to the path for the others.
        """
        size, aspect, channels, *_ = settings
        known = _known(path, self.fingerprints[rows], (channels, size, size))
        new = rows[known.array < 0]
        batches = self.batches(new, size, aspect, channels)
        decoded = (
            image for part in track(batches, -(-len(new) // BATCH), "decoding") for image in part
        )
        with decode.guarded(), explained(path), beside(path) as temporary:
            with open(temporary, "wb") as file:
                _write_header(file, (len(rows), channels, size, size))
                for start in range(0, len(rows), BATCH):
                    part = slice(start, start + BATCH)
                    block = known.block(part, decoded)
                    kept = [row not in self.lost for row in rows[part].tolist()]
                    file.write(block[kept].tobytes())
                rows = np.array([row for row in rows.tolist() if row not in self.lost], np.int64)
                file.seek(0)
                _write_header(file, (len(rows), channels, size, size))
        known.close()
        if len(rows):
            place = self._path(settings, rows)
            if place != path:
                os.replace(path, place)
            images = self.fingerprints[rows].tobytes().hex()
            about(place, source=self.source, size=size, images=images)
            _remove_held_by(place)
        else:
            path.unlink()

    def _settings(self, size: int, aspect: str, channels: int) -> tuple[Any, ...]:
        """Everything but the image that determines the pixels; part of the cache's file name."""
        return (size, aspect, channels, type(self).__name__, VERSION, PIL.__version__)

    def _path(self, settings: tuple[Any, ...], rows: np.ndarray) -> Path:
        """The cache file: a hash of the settings, a dash and a hash of the images."""
        made = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]
        images = hashlib.sha256(self.fingerprints[rows].tobytes()).hexdigest()[:32]
        return cache_folder() / "pixels" / f"{made}-{images}.npy"


@dataclass(eq=False, kw_only=True)
class FileStore(Store):
    """Image files of one folder, bucket, archive or list; `names` are those of `files`."""

    files: Files
    stamps: np.ndarray  # (N, 2) int64: bytes and modification time in ns, when inspected
    notes: tuple[tuple[str, ...], ...]  # treatments of every file in decoding, see `Facts`
    file_fingerprints: np.ndarray  # (N, 16) uint8: of the files' own values, before any scale
    deep: np.ndarray  # (N,) bool: images of more than 8 bits
    blank: np.ndarray  # (N,) bool: images whose pixels are all equal
    value_range: Scale | None = None  # the scale of deep images; None if there are none

    def scaled_by(self, given: Scale | None) -> "FileStore":
        """A store of these files with another scale, such as a run's; this store is not changed.

        Kinds of files that the given scale does not cover keep this store's scale.
        """
        scale = merged(self.value_range, given)
        if scale == self.value_range:
            return self
        fingerprints = fingerprints_at(scale, self.file_fingerprints, self.deep)
        store = replace(self, fingerprints=fingerprints, value_range=scale)
        store.lost = self.lost  # shared: a file that vanishes is lost for both
        return store

    @property
    def source(self) -> str:
        return self.files.source

    @property
    def in_folder(self) -> bool:
        return isinstance(self.files, Folder)

    def shown(self, row: int) -> str:
        return self.files.shown(self.file(row))

    def opened(self, row: int) -> AbstractContextManager[Path]:
        """A path of the file, within the block. The block raises `decode.Unreadable`."""
        return self.files.opened(self.file(row))

    def picture(self, row: int, side: int) -> np.ndarray:
        """Pixels (H, W) or (H, W, 3) uint8 of an image, at most `side` a side, to be looked at."""
        with self.opened(row) as path:
            return decode.read_within(path, side, self.value_range)

    def batch(self, rows: np.ndarray, size: int, aspect: str, channels: int) -> np.ndarray:
        pixels = np.zeros((len(rows), channels, size, size), np.uint8)
        together = self._read_together(rows, size)
        opened = self.files.each(self.file(int(rows[places[0]])) for places in together)
        for places, file in zip(together, opened, strict=True):
            some = rows[places].tolist()
            try:
                with file as path:
                    images = self._read(path, some, size, aspect, channels)
            except decode.Unreadable as error:
                self.lost |= {row: self._change(row) or str(error) for row in some}
            else:
                # The cache identifies pixels by the inspected file: it must not have changed.
                if change := self._change(some[0]):
                    self.lost |= dict.fromkeys(some, change)
                else:
                    pixels[places] = images
        return pixels

    def _threads(self, rows: np.ndarray, size: int) -> int:
        return 1 if size <= ONE_THREAD and self.files.are_tiny(self.stamps[rows, 0]) else 0

    def _read_together(self, rows: np.ndarray, size: int) -> list[list[int]]:
        """Positions in `rows` of images that are read from one file at once."""
        return [[place] for place in range(len(rows))]

    def _read(
        self, path: Path, rows: list[int], size: int, aspect: str, channels: int
    ) -> Sequence[np.ndarray]:
        """Pixels (channels, S, S) of images in one file; raises `Unreadable`."""
        return [decode.read(path, size, aspect, channels, self.value_range) for _ in rows]

    def vanished(self, rows: np.ndarray) -> Vanished:
        """The error for all lost rows: every row is checked, so that a job restarts only once."""
        for row in rows.tolist():
            if row not in self.lost and (change := self._change(row)):
                self.lost[row] = change
        return super().vanished(rows)

    def _change(self, row: int) -> str:
        """How a file has changed since it was inspected, or ""."""
        stamp = (int(self.stamps[row, 0]), int(self.stamps[row, 1]))
        return self.files.change(self.file(row), stamp)


@dataclass(eq=False, kw_only=True)
class ArrayStore(Store):
    """Images of one size in memory (or memory-mapped): `images` is (N, C, H, W) uint8."""

    images: np.ndarray

    def pixels(
        self, rows: np.ndarray, size: int, aspect: str, channels: int, track: Track = quiet
    ) -> tuple[np.ndarray, np.ndarray]:
        check_aspect(size, aspect)
        if self.images.shape[1:] == (channels, size, size):
            return self.images, rows
        return super().pixels(rows, size, aspect, channels, track)

    def holds(self, size: int, aspect: str, channels: int) -> bool:
        native = self.images.shape[1:] == (channels, size, size)
        return native or super().holds(size, aspect, channels)

    def batch(self, rows: np.ndarray, size: int, aspect: str, channels: int) -> np.ndarray:
        images = torch.from_numpy(np.ascontiguousarray(self.images[rows])).float()
        images = resized(_coloured(images, channels), size, aspect)
        return images.round().clamp_(0, 255).byte().numpy()


def array_store(
    images: np.ndarray, names: list[str], skipped: Sequence[Skipped] = ()
) -> ArrayStore:
    """A store of images (N, C, H, W) uint8; three channels become one if all images are grey."""
    size = (images.shape[2], images.shape[3])
    grey = np.array([_is_grey(image) for image in images], bool)
    fingerprints = [
        decode.fingerprint(image[0] if alone else image.transpose(1, 2, 0), size)
        for image, alone in zip(images, grey, strict=True)
    ]
    return ArrayStore(
        names=names,
        fingerprints=np.frombuffer(b"".join(fingerprints), np.uint8).reshape(-1, 16),
        sizes=np.tile(np.array(size, np.int64), (len(images), 1)),
        grey=grey,
        skipped=tuple(skipped),
        images=np.ascontiguousarray(images[:, :1]) if grey.all() else images,
    )


def resized(images: torch.Tensor, size: int, aspect: str) -> torch.Tensor:
    """Resize images (N, C, H, W) float to (N, C, S, S), as `decode.resized` does with files."""
    height, width = images.shape[2:]
    if aspect == "crop" and height != width:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        images = images[:, :, top : top + side, left : left + side]
    if aspect == "pad" and height != width:
        scale = size / max(height, width)
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
        inner = _bicubic(images, height, width)
        top, left = (size - height) // 2, (size - width) // 2
        return F.pad(inner, (left, size - width - left, top, size - height - top))
    return _bicubic(images, size, size)


def check_aspect(size: int, aspect: str) -> None:
    """HandfulError for an unknown aspect or a size below 1 pixel."""
    if aspect not in decode.ASPECTS:
        raise HandfulError(f"no aspect {aspect!r}; aspect is one of {', '.join(decode.ASPECTS)}")
    if size < 1:
        raise HandfulError(f"size={size} is no image size; it must be 1 pixel or more")


def _bicubic(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    if images.shape[2:] == (height, width):
        return images
    return F.interpolate(
        images, (height, width), mode="bicubic", antialias=True, align_corners=False
    )


def _coloured(images: torch.Tensor, channels: int) -> torch.Tensor:
    """Images (N, C, H, W) float with 1 or 3 channels; grey is the luma that Pillow computes."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (images * luma).sum(1, keepdim=True)


def _is_grey(image: np.ndarray) -> bool:
    """Whether the channels of an image (C, H, W) are equal."""
    return len(image) == 1 or bool((image[0] == image[1]).all() and (image[0] == image[2]).all())


def _write_header(file: Any, shape: tuple[int, ...]) -> None:
    """Write NumPy's header, whose length does not depend on the number of images."""
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )


class _Known:
    """The images of a set that are in cached arrays of other sets with equal settings."""

    def __init__(self, n: int, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.arrays: list[np.ndarray] = []
        self.array = np.full(n, -1)  # index in `arrays`, -1 if in none
        self.row = np.zeros(n, np.int64)  # row of that array

    def block(self, part: slice, decoded: Iterator[np.ndarray]) -> np.ndarray:
        """The pixels of a part of the set; those in no array are taken from `decoded`."""
        array, row = self.array[part], self.row[part]
        pixels = np.empty((len(array), *self.shape), np.uint8)
        for number in np.unique(array):
            here = array == number
            if number < 0:
                pixels[here] = list(islice(decoded, int(here.sum())))
            else:
                pixels[here] = self.arrays[number][row[here]]
        return pixels

    def close(self) -> None:
        """Close the files: some systems cannot remove a mapped file."""
        self.arrays.clear()


def _known(path: Path, fingerprints: np.ndarray, shape: tuple[int, ...]) -> _Known:
    """Find images by their fingerprints (N, 16) in the arrays that `_others` lists for `path`."""
    found = _Known(len(fingerprints), shape)
    keys = _as_keys(fingerprints)
    for other in _others(path):
        if (found.array >= 0).all():
            break
        has = _images_in(other)
        pixels = _mapped(other, (len(has), *shape)) if len(has) else None
        if pixels is None:
            continue
        order = np.argsort(has)
        at = np.searchsorted(has, keys, sorter=order).clip(max=len(has) - 1)
        new = (has[order[at]] == keys) & (found.array < 0)
        if new.any():
            found.array[new] = len(found.arrays)
            found.row[new] = order[at][new]
            found.arrays.append(pixels)
    return found


def _remove_held_by(path: Path) -> None:
    """Remove the arrays whose images are all in the array at `path`."""
    has = _images_in(path)
    for other in _others(path):
        images = _images_in(other)
        if len(images) and np.isin(images, has).all():
            remove(other)


def _others(path: Path) -> list[Path]:
    """Cached arrays of other sets with the settings of `path`, the largest first."""
    made = path.name.split("-")[0]
    others = (other for other in path.parent.glob(f"{made}-*.npy") if other != path)
    return sorted(others, key=_size, reverse=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0  # another process has removed it


def _images_in(path: Path) -> np.ndarray:
    """Fingerprints (n,) of the images in a cached array, as keys; empty if unknown."""
    try:
        content = bytes.fromhex(read_about(path).get("images", ""))
        return _as_keys(np.frombuffer(content, np.uint8).reshape(-1, 16))
    except (TypeError, ValueError):
        return np.empty(0, "S32")


def _as_keys(fingerprints: np.ndarray) -> np.ndarray:
    """Fingerprints (N, 16) uint8 as text (N,), which NumPy can sort and compare."""
    text = np.ascontiguousarray(fingerprints).tobytes().hex()
    return np.frombuffer(text.encode(), "S32") if text else np.empty(0, "S32")


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        found = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.uint8 else None


def _open_pixels(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The cached array, or None if it is missing, damaged or of another shape."""
    large = int(np.prod(shape)) > MEMORY_LIMIT
    try:
        if large:
            # "c": torch needs writable memory; changes are not written to the file.
            found: np.ndarray = np.lib.format.open_memmap(path, "c")
        else:
            with open(path, "rb") as file:
                found = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.uint8 else None
