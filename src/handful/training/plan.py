"""Plan of a training: precision, speed and number of steps, measured before the first step."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import torch

from handful import devices, models
from handful.files import read_json, write_json
from handful.methods.base import Task, Trained
from handful.methods.schedule import Schedule, ScheduleProgress
from handful.models.engine import resolved
from handful.training.batches import Batches
from handful.training.loop import begin, train
from handful.training.precision import FORMATS, kind_of, remember, remembered
from handful.training.process_group import ALONE, ProcessGroup
from handful.training.settings import Settings

_SHORT_STEP = 0.2  # seconds: shorter steps are timed twice
_TIMED = 8  # steps of one timing, of which the first three are not counted


@dataclass(frozen=True)
class Plan:
    """Measurements before a training; plan.json keeps them, so that a resumed run reads them."""

    precision: str  # fp32 or bf16
    threads: int  # of the processor; another number may change the last bits of results
    seconds_per_step: float
    steps: int | None = None  # of the schedule, where a time budget sets them
    pause: float = 0.0  # extra seconds of a step that starts a period...
    period: int = 1  # ...of this number of steps, see `methods.base.Trained`
    first: float = 0.0  # extra seconds of the first step of all
    taken: int | None = None  # steps that the schedule is rescaled to; None: its own
    look: float = 0.0  # seconds of an evaluation
    allowed: float | None = None  # seconds of a training, its first evaluation included
    longer: bool = True  # whether time that is left is used for more steps than the schedule has
    # Steps that are taken however long they last: those planned for the models of the estimate.
    least: int = 0

    @property
    def whole(self) -> float:
        """Seconds of a period, its pause included, for all periods but the first."""
        return self.period * self.seconds_per_step + self.pause

    def seconds(self, steps: int) -> float:
        """Seconds of `steps` steps (1 or more), pauses included."""
        later = -(-steps // self.period) - 1
        return steps * self.seconds_per_step + self.first + later * self.pause

    def expected(self, steps: int) -> float:
        """Seconds of a training of `steps` steps; with a budget the time that it is to use."""
        if self.allowed is None or not self.longer:
            return self.seconds(steps)
        return self.allowed

    def within(self, seconds: float) -> "Plan":
        """The plan with the number of steps that fits into `seconds`; 0 where not one fits.

        With periods, the schedule has a whole number of them, at least one. It is rescaled to the
        number of steps that uses all of the time: to more where another pause does not fit, to
        fewer where not even one period fits.
        """
        if self.period == 1:
            return replace(self, steps=max(0, int(seconds / self.seconds_per_step)))
        periods = max(1, int((seconds + self.pause - self.first) / self.whole))
        rest = seconds - self.first - (periods - 1) * self.pause
        taken = max(0, int(rest / self.seconds_per_step))
        return replace(self, steps=periods * self.period if taken else 0, taken=taken)

    def schedule_progress(self, schedule: Schedule) -> ScheduleProgress:
        """The progress at the start of a training with this plan."""
        straight = ScheduleProgress(schedule.steps)
        taken = self.taken or straight.last
        return straight if taken == straight.last else straight.rescheduled(0, taken)


def measure_plan(
    method: Trained,
    task: Task,
    schedule: Schedule,
    seed: int,
    precision: str = "auto",
    group: ProcessGroup = ALONE,
) -> Plan:
    """Measure a few steps, and choose the precision if it is "auto".

    bf16 is chosen where the processor has it and it saves more than a tenth of the time. Short
    steps are timed twice, and the faster time of each precision counts, since other work comes in
    bursts. The choice is made once for a kind of training on this machine, see `precision`.

    The processes of a group measure together, and get equal plans.
    """
    choosing = precision == "auto" and devices.has_bf16()
    choices = ["fp32" if precision == "auto" else precision]
    if choosing:
        kind = kind_of(method, task, schedule, group.size)
        known = group.agreed(remembered(kind))
        choices = list(FORMATS) if known is None else [known]

    def timed() -> dict[str, float]:
        return {x: time_step(method, task, schedule, seed, x, group) for x in choices}

    seconds = timed()
    if choosing and min(seconds.values()) < _SHORT_STEP:
        again = timed()
        seconds = {x: min(seconds[x], again[x]) for x in choices}
    best = choices[0]
    if len(choices) > 1:
        faster = "bf16" if seconds["bf16"] < 0.9 * seconds["fp32"] else "fp32"
        best = group.agreed(remember(kind, faster))
    period: int = getattr(method, "period", 1)
    pauses = [0.0, 0.0]
    if period > 1:
        step = seconds[best]
        pauses = [_pause(method, task, schedule, seed, best, step, at, group) for at in (0, period)]
    first, later = pauses
    return Plan(best, torch.get_num_threads(), seconds[best], None, later, period, first)


def time_step(
    method: Trained,
    task: Task,
    schedule: Schedule,
    seed: int,
    precision: str,
    group: ProcessGroup = ALONE,
) -> float:
    """Median over up to five steps or about two seconds, after two steps that are not counted.

    The first step of all is left out, since a method may do work once there.
    """
    schedule = replace(schedule, steps=max(_TIMED, schedule.steps))
    state = begin(method, task, schedule, seed, group)
    state.step = 1
    batches = Batches(task, method.views(task), schedule, seed, group)
    seconds: list[float] = []
    start = begun = time.perf_counter()
    for progress in train(state, method, batches, schedule, precision):
        devices.synchronize()
        now = time.perf_counter()
        if progress.step > 3:
            seconds.append(now - start)
        if group.agreed(progress.step == _TIMED or bool(seconds) and now - begun > 2):
            break
        start = now
    return group.agreed(median(seconds))


def _pause(
    method: Trained,
    task: Task,
    schedule: Schedule,
    seed: int,
    precision: str,
    step: float,
    at: int,
    group: ProcessGroup,
) -> float:
    """Seconds that step `at`, which starts a period, takes beyond `step` seconds."""
    schedule = replace(schedule, steps=at + 1)
    state = begin(method, task, schedule, seed, group)
    state.step = at
    batches = Batches(task, method.views(task), schedule, seed, group)
    begun = time.perf_counter()
    next(train(state, method, batches, schedule, precision))
    devices.synchronize()
    return group.agreed(max(0.0, time.perf_counter() - begun - step))


def make_plan(settings: Settings, task: Task, seed: int, group: ProcessGroup = ALONE) -> Plan:
    """The plan of a fit; a trained method is measured, a fitted one needs no measurement."""
    if isinstance(settings.method, Trained):
        assert settings.schedule is not None
        schedule, precision = settings.schedule, settings.precision
        return measure_plan(settings.method, task, schedule, seed, precision, group)
    precision = resolved(settings.precision, models.has_graph(task.backbone.name))
    return Plan(precision, torch.get_num_threads(), 0.0)


def load_or_make_plan(
    folder: Path | None, measured: Callable[[], Plan], group: ProcessGroup = ALONE
) -> Plan:
    """The plan in the folder's plan.json; where there is none, `measured()`, which is saved there.

    Args:
        folder: None: nothing is read or saved.
        group: the processes that get this plan; the one that leads reads and saves.
    """
    saved = folder is not None and (folder / "plan.json").exists()
    if group.agreed(saved):
        assert folder is not None
        return Plan(**read_json(folder / "plan.json"))
    planned = group.agreed(measured())
    if folder is not None and group.leads:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "plan.json", asdict(planned))
    return planned
