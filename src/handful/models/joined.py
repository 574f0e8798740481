"""Several pre-trained networks side by side, each with features of length 1."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.errors import HandfulError

SIGN = "+"
_MOST = 8  # networks side by side


class Joined(nn.Module):
    """Pre-trained networks side by side: (N, C, S, S) -> (N, D), D the sum of their widths.

    Every network sees the images normalised as in its own training. Its features are brought to
    length 1, so that each counts the same.

    Args:
        networks: names of backbones with learned weights, at least two, all different.
        stages: of the networks that have this option; see `Lite`.
        pretrained: False for random weights, where others are loaded afterwards.

    Raises:
        HandfulError: a network has no learned weights, or is named twice.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        networks: Sequence[str],
        stages: int = 1,
        pretrained: bool = True,
    ) -> None:
        from handful import models

        super().__init__()
        given = SIGN.join(networks)
        if not 2 <= len(networks) <= _MOST:
            raise HandfulError(f"a backbone has 2 to {_MOST} networks side by side, got {given!r}")
        if len(set(networks)) < len(networks):
            raise HandfulError(f"backbone {given!r} names a network twice; name each once")
        for name in networks:
            models.check_name(name)
            if not models.pretrained(name):
                raise HandfulError(
                    f"backbone {given!r} puts {name!r} beside others, and it has no learned "
                    f"weights; name pre-trained networks only, as in lite0+lite1"
                )
        made: list[Any] = []
        for name in networks:
            options: dict[str, Any] = {"pretrained": pretrained}
            if models.multi_stage(name):
                options["stages"] = stages
            made.append(models.make(name, channels, size, **options))
        self.networks = nn.ModuleList(made)
        self.mean, self.std = made[0].mean, made[0].std
        self.input_size = max(int(network.input_size) for network in made)
        self.width = sum(int(network.width) for network in made)

    def forward(self, images: Tensor) -> Tensor:
        return self.join(
            [network(normalized_for(network, images, self)) for network in self.networks]
        )

    def join(self, rows: Sequence[Tensor]) -> Tensor:
        """(N, D) of the (N, D_i) features of the networks, in their order and number format."""
        joined = torch.cat([F.normalize(found.float(), dim=1) for found in rows], dim=1)
        return joined.to(rows[0].dtype) if rows[0].dtype == torch.float16 else joined


def normalized_for(network: Any, images: Tensor, of: Any) -> Tensor:
    """Images that are normalised by the constants of `of` → normalised by those of `network`."""
    if (network.mean, network.std) == (of.mean, of.std):
        return images
    mean, std, own_mean, own_std = (
        torch.tensor(constants, device=images.device).view(1, -1, 1, 1)
        for constants in (of.mean, of.std, network.mean, network.std)
    )
    return (images * std + mean - own_mean) / own_std
