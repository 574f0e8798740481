"""A network for short trainings on many labelled small photographs.

Letters in shapes: N images, C channels, H and W pixels, D features, P numbers in a patch.

Source: Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv:2404.00498
(airbench94): the whitening layer, the widths, convolutions that start as the identity, BatchNorm
without scale whose shift has 64 times the learning rate, and the factor on the output. Where we
differ: the training (Nesterov SGD and weight average of our loop, random crop and flip, cut-out),
and evaluation on shifted copies is off by default.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.errors import HandfulError

_PATCH = 2  # side in pixels of the patches that the first layer whitens
_EVEN = 5e-4  # added to the variance of each direction, so that noise is not amplified
_SHIFT = 8.0  # a factor of 8 on the parameter makes it 64 times as fast under SGD
_OUTPUT = 1 / 9  # keeps the initial logits small


class Fast(nn.Module):
    """(N, C, size, size) -> (N, width): whitened patches, then three pairs of 3x3 convolutions.

    `init_from_data` sets the first layer from images of the task; it is never trained.

    Args:
        base: channels of the first pair.
        width: channels of the other two.
        mirrored: in evaluation, features are the mean over an image and its mirror image.
        shifted: in evaluation, half of the features come from copies shifted by a pixel, up and
            left, down and right.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        base: int = 64,
        width: int = 256,
        mirrored: bool = True,
        shifted: bool = False,
    ) -> None:
        super().__init__()
        if size < 25:
            raise HandfulError(
                f"size={size} is too small for fast: its poolings leave no pixels; the smallest is "
                f"size=25, and 'small' takes any size"
            )
        if min(base, width) < 1:
            raise HandfulError(f"base and width must be 1 channel or more, got {base} and {width}")
        self.mirrored, self.shifted, self.width = mirrored, shifted, width
        patch = channels * _PATCH**2
        self.whiten = nn.Conv2d(channels, 2 * patch, _PATCH, padding=0, bias=True)
        self.whiten.requires_grad_(False)
        self.layers = nn.Sequential(
            nn.GELU(),
            *_pair(2 * patch, base),
            *_pair(base, width),
            *_pair(width, width),
        )

    def extra_repr(self) -> str:
        return f"mirrored={self.mirrored}, shifted={self.shifted}"

    @torch.no_grad()
    def init_from_data(self, images: Tensor) -> None:
        """Set the first layer: principal directions of patches, scaled to variance 1, both signs.

        Args:
            images: (N, C, H, W), normalised.
        """
        patches = F.unfold(images[::2], _PATCH, stride=_PATCH)  # (N / 2, P, patches)
        patches = patches.transpose(1, 2).flatten(0, 1)  # (all patches, P)
        mean = patches.mean(dim=0)
        centred = (patches - mean).double()
        variance, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
        rows = (directions / (variance + _EVEN).sqrt()).T.flip(0).float()  # (P, P), largest first
        weight = torch.cat([rows, -rows])
        self.whiten.weight.copy_(weight.view_as(self.whiten.weight))
        assert self.whiten.bias is not None
        self.whiten.bias.copy_(-weight @ mean)

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            return self._features(images)
        features = self._with_mirror_image(images)
        if self.shifted:
            padded = F.pad(images, (1, 1, 1, 1), mode="reflect")
            moved = self._with_mirror_image(padded[..., 2:, 2:]) + self._with_mirror_image(
                padded[..., :-2, :-2]
            )
            features = features / 2 + moved / 4
        return features

    def _with_mirror_image(self, images: Tensor) -> Tensor:
        features = self._features(images)
        return (features + self._features(images.flip(-1))) / 2 if self.mirrored else features

    def _features(self, images: Tensor) -> Tensor:
        maps = self.layers(self.whiten(images))
        return maps.amax(dim=(2, 3)) * _OUTPUT  # (N, D, H, W) -> (N, D)


class _Norm(nn.BatchNorm2d):
    """BatchNorm without scale, whose shift has a higher learning rate than the weights."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, momentum=0.4, affine=False)
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (_SHIFT * self.shift).view(1, -1, 1, 1).to(x.dtype)


def _pair(inputs: int, outputs: int) -> list[nn.Module]:
    """Two convolutions with BatchNorm and GELU; the map is halved after the first."""
    return [
        _convolution(inputs, outputs),
        nn.MaxPool2d(2),
        _Norm(outputs),
        nn.GELU(),
        _convolution(outputs, outputs),
        _Norm(outputs),
        nn.GELU(),
    ]


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """3x3 convolution without bias whose first `inputs` filters start as the identity."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(layer.weight[: min(inputs, outputs)])
    return layer
