"""Label propagation for deep networks: alternates between a graph that labels and a network.

Iscen et al. 2019, "Label Propagation for Deep Semi-supervised Learning", arXiv:1904.04717. Labels
propagate over a graph of nearest neighbours; the network learns the labels of all images; its
features make the next graph. The graph can correct a group of images that the network alone would
assign to a wrong class.

Where we differ:
- The first graph uses pixels, or the features of learned weights; theirs uses the features of a
  network trained on the labels alone.
- Later graphs use these first coordinates beside the features, so that they do not depend on the
  network alone.
- The labels of a class spread with the weight of its share among all images, given or estimated
  (`class_shares`), divided by the number of its labels; theirs with equal weights for all classes.
- All images have equal weights in the loss; theirs depend on certainty and class frequency. A batch
  has no fixed share of labelled images.
- Neighbours are searched in a few principal axes, and the scores are computed by power iteration
  instead of conjugate gradients.
- The learning rate is constant, and features come from averaged weights: with a falling rate the
  network memorises wrong labels (benchmarks/log/semi_supervised.md).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful import devices
from handful.errors import HandfulError
from handful.methods.base import About, Batch, Step, Task, Views, classifier
from handful.methods.consistency import UnlabeledCost, has_unlabeled, monitoring_logs
from handful.methods.first_features import first_features, shares_for
from handful.methods.heads import principal, prior_of
from handful.methods.propagation import propagate
from handful.methods.schedule import Schedule
from handful.methods.supervised import Supervised
from handful.models.classifier import Classifier

_BATCH = 500  # images in one forward pass for a graph


@dataclass(frozen=True)
class DeepPropagation:
    """Cross-entropy on labels that a graph propagates to all images.

    The time of a graph grows with the square of the number of images: about 25 seconds for 60,000
    digits on one core (Zen 4).
    """

    period: int = 500  # steps between two graphs
    neighbors: int = 15  # k: edges of each image, before the graph is symmetrised
    alpha: float = 0.0  # weight of neighbours in a score; 0: 0.9 to 0.99, by the number of images
    sharpness: float = 10.0  # gamma: an edge weighs the similarity to this power
    spread_steps: int = 80  # steps of the power iteration
    rank: int = 64  # principal axes of pixels and of features for the search of neighbours
    augment: str = "auto"  # pipeline of all images; auto: digits,+cut-out for grey, else strong

    name: ClassVar[str] = "deep_propagation"
    about: ClassVar[About] = About(
        "propagates labels over a graph of similar images, trains a network on them, and "
        "makes the next graph from its features",
        "The graph can correct a whole group of images that a network alone would assign to "
        "the wrong class.",
        "The first graph compares pixels, which suits symbols and not photographs. The time of "
        "a graph grows with the square of the number of images.",
        uses_unlabeled=True,
        counterpart="supervised",
    )

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < 1:
            raise HandfulError(f"alpha is 0 (choose it) or up to 1, got {self.alpha}")
        for field in ("period", "neighbors", "sharpness", "spread_steps", "rank"):
            if getattr(self, field) <= 0:
                raise HandfulError(f"{field} must be more than 0, got {getattr(self, field)}")

    def network(self, channels: int, side: int) -> str:
        """`cnn` for grey images it fits: a quarter of the time of `small`, no worse on digits."""
        return "cnn" if channels == 1 and side >= 20 else "small"

    def schedule(self, task: Task) -> Schedule:
        """About three minutes for 60,000 28-pixel digits with `cnn` on two cores."""
        steps = 1500 if task.size <= 16 else 3000
        return Schedule(steps=steps, batch=128, decay="constant", average=0.995)

    def views(self, task: Task) -> Views:
        if not has_unlabeled(task):
            return Views(self.augment)
        grey = self.augment == "auto" and task.channels == 1
        return Views(None, ("digits,+cut-out" if grey else self.augment,), 1)

    def build(self, task: Task) -> nn.Module:
        return classifier(task)

    def state(self, task: Task) -> dict[str, Tensor]:
        """The labels of all images and the graph's first coordinates.

        Returns:
            known, learned: (N,) given and propagated labels, -1 for none.
            prior, used: (K,) class shares, see `monitoring_logs`; `prior` given or estimated.
            images: (U,) positions of the graph's images.
            first: (U, R) float16 coordinates before training.
        """
        known = torch.full_like(task.labels, -1)
        known[task.labeled] = task.labels[task.labeled]
        state = {"known": known, "learned": known.clone()}
        if not has_unlabeled(task):
            prior = prior_of(task.labels[task.labeled], len(task.classes))
            return state | {"prior": prior, "used": prior.clone()}
        images = task.training_pool
        first = self._coordinates(first_features(task, images))
        prior = shares_for(task, first, images)
        state |= {"prior": prior, "used": prior.clone()}
        return state | {"images": images, "first": first.half()}

    def loss(self, model: nn.Module, batch: Batch) -> Step:
        if not batch.unlabeled:
            return Supervised().loss(model, batch)
        if batch.schedule_progress.starts_period(batch.step, self.period):
            self.relabel(batch)
        learned = batch.state["learned"][batch.unlabeled_ids]  # (M,)
        has_label = learned >= 0
        labels = has_label.sum()  # ()
        logits = model(batch.unlabeled[0]).float()
        total = F.cross_entropy(logits, learned, ignore_index=-1, reduction="sum")
        loss = total / labels.clamp_min(1)
        cost = UnlabeledCost(loss, learned.clamp_min(0), has_label)
        predicted = logits.detach().argmax(dim=1)
        agreement = (predicted == learned).sum() / labels.clamp_min(1)  # of network and graph
        logs = monitoring_logs(batch.state, cost, batch.schedule_progress.last)
        return Step(loss, {"unlabeled": loss} | logs | {"agreement": agreement})

    @torch.no_grad()
    def relabel(self, batch: Batch) -> None:
        """Write the labels of a new graph to `learned` in the state."""
        state = batch.state
        images, known, prior = state["images"], state["known"], state["prior"]
        now = _features(batch) if batch.step > 0 else None
        with devices.full_precision():
            x = F.normalize(state["first"].float())
            if now is not None:
                x = torch.cat([x, F.normalize(self._coordinates(now))], dim=1)
            given = known[images] >= 0
            labels = torch.zeros(len(x), len(prior), device=x.device)  # (U, K)
            one_hot = F.one_hot(known[images][given], len(prior)).to(labels)
            labels[given] = one_hot * seed_weights(one_hot, prior)
            alpha = self.alpha or default_alpha(len(x))
            scores = propagate(
                x.cpu(), labels.cpu(), self.neighbors, self.sharpness, alpha, self.spread_steps
            ).to(known.device)
        learned = torch.where(scores.sum(dim=1) > 0, scores.argmax(dim=1), -1)
        state["learned"][images] = torch.where(given, known[images], learned)

    def _coordinates(self, features: Tensor) -> Tensor:
        """(U, D) features → (U, R) coordinates in their principal axes."""
        return principal(features, self.rank).of(features)


def seed_weights(one_hot: Tensor, shares: Tensor) -> Tensor:
    """(K,) weight of each labelled image by its class: 1 in the mean where no class is missing.

    The labelled images of a class together weigh its share, however many they are.

    Args:
        one_hot: (n, K) labels.
        shares: (K,) class shares among all images.
    """
    counts = one_hot.sum(dim=0)
    return shares.to(one_hot) * len(one_hot) / counts.clamp_min(1)


def default_alpha(n: int) -> float:
    """alpha for n images: 0.9 up to 1,000 and 0.99 from 10,000 on.

    Chosen on digits, MNIST and Fashion-MNIST (benchmarks/log/semi_supervised.md).
    """
    return 1 - min(0.1, max(0.01, 100 / n))


def _features(batch: Batch) -> Tensor:
    """(U, D) float32 features of the graph's images by the averaged network.

    They are computed in the precision of the training.
    """
    assert isinstance(batch.averaged, Classifier) and batch.pixels is not None
    network, pixels = batch.averaged.eval(), batch.pixels[batch.state["images"]]
    parts = (network.features(part.float() / 255) for part in pixels.split(_BATCH))
    return torch.cat([part.float() for part in parts])
