"""Name the image formats that are not read, so that their files are listed as left out."""

import os
from collections.abc import Mapping

SHOWN = 8  # endings listed in a sentence, at most
EXPORT = "export PNG or JPEG"
UNREAD = {
    "AVIF": (".avif", ".avifs"),
    "JPEG 2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "JPEG XL": (".jxl",),
    "JPEG XR": (".jxr", ".wdp"),
    "DICOM": (".dcm", ".dicom", ".ima"),
    "NIfTI": (".nii",),
    "FITS": (".fits", ".fts"),
    "SVG": (".svg", ".svgz"),
    "PostScript": (".eps",),
    "Photoshop": (".psd", ".psb"),
    "GIMP": (".xcf",),
    "camera raw": (".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".kdc", ".mrw", ".nef",
                   ".nrw", ".orf", ".pef", ".raf", ".rw2", ".sr2", ".srw", ".x3f"),
    "OpenEXR": (".exr",),
    "Radiance HDR": (".hdr",),
    "Targa": (".tga",),
    "icon": (".ico", ".icns"),
    "PCX": (".pcx",),
    "DirectDraw": (".dds",),
    "DjVu": (".djvu",),
    "microscope image": (".czi", ".lif", ".nd2", ".ndpi", ".svs", ".mrc", ".oib", ".oif"),
}  # fmt: skip
FORMAT = {ending: name for name, endings in UNREAD.items() for ending in endings}
SIGNATURES = (  # (position, bytes at that position, format)
    (128, b"DICM", "DICOM"),
    (4, b"ftypavif", "AVIF"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (4, b"JXL ", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
    (0, b"SIMPLE  =", "FITS"),
)


def why_unread(path: str) -> str:
    """The reason why an image file is not read; "" for a file that is no image."""
    ending = os.path.splitext(path)[1].lower()
    name = FORMAT.get(ending) or _by_content(path)
    named = ending or "without an ending"
    return f"{named} not read: {name}; {EXPORT}" if name else ""


def ending_of(name: str) -> str:
    """The ending in lower case, such as ".txt", or "without an ending"."""
    return os.path.splitext(name)[1].lower() or "without an ending"


def by_ending(counts: Mapping[str, int]) -> str:
    """Counts of other files as a phrase: "3 other files: 2 .txt, 1 .csv"; "" if none."""
    n = sum(counts.values())
    if not n:
        return ""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    said = ", ".join(f"{count:,} {ending}" for ending, count in ordered[:SHOWN])
    more = f", and {len(ordered) - SHOWN} more endings" if len(ordered) > SHOWN else ""
    return f"{n:,} other file{'s' if n > 1 else ''}: {said}{more}"


def _by_content(path: str) -> str:
    try:
        with open(path, "rb") as file:
            start = file.read(132)
    except OSError:
        return ""
    return next((name for at, begins, name in SIGNATURES if start[at:].startswith(begins)), "")
