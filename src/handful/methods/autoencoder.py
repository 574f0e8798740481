"""Autoencoder: learns features from which a decoder reconstructs the image.

Hinton and Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural Networks" (Science
313), in convolutions. The network `small-encoder` has the decoder of the report it comes from; for
other networks the decoder is derived from the number of features.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from handful.methods.base import About, Batch, Step, Task, Views, body
from handful.methods.self_supervised import SelfSupervised, check_positive
from handful.models.classifier import Normalize
from handful.models.published import SmallDecoder, SmallEncoder


@dataclass(frozen=True)
class Autoencoder(SelfSupervised):
    """Mean squared error between an augmented image and its reconstruction."""

    augment: str = "weak"  # a named pipeline; the target is the augmented image
    decoder_width: int = 128  # channels of the first map; halved at each doubling of its side

    name: ClassVar[str] = "autoencoder"
    divisible: ClassVar[bool] = True
    about: ClassVar[About] = About(
        "pre-trains a network without labels to reconstruct its input",
        "Cheap and stable.",
        "The features that reconstruct an image are not those that separate classes.",
        uses_unlabeled=True,
    )

    def __post_init__(self) -> None:
        check_positive(self, "decoder_width")

    def views(self, task: Task) -> Views:
        return Views(None, (self.augment,), unlabeled_ratio=1)

    def build(self, task: Task) -> nn.Module:
        normalize, backbone = body(task)
        if isinstance(backbone, SmallEncoder):
            return EncoderDecoder(normalize, backbone, SmallDecoder(task.channels, task.size))
        width: int = backbone.width  # type: ignore[assignment]
        decoder = Decoder(width, task.channels, task.size, self.decoder_width)
        return EncoderDecoder(normalize, backbone, decoder)

    def loss(self, model: nn.Module, batch: Batch) -> Step:
        (images,) = batch.unlabeled
        loss = F.mse_loss(model(images).float(), images)
        return Step(loss, {"loss": loss})


class EncoderDecoder(nn.Module):
    """Images in [0, 1] → normalised → backbone → decoder → reconstructions in [0, 1]."""

    def __init__(self, normalize: Normalize, backbone: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.normalize = normalize
        self.backbone = backbone
        self.decoder = decoder

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, S, S) → (N, C, S, S)."""
        return self.decoder(self.backbone(self.normalize(images)))


class Decoder(nn.Module):
    """(N, D) → (N, C, S, S): a linear layer, then transposed convolutions that double the side.

    Args:
        inputs: D.
        channels: C.
        size: S, in pixels.
        width: channels of the first map.
    """

    def __init__(self, inputs: int, channels: int, size: int, width: int) -> None:
        super().__init__()
        doublings = 0
        while -(-size >> doublings) > 4:  # the first map has at most 4x4 pixels
            doublings += 1
        self.size, self.side = size, -(-size // 2**doublings)
        widths = [max(16, width >> level) for level in range(doublings + 1)]
        self.width = widths[0]
        self.first = nn.Linear(inputs, self.width * self.side**2)
        layers: list[nn.Module] = [nn.ReLU()]
        for before, after in zip(widths, widths[1:], strict=False):
            layers += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], channels, 3, padding=1))

    def forward(self, features: Tensor) -> Tensor:
        maps = self.first(features).unflatten(1, (self.width, self.side, self.side))
        images = self.layers(maps)[
            :, :, : self.size, : self.size
        ]  # a size that is no multiple was rounded up
        return images.sigmoid()
