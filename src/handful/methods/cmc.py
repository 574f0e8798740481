"""CMC: matches the lightness of an image to its own colours among those of other images.

Tian et al. 2019, "Contrastive Multiview Coding", arXiv:1906.05849. Authors' code:
github.com/HobbitLong/CMC.

Where we differ from the authors' code:
- The softmax over 1 + K candidates is the default loss. Their loss is NCE, with a normaliser
  from the first batch; ours is a running mean.
- Negatives are drawn only from written entries of the memory bank. Otherwise, in a bank with more
  entries than training images, constant features are a solution, since random entries differ from
  any feature. An image is never its own negative.
- The channels of the colour space are standardised to mean 0 and standard deviation 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.errors import HandfulError
from handful.methods import contrastive_losses
from handful.methods.base import About, Batch, Step, Task, Views, body
from handful.methods.self_supervised import SelfSupervised, check_positive
from handful.models.classifier import BackboneSpec, Normalize
from handful.models.split import SPACES

OBJECTIVES = ("softmax", "nce", "in-batch")


@dataclass(frozen=True)
class CMC(SelfSupervised):
    """Contrastive loss between features of the lightness and of the colours of an image."""

    space: str = "lab"  # lab: L and ab; ycbcr: Y and CbCr
    objective: str = "softmax"  # softmax or nce over the bank; in-batch: no bank
    temperature: float = 0.1  # tau: divides the cosine similarities
    negatives: int = 256  # K drawn from the bank for each image
    bank_momentum: float = 0.5  # weight of the old entry in an update
    projection: int = 128  # outputs D of a linear layer after each encoder; 0: no layer
    augment: str = "simclr-flip"  # a named pipeline; both encoders receive one view

    name: ClassVar[str] = "cmc"
    divisible: ClassVar[bool] = True
    about: ClassVar[About] = About(
        "pre-trains a network without labels to match the lightness of an image to its colours",
        "Its two views need no strong augmentation.",
        "It needs colour, and long pre-training.",
        uses_unlabeled=True,
    )

    def __post_init__(self) -> None:
        check_positive(self, "temperature", "negatives")
        for field, known in (("space", tuple(SPACES)), ("objective", OBJECTIVES)):
            if getattr(self, field) not in known:
                raise HandfulError(
                    f"no {field} {getattr(self, field)!r}; choose one of {', '.join(known)}"
                )
        if not 0 <= self.bank_momentum < 1:
            raise HandfulError(f"bank_momentum lies in [0, 1), got {self.bank_momentum}")
        if self.projection < 0:
            raise HandfulError(f"projection must be 0 or more, got {self.projection}")

    def network(self, channels: int, side: int) -> str:
        return "small-encoder"

    def spec(self, task: Task) -> BackboneSpec:
        """Both encoders as one backbone, with their features concatenated."""
        encoder = {"encoder": task.backbone.name, "space": self.space}
        options = {"options": task.backbone.options} if task.backbone.options else {}
        return BackboneSpec("split", encoder | options)

    def views(self, task: Task) -> Views:
        return Views(None, (self.augment,), unlabeled_ratio=1)

    def build(self, task: Task) -> nn.Module:
        if task.channels != 3:
            raise HandfulError(
                "cmc splits images into lightness and colour, and these are grey; try simclr"
            )
        if len(task.training_pool) < 2:
            raise HandfulError("cmc contrasts images, so it needs two images or more, got 1")
        return TwoSides(*body(replace(task, backbone=self.spec(task))), self.projection)

    def state(self, task: Task) -> dict[str, Tensor]:
        """bank: (2, N, D) features by encoder; written: (N,) bool; normalizer: (2,) Z of NCE."""
        if self.objective == "in-batch":
            return {}
        spec = self.spec(task)
        with torch.device("meta"):  # for the number of features only
            width = int(spec.make(task.channels, task.size).width)  # type: ignore[arg-type]
        n = len(task.images)
        return {
            "bank": torch.zeros(2, n, self.projection or width // 2),
            "written": torch.zeros(n, dtype=torch.bool),
            "normalizer": torch.zeros(2),
        }

    def loss(self, model: nn.Module, batch: Batch) -> Step:
        (images,) = batch.unlabeled
        light, color = map(batch.whole, model(images))  # (N, D) each
        if self.objective == "in-batch":
            both = contrastive_losses.in_batch(light, color, self.temperature)
            own = torch.arange(len(light), device=light.device)
        else:
            both = self._against_bank((light, color), batch)
            own = torch.zeros(len(light), dtype=torch.int64, device=light.device)
        if self.objective == "nce":
            images_known = len(batch.state["written"])
            running = batch.state["normalizer"]
            loss = sum(
                contrastive_losses.nce_loss(
                    scores, _running_normalizer(z, scores, images_known), images_known
                )
                for scores, z in zip(both, running, strict=True)
            )
        else:
            loss = sum(F.cross_entropy(scores, own) for scores in both)
        there, back = (
            scores.detach().softmax(dim=1).gather(1, own[:, None]).mean() for scores in both
        )
        assert isinstance(loss, Tensor)
        return Step(loss, {"loss": loss, "light_to_color": there, "color_to_light": back})

    def failure(self, line: Mapping[str, float]) -> str | None:
        """A sentence where matches are hardly more probable than by chance; None otherwise."""
        matched = min(line.get("light_to_color", 1.0), line.get("color_to_light", 1.0))
        chance = 1 / (self.negatives + 1)
        if self.objective == "in-batch" or matched > 1.5 * chance:
            return None
        return (
            f"lightness and colour of an image are matched with probability {matched:.4f}, and "
            f"by chance with {chance:.4f}: the encoders have learned nothing in common"
        )

    def _against_bank(self, z: tuple[Tensor, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """(N, 1 + K) scores of each encoder against the other's bank, the positive first."""
        assert batch.unlabeled_ids is not None
        bank, written = batch.state["bank"], batch.state["written"]
        ids = batch.whole(batch.unlabeled_ids.to(bank.device))
        current = [F.normalize(side.detach().float(), dim=1) for side in z]
        for side, now in zip(bank, current, strict=True):
            new = ~written[ids]
            update_bank(side, ids[new], now[new], momentum=0.0)
        written[ids] = True
        others = draw_negatives(written, ids, self.negatives)  # (N, K)
        rows = torch.cat([ids[:, None], others], dim=1)  # (N, 1 + K)
        light = contrastive_losses.scores(z[0], bank[1], rows, self.temperature)
        color = contrastive_losses.scores(z[1], bank[0], rows, self.temperature)
        for side, now in zip(bank, current, strict=True):
            update_bank(side, ids, now, self.bank_momentum)
        return light, color


