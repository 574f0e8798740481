"""Keep a training to its time limit by moving its last step.

time_budget.py decides the number of steps before the first one. A shared or warm machine then
changes its speed by more than the budget's tolerance. `TimeLimit` therefore measures the speed at
intervals, and rescales the rest of the schedule to the number of steps that the remaining time
allows; a plan may name steps that are taken in any case.
"""

import math
import time

from handful.training.loop import State
from handful.training.plan import Plan

_INTERVAL = 0.25  # share of the remaining steps between two checks of the time...
_LATE = 1.5  # ...or earlier, when they have taken this multiple of their planned time
_TOLERANCE = 0.005  # share of the allowed time: smaller deviations change nothing
_LARGEST_FACTOR = 2.0  # by which one check changes the remaining steps: a machine may have slept
_PERIOD_FACTOR = 1.5  # by which steps per period may change before the periods are recounted


class TimeLimit:
    """Measures the time of steps, and moves the last step so that the training ends in time.

    Steps that start a period (pauses) and evaluations are timed apart, since their remaining
    numbers do not depend on the number of steps. The first step of a session is not timed: it has
    costs of its own.

    Args:
        state: its `schedule_progress` is replaced by `reschedule`.
        planned: the times that were measured before; without `allowed` nothing is rescheduled.
    """

    def __init__(self, state: State, planned: Plan) -> None:
        self.state, self.allowed, self.period = state, planned.allowed, planned.period
        self.longer, self.least = planned.longer, planned.least
        self.step, self.pause = planned.seconds_per_step, planned.pause
        self.evaluation = planned.look
        self._first = planned.first
        self._started = False
        self._tick = time.perf_counter()
        self._new_interval()

    def _new_interval(self) -> None:
        self._seconds, self._steps = 0.0, 0  # of steps that start no period
        self._long_pause = False  # whether a pause took much longer than the one before
        left = self.state.schedule_progress.last - self.state.step
        self._interval = max(1, math.ceil(_INTERVAL * left))
        self._end = self.state.step + self._interval

    def _since(self) -> float:
        """Seconds since the last call."""
        before, self._tick = self._tick, time.perf_counter()
        return self._tick - before

    def stepped(self) -> None:
        """Time the step that has just been done."""
        seconds, step = self._since(), self.state.step - 1
        if self.period > 1 and self.state.schedule_progress.starts_period(step, self.period):
            self._time_pause(max(0.0, seconds - self.step), step)
        elif self._started:
            self._seconds, self._steps = self._seconds + seconds, self._steps + 1
        self._started = True

    def _time_pause(self, seconds: float, step: int) -> None:
        """Update the expected pause; the first pause scales it by its ratio to the planned one."""
        before = self.pause
        if step > 0:
            self.pause = seconds
        elif self._first:
            self.pause *= seconds / self._first
        self._long_pause = self.pause > _LATE * before

    def evaluated(self) -> None:
        """Time the evaluation that has just been done."""
        self.evaluation = self._since()

    def reschedule(self, seconds: float, evaluations: int) -> None:
        """At the end of a check interval, move the last step if the training would miss its limit.

        Args:
            seconds: of training so far, over all sessions.
            evaluations: number of remaining ones.
        """
        state, progress = self.state, self.state.schedule_progress
        left = progress.last - state.step
        late = self._long_pause or self._seconds > _LATE * self._interval * self.step
        if self.allowed is None or left < 1 or (state.step < self._end and not late):
            return
        if self._steps:
            self.step = self._seconds / self._steps
        room = self.allowed - seconds - evaluations * self.evaluation
        pauses = self._pauses(room)
        counted = (progress.periods_started(state.step, self.period) + pauses) * self.period
        room -= pauses * self.pause
        new = left
        if abs(room - left * self.step) > _TOLERANCE * self.allowed:
            fewest = max(math.ceil(left / _LARGEST_FACTOR), min(left, self.least - state.step))
            most = math.floor(left * _LARGEST_FACTOR)
            if not self.longer:
                most = min(most, progress.steps - state.step)
            new = min(max(round(room / self.step), fewest), most)
        if new != left:
            state.schedule_progress = progress.rescheduled(
                state.step, state.step + new, counted if self.period > 1 else None
            )
        self._new_interval()

    def _pauses(self, room: float) -> int:
        """The number of pauses to schedule in `room` seconds.

        It is the planned number where each period then keeps about the steps that it has in the
        schedule; otherwise the number that fits.
        """
        if self.period == 1:
            return 0
        progress, step = self.state.schedule_progress, self.state.step
        begun = progress.periods_started(step, self.period)
        counted = progress.counted_position(step)
        planned = progress.periods_started(progress.last, self.period) - begun
        wanted = (progress.counted_steps - counted) * self.step  # seconds, one step for each
        if wanted / _PERIOD_FACTOR <= room - planned * self.pause <= wanted * _PERIOD_FACTOR:
            return planned
        rest = begun * self.period - counted  # remaining steps of the current period
        fitting = int((room - rest * self.step) / (self.period * self.step + self.pause))
        return max(fitting, 0 if rest > 0 else 1)  # 1: the next step starts a period
