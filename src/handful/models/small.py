"""A small network, designed for accuracy per minute on a processor with two cores.

It takes images of any size from 8x8 on. Channel counts are multiples of 32, which suits bf16
kernels and the channels-last layout; 3x3 convolutions do almost all of the work.
"""

from functools import partial

from torch import Tensor, nn

from handful.errors import HandfulError
from handful.models.blocks import conv_norm_relu

_WORKING_SIZE = 32  # the first convolution reduces larger images to about this size
_SMALLEST_MAP = 4  # smallest side in pixels of a pooled map


class Small(nn.Module):
    """(N, C, size, size) -> (N, 4 base): three pairs of 3x3 convolutions and a mean over pixels.

    The pairs have base, 2 base and 4 base channels, with pooling between them. Initial weights are
    Kaiming normal (fan out, arXiv:1502.01852).

    Args:
        base: channels of the first pair.
    """

    def __init__(self, channels: int, size: int, *, base: int = 32) -> None:
        super().__init__()
        if base < 1:
            raise HandfulError(f"base must be 1 channel or more, got {base}")
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
