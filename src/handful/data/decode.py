"""Decode one image file to pixels, whatever its format and however it is damaged.

Choices:

- Transparent images are composited on white, or on black where there is no contrast on white. A
  fully transparent image is shown without transparency.
- Images of more than 8 bits are scaled by one range (value_range.py). CMYK becomes RGB.
- The EXIF orientation is applied, after images are reduced and strip by strip: turning a whole
  large image, as `ImageOps.exif_transpose` does, would hold two copies in memory.
- The first frame of an animation is taken.
- A truncated JPEG is read if nine tenths of its rows are there.
- The content decides the format, not the ending of the name.
- Camera raw is not read. JPEG 2000 is not read: maps and scanners use it, with 12 or 16 bits, which
  Pillow cuts to 8, and its tiles take 4 bytes per sample.
"""

import hashlib
import io
import math
import mmap
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from handful.data.decoding import tiff
from handful.data.decoding.containers import (
    MOST_SCANS,
    SEGMENTS,
    Scans,
    has_long_header,
    jpeg_scans,
    without_text,
)
from handful.data.decoding.memory import PER_PIXEL, budget, reserving
from handful.data.decoding.value_range import (
    Scale,
    ValueRange,
    Values,
    scaled,
    value_range,
    values_of,
)
from handful.errors import HandfulError

# The only formats that are tried: some of Pillow's other readers start external programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF", "AVIF")
ENDINGS = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".mpo": "JPEG",
    ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".gif": "GIF", ".tif": "TIFF", ".tiff": "TIFF",
    ".ppm": "PPM", ".pgm": "PPM", ".pbm": "PPM", ".pnm": "PPM", ".heic": "HEIF", ".heif": "HEIF",
    ".avif": "AVIF",
}  # fmt: skip
TURNS = {  # EXIF orientation → operation that makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
RAW_HEADS = tiff.RAW_HEADS
ASPECTS = ("crop", "pad", "stretch")
LARGE = 4_000_000  # pixels; a larger JPEG is inspected at an eighth of its size
STRIP = 1_000_000  # pixels processed at a time
SMALL = 2**17  # bytes; a smaller file is read at once
LONGEST = 65_535  # longest side, in pixels
JPEG_TIMES = 4  # factor on the limit of pixels for JPEGs, which are decoded at a reduced size
ENOUGH = 0.9  # least share of the rows in a truncated JPEG
PORTABLE = (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf", b"PF")  # the first three are text
MOST_TEXT = 8 * 2**20  # bytes of a PPM of text: Pillow takes a second per two million
MOST_RUNS = 10_000_000  # pixels of a run-length BMP, which Pillow decodes in Python
MOST_SCANNED = 2_000_000_000  # scans times pixels of a JPEG: a few seconds
FAINT = 16  # grey levels of contrast on white below which black is tried
BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 6, "I;16B": 6, "I": 12, "F": 12}  # mode → bytes per pixel
LIBRARY = {"WEBP": 16, "AVIF": 10, "HEIF": 12}  # bytes per pixel of formats decoded as a whole
DEEP_RAW = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}  # Pillow's names: high, low bytes

Result = TypeVar("Result")


class Unreadable(Exception):
    """Raised for a file that cannot be decoded; the message is the reason, in a few words."""


class Facts(NamedTuple):
    """Properties of a readable image."""

    height: int
    width: int
    grey: bool  # red, green and blue are equal in every pixel
    fingerprint: bytes  # 16 bytes; equal for equal pixels, whatever the file format
    notes: tuple[str, ...] = ()  # treatments in decoding: "alpha", "rotated", …
    values: Values | None = None  # the range of an image of more than 8 bits
    blank: bool = False  # whether all pixels are equal


class _File(NamedTuple):
    """A file that is to be decoded."""

    path: Path
    content: Path | io.BytesIO  # the file itself, or its mended content
    scans: Scans | None  # of a JPEG
    cut: bool = False  # whether it was truncated


