"""Batch norm over a batch of which each process has a part.

`torch.nn.SyncBatchNorm` runs on GPUs only, and replaces layers that are derived from batch norm by
layers that are not. Here the layers stay: within `SharedNorm` the function that they call computes
the statistics of the whole batch.

Letters in shapes: N images of a process, C channels, P processes.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode


class SharedNorm(TorchFunctionMode):
    """A context in which batch norm in training has the statistics of all processes' parts.

    All processes of torch's default group enter it for the same forward pass, with parts of equal
    size. Gradients are right where the processes' losses are added up, as DDP does.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = batch_norm if func is F.batch_norm else func
        return known(*args, **(kwargs or {}))


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm` over the (N, C, ...) of all processes."""
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    result: Tensor
    result, mean, variance = _Shared.apply(x, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        count = dist.get_world_size() * x.numel() // x.shape[1]
        running_mean.lerp_(mean.to(running_mean), momentum)
        running_var.lerp_(variance.to(running_var) * (count / (count - 1)), momentum)
    return result


class _Shared(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        own = torch.stack(torch.var_mean(wide, _all_but_channels(x), correction=0))  # (2, C)
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own)
        variances, means = torch.stack(parts, dim=1)  # (P, C) each
        mean = means.mean(dim=0)
        variance = variances.mean(dim=0) + means.var(dim=0, correction=0)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance = ctx.saved_tensors
        scale = torch.ones_like(mean) if weight is None else weight
        # As if the statistics were constants; `sums` are those of the gradient times the
        # normalised x, and of the gradient.
        to_x, *sums = torch.ops.aten.native_batch_norm_backward(
            gradient, x, scale, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        shared = torch.stack(sums)  # (2, C)
        dist.all_reduce(shared)
        along_x, along_one = shared / (dist.get_world_size() * x.numel() // x.shape[1])
        inverse = (variance + ctx.eps).rsqrt()
        shape = [1, -1, *[1] * (x.ndim - 2)]
        slope = (scale * inverse.square() * along_x).view(shape)
        offset = (scale * inverse * along_one).view(shape)
        through_statistics = (x - mean.view(shape)).mul_(slope).add_(offset)
        to_weight, to_bias = sums if weight is not None else (None, None)
        return (to_x - through_statistics).to(x.dtype), to_weight, to_bias, None


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]
