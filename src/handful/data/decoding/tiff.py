"""Read TIFF files that Pillow cannot read or reads wrongly: many bands, planes, stacks, deep bits.

Pillow reads ordinary 8-bit TIFFs. Choices: of more than three bands the first three are taken. Of
an ImageJ or OME stack the first plane is taken, with its first three channels as red, green and
blue (two channels: red and green). A band counts as alpha only if it is declared as alpha.
"""

import logging
import lzma
import math
import re
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # silence its warnings

RAW = "camera raw; export JPEGs"
# First bytes of camera raw files: Fujifilm, Olympus, Panasonic, Sigma.
RAW_HEADS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PRIVATE = {32767, 32769, 34713, 65535}  # raw compressions of Sony, Epson, Nikon, Pentax
_DEFLATE, _LZMA = {8, 32946}, 34925
_READ = {1, 5, 32773, *_DEFLATE, _LZMA}  # none, LZW and PackBits cannot exceed the declared size
_SENSOR = {32803, 34892}  # photometric: colour filter array, linear raw


class Planes(NamedTuple):
    """Pixels of a TIFF as they are stored."""

    pixels: np.ndarray  # (H, W) or (H, W, 3 or 4)
    alpha: bool  # whether the fourth band is alpha
    notes: tuple[str, ...]  # which bands or planes were taken
    orientation: int  # of EXIF


class Look(NamedTuple):
    """What the tags of a TIFF say, before any pixel is decoded."""

    raw: bool = False  # whether it is camera raw
    ordinary: bool = True  # whether Pillow reads it: 8 bits in a usual order of bands
    one_band: bool = False  # one band of any depth, not a stack: Pillow keeps its values too
    bytes: int = 0  # upper bound of the memory for decoding and using it
    segment: int = 0  # bytes of one decoded strip or tile


def is_tiff(head: bytes) -> bool:
    """Whether a file with these first bytes is a TIFF."""
    return head.startswith(_TIFF)


def is_raw(head: bytes) -> bool:
    """Whether a file with these first bytes is camera raw; its visible image is a small preview."""
    return (
        head.startswith(RAW_HEADS)
        or head[4:11] == b"ftypcrx"
        or (is_tiff(head) and head[8:10] == b"CR")
    )


def look(path: Path) -> Look | None:
    """Read the tags of a TIFF; None if they are damaged."""
    try:
        with _opened(path) as tiff:
            page = tiff.pages.first
            if _is_raw_page(page):
                return Look(raw=True)
            bits, bands, photometric, stack, alpha = _kind(tiff, page)
            usual = {1: (0, 1, 3), 2: (1,), 3: (2, 6, 8), 4: (2, 5)}.get(bands, ())
            ordinary = bits <= 8 and photometric in usual and not stack
            ordinary = ordinary and page.planarconfig == 1 and not (bands == 2 and not alpha)
            if page.imagedepth > 1 or bits not in (8, 16, 32, 64):
                ordinary = True
            chunk, work = _segments(page)
            one_band = bands == 1 and photometric == 1 and not stack
            raw = min(max(page.databytecounts, default=0), tiff.filehandle.size)
            used = work * min(bands, 4) // max(1, bands)  # at most four bands are used
            planes = 9 * work if stack else work * (1 + (photometric == 0)) + 2 * used
            cost = (work if ordinary else planes) + 2 * chunk + raw
            return Look(False, ordinary, one_band, cost, chunk)
    except Exception:  # damaged: tifffile raises almost anything
        return None


def read_planes(path: Path, most: int) -> Planes:
    """The pixels of a TIFF that Pillow cannot read or reads wrongly.

    Args:
        most: bytes of one segment, from `look`; ValueError for a segment that holds more.
    """
    with _opened(path) as tiff:
        page = tiff.pages.first
        bits, bands, photometric, stack, alpha = _kind(tiff, page)
        if (
            int(page.compression) not in _READ
        ):  # others, such as JPEG 2000, may exceed the tags' size
            raise ValueError(f"compression {page.compression.name} is not read; save it anew")
        _check_segments(tiff, page, most)
        if stack:
            pixels, notes = _stack(tiff, page, most)
        else:
            pixels, notes = np.asarray(page.asarray(maxworkers=1)), ()
            if page.planarconfig == 2 and bands > 1:
                pixels = np.moveaxis(pixels.reshape(bands, *pixels.shape[-2:]), 0, -1)
        pixels = pixels.squeeze() if pixels.ndim > 3 else pixels
        if photometric == 0:
            pixels = -pixels if pixels.dtype.kind == "f" else ~pixels
        three = _three(pixels, photometric, alpha, notes)
        return three._replace(orientation=_value(page.tags, 274) or 1)


