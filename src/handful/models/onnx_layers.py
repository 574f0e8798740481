"""Nodes and constants of an ONNX graph, one after the other, and layers that are one there.

Letters in shapes: C channels, D features, N images.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn


def folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias, in 64 bits, of the one convolution that both layers are."""
    mean, variance, bias, scale = (
        values.detach().double().cpu()
        for values in (norm.running_mean, norm.running_var, norm.bias, norm.weight)
        if values is not None
    )
    factor = scale / (variance + norm.eps).sqrt()
    weight = convolution.weight.detach().double().cpu() * factor.view(-1, 1, 1, 1)
    return weight.numpy(), (bias - mean * factor).numpy()


class Nodes:
    """Nodes and constants, one after the other."""

    def __init__(self, prefix: str = "") -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._prefix = prefix

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append a node and return the name of its output."""
        from onnx import helper

        name = f"{self._prefix}x{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, values: Any, kind: Any = np.float32) -> str:
        from onnx import numpy_helper

        name = f"{self._prefix}c{len(self.constants)}"
        # A number stays one: before 1.32 ONNX Runtime refuses a scale of shape (1,) beside `Add`.
        self.constants.append(numpy_helper.from_array(np.array(values, kind, order="C"), name))
        return name

    def convolved(self, x: str, weight: str, bias: str, like: nn.Conv2d) -> str:
        strides = list(like.stride)
        how = {"group": like.groups, "strides": strides, "auto_pad": "SAME_UPPER"}
        return self.add("Conv", [x, weight, bias], **how)

    def pooled(self, x: str, name: str) -> None:
        """Append the output `name`: the means over pixels."""
        from onnx import helper

        means = self.add("GlobalAveragePool", [x])
        self.nodes.append(helper.make_node("Flatten", [means], [name]))
