"""Schedules: steps, optimiser, learning rate, averaging; and the progress of a training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from handful.errors import HandfulError

Optimizer = Literal["sgd", "adam", "adamw", "lars"]
Scaling = Literal["none", "linear", "sqrt"]
MOST_STEPS, LARGEST_BATCH, MOST_EVALUATIONS = 100_000_000, 65_536, 100_000
Decay = Literal["cosine", "cosine7/16", "linear", "step", "constant"]

GRACE = 0.2  # share of the schedule in which no failure is reported


@dataclass(frozen=True)
class Schedule:
    """The settings of a training loop; `steps` counts optimiser steps, never epochs."""

    steps: int = 1000
    batch: int = 64  # labelled images in a step
    optimizer: Optimizer = "sgd"  # sgd has Nesterov momentum; adam's weight decay is L2
    lr: float = 0.03  # peak learning rate
    scaling: Scaling = "none"  # of lr: linear by batch / 256, sqrt by its root
    backbone_rate: float = 1.0  # factor of lr for the backbone; below 1 to fine-tune
    layer_decay: float = 1.0  # factor of lr for each layer above; 1: all layers have the same
    momentum: float = 0.9  # of sgd and lars; beta_1 of adam and adamw
    weight_decay: float = 5e-4  # of weights; never of biases and batch norm
    decay: Decay = "cosine"  # cosine7/16 is FixMatch's and UDA's, and ends at 0.195 of the peak
    decay_every: int = 0  # for decay="step": steps between two drops
    decay_factor: float = 0.1  # for decay="step": factor of the rate at a drop
    warmup: float = 0.0  # share of the steps over which the rate rises from 0
    average: float = 0.99  # decay of the evaluated weight average; 0: the last weights
    clip: float = 0.0  # largest norm of the gradient; 0: no clipping
    patience: int = 0  # evaluations without a lower validation loss before stopping; 0: never
    validation: float = 0.0  # share of the labelled images set aside, for patience
    looks: int = 10  # number of evaluations after the one at step 0

    def __post_init__(self) -> None:
        problems = [
            text
            for wrong, text in [
                (
                    not 0 <= self.steps <= MOST_STEPS,
                    f"steps must be 0 to {MOST_STEPS:,}, got {self.steps}",
                ),
                (
                    not 1 <= self.batch <= LARGEST_BATCH,
                    f"batch must be 1 to {LARGEST_BATCH:,}, got {self.batch}",
                ),
                (not 0 < self.lr < math.inf, f"lr must be above 0, got {self.lr}"),
                (
                    self.backbone_rate < 0,
                    f"backbone_rate must be 0 or more, got {self.backbone_rate}",
                ),
                (
                    not 0 < self.layer_decay <= 1,
                    f"layer_decay lies in (0, 1], got {self.layer_decay}",
                ),
                (not 0 <= self.momentum < 1, f"momentum lies in [0, 1), got {self.momentum}"),
                (self.weight_decay < 0, f"weight_decay must be 0 or more, got {self.weight_decay}"),
                (not 0 <= self.warmup <= 1, f"warmup is a share of the steps, got {self.warmup}"),
                (not 0 <= self.average < 1, f"average lies in [0, 1), got {self.average}"),
                (self.clip < 0, f"clip must be 0 or more, got {self.clip}"),
                (self.patience < 0, f"patience must be 0 or more, got {self.patience}"),
                (
                    not 0 <= self.validation < 1,
                    f"validation is a share of the labelled images, got {self.validation}",
                ),
                (
                    self.patience > 0 and not self.validation,
                    f"patience={self.patience} needs validation=SHARE, images for early stopping",
                ),
                (
                    not 1 <= self.looks <= MOST_EVALUATIONS,
                    f"looks must be 1 to {MOST_EVALUATIONS:,}, got {self.looks}",
                ),
                (
                    self.decay == "step" and self.decay_every < 1,
                    "decay='step' needs decay_every=STEPS, the steps between two drops",
                ),
                (
                    self.optimizer not in _OPTIMIZERS,
                    _choice("optimizer", self.optimizer, _OPTIMIZERS),
                ),
                (self.decay not in _DECAYS, _choice("decay", self.decay, _DECAYS)),
                (self.scaling not in _SCALINGS, _choice("scaling", self.scaling, _SCALINGS)),
            ]
            if wrong
        ]
        if problems:
            raise HandfulError("; ".join(problems))

    @property
    def peak(self) -> float:
        """The highest learning rate, `lr` scaled with the batch."""
        factor = {"none": 1.0, "linear": self.batch / 256, "sqrt": math.sqrt(self.batch / 256)}
        return self.lr * factor[self.scaling]

    def rate(self, step: float) -> float:
        """The learning rate at a position in the schedule, counted from 0; it may be fractional."""
        warm = round(self.warmup * self.steps)
        if step < warm:
            return self.peak * min(1.0, (step + 1) / warm)
        progress = (step - warm) / max(1, self.steps - warm)  # in [0, 1)
        match self.decay:
            case "cosine":
                return self.peak * 0.5 * (1 + math.cos(math.pi * progress))
            case "cosine7/16":
                return self.peak * math.cos(7 / 16 * math.pi * progress)
            case "linear":
                return self.peak * (1 - progress)
            case "step":
                return self.peak * self.decay_factor ** (step // self.decay_every)
            case _:
                return self.peak

    def evaluation_steps(self) -> list[int]:
        """Steps after which to evaluate: 0, then `looks` evenly spaced ones up to the last step."""
        return sorted({round(i * self.steps / self.looks) for i in range(self.looks + 1)})


class Reschedule(NamedTuple):
    """A change of the number of steps of a training that has begun."""

    step: int  # after which the change applies
    last: int  # new number of steps in all
    steps: int  # new number of steps by which periods are counted


@dataclass(frozen=True)
class ScheduleProgress:
    """Maps the steps of a training to positions in its schedule.

    A position is the number of steps, until a reschedule changes the number of steps (see
    time_limit.py). The remaining steps then cover the remaining schedule evenly, so that the last
    step reaches its end.
    """

    steps: int  # of the schedule
    reschedules: tuple[Reschedule, ...] = ()

    def __post_init__(self) -> None:
        before, last = 0, self.steps
        for change in self.reschedules:
            assert before <= change.step < min(last, change.last), self
            before, last = change.step, change.last

    @property
    def last(self) -> int:
        """The number of steps in all."""
        return self.reschedules[-1].last if self.reschedules else self.steps

    @property
    def counted_steps(self) -> int:
        """The number of steps by which periods are counted."""
        return self.reschedules[-1].steps if self.reschedules else self.steps

    def is_early(self, step: float) -> bool:
        """Whether a step lies in the first GRACE of the schedule, where no failure is reported."""
        return self.position(int(step)) <= GRACE * self.steps

    def rescheduled(self, step: int, last: int, counted: int | None = None) -> "ScheduleProgress":
        """The progress with a reschedule after `step`, to `last` steps in all.

        Args:
            counted: new number of steps by which periods are counted; None: no change.
        """
        return replace(
            self,
            reschedules=(*self.reschedules, Reschedule(step, last, counted or self.counted_steps)),
        )

    def position(self, step: int) -> float:
        """The position in the schedule after `step` steps, in [0, `steps`]."""
        return self._interpolated(step, [self.steps] * len(self.reschedules))

    def fraction(self, step: int) -> float:
        """The share of the schedule that is done after `step` steps."""
        return self.position(step) / max(1, self.steps)

    def counted_position(self, step: int) -> float:
        """The position after `step` steps, in the steps by which periods are counted."""
        return self._interpolated(step, [change.steps for change in self.reschedules])

    def _interpolated(self, step: int, ends: Sequence[int]) -> float:
        """The position after `step` steps, if each reschedule moves the end to one of `ends`."""
        position, begun, last, end = 0.0, 0, self.steps, self.steps
        for change, new_end in zip(self.reschedules, ends, strict=True):
            if step <= change.step:
                break
            position += (change.step - begun) * (end - position) / (last - begun)
            begun, last, end = change.step, change.last, new_end
        if step >= last:
            return float(end)
        return position + (step - begun) * (end - position) / (last - begun)

    def starts_period(self, step: int, period: int) -> bool:
        """Whether step number `step`, counted from 0, is the first of a period of this length."""
        return self.periods_started(step + 1, period) > self.periods_started(step, period)

    def periods_started(self, step: int, period: int) -> int:
        """The number of periods of `period` steps that have started in the first `step` steps."""
        return int(self.counted_position(step - 1) // period) + 1 if step else 0


_OPTIMIZERS = ("sgd", "adam", "adamw", "lars")
_SCALINGS = ("none", "linear", "sqrt")
_DECAYS = ("cosine", "cosine7/16", "linear", "step", "constant")


def _choice(name: str, given: str, known: tuple[str, ...]) -> str:
    return f"no {name} {given!r}; choose one of {', '.join(known)}"
