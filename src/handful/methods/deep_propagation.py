"""Label propagation for deep networks: a graph gives labels, a network learns them, in turns.

Iscen et al. 2019, "Label Propagation for Deep Semi-supervised Learning", arXiv:1904.04717. Labels
spread over a graph of nearest neighbours; a network learns the outcome for all images; its features
make the next graph. A group of images that a network alone takes for the wrong class, and learns
ever more surely, is put right where the graph knows better.

Where we differ:
- The first graph is made in pixels (or in the features that the network comes with), not in those
  of a network trained on the labels alone.
- These first coordinates stay in all later graphs, beside the features: what the network has come
  to believe is not its only judge.
- Every image counts the same, however sure its class is, and however common; labelled images have
  no share of the batch of their own.
- Neighbours are looked for in a few principal axes, and labels spread by steps of the power
  iteration instead of conjugate gradients.
- The learning rate stays high, and features are those of averaged weights: when it falls, the wrong
  labels are learned by heart (benchmarks/LOG.md).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful import devices, models
from handful.errors import HandfulError
from handful.methods.base import About, Batch, Step, Task, Views, classifier
from handful.methods.consistency import Cost, has_unlabeled, monitoring_logs
from handful.methods.heads import principal, prior_of
from handful.methods.propagation import propagate
from handful.methods.schedule import Schedule
from handful.methods.supervised import Supervised
from handful.models.classifier import Classifier, embed

_BATCH = 500  # images that go through a network at once for a graph
_BLURRED = 14  # pixels a side, about, that the first graph sees


@dataclass(frozen=True)
class DeepPropagation:
    """Hyper-parameters. A graph's time grows with the square of the images.

    60,000 digits: about 25 seconds a graph on one core (Zen 4).
    """

    period: int = 500  # steps from one graph to the next
    neighbors: int = 15  # k: edges of every image before the graph is made symmetric
    alpha: float = 0.0  # share of a score that neighbours give; 0: 0.9 to 0.99, by their number
    sharpness: float = 10.0  # gamma: edges weigh similarity to this power
    spread_steps: int = 80  # of the power iteration
    rank: int = 64  # principal axes of pixels, and of features, in which neighbours are looked for
    augment: str = "auto"  # pipeline of all images; auto: digits,+cut-out for grey, else strong

    name: ClassVar[str] = "deep_propagation"
    about: ClassVar[About] = About(
        "spreads labels over a graph of similar images, has a network learn them, and "
        "makes the next graph from what that sees",
        "A whole group of images that a network on its own takes for the wrong class is "
        "put right by the graph.",
        "It begins in pixels, so images must be alike there: photographs are not. A graph "
        "takes time that grows with the square of the images.",
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
        """`cnn` where it has room: a quarter of the time of `small`, and no worse on digits."""
        return "cnn" if channels == 1 and side >= 20 else "small"

    def schedule(self, task: Task) -> Schedule:
        """About three minutes of 60,000 28-pixel digits and the network `cnn` on two cores."""
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
        """What is known and what is learned of every image, and the coordinates that stay.

        known, learned: (N,) classes, -1 for none. images: (U,) positions in the graph. first:
        (U, R) float16, their coordinates before training. prior, used: (K,), see `monitors`.
        """
        prior = prior_of(task.labels[task.labeled], len(task.classes))
        known = torch.full_like(task.labels, -1)
        known[task.labeled] = task.labels[task.labeled]
        state = {"known": known, "learned": known.clone(), "prior": prior, "used": prior.clone()}
        if not has_unlabeled(task):
            return state
        first = self._coordinates(_first(task)).half()
        return state | {"images": task.training_pool, "first": first}

    def loss(self, model: nn.Module, batch: Batch) -> Step:
        if not batch.unlabeled:
            return Supervised().loss(model, batch)
        if batch.schedule_progress.starts_period(batch.step, self.period):
            self._relabel(batch)
        learned = batch.state["learned"][batch.unlabeled_ids]  # (M,)
        trusted = learned >= 0
        logits = model(batch.unlabeled[0]).float()
        total = F.cross_entropy(logits, learned, ignore_index=-1, reduction="sum")
        loss = total / trusted.sum().clamp_min(1)
        cost = Cost(loss, learned.clamp_min(0), trusted)
        guess = logits.detach().argmax(dim=1)
        agreement = (guess == learned).sum() / trusted.sum().clamp_min(1)  # of network and graph
        figures = monitoring_logs(batch.state, cost, batch.schedule_progress.last) | {
            "agreement": agreement
        }
        return Step(loss, {"unlabeled": loss} | figures)

    @torch.no_grad()
    def _relabel(self, batch: Batch) -> None:
        """Write in memory what a graph says now: (U,) classes to learn."""
        state = batch.state
        images, known, prior = state["images"], state["known"], state["prior"]
        now = _features(batch) if batch.step > 0 else None
        with devices.full_precision():
            x = F.normalize(state["first"].float())
            if now is not None:
                x = torch.cat([x, F.normalize(self._coordinates(now))], dim=1)
            given = known[images] >= 0
            labels = torch.zeros(len(x), len(prior), device=x.device)  # (U, K)
            labels[given] = F.one_hot(known[images][given], len(prior)).to(labels)
            alpha = self.alpha or default_alpha(len(x))
            scores = propagate(
                x.cpu(), labels.cpu(), self.neighbors, self.sharpness, alpha, self.spread_steps
            ).to(known.device)
        learned = torch.where(scores.sum(dim=1) > 0, scores.argmax(dim=1), -1)
        state["learned"][images] = torch.where(given, known[images], learned)

    def _coordinates(self, features: Tensor) -> Tensor:
        """(U, D) → (U, R)."""
        return principal(features, self.rank).of(features)


def default_alpha(n: int) -> float:
    """How far labels should travel among n images: 0.9 up to 1,000, 0.99 from 10,000 on.

    Chosen on digits, MNIST and Fashion-MNIST (benchmarks/LOG.md).
    """
    return 1 - min(0.1, max(0.01, 100 / n))


def _first(task: Task) -> Tensor:
    """(U, D): features that the network comes with, else the pixels of a blurred copy."""
    if task.init is not None or models.pretrained(task.backbone.name):
        images = task.images[task.training_pool.numpy()]
        return embed(images, classifier(task), task.size, task.aspect, "auto", task.track).float()
    pixels = task.pixels[task.training_pool]
    step = max(1, round(task.size / _BLURRED))
    return torch.cat(
        [
            F.avg_pool2d(some.float() / 255, step + 1, step, step // 2).flatten(1)
            for some in pixels.split(_BATCH)
        ]
    )


def _features(batch: Batch) -> Tensor:
    """(U, D) float32 features of the images of the graph, by the averaged network.

    They are made in the precision of the training.
    """
    assert isinstance(batch.averaged, Classifier) and batch.pixels is not None
    network, pixels = batch.averaged.eval(), batch.pixels[batch.state["images"]]
    parts = (network.features(some.float() / 255) for some in pixels.split(_BATCH))
    return torch.cat([part.float() for part in parts])
