"""Fine-tuning: trains a pre-trained network on labels and pseudo-labels.

First a head on frozen features, the teacher, predicts every unlabelled image. Then the whole
network is trained, under augmentation, on the labels and on pseudo-labels. These come from the
head at first, and in a growing part from the weight average on unaugmented images, aligned to class
shares, given or estimated from the features of the head.

Source: Noisy Student (Xie et al. 2020, arXiv:1911.04252). Where we differ: the first teacher is a
head, and Mean Teacher (Tarvainen and Valpola 2017, arXiv:1703.01780) replaces later generations.
"""

from dataclasses import dataclass, replace
from itertools import chain
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful import devices, models
from handful.errors import HandfulError
from handful.methods.base import About, Batch, Step, Task, Views, classifier
from handful.methods.first_features import shares_for
from handful.methods.first_head import fitted_head
from handful.methods.gaussian_mixture import GaussianMixture
from handful.methods.schedule import Schedule
from handful.methods.self_training import SelfTraining
from handful.models.classifier import BackboneSpec, Classifier, embed

_FIRST_HEADS = ("linear", "random")
_TEACHERS = {"gaussian_mixture": GaussianMixture, "self_training": SelfTraining}


@dataclass(frozen=True)
class FineTuning:
    """Cross-entropy on labels and on pseudo-labels of a head and of the weight average."""

    unlabeled_ratio: int = 8  # unlabelled images for each labelled one; 0: labels only
    unlabeled_weight: float = 1.0  # loss = labelled + unlabeled_weight * pseudo-labelled
    own_share: float = 0.5  # share of the weight average in pseudo-labels at the end; rises from 0
    label_smoothing: float = 0.1  # probability distributed evenly over all classes
    augment: str = "strong"  # a named pipeline
    embed_head: str = "gaussian_mixture"  # the head that gives pseudo-labels, or self_training
    embed_size: int = 160  # side in pixels of the images for the head
    embed_backbone: str = ""  # networks of the head, as in lite0+lite2; "": the trained one
    first_head: str = "linear"  # the trained head starts as a fitted one, or "random"
    start_share: float = 0.0  # share of the weights before training in the saved ones
    frozen_norm: bool = False  # keep batch norm's statistics of the pre-training
    frozen_parts: int = 0  # number of lite's nine parts, from the input on, that are not trained

    name: ClassVar[str] = "fine_tuning"
    about: ClassVar[About] = About(
        "trains a pre-trained network further",
        "The features adapt to the images, which gains most where labels are many.",
        "The slowest method on learned weights, and with very few labels it can be worse than "
        "a head on fixed features.",
        uses_unlabeled=True,
        counterpart="features",
        learned_weights=True,
    )

    def __post_init__(self) -> None:
        for field in ("own_share", "label_smoothing", "start_share"):
            if not 0 <= getattr(self, field) <= 1:
                raise HandfulError(f"{field} lies in [0, 1], got {getattr(self, field)}")
        if self.embed_head not in _TEACHERS:
            raise HandfulError(f"embed_head is {' or '.join(_TEACHERS)}, got {self.embed_head!r}")
        if self.first_head not in _FIRST_HEADS:
            raise HandfulError(
                f"first_head is {' or '.join(_FIRST_HEADS)}, got {self.first_head!r}"
            )
        if self.start_share and self.first_head == "random":
            raise HandfulError(
                f"start_share={self.start_share} needs a first head that is fitted; leave out "
                f"first_head=random"
            )
        for field in ("unlabeled_ratio", "unlabeled_weight", "frozen_parts"):
            if getattr(self, field) < 0:
                raise HandfulError(f"{field} must be 0 or more, got {getattr(self, field)}")

    def network(self, channels: int, side: int) -> str:
        return "lite0"

    def schedule(self, task: Task) -> Schedule:
        """Five to ten minutes for 96-pixel images on two cores; the rate was not tuned."""
        return Schedule(
            steps=480,
            batch=8,
            optimizer="adamw",
            lr=1e-3,
            weight_decay=1e-4,
            warmup=0.05,
            average=0.995,
        )

    def views(self, task: Task) -> Views:
        if not self.unlabeled_ratio:
            return Views(self.augment)
        plain = ("none",) if self.own_share else ()
        return Views(self.augment, (*plain, self.augment), self.unlabeled_ratio)

    def build(self, task: Task) -> nn.Module:
        if not models.pretrained(task.backbone.name):
            raise HandfulError(
                f"fine_tuning starts from learned weights, and backbone {task.backbone.name!r} "
                f"has none; use --backbone lite0, or a method that needs no learned weights"
            )
        network = classifier(task)
        self._freeze(network.backbone, task.backbone.name)
        student = Student(network, self.frozen_norm)
        if self.first_head == "linear":
            student.head = fitted_head(network, task)
        if self.unlabeled_ratio:
            student.pseudo_labels, student.prior = self._first_pseudo_labels(task)
        return student

    def loss(self, model: nn.Module, batch: Batch) -> Step:
        assert isinstance(model, Student)
        if not batch.unlabeled:
            loss = self._cross_entropy(model(batch.images), batch.labels)
            return Step(loss, {"loss": loss})
        *plain, strong = batch.unlabeled  # (M, C, S, S) each
        logits = model(torch.cat([batch.images, strong]))  # (N + M, K)
        on_labeled, on_strong = logits.split([len(batch.images), len(strong)])
        labeled = self._cross_entropy(on_labeled, batch.labels)
        target, changed = self._targets(model, batch, *plain)
        unlabeled = self._cross_entropy(on_strong, target)
        return Step(
            labeled + self.unlabeled_weight * unlabeled,
            {"labeled": labeled, "guessed": unlabeled, "changed": changed},
        )

    def _freeze(self, backbone: nn.Module, name: str) -> None:
        if not self.frozen_parts:
            return
        parts: list[list[nn.Module]] | None = getattr(backbone, "parts", None)
        if parts is None:
            raise HandfulError(
                f"frozen_parts={self.frozen_parts} needs lite0, lite1 or lite2; train all of "
                f"{name!r} with frozen_parts=0"
            )
        if self.frozen_parts > len(parts):
            raise HandfulError(
                f"frozen_parts is 0 to {len(parts)} for {name!r}, got {self.frozen_parts}"
            )
        for module in chain.from_iterable(parts[: self.frozen_parts]):
            module.requires_grad_(False)

    @torch.no_grad()
    def _targets(
        self, model: "Student", batch: Batch, plain: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(M,) pseudo-labels, and () the share of them that differ from the head's.

        Args:
            plain: (M, C, S, S) images without augmentation; None where `own_share` is 0.
        """
        assert batch.unlabeled_ids is not None
        head = model.pseudo_labels[batch.unlabeled_ids.to(model.pseudo_labels.device)]  # (M, K)
        share = self.own_share * batch.progress
        if share == 0 or plain is None:
            return head.argmax(dim=1), torch.zeros(())
        assert isinstance(batch.averaged, Classifier)
        own = batch.averaged.eval()(plain).float().softmax(dim=1)
        seen = (own.sum(dim=0) + len(model.prior) * model.prior) / (len(own) + len(model.prior))
        own = own * model.prior / seen  # aligned within the batch, with a prior for its small size
        own = own / own.sum(dim=1, keepdim=True)
        target = ((1 - share) * head + share * own).argmax(dim=1)
        return target, (target != head.argmax(dim=1)).float().mean()

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)

    def _first_pseudo_labels(self, task: Task) -> tuple[Tensor, Tensor]:
        """(N, K) probabilities of the head for all images, and (K,) class shares.

        The probabilities of a labelled image are its label, one-hot.
        """
        name = self.embed_backbone or task.backbone.name
        if not models.pretrained(name):
            raise HandfulError(
                f"embed_backbone has no learned weights, got {name!r}; name pre-trained "
                f"networks, as in lite0+lite2, or leave it out"
            )
        stages = {"stages": 3} if models.multi_stage(name) else {}
        own = task.backbone.options if name == task.backbone.name else {}
        spec = BackboneSpec(name, own | stages)
        frozen = classifier(replace(task, backbone=spec, size=self.embed_size))
        features = embed(task.images, frozen, self.embed_size, task.aspect, "auto", task.track)
        labels = task.labels[task.labeled]
        known, pool = features[task.labeled], features[task.training_pool]
        classes = len(task.classes)
        shares = shares_for(task, pool, task.training_pool)
        teacher = _TEACHERS[self.embed_head]()
        head = teacher.fit_features(known, labels, pool, classes, seed=0, shares=shares)
        with torch.no_grad():
            probabilities = head(features.float()).softmax(dim=1)
        probabilities[task.labeled] = F.one_hot(labels, classes).float()
        return probabilities.to(devices.device()), shares.to(devices.device())


class Student(Classifier):
    """A classifier with its pseudo-labels in buffers; only the classifier is saved."""

    pseudo_labels: Tensor  # (N, K) probabilities of the head for all images of the task
    prior: Tensor  # (K,) class shares among all images

    def __init__(self, network: Classifier, frozen_norm: bool) -> None:
        classes = int(network.head.out_features)  # type: ignore[arg-type]
        super().__init__(network.backbone, classes, network.normalize, network.dropout.p)
        self.frozen_norm = frozen_norm
        self.register_buffer("pseudo_labels", torch.zeros(0, classes), persistent=False)
        self.register_buffer("prior", torch.zeros(classes), persistent=False)

    def train(self, mode: bool = True) -> "Student":
        super().train(mode)
        for module in self.modules() if mode else ():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                trained = all(weight.requires_grad for weight in module.parameters())
                module.train(trained and not self.frozen_norm)
        return self
