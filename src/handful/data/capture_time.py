"""When a photograph was taken, and by which camera, as its file says (EXIF).

Modification times of files are not read: copying, unpacking and synchronising change them.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from handful.data import decode
from handful.data.thread_pool import in_order

_EXIF_IFD = 0x8769
_TAKEN, _TAKEN_PART = 0x9003, 0x9291  # DateTimeOriginal, SubSecTimeOriginal
_MAKER, _MODEL, _BODY = 0x010F, 0x0110, 0xA431
LONGEST = 100  # characters of a camera's name


class Capture(NamedTuple):
    """When and by which camera."""

    seconds: float  # since the epoch, in the camera's own time
    camera: str


def captures(files: Iterable[AbstractContextManager[Path]]) -> list[Capture | None]:
    """Of each file, as `Files.each` gives them; None where it says nothing."""
    with decode.guarded():
        return list(in_order(_capture, files))


def capture(path: Path) -> Capture | None:
    """When and by which camera a file was taken; None where it does not say, or not readably."""
    return _capture(nullcontext(path))


def _capture(file: AbstractContextManager[Path]) -> Capture | None:
    try:
        with file as path, decode.header(path) as image:
            return _said(image)
    except Exception:  # a damaged EXIF block must not exclude the photo
        return None


def _said(image: Image.Image) -> Capture | None:
    exif = image.getexif()
    inner = exif.get_ifd(_EXIF_IFD)
    taken = str(inner.get(_TAKEN, ""))[:19]
    when = datetime.strptime(taken, "%Y:%m:%d %H:%M:%S")
    digits = str(inner.get(_TAKEN_PART, "")).strip("\0 ")[:6]
    part = float(f"0.{digits}") if digits.isdecimal() else 0.0
    camera = " ".join(str(tags.get(tag, ""))[:LONGEST] for tags, tag in (
        (exif, _MAKER), (exif, _MODEL), (inner, _BODY)))  # fmt: skip
    return Capture((when - datetime(1970, 1, 1)).total_seconds() + part, camera.strip())
