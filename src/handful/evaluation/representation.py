"""Measure features during self-supervised pre-training, and describe their collapse.

The metrics are computed on the features of the averaged network for a sample of the images, without
augmentation except for the alignment. They need no labels. Where labels exist, a nearest-neighbour
accuracy is measured too.

Letters in shapes: N images, D features.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful import devices
from handful.data.augmentation.pipelines import Pipeline
from handful.evaluation.probes import neighbor_accuracy
from handful.methods.base import Task
from handful.methods.schedule import ScheduleProgress

SAMPLE = 1_000  # images measured, at most
LABELED = 2_000  # labelled images for the nearest-neighbour accuracy, at most
CONSTANT = 0.01  # spread below which features count as constant


def spread(features: Tensor) -> float:
    """Mean standard deviation of the dimensions of unit-length features (N, D), times sqrt(D).

    0 where all images have equal features; 1 where features lie evenly around the origin.
    """
    unit = F.normalize(features.float(), dim=1)
    return (unit.std(dim=0).mean() * features.shape[1] ** 0.5).item()


def alignment(a: Tensor, b: Tensor) -> float:
    """Mean squared distance on the unit sphere of two views (N, D) of each image; 0 if equal.

    Source: Wang and Isola 2020, arXiv:2005.10242, section 4.1.1, with alpha = 2.
    """
    return (F.normalize(a.float()) - F.normalize(b.float())).square().sum(dim=1).mean().item()


def uniformity(features: Tensor) -> float:
    """Log of the mean of exp(-2 distance²) over all pairs of features (N, D) on the unit sphere.

    0 where all features are equal; lower where they are spread more evenly.

    Source: Wang and Isola 2020, arXiv:2005.10242, section 4.1.2, with t = 2.
    """
    distances = torch.pdist(F.normalize(features.float()))  # (N (N - 1) / 2,)
    return distances.square().mul(-2).exp().mean().log().item()


def effective_rank(features: Tensor) -> float:
    """Effective dimension of features (N, D): exp of the entropy of their principal variances.

    Source: Roy and Vetterli 2007, "The effective rank"; on the eigenvalues of the covariance.
    """
    centred = features.double() - features.double().mean(dim=0)
    wide = centred.shape[0] < centred.shape[1]
    gram = (
        centred @ centred.T if wide else centred.T @ centred
    )  # both have the same non-zero values
    values = torch.linalg.eigvalsh(gram).clamp_min(0)
    total = values.sum()
    if total == 0:
        return 0.0
    return torch.special.entr(values / total).sum().exp().item()


class Health:
    """Metrics of a network's features; call it at every evaluation during training.

    Args:
        view: the augmentation that makes the second view of an image, for the alignment.
    """

    def __init__(self, task: Task, view: Pipeline, precision: str) -> None:
        pool = task.training_pool
        some = pool[:: max(1, -(-len(pool) // SAMPLE))]
        self.plain = task.pixels[some]
        generator = torch.Generator().manual_seed(0)
        self.view = view(self.plain, generator)
        known = task.labeled[:: max(1, -(-len(task.labeled) // LABELED))]
        self.known, self.labels = task.pixels[known], task.labels[known]
        self.classes = len(task.classes)
        self.precision = precision

    def __call__(self, model: nn.Module) -> dict[str, float]:
        represent = representation(model, self.precision)
        plain = represent(self.plain)
        found = {
            "spread": spread(plain),
            "alignment": alignment(plain, represent(self.view)),
            "uniformity": uniformity(plain),
            "rank": effective_rank(plain),
        }
        if len(self.labels.unique()) > 1:
            found["knn_accuracy"] = neighbor_accuracy(
                represent(self.known), self.labels, self.classes
            )
        return found


def representation(model: nn.Module, precision: str) -> Callable[[Tensor], Tensor]:
    """A function from images to features, for a model with `normalize` and `backbone`.

    It maps (N, C, S, S), uint8 or float in [0, 1], to (N, D) float32 on the CPU.
    """

    def represent(images: Tensor) -> Tensor:
        model.eval()
        rows = []
        with torch.inference_mode(), devices.autocast(precision):
            for some in images.split(250):
                some = some.to(devices.device())
                some = some if some.is_floating_point() else some.float() / 255
                found = model.backbone(model.normalize(some))  # type: ignore[operator]
                rows.append(found.float().cpu())
        return torch.cat(rows)

    return represent


def collapse(line: dict[str, float], progress: ScheduleProgress) -> str | None:
    """The collapse that one evaluation's metrics show, as a sentence, or None.

    No collapse is reported early in the schedule, see `ScheduleProgress.is_early`.
    """
    if progress.is_early(line["step"]) or "spread" not in line:
        return None
    where = f"at step {line['step']:.0f} of {progress.last}"
    if line["spread"] < CONSTANT:
        return (
            f"the features have collapsed {where}: they are the same for every image (spread "
            f"{line['spread']:.4f}, 1 is even)"
        )
    if line["rank"] < 1.5:
        return (
            f"the features have collapsed {where}: they lie on one line (effective rank "
            f"{line['rank']:.1f})"
        )
    return None
