"""List a source once, and divide it into the shards that other machines read."""

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np

from handful.data.image_folder import list_source
from handful.data.objects.files import Objects
from handful.data.objects.find import is_elsewhere
from handful.data.scan import Listing
from handful.data.shards import Share, listed_names, number_of
from handful.data.skipped import Skipped
from handful.data.source_names import NAMES
from handful.errors import HandfulError

FEWEST, MOST = 500, 4_000  # images in a shard: more than go through a network at once, and bounded
OF_DATA_SET = 4  # shards of a data set by name
MANY = 64  # shards of a source that has fewer than MANY * MOST images


class Division(NamedTuple):
    """The shards of a source."""

    of: int
    shares: Iterator[Share | None]  # the first, the second, …; None: the machine lists the source


def divided(source: str, follow_links: bool) -> Division:
    """List a source, and divide it: the same images give the same shards on every cluster.

    Each machine opens a data set by name itself, and a single file is one shard.
    """
    root = Path(source).expanduser()
    if source in NAMES:
        return Division(OF_DATA_SET, repeat(None, OF_DATA_SET))
    if not is_elsewhere(source) and root.is_file():
        return Division(1, repeat(None, 1))
    files, listed, _ = list_source(source, root, follow_links)
    names = listed.files.names
    if not names:
        raise HandfulError(f"{source} holds no image; check the path")
    of = shards_for(len(names))
    told = listed_names(names)
    held: list[list[int]] = [[] for _ in range(of)]
    for position, name in enumerate(names):
        held[number_of(name, of) - 1].append(position)
    left: list[list[Skipped]] = [[] for _ in range(of)]
    for skipped in listed.skipped:
        left[number_of(skipped.name, of) - 1].append(skipped)

    def share(number: int) -> Share:
        own = listed.files.take(np.array(held[number], np.int64))
        at = {names[position]: position for position in held[number]}
        some = files.some(at) if isinstance(files, Objects) else files
        return Share(some, Listing(own, left[number], listed.ignored), told, at)

    return Division(of, map(share, range(of)))


def shards_for(images: int) -> int:
    """The number of shards of so many images."""
    return max(1, min(MANY, images // FEWEST), -(-images // MOST))
