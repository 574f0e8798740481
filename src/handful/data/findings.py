"""What the checks tell: plain data, the same for the screen, the page and JSON."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from handful.data.store import Skipped


@dataclass(frozen=True)
class ClassCount:
    name: str
    labeled: int  # training images with this label
    test: int


@dataclass(frozen=True)
class Member:
    """One image of a set of duplicates."""

    name: str
    part: str  # "labeled", "unlabeled" or "test"
    label: str | None


@dataclass(frozen=True)
class Identical:
    """Images with the same pixels."""

    members: tuple[Member, ...]
    across_test: bool  # some are in the test part and some are not
    conflicting: bool  # they carry different labels


@dataclass(frozen=True)
class Near:
    """Two images that look almost the same."""

    first: Member
    second: Member
    likeness: float  # correlation of their grey levels, at most 1
    across_test: bool


@dataclass(frozen=True)
class Odd:
    """An image of unusual size or shape."""

    name: str
    height: int
    width: int


@dataclass(frozen=True)
class Problem:
    """One line about something that is, or may be, wrong."""

    kind: str
    text: str
    serious: bool  # it changes what can be trusted; otherwise good to know


@dataclass(frozen=True)
class Findings:
    """Everything `handful data` tells. `as_json` is the whole of it."""

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
    decoded: dict[str, int]  # how many images needed what: "alpha", "rotated", "16-bit", …
    skipped: tuple[Skipped, ...]
    other: dict[str, int]  # files that are no images, by ending
    identical: tuple[Identical, ...]
    near: tuple[Near, ...] | None  # None: not looked for
    odd: tuple[Odd, ...]
    problems: tuple[Problem, ...]

    def as_json(self) -> dict[str, Any]:
        skipped = [skip._asdict() for skip in self.skipped]
        return {**asdict(self), "skipped": skipped}


def valid_unicode(text: str) -> str:
    """Text that any file in UTF-8 takes: a file name need not be valid Unicode."""
    return text.encode("utf-8", "replace").decode("utf-8")


def skipped_summary(skipped: Sequence[Skipped]) -> str:
    """How many files were left out, and why: "3 left out: 2 damaged, 1 permission denied"."""
    kinds = Counter(skip.reason.split(": ")[0] for skip in skipped)
    return f"{len(skipped):,} left out: " + ", ".join(
        f"{count:,} {kind}" for kind, count in kinds.most_common()
    )
