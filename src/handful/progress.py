"""Types for reporting the progress of long jobs: `track` shows bars, `say` shows sentences."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


def silent(text: str) -> None:
    """The default `Say`, which shows nothing."""


@dataclass(frozen=True)
class Reporter:
    """Reports the progress of a long job."""

    track: Track = quiet
    say: Say = silent


QUIET = Reporter()


@contextmanager
def shown(progress: bool, console: "Console | None" = None) -> Iterator[Reporter]:
    """Yield a Reporter that shows bars and sentences, in a terminal or in a notebook.

    Args:
        progress: False yields a Reporter that shows nothing.
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

        def say(text: str) -> None:
            bars.console.print(for_terminal(text), soft_wrap=True)

        yield Reporter(track, say)
