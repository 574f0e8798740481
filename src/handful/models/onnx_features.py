"""Features of EfficientNet-Lite by ONNX Runtime, 2 to 7 times as fast as torch in 32 bits.

The graph is written layer by layer, which takes a tenth of a second; an export by torch takes
several. Its images may have any size. It computes in 32 bits, or in int8 (see `onnx_int8`).

Letters in shapes: N images, C channels, S the side in pixels, D features.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from handful import devices
from handful.models.efficientnet_lite import EfficientNetLite
from handful.models.onnx_int8 import Int8Builder
from handful.models.onnx_layers import Nodes, folded
from handful.onnx_runtime import IMAGES, session_of

_OPSET, _IR = 17, 8  # versions that every ONNX Runtime from 1.13 on reads


def runner(
    network: EfficientNetLite, mean: Tensor, std: Tensor, last: int, int8: bool = False
) -> Callable[[Tensor], list[Tensor]]:
    """Return a function: (N, C, S, S) uint8 → the means of the `last` stages, (N, D_i) float32.

    Grey images, of one channel, are repeated to three. It computes in the thread that calls it, and
    several threads may call it at a time.

    Args:
        mean, std: (3,) or (1,), of pixels in [0, 1].
        int8: compute in int8.
    """
    content = graph(network, mean, std, last, int8)
    session = session_of(content, threads=1)

    def run(images: Tensor) -> list[Tensor]:
        shape = (len(images), 3, *images.shape[2:])
        colour = np.ascontiguousarray(np.broadcast_to(images.numpy(), shape))
        return [torch.from_numpy(found) for found in session.run(None, {IMAGES: colour})]

    return run


def graph(
    network: EfficientNetLite, mean: Tensor, std: Tensor, last: int, int8: bool = False
) -> bytes:
    """The ONNX model of `network` in evaluation mode, pixels normalised inside; see `runner`."""
    from onnx import TensorProto, helper

    names = [f"mean{at}" for at in range(last)]
    builder = Int8Builder(signed=devices.has_fast_int8()) if int8 else FloatBuilder()
    made = layers(network, mean, std, names, builder)
    outputs = [helper.make_tensor_value_info(one, TensorProto.FLOAT, ["N", None]) for one in names]
    shape: Sequence[str | int | None] = ["N", 3, "S", "S"]
    images = helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, shape)
    whole = helper.make_graph(made.nodes, "features", [images], outputs, made.constants)
    versions = {"opset_imports": [helper.make_opsetid("", _OPSET)], "ir_version": _IR}
    return helper.make_model(whole, **versions).SerializeToString()


def layers(
    network: EfficientNetLite,
    mean: Tensor,
    std: Tensor,
    names: Sequence[str],
    builder: "FloatBuilder | Int8Builder",
    images: str = IMAGES,
) -> Nodes:
    """The nodes and constants of `graph`, appended to those of the builder, which is returned.

    Args:
        names: of the outputs: the means over pixels of the last stages.
        images: name of the (N, 3, S, S) uint8 input.
    """
    made: Any = builder
    x = made.pixels(images, mean, std)
    x = made.convolution(x, network.conv_stem, network.bn1, True)
    stages = []
    blocks: Any = network.blocks
    for stage in blocks:
        for block in stage:
            before, (*inner, last) = x, block.layers
            for pair in inner:
                x = made.convolution(x, *pair, True)
            x = made.convolution(x, *last, False)
            if block.adds:
                x = made.sum(before, x)
        stages.append(x)
    stages.append(made.convolution(x, network.conv_head, network.bn2, True))
    for name, x in zip(names, stages[-len(names) :], strict=True):
        made.means(x, name)
    return builder


class FloatBuilder(Nodes):
    """Layers in 32 bits; what they pass on is a name."""

    def pixels(self, images: str, mean: Tensor, std: Tensor) -> str:
        from onnx import TensorProto

        x = self.add("Cast", [images], to=TensorProto.FLOAT)
        x = self.add("Sub", [x, self.constant((255 * mean).cpu().view(1, -1, 1, 1).numpy())])
        return self.add("Div", [x, self.constant((255 * std).cpu().view(1, -1, 1, 1).numpy())])

    def convolution(self, x: str, convolution: nn.Conv2d, norm: nn.BatchNorm2d, relu6: bool) -> str:
        weight, bias = (self.constant(values) for values in folded(convolution, norm))
        x = self.convolved(x, weight, bias, convolution)
        return self.add("Clip", [x, self.constant(0.0), self.constant(6.0)]) if relu6 else x

    def sum(self, x: str, y: str) -> str:
        return self.add("Add", [x, y])

    def means(self, x: str, name: str) -> None:
        self.pooled(x, name)
