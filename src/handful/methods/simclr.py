"""SimCLR: identifies the other view of an image among all views of the batch.

Chen et al. 2020, "A Simple Framework for Contrastive Learning of Visual Representations",
arXiv:2002.05709. Authors' code: github.com/google-research/simclr.

Where we differ from the authors' code:
- The optimiser is Adam by default; theirs is LARS: `--set optimizer=lars --set lr=0.3 --set
  scaling=linear --set warmup=0.1`.
- The projection has no batch norm, and layers of 128 and 64 outputs, for small networks.
- The weight average is kept; `--set average=0` keeps the last weights, as they do.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from handful.errors import HandfulError
from handful.methods.base import About, Batch, Step, Task, Views
from handful.methods.contrastive_losses import nt_xent
from handful.methods.self_supervised import SelfSupervised, both_views, check_positive, projected


@dataclass(frozen=True)
class SimCLR(SelfSupervised):
    """Contrastive loss (NT-Xent) between projections of two augmented views."""

    augment: str = "simclr"  # a named pipeline, or a change of one: simclr,-blur,+cut-out
    temperature: float = 0.5  # tau: divides the cosine similarities
    projection_depth: int = 2  # linear layers after the backbone; 0: none
    projection_width: int = 128  # outputs of all layers but the last
    projection_size: int = 64  # outputs D of the last layer
    projection_norm: bool = False  # BatchNorm between the layers

    name: ClassVar[str] = "simclr"
    divisible: ClassVar[bool] = True
    about: ClassVar[About] = About(
        "pre-trains a network without labels to recognise an image in two augmented views",
        "It learns from unlabelled images alone, so that very few labels can be enough.",
        "It needs long pre-training and large batches, and augmentations that suit the images.",
        uses_unlabeled=True,
    )

    def __post_init__(self) -> None:
        check_positive(self, "temperature", "projection_width", "projection_size")
        if self.projection_depth < 0:
            raise HandfulError(f"projection_depth must be 0 or more, got {self.projection_depth}")

    def views(self, task: Task) -> Views:
        return Views(None, (self.augment, self.augment), unlabeled_ratio=1)

    def build(self, task: Task) -> nn.Module:
        hidden = [self.projection_width] * max(0, self.projection_depth - 1)
        last = [self.projection_size] * min(1, self.projection_depth)
        return projected(task, hidden + last, self.projection_norm)

    def loss(self, model: nn.Module, batch: Batch) -> Step:
        z_a, z_b = both_views(model, batch)  # (N, D) each
        loss = nt_xent(z_a, z_b, self.temperature)
        return Step(loss, {"loss": loss})
