"""How many cores this process may use."""

import os

_given: list[int] = []  # what `use_cores` was told last


def cores() -> int:
    """The number of cores that this process may use: those of the system, or `use_cores`."""
    if _given:
        return _given[-1]
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def use_cores(count: int) -> None:
    """Have `cores` return `count` from now on: others compute on the same machine."""
    _given[:] = [count]