def _is_raw_page(page: Any) -> bool:
    tags = page.tags
    reduced = _value(tags, 254) & 1
    return bool(
        50706 in tags  # DNGVersion
        or _value(tags, 262) in _SENSOR
        or _value(tags, 259) in _PRIVATE
        or (reduced and (330 in tags or 271 in tags))  # a preview before SubIFDs or Make
    )


def _kind(tiff: Any, page: Any) -> tuple[int, int, int, bool, bool]:
    """Bits, number of bands, photometric, whether it is a stack and whether alpha is declared."""
    stack = tiff.is_imagej or "<OME" in str(page.description)
    alpha = bool(page.extrasamples) and int(page.extrasamples[0]) in (1, 2)
    return page.bitspersample, page.samplesperpixel, int(page.photometric), bool(stack), alpha


def _segments(page: Any) -> tuple[int, int]:
    """Bytes of one decoded strip or tile, and of all; a tile may be larger than the image."""
    sizes = list(page.chunks)
    if not page.is_tiled:
        sizes[0] = min(sizes[0], page.imagelength)
    chunk = math.prod(sizes) * max(1, page.bitspersample // 8)
    return chunk, max(page.nbytes, chunk * math.prod(page.chunked))


def _check_segments(tiff: Any, page: Any, most: int) -> None:
    """ValueError for segments that decompress to more than `most` bytes; tifffile has no limit."""
    compression = int(page.compression)
    if compression not in _DEFLATE and compression != _LZMA:
        return
    places = zip(
        page.dataoffsets, page.databytecounts, range(math.prod(page.chunked)), strict=False
    )
    for offset, count, _ in places:
        tiff.filehandle.seek(offset)
        content: bytes = tiff.filehandle.read(count)
        unpack: Any = zlib.decompressobj() if compression in _DEFLATE else lzma.LZMADecompressor()
        got = 0
        while True:
            got += len(unpack.decompress(content, 2**20))
            if got > most:
                raise ValueError("a strip or tile holds more than its tags say")
            content = unpack.unconsumed_tail if compression in _DEFLATE else b""
            if unpack.eof or (not content and (compression in _DEFLATE or unpack.needs_input)):
                break


def _three(pixels: np.ndarray, photometric: int, alpha: bool, notes: tuple[str, ...]) -> Planes:
    bands = pixels.shape[2] if pixels.ndim == 3 else 1
    if bands == 1:
        return Planes(pixels.reshape(pixels.shape[:2]), False, notes, 1)
    if bands == 2:
        return Planes(pixels[..., 0], False, notes or (() if alpha else ("first of 2 bands",)), 1)
    if bands == 4 and photometric == 2 and alpha:
        return Planes(pixels, True, notes, 1)
    if bands > 3:
        return Planes(pixels[..., :3], False, (*notes, f"first three of {bands} bands"), 1)
    return Planes(pixels, False, notes, 1)


def _stack(tiff: Any, page: Any, most: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Pixels of the first plane of an ImageJ or OME stack, and notes on the choice."""
    description = str(page.description)
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
        pixels = np.asarray(page.asarray(maxworkers=1))
        if page.planarconfig == 2 and pixels.ndim == 3:
            pixels = np.moveaxis(pixels, 0, -1)
        return pixels, ("first plane",) if several else ()
    wanted = [channel * step for channel in range(min(channels, 3))]
    parts = [_plane(tiff, page, number, most) for number in wanted]
    if len(parts) == 2:
        parts.append(np.zeros_like(parts[0]))
    return np.stack(parts, axis=-1), (f"channels of a stack: first {len(wanted)} of {channels}",)


def _plane(tiff: Any, page: Any, number: int, most: int) -> np.ndarray:
    """A plane by its number; large ImageJ files have one directory, followed by all planes."""
    if number < len(tiff.pages):
        other = tiff.pages[number]
        if (other.shape, other.chunks, other.dtype) != (page.shape, page.chunks, page.dtype):
            raise ValueError("the planes of the stack differ in size or type")
        _check_segments(tiff, other, most)
        return np.asarray(other.asarray(maxworkers=1)).reshape(page.shape)
    dtype = np.dtype(tiff.byteorder + page.dtype.char)
    offset = page.dataoffsets[0] + number * page.nbytes
    return np.asarray(tiff.filehandle.read_array(dtype, page.size, offset)).reshape(page.shape)


def _opened(path: Path) -> Any:
    import tifffile

    return tifffile.TiffFile(path, is_ome=False)


def _value(tags: Any, code: int) -> int:
    tag = tags.get(code)
    return int(tag.value) if tag is not None and isinstance(tag.value, int) else 0
