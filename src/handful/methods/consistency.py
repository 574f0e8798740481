"""What the semi-supervised methods share: fields, views, one forward pass, monitors.

They differ in one question, `unlabeled_loss`: what an unlabelled image costs. Here is the rest:
cross-entropy on the labels beside it, guesses that carry no gradient, and figures by which a
collapse is seen. With no unlabelled image, or with weight 0, they are `Supervised` to the last bit.

Letters in shapes: N labelled images, M unlabelled ones, K classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.errors import HandfulError
from handful.methods.base import Batch, Step, Task, Views, classifier
from handful.methods.heads import prior_of
from handful.methods.losses import aligned
from handful.methods.schedule import Schedule
from handful.methods.supervised import Supervised

SHOWN_CLASSES = 20  # up to so many, each class's share of the guesses is logged
_FORGETTING = 0.01  # how fast running shares follow: a memory of about 100 steps
_REMEMBERED = 0.05  # of the steps, at most: by then the shares that are watched are others


class Seen(NamedTuple):
    """Logits of one step."""

    labeled: Tensor  # (N, K)
    weak: Tensor  # (M, K), without gradient
    strong: Tensor  # (M, K)


class Cost(NamedTuple):
    """What the unlabelled images of a step cost, and what was believed of them."""

    loss: Tensor  # ()
    guess: Tensor  # (M,) the class that each is taken for
    trust: Tensor  # (M,) from 0 to 1: how much that counts


@dataclass(frozen=True)
class Consistency(ABC):
    """Hyper-parameters of all of them."""

    unlabeled_weight: float = 1.0  # lambda: loss = labelled + lambda * unlabelled
    unlabeled_ratio: int = 4  # mu: unlabelled images for each labelled one in a batch
    teacher: bool = False  # guesses come from the weight average, not from the network itself
    align: bool = False  # bring the guesses to the class shares of the labels
    augment: str = "auto"  # pipeline of labelled images; auto: digits for grey ones, else strong
    weak: str = "auto"  # of the view that is guessed; auto: digits or weak, like augment if "same"
    strong: str = "auto"  # of the view that learns, or "same"; auto: digits-strong or strong

    name: ClassVar[str]

    def __post_init__(self) -> None:
        if self.unlabeled_weight < 0:
            raise HandfulError(f"unlabeled_weight must be 0 or more, got {self.unlabeled_weight}")
        if self.unlabeled_ratio < 1:
            raise HandfulError(
                f"unlabeled_ratio must be 1 or more, got {self.unlabeled_ratio}; to train without "
                f"unlabelled images use --method supervised"
            )

    def network(self, channels: int, side: int) -> str:
        """`cnn` where it has room: `small` hardly learns in the first minute on digits."""
        return "cnn" if channels == 1 and side >= 20 else "small"

    def schedule(self, task: Task) -> Schedule:
        """Two to three minutes of 28-pixel digits on two cores."""
        return Schedule(steps=400 if task.size <= 16 else 1500, batch=32, average=0.99)

    def views(self, task: Task) -> Views:
        if not has_unlabeled(task) or not self.unlabeled_weight:
            return Views(self.augment)
        if self.strong == "same":
            return Views(self.augment, (self.weak,), self.unlabeled_ratio)
        grey = task.channels == 1
        weak = self.weak if self.weak != "auto" else "digits" if grey else "weak"
        by_name = {"auto": "digits-strong" if grey else "strong", "weak": weak}
        strong = by_name.get(self.strong, self.strong)
        return Views(self.augment, (weak, strong), self.unlabeled_ratio)

    def build(self, task: Task) -> nn.Module:
        return classifier(task)

    def state(self, task: Task) -> dict[str, Tensor]:
        """Class shares, (K,) each: of the labels; of the network's guesses; of those used."""
        prior = prior_of(task.labels[task.labeled], len(task.classes))
        return {"prior": prior, "guessed": prior.clone(), "used": prior.clone()}

    def loss(self, model: nn.Module, batch: Batch) -> Step:
        if not batch.unlabeled:
            return Supervised().loss(model, batch)
        seen = self._forward(model, batch)
        labeled = self.labeled_loss(seen.labeled, batch)
        cost = self.unlabeled_loss(seen, batch)
        weight = self.unlabeled_weight * self.ramp(batch.progress)
        accuracy = (seen.labeled.detach().argmax(dim=1) == batch.labels).float().mean()
        logs = {"labeled": labeled, "unlabeled": cost.loss, "accuracy": accuracy}
        logs |= monitoring_logs(batch.state, cost, batch.schedule_progress.last)
        if self.teacher or self.strong != "same":  # a view agrees with itself
            logs["agreement"] = (cost.guess == seen.strong.argmax(dim=1)).float().mean()
        return Step(labeled + weight * cost.loss, logs)

    def ramp(self, progress: float) -> float:
        """Share of `unlabeled_weight` that counts after this share of the training."""
        return 1.0

    def labeled_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(logits, batch.labels)

    @abstractmethod
    def unlabeled_loss(self, seen: Seen, batch: Batch) -> Cost:
        """What the unlabelled images cost, given (M, K) logits of both their views."""

    def guesses(self, weak: Tensor, batch: Batch) -> Tensor:
        """(M, K) probabilities from logits of the weak view; aligned if `align`."""
        probabilities = weak.softmax(dim=1)
        guessed = batch.state["guessed"]
        guessed.lerp_(probabilities.mean(dim=0).to(guessed), _FORGETTING)
        return (
            aligned(probabilities, guessed, batch.state["prior"]) if self.align else probabilities
        )

    def _forward(self, model: nn.Module, batch: Batch) -> Seen:
        """One pass over everything: batch norm sees labelled and unlabelled images together.

        The guesses of a teacher are a pass of their own, with the statistics of the average.
        """
        weak, strong = batch.unlabeled[0], batch.unlabeled[-1]  # (M, C, S, S) each
        n, m = len(batch.images), len(strong)
        if self.teacher:
            assert batch.averaged is not None
            logits = model(torch.cat([batch.images, strong])).float()  # (N + M, K)
            with torch.no_grad():
                on_weak = batch.averaged.eval()(weak).float()
            return Seen(logits[:n], on_weak, logits[n:])
        logits = model(torch.cat([batch.images, *batch.unlabeled])).float()  # (N + M or 2M, K)
        return Seen(logits[:n], logits[n : n + m].detach(), logits[-m:])


