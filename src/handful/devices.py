"""The one place that knows devices and number formats."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock

import torch

_TRIM, _MAP_FROM, _MAPS = -1, -3, -4  # what glibc's mallopt(3) calls them
_MIB = 2**20
_keeping = 0  # how many are inside `memory_kept`
_lock = Lock()


def device() -> torch.device:
    """CUDA's first device where there is one, else the processor."""
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


def has_bf16() -> bool:
    """Whether bf16 is worth timing here; whether it is faster, only a measurement tells."""
    if device().type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def amx() -> bool:
    """Whether bf16 matrices are multiplied by a processor's tiles (Intel's AMX)."""
    asked = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return device().type == "cpu" and asked is not None and bool(asked())


def autocast(precision: str) -> AbstractContextManager:
    """A context in which convolutions and matrix products run in `precision`: bf16 or fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device().type, torch.bfloat16)


def full_precision() -> AbstractContextManager:
    """A context in which they run in the precision of their tensors, whatever is around it."""
    return torch.autocast(device().type, enabled=False)


def synchronize() -> None:
    """Wait until the device has done what it was asked, so that a clock may be read."""
    if device().type == "cuda":
        torch.cuda.synchronize()


def keeps_memory() -> bool:
    """Whether `memory_kept` changes anything here."""
    return device().type == "cpu" and platform.libc_ver()[0] == "glibc"


@contextmanager
def memory_kept() -> Iterator[None]:
    """Memory that one step frees stays with the process for the next, until the outermost ends.

    glibc gives large blocks back to the system at once, and every page of a new one is cleared
    when it is first touched: a sixth of a training step of `fast` (benchmarks/log/speed.md).
    Elsewhere than on Linux with glibc, and for devices with a memory of their own, nothing changes.
    """
    global _keeping
    libc = ctypes.CDLL(None) if keeps_memory() else None
    with _lock:
        _keeping += 1
        if libc and _keeping == 1:
            libc.mallopt(_MAPS, 0)
            libc.mallopt(_TRIM, 2**31 - 1)
    try:
        yield
    finally:
        with _lock:
            _keeping -= 1
            if libc and not _keeping:  # as high as glibc itself raises both, and no higher
                libc.mallopt(_MAPS, 2**16)
                libc.mallopt(_MAP_FROM, 32 * _MIB)
                libc.mallopt(_TRIM, 64 * _MIB)
                libc.malloc_trim(0)
