"""What a fit is asked for, as objects that travel through the pipeline."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from handful.errors import HandfulError
from handful.methods.base import Method
from handful.methods.schedule import Schedule
from handful.models.classifier import BackboneSpec


@dataclass(frozen=True)
class InputSpec:
    """How images reach the network. Fields left at None are decided by images and network."""

    size: int | None = None  # side in pixels
    aspect: str | None = None  # how they become square: crop (the default), pad or stretch
    flips: bool | None = None  # whether a mirrored image is of the same class
    precision: str = "auto"  # fp32, bf16 or auto

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "fp32", "bf16"):
            raise HandfulError(f"no precision {self.precision!r}; choose one of auto, fp32, bf16")


@dataclass(frozen=True)
class FitOptions:
    """All that a fit is asked for beside its images. `fit` says what the fields mean."""

    method: str | Method | None = None
    seed: int = 0
    schedule: Schedule | None = None
    backbone: str | BackboneSpec | None = None
    inputs: InputSpec = field(default_factory=InputSpec)
    estimate: str = "folds"
    prior: Mapping[str, float] | str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    budget: float | None = None  # seconds
    init: Path | str | None = None

    def __post_init__(self) -> None:
        if self.estimate not in ("folds", "none"):
            raise HandfulError(f"no estimate {self.estimate!r}; choose folds or none")
        if not -(2**63) <= self.seed < 2**63:
            raise HandfulError(f"seed is a whole number of 64 bits, got {self.seed}")

    @property
    def why_not_auto(self) -> str:
        """What keeps `auto` from choosing; empty where nothing does."""
        if self.estimate == "none":
            return "auto chooses by the estimate; leave estimate none out, or name a method"
        for name in ("schedule", "backbone", "init", "settings"):
            if getattr(self, name):
                return (
                    f"auto chooses the network and its settings, and {name} is given too; name a "
                    f"method, or leave {name} out"
                )
        return ""
