"""A file that was left out; apart from `store`, which imports torch and so takes seconds."""

from typing import NamedTuple


class Skipped(NamedTuple):
    """A file that was left out, and the reason."""

    name: str
    reason: str
