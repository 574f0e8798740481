"""One image file → pixels. Everything a file can be, and every way it can be broken.

Stated choices: alpha is composited on white; 16-bit grey is scaled to 8; CMYK becomes RGB; the
EXIF rotation is applied; of an animation the first frame is taken; the content decides what a
file is, not its ending.
"""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

# Only these are ever tried: Pillow's other readers include some that start outside programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
ENDINGS = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".mpo": "JPEG",
    ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".gif": "GIF", ".tif": "TIFF", ".tiff": "TIFF",
    ".ppm": "PPM", ".pgm": "PPM", ".pbm": "PPM", ".pnm": "PPM", ".heic": "HEIF", ".heif": "HEIF",
}  # fmt: skip
TURNS = {  # EXIF orientation → what puts the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
FITS = ("crop", "pad", "stretch")
LARGE = 4_000_000  # pixels; a larger JPEG is inspected at an eighth of its size


class Unreadable(Exception):
    """This file gives no image; the message is the reason, in a few words."""


class Facts(NamedTuple):
    """What one look at a readable image tells."""

    height: int
    width: int
    grey: bool  # red, green and blue are equal in every pixel
    fingerprint: bytes  # 16 bytes; equal for equal pixels, whatever the file format
    notes: tuple[str, ...] = ()  # what was done to get the pixels: "alpha", "rotated", …


@contextmanager
def guarded() -> Iterator[None]:
    """While files are decoded: image bombs are refused, Pillow's other warnings are silent.

    Entered once, around the worker threads: the warning filter belongs to the whole process.
    """
    _register_heif()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def inspect(path: Path) -> Facts:
    """Decode a file completely and say what is in it, or raise `Unreadable`."""
    image, notes = _open(path, reduce=8)
    pixels = np.asarray(image)
    grey = pixels.ndim == 2 or _is_grey(pixels)
    if grey and pixels.ndim == 3:
        pixels = pixels[..., 0]
    width, height = image.info["handful_size"]
    return Facts(height, width, grey, fingerprint(pixels, (height, width)), notes)


def read(path: Path, size: int, fit: str, channels: int) -> np.ndarray:
    """(channels, size, size) uint8 pixels of one file, or raise `Unreadable`.

    A JPEG much larger than needed is decoded at a half, a quarter or an eighth of its size, never
    below twice `size`, before the antialiased bicubic resize.
    """
    image, _ = _open(path, at_least=2 * size)
    image = resized(image.convert("L" if channels == 1 else "RGB"), size, fit)
    pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def resized(image: Image.Image, size: int, fit: str) -> Image.Image:
    """Square of `size`: crop the centre, pad the short side with black, or stretch."""
    width, height = image.size
    if fit == "stretch" or width == height:
        return image.resize((size, size), Image.Resampling.BICUBIC)
    if fit == "crop":
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
    """16 bytes that are equal for equal pixels: (H, W) grey or (H, W, 3) colour, uint8."""
    digest = hashlib.blake2b(f"{size[0]}x{size[1]}x{pixels.ndim}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def _open(path: Path, *, reduce: int = 1, at_least: int = 0) -> tuple[Image.Image, tuple[str, ...]]:
    """The upright image in mode L or RGB, with its full (width, height) in `info`."""
    try:
        with Image.open(path, formats=_formats()) as image:
            notes = _expected(path, image)
            full = image.size
            if image.format in ("JPEG", "MPO"):
                if at_least:
                    image.draft(None, (at_least, at_least))
                elif reduce > 1 and full[0] * full[1] > LARGE:
                    image.draft(None, (full[0] // reduce, full[1] // reduce))
                    notes += ("large",)
            drafted = image.size != full
            image.load()
            orientation = _orientation(image)
            full = full if drafted else image.size  # Pillow turns a TIFF while it loads
            flat, converted = _flat(image)
    except Unreadable:
        raise
    except Exception as error:  # Pillow's readers raise almost anything on damaged bytes
        raise Unreadable(_reason(path, error)) from error
    if orientation in TURNS:
        flat = flat.transpose(TURNS[orientation])
        notes += ("rotated",)
    flat.info = {"handful_size": full[::-1] if orientation >= 5 else full}
    return flat, notes + converted


def _expected(path: Path, image: Image.Image) -> tuple[str, ...]:
    """Notes on a file that is not what its ending says, or holds more than one picture."""
    notes: tuple[str, ...] = ()
    expected = ENDINGS.get(path.suffix.lower())
    if image.format != expected and {image.format, expected} != {"JPEG", "MPO"}:
        notes += ("ending",)
    if image.format != "MPO" and getattr(image, "is_animated", False):
        notes += ("first frame",)
    return notes


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or it makes no sense."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # a damaged EXIF block is no reason to lose the photo
        return 1
    return orientation if orientation in TURNS else 1


def _flat(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """Mode L or RGB, 8 bits, no transparency; and what had to be done."""
    if image.mode.startswith("I") or image.mode == "F":
        return _eight_bit(image), ("16-bit",)
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        if colours.getchannel("A").getextrema() == (255, 255):
            return colours.convert("RGB"), ()
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, colours).convert("RGB"), ("alpha",)
    if image.mode in ("L", "RGB"):
        return image, ()
    notes = ("cmyk",) if image.mode == "CMYK" else ()
    return image.convert("L" if image.mode == "1" else "RGB"), notes


def _eight_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65535:
        raise Unreadable("32-bit pixels; save it with 8 or 16 bits")
    return Image.fromarray(((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))


def _is_grey(pixels: np.ndarray) -> bool:
    """Whether (H, W, 3) pixels hold no colour."""
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    return bool(np.array_equal(red, green) and np.array_equal(red, blue))


def _reason(path: Path, error: Exception) -> str:
    """Why a file cannot be read, in a few words on one line."""
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        return f"more than {_most_pixels() / 1e6:.0f} million pixels; refused without decoding"
    if isinstance(error, FileNotFoundError):
        return "vanished while the folder was read"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, OSError) and error.errno:  # of the disk, not of what is in the file
        return f"cannot be read: {error.strerror}"
    if isinstance(error, UnidentifiedImageError):
        if path.exists() and path.stat().st_size == 0:
            return "empty file (0 bytes)"
        if ENDINGS.get(path.suffix.lower()) == "HEIF" and "HEIF" not in _formats():
            return "HEIC needs a library: pip install pillow-heif"
        return "not an image in a known format"
    detail = " ".join(str(error).split()) or type(error).__name__
    return f"damaged: {detail[:120]}"


def _most_pixels() -> float:
    return Image.MAX_IMAGE_PIXELS or float("inf")


def _formats() -> tuple[str, ...]:
    return (*FORMATS, "HEIF") if "HEIF" in Image.OPEN else FORMATS


def _register_heif() -> None:
    Image.init()
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return
    register_heif_opener()
