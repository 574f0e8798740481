"""The settings that determine a training, beside its images and seed, and their fingerprint."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from handful.methods.base import Method, as_json
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


def make_fingerprint(*parts: Any) -> str:
    """SHA-256 of plain data (JSON); runs with equal fingerprints give equal results."""
    text = json.dumps(parts, sort_keys=True)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
