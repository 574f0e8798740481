"""The settings that determine a training, beside its images and seed, and their fingerprint."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from handful.methods.base import Method, Task, as_json
from handful.methods.first_head import has_learned_weights
from handful.methods.schedule import Schedule
from handful.models.classifier import BackboneSpec


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
        """`as_json` for a fingerprint, which stays what it was before these fields existed.

        Unfinished runs and cached results of earlier versions have such fingerprints. Fields that
        were added later are left out where a training is as it was without them.
        """
        later: dict[str, Any] = {"layer_decay": 1.0, "start_share": 0.0}
        if not has_learned_weights(task):
            later["first_head"] = "auto"
        whole = self.as_json()
        for part in (whole["method"], whole["schedule"] or {}):
            for name, value in later.items():
                if part.get(name) == value:
                    del part[name]
        return whole


def make_fingerprint(*parts: Any) -> str:
    """SHA-256 of plain data (JSON); runs with equal fingerprints give equal results."""
    text = json.dumps(parts, sort_keys=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
