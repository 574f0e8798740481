"""Stop a training at the end of a step on Ctrl-C or SIGTERM."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def graceful_stop() -> Iterator[Any]:
    """Within, Ctrl-C only asks: the loop ends its step, saves and stops. A second one insists.

    Where it is ignored, as by scripts that start a job in the background, it stays ignored. SIGTERM
    does the same in the command line, which handles it (`handful.cli.failures.terminating`).
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
    # Where Ctrl-C is not ignored, a handler of SIGTERM that raises has called the one set here.
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
    if asked:  # after the last step, when nobody looked any more
        raise KeyboardInterrupt
