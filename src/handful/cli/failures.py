"""Tell errors that a user can repair from faults of handful, and handle SIGTERM."""

import errno
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from handful.data.source_names import redacted_within
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
# Exceptions without a class of their own: part of their text → message to the user.
_MESSAGES = {
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


_CHECKPOINTS = ("fit", "pretrain", "compare", "reproduce")  # commands that leave some
_GOES_ON = "stopped; the same command goes on from the last checkpoint, if one was saved"
_stopped: list[Callable[[], str]] = []  # makes what the command that runs says when it is stopped


def when_stopped(text: Callable[[], str]) -> None:
    """Set what makes the text that is said when the command is stopped."""
    _stopped[:] = [text]


def stopped_message(words: Sequence[str]) -> str:
    """Return what to say to the user who stopped a command.

    Args:
        words: of the command line, after `handful`.
    """
    if _stopped:
        return _stopped.pop()()
    if any(word in _CHECKPOINTS for word in words):
        return _GOES_ON
    return "stopped"


def user_message(error: BaseException) -> str | None:
    """Return a one-line message for an error that the user can repair; None for a fault of ours."""
    usage = getattr(error, "format_message", None)  # of an error in the command line itself
    if usage is not None:
        return f"{usage()} (handful --help tells more)"
    if isinstance(error, HandfulError):
        return redacted_within(" ".join(str(error).split()))
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return _MEMORY
    if isinstance(error, RuntimeError | ImportError):
        text = str(error).lower()
        return next((advice for part, advice in _MESSAGES.items() if part in text), None)
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        reason = (error.strerror or str(error)).lower()
        return f"cannot use{where}: {reason}; check space and permissions"
    return None


@contextmanager
def sigterm_as_interrupt() -> Iterator[list[bool]]:
    """Context manager: SIGTERM acts as Ctrl-C, and adds an entry to the list.

    Batch systems, containers and service managers send SIGTERM before they kill. The earlier
    handler is restored afterwards, so that a program which calls `main` keeps its own.
    """
    received: list[bool] = []
    _stopped.clear()

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(True)
        interrupt = signal.getsignal(signal.SIGINT)
        if callable(interrupt):
            interrupt(signal.SIGINT, frame)  # training ends its step and saves
        else:  # Ctrl-C is ignored, as in jobs that a script puts in the background
            raise KeyboardInterrupt

    handled = threading.current_thread() is threading.main_thread()
    if not handled or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield received  # a handler is set already, by a parent such as nohup or by a library
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
