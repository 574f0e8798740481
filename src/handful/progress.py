"""Types for reporting the progress of long jobs: `track` shows bars, `say` shows sentences."""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handful.text import for_terminal

if TYPE_CHECKING:
    from rich.console import Console

Total = int | Callable[[], int]  # number of items; a function if the number may change
# track(items, total, what) returns the items and shows the progress of the iteration.
Track = Callable[[Iterable[Any], Total, str], Iterable[Any]]


def quiet(items: Iterable[Any], total: Total, what: str) -> Iterable[Any]:
    """The default `Track`, which shows nothing."""
    return items


Say = Callable[[str], None]  # say(text) shows one sentence


class Important(str):
    """A sentence that is never lost: from Python without a `say` it is a warning."""


def silent(text: str) -> None:
    """A `Say` that shows nothing."""


def important_only(say: Say) -> Say:
    """A `Say` that passes on what is `Important`, and nothing else."""
    return lambda text: say(text) if isinstance(text, Important) else None


def warned(text: str) -> None:
    """The `Say` of public functions that are given none: warns of what is `Important`."""
    if isinstance(text, Important):
        warnings.warn(text, stacklevel=_levels_up_to_the_caller())


def _levels_up_to_the_caller() -> int:
    """Frames from `warned` up to the first one outside of this package and its decorators."""
    here = (str(Path(__file__).parent), contextlib.__file__)
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(here):
        frame, level = frame.f_back, level + 1
    return level


@dataclass(frozen=True)
class Reporter:
    """Reports the progress of a long job."""

    track: Track = quiet
    say: Say = silent
    _named: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def first(self, name: str) -> bool:
        """Whether a name is asked for the first time, and so has to be explained."""
        new = name not in self._named
        self._named.add(name)
        return new


QUIET = Reporter(say=warned)  # of public functions that are given no reporter


@contextmanager
def shown(progress: bool, console: "Console | None" = None) -> Iterator[Reporter]:
    """Yield a Reporter that shows bars and sentences, in a terminal or in a notebook.

    Args:
        progress: False yields QUIET.
        console: where to show them; by default stderr.
    """
    if not progress:
        yield QUIET
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = console or Console(stderr=True, highlight=False, markup=False, emoji=False)
    with Progress(*columns, console=console, transient=True) as bars:

        def track(items: Iterable[Any], total: Total, description: str) -> Iterator[Any]:
            bar = bars.add_task(description, total=total() if callable(total) else total)
            try:
                for item in items:
                    yield item
                    bars.update(bar, advance=1, total=total() if callable(total) else total)
            finally:
                bars.remove_task(bar)

        said: set[str] = set()

        def say(text: str) -> None:
            if text not in said:
                said.add(text)
                bars.console.print(for_terminal(text), soft_wrap=True)

        yield Reporter(track, say)
