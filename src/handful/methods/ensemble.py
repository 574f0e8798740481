"""Ensemble: classifiers answer together, a head on frozen features and one or two trained networks.

Their logits, each at its own temperature, are added with weights. `auto` finds the weights from
predictions out of fold, as in stacking, and makes no ensemble where one of them is best alone.
Their mistakes differ, since the head knows other images, and a network trained from scratch has
learned from these only, so together they are often right more often than each.

Stacking: Wolpert 1992, "Stacked generalization", Neural Networks 5. Adding logits is a product of
experts: Hinton 2002, "Training products of experts by minimizing contrastive divergence", Neural
Computation 14.

Letters in shapes: N images, K classes, D features.
"""

from collections.abc import Sequence
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
    trained: tuple[str, ...]  # the methods that train a network, one or two
    head_temperature: float  # divides the logits of the head
    trained_temperature: tuple[float, ...]  # divide the logits of the networks
    weight: tuple[float, ...]  # of each network, above 0; the head has the rest of 1

    name: ClassVar[str] = "ensemble"
    about: ClassVar[About] = About(
        "lets classifiers answer together: one on features that a network learned from other "
        "images, and one or two networks trained on these images",
        "They make different mistakes, so together they are often right more often than each. "
        "How much each counts follows from labelled images that it did not see.",
        "It takes the time of all of them.",
        uses_unlabeled=True,
        learned_weights=True,
    )


def joined(
    method: Ensemble, head: Predictor, trained: Sequence[Predictor], images: ImageSet
) -> Predictor:
    """The predictor whose logits are the weighted mean of those of several predictors.

    It takes images at the size of the head's; each trained network sees them at its own.

    Args:
        head: has a frozen network and a linear head.
        trained: have linear heads.
        images: the mean length of their features in a trained network becomes 1, so that no part of
            the features outweighs the others in distances.
    """
    spec = spec_of(head.backbone, [(one.backbone, one.size) for one in trained])
    backbone: Any = models.make(
        spec.name, head.channels, head.size, **spec.options, pretrained=False
    )
    backbone.frozen = head.model.backbone
    first = cast(nn.Linear, head.model.head)
    share = (1 - sum(method.weight)) / method.head_temperature
    weights, bias = [share * first.weight.cpu()], share * first.bias.cpu()
    enlarged = images.native_size is not None and max(images.native_size) < head.size
    shares = zip(method.weight, method.trained_temperature, strict=True)
    for one, beside, (weight, temperature) in zip(trained, backbone.beside, shares, strict=True):
        length = one.features(images).norm(dim=1).mean().clamp_min(1e-6)
        beside.network, constants = one.model.backbone, one.model.normalize
        beside.own_mean, beside.own_std, beside.length = constants.mean, constants.std, length
        if enlarged:
            beside.reduction = reduction(head.size, one.size, enlarged=True)
        last, share = cast(nn.Linear, one.model.head), weight / temperature
        weights.append(share * length.cpu() * last.weight.cpu())
        bias = bias + share * last.bias.cpu()
    normalize = Normalize(list(backbone.mean), list(backbone.std))
    model = Classifier(backbone, len(head.classes), normalize)
    both = cast(nn.Linear, model.head)
    with torch.no_grad():
        both.weight.copy_(torch.cat(weights, dim=1))
        both.bias.copy_(bias)
    return replace(head, model=model, backbone=spec, temperature=1.0)


def spec_of(frozen: BackboneSpec, trained: Sequence[tuple[BackboneSpec, int]]) -> BackboneSpec:
    """The backbone of an ensemble, as plain data.

    Args:
        trained: one or two networks, and the side of the images of each in pixels.
    """
    first, *others = (
        {"trained": spec.name, "options": dict(spec.options), "side": side}
        for spec, side in trained
    )
    frozen_part = {"networks": frozen.name, "stages": frozen.options.get("stages", 1)}
    other = {"other": others[0]} if others else {}
    return BackboneSpec(models.ENSEMBLE, {**frozen_part, **first, **other})
