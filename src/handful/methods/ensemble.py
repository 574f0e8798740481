"""Ensemble: two classifiers answer together, a head on frozen features and a trained network.

The logits of the two, each at its own temperature, are added with weights. `auto` finds the weights
from predictions out of fold, as in stacking, and makes no ensemble where one of the two is best
alone. Their mistakes differ, since the one knows other images and the other has learned from these
only, so together they are often right more often than either.

Stacking: Wolpert 1992, "Stacked generalization", Neural Networks 5. Adding logits is a product of
experts: Hinton 2002, "Training products of experts by minimizing contrastive divergence", Neural
Computation 14.

Letters in shapes: N images, K classes, D features.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import torch
from torch import nn

from handful import models
from handful.data.imageset import ImageSet
from handful.methods.base import About
from handful.models.classifier import BackboneSpec, Classifier, Normalize, Predictor
from handful.models.ensemble import reduction


@dataclass(frozen=True)
class Ensemble:
    """The members of an ensemble, which `auto` fits one after the other."""

    head: str  # the method that fits a head on frozen features
    trained: str  # the method that trains a network
    head_temperature: float  # divides the logits of the head
    trained_temperature: float  # divides the logits of the network
    weight: float  # of the network, in (0, 1); the head has the rest

    name: ClassVar[str] = "ensemble"
    about: ClassVar[About] = About(
        "lets two classifiers answer together: one on features that a network learned from other "
        "images, and a network trained on these images alone",
        "The two make different mistakes, so together they are often right more often than either. "
        "How much each counts follows from labelled images that it did not see.",
        "It takes the time of both.",
        uses_unlabeled=True,
        learned_weights=True,
    )


def joined(method: Ensemble, head: Predictor, trained: Predictor, images: ImageSet) -> Predictor:
    """The predictor whose logits are the weighted mean of those of two predictors.

    It takes images at the size of the head's; the trained network sees them at its own.

    Args:
        head: has a frozen network and a linear head.
        trained: has a linear head.
        images: the mean length of their features in the trained network becomes 1, so that neither
            part of the features outweighs the other in distances.
    """
    spec = spec_of(head.backbone, trained.backbone, trained.size)
    backbone: Any = models.make(
        spec.name, head.channels, head.size, **spec.options, pretrained=False
    )
    length = trained.features(images).norm(dim=1).mean().clamp_min(1e-6)
    backbone.frozen, beside = head.model.backbone, backbone.trained
    beside.network, constants = trained.model.backbone, trained.model.normalize
    beside.own_mean, beside.own_std, beside.length = constants.mean, constants.std, length
    if images.native_size is not None and max(images.native_size) < head.size:
        beside.reduction = reduction(head.size, trained.size, enlarged=True)
    normalize = Normalize(list(backbone.mean), list(backbone.std))
    model = Classifier(backbone, len(head.classes), normalize)
    one, other, both = (cast(nn.Linear, x.head) for x in (head.model, trained.model, model))
    share = (1 - method.weight) / method.head_temperature
    share_of_other = method.weight / method.trained_temperature
    with torch.no_grad():
        weights = share * one.weight.cpu(), share_of_other * length.cpu() * other.weight.cpu()
        both.weight.copy_(torch.cat(weights, dim=1))
        both.bias.copy_(share * one.bias.cpu() + share_of_other * other.bias.cpu())
    return replace(head, model=model, backbone=spec, temperature=1.0)


def spec_of(frozen: BackboneSpec, trained: BackboneSpec, side: int) -> BackboneSpec:
    """The backbone of an ensemble, as plain data.

    Args:
        side: of the images of the trained network, in pixels.
    """
    options = {
        "networks": frozen.name,
        "stages": frozen.options.get("stages", 1),
        "trained": trained.name,
        "options": dict(trained.options),
        "side": side,
    }
    return BackboneSpec(models.ENSEMBLE, options)
