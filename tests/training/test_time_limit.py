"""Time limit: progress through the schedule, its reschedules, and that training ends in time.

Most tests run on a fake clock, on which steps, evaluations and pauses take the times they set.
"""

import math
import time
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

import handful
from handful.cli.terminal import reporting
from handful.methods.deep_propagation import DeepPropagation
from handful.methods.schedule import Schedule, ScheduleProgress
from handful.methods.supervised import Supervised
from handful.methods.uda import UDA
from handful.models.classifier import BackboneSpec
from handful.training.batches import Batches
from handful.training.failure import FailureDetector
from handful.training.history import History
from handful.training.loop import begin, train
from handful.training.monitor import Monitor
from handful.training.plan import Plan
from handful.training.settings import Settings
from handful.training.time_budget import Cost
from handful.training.time_limit import TimeLimit
from handful.training.trainer import train_task
from tiny import SCHEDULE, stripes, task

METHOD = Supervised(augment="none")
SETTINGS = Settings(METHOD, SCHEDULE, BackboneSpec("small", {"base": 8}), precision="fp32")


def test_without_a_reschedule_a_position_is_a_step():
    progress = ScheduleProgress(10)
    assert [progress.position(step) for step in range(11)] == list(range(11))
    assert progress.last == 10
    assert [step for step in range(10) if progress.starts_period(step, 4)] == [0, 4, 8]


def test_after_a_reschedule_a_step_covers_more_or_less_of_the_schedule():
    shorter = ScheduleProgress(10).rescheduled(4, 7)  # six schedule steps in three
    assert [shorter.position(step) for step in (4, 5, 6, 7)] == [4, 6, 8, 10]
    longer = shorter.rescheduled(5, 13)  # the last four schedule steps in eight
    assert [longer.position(step) for step in (4, 5, 6, 9, 13)] == [4, 6, 6.5, 8, 10]
    assert (shorter.last, longer.last) == (7, 13)
    assert longer.fraction(9) == 0.8


@given(some.integers(1, 400), some.integers(1, 60), some.data())
def test_any_reschedules_cover_the_whole_schedule(steps, period, data):
    progress = ScheduleProgress(steps)
    for _ in range(data.draw(some.integers(0, 4))):
        before = progress.reschedules[-1].step if progress.reschedules else 0
        step = data.draw(some.integers(before, progress.last - 1))
        past = [progress.position(at) for at in range(step + 1)]
        progress = progress.rescheduled(step, data.draw(some.integers(step + 1, 2 * steps + step)))
        assert [progress.position(at) for at in range(step + 1)] == past
    places = [progress.position(step) for step in range(progress.last + 1)]
    assert places[0] == 0 and places[-1] == steps
    strides = [b - a for a, b in zip(places, places[1:], strict=False)]
    assert min(strides) > 0
    begun = [step for step in range(progress.last) if progress.starts_period(step, period)]
    assert begun[0] == 0
    if max(strides) <= min(period, 1 + (steps - 1) % period):  # no step skips a period
        periods = math.ceil(steps / period)
        assert len(begun) == progress.periods_started(progress.last, period) == periods


def test_a_reschedule_may_change_the_number_of_periods():
    progress = ScheduleProgress(40).rescheduled(15, 30, counted=20)  # 5 of 25 steps, in 15
    assert [step for step in range(30) if progress.starts_period(step, 10)] == [0, 10]
    assert (progress.last, progress.counted_steps, progress.position(30)) == (30, 20, 40)
    assert progress.fraction(15) == 15 / 40
    more = ScheduleProgress(20).rescheduled(15, 45, counted=50)
    assert [step for step in range(45) if more.starts_period(step, 10)] == [0, 10, 20, 28, 37]
    assert more.periods_started(45, 10) == 5


def test_no_rate_is_above_the_peak_at_positions_between_two_steps():
    schedule = Schedule(steps=10, lr=0.1, warmup=0.5)
    progress = ScheduleProgress(10).rescheduled(3, 8)
    assert max(schedule.rate(progress.position(step)) for step in range(progress.last)) <= 0.1


PLAN = Plan("fp32", 1, 0.1, allowed=100.0)


