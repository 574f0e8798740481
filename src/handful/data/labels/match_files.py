"""Find the image that a cell of a label file names, by rules from the strictest to the loosest.

A cell is compared, as text, with the names of the images. No path in a cell is ever opened.
"""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from handful.csv_files import restored_name
from handful.data.decode import ENDINGS

EXACT = "by its name"
DEPTH = 8  # parts of a path that are compared from its end
_PLAIN = re.compile(r"(?!\.\.?(/|$))[^/\\:]+(/(?!\.\.?(/|$))[^/\\:]+)*")
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # Label Studio's
_ROBOFLOW = re.compile(r"(.+)_([A-Za-z]{3,4})\.rf\.[0-9A-Za-z]+(\.\w+)?")


Index = dict[str, str | list[str]]


class Match(NamedTuple):
    """The images that a cell may mean: one, or several if it is ambiguous."""

    rule: str  # in words
    names: tuple[str, ...]
    whole: bool = False  # whether the whole path matches, not only its end


class FileMatcher:
    """Look up images by the names that a label file gives them."""

    def __init__(self, names: Iterable[str], root: Path, beside: Path) -> None:
        self.names = list(names)
        self.root, self.beside = root, beside  # folders that cells may be relative to
        self._down = _steps(beside, root)  # path from the label file's folder to the images
        self._up = _steps(root, beside)

    def find(self, cell: str) -> Match | None:
        """The match of the first rule that finds one image, else several images, else None."""
        if cell in self._exact:
            return Match(EXACT, (cell,), whole=True)
        several = None
        for match in self._matches(cell):
            if len(match.names) == 1:
                return match
            several = several or match
        return several

    def _matches(self, cell: str) -> Iterator[Match]:
        yield from self._by_path(cell)
        path = cell.strip().replace("\\", "/")
        yield from self._by_end(path, "by base name" if "/" not in path else "by end of path")
        plain = _without_address(path)
        if plain != path:
            yield from self._by_end(plain, "by end of address")
        decoded = unquote(plain, errors="surrogateescape")
        if decoded != plain:
            yield from self._by_end(decoded, "by percent-encoding undone")
        folder, _, base = decoded.rpartition("/")
        if (bare := _without_hash(base)) != base:
            yield from self._by_end(f"{folder}/{bare}", "by name without the hash of an export")

    def _by_path(self, cell: str) -> Iterator[Match]:
        """Matches of the whole path, relative to one of the two folders."""
        paths = list(dict.fromkeys(self._relative(cell)))
        rules = (
            (EXACT, self._exact, _same),
            (EXACT, self._composed, _composed),
            ("by letter case ignored", self._folded, _folded),
            ("without ending", self._stems, _folded),
            ("without ending", self._stems, _stem),
        )
        for rule, index, key in rules:
            for path in paths:
                if found := _found(index, key(path)):
                    yield Match(rule, found, whole=True)

    def _relative(self, cell: str) -> Iterator[str]:
        """Paths relative to the folder of images that the cell may mean; the cell itself first."""
        yield cell
        texts = dict.fromkeys((cell, restored_name(cell), cell.strip()))
        if len(texts) == 1 and _PLAIN.fullmatch(cell):
            yield from self._relative_plain(cell)
            return
        for start in (self.root, self.beside):
            for text in texts:
                try:
                    path = os.path.relpath(start / text.replace("\\", "/"), self.root)
                except ValueError:  # on another drive
                    continue
                yield Path(path).as_posix()

    def _relative_plain(self, path: str) -> Iterator[str]:
        """The paths of `_relative` for a cell of plain names and slashes; much quicker."""
        if self._up and ".." not in self._up:
            yield f"{self._up}/{path}"
        elif self._down and path.startswith(f"{self._down}/"):
            yield path.removeprefix(f"{self._down}/")

    def _by_end(self, path: str, rule: str) -> Iterator[Match]:
        """The images that share the longest end of the path, in whole parts."""
        parts = [part for part in path.split("/") if part not in ("", ".")][-DEPTH:]
        for index, key in ((self._ends, _composed), (self._folded_ends, _folded)):
            for start in range(len(parts)):
                if found := _found(index, key("/".join(parts[start:]))):
                    yield Match(rule, found)
                    break
        for key in (_folded, _stem):
            for start in range(len(parts)):
                if found := _found(self._stem_ends, key("/".join(parts[start:]))):
                    yield Match(rule, found)
                    break

    @cached_property
    def _exact(self) -> Index:
        return _index((name, name) for name in self.names)

    @cached_property
    def _composed(self) -> Index:
        return _index((_composed(name), name) for name in self.names)

    @cached_property
    def _folded(self) -> Index:
        return _index((_folded(name), name) for name in self.names)

    @cached_property
    def _stems(self) -> Index:
        return _index((_stem(name), name) for name in self.names)

    @cached_property
    def _ends(self) -> Index:
        return _index((_composed(end), name) for name in self.names for end in _ends(name))

    @cached_property
    def _folded_ends(self) -> Index:
        return _index((_folded(end), name) for name in self.names for end in _ends(name))

    @cached_property
    def _stem_ends(self) -> Index:
        return _index((_stem(end), name) for name in self.names for end in _ends(name))