class _Loaded(NamedTuple):
    """A decoded file: `image` if it has 8 bits, `values` if it has more."""

    image: Image.Image | None
    values: np.ndarray | None  # (H, W), (H, W, 3), or (H, W, 2 or 4) with alpha
    alpha: bool  # whether the last band of `values` is alpha
    full: tuple[int, int]  # width and height in the file, before the orientation is applied
    orientation: int
    notes: tuple[str, ...]


@contextmanager
def guarded() -> Iterator[None]:
    """Silence Pillow's warnings while files are decoded.

    Enter it once, around the worker threads: the warning filter belongs to the whole process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def inspect(path: Path) -> Facts:
    """Decode a file completely and return its properties; raises `Unreadable`."""
    return _with(path, _facts, reduce=8)


def read(
    path: Path, size: int, aspect: str, channels: int, scale: Scale | None = None
) -> np.ndarray:
    """Pixels (channels, size, size) uint8 of one file; raises `Unreadable`.

    A JPEG much larger than needed is decoded at a half, a quarter or an eighth of its size, but not
    below twice `size`. An antialiased bicubic resize follows.

    Args:
        aspect: how the image becomes square, see `resized`.
        channels: 1 or 3.
        scale: range of images of more than 8 bits; by default the file's own range.
    """

    def use(loaded: _Loaded) -> np.ndarray:
        return _square(_upright(loaded, scale, 2 * size), size, aspect, channels)

    return _with(path, use, at_least=2 * size)


def read_crops(
    path: Path,
    boxes: Sequence[Sequence[int]],
    full: tuple[int, int],
    size: int,
    aspect: str,
    channels: int,
    scale: Scale | None = None,
) -> list[np.ndarray]:
    """Pixels (channels, size, size) uint8 of parts of one file; raises `Unreadable`.

    Like `read`, and as sharp: how far the file is reduced depends on the smallest part.

    Args:
        boxes: left, top, right and bottom of each part, in pixels of the whole image.
        full: height and width of the whole image.
    """
    reduced = min(crop_reduction(box, size) for box in boxes)
    at_least = max(1, min(full) // reduced)

    def use(loaded: _Loaded) -> list[np.ndarray]:
        image = _upright(loaded, scale, at_least)
        across, down = image.width / full[1], image.height / full[0]
        found = []
        for left, top, right, bottom in boxes:
            x, y = (
                min(round(left * across), image.width - 1),
                min(round(top * down), image.height - 1),
            )
            end = max(x + 1, round(right * across)), max(y + 1, round(bottom * down))
            found.append(_square(image.crop((x, y, *end)), size, aspect, channels))
        return found

    return _with(path, use, at_least=at_least)


def crop_reduction(box: Sequence[int], size: int) -> int:
    """How far a file may be reduced (1, 2, 4 or 8) so that a part keeps twice `size` pixels."""
    room = min(box[2] - box[0], box[3] - box[1]) // (2 * size)
    return next((factor for factor in (8, 4, 2) if room >= factor), 1)


def _upright(loaded: _Loaded, scale: Scale | None, at_least: int) -> Image.Image:
    """The image with 8 bits, upright, reduced to `at_least` pixels a side at the least."""
    image = _eight_bit(loaded, scale)
    image = _small(image, _background(image), at_least)
    return image.transpose(TURNS[loaded.orientation]) if loaded.orientation in TURNS else image


def _square(image: Image.Image, size: int, aspect: str, channels: int) -> np.ndarray:
    """Pixels (channels, size, size) of an image."""
    mode = "L" if channels == 1 else "RGB"
    image = resized(image if image.mode == mode else image.convert(mode), size, aspect)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


@contextmanager
def header(path: Path) -> Iterator[Image.Image]:
    """An opened photograph (JPEG or HEIF) whose pixels are not decoded, for what it says of itself.

    Raises `Unreadable`, or whatever Pillow raises on damaged bytes.
    """
    _register_heif()
    with open(path, "rb") as file:
        _checked_scans(path, file, file.read(16), None)
    formats = tuple(name for name in ("JPEG", "HEIF") if name in _formats())
    with _unlimited(), closing(Image.open(path, formats=formats)) as image:
        yield image


def read_within(path: Path, side: int, scale: Scale | None = None) -> np.ndarray:
    """Pixels (H, W) or (H, W, 3) uint8 of one file, upright, at most `side` pixels a side.

    The proportions of the image are kept, and small images keep their size. Raises `Unreadable`.
    """

    def use(loaded: _Loaded) -> np.ndarray:
        image = _upright(loaded, scale, side)
        image.thumbnail((side, side), Image.Resampling.BICUBIC)
        return np.asarray(image)

    return _with(path, use, at_least=side)


def upright(picture: Image.Image) -> np.ndarray:
    """Pixels (H, W) or (H, W, 3) uint8 of a Pillow image of 8 bits, decoded as its file would be.

    Raises `Unreadable`, or what Pillow raises on damaged bytes.
    """
    _check_sides(*picture.size)
    orientation = _orientation(picture)
    image = _flat(picture, _background(picture))
    if orientation in TURNS:
        image = image.transpose(TURNS[orientation])
    return np.array(image)


def _facts(loaded: _Loaded) -> Facts:
    notes = loaded.notes
    full = loaded.full[::-1] if loaded.orientation >= 5 else loaded.full
    size = (full[1], full[0])
    if loaded.values is not None:
        return _facts_of_values(loaded.values, loaded.alpha, size, notes)
    image = loaded.image
    assert image is not None
    background = _background(image)
    if loaded.orientation in TURNS:
        notes += ("rotated",)
    grey, blank, first = True, True, None
    digest, grey_digest = _digest(size, 3), _digest(size, 2)
    for strip in _strips(image, background, loaded.orientation):
        ends = strip.getextrema()
        blank = blank and np.ptp(ends, axis=-1).max() == 0 and first in (None, ends)
        first = ends
        pixels = np.ascontiguousarray(strip)
        if pixels.ndim == 2:
            grey_digest.update(pixels.data)
            continue
        grey = grey and is_grey(pixels)
        if grey:
            grey_digest.update(np.ascontiguousarray(pixels[..., 0]).data)
        digest.update(pixels.data)
    if background is not None:
        notes += (background if background == "ignored alpha" else f"alpha{ON[background]}",)
    elif image.mode == "CMYK":
        notes += ("cmyk",)
    return Facts(*size, grey, (grey_digest if grey else digest).digest(), notes, None, bool(blank))


def _facts_of_values(
    values: np.ndarray, alpha: bool, size: tuple[int, int], notes: tuple[str, ...]
) -> Facts:
    colours = values[..., :-1] if alpha else values
    grey = colours.ndim == 2 or colours.shape[2] == 1 or is_grey(colours)
    first = colours[..., 0] if grey and colours.ndim == 3 else colours
    own = fingerprint(values if alpha else first, size)
    blank = bool((values == values[:1, :1]).all())
    return Facts(*size, grey, own, (*notes, "16-bit"), values_of(first), blank)


ON = {"white": "", "black": " on black"}


def resized(image: Image.Image, size: int, aspect: str) -> Image.Image:
    """Make a square of `size` pixels: "crop" the centre, "pad" with black, or "stretch"."""
    width, height = image.size
    if aspect == "stretch" or width == height:
        return image.resize((size, size), Image.Resampling.BICUBIC)
    if aspect == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        return square.resize((size, size), Image.Resampling.BICUBIC)
    scale = size / max(width, height)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    square = Image.new(image.mode, (size, size))
    corner = (size - inner[0]) // 2, (size - inner[1]) // 2
    square.paste(image.resize(inner, Image.Resampling.BICUBIC), corner)
    return square


def fingerprint(pixels: np.ndarray, size: tuple[int, int]) -> bytes:
    """16 bytes that are equal for equal pixels.

    Args:
        pixels: (H, W) grey or (H, W, 3) colour.
        size: height and width of the image in its file.
    """
    digest = _digest(size, pixels.ndim)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def _digest(size: tuple[int, int], dimensions: int) -> "hashlib.blake2b":
    return hashlib.blake2b(f"{size[0]}x{size[1]}x{dimensions}".encode(), digest_size=16)


def _with(
    path: Path, use: Callable[[_Loaded], Result], *, reduce: int = 1, at_least: int = 0
) -> Result:
    """Decode the file, within reserved memory, and return what `use` returns for it.

    Args:
        reduce: factor by which a large JPEG may be reduced.
        at_least: least side in pixels to which an image may be reduced; 0 for no bound.
    """
    _register_heif()
    try:
        with open(path, "rb") as file:
            head = file.read(16)
            if tiff.is_raw(head):
                raise Unreadable(tiff.RAW)
            content = _in_memory(file, head)
            scans = _checked_scans(path, file, head, content)
        if tiff.is_tiff(head):
            found = _from_tiff(path, use)
            if found is not None:
                return found
        whole = _File(path, path if content is None else io.BytesIO(content), scans)
        with _unlimited():
            try:
                return _from_pillow(whole, use, reduce, at_least)
            except (ValueError, OSError) as error:
                other = _mended(path, error)
                if other is None:
                    raise
                mended = whole._replace(content=other, cut=True)
                return _from_pillow(mended, use, reduce, at_least)
    except (Unreadable, HandfulError):
        raise
    except Exception as error:  # Pillow's readers raise almost anything on damaged bytes
        raise Unreadable(_reason(path, error)) from error


def _in_memory(file: BinaryIO, head: bytes) -> bytes | None:
    """The content of a small file, else None.

    Pillow reads a file in many pieces. Between two of them threads wait for the interpreter's lock,
    which takes longer than a small image.
    """
    if tiff.is_tiff(head) or os.fstat(file.fileno()).st_size > SMALL:
        return None
    return head + file.read()


def _mended(path: Path, error: Exception) -> io.BytesIO | None:
    """Repaired content: a PNG without its text, a truncated JPEG with an end; else None."""
    with open(path, "rb") as file:
        head = file.read(8)
    text = str(error)
    if path.stat().st_size > budget() // 4:
        return None
    if head == b"\x89PNG\r\n\x1a\n" and ("MAX_TEXT" in text or "text chunk" in text):
        return without_text(path)
    if head.startswith(b"\xff\xd8\xff") and "truncated" in text:
        return io.BytesIO(path.read_bytes() + b"\xff\xd9")
    return None


def _from_tiff(path: Path, use: Callable[[_Loaded], Result]) -> Result | None:
    """What `use` returns for a TIFF that Pillow would misread; None for other TIFFs."""
    limit = budget()
    look = tiff.look(path)
    if look is None:
        return None
    if look.raw:
        raise Unreadable(tiff.RAW)
    if look.bytes > limit:
        raise Unreadable(_too_much(look.bytes, limit))
    if look.ordinary:
        return None
    with reserving(limit) as reserve:
        reserve(look.bytes)
        return _planes_used(path, look, use)


def _planes_used(path: Path, look: tiff.Look, use: Callable[[_Loaded], Result]) -> Result | None:
    try:
        planes = tiff.read_planes(path, look.segment)
    except MemoryError:
        raise
    except Exception:  # tifffile lacks the compression; Pillow may have it
        if look.one_band:
            return None
        raise
    pixels, alpha, notes, orientation = planes
    height, width = pixels.shape[:2]
    _check_sides(width, height)
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    if pixels.dtype != np.uint8:
        return use(_of_values(pixels, alpha, orientation, notes))
    mode = "RGBA" if alpha else "RGB" if pixels.ndim == 3 else "L"
    image = Image.fromarray(np.ascontiguousarray(pixels), mode)
    orientation = orientation if orientation in TURNS else 1
    return use(_Loaded(image, None, False, image.size, orientation, notes))


def _of_values(
    values: np.ndarray, alpha: bool, orientation: int, notes: tuple[str, ...]
) -> _Loaded:
    """An image of more than 8 bits, upright, so that rotated copies have equal fingerprints."""
    if orientation in TURNS:
        values = turned(values, orientation)
        notes += ("rotated",)
    return _Loaded(None, values, alpha, (values.shape[1], values.shape[0]), 1, notes)


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels (H, W) or (H, W, C) made upright, as `TURNS` does with images."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _from_pillow(
    file: _File, use: Callable[[_Loaded], Result], reduce: int, at_least: int
) -> Result:
    limit = budget()
    with reserving(limit) as reserve:
        return _image_used(file, use, limit, reserve, reduce, at_least)


def _image_used(
    file: _File,
    use: Callable[[_Loaded], Result],
    limit: int,
    reserve: Callable[[int], None],
    reduce: int,
    at_least: int,
) -> Result:
    with closing(Image.open(file.content, formats=_formats())) as image:
        full = image.size
        _check_sides(*full)
        jpeg = image.format in ("JPEG", "MPO")
        most = int(limit / PER_PIXEL) * (JPEG_TIMES if jpeg else 1)
        if full[0] * full[1] > most:
            raise Unreadable(_too_many(most))
        notes = _expected(file.path, image)
        cost = 0
        if jpeg:
            cost = _jpeg_memory(file.scans, image)
            if at_least:
                image.draft(None, (at_least, at_least))
            elif reduce > 1 and full[0] * full[1] > LARGE:
                image.draft(None, (full[0] // reduce, full[1] // reduce))
                notes += ("large",)
        drafted = image.size != full
        orientation = _orientation(image) if jpeg or "exif" in image.info else 1
        cost += _kept(file, image) + _working(image, orientation)
        if cost > limit:
            raise Unreadable(_too_much(cost, limit))
        reserve(cost + _copied(image, orientation, at_least))  # copies never exclude an image
        if image.format == "TIFF" and not _ordinary(image):
            raise Unreadable("damaged: bands or bits that cannot be told apart")
        values, alpha = _deep(file.path, image)
        if values is None:
            image.load()
        if file.cut and jpeg:
            _check_rows(image)
            notes += ("truncated",)
        full = (
            full if drafted or values is not None else image.size
        )  # Pillow applies a TIFF's orientation
        orientation = _orientation(image)
        if values is not None:
            return use(_of_values(values, alpha, orientation, notes))
        return use(_Loaded(image, None, False, full, orientation, notes))


def _deep(path: Path, image: ImageFile.ImageFile) -> tuple[np.ndarray | None, bool]:
    """The values of an image of more than 8 bits, or None, and whether the last band is alpha.

    Pillow reduces a 16-bit colour PNG to 8 bits. So the PNG is decoded twice, with Pillow's
    unpackers for the high and for the low bytes.
    """
    if image.mode.startswith("I") or image.mode == "F":
        if image.format != "PPM" or image.tile[0].codec_name != "ppm":
            image.load()
            return np.asarray(image), False
    tile = image.tile[0] if image.tile else None
    if image.format == "PPM" and tile is not None and tile.codec_name == "ppm":
        return _portable(path, image), False
    if image.format != "PNG" or tile is None or not isinstance(tile.args, str):
        return None, False
    if tile.args == "LA;16B":  # four bytes per pixel, read as four bands
        image.tile = [tile._replace(args="RGBA")]
        image.load()
        parts = np.asarray(image).astype(np.uint16)
        return parts[..., 0::2] << 8 | parts[..., 1::2], True
    if tile.args not in DEEP_RAW:
        return None, False
    source = image.fp
    assert source is not None
    place = source.tell()
    source.seek(0)
    with Image.open(io.BytesIO(source.read()), formats=("PNG",)) as again:
        again.tile = [again.tile[0]._replace(args=DEEP_RAW[tile.args])]
        low = np.asarray(again)
    source.seek(place)
    values = np.asarray(image).astype(np.uint16)
    values <<= 8
    values |= low
    return values, values.shape[2] == 4


def _ordinary(image: Image.Image) -> bool:
    """Whether Pillow reads a TIFF rightly: one band, or interleaved bands of 8 bits."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    bands, bits = tags.get(277, 1), tags.get(258, (1,))
    return bool(bands == 1 or (bands in (2, 3, 4) and max(bits) <= 8 and tags.get(284, 1) == 1))


