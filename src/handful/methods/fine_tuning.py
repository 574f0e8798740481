"""Fine-tuning: trains a pre-trained network on labels and pseudo-labels.

First a head on frozen features, the teacher, predicts the unlabelled images. Then the network is
trained on the labels and on pseudo-labels. These come from the head at first, and in a growing part
from the weight average on unaugmented images, aligned to class shares, given or estimated from the
features of the head.

By default only the last layers are trained, those after the network has reduced its maps for the
last time. The first layers never change then, so each image goes through them once, and a step
takes their outputs: it is several times as fast, and images of a larger size can be afforded. Such
maps are mirrored at random, and not augmented otherwise.

Source: Noisy Student (Xie et al. 2020, arXiv:1911.04252). Where we differ: the first teacher is a
head, and Mean Teacher (Tarvainen and Valpola 2017, arXiv:1703.01780) replaces later generations.

Letters in shapes: N images of the task, n labelled and m unlabelled ones of a batch, K classes, C
channels, S the side in pixels; maps are (n, C', h, w).
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful import devices, models
from handful.errors import HandfulError
from handful.methods.base import About, Batch, Step, Task, Views, classifier
from handful.methods.first_features import shares_for
from handful.methods.first_head import fitted_head, freeze_norms
from handful.methods.gaussian_mixture import GaussianMixture
from handful.methods.schedule import Schedule
from handful.methods.self_training import SelfTraining
from handful.models.classifier import BackboneSpec, Classifier, Normalize, embed
from handful.models.efficientnet_lite import MOST_STAGES
from handful.models.feature_cache import features, not_yet_known, seconds_per_image

LAST, ALL = "last", "all"
_TEACHING = "lite0+lite2"  # a head on both is right more often than one on either
_FIRST_HEADS = ("linear", "random")
_TEACHERS = {"gaussian_mixture": GaussianMixture, "self_training": SelfTraining}


@dataclass(frozen=True)
class FineTuning:
    """Cross-entropy on labels and on pseudo-labels of a head and of the weight average."""

    unlabeled_ratio: int = 4  # unlabelled images for each labelled one; 0: labels only
    unlabeled_weight: float = 1.0  # loss = labelled + unlabeled_weight * pseudo-labelled
    own_share: float = 0.5  # share of the weight average in pseudo-labels at the end; rises from 0
    label_smoothing: float = 0.1  # probability distributed evenly over all classes
    trained_layers: str = "auto"  # last, or all; auto: last where the network has them apart
    augment: str = "strong"  # a named pipeline, where all layers are trained
    embed_head: str = "gaussian_mixture"  # the head that gives pseudo-labels, or self_training
    embed_size: int = 0  # side in pixels of the images for the head; 0: as for the network
    embed_backbone: str = "auto"  # networks of the head; auto: lite0+lite2 for one of them
    first_head: str = "linear"  # the trained head starts as a fitted one, or "random"
    start_share: float = 0.0  # share of the weights before training in the saved ones
    frozen_norm: bool = True  # keep batch norm's statistics of the pre-training
    limit: int = 2_000  # unlabelled images at most, a random sample

    name: ClassVar[str] = "fine_tuning"
    about: ClassVar[About] = About(
        "trains a pre-trained network further",
        "The features adapt to the images, which gains most where labels are many.",
        "It takes longer than a head on fixed features. Where the guesses of that head are wrong, "
        "its own are wrong, too.",
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
        if self.trained_layers not in ("auto", LAST, ALL):
            raise HandfulError(
                f"trained_layers is auto, {LAST} or {ALL}, got {self.trained_layers!r}"
            )
        if self.limit < 1:
            raise HandfulError(f"limit must be 1 or more, got {self.limit}")
        for field in ("unlabeled_ratio", "unlabeled_weight", "embed_size"):
            if getattr(self, field) < 0:
                raise HandfulError(f"{field} must be 0 or more, got {getattr(self, field)}")

    def network(self, channels: int, side: int) -> str:
        return "lite2" if models.installed("lite2") else "lite0"

    def schedule(self, task: Task) -> Schedule:
        """Half a minute on one core for the last layers; of all layers the rate was not tuned."""
        last = self._last_layers(task)
        return Schedule(
            steps=120 if last else 480,
            batch=8,
            optimizer="adamw",
            lr=5e-4 if last else 1e-3,
            weight_decay=1e-4,
            warmup=0.05,
            average=0.995,
            looks=2 if last else 10,
        )

    def views(self, task: Task) -> Views:
        ratio = self.unlabeled_ratio
        pool = self._used(task) if ratio else None
        if self._last_layers(task):
            if self.augment != FineTuning.augment:
                raise HandfulError(
                    f"augment={self.augment} needs trained_layers={ALL}: the last layers are "
                    f"trained on maps, which can only be mirrored"
                )
            return Views(None, unlabeled_ratio=ratio, pool=pool, images=False)
        if not ratio:
            return Views(self.augment)
        plain = ("none",) if self.own_share else ()
        return Views(self.augment, (*plain, self.augment), ratio, pool)

    def build(self, task: Task) -> nn.Module:
        if not models.pretrained(task.backbone.name):
            raise HandfulError(
                f"fine_tuning starts from learned weights, and backbone {task.backbone.name!r} "
                f"has none; use --backbone lite0, or a method that needs no learned weights"
            )
        network, used = classifier(task), self._used(task)
        student = Student(network, self.frozen_norm)
        if self._last_layers(task):
            student.train_last_layers(task, used)
        if self.first_head == "linear":
            student.head = fitted_head(network, task)
        if self.unlabeled_ratio:
            student.pseudo_labels, student.prior = self._first_pseudo_labels(task, used)
        return student

    def loss(self, model: nn.Module, batch: Batch) -> Step:
        assert isinstance(model, Student)
        seen, plain, strong = model.inputs(batch)
        if strong is None:
            loss = self._cross_entropy(model.logits(seen), batch.labels)
            return Step(loss, {"loss": loss})
        logits = model.logits(torch.cat([seen, strong]))  # (n + m, K)
        on_labeled, on_strong = logits.split([len(seen), len(strong)])
        labeled = self._cross_entropy(on_labeled, batch.labels)
        target, changed = self._targets(model, batch, plain)
        unlabeled = self._cross_entropy(on_strong, target)
        return Step(
            labeled + self.unlabeled_weight * unlabeled,
            {"labeled": labeled, "guessed": unlabeled, "changed": changed},
        )

    def _last_layers(self, task: Task) -> bool:
        """Whether only the last layers of the task's network are trained."""
        has_maps = models.has_maps(task.backbone.name)
        has_maps &= task.backbone.options.get("stages", 1) <= MOST_STAGES
        if self.trained_layers == LAST and not has_maps:
            raise HandfulError(
                f"trained_layers={LAST} needs lite0, lite1 or lite2 with at most {MOST_STAGES} "
                f"stages; train all layers of {task.backbone.name!r} with trained_layers={ALL}"
            )
        return has_maps and self.trained_layers != ALL

    def _used(self, task: Task) -> Tensor:
        """(U,) positions of the labelled images, and of a sample of the others if any are used."""
        if not self.unlabeled_ratio:
            return task.labeled
        others = np.setdiff1d(task.training_pool.numpy(), task.labeled.numpy())
        # By a hash of the pixels, so that all folds and the last fit have one sample.
        prints = task.images.store.fingerprints[task.images.rows[others], :8]
        order = np.argsort(np.ascontiguousarray(prints).view("<u8").reshape(-1), kind="stable")
        some = torch.from_numpy(others[order[: self.limit]])
        return torch.cat([task.labeled, some]).sort().values

    def first_seconds(self, task: Task) -> float:
        """Seconds to compute the maps of the task that are not in the cache; 0 without maps."""
        if not self._last_layers(task):
            return 0.0
        network, images = classifier(task), task.images[self._used(task).numpy()]
        layers = FirstLayers(network.normalize, network.backbone)
        new = not_yet_known(images, layers, task.size, aspect=task.aspect)
        if not len(new):
            return 0.0
        return len(new) * seconds_per_image(new, layers, task.size, aspect=task.aspect)

    @torch.no_grad()
    def _targets(
        self, model: "Student", batch: Batch, plain: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(m,) pseudo-labels, and () the share of them that differ from the head's.

        Args:
            plain: (m, C, S, S) images without augmentation, or maps of them; None where
                `own_share` is 0.
        """
        assert batch.unlabeled_ids is not None
        head = model.pseudo_labels[batch.unlabeled_ids.to(model.pseudo_labels.device)]  # (m, K)
        share = self.own_share * batch.progress
        if share == 0 or plain is None:
            return head.argmax(dim=1), torch.zeros(())
        assert isinstance(batch.averaged, Student)
        own = batch.averaged.eval().logits(plain).float().softmax(dim=1)
        seen = (own.sum(dim=0) + len(model.prior) * model.prior) / (len(own) + len(model.prior))
        own = own * model.prior / seen  # aligned within the batch, with a prior for its small size
        own = own / own.sum(dim=1, keepdim=True)
        target = ((1 - share) * head + share * own).argmax(dim=1)
        return target, (target != head.argmax(dim=1)).float().mean()

    def _cross_entropy(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)

    def _first_pseudo_labels(self, task: Task, used: Tensor) -> tuple[Tensor, Tensor]:
        """(N, K) probabilities of the head for the images at `used`, and (K,) class shares.

        The probabilities of a labelled image are its label, one-hot; those of images that are not
        used are 0.
        """
        name = self.embed_backbone or task.backbone.name
        if name == "auto":
            lite = models.has_maps(task.backbone.name) and models.installed(_TEACHING)
            name = _TEACHING if lite else task.backbone.name
        if not models.pretrained(name):
            raise HandfulError(
                f"embed_backbone has no learned weights, got {name!r}; name pre-trained "
                f"networks, as in lite0+lite2, or leave it out"
            )
        labels, classes = task.labels[task.labeled], len(task.classes)
        probabilities = torch.zeros(len(task.images), classes)
        if len(labels.unique()) < 2:  # as in a fold of few labels: there is nothing to fit
            only = F.one_hot(labels[0], classes).float()
            probabilities[used] = only
            return probabilities.to(devices.device()), only.to(devices.device())
        stages = {"stages": 3} if models.multi_stage(name) else {}
        own = task.backbone.options if name == task.backbone.name else {}
        spec = BackboneSpec(name, own | stages)
        size = self.embed_size or task.size
        frozen = classifier(replace(task, backbone=spec, size=size))
        images = task.images[used.numpy()]
        pool = embed(images, frozen, size, task.aspect, "auto", task.track)
        known = pool[torch.isin(used, task.labeled)]
        shares = shares_for(task, pool, used)
        teacher = _TEACHERS[self.embed_head]()
        head = teacher.fit_features(known, labels, pool, classes, seed=0, shares=shares)
        with torch.no_grad():
            probabilities[used] = head(pool.float()).softmax(dim=1)
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
        self.maps: Maps | None = None  # where only the last layers are trained
        self.register_buffer("pseudo_labels", torch.zeros(0, classes), persistent=False)
        self.register_buffer("prior", torch.zeros(classes), persistent=False)

    def train_last_layers(self, task: Task, used: Tensor) -> None:
        """Freeze the other layers, and compute what they give for the images at (U,) `used`."""
        self.backbone.requires_grad_(False)
        for layer in cast(Any, self.backbone).after_maps:
            layer.requires_grad_(True)
        self.maps = Maps(FirstLayers(self.normalize, self.backbone), task, used)

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The inputs of `logits`: labelled, then unlabelled ones plain and augmented, if any."""
        if self.maps is None:
            *plain, strong = batch.unlabeled or (None,)
            return batch.images, plain[0] if plain else None, strong
        assert batch.ids is not None
        seen = self.maps.mirrored(self.maps.at(batch.ids))
        if batch.unlabeled_ids is None:
            return seen, None, None
        plain_maps = self.maps.at(batch.unlabeled_ids)
        return seen, plain_maps, self.maps.mirrored(plain_maps)

    def logits(self, inputs: Tensor) -> Tensor:
        """(n, K) of images, or of maps where only the last layers are trained."""
        if self.maps is None:
            return self(inputs)
        found = cast(Any, self.backbone).of_maps(inputs)
        return self.head(self.dropout(found))

    def classifier(self) -> Classifier:
        """The network without what only its training needs."""
        classes = int(self.head.out_features)  # type: ignore[arg-type]
        plain = Classifier(self.backbone, classes, self.normalize, self.dropout.p)
        plain.head = self.head
        return plain

    def train(self, mode: bool = True) -> "Student":
        super().train(mode)
        if mode and self.frozen_norm:
            freeze_norms(self)
        return self


class FirstLayers(nn.Module):
    """(N, C, S, S) in [0, 1] -> (N, C' h w): the maps that the last layers take, flattened."""

    def __init__(self, normalize: Normalize, backbone: nn.Module) -> None:
        super().__init__()
        self.normalize, self.backbone = normalize, backbone

    def forward(self, images: Tensor) -> Tensor:
        return self.maps(images).flatten(1)

    def maps(self, images: Tensor) -> Tensor:
        """(N, C', h, w)."""
        return cast(Any, self.backbone).maps(self.normalize(images))


class Maps:
    """The outputs of layers that never change, which all copies of a network share.

    Args:
        layers: the first layers of the network.
        used: (U,) positions in the task, whose maps are computed, or read from the cache.
    """

    def __init__(self, layers: FirstLayers, task: Task, used: Tensor) -> None:
        images, shape = task.images[used.numpy()], (1, task.channels, task.size, task.size)
        how: Any = {"aspect": task.aspect, "track": task.track}
        layers = layers.eval()
        found = features(images, layers, task.size, **how)  # it moves the layers to the device
        device = next(layers.parameters()).device
        with torch.no_grad():
            zeros = torch.zeros(shape, device=device)
            *_, channels, height, width = layers.maps(zeros).shape
        self.found = found.unflatten(1, (channels, height, width)).to(device)
        self.rows = torch.full((len(task.images),), -1)
        self.rows[used] = torch.arange(len(used))
        self.flips = task.flips

    def __deepcopy__(self, memo: dict[int, Any]) -> "Maps":
        return self

    def at(self, positions: Tensor) -> Tensor:
        """(n, C', h, w) float32, of images at (n,) positions in the task."""
        rows = self.rows[positions.cpu()].to(self.found.device)
        return self.found[rows].float().contiguous(memory_format=torch.channels_last)

    def mirrored(self, maps: Tensor) -> Tensor:
        """Each of the maps mirrored left to right, or not, at random, if the task allows it."""
        if not self.flips:
            return maps
        some = (torch.rand(len(maps)) < 0.5).view(-1, 1, 1, 1).to(maps.device)
        return torch.where(some, maps.flip(-1), maps)