def has_unlabeled(task: Task) -> bool:
    """Whether there is an image to learn from beside the labelled ones."""
    return len(task.training_pool) > len(task.labeled)


@torch.no_grad()
def monitoring_logs(state: Mapping[str, Tensor], cost: Cost, steps: int) -> dict[str, Tensor]:
    """Figures to watch, and the running shares of the guesses that were used.

    kept: share of the unlabelled images used. prior_distance: total variation distance between
    the class shares of the guesses used and those of the labels: 0 if equal, 1 if disjoint.
    swallowed: how far any class is on the way from its share of the labels, 0, to all guesses, 1.
    pseudo_k: share of class k.

    Args:
        steps: of the whole training.
    """
    used, prior = state["used"], state["prior"]
    now = torch.bincount(cost.guess, cost.trust.to(used), len(used)) / len(cost.guess)  # (K,)
    used.lerp_(now, min(1.0, max(_FORGETTING, 1 / (_REMEMBERED * steps))))
    shares = used / used.sum().clamp_min(torch.finfo(used.dtype).tiny)
    logs = {
        "kept": cost.trust.float().mean(),
        "prior_distance": (shares - prior).abs().sum() / 2,
        "swallowed": ((shares - prior) / (1 - prior)).amax(),
    }
    if len(shares) <= SHOWN_CLASSES:
        logs |= {f"pseudo_{k}": share for k, share in enumerate(shares.clone())}
    return logs
