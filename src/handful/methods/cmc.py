"""CMC: an image's light recognises its own colours among those of others, and the other way.

Tian et al. 2019, "Contrastive Multiview Coding", arXiv:1906.05849. Authors' code:
github.com/HobbitLong/CMC.

Where we differ from the authors' code:
- The softmax over 1 + K candidates is the loss by default; their NCE needs a normaliser, which
  they take from the first batch and we keep running.
- Negatives come only from entries of the memory bank that were written. A bank with more entries
  than images that are trained makes constant features a solution: noise that was never written is
  then easily told from any feature. An image is never among its own negatives.
- The channels of the colour space are brought to mean 0 and standard deviation 1.
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
    """Hyper-parameters."""

    space: str = "lab"  # lab: L beside ab; ycbcr: Y beside CbCr
    objective: str = "softmax"  # over the bank; nce: the same as yes or no; in-batch: no bank
    temperature: float = 0.1  # tau: divides the cosine similarities
    negatives: int = 256  # K drawn from the bank for each image
    bank_momentum: float = 0.5  # share of an entry that stays when it is written again
    projection: int = 128  # D of a linear layer behind each encoder; 0: the features themselves
    augment: str = "simclr-flip"  # a named pipeline; both encoders see the same view

    name: ClassVar[str] = "cmc"
    about: ClassVar[About] = About(
        "pre-trains a network without labels to match the brightness of an image to its colours",
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
        """Both encoders as one backbone, the features of the two side by side."""
        encoder = {"encoder": task.backbone.name, "space": self.space}
        options = {"options": task.backbone.options} if task.backbone.options else {}
        return BackboneSpec("split", encoder | options)

    def views(self, task: Task) -> Views:
        return Views(None, (self.augment,), unlabeled_ratio=1)

    def build(self, task: Task) -> nn.Module:
        if task.channels != 3:
            raise HandfulError("cmc parts light from colour, and these images are grey; try simclr")
        if len(task.training_pool) < 2:
            raise HandfulError("cmc tells images apart, so it needs two images or more, got 1")
        return TwoSides(*body(replace(task, backbone=self.spec(task))), self.projection)

    def state(self, task: Task) -> dict[str, Tensor]:
        """The bank: (2, N, D) features of every image by each encoder, and which were written."""
        if self.objective == "in-batch":
            return {}
        spec = self.spec(task)
        with torch.device("meta"):  # only to know how many features there are
            width = int(spec.make(task.channels, task.size).width)  # type: ignore[arg-type]
        n = len(task.images)
        return {
            "bank": torch.zeros(2, n, self.projection or width // 2),
            "written": torch.zeros(n, dtype=torch.bool),
            "normalizer": torch.zeros(2),
        }

    def loss(self, model: nn.Module, batch: Batch) -> Step:
        (images,) = batch.unlabeled
        light, color = model(images)  # (N, D) each
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
                contrastive_losses.nce_loss(scores, _running(z, scores, images_known), images_known)
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
        """Named where an image is matched with its colours hardly more often than by chance."""
        matched = min(line.get("light_to_color", 1.0), line.get("color_to_light", 1.0))
        chance = 1 / (self.negatives + 1)
        if self.objective == "in-batch" or matched > 1.5 * chance:
            return None
        return (
            f"light and colour of an image are matched with probability {matched:.4f}, by chance "
            f"it is {chance:.4f}: the encoders have learned nothing that both can see"
        )

    def _against_bank(self, z: tuple[Tensor, Tensor], batch: Batch) -> tuple[Tensor, Tensor]:
        """(N, 1 + K) scores both ways: each encoder's features against the other's bank."""
        assert batch.unlabeled_ids is not None
        bank, written = batch.state["bank"], batch.state["written"]
        ids = batch.unlabeled_ids.to(bank.device)
        fresh = [F.normalize(side.detach().float(), dim=1) for side in z]
        for side, now in zip(bank, fresh, strict=True):
            first = ~written[ids]
            write(side, ids[first], now[first], momentum=0.0)
        written[ids] = True
        others = draw_negatives(written, ids, self.negatives)  # (N, K)
        rows = torch.cat([ids[:, None], others], dim=1)  # (N, 1 + K)
        light = contrastive_losses.scores(z[0], bank[1], rows, self.temperature)
        color = contrastive_losses.scores(z[1], bank[0], rows, self.temperature)
        for side, now in zip(bank, fresh, strict=True):
            write(side, ids, now, self.bank_momentum)
        return light, color


class TwoSides(nn.Module):
    """Images in [0, 1] → both encoders of a split backbone → a linear layer behind each."""

    def __init__(self, normalize: Normalize, backbone: nn.Module, size: int) -> None:
        super().__init__()
        self.normalize = normalize
        self.backbone = backbone
        half = int(backbone.width) // 2  # type: ignore[arg-type]
        self.light = nn.Linear(half, size) if size else nn.Identity()
        self.color = nn.Linear(half, size) if size else nn.Identity()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, S, S) → (N, D) of the light and (N, D) of the colours."""
        light, color = self.backbone(self.normalize(images)).chunk(2, dim=1)
        return self.light(light), self.color(color)


@torch.no_grad()
def write(bank: Tensor, ids: Tensor, features: Tensor, momentum: float) -> None:
    """Move entries of an (N, D) bank towards (B, D) features of length 1, and back to length 1.

    An image that is twice in the batch, where one pass over the set ends and the next begins, is
    written once.
    """
    ids, where = ids.unique(return_inverse=True)
    first = torch.full_like(ids, len(where)).scatter_reduce_(
        0, where, torch.arange(len(where), device=where.device), "amin"
    )
    bank[ids] = F.normalize(momentum * bank[ids] + (1 - momentum) * features[first], dim=1)


def draw_negatives(written: Tensor, ids: Tensor, count: int) -> Tensor:
    """(B, count) written entries for each of (B,) ids, evenly, with repeats, never its own."""
    known = written.nonzero().squeeze(1)  # (W,), rising
    if len(known) < 2:
        raise HandfulError("cmc needs two images or more in a batch; raise it with --set batch=")
    drawn = torch.randint(len(known) - 1, (len(ids), count), device=known.device)
    own = torch.searchsorted(known, ids)  # (B,) where each image is among the written
    return known[drawn + (drawn >= own[:, None])]


@torch.no_grad()
def _running(normalizer: Tensor, scores: Tensor, images: int, momentum: float = 0.99) -> Tensor:
    """() Z, moved a little towards what these scores say; they decide alone the first time."""
    now = contrastive_losses.partition(scores, images)
    normalizer.copy_(now if normalizer == 0 else torch.lerp(now, normalizer, momentum))
    return normalizer.clone()
