"""Progress of long jobs: bars through `track`, sentences through `say`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Total = int | Callable[[], int]  # how many items there are; a function where that may change
Track = Callable[
    [Iterable[Any], Total, str], Iterable[Any]
]  # track(items, total, what): show progress


def quiet(items: Iterable[Any], total: Total, what: str) -> Iterable[Any]:
    """The default `Track`: shows nothing."""
    return items


Say = Callable[[str], None]


def silent(text: str) -> None: ...


@dataclass(frozen=True)
class Reporter:
    """Where a long job tells how it goes: bars through `track`, sentences through `say`."""

    track: Track = quiet
    say: Callable[[str], None] = lambda text: None


QUIET = Reporter()
