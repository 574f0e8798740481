"""Parse the structure of JPEG, PNG and PPM files without decoding them."""

import io
import mmap
import re
from pathlib import Path
from typing import NamedTuple

HEADER = 65_536  # bytes within which the header of a PPM file must end
SEGMENTS = 10_000  # most segments before the first scan of a JPEG; Pillow parses them in Python
MOST_SCANS = 100  # most scans of a JPEG; usual are ten, and each is a pass over the whole image
_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_ANCILLARY = {
    b"tEXt",
    b"zTXt",
    b"iTXt",
    b"iCCP",
}  # chunks of text and colour profile, which are ignored


class Scans(NamedTuple):
    """The structure of a JPEG file."""

    scans: int
    segments: int  # segments and padding bytes before the first scan
    whole: bool  # whether decoding holds all coefficients in memory: progressive or several scans
    samples: float = 4.0  # coefficients per pixel; 1.5 with colours of half the width and height


def jpeg_scans(content: bytes | mmap.mmap) -> Scans:
    """Parse the structure of the first image in a JPEG file, up to MOST_SCANS scans."""
    at, count, segments, components, progressive, samples = 2, 0, 0, 3, False, 0.0
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            break
        kind = content[at + 1]
        segments += not count
        if segments > SEGMENTS:
            break
        if kind == 0xFF:
            at += 1
            continue
        if kind == 0xD9:
            break
        length = int.from_bytes(content[at + 2 : at + 4], "big")
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC) and at + 9 < len(content):
            components, progressive = content[at + 9], kind in (0xC2, 0xC6, 0xCA, 0xCE)
            samples = max(samples, _samples(content[at + 10 : at + 2 + length]))
        at += 2 + max(2, length)
        if kind == 0xDA:
            count += 1
            if count > MOST_SCANS:
                break
            if (
                not progressive
                and at - length < len(content)
                and content[at - length + 2] >= components
            ):
                break  # one scan holds all components: no other scan follows
            found = _MARKER.search(content, at)
            if found is None:
                break
            at = found.start()
    return Scans(count, segments, progressive or count > 1, samples or 4.0)


def _samples(components: bytes) -> float:
    """Samples per pixel, from a frame's component table: factors are every third byte."""
    factors = [(factor >> 4, factor & 15) for factor in components[1::3]]
    wide, high = (
        max((one[0] for one in factors), default=0),
        max((one[1] for one in factors), default=0),
    )
    return sum(one[0] * one[1] for one in factors) / (wide * high) if wide * high else 4.0


def without_text(path: Path) -> io.BytesIO:
    """The content of a PNG file without its text and colour profile."""
    kept = io.BytesIO()
    with open(path, "rb") as file:
        kept.write(file.read(8))
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[:4], "big")
            if head[4:] in _ANCILLARY:
                file.seek(length + 4, io.SEEK_CUR)
                continue
            kept.write(head + file.read(length + 4))
            if head[4:] == b"IEND":
                break
    kept.seek(0)
    return kept


def has_long_header(path: Path) -> bool:
    """Whether the header of a PPM file is longer than HEADER: Pillow reads it byte by byte."""
    with open(path, "rb") as file:
        head = file.read(HEADER)
    return len(head) == HEADER and len(re.sub(rb"#[^\n]*\n?", b" ", head).split(None, 4)) < 4