def trained(
    clock, planned=PLAN, steps=1000, step=lambda now: 0.1, look=0.0, pause=(0.0, 0.0), looks=10
):
    """Seconds of a simulated training, and its progress.

    Args:
        step: seconds of a step, given the seconds so far.
        pause: extra seconds of the step that starts the first period, and any other.
    """
    schedule, begun = Schedule(steps=steps, looks=looks), 0
    state = SimpleNamespace(step=0, schedule_progress=planned.schedule_progress(schedule))
    history = History(state, None, schedule)
    time_limit = TimeLimit(state, planned)
    while state.step < state.schedule_progress.last:
        clock.now += step(clock.now)
        if planned.period > 1 and state.schedule_progress.starts_period(state.step, planned.period):
            clock.now += pause[begun > 0]
            begun += 1
        state.step += 1
        time_limit.stepped()
        if history.due(state.step):
            clock.now += look
            time_limit.evaluated()
        time_limit.reschedule(history.clock(), history.evaluations_left)
    assert history.evaluations_left == 0
    assert begun == state.schedule_progress.periods_started(
        state.schedule_progress.last, planned.period
    ) * (planned.period > 1)
    return clock.now, state.schedule_progress


def test_steps_as_long_as_planned_change_nothing(clock):
    assert trained(clock) == (pytest.approx(100), ScheduleProgress(1000))
    clock.now = 0.0
    _, progress = trained(clock, step=lambda now: 0.1004)  # 0.4 s of 100 are tolerated
    assert progress.reschedules == ()


def test_without_a_budget_nothing_is_rescheduled(clock):
    taken, progress = trained(clock, replace(PLAN, allowed=None), step=lambda now: 0.3)
    assert (taken, progress.reschedules) == (pytest.approx(300), ())


@pytest.mark.parametrize(
    "step",
    [
        lambda now: 0.13,  # always slower than planned
        lambda now: 0.07,
        lambda now: 0.1 if now < 50 else 0.15,  # slower from half way on
        lambda now: 0.1 if now < 85 else 0.14,
        lambda now: 0.12 if now < 60 else 0.08,
        lambda now: 0.1 if not 40 < now < 50 else 0.3,  # a burst of other work
        lambda now: 0.1 * (1 + now / 200),  # ever slower
        lambda now: 0.1 if now < 50 else 0.3,
        lambda now: 0.3,
    ],
)
def test_the_time_limit_holds_however_the_speed_changes(clock, step):
    taken, progress = trained(clock, step=step)
    assert taken == pytest.approx(100, rel=0.01)
    assert progress.reschedules


def test_no_fewer_steps_are_taken_than_those_of_the_models_that_the_estimate_is_from(clock):
    taken, progress = trained(clock, replace(PLAN, least=900), step=lambda now: 0.2)
    assert (taken, progress.last) == (pytest.approx(180), 900)
    clock.now = 0.0
    taken, progress = trained(clock, replace(PLAN, least=300), step=lambda now: 0.2)
    assert (taken, progress.last) == (pytest.approx(100, rel=0.01), pytest.approx(500, rel=0.01))
    clock.now = 0.0
    assert trained(clock, replace(PLAN, least=2000))[1].last == 1000


RESERVE = replace(PLAN, allowed=200.0, longer=False)


def test_a_reserve_of_time_is_not_used_for_more_steps(clock):
    assert trained(clock, RESERVE) == (pytest.approx(100), ScheduleProgress(1000))


def test_a_reserve_of_time_is_used_where_the_machine_becomes_slower(clock):
    assert trained(clock, RESERVE, step=lambda now: 0.19)[0] == pytest.approx(190)
    clock.now = 0.0
    taken, progress = trained(clock, RESERVE, step=lambda now: 0.1 if now < 30 else 0.4)
    assert (taken, progress.last < 800) == (pytest.approx(200, rel=0.01), True)


def test_steps_that_were_cut_come_back_when_the_machine_is_fast_again(clock):
    taken, progress = trained(clock, RESERVE, step=lambda now: 0.5 if now < 100 else 0.05)
    assert taken <= 200
    assert 900 < progress.last <= 1000


