"""Stop a training after the current step on Ctrl-C or SIGTERM."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def graceful_stop() -> Iterator[Any]:
    """Yield a function that returns whether the user asked to stop, for the loop to ask each step.

    The first Ctrl-C sets the request; a second one raises KeyboardInterrupt at once. Where Ctrl-C
    is ignored, as in jobs that a script starts in the background, it stays ignored. SIGTERM sets
    the request too where the command line handles it (`handful.cli.failures.sigterm_as_interrupt`).
    """
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    def terminate(number: int, frame: Any) -> None:
        assert callable(outer)
        try:
            outer(number, frame)
        except KeyboardInterrupt:
            ask()

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    # Where Ctrl-C is not ignored, the command line's handler of SIGTERM calls the one set here.
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    caught = signal.SIGTERM if ignored else signal.SIGINT
    outer = signal.getsignal(caught)
    if ignored and not callable(outer):
        yield lambda: False
        return
    signal.signal(caught, terminate if ignored else ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(caught, outer)
    if asked:  # requested after the last step, when the loop asked no more
        raise KeyboardInterrupt
