"""How many bytes may be decoded at once, by all workers together."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from handful.errors import HandfulError

DEFAULT = 768  # MB (of 2**20 bytes)
PER_PIXEL = 9  # bytes: no image has more pixels than the budget has for each (89 million)

_free = threading.Condition()
_used = 0


def budget() -> int:
    """Bytes: HANDFUL_DECODE_MEMORY, in MB, or the default."""
    given = os.environ.get("HANDFUL_DECODE_MEMORY") or str(DEFAULT)
    if not given.isdecimal() or not 16 <= int(given) <= 10**7:
        raise HandfulError(
            f"HANDFUL_DECODE_MEMORY={given!r} is the memory for decoding images in MB, a whole "
            f"number from 16; set it to 768, say, or leave it unset"
        )
    return int(given) * 2**20


@contextmanager
def reserved(cost: int, limit: int) -> Iterator[None]:
    """Wait until `cost` bytes of `limit` are free, and hold them. An image alone always fits."""
    global _used
    with _free:
        _free.wait_for(lambda: _used == 0 or _used + cost <= limit)
        _used += cost
    try:
        yield
    finally:
        with _free:
            _used -= cost
            _free.notify_all()
