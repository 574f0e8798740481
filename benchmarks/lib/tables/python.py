"""The public names of Python with a line each, for those who read the reference in a clone."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import handful
from benchmarks.lib.paths import DOCS
from benchmarks.lib.tables.shown import markdown

PAGE = DOCS / "reference" / "python.md"
DIRECTIVE = re.compile(r"^\.\. auto\w+:: (\w+)(?:\n   :members: (.+))?$", re.MULTILINE)


def python_names() -> str:
    """What the page documents in full, in its order."""
    return markdown(["name", "what it is"], _rows())


def documented() -> dict[str, list[str]]:
    """Public name → its members, as the directives of the page have them."""
    text = PAGE.read_text(encoding="utf-8")
    return {
        name: members.split(", ") if members else [] for name, members in DIRECTIVE.findall(text)
    }


def _rows() -> Iterator[list[str]]:
    for name, members in documented().items():
        thing = getattr(handful, name)
        yield [f"`handful.{name}`", _first_words(thing)]
        for member in members:
            yield [f"`{name}.{member}`", _first_words(inspect.getattr_static(thing, member))]


def _first_words(thing: Any) -> str:
    """The first paragraph of a docstring."""
    words = (inspect.getdoc(thing) or "").partition("\n\n")[0]
    return " ".join(words.split()).replace("|", "\\|")
