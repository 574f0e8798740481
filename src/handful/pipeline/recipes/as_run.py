"""Bugs of the reports, kept to show what they did to a number. Nothing else may use this file.

None of these methods has a name that the command line knows; only recipes that end in `-as-run`
hold them.
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
    """Supervised, but training images are normalised twice and test images once (report B)."""

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
    """CMC, but negatives come from a bank most of which is noise that no image wrote (report D).

    Lab values are not rescaled either. With noise to tell apart from, constant features are a
    solution, and the encoders stop there.
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
        written = torch.ones(self.slots, dtype=torch.bool)  # a lie: that is the bug
        return found | {"bank": F.normalize(noise, dim=2), "written": written}
