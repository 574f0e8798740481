"""Read and write `.handful-sorted.json`, the list of copies that `predict --into` made.

It is written before the first copy, with all planned copies, so a killed call leaves no copy that
is not listed. An entry counts only while its place holds a regular file of the listed content.
Missing files, edited copies and false entries of a foreign manifest are never moved or deleted.
"""

import json
import os
import re
import stat
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from handful.data.image_folder import MANIFEST
from handful.errors import HandfulError
from handful.files import write_json
from handful.pipeline.sorting.names import Kind

VERSION = 1
LARGEST = 2**29  # bytes; some 1,500,000 images


@dataclass(frozen=True)
class Entry:
    """One copy of an image."""

    place: str  # folder/name, in the target
    source: str  # real path of the folder that the original was in
    name: str  # of the original, relative to it
    bytes: int
    sha256: str
    was: tuple[str, ...] = ()  # former places, until the copy has been moved

    @property
    def origin(self) -> str:
        """Path of the original."""
        return os.path.join(self.source, self.name)


@dataclass(frozen=True)
class Folder:
    """A folder in the target: its kind, and whether we made it."""

    kind: Kind
    made: bool


@dataclass
class Manifest:
    """Folders by name, and an entry for each copy."""

    folders: dict[str, Folder] = field(default_factory=dict)
    files: list[Entry] = field(default_factory=list)

    @property
    def known(self) -> dict[Kind, str]:
        """The folder of each kind."""
        return {folder.kind: name for name, folder in self.folders.items()}

    def write(self, target: Path) -> None:
        folders = [
            {
                "folder": name,
                "kind": folder.kind.what,
                "name": folder.kind.name,
                "made": folder.made,
            }
            for name, folder in self.folders.items()
        ]
        files = [{k: v for k, v in asdict(e).items() if k != "was" or v} for e in self.files]
        write_json(target / MANIFEST, {"version": VERSION, "folders": folders, "files": files})


def read_manifest(target: Path) -> Manifest:
    """Read the manifest of a target, empty if there is none; HandfulError if it is not ours."""
    path = target / MANIFEST
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Manifest()
    try:
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
            raise ValueError("no regular file of moderate size")
        return _parsed(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HandfulError(
            f"{path} is damaged or was not written by handful ({_line(error)}); restore it, or "
            f"delete it: what is in {target} then counts as yours, is not moved and not overwritten"
        ) from None


def _parsed(found: Any) -> Manifest:
    _require(found["version"] == VERSION, "another version")
    manifest = Manifest()
    for row in found["folders"]:
        folder, what, name, made = (row[key] for key in ("folder", "kind", "name", "made"))
        _require(_is_name(folder), f"no folder in the target: {folder!r}")
        _require(what in ("class", "none") and isinstance(name, str), f"no kind: {what!r}")
        _require(isinstance(made, bool) and folder not in manifest.folders, f"folder {folder!r}")
        manifest.folders[folder] = Folder(Kind(what, name), made)
    for row in found["files"]:
        entry = Entry(**{**row, "was": tuple(row.get("was", ()))})
        for place in (entry.place, *entry.was):
            _require(_is_place(place), f"no place in the target: {place!r}")
        _require(type(entry.bytes) is int and entry.bytes >= 0, f"bytes: {entry.bytes!r}")
        _require(isinstance(entry.source, str) and isinstance(entry.name, str), "no original")
        _require(re.fullmatch("[0-9a-f]{64}", entry.sha256) is not None, "no SHA-256")
        manifest.files.append(entry)
    return manifest


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def _is_place(place: object) -> bool:
    """Return whether the text is folder/name, which cannot lead out of the target."""
    parts = place.split("/") if isinstance(place, str) else []
    return len(parts) == 2 and all(map(_is_name, parts))


def _is_name(name: object) -> bool:
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\0" in name:
        return False
    return os.name != "nt" or not set(name) & {"\\", ":"}


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