def _portable(path: Path, image: ImageFile.ImageFile) -> np.ndarray:
    """The values of a binary PPM or PGM whose maximum is not 255; Pillow reads pixel by pixel."""
    tile = image.tile[0]
    assert isinstance(tile.args, tuple)
    most = int(tile.args[-1])
    bands = len(image.getbands())
    dtype = np.dtype(">u2" if most > 255 else "u1")
    shape = (image.size[1], image.size[0]) + ((bands,) if bands > 1 else ())
    count = int(np.prod(shape))
    values = np.fromfile(path, dtype, count, offset=tile.offset)
    if values.size < count:
        raise Unreadable("damaged: image file is truncated")
    return values.reshape(shape).astype(np.uint16)


def _checked_scans(path: Path, file: BinaryIO, head: bytes, content: bytes | None) -> Scans | None:
    """The scans of a JPEG. Raises `Unreadable` for headers that take Pillow's parser, written in
    Python, minutes.

    Args:
        head: the first bytes of the opened file.
        content: all its bytes, if they have been read.
    """
    scans = None
    if head.startswith(b"\xff\xd8\xff"):
        if content is None:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                scans = jpeg_scans(mapped)
        else:
            scans = jpeg_scans(content)
        if scans.scans > MOST_SCANS:
            raise Unreadable(f"more than {MOST_SCANS} scans; refused without decoding")
        if scans.segments > SEGMENTS:
            raise Unreadable(f"more than {SEGMENTS:,} segments before the picture")
    if head[:2] in PORTABLE and has_long_header(path):
        raise Unreadable("its header does not tell the size")
    if head[:2] in PORTABLE[:3] and path.stat().st_size > MOST_TEXT:
        raise Unreadable(f"numbers as text in more than {MOST_TEXT >> 20} MB; save it as PNG")
    return scans


