"""Evaluate a network during training, and describe semi-supervised training in a sentence."""

import torch
import torch.nn.functional as F
from torch import nn

from handful import devices
from handful.data.splits import evenly_spaced
from handful.methods.base import Task
from handful.methods.heads import prior_of
from handful.models.feature_cache import trained_at_once
from handful.progress import Say

EVALUATION_LIMIT = 2_000  # most images of a part that an evaluation uses
_BATCH = 500  # images that are evaluated at once


def describe(say: Say, line: dict[str, float], steps: int, task: Task) -> None:
    """Say how semi-supervised training goes; nothing for other methods.

    Args:
        line: a record of the history.
        steps: number of the last step.
    """
    if "kept" not in line:
        return
    if "labeled" in line:
        labeled, unlabeled = line["labeled"], line["unlabeled"]
        loss = f"{labeled:.3f} on labelled and {unlabeled:.3f} on unlabelled images"
        who = "views agree"
    else:
        loss, who = f"{line['unlabeled']:.3f} on all images", "network and graph agree"
    agreed = f"{who} on {line['agreement']:.0%}; " if "agreement" in line else ""
    say(
        f"step {line['step']} of {steps}: loss {loss}, {line['kept']:.0%} of them used; {agreed}"
        f"{_shares(line, task)}{line['train_accuracy']:.0%} of the labelled images right"
    )


def _shares(line: dict[str, float], task: Task) -> str:
    """The distance of pseudo-label class shares from those of the labels, and the largest one.

    The shares of the other classes are in history.jsonl, unless there are many classes.
    """
    if not line["kept"]:
        return ""
    text = f"class shares of pseudo-labels off by {line['prior_distance']:.0%}"
    shares = [line.get(f"pseudo_{k}", 0.0) for k in range(len(task.classes))]
    if not sum(shares):
        return f"{text}; "
    prior = prior_of(task.labels[task.labeled], len(task.classes)).tolist()
    most = max(range(len(shares)), key=lambda k: abs(shares[k] - prior[k]))
    both = f"{shares[most]:.0%}, of the labels {prior[most]:.0%}"
    return f"{text} ({task.classes[most]}: {both}); "


class Monitor:
    """Evaluates a network on the labelled and the validation images, unaugmented.

    `chance` is the share of the most common label among the labelled images that it uses.

    Args:
        task: its `labeled` images are the part "train", its `validation` ones "validation".
        precision: fp32 or bf16.
    """

    def __init__(self, task: Task, precision: str) -> None:
        parts = {
            "train": task.labeled,
            "validation": torch.tensor(task.validation, dtype=torch.int64),
        }
        device = devices.device()
        self.parts = {
            name: (task.pixels_at(some).to(device), task.labels[some].to(device))
            for name, positions in parts.items()
            if len(some := evenly_spaced(positions, EVALUATION_LIMIT))
        }
        labels = self.parts["train"][1]
        # Computed like an accuracy, to the last bit, because the two are compared.
        self.chance = (labels == labels.bincount().argmax()).float().mean().item()
        self.precision = precision

    @torch.inference_mode()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        """{part}_loss in nats and {part}_accuracy in [0, 1], for each part that has images."""
        found = {}
        model.eval()
        for name, (pixels, labels) in self.parts.items():
            with devices.autocast(self.precision):
                parts = pixels.split(trained_at_once(pixels.shape[-1], _BATCH))
                logits = torch.cat([model(some.float() / 255) for some in parts])
            found[f"{name}_loss"] = F.cross_entropy(logits.float(), labels).item()
            found[f"{name}_accuracy"] = (logits.argmax(1) == labels).float().mean().item()
        return found
