"""How many bytes may be decoded at once, by all workers together."""

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from handful.errors import HandfulError

DEFAULT = 640  # MB (of 2**20 bytes)
PER_PIXEL = 7.5  # bytes: no image has more pixels than the budget has for each (89 million)
MUCH = 16 * 2**20  # bytes that are given back to the system at once

_free = threading.Condition()
_used = 0


def budget() -> int:
    """Bytes: HANDFUL_DECODE_MEMORY, in MB, or the default."""
    given = os.environ.get("HANDFUL_DECODE_MEMORY") or str(DEFAULT)
    if not given.isdecimal() or not 16 <= int(given) <= 10**7:
        raise HandfulError(
            f"HANDFUL_DECODE_MEMORY={given!r} is the memory for decoding images in MB, a whole "
            f"number from 16; set it to {DEFAULT}, say, or leave it unset"
        )
    return int(given) * 2**20


@contextmanager
def reserving(limit: int) -> Iterator[Callable[[int], None]]:
    """Gives a function to be called once: it waits until so many bytes of `limit` are free.

    They are held until the end. An image alone always fits. What is decoded meanwhile must be gone
    by the end: only locals of a function that has returned are.
    """
    global _used
    held = 0

    def reserve(cost: int) -> None:
        global _used
        nonlocal held
        with _free:
            _free.wait_for(lambda: _used == 0 or _used + cost <= limit)
            _used += cost
            held = cost

    try:
        yield reserve
    finally:
        if held >= MUCH:
            _trim()(0)
        with _free:
            _used -= held
            _free.notify_all()


@cache
def _trim() -> Callable[[int], int]:
    """glibc's function that returns freed memory: of each thread, it would keep 300 MB and more."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another system: its allocator does as it does
        return lambda kept: 0
    return trim
