"""How a network is trained: steps, optimiser, learning rate, averaging. Only arithmetic."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from handful.errors import HandfulError

Optimizer = Literal["sgd", "adam", "adamw", "lars"]
Scaling = Literal["none", "linear", "sqrt"]
MOST_STEPS, LARGEST_BATCH, MOST_LOOKS = 100_000_000, 65_536, 100_000
Decay = Literal["cosine", "cosine7/16", "linear", "step", "constant"]


@dataclass(frozen=True)
class Schedule:
    """One training run in numbers; `steps` counts optimiser steps, never epochs."""

    steps: int = 1000
    batch: int = 64  # labelled images a step
    optimizer: Optimizer = "sgd"  # sgd is Nesterov's; adam adds weight decay to the gradient (L2)
    lr: float = 0.03  # peak learning rate
    scaling: Scaling = "none"  # of lr with the batch: linear is lr * batch / 256, sqrt its root
    backbone_rate: float = 1.0  # times lr for the backbone's weights: below 1 to fine-tune
    momentum: float = 0.9  # of sgd and lars; beta_1 of adam and adamw
    weight_decay: float = 5e-4  # weights only: never biases, never batch norm
    decay: Decay = "cosine"  # cosine7/16 is FixMatch's and UDA's: it ends at 0.195 of the peak
    decay_every: int = 0  # for decay="step": steps between two drops
    decay_factor: float = 0.1  # for decay="step": what a drop multiplies the rate by
    warmup: float = 0.0  # share of the steps over which the rate rises from 0
    average: float = 0.99  # decay of the weight average that is evaluated; 0: the last weights
    clip: float = 0.0  # largest norm of the gradient; 0: no clipping
    patience: int = 0  # looks at the validation loss without a gain before stopping; 0: never
    validation: float = 0.0  # share of the labelled images kept from training, for patience
    looks: int = 10  # times metrics are taken, beside the one at step 0

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
                    f"patience={self.patience} needs validation=SHARE, images to stop early by",
                ),
                (
                    not 1 <= self.looks <= MOST_LOOKS,
                    f"looks must be 1 to {MOST_LOOKS:,}, got {self.looks}",
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
        """The learning rate of step number `step`, counted from 0; a place between two will do."""
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
        """Steps after which metrics are taken: 0, then `looks` evenly spaced, the last step too."""
        return sorted({round(i * self.steps / self.looks) for i in range(self.looks + 1)})


class Reschedule(NamedTuple):
    """From one step of a training on, what the rest of it shall be."""

    step: int  # so many are taken
    last: int  # so many are to be taken in all
    steps: int  # so many of the schedule, by which periods are counted: some may come or go


@dataclass(frozen=True)
class ScheduleProgress:
    """How far a training is along its schedule after each of its steps.

    Step by step, one for one, unless it was turned: a budget that has to be met moves the last step
    on the way. From there on each step is worth more or less of the schedule, whose end is reached
    with the last.
    """

    steps: int  # of the schedule
    reschedules: tuple[Reschedule, ...] = ()

    def __post_init__(self) -> None:
        before, last = 0, self.steps
        for turn in self.reschedules:
            assert before <= turn.step < min(last, turn.last), self
            before, last = turn.step, turn.last

    @property
    def last(self) -> int:
        """How many steps there are in all."""
        return self.reschedules[-1].last if self.reschedules else self.steps

    @property
    def counted_steps(self) -> int:
        """Steps of the schedule, as periods are counted in the end."""
        return self.reschedules[-1].steps if self.reschedules else self.steps

    def rescheduled(self, step: int, last: int, counted: int | None = None) -> "ScheduleProgress":
        """The same up to `step`; from there on so that `last` are all.

        Args:
            counted: steps of the schedule, if there are to be more or fewer periods.
        """
        return replace(
            self,
            reschedules=(*self.reschedules, Reschedule(step, last, counted or self.counted_steps)),
        )

    def position(self, step: int) -> float:
        """Where in the schedule the training is after `step` steps: 0 to `steps`."""
        return self._way(step, [self.steps] * len(self.reschedules))

    def fraction(self, step: int) -> float:
        """Share of the schedule that is done after `step` steps."""
        return self.position(step) / max(1, self.steps)

    def counted_position(self, step: int) -> float:
        """The same place as `position`, as periods are counted."""
        return self._way(step, [turn.steps for turn in self.reschedules])

    def _way(self, step: int, ends: Sequence[int]) -> float:
        """How far it is after `step` steps, to an end that each turn may move."""
        way, begun, last, end = 0.0, 0, self.steps, self.steps
        for turn, then in zip(self.reschedules, ends, strict=True):
            if step <= turn.step:
                break
            way += (turn.step - begun) * (end - way) / (last - begun)
            begun, last, end = turn.step, turn.last, then
        return float(end) if step >= last else way + (step - begun) * (end - way) / (last - begun)

    def starts_period(self, step: int, period: int) -> bool:
        """Whether step number `step`, from 0, is the first of so many steps of the schedule."""
        return self.periods_started(step + 1, period) > self.periods_started(step, period)

    def periods_started(self, step: int, period: int) -> int:
        """How many such periods the first `step` steps have begun."""
        return int(self.counted_position(step - 1) // period) + 1 if step else 0


_OPTIMIZERS = ("sgd", "adam", "adamw", "lars")
_SCALINGS = ("none", "linear", "sqrt")
_DECAYS = ("cosine", "cosine7/16", "linear", "step", "constant")


def _choice(name: str, given: str, known: tuple[str, ...]) -> str:
    return f"no {name} {given!r}; choose one of {', '.join(known)}"
