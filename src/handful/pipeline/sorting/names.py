"""Make names of class folders and copies that are distinct and valid on any file system."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Literal, NamedTuple

from handful.data.boxes.crop_store import NO_DETECTION
from handful.errors import HandfulError

RESERVED = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE
)
FORBIDDEN = frozenset('/\\:*?"<>|')  # on Windows, and on the file systems of most memory cards
MIN_NAME_BYTES = 32  # below this, the path of the target is too long
MAX_ENDING_BYTES = 16  # a longer text after the last dot is no ending


class Kind(NamedTuple):
    """A group of images that share a folder: a class, or a reason for having no label."""

    what: Literal["class", "none"]
    name: str  # the class, or the reason


NONE_OF_THESE, NO_ANSWER = Kind("none", "none of these"), Kind("none", "no answer")
WITHOUT_LABEL = (NONE_OF_THESE, NO_ANSWER, Kind("none", NO_DETECTION))


def kinds_of(labels: Sequence[str], reasons: Sequence[str]) -> list[Kind]:
    """Return the kind of each image; an empty label means no label, for the reason that is given.

    A reason without a kind of its own counts as no answer.
    """
    kinds = {kind.name: kind for kind in WITHOUT_LABEL}
    return [
        Kind("class", label) if label else kinds.get(reason, NO_ANSWER)
        for label, reason in zip(labels, reasons, strict=True)
    ]


def portable(name: str) -> str:
    """Return a name that Windows, macOS and memory cards accept; its length is not limited."""
    safe = "".join(
        "_" if c in FORBIDDEN or ord(c) < 32 or 0xD800 <= ord(c) < 0xE000 else c for c in name
    ).rstrip(" .")
    return f"_{safe}" if RESERVED.fullmatch(safe) else safe or "_"


def flat(name: str) -> str:
    """Return a path inside the source as one file name: a/b.jpg → a_b.jpg."""
    one = name.replace("/", "_")
    return portable(one) if os.name == "nt" or one in ("", ".", "..") else one


def name_key(name: str) -> str:
    """Return a key that is equal for names that some file system takes for one.

    Letter case and the composition of accented letters are ignored.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def copy_names(name: str, limit: int) -> Iterator[str]:
    """Yield `name`, then numbered names: a.jpg, a (2).jpg, … of at most `limit` bytes.

    Names that are too long lose their beginning, since a flattened path ends with the file's name.
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
    """Yield a class name as a valid folder name of at most `limit` bytes, then numbered names."""
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
    """Return a folder name for each kind; names differ in more than letter case.

    Args:
        known: folders of earlier calls, which are kept.
        usable: whether a name is free, or the name of a real folder in the target.
        limit: maximum bytes of a name.
    """
    chosen = {kind: known[kind] for kind in kinds if kind in known and usable(known[kind])}
    taken = {name_key(folder) for folder in known.values()}
    new = [kind for kind in dict.fromkeys(kinds) if kind not in chosen]
    # Classes whose name is a valid folder name come first.
    for kind in sorted(new, key=lambda kind: next(_folder_names(kind.name, limit)) != kind.name):
        chosen[kind] = next(
            name
            for name in _folder_names(kind.name, limit)
            if name_key(name) not in taken and usable(name)
        )
        taken.add(name_key(chosen[kind]))
    return chosen


class Limits(NamedTuple):
    """Maximum bytes of a file name and of a path."""

    name: int
    path: int

    def folder(self, target: Path) -> int:
        """Return the limit of a folder name: half of the rest of the path, as files follow."""
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
    """Return the limits of the target's file system, or safe ones where it tells none."""
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
