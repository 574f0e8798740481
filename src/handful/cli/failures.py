"""What ends a command: which failures a user can mend, and signals that ask it to stop."""

import errno
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from handful.errors import HandfulError

INTERRUPTED, TERMINATED = 130, 143  # 128 + the number of the signal, as shells have it

_MEMORY = (
    "the memory that this process may use is not enough; close other programs or raise the limit "
    "(ulimit -v, the memory of the container), or use a smaller --size or a smaller network"
)
_THREADS = (
    "the system lets this process start no more threads; raise the limit (ulimit -u, pids of the "
    "container), end other programs, or set OMP_NUM_THREADS=1"
)
_HOME = (
    "there is no home folder (HOME is not set, and this user has no entry in passwd); set "
    "HANDFUL_CACHE to a folder for decoded images"
)
# Of exceptions that have no class of their own: a part of the text, and what to say.
_TELLING = {
    "determine home directory": _HOME,
    "start new thread": _THREADS,
    "thread creation failed": _THREADS,
    "defaultcpuallocator": _MEMORY,
    "not enough memory": _MEMORY,
    "cannot allocate memory": _MEMORY,
    "can't allocate memory": _MEMORY,
    "failed to map segment": _MEMORY,
    "bad_alloc": _MEMORY,
    "out of memory": _MEMORY,
}


def mendable(error: BaseException) -> str | None:
    """One line for what the user can mend; None for what is our fault."""
    usage = getattr(error, "format_message", None)  # of a mistake in the command line itself
    if usage is not None:
        return f"{usage()} (handful --help tells more)"
    if isinstance(error, HandfulError):
        return " ".join(str(error).split())
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return _MEMORY
    if isinstance(error, RuntimeError | ImportError):
        text = str(error).lower()
        return next((advice for part, advice in _TELLING.items() if part in text), None)
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        reason = (error.strerror or str(error)).lower()
        return f"cannot use{where}: {reason}; check space and permissions"
    return None


@contextmanager
def terminating() -> Iterator[list[bool]]:
    """Within, SIGTERM does what Ctrl-C does; the list gets an entry when it came.

    Batch systems, containers and service managers send it before they kill. The handler of before
    is back afterwards, so that a program which calls `main` keeps its own.
    """
    came: list[bool] = []

    def stop(number: int, frame: FrameType | None) -> None:
        came.append(True)
        interrupt = signal.getsignal(signal.SIGINT)
        if callable(interrupt):
            interrupt(signal.SIGINT, frame)  # training ends its step and saves
        else:  # Ctrl-C is ignored, as in jobs that a script puts in the background
            raise KeyboardInterrupt

    handled = threading.current_thread() is threading.main_thread()
    if not handled or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield came  # somebody has decided already what it does: nohup-like parents, libraries
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
