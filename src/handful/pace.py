"""Keeping a training to its time: where steps get slower or faster, the last one is moved.

How many steps a budget buys is found before the first one (see budget.py). But the speed of a
machine that is shared, or gets warm, changes by more than a budget may be missed by. So every now
and then what is left of the time is divided anew, and the rest of the schedule is done in so many
steps.
"""

import math
import time

from handful.train import Plan, State

_LEG = 0.25  # share of the steps that are left, after which it is looked at the clock again
_MISSED = 0.005  # of the time that is allowed: nothing is moved for less
_MOST = 2.0  # what is left is not stretched or cut by more at once: the clock may have stood still


class Pace:
    """Times the steps of a training, and moves the last one.

    Long steps that begin a period, and looks, are timed for themselves: how many are still to come
    is known, however many steps there will be.
    """

    def __init__(self, state: State, planned: Plan) -> None:
        self.state, self.allowed, self.period = state, planned.allowed, planned.period
        self.step, self.pause, self.look = planned.seconds_per_step, planned.pause, 0.0
        self._seconds, self._steps = 0.0, 0  # of this leg, without the long ones
        self._tick = time.perf_counter()
        self._next = self._end_of_leg()

    def _end_of_leg(self) -> int:
        left = self.state.course.last - self.state.step
        return self.state.step + max(1, math.ceil(_LEG * left))

    def _since(self) -> float:
        before, self._tick = self._tick, time.perf_counter()
        return self._tick - before

    def stepped(self) -> None:
        """A step is done."""
        seconds = self._since()
        if self.period > 1 and self.state.course.begins(self.state.step - 1, self.period):
            self.pause = max(0.0, seconds - self.step)
        else:
            self._seconds, self._steps = self._seconds + seconds, self._steps + 1

    def looked(self) -> None:
        """A look is done."""
        self.look = self._since()

    def turn(self, seconds: float, looks: int) -> bool:
        """At the end of a leg move the last step if the training would end too early or too late.

        Args:
            seconds: that the training has taken, over all sittings.
            looks: that are still to come.

        Returns:
            whether it was moved.
        """
        state, course = self.state, self.state.course
        left = course.last - state.step
        if self.allowed is None or left < 1 or state.step < self._next:
            return False
        if self._steps:
            self.step = self._seconds / self._steps
        self._seconds, self._steps = 0.0, 0
        room = self.allowed - seconds - looks * self.look - self._pauses * self.pause
        new = left
        if abs(room - left * self.step) > _MISSED * self.allowed:
            fewest, most = math.ceil(left / _MOST), math.floor(left * _MOST)
            new = min(max(round(room / self.step), fewest), most)
        if new != left:
            state.course = course.turned(state.step, state.step + new)
        self._next = self._end_of_leg()
        return new != left

    @property
    def _pauses(self) -> int:
        """How many are still to come."""
        if self.period == 1:
            return 0
        course = self.state.course
        return course.begun(course.last, self.period) - course.begun(self.state.step, self.period)