def prefix_of(cell: str, name: str) -> tuple[str, str]:
    """The folders before the end that a cell and an image share; two empty ones if the cell has
    no folder beyond that end.

    >>> prefix_of("/cams/site2/a.jpg", "site2/a.jpg"), prefix_of("a.jpg", "site2/a.jpg")
    (('cams', ''), ('', ''))
    """
    path = unquote(_without_address(cell.strip().replace("\\", "/")), errors="surrogateescape")
    of_cell = [part for part in path.split("/") if part not in ("", ".")][:-1]
    of_name = name.split("/")[:-1]
    while of_cell and of_name and _folded(of_cell[-1]) == _folded(of_name[-1]):
        of_cell.pop()
        of_name.pop()
    return ("/".join(of_cell), "/".join(of_name)) if of_cell else ("", "")


def _index(pairs: Iterable[tuple[str, str]]) -> Index:
    """Key → name or names. A list for every key would take several times as long."""
    found: Index = {}
    for key, name in pairs:
        before = found.setdefault(key, name)
        if isinstance(before, list):
            before.append(name)
        elif before is not name:
            found[key] = [before, name]
    return found


def _found(index: Index, key: str) -> tuple[str, ...]:
    names = index.get(key, ())
    return (names,) if isinstance(names, str) else tuple(names)


def _steps(start: Path, end: Path) -> str:
    """The relative path from one folder to the other; "" if they are equal or on two drives."""
    try:
        path = Path(os.path.relpath(end, start)).as_posix()
    except ValueError:  # on another drive
        return ""
    return "" if path == "." else path


def _ends(name: str) -> Iterator[str]:
    """Every end of a path in whole parts, the path included."""
    parts = name.split("/")[-DEPTH:]
    return ("/".join(parts[start:]) for start in range(len(parts)))


def _same(text: str) -> str:
    return text


def _composed(text: str) -> str:
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _stem(text: str) -> str:
    """The text in lower case without the ending of an image file."""
    folded = _folded(text)
    start, dot, ending = folded.rpartition(".")
    return start if dot and f".{ending}" in _ENDINGS and not start.endswith("/") else folded


def _without_address(path: str) -> str:
    """The path in a URL, or in the query of a Label Studio address; other text unchanged."""
    if "/local-files/?d=" in path:
        return path.split("?d=", 1)[1].split("&")[0]
    if not _SCHEME.match(path):
        return path
    return re.split(r"[?#]", _SCHEME.sub("", path, count=1))[0]


def _without_hash(base: str) -> str:
    if found := _ROBOFLOW.fullmatch(base):
        return f"{found[1]}.{found[2]}"
    return _UPLOADED.sub("", base, count=1) if _UPLOADED.match(base) else base


_ENDINGS = {ending.lower() for ending in ENDINGS}
