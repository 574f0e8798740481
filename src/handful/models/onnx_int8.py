"""A graph of EfficientNet-Lite that computes in int8, about twice as fast as in 32 bits.

Weights are of 8 bits with a scale for each channel, the values between two layers uint8 with one
scale. The ranges of these values come from the network itself: batch normalisation gives each
channel a mean and a standard deviation, and the range reaches a few deviations from the mean. So no
images are needed, and the same network has the same graph for any images. Sums of integers are
exact: the features have the same bits in any batch, with any number of threads.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
arXiv:1906.04721, section 4.2.1, for the ranges; here without equalisation and bias correction. The
nodes are QuantizeLinear and DequantizeLinear around layers in 32 bits, which ONNX Runtime joins to
layers in int8.

Letters in shapes: C channels.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from handful.errors import HandfulError
from handful.models.onnx_layers import Nodes, folded

_DEVIATIONS = 4.0  # standard deviations of a channel within the range of its values
_TOP = 127  # of a weight, without its sign
_MIDDLE = 128  # of uint8
_STEPS = 255  # between the smallest and the largest value of uint8
_SMALLEST = 1e-12  # scale of values that are all 0
_LARGEST = 1e12  # of weights and biases that a network can have learned
_LARGEST_BIAS = 2.0**30  # in whole numbers


class Quantized(NamedTuple):
    """Values in uint8: each stands for (value - zero) * scale."""

    name: str
    scale: float
    scale_name: str
    zero_name: str
    mean: np.ndarray  # (C,) expected mean and variance of what the values stand for
    variance: np.ndarray


class Int8Builder(Nodes):
    """Layers in int8; what they pass on is `Quantized`.

    Args:
        signed: weights are int8, else uint8 with a zero of 128, which is the same number. With int8
            processors that have VNNI are much faster. On others sums overflow in ONNX Runtime.
    """

    def __init__(self, prefix: str = "", signed: bool = False) -> None:
        super().__init__(prefix)
        self._signed = signed

    def pixels(self, images: str, mean: Tensor, std: Tensor) -> Quantized:
        """The pixels themselves are the values, where one zero and one scale hold for all colours.

        So it is with the constants of EfficientNet-Lite, 127 and 128. Others are normalised in 32
        bits and quantised.
        """
        from onnx import TensorProto

        shift, factor = (255 * constants.double().cpu().numpy() for constants in (mean, std))
        if not np.isfinite([*shift, *factor]).all() or factor.min() <= 0:
            raise HandfulError("the constants of the normalisation are no mean and deviation")
        nothing = np.zeros(1)
        zero, scale = round(float(shift[0])), 1 / float(factor[0])
        if np.abs(shift - zero).max() < 1e-3 and np.ptp(factor) < 1e-3 and 0 <= zero <= _STEPS:
            return self._named(images, scale, zero, nothing, nothing)
        x = self.add("Cast", [images], to=TensorProto.FLOAT)
        x = self.add("Sub", [x, self.constant(shift.reshape(1, -1, 1, 1))])
        x = self.add("Div", [x, self.constant(factor.reshape(1, -1, 1, 1))])
        black, white = float((-shift / factor).min()), float(((_STEPS - shift) / factor).max())
        return self._quantized(x, black, white, nothing, nothing)

    def convolution(
        self, x: Quantized, convolution: nn.Conv2d, norm: nn.BatchNorm2d, relu6: bool
    ) -> Quantized:
        weight, bias = folded(convolution, norm)  # (C, C_in, k, k) and (C,)
        if not max(np.abs(weight).max(), np.abs(bias).max()) < _LARGEST:
            raise HandfulError("the weights are too large for int8, or no numbers; fit again")
        largest = np.abs(weight).reshape(len(weight), -1).max(1)
        # A bias far above the weights must fit into int32, and leave room for the sum.
        scales = np.maximum(largest / _TOP, np.abs(bias) / (_LARGEST_BIAS * x.scale))
        scales = np.maximum(scales, _SMALLEST)
        whole = np.rint(weight / scales.reshape(-1, 1, 1, 1))
        of_bias = x.scale * scales
        whole_bias = np.rint(bias / of_bias)
        name = self.convolved(
            self._float(x),
            self._weights(whole, scales),
            self._constant(whole_bias, np.int32, of_bias),
            convolution,
        )
        mean = norm.bias.detach().double().cpu().numpy()
        variance = norm.weight.detach().double().cpu().numpy() ** 2
        low, high = _range(mean, variance)
        if relu6:  # values outside of the range are cut off, which is ReLU6 itself
            low, high = 0.0, min(6.0, high)
        return self._quantized(name, low, high, mean, variance)

    def sum(self, x: Quantized, y: Quantized) -> Quantized:
        mean, variance = x.mean + y.mean, x.variance + y.variance
        name = self.add("Add", [self._float(x), self._float(y)])
        return self._quantized(name, *_range(mean, variance), mean, variance)

    def means(self, x: Quantized, name: str) -> None:
        self.pooled(self._float(x), name)

    def _quantized(
        self, name: str, low: float, high: float, mean: np.ndarray, variance: np.ndarray
    ) -> Quantized:
        """Float values as uint8; the range is widened to hold 0, which then is exact."""
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max((high - low) / _STEPS, _SMALLEST)
        found = self._named("", scale, round(-low / scale), mean, variance)
        whole = self.add("QuantizeLinear", [name, found.scale_name, found.zero_name])
        return found._replace(name=whole)

    def _named(
        self, name: str, scale: float, zero: int, mean: np.ndarray, variance: np.ndarray
    ) -> Quantized:
        names = self.constant(scale), self.constant(zero, np.uint8)
        return Quantized(name, scale, *names, mean, variance)

    def _float(self, x: Quantized) -> str:
        return self.add("DequantizeLinear", [x.name, x.scale_name, x.zero_name])

    def _weights(self, whole: np.ndarray, scales: np.ndarray) -> str:
        if self._signed:
            return self._constant(whole, np.int8, scales)
        return self._constant(whole + _MIDDLE, np.uint8, scales, _MIDDLE)

    def _constant(self, whole: np.ndarray, kind: type, scales: np.ndarray, zero: int = 0) -> str:
        """Integers (C, ...) with a scale for each channel, as float values."""
        zeros = self.constant(np.full(len(scales), zero), kind)
        inputs = [self.constant(whole, kind), self.constant(scales), zeros]
        return self.add("DequantizeLinear", inputs, axis=0)


def _range(mean: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """Of all channels, _DEVIATIONS standard deviations around their means."""
    reach = _DEVIATIONS * np.sqrt(variance)
    return float((mean - reach).min()), float((mean + reach).max())
