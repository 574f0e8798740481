"""Names of class folders and copies: apart from each other, and such as file systems can hold."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Literal, NamedTuple

from handful.errors import HandfulError

RESERVED = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE
)
FORBIDDEN = frozenset('/\\:*?"<>|')  # by Windows, and by the file systems of most memory cards
MIN_NAME_BYTES = 32  # bytes for a name, below which a target lies too deep
MAX_ENDING_BYTES = 16  # bytes; what is longer after the last dot is no ending


class Kind(NamedTuple):
    """What shares a folder: a class, or the images that have no label for one reason."""

    what: Literal["class", "none"]
    name: str  # the class, or the reason


NONE_OF_THESE, NO_ANSWER = Kind("none", "none of these"), Kind("none", "no answer")


def kinds_of(labels: Sequence[str], none_of_these: Sequence[bool]) -> list[Kind]:
    """The kind of each image; an empty label is none."""
    return [
        Kind("class", label) if label else NONE_OF_THESE if unknown else NO_ANSWER
        for label, unknown in zip(labels, none_of_these, strict=True)
    ]


def portable(name: str) -> str:
    """A name that Windows, macOS and memory cards accept, but for its length."""
    safe = "".join(
        "_" if c in FORBIDDEN or ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 else c for c in name
    ).rstrip(" .")
    return f"_{safe}" if RESERVED.fullmatch(safe) else safe or "_"


def flat(name: str) -> str:
    """A path inside the source as one file name: a/b.jpg → a_b.jpg."""
    one = name.replace("/", "_")
    return portable(one) if os.name == "nt" or one in ("", ".", "..") else one


def name_key(name: str) -> str:
    """Equal for names that some file system takes for one: by letter case, or composed letters."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def copy_names(name: str, limit: int) -> Iterator[str]:
    """`name`, then numbered: a.jpg, a (2).jpg, … Too long ones lose the beginning.

    (Of a flattened path the end is the file's own name.)
    """
    stem, ending = os.path.splitext(name)
    if len(os.fsencode(ending)) > MAX_ENDING_BYTES:
        stem, ending = name, ""
    for tail in _numbered_endings(ending):
        kept = stem
        while _size(kept + tail) > limit:
            kept = kept[1:].lstrip(" .")
        yield kept + tail


def _folder_names(name: str, limit: int) -> Iterator[str]:
    """A class name as one folder, never out of the target, then numbered."""
    safe = portable(name.strip(" ."))
    for tail in _numbered_endings(""):
        kept = safe
        while _size(kept + tail) > limit:
            kept = kept[:-1].rstrip(" .")
        yield kept + tail


def _numbered_endings(ending: str) -> Iterator[str]:
    yield ending
    for number in count(2):
        yield f" ({number}){ending}"


def _size(name: str) -> int:
    return len(os.fsencode(name))


def folder_names(
    kinds: Sequence[Kind],
    known: Mapping[Kind, str],
    usable: Callable[[str], bool],
    limit: int,
) -> dict[Kind, str]:
    """A folder for each kind; no two are one to a file system that ignores letter case.

    Args:
        known: folders of earlier calls, which are kept.
        usable: whether a folder of that name is free, or a true folder in the target.
        limit: bytes that a name may have.
    """
    chosen = {kind: known[kind] for kind in kinds if kind in known and usable(known[kind])}
    taken = {name_key(folder) for folder in known.values()}
    new = [kind for kind in dict.fromkeys(kinds) if kind not in chosen]
    # Classes whose name can stay as it is come first.
    for kind in sorted(new, key=lambda kind: next(_folder_names(kind.name, limit)) != kind.name):
        chosen[kind] = next(
            name
            for name in _folder_names(kind.name, limit)
            if name_key(name) not in taken and usable(name)
        )
        taken.add(name_key(chosen[kind]))
    return chosen


class Limits(NamedTuple):
    """How many bytes names may have."""

    name: int
    path: int

    def folder(self, target: Path) -> int:
        """For a folder in the target: half of what the path leaves, as files come below it."""
        return self._checked(target, (self.path - _size(os.path.abspath(target))) // 2)

    def file(self, folder: Path) -> int:
        return self._checked(folder, self.path - _size(os.path.abspath(folder)) - 1)

    def _checked(self, folder: Path, room: int) -> int:
        if room < MIN_NAME_BYTES:
            raise HandfulError(
                f"the path of {folder} is so long that no name of a copy fits below it; give "
                f"--into a shorter path"
            )
        return min(room, self.name)


def limits(target: Path) -> Limits:
    """What the file system of the target can hold, as far as it tells."""
    if os.name == "nt":
        return Limits(255, 259)
    at = Path(os.path.abspath(target))
    while not os.path.exists(at):
        at = at.parent
    try:
        name, path = os.pathconf(at, "PC_NAME_MAX"), os.pathconf(at, "PC_PATH_MAX") - 1
    except (OSError, ValueError):
        return Limits(255, 1023)
    return Limits(name if name > 0 else 255, path if path > 0 else 1023)
