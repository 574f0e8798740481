"""EfficientNet-Lite without a head.

It is written out here, since timm, which has it too, takes as long to import as torch.

Letters in shapes: N images, H and W pixels, D features.
"""

import math
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from handful.models.blocks import Conv2dSame

# Of each stage: blocks, side of the kernel, stride, expansion, channels (B0 of the paper, table 1).
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_LAST = 5  # number of the stage that reduces maps for the last time
MOST_STAGES = 3  # from it on: those that `of_maps` gives the means of
_SCALES = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2))  # of channels and of blocks: numbers 0 to 2
_STEM, WIDTH = 32, 1280  # channels of the first and of the last layer, the same at all scales
_EPSILON = 1e-3  # of BatchNorm


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite 0, 1 or 2: (N, 3, H, W) -> the means over pixels after each stage.

    These are a list of (N, D_i): seven stages of blocks, then the last layer, of 1,280 channels.
    Initial weights are normal (fan out by group), as in the authors' code.

    Source: Tan and Le 2019, arXiv:1905.11946; the Lite variants drop squeeze-and-excitation, swap
    swish for ReLU6, and leave stem, last layer and the depth of the first and last stage unscaled.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        wider, deeper = _SCALES[number]
        self.conv_stem = Conv2dSame(3, _STEM, 3, stride=2, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM, eps=_EPSILON)
        stages: list[nn.Module] = []
        inputs = _STEM
        for at, (blocks, kernel, stride, expansion, channels) in enumerate(_STAGES):
            if 0 < at < len(_STAGES) - 1:
                blocks = math.ceil(blocks * deeper)
            outputs, stage = _multiple_of_8(channels * wider), []
            for block in range(blocks):
                stage.append(_Block(inputs, outputs, kernel, 1 if block else stride, expansion))
                inputs = outputs
            stages.append(nn.Sequential(*stage))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = nn.Conv2d(inputs, WIDTH, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(WIDTH, eps=_EPSILON)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.weight[0, 0].numel() * module.out_channels // module.groups
                nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))

    def forward(self, images: Tensor) -> list[Tensor]:
        maps, means = self._first_layers(images)
        return [*means, *self.of_maps(maps)]

    def maps(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, C, H / 32, W / 32): the output of the first block of that size."""
        return self._first_layers(images)[0]

    def of_maps(self, maps: Tensor) -> list[Tensor]:
        """The last three of the means (N, D_i) that the network gives, from `maps`."""
        last = self._last_stage[1:](maps)
        wide = self.blocks[-1](last)
        end = F.relu6(self.bn2(self.conv_head(wide)), inplace=True)
        return [_mean(last), _mean(wide), _mean(end)]

    def _first_layers(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The result of `maps`, and the means (N, D_i) of the stages before it."""
        x, means = F.relu6(self.bn1(self.conv_stem(images)), inplace=True), []
        for stage in self.blocks[:_LAST]:
            x = stage(x)
            means.append(_mean(x))
        return self._last_stage[0](x), means

    @property
    def after_maps(self) -> list[nn.Module]:
        """The layers of `of_maps`."""
        return [*self._last_stage[1:], self.blocks[-1], self.conv_head, self.bn2]

    @property
    def _last_stage(self) -> nn.Sequential:
        """The stage that reduces maps for the last time, by its first block."""
        return cast(nn.Sequential, self.blocks[_LAST])


class _Block(nn.Module):
    """Inverted residual: 1x1 convolution to more channels, depthwise, 1x1 to `outputs` channels.

    Without an expansion the first of these is left out. Names of layers are timm's.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.adds = stride == 1 and inputs == outputs
        self.expands = expansion > 1
        inner = inputs * expansion
        # TensorFlow pads a stride of 1 evenly.
        kind: Any = Conv2dSame if stride > 1 else nn.Conv2d
        how = {"stride": stride, "groups": inner, "bias": False}
        depthwise = kind(inner, inner, kernel, padding=0 if stride > 1 else kernel // 2, **how)
        if self.expands:
            self.conv_pw = nn.Conv2d(inputs, inner, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(inner, eps=_EPSILON)
            self.conv_dw = depthwise
            self.bn2 = nn.BatchNorm2d(inner, eps=_EPSILON)
            self.conv_pwl = nn.Conv2d(inner, outputs, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(outputs, eps=_EPSILON)
        else:
            self.conv_dw = depthwise
            self.bn1 = nn.BatchNorm2d(inner, eps=_EPSILON)
            self.conv_pw = nn.Conv2d(inner, outputs, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs, eps=_EPSILON)

    @property
    def layers(self) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """Convolutions and their normalisations; all but the last pair end with ReLU6."""
        if self.expands:
            pairs = (self.conv_pw, self.bn1), (self.conv_dw, self.bn2), (self.conv_pwl, self.bn3)
            return list(pairs)
        return [(self.conv_dw, self.bn1), (self.conv_pw, self.bn2)]

    def forward(self, x: Tensor) -> Tensor:
        before, pairs = x, self.layers
        for convolution, norm in pairs[:-1]:
            x = F.relu6(norm(convolution(x)), inplace=True)
        convolution, norm = pairs[-1]
        x = norm(convolution(x))
        return before + x if self.adds else x


def _mean(maps: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(maps, 1).flatten(1)


def _multiple_of_8(channels: float) -> int:
    """The nearest multiple of 8, and the next one where that is less than nine tenths."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
