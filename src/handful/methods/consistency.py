"""Base class of the consistency methods: fields, views, forward pass and monitoring.

Subclasses implement `unlabeled_loss`, the loss of unlabelled images. The base class has the
cross-entropy on labelled images, pseudo-labels without gradient, and the logs that show class
collapse. Without unlabelled images, or with weight 0, training is bit-identical to `Supervised`,
if the network has no learned weights: with them, the head is fitted first.

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
from handful.methods.first_features import task_shares
from handful.methods.first_head import fitted_head, freeze_norms, has_learned_weights
from handful.methods.heads import prior_of
from handful.methods.losses import aligned
from handful.methods.schedule import Schedule
from handful.methods.supervised import Supervised

_FIRST_HEADS = ("auto", "linear", "random")
SHOWN_CLASSES = 20  # with more classes the shares of pseudo-labels are not logged
_UPDATE = 0.01  # weight of a step in running class shares: they span about 100 steps
_LONGEST_SPAN = 0.05  # share of all steps that running shares span, in short trainings


class StepLogits(NamedTuple):
    """Logits of the views of one step."""

    labeled: Tensor  # (N, K)
    weak: Tensor  # (M, K), without gradient
    strong: Tensor  # (M, K)


class UnlabeledCost(NamedTuple):
    """The loss of the unlabelled images of a step, and their pseudo-labels."""

    loss: Tensor  # ()
    pseudo_label: Tensor  # (M,) class
    weight: Tensor  # (M,) in [0, 1]: weight of each pseudo-label in the loss


@dataclass(frozen=True)
class Consistency(ABC):
    """Hyper-parameters that all consistency methods have."""

    unlabeled_weight: float = 1.0  # lambda: loss = labelled + lambda * unlabelled
    unlabeled_ratio: int = 4  # mu: unlabelled images for each labelled one in a batch
    teacher: bool = False  # pseudo-labels come from the weight average, not from the network
    align: bool = False  # align pseudo-labels to class shares, given or estimated
    augment: str = "auto"  # pipeline of labelled images; auto: digits for grey ones, else strong
    weak: str = "auto"  # of the pseudo-label view; auto: digits or weak, like augment if "same"
    strong: str = "auto"  # of the trained view, or "same"; auto: digits-strong or strong
    first_head: str = "auto"  # linear: fitted to the labels before; random; auto: linear where the
    # backbone has learned weights, else random
    frozen_norm: bool = False  # keep batch norm's statistics of learned weights; it wants
    # optimizer=adamw lr=1e-4, as it diverges with the default of the schedule

    name: ClassVar[str]

    def __post_init__(self) -> None:
        if self.unlabeled_weight < 0:
            raise HandfulError(f"unlabeled_weight must be 0 or more, got {self.unlabeled_weight}")
        if self.unlabeled_ratio < 1:
            raise HandfulError(
                f"unlabeled_ratio must be 1 or more, got {self.unlabeled_ratio}; to train without "
                f"unlabelled images use --method supervised"
            )
        if self.first_head not in _FIRST_HEADS:
            raise HandfulError(
                f"first_head is {', '.join(_FIRST_HEADS[:-1])} or {_FIRST_HEADS[-1]}, got "
                f"{self.first_head!r}"
            )

    def network(self, channels: int, side: int) -> str:
        """`cnn` for grey images it fits: on digits `small` hardly learns in the first minute."""
        return "cnn" if channels == 1 and side >= 20 else "small"

    def schedule(self, task: Task) -> Schedule:
        """The default schedule: two to three minutes for 28-pixel digits on two cores."""
        return Schedule(steps=400 if task.size <= 16 else 1500, batch=32, average=0.99)

    def advice(self, schedule: Schedule) -> str:
        """With SGD at its default rate, learned weights diverge under frozen statistics."""
        if not self.frozen_norm or schedule.optimizer != "sgd":
            return ""
        return "--set optimizer=adamw --set lr=1e-4"

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
        network, learned = classifier(task), has_learned_weights(task)
        if (self.first_head == "linear" or self.frozen_norm) and not learned:
            given = "frozen_norm=true" if self.frozen_norm else "first_head=linear"
            raise HandfulError(
                f"{given} needs learned weights, and backbone {task.backbone.name!r} has none; use "
                f"--backbone lite0, or leave out {given.partition('=')[0]}"
            )
        if learned and self.first_head != "random":
            network.head = fitted_head(network, task)
        return network

    def state(self, task: Task) -> dict[str, Tensor]:
        """Class shares, (K,) each: expected ones, of all predictions, of used pseudo-labels.

        The expected ones are those of the labels; with `align` those given, else estimated.
        """
        if self.align and self.unlabeled_weight and has_unlabeled(task):
            prior = task_shares(task)
        else:
            prior = prior_of(task.labels[task.labeled], len(task.classes))
        return {"prior": prior, "guessed": prior.clone(), "used": prior.clone()}

    def loss(self, model: nn.Module, batch: Batch) -> Step:
        if self.frozen_norm:
            freeze_norms(model)
        if not batch.unlabeled:
            return Supervised().loss(model, batch)
        logits = self._forward(model, batch)
        labeled = self.labeled_loss(logits.labeled, batch)
        cost = self.unlabeled_loss(logits, batch)
        weight = self.unlabeled_weight * self.ramp(batch.progress)
        accuracy = (logits.labeled.detach().argmax(dim=1) == batch.labels).float().mean()
        logs = {"labeled": labeled, "unlabeled": cost.loss, "accuracy": accuracy}
        logs |= monitoring_logs(batch.state, cost, batch.schedule_progress.last)
        if self.teacher or self.strong != "same":  # a view agrees with itself
            logs["agreement"] = (cost.pseudo_label == logits.strong.argmax(dim=1)).float().mean()
        return Step(labeled + weight * cost.loss, logs)

    def ramp(self, progress: float) -> float:
        """The factor of `unlabeled_weight` at a share of the schedule; 1 by default."""
        return 1.0

    def labeled_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """() cross-entropy of (N, K) logits of the labelled images."""
        return F.cross_entropy(logits, batch.labels)

    @abstractmethod
    def unlabeled_loss(self, logits: StepLogits, batch: Batch) -> UnlabeledCost:
        """The loss of the unlabelled images, from the logits of both views."""

    def target_probabilities(self, weak: Tensor, batch: Batch) -> Tensor:
        """(M, K) probabilities from (M, K) logits of the weak view; aligned if `align`.

        The running class shares of predictions are updated.
        """
        probabilities = weak.softmax(dim=1)
        running = batch.state["guessed"]
        running.lerp_(probabilities.mean(dim=0).to(running), _UPDATE)
        if not self.align:
            return probabilities
        return aligned(probabilities, running, batch.state["prior"])

    def _forward(self, model: nn.Module, batch: Batch) -> StepLogits:
        """One pass over all views, so that batch norm has the statistics of all of them.

        A teacher has a pass of its own, with the averaged statistics.
        """
        weak, strong = batch.unlabeled[0], batch.unlabeled[-1]  # (M, C, S, S) each
        n, m = len(batch.images), len(strong)
        if self.teacher:
            assert batch.averaged is not None
            logits = model(torch.cat([batch.images, strong])).float()  # (N + M, K)
            with torch.no_grad():
                on_weak = batch.averaged.eval()(weak).float()
            return StepLogits(logits[:n], on_weak, logits[n:])
        logits = model(torch.cat([batch.images, *batch.unlabeled])).float()  # (N + M or 2M, K)
        return StepLogits(logits[:n], logits[n : n + m].detach(), logits[-m:])


def has_unlabeled(task: Task) -> bool:
    """Whether the training pool has unlabelled images."""
    return len(task.training_pool) > len(task.labeled)


@torch.no_grad()
def monitoring_logs(
    state: Mapping[str, Tensor], cost: UnlabeledCost, steps: int
) -> dict[str, Tensor]:
    """Logs of pseudo-labels; the running shares `state["used"]` are updated in place.

    Args:
        state: prior, used: (K,) class shares of the labels and of the used pseudo-labels.
        cost: of this step.
        steps: of the whole training.

    Returns:
        kept: mask ratio, the mean weight of the unlabelled images.
        prior_distance: total variation distance between the class shares of used pseudo-labels
            and of labels; 0 if equal, 1 if disjoint.
        swallowed: class collapse, the largest increase of any class share, scaled so that 0 is
            its share of the labels and 1 is all pseudo-labels.
        pseudo_k: share of class k, up to SHOWN_CLASSES classes.
    """
    used, prior = state["used"], state["prior"]
    counts = torch.bincount(cost.pseudo_label, cost.weight.to(used), len(used))  # (K,)
    now = counts / len(cost.pseudo_label)
    used.lerp_(now, min(1.0, max(_UPDATE, 1 / (_LONGEST_SPAN * steps))))
    shares = used / used.sum().clamp_min(torch.finfo(used.dtype).tiny)
    logs = {
        "kept": cost.weight.float().mean(),
        "prior_distance": (shares - prior).abs().sum() / 2,
        "swallowed": ((shares - prior) / (1 - prior)).amax(),
    }
    if len(shares) <= SHOWN_CLASSES:
        logs |= {f"pseudo_{k}": share for k, share in enumerate(shares.clone())}
    return logs