def _jpeg_memory(scans: Scans | None, image: Image.Image) -> int:
    """Bytes that decoding a JPEG takes beside its pixels; `Unreadable` for many large scans."""
    assert scans is not None  # Pillow knows a JPEG by the same bytes
    pixels = image.size[0] * image.size[1]
    if scans.scans * pixels > MOST_SCANNED:
        raise Unreadable(f"{scans.scans} scans of {pixels / 1e6:.0f} million pixels; save it anew")
    return math.ceil(2 * scans.samples * pixels) if scans.whole else 0


def _kept(file: _File, image: ImageFile.ImageFile) -> int:
    """Bytes of the file itself that are in memory while it is decoded."""
    whole = image.format in LIBRARY or isinstance(file.content, io.BytesIO)
    tile = image.tile[0] if image.tile else None
    again = tile is not None and isinstance(tile.args, str) and tile.args in DEEP_RAW
    return file.path.stat().st_size if whole or again else 0


def _working(image: ImageFile.ImageFile, orientation: int) -> int:
    """Bytes that the pixels take while they are decoded and processed in strips."""
    pixels = image.size[0] * image.size[1]
    strip = 36 if image.has_transparency_data else 12
    return pixels * _bytes_a_pixel(image, orientation) + min(pixels, STRIP) * strip


