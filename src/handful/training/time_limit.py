"""Keeping a training to its time: where steps get slower or faster, the last one is moved.

How many steps a budget buys is found before the first one (see time_budget.py). But the speed of a
machine that is shared, or gets warm, changes by more than a budget may be missed by. So every now
and then what is left of the time is divided anew, and the rest of the schedule is done in so many
steps.
"""

import math
import time

from handful.training.loop import State
from handful.training.plan import Plan

_LEG = 0.25  # share of the steps that are left, after which it is looked at the clock again...
_LATE = 1.5  # ...or sooner, when they have taken so many times what they should
_MISSED = 0.005  # of the time that is allowed: nothing is moved for less
_MOST = 2.0  # what is left is not stretched or cut by more at once: the clock may have stood still
_CROWDED = 1.5  # so many times fewer or more steps to a period than it has: they are made others


class TimeLimit:
    """Times the steps of a training, and moves the last one.

    Long steps that begin a period, and looks, are timed for themselves: how many are still to come
    is known, however many steps there will be. The first step of all, and of a sitting, is like no
    other and does not count.
    """

    def __init__(self, state: State, planned: Plan) -> None:
        self.state, self.allowed, self.period = state, planned.allowed, planned.period
        self.step, self.pause, self.look = planned.seconds_per_step, planned.pause, planned.look
        self._first = planned.first
        self._started = False
        self._tick = time.perf_counter()
        self._new_leg()

    def _new_leg(self) -> None:
        self._seconds, self._steps = 0.0, 0  # without the long ones
        self._surprised = False  # by how long a long one took
        left = self.state.schedule_progress.last - self.state.step
        self._leg = max(1, math.ceil(_LEG * left))
        self._end = self.state.step + self._leg

    def _since(self) -> float:
        before, self._tick = self._tick, time.perf_counter()
        return self._tick - before

    def stepped(self) -> None:
        """A step is done."""
        seconds, step = self._since(), self.state.step - 1
        if self.period > 1 and self.state.schedule_progress.starts_period(step, self.period):
            self._paused(max(0.0, seconds - self.step), step)
        elif self._started:
            self._seconds, self._steps = self._seconds + seconds, self._steps + 1
        self._started = True

    def _paused(self, seconds: float, step: int) -> None:
        """The first may be another than the others; as much slower as it is, they will be."""
        before = self.pause
        if step > 0:
            self.pause = seconds
        elif self._first:
            self.pause *= seconds / self._first
        self._surprised = self.pause > _LATE * before

    def evaluated(self) -> None:
        """A look is done."""
        self.look = self._since()

    def reschedule(self, seconds: float, looks: int) -> None:
        """At the end of a leg move the last step if the training would end too early or too late.

        Args:
            seconds: that the training has taken, over all sittings.
            looks: that are still to come.
        """
        state, progress = self.state, self.state.schedule_progress
        left = progress.last - state.step
        late = self._surprised or self._seconds > _LATE * self._leg * self.step
        if self.allowed is None or left < 1 or (state.step < self._end and not late):
            return
        if self._steps:
            self.step = self._seconds / self._steps
        room = self.allowed - seconds - looks * self.look
        pauses = self._pauses(room)
        counted = (progress.periods_started(state.step, self.period) + pauses) * self.period
        room -= pauses * self.pause
        new = left
        if abs(room - left * self.step) > _MISSED * self.allowed:
            fewest, most = math.ceil(left / _MOST), math.floor(left * _MOST)
            new = min(max(round(room / self.step), fewest), most)
        if new != left:
            state.schedule_progress = progress.rescheduled(
                state.step, state.step + new, counted if self.period > 1 else None
            )
        self._new_leg()

    def _pauses(self, room: float) -> int:
        """How many are to come in so many seconds: as planned, if that leaves about as many steps
        to each period as it has in the schedule; else as many as fit.
        """
        if self.period == 1:
            return 0
        progress, step = self.state.schedule_progress, self.state.step
        begun, counted = (
            progress.periods_started(step, self.period),
            progress.counted_position(step),
        )
        planned = progress.periods_started(progress.last, self.period) - begun
        wanted = (
            progress.counted_steps - counted
        ) * self.step  # seconds, if one step counts for one
        if wanted / _CROWDED <= room - planned * self.pause <= wanted * _CROWDED:
            return planned
        rest = begun * self.period - counted  # steps of the period that is begun
        fitting = int((room - rest * self.step) / (self.period * self.step + self.pause))
        return max(fitting, 0 if rest > 0 else 1)  # 1: the next step is the first of a period
