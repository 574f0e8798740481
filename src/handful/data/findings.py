"""The results of the checks as plain data, from which the screen, the page and JSON are made."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from handful.data.store import Skipped
from handful.progress import Important


@dataclass(frozen=True)
class ClassCount:
    """The number of labels of one class."""

    name: str
    labeled: int  # training images with this label
    test: int  # test images with this label


@dataclass(frozen=True)
class Member:
    """One image of a set of duplicates."""

    name: str
    part: str  # "labeled", "unlabeled" or "test"
    label: str | None


@dataclass(frozen=True)
class Identical:
    """Images with equal pixels."""

    members: tuple[Member, ...]
    across_test: bool  # whether the test part holds some of them, but not all
    conflicting: bool  # whether they have different labels


@dataclass(frozen=True)
class Near:
    """Two images that look almost the same."""

    first: Member
    second: Member
    likeness: float  # correlation of their grey levels, at most 1
    across_test: bool  # whether one of the two is in the test part


@dataclass(frozen=True)
class Odd:
    """An image of unusual size or shape."""

    name: str
    height: int
    width: int


@dataclass(frozen=True)
class Problem:
    """Something that is, or may be, wrong with the images."""

    kind: str  # one word, such as "leak"
    text: str  # one sentence
    serious: bool  # whether it makes results untrustworthy

    @property
    def said(self) -> str:
        """The text as it is said before a fit; from Python a fault of the labels is a warning."""
        return Important(self.text) if self.kind == "spelling" else self.text


@dataclass(frozen=True)
class Findings:
    """Everything that `handful data` reports."""

    source: str
    hash: str
    images: int  # outside the test part
    labeled: int
    unlabeled: int
    test: int
    classes: tuple[ClassCount, ...]
    grey: int  # images without colour, of `images` + `test`
    smallest: tuple[int, int]  # height and width of the image with the fewest pixels
    median: tuple[int, int]
    largest: tuple[int, int]
    decoded: dict[str, int]  # treatment in decoding ("alpha", "rotated", …) → number of images
    skipped: tuple[Skipped, ...]
    other: dict[str, int]  # ending → number of files that are no images
    identical: tuple[Identical, ...]
    near: tuple[Near, ...] | None  # None if they were not looked for
    odd: tuple[Odd, ...]
    problems: tuple[Problem, ...]
    near_compared: int | None = None  # images that each was compared with, where not with all

    def as_json(self) -> dict[str, Any]:
        """The findings as plain numbers, lists and dicts."""
        skipped = [skip._asdict() for skip in self.skipped]
        return {**asdict(self), "skipped": skipped}


def valid_unicode(text: str) -> str:
    """The text with ? for what UTF-8 cannot encode: a file name need not be valid Unicode."""
    return text.encode("utf-8", "replace").decode("utf-8")


def skipped_summary(skipped: Sequence[Skipped]) -> str:
    """Numbers of files left out, by reason: "3 left out: 2 damaged, 1 permission denied"."""
    kinds = Counter(skip.reason.split(": ")[0] for skip in skipped)
    return f"{len(skipped):,} left out: " + ", ".join(
        f"{count:,} {kind}" for kind, count in kinds.most_common()
    )
