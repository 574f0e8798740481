"""Methods with bugs of the reports, which show the effect of the bugs on the results.

Only recipes whose name ends in `-as-run` may use them; the command line does not know their names.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.methods.base import Task, classifier
from handful.methods.cmc import CMC, TwoSides
from handful.methods.supervised import Supervised
from handful.models.classifier import Normalize


@dataclass(frozen=True)
class NormalizedTwice(Supervised):
    """Supervised with a bug of report B: training images are normalised twice, others once."""

    name: ClassVar[str] = "supervised-normalized-twice-as-run"
    differs_in_evaluation: ClassVar[bool] = True  # they see images normalised once

    def build(self, task: Task) -> nn.Module:
        model = classifier(task, self.dropout)
        once = model.normalize
        model.normalize = _TwiceInTraining(
            once.mean.flatten().tolist(), once.std.flatten().tolist()
        )
        return model


class _TwiceInTraining(Normalize):
    def forward(self, images: Tensor) -> Tensor:
        once = super().forward(images)
        return super().forward(once) if self.training else once


@dataclass(frozen=True)
class EmptyBank(CMC):
    """CMC with bugs of report D: most of its memory bank is noise that no image wrote.

    Lab values are not rescaled either. Against noise, constant features are a solution, at which
    the encoders stop learning.
    """

    slots: int = 100_000  # of the bank; the report trained 10,000 images

    name: ClassVar[str] = "cmc-empty-bank-as-run"

    def build(self, task: Task) -> nn.Module:
        model = super().build(task)
        assert isinstance(model, TwoSides)
        model.backbone.center.zero_()  # type: ignore[operator]
        model.backbone.scale.fill_(1.0)  # type: ignore[operator]
        return model

    def state(self, task: Task) -> dict[str, Tensor]:
        found = super().state(task)
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(2, self.slots, found["bank"].shape[2], generator=generator)
        written = torch.ones(self.slots, dtype=torch.bool)  # not true: this is the bug
        return found | {"bank": F.normalize(noise, dim=2), "written": written}
