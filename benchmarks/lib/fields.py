"""The settings of a method as its source states them: field, default, and the comment beside it."""

import inspect
import re
from dataclasses import fields
from typing import NamedTuple

_FIELD = re.compile(r"    (?P<name>\w+): [^=#]+ = .*?  # (?P<comment>.+)")
_MORE = re.compile(r"    #\s+(?P<comment>.+)")


class Field(NamedTuple):
    name: str
    default: str
    comment: str  # empty where the source has none


def settings(method: type) -> list[Field]:
    """Every field of the dataclass in the order of its signature, with the nearest comment."""
    comments: dict[str, str] = {}
    for owner in reversed(method.__mro__[:-1]):
        comments |= _comments(owner)
    return [
        Field(field.name, _shown(field.default), comments.get(field.name, ""))
        for field in fields(method)
    ]


def _comments(owner: type) -> dict[str, str]:
    """Field → comment, in the source of one class; a comment may go on for several lines."""
    found: dict[str, str] = {}
    last = None
    for line in inspect.getsource(owner).splitlines():
        if match := _FIELD.fullmatch(line):
            last = match["name"]
            found[last] = match["comment"]
        elif last and (match := _MORE.fullmatch(line)):
            found[last] += " " + match["comment"]
        else:
            last = None
    return found


def _shown(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)
