"""All that determines a training run beside its images and its seed, and its fingerprint."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from handful.methods.base import Method, as_json
from handful.methods.schedule import Schedule
from handful.models.classifier import BackboneSpec


@dataclass(frozen=True)
class Settings:
    """All that determines a training run, beside its images and its seed."""

    method: Method
    schedule: Schedule | None  # None for a method that is fitted to features
    backbone: BackboneSpec
    precision: str = "auto"  # auto, fp32 or bf16

    def as_json(self) -> dict[str, Any]:
        return {
            "method": as_json(self.method),
            "schedule": asdict(self.schedule) if self.schedule else None,
            "backbone": asdict(self.backbone),
            "precision": self.precision,
        }


def make_fingerprint(*parts: Any) -> str:
    """Hash of plain data: two runs with the same one are the same run."""
    text = json.dumps(parts, sort_keys=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
