"""Shards of a source: images chosen by a hash of their names, the same on every machine."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import NamedTuple

import numpy as np

from handful.data.opened import Files
from handful.data.scan import Listing
from handful.data.skipped import Skipped
from handful.errors import HandfulError

MOST = 100_000  # shards


class Listed(NamedTuple):
    """What tells whether two shards are of one list of images."""

    images: int
    hash: str  # of the names


class Share(NamedTuple):
    """The images of one shard, where another machine has listed the source."""

    files: Files
    listing: Listing  # of this shard
    listed: Listed  # of all images
    at: dict[str, int]  # name → position among all images


@dataclass(frozen=True)
class Shard:
    """One of `of` parts of a source, counted from 1.

    >>> from handful.data.shards import shard_of
    >>> shard = shard_of("3/64")
    >>> shard.holds("fox-1.png"), shard_of("33/64").holds("fox-1.png")
    (False, True)
    """

    number: int
    of: int
    # Called before an image is read: what all images are, and the positions of those held here.
    seen: Callable[[Listed, dict[str, int]], None] = lambda listed, at: None
    share: Share | None = None  # None: the source is listed here

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def holds(self, name: str) -> bool:
        """Whether the image of this name is in this shard."""
        return number_of(name, self.of) == self.number

    def divide(self, names: Sequence[str]) -> dict[str, int]:
        """The positions of the images of this shard, given the names of all in their order."""
        at = {name: position for position, name in enumerate(names) if self.holds(name)}
        self.seen(listed_names(names), at)
        return at

    def of_listing(self, listed: Listing) -> Listing:
        """The files of this shard; what is left out is listed by the shard of its name."""
        at = self.divide(listed.files.names)
        return Listing(
            listed.files.take(np.fromiter(at.values(), np.int64, len(at))),
            [skipped for skipped in listed.skipped if self.holds(skipped.name)],
            listed.ignored,
        )


class NothingInShard(HandfulError):
    """Raised for a shard without a readable image, which small sources have."""

    def __init__(self, shard: Shard, skipped: Iterable[Skipped] = ()) -> None:
        super().__init__(f"shard {shard} holds no image that can be read; take fewer shards")
        self.skipped = tuple(skipped)


def shard_of(text: str) -> Shard:
    """The shard that "3/64" names; HandfulError for other text."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text.strip())
    number, of = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= of <= MOST:
        raise HandfulError(
            f"--shard {text!r} is no shard; the third of 64 is --shard 3/64, and the first is 1/64"
        )
    return Shard(number, of)


def number_of(name: str, of: int) -> int:
    """Which of `of` shards holds the image of this name."""
    digest = blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % of + 1


def listed_names(names: Sequence[str]) -> Listed:
    """Of a list of names, in their order."""
    digest = sha256()
    for name in names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    return Listed(len(names), digest.hexdigest()[:32])
