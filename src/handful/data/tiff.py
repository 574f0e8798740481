"""TIFF files that Pillow cannot read, or reads wrongly: more bands, planes, stacks, more bits.

An ordinary 8-bit TIFF is left to Pillow. Stated choices: of more than three bands the first three
are taken; of an ImageJ or OME stack the first plane, its first three channels as red, green and
blue (two channels: red and green); what is not declared as alpha is none.
"""

import logging
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its remarks are not ours

RAW = "camera raw; export JPEGs"
# What only camera raw files begin with: Canon CR3, Fujifilm, Olympus, Panasonic, Sigma.
RAW_HEADS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PRIVATE = {32767, 32769, 34713, 65535}  # compressions of Sony, Epson, Nikon, Pentax
_SENSOR = {32803, 34892}  # photometric: colour filter array, linear raw


class Planes(NamedTuple):
    """Pixels of a TIFF as they are stored, (H, W) or (H, W, 3 or 4), and notes on the choice."""

    pixels: np.ndarray
    alpha: bool  # the fourth band is alpha
    notes: tuple[str, ...]


class TooLarge(Exception):
    """The tags name more bytes than there may be: (bytes)."""


def is_tiff(head: bytes) -> bool:
    return head.startswith(_TIFF)


def is_raw(path: Path, head: bytes) -> bool:
    """Whether a file holds the data of a sensor; what can be seen in it is a small preview."""
    if head.startswith(RAW_HEADS) or head[4:11] == b"ftypcrx":
        return True
    if is_tiff(head) and head[8:10] == b"CR":
        return True
    if not is_tiff(head):
        return False
    try:
        with _opened(path) as tiff:
            tags = tiff.pages.first.tags
            reduced = _value(tags, 254) & 1
            return bool(
                50706 in tags  # DNGVersion
                or _value(tags, 262) in _SENSOR
                or _value(tags, 259) in _PRIVATE
                or (reduced and (330 in tags or 271 in tags))  # a preview before SubIFDs or Make
            )
    except Exception:  # damaged, or of a kind that it does not know: the readers tell
        return False


def read_tiff(path: Path, most: int) -> Planes | None:
    """The pixels where Pillow must not be asked; None for an ordinary file. `most`: bytes."""
    with _opened(path) as tiff:
        page = tiff.pages.first
        bits = page.bitspersample
        description = str(page.description)
        stack = tiff.is_imagej or "<OME" in description
        bands, photometric = page.samplesperpixel, int(page.photometric)
        alpha = bool(page.extrasamples) and int(page.extrasamples[0]) in (1, 2)
        usual = {1: (0, 1, 3), 2: (1,), 3: (2, 6, 8), 4: (2, 5)}.get(bands, ())
        if bits <= 8 and photometric in usual and not stack and not (bands == 2 and not alpha):
            return None
        if page.imagedepth > 1 or bits not in (8, 16, 32, 64):
            return None
        if page.nbytes * (3 if stack else 2) > most:
            raise TooLarge(page.nbytes * (3 if stack else 2))
        if stack:
            pixels, notes = _stack(tiff, page, description)
        else:
            pixels, notes = np.asarray(page.asarray()), ()
            if page.planarconfig == 2 and bands > 1:
                pixels = np.moveaxis(pixels.reshape(bands, *pixels.shape[-2:]), 0, -1)
        pixels = pixels.squeeze() if pixels.ndim > 3 else pixels
        if photometric == 0:
            pixels = _inverted(pixels)
        return _three(pixels, photometric, alpha, notes)


def _three(pixels: np.ndarray, photometric: int, alpha: bool, notes: tuple[str, ...]) -> Planes:
    bands = pixels.shape[2] if pixels.ndim == 3 else 1
    if bands == 1:
        return Planes(pixels.reshape(pixels.shape[:2]), False, notes)
    if bands == 2:
        return Planes(pixels[..., 0], False, notes or (() if alpha else ("first of 2 bands",)))
    if bands == 4 and photometric == 2 and alpha:
        return Planes(pixels, True, notes)
    if bands > 3:
        return Planes(pixels[..., :3], False, (*notes, f"first three of {bands} bands"))
    return Planes(pixels, False, notes)


def _stack(tiff: Any, page: Any, description: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Channels of the first plane of an ImageJ or OME stack."""
    if tiff.is_imagej:
        found = re.search(r"^channels=(\d{1,6})", description, re.M)
        step, planes = 1, re.search(r"^images=(\d{1,9})", description, re.M)
    else:
        found = re.search(r'SizeC="(\d{1,6})"', description)
        order = re.search(r'DimensionOrder="XY([CZT]{3})"', description)
        step = 1
        for axis in (order[1] if order else "CZT").split("C")[0]:
            size = re.search(rf'Size{axis}="(\d{{1,9}})"', description)
            step *= int(size[1]) if size else 1
        planes = None
    channels = int(found[1]) if found else 1
    if page.samplesperpixel > 1 or channels < 2:
        several = (planes and int(planes[1]) > 1) or len(tiff.pages) > 1
        pixels = np.asarray(page.asarray())
        if page.planarconfig == 2 and pixels.ndim == 3:
            pixels = np.moveaxis(pixels, 0, -1)
        return pixels, ("first plane",) if several else ()
    wanted = [channel * step for channel in range(min(channels, 3))]
    parts = [_plane(tiff, page, number) for number in wanted]
    if len(parts) == 2:
        parts.append(np.zeros_like(parts[0]))
    return np.stack(parts, axis=-1), (f"channels of a stack: first {len(wanted)} of {channels}",)


def _plane(tiff: Any, page: Any, number: int) -> np.ndarray:
    """A plane by its number; ImageJ's large files have one directory and all planes behind it."""
    if number < len(tiff.pages):
        return np.asarray(tiff.pages[number].asarray()).reshape(page.shape)
    dtype = np.dtype(tiff.byteorder + page.dtype.char)
    offset = page.dataoffsets[0] + number * page.nbytes
    return np.asarray(tiff.filehandle.read_array(dtype, page.size, offset)).reshape(page.shape)


def _inverted(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype.kind == "u":
        return np.iinfo(pixels.dtype).max - pixels
    return -pixels.astype(np.float64 if pixels.dtype.kind == "f" else np.int64)


def _opened(path: Path) -> Any:
    import tifffile

    return tifffile.TiffFile(path, is_ome=False)


def _value(tags: Any, code: int) -> int:
    tag = tags.get(code)
    return int(tag.value) if tag is not None and isinstance(tag.value, int) else 0
