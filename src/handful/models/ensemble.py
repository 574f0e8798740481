"""Pre-trained networks side by side with one or two that were trained on the task at hand."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.errors import HandfulError
from handful.models.joined import Joined, normalized_for

ENSEMBLE = "ensemble"


class Trained(nn.Module):
    """A network that was trained on the task: (N, C, S, S) in [0, 1] -> (N, D).

    It sees the images as it did in its training: reduced to its own side, and normalised by its own
    constants, which are among its weights.

    Args:
        network: name of the backbone.
        options: of the backbone.
        size: S, in pixels.
        side: of the images that it was trained on, in pixels.
    """

    mean, std = (0.0,), (1.0,)  # of the images it takes: those in [0, 1]

    def __init__(
        self,
        channels: int,
        *,
        network: str,
        options: Mapping[str, Any],
        size: int,
        side: int,
        pretrained: bool,
    ) -> None:
        from handful import models

        super().__init__()
        learned = {"pretrained": pretrained} if models.pretrained(network) else {}
        self.network = models.make(network, channels, side, **{**options, **learned})
        known: Any = self.network
        constants = len(getattr(known, "mean", [0.0] * channels))
        self.register_buffer("own_mean", torch.zeros(1, constants, 1, 1))
        self.register_buffer("own_std", torch.ones(1, constants, 1, 1))
        self.register_buffer("length", torch.ones(()))  # its features are divided by it
        self.register_buffer("reduction", reduction(size, side))
        self.side = self.input_size = side
        self.width: int = known.width

    def extra_repr(self) -> str:
        return f"side={self.side}"

    def forward(self, images: Tensor) -> Tensor:
        own: Any = self
        small = own.reduction @ images @ own.reduction.T
        return self.network((small - own.own_mean) / own.own_std) / own.length


def reduction(size: int, side: int, enlarged: bool = False) -> Tensor:
    """(side, size): what each pixel of a row takes of the pixels of a longer row.

    It is the bicubic filter by which photographs are reduced when they are read.

    Args:
        enlarged: whether the longer row was a shorter one, enlarged. What lies nearest is then
            taken, which is what the shorter row had; the filter would blur it.
    """
    how: Any = {"mode": "bilinear"} if enlarged else {"mode": "bicubic", "antialias": True}
    each = torch.eye(size).view(1, 1, size, size)
    return F.interpolate(each, (side, size), **how)[0, 0]


class Ensemble(nn.Module):
    """Frozen pre-trained networks, and one or two that were trained on the task, side by side.

    Its features (N, D) are those of the pre-trained networks, then those of the trained ones, so
    that a linear layer on them can add up the logits of all classifiers.

    Args:
        networks: names of the pre-trained networks, as in lite0+lite2.
        stages: of the networks that have this option; see `Lite`.
        trained: name of the network that was trained on the task.
        options: of that network.
        side: of the images that it was trained on, in pixels.
        other: of a second one, these three by name.
        pretrained: False for random weights, where others are loaded afterwards.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        *,
        networks: str,
        trained: str,
        side: int,
        stages: int = 1,
        options: Mapping[str, Any] = MappingProxyType({}),
        other: Mapping[str, Any] = MappingProxyType({}),
        pretrained: bool = True,
    ) -> None:
        from handful import models

        super().__init__()
        names = [trained, *([other["trained"]] if other else [])]
        if ENSEMBLE in (networks, *names) or not models.pretrained(networks):
            raise HandfulError(
                f"an ensemble is of pre-trained networks and of others that were trained, got "
                f"{networks!r} and {' and '.join(map(repr, names))}"
            )
        with_stages = {"stages": stages} if models.multi_stage(networks) else {}
        self.frozen = models.make(networks, channels, size, pretrained=pretrained, **with_stages)
        own: Any = {"size": size, "pretrained": pretrained}
        self.trained = Trained(channels, network=trained, options=options, side=side, **own)
        self.other: Trained | None = None
        if other:
            name, more, edge = (other[key] for key in ("trained", "options", "side"))
            self.other = Trained(channels, network=name, options=more, side=edge, **own)
        self.channels = channels
        known: Any = self.frozen
        self.mean, self.std = known.mean, known.std
        self.input_size: int = known.input_size
        self.width: int = known.width + sum(one.width for one in self.beside)

    @property
    def beside(self) -> list[Trained]:
        """The networks that were trained on the task."""
        return [self.trained] if self.other is None else [self.trained, self.other]

    @property
    def networks(self) -> list[nn.Module]:
        """The pre-trained networks, and the trained ones."""
        frozen = self.frozen
        return [*(frozen.networks if isinstance(frozen, Joined) else [frozen]), *self.beside]

    def forward(self, images: Tensor) -> Tensor:
        """Features of images that are normalised for the first pre-trained network."""
        plain = normalized_for(self.trained, images, self)[:, : self.channels]  # grey: repeated
        return self._joined(self.frozen(images), [one(plain) for one in self.beside])

    def join(self, rows: Sequence[Tensor]) -> Tensor:
        """(N, D) of the (N, D_i) features of `networks`, in their number format."""
        at = len(rows) - len(self.beside)
        frozen, trained = rows[:at], rows[at:]
        joined = self.frozen.join(frozen) if isinstance(self.frozen, Joined) else frozen[0]
        return self._joined(joined, trained)

    def _joined(self, frozen: Tensor, trained: Sequence[Tensor]) -> Tensor:
        return torch.cat([frozen, *(one.to(frozen.dtype) for one in trained)], dim=1)
