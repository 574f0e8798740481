"""A fast small network: accuracy per minute on a processor with two cores.

Images of any size from 8x8 up. Channel counts are multiples of 32, which suits bf16 kernels
and the channels-last layout; almost all the work is in 3x3 convolutions.
"""

from functools import partial

from torch import Tensor, nn

from handful.errors import HandfulError
from handful.models.blocks import conv_norm_relu

_WORKING_SIZE = 32  # larger images are reduced to about this size by the first convolution
_SMALLEST_MAP = 4  # a map is pooled only while at least this many pixels a side are left


class Small(nn.Module):
    """Three pairs of 3x3 convolutions (width, 2 width, 4 width), pooled between; mean over pixels.

    (N, C, size, size) -> (N, 4 width). Convolutions start Kaiming normal (fan out,
    arXiv:1502.01852), BatchNorms as the identity.

    Args:
        base: channels of the first pair.
    """

    def __init__(self, channels: int, size: int, *, base: int = 32) -> None:
        super().__init__()
        if base < 1:
            raise HandfulError(f"base is the channels of the first layers, 1 or more, got {base}")
        block = partial(conv_norm_relu, bias=False)
        stride = max(1, size // _WORKING_SIZE)
        side = -(-size // stride)
        layers = block(channels, base, 3 if stride == 1 else stride + 3, stride=stride)
        layers += block(base, base)
        for inputs, outputs in ((base, 2 * base), (2 * base, 4 * base)):
            if side // 2 >= _SMALLEST_MAP:
                layers.append(nn.MaxPool2d(2))
                side //= 2
            layers += block(inputs, outputs) + block(outputs, outputs)
        self.layers = nn.Sequential(*layers)
        self.width = 4 * base
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).mean(dim=(2, 3))  # (N, D, H, W) -> (N, D)
