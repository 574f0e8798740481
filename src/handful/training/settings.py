"""The settings that determine a training, beside its images and seed, and their fingerprint."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from handful.methods.base import Method, Task, as_json
from handful.methods.consistency import Consistency
from handful.methods.first_head import has_learned_weights
from handful.methods.schedule import Schedule
from handful.models.classifier import BackboneSpec

# Fields that earlier versions did not have, with the values at which a training is as it was.
_ADDED: dict[str, Any] = {"layer_decay": 1.0, "start_share": 0.0}
_ADDED_TO_CONSISTENCY = _ADDED | {"first_head": "auto", "frozen_norm": False}


@dataclass(frozen=True)
class Settings:
    """Everything that determines a training, except its images and its seed."""

    method: Method
    schedule: Schedule | None  # None for a method that fits a head on features
    backbone: BackboneSpec
    precision: str = "auto"  # auto, fp32 or bf16

    def as_json(self) -> dict[str, Any]:
        return {
            "method": as_json(self.method),
            "schedule": asdict(self.schedule) if self.schedule else None,
            "backbone": asdict(self.backbone),
            "precision": self.precision,
        }

    def identity(self, task: Task) -> dict[str, Any]:
        """`as_json` for a fingerprint, without fields of `_ADDED` that change nothing.

        So unfinished runs and cached results of versions without these fields are still found.
        """
        whole = self.as_json()
        added = _ADDED_TO_CONSISTENCY if isinstance(self.method, Consistency) else _ADDED
        fitted_now = has_learned_weights(task)  # by first_head=auto, and random before
        for part in (whole["method"], whole["schedule"] or {}):
            for name, value in added.items():
                if part.get(name) == value and not (name == "first_head" and fitted_now):
                    del part[name]
        return whole


def make_fingerprint(*parts: Any) -> str:
    """SHA-256 of plain data (JSON); runs with equal fingerprints give equal results."""
    text = json.dumps(parts, sort_keys=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
