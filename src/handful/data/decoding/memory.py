"""Limit the memory that all workers together use for decoding."""

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from handful.errors import HandfulError

DEFAULT = 640  # MB (of 2**20 bytes)
PER_PIXEL = 7.5  # bytes; an image may have budget / PER_PIXEL pixels (89 million by default)
MUCH = 16 * 2**20  # bytes; larger amounts are returned to the system at once

_free = threading.Condition()
_used = 0


def budget() -> int:
    """The limit in bytes: HANDFUL_DECODE_MEMORY (in MB), or the default."""
    given = os.environ.get("HANDFUL_DECODE_MEMORY") or str(DEFAULT)
    if not given.isdecimal() or not 16 <= int(given) <= 10**7:
        raise HandfulError(
            f"HANDFUL_DECODE_MEMORY={given!r} is the memory for decoding images in MB, a whole "
            f"number from 16; set it to {DEFAULT}, say, or leave it unset"
        )
    return int(given) * 2**20


@contextmanager
def reserving(limit: int) -> Iterator[Callable[[int], None]]:
    """Yield a function, to be called once, that waits until a number of bytes of `limit` is free.

    The bytes are reserved until the block ends. A single image may always proceed. The decoded
    image must be freed by the end of the block: keep it in locals of a function that returns.
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
    """glibc's malloc_trim, which returns freed memory; each thread could keep 300 MB otherwise."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # not glibc: nothing to do
        return lambda kept: 0
    return trim
