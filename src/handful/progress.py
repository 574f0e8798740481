"""Types for reporting the progress of long jobs: `track` shows bars, `say` shows sentences."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Total = int | Callable[[], int]  # number of items; a function if the number may change
# track(items, total, what) returns the items and shows the progress of the iteration.
Track = Callable[[Iterable[Any], Total, str], Iterable[Any]]


def quiet(items: Iterable[Any], total: Total, what: str) -> Iterable[Any]:
    """The default `Track`, which shows nothing."""
    return items


Say = Callable[[str], None]  # say(text) shows one sentence


def silent(text: str) -> None:
    """The default `Say`, which shows nothing."""


@dataclass(frozen=True)
class Reporter:
    """Reports the progress of a long job."""

    track: Track = quiet
    say: Say = silent


QUIET = Reporter()