def _copied(image: Image.Image, orientation: int, at_least: int) -> int:
    """Bytes of the copies made when an image is resized without being reduced first."""
    if not at_least or _factor(image, at_least) > 1:
        return 0
    return image.size[0] * image.size[1] * (8 if orientation != 1 else 4)


def _bytes_a_pixel(image: ImageFile.ImageFile, orientation: int) -> int:
    """Upper bound of the bytes that one pixel takes while it is decoded."""
    pixels = image.size[0] * image.size[1]
    bytes_ = BYTES.get(image.mode, 4)
    if image.format in LIBRARY:
        bytes_ = LIBRARY[image.format]
    tile = image.tile[0] if image.tile else None
    if image.format == "PNG" and tile is not None and str(tile.args).endswith(";16B"):
        bytes_ = max(bytes_, 24 if image.mode != "I;16" else 6)
    if image.format == "PPM" and tile is not None and tile.codec_name != "raw":
        bytes_ = 12
    if tile is not None and tile.codec_name == "bmp_rle" and pixels > MOST_RUNS:
        raise Unreadable(f"run-length BMP of more than {MOST_RUNS / 1e6:.0f} million pixels")
    turned = image.format == "TIFF" and image.getexif().get(0x0112, 1) != 1  # by Pillow, as a whole
    return 2 * bytes_ if turned or (orientation != 1 and bytes_ > 4) else bytes_


