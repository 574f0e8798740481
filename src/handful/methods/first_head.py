"""What networks with learned weights begin with: a fitted head, and their statistics."""

import torch
from torch import nn

from handful import models
from handful.methods.base import Task
from handful.methods.class_shares import best_temperature
from handful.methods.linear_head import Features
from handful.models.classifier import Classifier, embed


def has_learned_weights(task: Task) -> bool:
    """Whether the task's network has learned weights, from other images or without labels."""
    own = models.pretrained(task.backbone.name) and task.backbone.options.get("pretrained", True)
    return task.init is not None or bool(own)


def fitted_head(network: Classifier, task: Task) -> nn.Module:
    """A linear head fitted to the labelled images, its logits at their best temperature.

    A head of random weights would send random gradients through learned features. Where the labels
    are of one class, as in a fold of few labels, there is nothing to fit, and it stays random.
    """
    if len(task.labels[task.labeled].unique()) < 2:
        return network.head
    images = task.images[task.labeled.numpy()]
    # Torch trains the network, so the head must not learn from features in int8.
    precision = "fp32" if models.has_graph(task.backbone.name) else "auto"
    found = embed(images, network, task.size, task.aspect, precision, task.track)
    labels, classes = task.labels[task.labeled], len(task.classes)
    head = Features().fit_features(found.float(), labels, found[:0].float(), classes, seed=0)
    temperature = best_temperature(found.double(), labels, classes, seed=0)
    with torch.no_grad():
        head.weight.div_(temperature)
        head.bias.div_(temperature)
    return head


def freeze_norms(network: nn.Module) -> None:
    """Batch norms compute with the statistics that they have until `train()` is called again."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
