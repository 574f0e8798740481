"""Convolutions whose gradients a processor computes fast.

Depthwise: with bf16 tensors the gradient takes 4 to 40 times as long as with fp32 ones, where it is
also more exact: it made up two thirds of a step of fine-tuning EfficientNet-Lite0. So the forward
pass keeps its precision and the backward pass is done in fp32.

Narrow: processors with AMX multiply rows of 32 pixels. For the gradient of the weights a row of a
map of 7 pixels fills a fifth of that, one of 3 a tenth. So maps are laid side by side, with zeros
between them, which changes no sum and saves a third to nine tenths of the time (benchmarks/LOG.md).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful import devices

_ROW = 32  # bf16 numbers that AMX multiplies at once
_FEWEST = 3  # maps side by side: with two, laying them out costs more than it saves


def use_fast_backward(network: nn.Module) -> None:
    """Give every depthwise and every 3x3 convolution in `network` the faster gradient, in place.

    Values, parameters and their names stay as they are.
    """
    for module in network.modules():
        swapped = _DEPTHWISE.get(type(module).__name__)
        if swapped is not None and isinstance(module, nn.Conv2d) and _depthwise(module):
            module.__class__ = swapped
        elif type(module) is nn.Conv2d and _plain_3x3(module) and devices.amx():
            module.__class__ = NarrowConv2d


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
    """`nn.Conv2d` of 3x3 pixels that keeps the size, (N, C, H, W) -> (N, D, H, W)."""

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[3] > _ROW // _FEWEST - 1 or not _in_bf16(images):
            return super().forward(images)
        return _Narrow.apply(images, self.weight, self.bias)


def _in_bf16(images: Tensor) -> bool:
    return _kind(images) == torch.bfloat16


def _kind(images: Tensor) -> torch.dtype:
    """The type that a convolution of these images is made in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else images.dtype


class _Narrow(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        kind = _kind(images)  # as autocast would, but kept for the way back
        seen, applied = images.to(kind), weight.to(kind)
        ctx.save_for_backward(seen, applied)
        ctx.kinds = images.dtype, weight.dtype, None if bias is None else bias.dtype
        return F.conv2d(seen, applied, None if bias is None else bias.to(kind), padding=1)

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
    """(N, C, H, W) -> (N / k, C, H, k (W + 1)): k maps in a row, a column of zeros behind each.

    As many as 32 pixels hold; zeros fill up the last row.
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
    """`nn.Conv2d` with as many groups as channels, (N, C, H, W) -> (N, C, H', W')."""

    def forward(self, images: Tensor) -> Tensor:
        return _Depthwise.apply(
            images, self.weight, self.bias, self.stride, self.padding, self.dilation
        )


class DepthwiseConv2dSame(DepthwiseConv2d):
    """timm's `Conv2dSame`: zeros around the images as TensorFlow puts them."""

    def forward(self, images: Tensor) -> Tensor:
        from timm.layers.padding import pad_same

        return super().forward(
            pad_same(images, list(self.kernel_size), list(self.stride), list(self.dilation))
        )


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