def test_a_constantly_slower_machine_needs_one_reschedule(clock):
    taken, progress = trained(clock, step=lambda now: 0.13)
    assert len(progress.reschedules) == 1
    assert (progress.reschedules[0].step, progress.last) == (250, pytest.approx(100 / 0.13, abs=1))


def test_the_time_of_remaining_evaluations_is_reserved(clock):
    taken, progress = trained(clock, look=3.0)  # ten evaluations that the plan does not know of
    assert taken == pytest.approx(100, rel=0.01)
    assert progress.last == pytest.approx(700, rel=0.01)
    clock.now = 0.0
    planned = replace(PLAN, look=3.0, allowed=130.0)
    assert trained(clock, planned, look=3.0) == (pytest.approx(130), ScheduleProgress(1000))
    clock.now = 0.0
    planned = replace(PLAN, look=5.0, allowed=105.0)  # one at the end
    assert trained(clock, planned, look=5.0, looks=1) == (
        pytest.approx(105),
        ScheduleProgress(1000),
    )


PERIODS = Plan("fp32", 1, 0.1, pause=4.0, period=100, first=2.0, allowed=100.0).within(100.0)


def test_pauses_as_long_as_planned_change_nothing(clock):
    assert (PERIODS.steps, PERIODS.taken) == (700, 740)
    taken, progress = trained(clock, PERIODS, steps=700, pause=(2.0, 4.0))
    assert taken == pytest.approx(100, rel=0.005)
    assert progress.reschedules == ((0, 740, 700),)


@pytest.mark.parametrize(
    ("pause", "periods"),
    [
        ((1.0, 2.0), 7),
        ((4.0, 4.0), 7),
        ((3.0, 6.0), 7),
        ((6.0, 12.0), 4),  # fewer periods, so that each has a hundred steps or more
        ((2.0, 12.0), 4),
        ((40.0, 80.0), 1),
        ((0.1, 0.2), 9),
    ],
)
def test_longer_and_shorter_pauses_are_counted(clock, pause, periods):
    taken, progress = trained(clock, PERIODS, steps=700, pause=pause)
    assert taken == pytest.approx(100, rel=0.01)
    assert progress.periods_started(progress.last, 100) == periods
    assert progress.position(progress.last) == 700


def test_a_machine_that_slept_leaves_a_training_that_ends(clock):
    """After an hour of sleep the budget is used up, and a part of the remaining steps is done."""
    slept = []

    def step(now):
        if now > 30 and not slept:
            slept.append(now)
            return 3600
        return 0.1

    taken, progress = trained(clock, step=step)
    assert 3600 < taken
    assert 430 < progress.last < 700


@dataclass(frozen=True)
class Slowing(Supervised):
    """Steps take half of their planned time, and from the tenth on twice that time."""

    def loss(self, model, batch):
        time.perf_counter.now += 0.01 if batch.step < 10 else 0.04
        return super().loss(model, batch)


HUNDRED = Plan("fp32", torch.get_num_threads(), 0.02, steps=100, allowed=2.0)


def slowed(method, say, totals, folder=None, planned=HUNDRED):
    """A training that is planned with a hundred steps in two seconds."""

    def track(steps, total, what):
        for step in steps:
            yield step
            totals.append(total())

    settings = replace(SETTINGS, method=method, schedule=replace(SCHEDULE, steps=100))
    return train_task(settings, task(track=track), 0, folder, planned, say=say)


@pytest.mark.thorough
def test_a_training_that_gets_slower_is_done_in_fewer_steps_and_in_time(clock):
    said, totals = [], []
    result = slowed(Slowing(augment="none"), said.append, totals)
    assert result.seconds == pytest.approx(2.0, abs=0.04)
    assert result.steps == result.schedule_progress.last == pytest.approx(10 + 1.9 / 0.04, abs=1)
    assert (totals[0], totals[-1]) == (100, result.steps)
    assert [line["step"] for line in result.history][-1] == result.steps
    assert len(result.history) == 1 + SCHEDULE.looks
    assert said == [f"training ran slower than measured: {result.steps} steps instead of 100"]