class TwoSides(nn.Module):
    """Images in [0, 1] → both encoders of a split backbone → a linear layer after each."""

    def __init__(self, normalize: Normalize, backbone: nn.Module, size: int) -> None:
        super().__init__()
        self.normalize = normalize
        self.backbone = backbone
        half = int(backbone.width) // 2  # type: ignore[arg-type]
        self.light = nn.Linear(half, size) if size else nn.Identity()
        self.color = nn.Linear(half, size) if size else nn.Identity()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, S, S) → (N, D) of the lightness and (N, D) of the colours."""
        light, color = self.backbone(self.normalize(images)).chunk(2, dim=1)
        return self.light(light), self.color(color)


@torch.no_grad()
def update_bank(bank: Tensor, ids: Tensor, features: Tensor, momentum: float) -> None:
    """Update entries `ids` (B,) of an (N, D) bank with (B, D) features of length 1, in place.

    Entries are normalised to length 1 again. An image that is twice in the batch, at the border
    of two passes over the set, is updated once.

    Args:
        momentum: weight of the old entries.
    """
    ids, where = ids.unique(return_inverse=True)
    first = torch.full_like(ids, len(where)).scatter_reduce_(
        0, where, torch.arange(len(where), device=where.device), "amin"
    )
    bank[ids] = F.normalize(momentum * bank[ids] + (1 - momentum) * features[first], dim=1)


def draw_negatives(written: Tensor, ids: Tensor, count: int) -> Tensor:
    """(B, count) positions of random written entries, with repeats, never an image's own.

    Args:
        written: (N,) bool.
        ids: (B,) positions of the batch, all of them written.

    Raises:
        HandfulError: fewer than two entries are written.
    """
    known = written.nonzero().squeeze(1)  # (W,), sorted
    if len(known) < 2:
        raise HandfulError("cmc needs two images or more in a batch; raise it with --set batch=")
    drawn = torch.randint(len(known) - 1, (len(ids), count), device=known.device)
    own = torch.searchsorted(known, ids)  # (B,) rank of each image among the written
    return known[drawn + (drawn >= own[:, None])]


@torch.no_grad()
def _running_normalizer(
    normalizer: Tensor, scores: Tensor, images: int, momentum: float = 0.99
) -> Tensor:
    """() Z: the running mean of `partition` over steps; the first step sets it."""
    now = contrastive_losses.partition(scores, images)
    normalizer.copy_(now if normalizer == 0 else torch.lerp(now, normalizer, momentum))
    return normalizer.clone()
