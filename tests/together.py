"""What tests have several processes do together; a file of its own, since processes import it."""

import json
from pathlib import Path

import torch

from handful.methods.base import Task
from handful.training.batches import Batches
from handful.training.loop import begin, train
from handful.training.process_group import ALONE


def curves(group, reporter, jobs, folder=None):
    """The loss of each step, by job; where there is a folder, the process that leads writes them.

    Args:
        jobs: name → (method, task, schedule).
    """
    found = {name: curve(group, *job) for name, job in jobs.items()}
    if folder is not None and group.leads:
        (folder / "curves.json").write_text(json.dumps(found))
    return found


def curve(group, method, task: Task, schedule, seed=0):
    state = begin(method, task, schedule, seed, group)
    batches = Batches(task, method.views(task), schedule, seed, group)
    losses = []
    for progress in train(state, method, batches, schedule):
        losses.append(progress.logs["loss"].item())
    return losses


def alone(jobs):
    return curves(ALONE, None, jobs)


def read(folder: Path):
    return json.loads((folder / "curves.json").read_text())


def permuted(batches_class=Batches):
    torch.manual_seed(0)
