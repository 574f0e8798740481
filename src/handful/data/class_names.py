"""Normalise class names, so that names that look equal are one class."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

NUMBER = re.compile(r"([+-]?\d+)(?:[.,](\d+))?")


def normalized(text: str) -> str:
    """The class name composed (NFC), with single inner spaces and without invisible characters.

    Zero-width characters, byte order marks, soft hyphens and marks of writing direction are
    removed; a no-break space becomes a space. A name of invisible characters becomes "".
    """
    kept = (
        " " if character.isspace() else character
        for character in text
        if character.isspace() or unicodedata.category(character) not in ("Cf", "Cc")
    )
    return " ".join(unicodedata.normalize("NFC", "".join(kept)).split())


def alike(names: Iterable[str]) -> list[list[str]]:
    """Sets of names that differ only in letter case, spaces, dashes or notation of a number."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        found[_key(name)].append(name)
    return [spellings for spellings in found.values() if len(spellings) > 1]


def _key(name: str) -> str:
    """A key that is equal for "Cat" and "cat ", "red fox" and "red_fox", "1" and "1.0"."""
    text = normalized(unicodedata.normalize("NFKC", name)).casefold()
    if number := NUMBER.fullmatch(text):
        whole, decimals = number.groups()
        return f"{int(whole)}.{(decimals or '').rstrip('0')}"
    return re.sub(r"[\s_-]+", " ", text).strip() or text
