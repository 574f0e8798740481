"""Bugs of the reports, kept to show what they did to a number. Nothing else may use this file.

None of these methods has a name that the command line knows; only recipes that end in `-as-run`
hold them.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from handful.methods.base import Normalize, Task, classifier
from handful.methods.supervised import Supervised


@dataclass(frozen=True)
class NormalizedTwice(Supervised):
    """Supervised, but training images are normalised twice and test images once (report B)."""

    name: ClassVar[str] = "supervised-normalized-twice-as-run"

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