def _check_rows(image: Image.Image) -> None:
    """Raise `Unreadable` if too many rows of a truncated JPEG, left mid-grey, are missing."""
    pixels = np.asarray(image)
    full = (pixels != 128).any(axis=tuple(range(1, pixels.ndim)))
    rows = int(np.flatnonzero(full)[-1]) + 1 if full.any() else 0
    if rows < ENOUGH * len(pixels):
        raise Unreadable(f"damaged: image file is truncated, {rows / len(pixels):.0%} is there")


def _check_sides(width: int, height: int) -> None:
    if max(width, height) > LONGEST:
        raise Unreadable(f"a side of more than {LONGEST:,} pixels; refused without decoding")


def _expected(path: Path, image: Image.Image) -> tuple[str, ...]:
    """Notes on a file whose ending is wrong, or that holds several frames."""
    notes: tuple[str, ...] = ()
    expected = ENDINGS.get(path.suffix.lower())
    if image.format != expected and {image.format, expected} != {"JPEG", "MPO"}:
        notes += ("ending",)
    if image.format != "MPO" and getattr(image, "is_animated", False):
        notes += ("first frame",)
    return notes


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 if it is missing or invalid."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # a damaged EXIF block must not exclude the photo
        return 1
    return orientation if orientation in TURNS else 1


