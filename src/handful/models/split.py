"""Two networks side by side: one for the lightness of an image, one for its colours."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from handful.data.augmentation.colorspace import rgb_to_lab, rgb_to_ycbcr
from handful.data.splits import evenly_spaced
from handful.errors import HandfulError

SPACES: dict[str, Callable[[Tensor], Tensor]] = {"lab": rgb_to_lab, "ycbcr": rgb_to_ycbcr}


class Split(nn.Module):
    """RGB → L and ab, or Y and CbCr → an encoder for each → concatenated features, (N, 2D).

    The input is RGB in [0, 1], without normalisation. `init_from_data` standardises each channel
    of the colour space to mean 0 and standard deviation 1.

    Args:
        encoder: name of the backbone of both sides, one without learned weights.
        space: "lab" or "ycbcr".
        options: of the encoder.

    Source: Tian et al. 2019, arXiv:1906.05849, section 4.1.
    """

    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)
    center: Tensor  # (1, 3, 1, 1) of the channels of the colour space
    scale: Tensor

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        encoder: str = "small-encoder",
        space: str = "lab",
        options: dict[str, Any] | None = None,
    ) -> None:
        from handful import models

        super().__init__()
        if channels != 3:
            raise HandfulError(
                f"backbone 'split' separates lightness and colour, so it needs colour images, got "
                f"channels={channels}"
            )
        if space not in SPACES:
            raise HandfulError(f"no colour space {space!r}; choose one of {', '.join(SPACES)}")
        if models.pretrained(encoder):
            raise HandfulError(
                f"encoder {encoder!r} was trained on RGB; choose one without learned weights"
            )
        self.space = space
        self.light = models.make(encoder, 1, size, **(options or {}))
        self.color = models.make(encoder, 2, size, **(options or {}))
        self.width = int(self.light.width) + int(self.color.width)  # type: ignore[arg-type]
        self.register_buffer("center", torch.zeros(1, 3, 1, 1))
        self.register_buffer("scale", torch.ones(1, 3, 1, 1))

    @torch.no_grad()
    def init_from_data(self, images: Tensor) -> None:
        """Set the constants of the channels from (N, 3, S, S) images in [0, 1], 1,000 at most."""
        images = evenly_spaced(images, 1_000)
        std, mean = torch.std_mean(SPACES[self.space](images), dim=(0, 2, 3), keepdim=True)
        self.center.copy_(mean)
        self.scale.copy_(std.clamp_min(1e-3))

    def channels(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 1, S, S) lightness and (N, 2, S, S) colour, standardised."""
        rescaled = (SPACES[self.space](images) - self.center) / self.scale
        return rescaled[:, :1], rescaled[:, 1:]

    def extra_repr(self) -> str:
        return f"space={self.space}"

    def forward(self, images: Tensor) -> Tensor:
        light, color = self.channels(images)
        return torch.cat([self.light(light), self.color(color)], dim=1)
