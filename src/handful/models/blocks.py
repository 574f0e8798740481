"""Building blocks of the networks.

Letters in shapes: N images, C channels, H and W pixels, D features.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.errors import HandfulError

_LARGEST_MINIMUM = 256  # largest size of the search for a network's smallest image


def conv_norm_relu(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    padding: int | None = None,
    bias: bool = True,
) -> list[nn.Module]:
    """Convolution, BatchNorm and ReLU; the size stays unless `padding` or `stride` changes it.

    The default has a bias, as in the reports' networks, although BatchNorm cancels it.
    """
    padding = kernel // 2 if padding is None else padding
    return [
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=padding, bias=bias),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


class Conv2dSame(nn.Conv2d):
    """`nn.Conv2d` with the padding of TensorFlow: (N, C, H, W) -> (N, D, H / stride, W / stride).

    Where the padding is odd, the lower and the right side get the larger part.
    """

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(padded_same(images, self.kernel_size[0], self.stride[0]))


class Residual(nn.Module):
    """ResNet basic block: two 3x3 convolutions with BatchNorm, added to their input.

    The shortcut is a 1x1 convolution with BatchNorm where the shape changes.

    Source: He et al. 2015, arXiv:1512.03385, figure 2 and option B.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def padded_same(images: Tensor, kernel: int, stride: int) -> Tensor:
    """(N, C, H, W) -> images with the zeros around them that TensorFlow's "SAME" adds."""
    sides = []
    for side in (images.shape[-1], images.shape[-2]):
        missing = max((math.ceil(side / stride) - 1) * stride + kernel - side, 0)
        sides += [missing // 2, missing - missing // 2]
    return F.pad(images, sides)


def flat_width(name: str, layers: Callable[[], nn.Module], channels: int, size: int) -> int:
    """The number of features of `layers()` for one image, flattened.

    Args:
        name: of the network, for the message.

    Raises:
        HandfulError: the image is too small for the poolings; the message names the smallest size.
    """
    width = _flat_width(layers, channels, size)
    if width is None:
        smallest = next(
            (s for s in range(size, _LARGEST_MINIMUM) if _flat_width(layers, channels, s)), None
        )
        raise HandfulError(
            f"size={size} is too small for {name}: its poolings leave no pixels; the smallest is "
            f"size={smallest}, and 'small' takes any size"
        )
    return width


def _flat_width(layers: Callable[[], nn.Module], channels: int, size: int) -> int | None:
    """The width, computed on the meta device without weights; None if the image is too small."""
    with torch.device("meta"):
        try:
            return layers().eval()(torch.empty(1, channels, size, size)).numel() or None
        except RuntimeError:
            return None
