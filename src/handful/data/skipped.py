"""A file that was left out; apart from `store`, which imports torch and so takes seconds."""

from collections.abc import Sequence
from typing import NamedTuple

ONLY_LABELED = "only in the label file"  # the reason of a label without an image


class Skipped(NamedTuple):
    """A file that was left out, and the reason."""

    name: str
    reason: str


def left_out_files(skipped: Sequence[Skipped]) -> list[Skipped]:
    """Those that are files: the reader of labels tells of labels without an image."""
    return [one for one in skipped if not one.reason.startswith(ONLY_LABELED)]
