"""Class names as people see them: what looks equal is one class."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

NUMBER = re.compile(r"([+-]?\d+)(?:[.,](\d+))?")


def normalized(text: str) -> str:
    """The class name without what cannot be seen: composed (NFC), single spaces, none at the ends.

    Zero-width characters, byte order marks, soft hyphens and marks of writing direction go; a
    no-break space is a space. A name that holds only such characters becomes "".
    """
    kept = (
        " " if character.isspace() else character
        for character in text
        if character.isspace() or unicodedata.category(character) not in ("Cf", "Cc")
    )
    return " ".join(unicodedata.normalize("NFC", "".join(kept)).split())


def alike(names: Iterable[str]) -> list[list[str]]:
    """Class names that differ in spelling only: letter case, spaces, dashes, or as numbers."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        found[_key(name)].append(name)
    return [spellings for spellings in found.values() if len(spellings) > 1]


def _key(name: str) -> str:
    """Equal for names that look alike: "Cat" and "cat ", "red fox" and "red_fox", "1" and "1.0"."""
    text = normalized(unicodedata.normalize("NFKC", name)).casefold()
    if number := NUMBER.fullmatch(text):
        whole, decimals = number.groups()
        return f"{int(whole)}.{(decimals or '').rstrip('0')}"
    return re.sub(r"[\s_-]+", " ", text).strip() or text
