"""Python's garbage collector, kept away from modules: they are there until the end.

An import of torch makes 180,000 objects. To look at them again and again while it goes on, and once
more at the end of the process, takes a third of its time.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_RARELY = (100_000, 50, 1_000)  # new objects before a collection, and how often it is a larger one


@contextmanager
def few_collections() -> Iterator[None]:
    """Context manager for slow imports: collect rarely, and never look at what they made.

    Only the first of a process keeps objects from the collector: garbage of a program that calls
    commands again and again must not pile up.
    """
    usual = gc.get_threshold()
    gc.set_threshold(*_RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        if not gc.get_freeze_count():
            gc.freeze()
