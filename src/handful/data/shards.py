"""Shards of a source: images chosen by a hash of their names, the same on every machine."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import NamedTuple

from handful.data.scan import Listing
from handful.data.skipped import Skipped
from handful.errors import HandfulError

MOST = 100_000  # shards


class Listed(NamedTuple):
    """What tells whether two shards are of one list of images."""

    images: int
    hash: str  # of the names


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
    # Called with the names of all images of the source, in their order, before one is read.
    seen: Callable[[Sequence[str]], None] = lambda names: None

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def holds(self, name: str) -> bool:
        """Whether the image of this name is in this shard."""
        digest = blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.of == self.number - 1

    def of_listing(self, listed: Listing) -> Listing:
        """The files of this shard; what is left out is listed by the shard of its name."""
        self.seen([file.name for file in listed.files])
        return Listing(
            [file for file in listed.files if self.holds(file.name)],
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


def listed_names(names: Sequence[str]) -> Listed:
    """Of a list of names, in their order."""
    digest = sha256()
    for name in names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    return Listed(len(names), digest.hexdigest()[:32])
