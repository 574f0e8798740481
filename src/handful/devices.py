"""Choose the device, the number format and the allocator's settings; no other module does."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from threading import Lock, local
from typing import Any

import torch
from threadpoolctl import ThreadpoolController

_TRIM, _MAP_FROM, _MAPS = -1, -3, -4  # parameters of glibc's mallopt(3)
_MIB = 2**20
_keeping = 0  # active `memory_kept` blocks
_lock = Lock()


def device() -> torch.device:
    """The first CUDA device if there is one, else the CPU."""
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


def processor() -> str:
    """The model of the device that computes, as its maker names it."""
    if device().type == "cuda":
        return torch.cuda.get_device_name()
    with suppress(OSError):
        cores = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        for line in cores.splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def has_bf16() -> bool:
    """Whether the device supports bf16; only a measurement shows whether it is faster."""
    if device().type == "cuda":
        return torch.cuda.is_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_fast_int8() -> bool:
    """Whether the CPU adds up products of int8 numbers in one instruction (VNNI)."""
    supported = getattr(torch.cpu, "_is_vnni_supported", None)  # for servers, all versions of torch
    of_cpu: Any = getattr(torch.cpu, "get_capabilities", dict)()  # newer ones
    return bool(of_cpu.get("avx_vnni")) or (supported is not None and bool(supported()))


def amx() -> bool:
    """Whether the CPU multiplies bf16 matrices in hardware (Intel AMX)."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return device().type == "cpu" and supported is not None and bool(supported())


def autocast(precision: str) -> AbstractContextManager:
    """A context in which convolutions and matrix products run in bf16, if that is `precision`."""
    if precision != "bf16":
        return nullcontext()
    return torch.autocast(device().type, torch.bfloat16)


def full_precision() -> AbstractContextManager:
    """A context in which operations keep their tensors' precision, even within `autocast`."""
    return torch.autocast(device().type, enabled=False)


def synchronize() -> None:
    """Wait for the device to finish its work, before a clock is read."""
    if device().type == "cuda":
        torch.cuda.synchronize()


def free_memory() -> None:
    """Give the device memory that this process keeps for later to other processes."""
    if device().type == "cuda":
        torch.cuda.empty_cache()


def keeps_memory() -> bool:
    """Whether `memory_kept` has an effect on this system."""
    return device().type == "cpu" and platform.libc_ver()[0] == "glibc"


def use_threads(count: int) -> None:
    """Let torch, BLAS and OpenMP use so many threads from now on."""
    torch.set_num_threads(count)
    ThreadpoolController().limit(limits=count)


class _OneThread:
    """Blocks of `one_thread` in all threads of the process."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.active = 0  # threads inside of a block
        self.usual = 0  # torch's threads outside of all blocks
        self.blas = ThreadpoolController()
        self.limited: AbstractContextManager[Any] = nullcontext()
        self.own = local()  # depth of the blocks of a thread

    def enter(self) -> None:
        self.own.depth = getattr(self.own, "depth", 0) + 1
        if self.own.depth > 1:
            return
        with self.lock:
            if not self.active:
                self.usual = torch.get_num_threads()
                self.limited = self.blas.limit(limits=1, user_api="blas")
                self.limited.__enter__()
            self.active += 1
        torch.set_num_threads(1)

    def leave(self) -> None:
        self.own.depth -= 1
        if self.own.depth:
            return
        with self.lock:
            torch.set_num_threads(self.usual)
            self.active -= 1
            if not self.active:
                self.limited.__exit__(None, None, None)


@cache
def _one_thread() -> _OneThread:
    return _OneThread()


@contextmanager
def one_thread(wanted: bool = True) -> Iterator[None]:
    """Let torch and BLAS use one thread within the block, which is faster on small matrices.

    On a machine with other work several threads wait for each other: five times as long for heads
    on a hundred labels. Blocks may be nested, and overlap in several threads.
    """
    if not wanted:
        yield
        return
    _one_thread().enter()
    try:
        yield
    finally:
        _one_thread().leave()


@contextmanager
def memory_kept() -> Iterator[None]:
    """Keep freed memory in the process within the block, so that the next step reuses it.

    glibc returns large blocks to the system at once, and the system clears every page of a new
    block. That takes a sixth of a training step of `fast` (benchmarks/log/speed.md). Without
    glibc, and for devices with memory of their own, this has no effect. Blocks may be nested.
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
            if libc and not _keeping:  # glibc's own dynamic maxima
                libc.mallopt(_MAPS, 2**16)
                libc.mallopt(_MAP_FROM, 32 * _MIB)
                libc.mallopt(_TRIM, 64 * _MIB)
                libc.malloc_trim(0)