def _eight_bit(loaded: _Loaded, chosen: Scale | None) -> Image.Image:
    """The image with 8 bits; `chosen` scales the colours, never alpha."""
    if loaded.values is None:
        assert loaded.image is not None
        return loaded.image
    values = loaded.values
    if not loaded.alpha:
        return Image.fromarray(np.ascontiguousarray(scaled(values, chosen).squeeze()))
    if chosen is None:
        chosen = value_range([values_of(values[..., :-1])])
    pixels: np.ndarray = np.empty(values.shape, np.uint8)
    for band in range(values.shape[2] - 1):
        pixels[..., band] = scaled(values[..., band], chosen)
    pixels[..., -1] = scaled(values[..., -1], ValueRange(0, np.iinfo(values.dtype).max))
    return Image.fromarray(pixels, "LA" if pixels.shape[2] == 2 else "RGBA")


def _background(image: Image.Image) -> str | None:
    """The background of transparent parts, "white" or "black"; None without transparent parts.

    "ignored alpha" if the whole image is transparent.
    """
    if not image.has_transparency_data:
        return None
    least, most = 255, 0
    for strip in _parts(image):
        alpha = strip if "A" in strip.getbands() else strip.convert("RGBA")
        low, high = (int(end) for end in np.array(alpha.getchannel("A").getextrema()))
        least, most = min(least, low), max(most, high)
    if least == 255:
        return None
    if most == 0:
        return "ignored alpha"
    white, black = _contrast(image, "white"), 0
    if white < FAINT:
        black = _contrast(image, "black")
    return "black" if black > white else "white"


