"""Nothing hangs: a limit on processor time, which a busy machine does not use up sooner."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Hang(BaseException):
    """No `except` of the code under test takes it for an error of its own."""


@contextmanager
def soon(limit: float = 30, waiting: int = 0) -> Iterator[None]:
    """Raise `Hang` once this process has computed for `limit` seconds.

    Args:
        waiting: seconds by the clock, for what waits and does not compute. 0 where pytest-timeout
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
