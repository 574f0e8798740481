"""The number format of a kind of training: timed once on a machine, then remembered in the cache.

Two formats that are about as fast would else be chosen by what else the machine was doing, and
equal commands would give models with other bits. The first choice holds until `precisions/` of the
cache folder is deleted; `handful cache clear` leaves it.
"""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from handful import devices
from handful.data.cache import cache_folder, locked
from handful.errors import HandfulError
from handful.files import write_json
from handful.methods.base import Task, Trained
from handful.methods.schedule import Schedule

FORMATS = ("fp32", "bf16")


def kind_of(method: Trained, task: Task, schedule: Schedule, processes: int = 1) -> dict[str, Any]:
    """What decides which format is faster: the machine, the network and the size of its batches.

    Args:
        processes: number of those that divide a batch.
    """
    return {
        "processor": devices.processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "method": method.name,
        "network": task.backbone.name,
        "options": task.backbone.options,
        "size": task.size,
        "channels": task.channels,
        "batch": schedule.batch // processes,
    }


def remembered(kind: dict[str, Any]) -> str | None:
    """The format that was chosen for this kind of training; None if none was, or it is damaged."""
    with suppress(HandfulError, OSError, ValueError, AttributeError):
        found = json.loads(_path(kind).read_bytes()).get("precision")
        return found if found in FORMATS else None
    return None


def remember(kind: dict[str, Any], precision: str) -> str:
    """Save the format for this kind of training; return the one that holds.

    That is another one where a process that measured at the same time was first. A cache that
    cannot be written is no error: the next training is then measured anew.
    """
    with suppress(HandfulError):
        path = _path(kind)
        with locked(path):
            if (first := remembered(kind)) is not None:
                return first
            write_json(path, {"precision": precision, "kind": kind})
    return precision


def _path(kind: dict[str, Any]) -> Path:
    words = json.dumps(kind, sort_keys=True, default=str).encode()
    name = hashlib.blake2b(words, digest_size=16).hexdigest()
    return cache_folder() / "precisions" / f"{name}.json"