def _contrast(image: Image.Image, background: str) -> int:
    """Difference of the brightest and the darkest value on a background; sampled if large."""
    step = math.isqrt(image.width * image.height // LARGE) + 1
    if step > 1:
        size = max(1, image.width // step), max(1, image.height // step)
        image = image.resize(size, Image.Resampling.NEAREST)
    ends = np.array(
        [_on(strip.convert("RGBA"), background).getextrema() for strip in _parts(image)]
    )
    return int((ends[..., 1].max(0) - ends[..., 0].min(0)).max())


def _on(colours: Image.Image, background: str) -> Image.Image:
    paper = Image.new("RGBA", colours.size, background)
    return Image.alpha_composite(paper, colours).convert("RGB")


def _parts(image: Image.Image, orientation: int = 1) -> Iterator[Image.Image]:
    """Strips of the upright image, from top to bottom; a small image is one strip."""
    width, height = image.size[::-1] if orientation >= 5 else image.size
    rows = max(8, STRIP // width)
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        first, last = top, bottom
        if orientation in (3, 4, 7, 8):  # the first row is the last row or column of the file
            first, last = height - bottom, height - top
        box = (first, 0, last, width) if orientation >= 5 else (0, first, width, last)
        part = image.crop(box)
        yield part.transpose(TURNS[orientation]) if orientation in TURNS else part


def _strips(
    image: Image.Image, background: str | None, orientation: int = 1
) -> Iterator[Image.Image]:
    """Upright strips in mode L or RGB, composited on the background.

    At no time are two whole copies of the image in memory.
    """
    for strip in _parts(image, orientation):
        yield _flat(strip, background)


def _flat(image: Image.Image, background: str | None) -> Image.Image:
    if background in ON:
        return _on(image.convert("RGBA"), background)
    if image.has_transparency_data:
        return image.convert("RGBA").convert("RGB")
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _small(image: Image.Image, background: str | None, at_least: int) -> Image.Image:
    """The image in mode L or RGB; a large image is reduced by a whole factor, strip by strip."""
    width, height = image.size
    if width * height <= STRIP:
        return _flat(image, background)
    factor = _factor(image, at_least)
    if factor < 2 and image.mode in ("L", "RGB") and not image.has_transparency_data:
        return image
    rows, small, down = max(1, STRIP // width // factor) * factor, None, 0
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(height, top + rows)))
        part = _flat(strip, background).reduce(factor)
        if small is None:
            small = Image.new(part.mode, (part.width, -(-height // factor)))
        small.paste(part, (0, down))
        down += part.height
    assert small is not None
    return small


def _factor(image: Image.Image, at_least: int) -> int:
    """The factor by which a large image is reduced before it is resized; 1 for other images."""
    width, height = image.size
    return max(1, min(width, height) // at_least) if width * height > LARGE else 1


def is_grey(pixels: np.ndarray) -> bool:
    """Whether the channels of pixels (H, W, 3) are equal."""
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    return bool(np.array_equal(red, green) and np.array_equal(red, blue))


def _reason(path: Path, error: Exception) -> str:
    """The reason why a file cannot be read, in a few words on one line."""
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    if isinstance(error, FileNotFoundError):
        return "vanished while the folder was read"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, OSError) and error.errno:  # an error of the disk, not of the content
        return f"cannot be read: {error.strerror}"
    if isinstance(error, UnidentifiedImageError):
        if path.exists() and path.stat().st_size == 0:
            return "empty file (0 bytes)"
        if ENDINGS.get(path.suffix.lower()) == "HEIF" and "HEIF" not in _formats():
            return "HEIC needs a library: pip install pillow-heif"
        return "not an image in a known format"
    detail = " ".join(str(error).split()) or type(error).__name__
    if "imagecodecs" in detail:
        kind = re.search(r"<\w+\.(\w+)", detail)
        what = f"a TIFF with {kind[1]}" if kind else "this TIFF"
        return f"{what} needs a library: pip install imagecodecs (the extra tiff)"
    return f"damaged: {detail[:120]}"


def _too_many(most: int) -> str:
    return (
        f"more than {most / 1e6:.0f} million pixels; refused without decoding "
        f"(HANDFUL_DECODE_MEMORY allows more)"
    )


def _too_much(cost: int, limit: int) -> str:
    allowed = f"HANDFUL_DECODE_MEMORY allows {limit >> 20:,}"
    return f"takes {cost >> 20:,} MB to decode; refused, as {allowed}"


def _formats() -> tuple[str, ...]:
    return (*FORMATS, "HEIF") if "HEIF" in Image.OPEN else FORMATS


_open_files, _pillow_limit = 0, Image.MAX_IMAGE_PIXELS
_count = threading.Lock()


@contextmanager
def _unlimited() -> Iterator[None]:
    """Disable Pillow's limit of pixels, which is one for all formats; ours replace it."""
    global _open_files, _pillow_limit
    with _count:
        if not _open_files:
            _pillow_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _open_files += 1
    try:
        yield
    finally:
        with _count:
            _open_files -= 1
            if not _open_files:
                Image.MAX_IMAGE_PIXELS = _pillow_limit


@cache
def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return
    register_heif_opener()
