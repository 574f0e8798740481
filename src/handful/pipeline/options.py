"""Options of a fit as frozen objects: InputSpec and FitOptions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from handful.data.grouping.rules import check_rule
from handful.errors import HandfulError
from handful.methods.base import Method
from handful.methods.schedule import Schedule
from handful.models.classifier import BackboneSpec


@dataclass(frozen=True)
class InputSpec:
    """How images are brought to the network. None: decided by images and network."""

    size: int | None = None  # side in pixels
    aspect: str | None = None  # how images become square: crop (the default), pad or stretch
    flips: bool | None = None  # whether a mirrored image is of the same class
    precision: str = "auto"  # fp32, bf16 or auto

    def __post_init__(self) -> None:
        if self.precision not in ("auto", "fp32", "bf16"):
            raise HandfulError(f"no precision {self.precision!r}; choose one of auto, fp32, bf16")


@dataclass(frozen=True)
class FitOptions:
    """Options of a fit. The docstring of `fit` explains the fields."""

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
    groups: str | None = None

    def __post_init__(self) -> None:
        if self.groups is not None:
            check_rule(self.groups)
        if self.estimate not in ("folds", "none"):
            raise HandfulError(f"no estimate {self.estimate!r}; choose folds or none")
        if not -(2**63) <= self.seed < 2**63:
            raise HandfulError(f"seed is a whole number of 64 bits, got {self.seed}")

    @property
    def why_not_auto(self) -> str:
        """Why `auto` cannot be used with these options; empty where it can."""
        if self.estimate == "none":
            return "auto chooses by the estimate; leave out estimate none, or name a method"
        for name in ("schedule", "backbone", "init", "settings"):
            if getattr(self, name):
                return (
                    f"auto chooses the network and its settings, and {name} is given too; name a "
                    f"method, or leave out {name}"
                )
        return ""
