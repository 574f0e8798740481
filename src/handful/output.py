"""Where a command writes: checked before the work starts, and never over what is somebody else's.

`output_target` looks at a path that a user typed: links are followed, and what exists there is
replaced only if handful wrote it. `written` writes a file there: whole or not at all where it is a
regular file, straight into it where it is a pipe or a device.
"""

import csv
import errno
import json
import os
import re
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from handful import files
from handful.errors import HandfulError
from handful.files import beside

# What no table, page or features are written to, however new the file.
_PICTURES = frozenset(
    ".jpg .jpeg .png .gif .bmp .tif .tiff .webp .heic .heif .avif .jp2 .dng .cr2 .nef .arw".split()
)
_RESERVED = re.compile(r"(con|prn|aux|nul|com[1-9]|lpt[1-9])", re.IGNORECASE)
_HANDLE = re.compile(r"/(?:dev/fd|proc/(?:self|\d+)/fd)/(\d+)|/dev/(stdin|stdout|stderr)")


@dataclass(frozen=True)
class Kind:
    """A kind of file that a command writes."""

    what: str  # for messages: "predictions, a CSV"
    example: str  # the name of one
    ours: Callable[[Path], bool]  # whether an existing file is of this kind


def _begins(*columns: str) -> Callable[[Path], bool]:
    """A table with these columns first, also after a spreadsheet has saved it."""

    def ours(path: Path) -> bool:
        with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            first = file.readline(10_000)
        return any(
            tuple(cell.strip() for cell in row[: len(columns)]) == columns
            for mark in ",;\t"
            for row in csv.reader([first], delimiter=mark)
        )

    return ours


def _json_with(*keys: str) -> Callable[[Path], bool]:
    def ours(path: Path) -> bool:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            return False
        return isinstance(found, dict) and set(keys) <= found.keys()

    return ours


def _holds(*texts: str) -> Callable[[Path], bool]:
    """A file with one of these texts near its beginning."""

    def ours(path: Path) -> bool:
        with open(path, "rb") as file:
            head = file.read(100_000)
        return any(text.encode() in head for text in texts)

    return ours


def _features(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return {"features.npy", "names.npy", "backbone.npy"} <= set(archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


PREDICTIONS = Kind("predictions, a CSV", "predictions.csv", _begins("file", "label", "confidence"))
FEATURES = Kind("features, an .npz", "features.npz", _features)
# The last two are of pages that older versions wrote.
PAGE = Kind(
    "a page, HTML",
    "report.html",
    _holds(
        '<meta name="generator" content="handful">',
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:",
        ": images</title>",
    ),
)
FINDINGS = Kind("findings, JSON", "data.json", _json_with("source", "identical", "problems"))
EVALUATION = Kind("an evaluation, JSON", "evaluation.json", _json_with("accuracy", "confusion"))
PLOT = Kind("a plot, SVG", "confusion.svg", _holds("matplotlib"))


def output_target(path: Path, kind: Kind) -> Path:
    """Where a file that is written to `path` ends up; HandfulError if it may not.

    Links are followed; one that leads nowhere yet names the file to make.
    """
    if _handle(path) is not None:
        return path
    if files.WINDOWS and _RESERVED.fullmatch(path.name.partition(".")[0].rstrip()):
        raise HandfulError(f"Windows keeps the name {path.name} for itself; try {kind.example}")
    mode = _mode(path)
    if mode is not None and stat.S_ISDIR(mode):
        raise HandfulError(
            f"--out is a file to write, and {path} is a folder; try {path}/{kind.example}"
        )
    if mode is not None and not stat.S_ISREG(mode):
        return path
    if path.suffix.lower() in _PICTURES:
        raise HandfulError(
            f"--out {path} is the name of a picture, and what is written is {kind.what}; try "
            f"{path.with_suffix(Path(kind.example).suffix)}"
        )
    target = path.resolve() if path.is_symlink() else path
    if mode is not None and target.stat().st_size and not kind.ours(target):
        raise HandfulError(
            f"{path} exists and is not what handful writes there ({kind.what}); give --out "
            f"another name, or move the file away"
        )
    return target


def folder_target(folder: Path, name: str, kind: Kind) -> Path:
    """Where the file of this name in the folder --out ends up; HandfulError if it may not."""
    if folder.exists() and not folder.is_dir():
        raise HandfulError(f"--out is a folder here, and {folder} is a file; give another name")
    target = output_target(folder / name, kind)
    if target.exists() and not target.is_file():
        raise HandfulError(f"{target} is a pipe or a device and no file; give another --out")
    return target


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """Write to the path given; its content ends up in `path`, through links, pipes and devices."""
    number, mode = _handle(path), _mode(path)
    if number is None and (mode is None or stat.S_ISREG(mode)):
        with beside(path.resolve() if path.is_symlink() else path) as temporary:
            yield temporary
        return
    with tempfile.TemporaryDirectory() as folder:  # formats that seek cannot go down a pipe
        whole = Path(folder) / "whole"
        yield whole
        into = open(path, "wb") if number is None else os.fdopen(os.dup(number), "wb")
        with open(whole, "rb") as source, into as target:
            shutil.copyfileobj(source, target)


def _mode(path: Path) -> int | None:
    """What a path is, through links; None if there is nothing. HandfulError if links go in a
    circle."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise HandfulError(
                f"{path} is a link that leads back to itself; remove it or give another --out"
            ) from None
        raise


def _handle(path: Path) -> int | None:
    """The number of the open file that a path names: its content is appended, never replaced."""
    found = _HANDLE.fullmatch(str(path))
    if found is None:
        return None
    return int(found[1]) if found[1] else ("stdin", "stdout", "stderr").index(found[2])