@pytest.mark.thorough
def test_evaluations_are_no_part_of_the_steps(clock, monkeypatch):
    plain = Monitor.__call__

    def slow(self, model):
        clock.now += 0.3
        return plain(self, model)

    monkeypatch.setattr(Monitor, "__call__", slow)
    planned = replace(HUNDRED, look=0.3, allowed=2.0 + 4 * 0.3)
    result = slowed(Slowing(augment="none"), lambda text: None, [], planned=planned)
    assert result.seconds == pytest.approx(2.0 + 4 * 0.3, abs=0.04)
    # After ten short steps, and once the long ones are known.
    assert len(result.schedule_progress.reschedules) == 2


def test_a_plan_may_rescale_its_schedule():
    planned = replace(HUNDRED, steps=12, taken=7, allowed=None)
    result = train_task(SETTINGS, task(), 0, planned=planned)
    assert result.steps == 7
    assert [line["step"] for line in result.history] == [0, 3, 5, 7]


@pytest.mark.thorough
def test_the_time_limit_holds_over_all_sessions(clock, tmp_path):
    @dataclass(frozen=True)
    class Stopping(Slowing):
        def loss(self, model, batch):
            if batch.step == 30 and not (tmp_path / "stopped").exists():
                (tmp_path / "stopped").touch()
                raise KeyboardInterrupt
            return super().loss(model, batch)

    def go_on():
        return slowed(Stopping(augment="none"), lambda text: None, [], tmp_path / "work")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("handful.training.history.SAVE_EVERY", 0.0)
        go_on()
    clock.now += 3600.0  # between two sessions
    result = go_on()
    assert result.seconds == pytest.approx(2.0, abs=0.1)
    assert result.steps == result.schedule_progress.last == pytest.approx(10 + 1.9 / 0.04, abs=3)
    reschedules = result.schedule_progress.reschedules
    assert reschedules[0].step < 30 < reschedules[-1].step
    assert len(result.history) == 1 + SCHEDULE.looks


def test_a_checkpoint_without_reschedules_can_be_resumed():
    state = begin(METHOD, task(), SCHEDULE, 0)
    saved = state.tensors()
    del saved["turns"]
    state.schedule_progress = state.schedule_progress.rescheduled(0, 5)
    state.restore(saved)
    assert state.schedule_progress == ScheduleProgress(SCHEDULE.steps)


def test_a_resumed_training_has_its_progress_in_the_detector(tmp_path):
    state = begin(METHOD, task(), SCHEDULE, 0)
    state.schedule_progress = state.schedule_progress.rescheduled(0, 5)
    History(state, tmp_path, SCHEDULE).save()
    history = History(begin(METHOD, task(), SCHEDULE, 0), tmp_path, SCHEDULE)
    history.resume()
    assert history.detector.progress == history.state.schedule_progress == state.schedule_progress


