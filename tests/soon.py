"""Limit the processor time of a block, independently of other load on the machine."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Hang(BaseException):
    """Raised at the limit; a BaseException, so that `except Exception` does not catch it."""


@contextmanager
def soon(limit: float = 30, waiting: int = 0) -> Iterator[None]:
    """Raise `Hang` once this process has computed for `limit` seconds.

    Args:
        waiting: seconds of real time, for code that waits and does not compute. 0 if pytest-timeout
            ends it: that has its own use for the same signal.
    """

    def late(number, frame):
        raise Hang(f"no end after {limit} s of processor time or {waiting} s of waiting")

    alarms = [signal.SIGPROF, *([signal.SIGALRM] if waiting else [])]
    before = [signal.signal(number, late) for number in alarms]
    signal.setitimer(signal.ITIMER_PROF, limit)
    if waiting:
        signal.alarm(waiting)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if waiting:
            signal.alarm(0)
        for number, handler in zip(alarms, before, strict=True):
            signal.signal(number, handler)
