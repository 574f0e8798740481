"""Options of a fit as frozen objects: InputSpec and FitOptions."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from handful.data.grouping.rules import check_rule
from handful.errors import HandfulError
from handful.methods.base import Method
from handful.methods.schedule import Schedule
from handful.models.classifier import BackboneSpec

PRECISIONS = ("auto", "int8", "fp32", "bf16")


@dataclass(frozen=True)
class InputSpec:
    """How images are brought to the network. None: decided by images and network."""

    size: int | None = None  # side in pixels
    aspect: str | None = None  # how images become square: crop (the default), pad or stretch
    flips: bool | None = None  # whether a mirrored image is of the same class
    precision: str = "auto"  # auto, fp32, bf16, or int8 for features of frozen networks
    shares: tuple[float, ...] | None = None  # (K,) class shares that `prior` gives, for methods

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise HandfulError(f"no precision {self.precision!r}; choose one of {known}")


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
    devices: int = 1  # that train together; only recipes ask for more

    def __post_init__(self) -> None:
        if self.groups is not None:
            check_rule(self.groups)
        if self.estimate not in ("folds", "none"):
            raise HandfulError(f"no estimate {self.estimate!r}; choose folds or none")
        if not -(2**63) <= self.seed < 2**63:
            raise HandfulError(f"seed is a whole number of 64 bits, got {self.seed}")

    @property
    def fixed(self) -> dict[str, Any]:
        """What the user fixed of network and training: `backbone`, a name, and `settings`, texts.

        `auto` chooses the rest.
        """
        network, settings = self.backbone, dict(self.settings)
        if self.schedule is not None:
            fields = asdict(self.schedule)
            if self.budget is not None:
                del fields["steps"]
            settings = {f"schedule.{key}": str(value) for key, value in fields.items()} | settings
        if isinstance(network, BackboneSpec):
            options = {f"backbone.{key}": str(value) for key, value in network.options.items()}
            network, settings = network.name, options | settings
        fixed = {"backbone": network, "settings": settings}
        return {name: value for name, value in fixed.items() if value}

    @property
    def texts(self) -> list[str]:
        """All words in method, backbone and settings, among them names of networks."""
        found: list[Any] = [self.method, self.backbone, *self.settings.values()]
        for one in (self.method, self.backbone):
            found += vars(one).values() if hasattr(one, "__dict__") else ()
        if isinstance(self.backbone, BackboneSpec):
            found += self.backbone.options.values()
        return [one for one in found if isinstance(one, str)]

    @property
    def cross_validates(self) -> bool:
        """Whether labelled images are predicted out of fold, for the estimate or by `auto`."""
        return self.estimate == "folds" or self.method in (None, "auto")

    @property
    def fixes_steps(self) -> bool:
        """Whether the number of training steps is given, and does not follow from the budget."""
        named = {"steps", "schedule.steps"} & self.settings.keys()
        return bool(named) or (self.schedule is not None and self.budget is None)