def test_a_reschedule_leaves_earlier_positions_as_they_are():
    history = [
        {"step": step, "swallowed": 1.0, "kept": 1.0, "train_accuracy": right}
        for step, right in ((100, 1.0), (210, 0.5), (300, 0.5))
    ]
    progress = ScheduleProgress(1000)
    assert FailureDetector(progress, 0.5).should_stop(history)
    assert FailureDetector(progress.rescheduled(250, 1475), 0.5).should_stop(history)
    sooner = [dict(line, step=line["step"] // 5) for line in history]  # 20, 42 and 60
    assert not FailureDetector(progress, 0.5).should_stop(sooner)
    later = progress.rescheduled(20, 100)  # positions 288 and 510
    assert FailureDetector(later, 0.5).should_stop(sooner)


def test_a_failure_names_the_rescheduled_number_of_steps(clock):
    @dataclass(frozen=True)
    class Idle(Slowing):
        def loss(self, model, batch):
            step = super().loss(model, batch)
            return step._replace(loss=0 * step.loss)

    said = []
    steps = slowed(Idle(augment="none"), said.append, []).steps
    assert steps < 80
    assert f"nothing was learned from the labels at step {steps} of {steps}: " in said[-1]


def test_a_rescheduled_training_covers_the_whole_schedule():
    schedule = replace(SCHEDULE, steps=10, decay="cosine")
    state, rates = begin(METHOD, task(), schedule, 0), []
    batches = Batches(task(), METHOD.views(task()), schedule, 0)
    for progress in train(state, METHOD, batches, schedule):
        rates.append(state.optimizer.param_groups[0]["lr"])
        if progress.step == 4:
            state.schedule_progress = state.schedule_progress.rescheduled(4, 7)
    assert rates == pytest.approx([schedule.rate(at) for at in (0, 1, 2, 3, 4, 6, 8)])


def test_a_rescheduled_training_resumes_bit_identically():
    schedule = replace(SCHEDULE, steps=10)
    batches = Batches(task(), METHOD.views(task()), schedule, 0)
    straight, saved = begin(METHOD, task(), schedule, 0), {}
    for progress in train(straight, METHOD, batches, schedule):
        if progress.step == 3:
            straight.schedule_progress = straight.schedule_progress.rescheduled(3, 8)
        if progress.step == 5:
            saved = {key: value.clone() for key, value in straight.tensors().items()}
    resumed = begin(METHOD, task(), schedule, 0)
    resumed.restore(saved)
    for _ in train(resumed, METHOD, batches, schedule):
        pass
    assert resumed.step == straight.step == 8
    assert resumed.schedule_progress == straight.schedule_progress
    theirs = resumed.model.state_dict()
    assert all(torch.equal(a, theirs[key]) for key, a in straight.model.state_dict().items())


def test_methods_receive_the_fraction_of_the_schedule():
    seen = []

    @dataclass(frozen=True)
    class Rising(UDA):
        def ramp(self, progress):
            seen.append(progress)
            return progress

    schedule = replace(SCHEDULE, steps=10)
    state = begin(Rising(), task(), schedule, 0)
    state.schedule_progress = state.schedule_progress.rescheduled(0, 4).rescheduled(2, 3)
    for _ in train(state, Rising(), Batches(task(), Rising().views(task()), schedule, 0), schedule):
        pass
    assert seen == [0, 0.25, 0.5]


def test_fewer_steps_leave_the_number_of_graphs_unchanged(monkeypatch):
    made = []
    monkeypatch.setattr(DeepPropagation, "relabel", lambda self, batch: made.append(batch.step))
    method, schedule = DeepPropagation(period=4, neighbors=3, rank=6), replace(SCHEDULE, steps=12)
    state = begin(method, task(), schedule, 0)
    state.schedule_progress = state.schedule_progress.rescheduled(0, 9).rescheduled(4, 8)
    for _ in train(state, method, Batches(task(), method.views(task()), schedule, 0), schedule):
        pass
    assert made == [0, 3, 6]


def test_a_progress_bar_shows_the_rescheduled_number_of_steps(monkeypatch):
    totals = []
    from rich.progress import Progress

    plain = Progress.update

    def update(self, bar, **changes):
        totals.append(changes["total"])
        plain(self, bar, **changes)

    monkeypatch.setattr(Progress, "update", update)
    left = iter([5, 5, 3, 3])
    with reporting() as reporter:
        assert list(reporter.track("abc", lambda: next(left), "training")) == ["a", "b", "c"]
        assert list(reporter.track("a", 1, "training")) == ["a"]
    assert totals == [5, 3, 3, 1]


@pytest.mark.thorough
def test_the_reschedules_are_in_the_record(monkeypatch, tmp_path, clock):
    monkeypatch.setattr(
        "handful.training.time_budget.measured", lambda *_: Cost(0.0, 0.2, 0.0, 0.0)
    )
    settings = {"backbone.base": "8", "batch": "8", "looks": "2"}
    options = {"settings": settings, "budget": 3.0, "estimate": "none", "precision": "fp32"}
    method = Slowing(augment="none")  # its steps are faster than measured
    run = handful.fit(stripes(), method, **options, out=tmp_path / "run")
    steps, reschedules = run.record["schedule"]["steps"], run.record["training"]["turns"]
    assert reschedules and run.record["training"]["steps"] == reschedules[-1][1] > steps
    assert handful.open_run(tmp_path / "run").record["training"] == run.record["training"]
