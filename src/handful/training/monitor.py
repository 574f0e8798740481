"""Monitor a training: loss and accuracy on labelled images, and a sentence about them."""

import torch
import torch.nn.functional as F
from torch import nn

from handful import devices
from handful.data.splits import evenly_spaced
from handful.methods.base import Task
from handful.methods.heads import prior_of
from handful.progress import Say

EVALUATION_LIMIT = 2_000  # images of a part, at most, that a look at its loss goes through


def describe(say: Say, line: dict[str, float], steps: int, task: Task) -> None:
    """How semi-supervised training goes, at one look; of other methods nothing is said."""
    if "kept" not in line:
        return
    if "labeled" in line:
        loss = f"{line['labeled']:.3f} on labels and {line['unlabeled']:.3f} on the others"
        who = "views agree"
    else:
        loss, who = f"{line['unlabeled']:.3f} on all images", "network and graph agree"
    agreed = f"{who} on {line['agreement']:.0%}; " if "agreement" in line else ""
    say(
        f"step {line['step']} of {steps}: loss {loss}, {line['kept']:.0%} of them used; {agreed}"
        f"{_shares(line, task)}{line['train_accuracy']:.0%} of the labels right"
    )


def _shares(line: dict[str, float], task: Task) -> str:
    """How far class shares of the guesses are from those of the labels, and which one most.

    The others are in history.jsonl, unless there are many classes.
    """
    if not line["kept"]:
        return ""
    text = f"class shares {line['prior_distance']:.0%} off"
    guessed = [line.get(f"pseudo_{k}", 0.0) for k in range(len(task.classes))]
    if not sum(guessed):
        return f"{text}; "
    prior = prior_of(task.labels[task.labeled], len(task.classes)).tolist()
    most = max(range(len(guessed)), key=lambda k: abs(guessed[k] - prior[k]))
    of = f"{guessed[most]:.0%}, of the labels {prior[most]:.0%}"
    return f"{text} ({task.classes[most]}: {of}); "


class Monitor:
    """Loss and accuracy of a network on the labelled and the validation images, unaugmented.

    `chance` is the share of the commonest label among the labelled images that are looked at.
    """

    def __init__(self, task: Task, precision: str) -> None:
        parts = {
            "train": task.labeled,
            "validation": torch.tensor(task.validation, dtype=torch.int64),
        }
        device = devices.device()
        self.parts = {
            name: (task.pixels[some].to(device), task.labels[some].to(device))
            for name, positions in parts.items()
            if len(some := evenly_spaced(positions, EVALUATION_LIMIT))
        }
        labels = self.parts["train"][1]
        # As an accuracy is computed, digit for digit: the two are compared.
        self.chance = (labels == labels.bincount().argmax()).float().mean().item()
        self.precision = precision

    @torch.inference_mode()
    def __call__(self, model: nn.Module) -> dict[str, float]:
        found = {}
        model.eval()
        for name, (pixels, labels) in self.parts.items():
            with devices.autocast(self.precision):
                logits = torch.cat([model(some.float() / 255) for some in pixels.split(500)])
            found[f"{name}_loss"] = F.cross_entropy(logits.float(), labels).item()
            found[f"{name}_accuracy"] = (logits.argmax(1) == labels).float().mean().item()
        return found
