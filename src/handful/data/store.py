"""Where pixels come from: arrays in memory, or files decoded once and cached.

Letters in shapes: N images of the store, C channels (1 or 3), H height, W width, S working size.
"""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import torch
import torch.nn.functional as F

from handful.data import decode
from handful.data.cache import VERSION, cache_folder, explained, locked
from handful.data.parallel import Track, in_order, quiet
from handful.data.values import ValueRange, marked
from handful.errors import HandfulError
from handful.files import beside

MEMORY_LIMIT = 2**30  # bytes; larger pixel arrays are memory-mapped instead of held
BATCH = 64  # images decoded by one worker at a time


class Skipped(NamedTuple):
    """A file that was left out, and why."""

    name: str
    reason: str


@dataclass(eq=False, kw_only=True)
class Store(ABC):
    """Images in a fixed order. Image sets are rows of a store, so subsets share its pixels."""

    names: list[str]
    fingerprints: np.ndarray  # (N, 16) uint8; equal rows are equal pixels
    sizes: np.ndarray  # (N, 2) int64, height and width
    grey: np.ndarray  # (N,) bool; red, green and blue are equal in every pixel
    skipped: tuple[Skipped, ...] = ()

    def __post_init__(self) -> None:
        self._held: tuple[str, np.ndarray] | None = None  # the last pixels asked for

    @property
    def channels(self) -> int:
        """1 if every image is grey, else 3."""
        return 1 if self.grey.all() else 3

    @abstractmethod
    def batch(self, rows: np.ndarray, size: int, fit: str, channels: int) -> np.ndarray:
        """(len(rows), channels, S, S) uint8, made from the source."""

    def pixels(self, size: int, fit: str, channels: int, track: Track = quiet) -> np.ndarray:
        """(N, channels, S, S) uint8 of every image: from memory, from the cache, or decoded."""
        key = self._key(size, fit, channels)
        if self._held is None or self._held[0] != key:
            self._held = key, self._cached(key, size, fit, channels, track)
        return self._held[1]

    def holds(self, size: int, fit: str, channels: int) -> bool:
        """Whether `pixels` would answer from memory."""
        return self._held is not None and self._held[0] == self._key(size, fit, channels)

    def batches(
        self, rows: np.ndarray, size: int, fit: str, channels: int, batch: int = BATCH
    ) -> Iterator[np.ndarray]:
        """The pixels of `rows`, `batch` images at a time, decoded ahead in parallel."""
        check_fit(size, fit)
        parts = [rows[start : start + batch] for start in range(0, len(rows), batch)]
        return in_order(lambda part: self.batch(part, size, fit, channels), parts)

    def _cached(self, key: str, size: int, fit: str, channels: int, track: Track) -> np.ndarray:
        path = cache_folder() / "pixels" / f"{key}.npy"
        shape = (len(self.names), channels, size, size)
        found = _open_pixels(path, shape)
        if found is None:
            with locked(path):
                found = _open_pixels(path, shape)  # another process may have built it meanwhile
                if found is None:
                    self._build(path, shape, fit, track)
                    found = _open_pixels(path, shape)
        if found is None:
            raise HandfulError(
                f"the cache file {path} cannot be read back; remove it and try again"
            )
        return found

    def _build(self, path: Path, shape: tuple[int, ...], fit: str, track: Track) -> None:
        rows = np.arange(shape[0])
        batches = self.batches(rows, shape[2], fit, shape[1])
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        with decode.guarded(), explained(path), beside(path) as temporary:
            with open(temporary, "wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                for pixels in track(batches, -(-shape[0] // BATCH), "decoding"):
                    file.write(pixels.tobytes())

    def _key(self, size: int, fit: str, channels: int) -> str:
        """Name of the cached pixels: a hash of what they are and of what made them."""
        made = json.dumps([VERSION, PIL.__version__, size, fit, channels, type(self).__name__])
        return hashlib.sha256(made.encode() + self.fingerprints.tobytes()).hexdigest()[:32]


@dataclass(eq=False, kw_only=True)
class FileStore(Store):
    """Image files under one folder; `names` are their paths in it."""

    root: Path
    stamps: np.ndarray  # (N, 2) int64: bytes and mtime in ns, when inspected
    notes: tuple[tuple[str, ...], ...]  # for every file, what its decoding involved
    prints: np.ndarray  # (N, 16) uint8: fingerprints of what is in the files, before any scale
    deep: np.ndarray  # (N,) bool: more than 8 bits
    blank: np.ndarray  # (N,) bool: all pixels are equal
    value_range: ValueRange | None = None  # the scale of deep images; None where there are none

    def scaled_by(self, value_range: ValueRange | None) -> "FileStore":
        """The same files with another scale, such as that of a run; this store stays as it is."""
        if value_range is None or value_range == self.value_range or not self.deep.any():
            return self
        marks = marked(self.prints, self.deep, value_range)
        return replace(self, fingerprints=marks, value_range=value_range)

    def batch(self, rows: np.ndarray, size: int, fit: str, channels: int) -> np.ndarray:
        pixels = np.empty((len(rows), channels, size, size), np.uint8)
        for target, row in zip(pixels, rows, strict=True):
            path = self.root / self.names[row]
            try:
                self._check_unchanged(path, row)
                target[:] = decode.read(path, size, fit, channels, self.value_range)
            except decode.Unreadable as error:
                raise HandfulError(
                    f"{path} could be read a moment ago, but not now ({error}); "
                    f"run the same command again to leave it out"
                ) from error
        return pixels

    def _check_unchanged(self, path: Path, row: int) -> None:
        """Cached pixels are named after what was inspected: it must still be the same file."""
        try:
            now = os.stat(path)
        except OSError as error:
            raise decode.Unreadable("it has vanished") from error
        if (now.st_size, now.st_mtime_ns) != tuple(self.stamps[row]):
            raise decode.Unreadable("it has changed")


@dataclass(eq=False, kw_only=True)
class ArrayStore(Store):
    """Images of one size in memory (or memory-mapped): `images` is (N, C, H, W) uint8."""

    images: np.ndarray

    def pixels(self, size: int, fit: str, channels: int, track: Track = quiet) -> np.ndarray:
        check_fit(size, fit)
        if self.images.shape[1:] == (channels, size, size):
            return self.images
        return super().pixels(size, fit, channels, track)

    def holds(self, size: int, fit: str, channels: int) -> bool:
        native = self.images.shape[1:] == (channels, size, size)
        return native or super().holds(size, fit, channels)

    def batch(self, rows: np.ndarray, size: int, fit: str, channels: int) -> np.ndarray:
        images = torch.from_numpy(np.ascontiguousarray(self.images[rows])).float()
        images = resized(_coloured(images, channels), size, fit)
        return images.round().clamp_(0, 255).byte().numpy()


def array_store(
    images: np.ndarray, names: list[str], skipped: Sequence[Skipped] = ()
) -> ArrayStore:
    """A store over (N, C, H, W) uint8 images; three equal channels become one."""
    size = (images.shape[2], images.shape[3])
    grey = np.array([_is_grey(image) for image in images], bool)
    prints = [
        decode.fingerprint(image[0] if alone else image.transpose(1, 2, 0), size)
        for image, alone in zip(images, grey, strict=True)
    ]
    return ArrayStore(
        names=names,
        fingerprints=np.frombuffer(b"".join(prints), np.uint8).reshape(-1, 16),
        sizes=np.tile(np.array(size, np.int64), (len(images), 1)),
        grey=grey,
        skipped=tuple(skipped),
        images=np.ascontiguousarray(images[:, :1]) if grey.all() else images,
    )


def resized(images: torch.Tensor, size: int, fit: str) -> torch.Tensor:
    """(N, C, H, W) float → (N, C, S, S): the tensor twin of `decode.resized`."""
    height, width = images.shape[2:]
    if fit == "crop" and height != width:
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        images = images[:, :, top : top + side, left : left + side]
    if fit == "pad" and height != width:
        scale = size / max(height, width)
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
        inner = _bicubic(images, height, width)
        top, left = (size - height) // 2, (size - width) // 2
        return F.pad(inner, (left, size - width - left, top, size - height - top))
    return _bicubic(images, size, size)


def check_fit(size: int, fit: str) -> None:
    if fit not in decode.FITS:
        raise HandfulError(f"no fit {fit!r}; fit is one of {', '.join(decode.FITS)}")
    if size < 1:
        raise HandfulError(f"size={size} is no image size; it must be 1 pixel or more")


def _bicubic(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    if images.shape[2:] == (height, width):
        return images
    return F.interpolate(
        images, (height, width), mode="bicubic", antialias=True, align_corners=False
    )


def _coloured(images: torch.Tensor, channels: int) -> torch.Tensor:
    """(N, C, H, W) float in 1 or 3 channels; grey is the luma Pillow uses."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (images * luma).sum(1, keepdim=True)


def _is_grey(image: np.ndarray) -> bool:
    """Whether a (C, H, W) image holds no colour."""
    return len(image) == 1 or bool((image[0] == image[1]).all() and (image[0] == image[2]).all())


def _open_pixels(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The cached array, or None where it is absent, cut short or not what was asked for."""
    large = int(np.prod(shape)) > MEMORY_LIMIT
    try:
        if large:
            # "c": torch wants writable memory; what is written there never reaches the file.
            found: np.ndarray = np.lib.format.open_memmap(path, "c")
        else:
            with open(path, "rb") as file:
                found = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.shape == shape and found.dtype == np.uint8 else None
