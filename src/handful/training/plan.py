"""Plan of a training: precision, speed and number of steps, measured once before it starts."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import torch

from handful import devices
from handful.files import read_json, write_json
from handful.methods.base import Task, Trained
from handful.methods.schedule import Schedule, ScheduleProgress
from handful.models.feature_cache import resolved
from handful.training.batches import Batches
from handful.training.loop import begin, train
from handful.training.settings import Settings

_SHORT_STEP = 0.2  # seconds: so short ones are timed twice
_TIMED = 8  # steps that a timing takes, the first three to warm up


@dataclass(frozen=True)
class Plan:
    """What is measured once before training and then kept: a resumed run reads it back."""

    precision: str  # fp32 or bf16
    threads: int  # of the processor; another number may change the last bits
    seconds_per_step: float
    steps: int | None = None  # of the schedule, where a budget of time has fixed them
    pause: float = 0.0  # seconds more that a step takes which is the first of a period...
    period: int = 1  # ...of so many steps, see `methods.base.Trained`
    first: float = 0.0  # the same of the very first, which may be another
    taken: int | None = None  # how many steps that schedule is done in, if not in its own number
    look: float = 0.0  # seconds that a look takes
    allowed: float | None = None  # seconds a training may take from its first look on, all in all

    @property
    def whole(self) -> float:
        """Seconds of a period after the first, its pause included."""
        return self.period * self.seconds_per_step + self.pause

    def seconds(self, steps: int) -> float:
        """What so many steps, one or more, take, pauses included."""
        later = -(-steps // self.period) - 1
        return steps * self.seconds_per_step + self.first + later * self.pause

    def expected(self, steps: int) -> float:
        """Seconds that a training with a schedule of so many steps takes; looks too, if known."""
        return self.seconds(steps) if self.allowed is None else self.allowed

    def within(self, seconds: float) -> "Plan":
        """With the steps that take so long: as many as fit.

        Where there are periods, it is a schedule of whole ones, one at least, and all the seconds
        go into its steps: it is done in a few more of them, so that a pause which does not fit any
        more leaves no gap, or in fewer where not even one period fits.
        """
        if self.period == 1:
            return replace(self, steps=max(0, int(seconds / self.seconds_per_step)))
        periods = max(1, int((seconds + self.pause - self.first) / self.whole))
        rest = seconds - self.first - (periods - 1) * self.pause
        taken = max(0, int(rest / self.seconds_per_step))
        return replace(self, steps=periods * self.period if taken else 0, taken=taken)

    def schedule_progress(self, schedule: Schedule) -> ScheduleProgress:
        """Of a training under this plan."""
        straight = ScheduleProgress(schedule.steps)
        taken = self.taken or straight.last
        return straight if taken == straight.last else straight.rescheduled(0, taken)


def measure_plan(
    method: Trained, task: Task, schedule: Schedule, seed: int, precision: str = "auto"
) -> Plan:
    """Time a few steps, in bf16 too where the processor has it; bf16 must win by a tenth.

    Where either is short both are timed twice, in turn, and the faster time of each counts: other
    work comes in bursts.
    """
    choices = [precision]
    if precision == "auto":
        choices = ["fp32", "bf16"] if devices.has_bf16() else ["fp32"]

    def timed() -> dict[str, float]:
        return {x: _seconds_per_step(method, task, schedule, seed, x) for x in choices}

    seconds = timed()
    if len(choices) > 1 and min(seconds.values()) < _SHORT_STEP:
        again = timed()
        seconds = {x: min(seconds[x], again[x]) for x in choices}
    best = choices[0]
    if len(choices) > 1 and seconds["bf16"] < 0.9 * seconds["fp32"]:
        best = "bf16"
    period: int = getattr(method, "period", 1)
    pauses = [0.0, 0.0]
    if period > 1:
        step = seconds[best]
        pauses = [_pause(method, task, schedule, seed, best, step, at) for at in (0, period)]
    first, later = pauses
    return Plan(best, torch.get_num_threads(), seconds[best], None, later, period, first)


def _seconds_per_step(
    method: Trained, task: Task, schedule: Schedule, seed: int, precision: str
) -> float:
    """Median over up to five steps or about two seconds, after two steps to warm up.

    The very first step is left out: what a method does once, it does there.
    """
    schedule = replace(schedule, steps=max(_TIMED, schedule.steps))
    state = begin(method, task, schedule, seed)
    state.step = 1
    batches = Batches(task, method.views(task), schedule, seed)
    seconds: list[float] = []
    start = begun = time.perf_counter()
    for progress in train(state, method, batches, schedule, precision):
        devices.synchronize()
        now = time.perf_counter()
        if progress.step > 3:
            seconds.append(now - start)
        if progress.step == _TIMED or seconds and now - begun > 2:
            break
        start = now
    return median(seconds)


def _pause(
    method: Trained, task: Task, schedule: Schedule, seed: int, precision: str, step: float, at: int
) -> float:
    """Seconds that step `at`, the first of a period, takes more than `step`."""
    schedule = replace(schedule, steps=at + 1)
    state = begin(method, task, schedule, seed)
    state.step = at
    batches = Batches(task, method.views(task), schedule, seed)
    begun = time.perf_counter()
    next(train(state, method, batches, schedule, precision))
    devices.synchronize()
    return max(0.0, time.perf_counter() - begun - step)


def make_plan(settings: Settings, task: Task, seed: int) -> Plan:
    """What is decided by measuring: for a trained method the precision and its speed."""
    if isinstance(settings.method, Trained):
        assert settings.schedule is not None
        return measure_plan(settings.method, task, settings.schedule, seed, settings.precision)
    return Plan(resolved(settings.precision), torch.get_num_threads(), 0.0)


def load_or_make_plan(folder: Path | None, measured: Callable[[], Plan]) -> Plan:
    """The plan of an interrupted run, from plan.json in the folder; else `measured`, kept there."""
    if folder is not None and (folder / "plan.json").exists():
        return Plan(**read_json(folder / "plan.json"))
    planned = measured()
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "plan.json", asdict(planned))
    return planned
