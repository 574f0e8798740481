"""The one place that knows devices and number formats."""

from contextlib import AbstractContextManager, nullcontext

import torch


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
