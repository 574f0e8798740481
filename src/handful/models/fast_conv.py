"""Convolutions with faster backward passes on processors.

Depthwise: with bf16 tensors the backward pass takes 4 to 40 times as long as with fp32 tensors, and
is less exact. It was two thirds of a step of fine-tuning EfficientNet-Lite0. `DepthwiseConv2d`
therefore computes the backward pass in fp32; the forward pass keeps its precision.

Narrow: processors with AMX multiply rows of 32 numbers. For the gradient of the weights, a row of a
map of 7 pixels fills a fifth of them, and one of 3 pixels a tenth. `NarrowConv2d` therefore puts
maps side by side, separated by zeros, which changes no sum and saves a third to nine tenths of the
time (benchmarks/log/speed.md).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful import devices
from handful.models.blocks import Conv2dSame, padded_same

_ROW = 32  # bf16 numbers that AMX multiplies at once
_FEWEST = 3  # smallest number of maps side by side; with two, the copy costs more than it saves


def use_fast_backward(network: nn.Module) -> None:
    """Use the faster backward pass in all depthwise and 3x3 convolutions of `network`, in place.

    Outputs, parameters and their names do not change.
    """
    for module in network.modules():
        faster = _DEPTHWISE.get(type(module).__name__)
        if faster is not None and isinstance(module, nn.Conv2d) and _depthwise(module):
            module.__class__ = faster
        elif type(module) is nn.Conv2d and _plain_3x3(module) and devices.amx():
            module.__class__ = NarrowConv2d


def use_plain_backward(network: nn.Module) -> None:
    """Undo `use_fast_backward` in place, so that other programs know all layers of `network`."""
    for module in network.modules():
        if type(module) in (NarrowConv2d, DepthwiseConv2d):
            module.__class__ = nn.Conv2d
        elif type(module) is DepthwiseConv2dSame:
            # timm's is the same.
            module.__class__ = Conv2dSame  # type: ignore[assignment]


def _depthwise(module: nn.Conv2d) -> bool:
    return (
        1 < module.groups == module.in_channels == module.out_channels
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _plain_3x3(module: nn.Conv2d) -> bool:
    shape = (module.kernel_size, module.stride, module.dilation, module.groups)
    padded = module.padding in ((1, 1), "same") and module.padding_mode == "zeros"
    return shape == ((3, 3), (1, 1), (1, 1), 1) and padded


class NarrowConv2d(nn.Conv2d):
    """`nn.Conv2d` with 3x3 kernels and padding 1: (N, C, H, W) -> (N, D, H, W)."""

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[3] > _ROW // _FEWEST - 1 or not computes_in_bf16(images):
            return super().forward(images)
        return _Narrow.apply(images, self.weight, self.bias)


def computes_in_bf16(images: Tensor) -> bool:
    return _kind(images) == torch.bfloat16


def _kind(images: Tensor) -> torch.dtype:
    """The type that a convolution of these images computes in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else images.dtype


class _Narrow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        kind = _kind(images)  # as autocast would, and saved for the backward pass
        cast_images, cast_weight = images.to(kind), weight.to(kind)
        ctx.save_for_backward(cast_images, cast_weight)
        ctx.kinds = images.dtype, weight.dtype, None if bias is None else bias.dtype
        cast_bias = None if bias is None else bias.to(kind)
        return F.conv2d(cast_images, cast_weight, cast_bias, padding=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        wanted, kinds = ctx.needs_input_grad, ctx.kinds
        to_images = to_weight = to_bias = None
        if wanted[0]:
            to_images = _backward(gradient, images, weight, [True, False, False])[0].to(kinds[0])
        if wanted[1]:
            wide = side_by_side(gradient), side_by_side(images)
            to_weight = _backward(*wide, weight, [False, True, False])[1].to(kinds[1])
        if wanted[2]:
            wide_type = torch.promote_types(gradient.dtype, torch.float32)
            to_bias = gradient.sum(dim=(0, 2, 3), dtype=wide_type).to(kinds[2])
        return to_images, to_weight, to_bias


def _backward(gradient: Tensor, images: Tensor, weight: Tensor, wanted: list[bool]) -> Any:
    one, none = [1, 1], [0, 0]
    return torch.ops.aten.convolution_backward(
        gradient, images, weight, None, one, one, one, False, none, 1, wanted
    )


def side_by_side(maps: Tensor) -> Tensor:
    """(N, C, H, W) -> (N / k, C, H, k (W + 1)): k maps side by side, a column of zeros after each.

    k is the number of maps that 32 pixels hold; zeros fill the last row.
    """
    n, channels, height, width = maps.shape
    k = _ROW // (width + 1)
    whole, rest = divmod(n, k)
    rows = maps.new_zeros(whole + (rest > 0), height, k, width + 1, channels)
    last = maps.permute(0, 2, 3, 1)  # (N, H, W, C)
    shape = (whole, k, height, width, channels)
    rows[:whole, :, :, :width] = last[: whole * k].reshape(shape).transpose(1, 2)
    if rest:
        rows[whole, :, :rest, :width] = last[whole * k :].transpose(0, 1)
    return rows.view(len(rows), height, k * (width + 1), channels).permute(0, 3, 1, 2)


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with one group per channel: (N, C, H, W) -> (N, C, H', W')."""

    def forward(self, images: Tensor) -> Tensor:
        return _Depthwise.apply(
            images, self.weight, self.bias, self.stride, self.padding, self.dilation
        )


class DepthwiseConv2dSame(DepthwiseConv2d):
    """`Conv2dSame`, ours or timm's: with the padding of TensorFlow."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(padded_same(images, self.kernel_size[0], self.stride[0]))


_DEPTHWISE: dict[str, type[DepthwiseConv2d]] = {
    "Conv2d": DepthwiseConv2d,
    "Conv2dSame": DepthwiseConv2dSame,
}


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.bias = None if bias is None else list(bias.shape)
        ctx.geometry = [list(stride), list(padding), list(dilation)]
        return F.conv2d(images, weight, bias, stride, padding, dilation, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        wide = torch.promote_types(gradient.dtype, torch.float32)
        found = torch.ops.aten.convolution_backward(
            gradient.to(wide),
            images.to(wide),
            weight.to(wide),
            ctx.bias,
            *ctx.geometry,
            False,
            [0, 0],
            len(weight),
            list(ctx.needs_input_grad[:3]),
        )
        to_images, to_weight, to_bias = found
        return (
            None if to_images is None else to_images.to(images.dtype),
            None if to_weight is None else to_weight.to(weight.dtype),
            to_bias,
            None,
            None,
            None,
        )
