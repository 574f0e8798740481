"""Time budget: the number of steps it allows. test_time_limit.py tests that it is kept."""

import math
import time
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import handful
from handful.methods.deep_propagation import DeepPropagation
from handful.methods.fixmatch import FixMatch
from handful.methods.mean_teacher import MeanTeacher
from handful.methods.pseudo_label import PseudoLabel
from handful.methods.simclr import SimCLR
from handful.methods.softmatch import SoftMatch
from handful.methods.supervised import Supervised
from handful.methods.uda import UDA
from handful.models.classifier import BackboneSpec, Predictor
from handful.pipeline.run_tables import images_to_predict
from handful.progress import Reporter
from handful.training.monitor import Monitor
from handful.training.plan import Plan, measure_plan
from handful.training.settings import Settings
from handful.training.time_budget import Cost, affordable, bought, measured, step_seconds
from handful.training.trainer import train_task
from tiny import SCHEDULE, stripes, task

PLAN = Plan("fp32", 1, 0.01)
SETTINGS = Settings(Supervised(), SCHEDULE, BackboneSpec("small", {"base": 8}), precision="fp32")
# SCHEDULE has 3 evaluations, and stripes() has 24 images to predict.
COST = Cost(start=1.0, step=0.1, evaluation=0.5, image=0.25, clocked=0.4)


@pytest.fixture
def known_cost(monkeypatch, clock):
    monkeypatch.setattr("handful.training.time_budget.measured", lambda *_: COST)


def test_steps_get_the_time_that_the_overhead_leaves(known_cost):
    planned = affordable(SETTINGS, task(), 0, PLAN, seconds=100.04, fits=1, predicted=24)
    assert planned.steps == int((100 - 24 * 0.25 - 1.0 - 3 * 0.5) / 0.1)
    assert planned.seconds_per_step == 0.1
    assert (planned.precision, planned.look) == (PLAN.precision, 0.5)
    assert planned.allowed == pytest.approx(100 - 24 * 0.25 - (1.0 - 0.4), abs=0.1)


def test_all_trainings_of_an_estimate_share_the_time(known_cost):
    planned = affordable(SETTINGS, task(), 0, PLAN, seconds=100.04, fits=6, predicted=24)
    assert planned.steps == int((100 - 24 * 0.25 - 6 * (1.0 + 3 * 0.5)) / 0.6)
    assert planned.allowed == pytest.approx((100 - 24 * 0.25) / 6 - (1.0 - 0.4), abs=0.1)


def test_a_budget_too_short_for_one_step_says_what_is_needed(known_cost):
    with pytest.raises(ValueError, match="leaves 5 s .* take about 22 s .*6 trainings; --estimate"):
        affordable(SETTINGS, task(), 0, PLAN, seconds=5, fits=6, predicted=24)
    with pytest.raises(ValueError, match="overhead .*; give a larger --budget"):
        affordable(SETTINGS, task(), 0, PLAN, seconds=5, fits=1, predicted=24)


QUICK = {"backbone.base": "8", "batch": "8", "looks": "2"}


def test_the_steps_a_budget_buys_are_in_the_record(monkeypatch, steady, clock):
    monkeypatch.setattr(
        "handful.training.time_budget.measured", lambda *_: Cost(0.0, 100.0, 0.0, 0.0)
    )
    said = []
    run = handful.fit(
        stripes(),
        "supervised",
        settings=QUICK,
        budget=1000.0,
        estimate="none",
        precision="fp32",
        reporter=Reporter(say=said.append),
    )
    steps = run.record["schedule"]["steps"]
    assert steps == 10
    assert run.record["training"]["steps"] == steps
    assert run.record["training"]["budget"] == 1000.0
    assert f"{steps} steps, about 1" in said[-1]


@pytest.mark.thorough
def test_time_for_predictions_is_reserved_only_where_there_are_some(
    monkeypatch, tmp_path, steady, clock
):
    monkeypatch.setattr(
        "handful.training.time_budget.measured", lambda *_: Cost(0.0, 60.0, 0.0, 10.0)
    )
    options = {"settings": QUICK, "budget": 1200.0, "precision": "fp32"}

    def steps(**more):
        return handful.fit(stripes(), "supervised", **(options | more)).record["schedule"]["steps"]

    assert steps(estimate="none") == 1200 // 60
    kept = 10 * (24 + 24 + 16)  # predictions, and what to label next
    assert steps(estimate="none", out=tmp_path) == (1200 - kept) // 60
    assert steps() == 1200 // (5 * 60)
    assert steps(prior="unlabeled") == (1200 - 240) // (5 * 60)


def test_time_is_reserved_for_the_images_that_are_predicted_at_the_end(monkeypatch, tmp_path):
    streamed, images = [], stripes()
    plain = Predictor.stream_features

    def counting(self, some, *rest):
        streamed.append(len(some))
        return plain(self, some, *rest)

    monkeypatch.setattr(Predictor, "stream_features", counting)
    handful.fit(
        images, "supervised", settings=QUICK | {"steps": "4"}, estimate="none", out=tmp_path
    )
    assert sum(streamed) == images_to_predict(images) == 24 + 24 + 16


@dataclass(frozen=True)
class Interrupted(Supervised):
    def loss(self, model, batch):
        if batch.schedule_progress.last == 5 and batch.step == 3:
            raise KeyboardInterrupt
        return super().loss(model, batch)


def test_a_resumed_run_keeps_its_number_of_steps(tmp_path, monkeypatch):
    def fit(method, bought):
        monkeypatch.setattr(
            "handful.pipeline.fit.affordable",
            lambda c, t, s, planned, *_: replace(planned, steps=bought),
        )
        return handful.fit(
            stripes(), method, settings=QUICK, budget=60, estimate="none", out=tmp_path / "run"
        )

    with pytest.raises(KeyboardInterrupt):
        fit(Interrupted(), 5)
    monkeypatch.setattr(Interrupted, "loss", Supervised.loss)
    run = fit(Interrupted(), 9)
    assert run.record["schedule"]["steps"] == 5
    assert run.record["training"]["steps"] == 5


@pytest.mark.parametrize("estimate, expected", [("folds", [0, 0, 0, 0, 4]), ("none", [0])])
def test_the_saved_model_has_the_steps_of_the_models_that_estimate_it(
    monkeypatch, estimate, expected
):
    monkeypatch.setattr(
        "handful.pipeline.fit.affordable", lambda c, t, s, planned, *_: replace(planned, steps=4)
    )
    told = []

    def spying(settings, task, seed, folder=None, planned=None, *rest):
        told.append(planned.least)
        return train_task(settings, task, seed, folder, planned, *rest)

    monkeypatch.setattr("handful.pipeline.cross_validate.train_task", spying)
    monkeypatch.setattr("handful.pipeline.last_fit.train_task", spying)
    images = stripes(48, labeled=24)
    handful.fit(images, "supervised", settings=QUICK, budget=60, estimate=estimate)
    assert told == expected


@pytest.mark.parametrize("wrong", [0, 10])
def test_a_network_that_did_not_learn_its_own_labels_is_not_estimated_above_them(
    monkeypatch, wrong
):
    seen = []

    def predict_proba(self, images, **_):
        seen.append(len(images))
        first = np.arange(len(images)) < (wrong if len(images) == 30 else 0)
        answers = np.where(first, 1 - images.labels, images.labels)
        return torch.eye(2)[torch.from_numpy(answers)]

    images = stripes(64, labeled=40)
    origins = {images.names[at]: "chosen" if at % 4 else "random" for at in range(40)}
    monkeypatch.setattr("handful.models.classifier.Predictor.predict_proba", predict_proba)
    monkeypatch.setattr("handful.pipeline.last_fit._LOOKED_AT", 30)
    monkeypatch.setattr(
        "handful.pipeline.cross_validate.train_task",
        lambda *_: SimpleNamespace(collapse=None, predictor=Predictor.__new__(Predictor)),
    )
    run = handful.fit(images, "supervised", settings=QUICK | {"steps": "2"}, precision="fp32")
    right = 1 - wrong / 30
    assert seen[-1] == 30 and run.estimate["accuracy"] <= right
    assert ("of its own labels right" in run.estimate["how"]) == bool(wrong)
    handful.fit(images, "supervised", settings=QUICK | {"steps": "2"}, origins=origins)
    assert seen[-1] == 10  # those that count


def test_after_a_budget_too_short_the_folder_can_be_used_again(
    tmp_path, monkeypatch, steady, clock
):
    def fit(step, budget):
        monkeypatch.setattr(
            "handful.training.time_budget.measured", lambda *_: Cost(0.0, step, 0.0, 0.0)
        )
        options = {"settings": QUICK, "budget": budget, "estimate": "none"}
        return handful.fit(stripes(), "supervised", **options, out=tmp_path / "run")

    with pytest.raises(ValueError, match="give a larger --budget"):
        fit(100.0, 20.0)
    assert fit(10.0, 30.0).record["training"]["steps"] == 3


def test_another_budget_is_another_run(monkeypatch):
    monkeypatch.setattr(
        "handful.pipeline.fit.affordable", lambda c, t, s, planned, *_: replace(planned, steps=2)
    )
    marks = {
        handful.fit(
            stripes(),
            "supervised",
            settings=QUICK,
            budget=budget,
            estimate="none",
            precision="fp32",
        ).record["fingerprint"]
        for budget in (60, 61)
    }
    assert len(marks) == 2


def test_impossible_budgets_are_refused():
    with pytest.raises(ValueError, match="budget fixes the steps, and steps=5 is set too"):
        handful.fit(stripes(), "supervised", settings={"steps": "5"}, budget=60)
    with pytest.raises(ValueError, match="above 0, got -1"):
        handful.fit(stripes(), budget=-1)


@pytest.mark.thorough
def test_a_setting_named_steps_outside_the_schedule_is_allowed_with_a_budget():
    settings = {"steps": "20"}  # of the power iteration
    run = handful.fit(
        stripes(), "propagation", settings=settings, budget=60, size=32, estimate="none"
    )
    assert run.record["method"]["steps"] == 20


def test_a_budget_too_short_for_heads_says_how_many_there_are():
    planned = Plan("fp32", 1, 1.0)
    with pytest.raises(
        ValueError,
        match=r"36 fits .* --estimate none \(in Python estimate=.none.\) .* \(in Python budget=\)",
    ):
        bought(planned, 10.0, 20.0, 0.0, heads=36)


@pytest.mark.thorough
def test_a_method_on_features_says_whether_the_time_is_enough(monkeypatch):
    def told(seconds, left=60.0):
        said = []
        monkeypatch.setattr("handful.pipeline.fit.embedding_seconds", lambda *_: seconds)
        monkeypatch.setattr("handful.training.time_budget.Deadline.left", left)
        handful.fit(
            stripes(size=32, channels=3),
            "features",
            size=32,
            precision="fp32",
            budget=60,
            estimate="none",
            reporter=Reporter(say=said.append),
        )
        return said[-1]

    assert told(0.0) == "the features that it learns from are known already"
    takes = "the features it learns from take about"
    assert told(30.0) == f"{takes} 30 s, within the 60 s that are left"
    too_long = f"{takes} 5 min, more than the 60 s that are left; a smaller --size is faster"
    assert told(300.0) == too_long
    used_up = f"{takes} 30 s, and the time is used up; a smaller --size is faster"
    assert told(30.0, left=-2.0) == used_up


@dataclass(frozen=True)
class Sleeping(Supervised):
    """Supervised, whose steps take at least 0.1 seconds."""

    def loss(self, model, batch):
        time.sleep(0.1)
        return super().loss(model, batch)


@dataclass(frozen=True)
class Pausing(Supervised):
    period: int = 10  # steps between two pauses


@pytest.mark.parametrize("steps", [1, 9, 10, 11, 25])
def test_the_first_step_of_every_period_is_counted(steps):
    planned = replace(PLAN, seconds_per_step=0.1, pause=4.0, period=10, first=1.5)
    later = len(range(10, steps, 10))
    assert planned.seconds(steps) == pytest.approx(0.1 * steps + 1.5 + 4 * later)


@pytest.mark.parametrize(
    ("seconds", "periods", "taken"),
    [
        (1.65, 1, 1),  # after the first pause there is time for one step
        (2.05, 1, 5),  # for half a period
        (7.45, 1, 59),  # a second pause and a period of ten steps more would be 7.5
        (7.55, 2, 20),
        (8.05, 2, 25),
        (102.55, 21, 210),
    ],
)
def test_a_budget_gives_whole_periods_and_all_of_its_time_to_steps(seconds, periods, taken):
    planned = replace(PLAN, seconds_per_step=0.1, pause=4.0, period=10, first=1.5).within(seconds)
    assert (planned.steps, planned.taken) == (10 * periods, taken)
    progress = planned.schedule_progress(replace(SCHEDULE, steps=planned.steps))
    assert progress.last == taken and progress.periods_started(taken, 10) == periods
    assert seconds - 0.1 < 1.5 + 4 * (periods - 1) + 0.1 * taken <= seconds


def test_a_budget_too_short_for_the_first_pause_gives_no_steps():
    assert replace(PLAN, pause=1.0, period=10, first=4.0).within(3.9).steps == 0
    assert replace(PLAN, pause=4.0, period=10, first=1.0).within(0.9).steps == 0


def test_a_budget_includes_pauses(known_cost):
    pausing = replace(PLAN, pause=4.0, period=10, first=4.0)
    planned = affordable(SETTINGS, task(), 0, pausing, seconds=103.04, fits=1, predicted=24)
    left = 103 - 24 * 0.25 - 1.0 - 3 * 0.5  # 94.5 s: 18 periods of 5 s
    assert planned.steps == 18 * 10
    assert planned.taken == int((left - 18 * 4) / 0.1)
    assert planned.seconds_per_step == 0.1


@dataclass(frozen=True)
class Slow(Pausing):
    def loss(self, model, batch):
        paused = 0.3 if batch.step else 0.15
        time.perf_counter.now += paused if batch.step % self.period == 0 else 0.01
        return super().loss(model, batch)


def test_a_plan_counts_the_pauses_of_a_method(clock):
    found = measure_plan(Slow(), task(), SCHEDULE, 0, "fp32")
    assert found.pause == pytest.approx(0.29) and found.period == 10
    assert found.first == pytest.approx(0.14)
    assert found.seconds_per_step == pytest.approx(0.01)
    assert measure_plan(Supervised(), task(), SCHEDULE, 0, "fp32").pause == 0


@pytest.mark.parametrize(
    ("timed", "best"),
    [
        (
            [0.5, 0.15, 0.1, 0.15],
            Plan("fp32", 1, 0.1),
        ),  # other work during the first timing of fp32
        ([0.1, 0.05, 0.1, 0.5], Plan("bf16", 1, 0.05)),  # and during the second one of bf16
        ([0.5, 0.19, 0.1, 0.05], Plan("bf16", 1, 0.05)),
    ],
)
def test_the_faster_of_two_timings_of_short_steps_counts(monkeypatch, timed, best, tmp_path):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))  # no choice is remembered
    times = iter(timed)
    monkeypatch.setattr("handful.training.plan.time_step", lambda *_: next(times))
    monkeypatch.setattr("handful.training.plan.devices.has_bf16", lambda: True)
    found = measure_plan(Supervised(), task(), SCHEDULE, 0)
    assert (found.precision, found.seconds_per_step) == (best.precision, best.seconds_per_step)


def test_long_steps_are_timed_once(monkeypatch, tmp_path):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))  # no choice is remembered
    times = iter([3.0, 2.9])
    monkeypatch.setattr("handful.training.plan.time_step", lambda *_: next(times))
    monkeypatch.setattr("handful.training.plan.devices.has_bf16", lambda: True)
    assert measure_plan(Supervised(), task(), SCHEDULE, 0).precision == "fp32"


def test_the_first_evaluation_is_on_the_clock_of_the_training(monkeypatch, clock):
    plain = Monitor.__call__

    def slow(self, model):
        clock.now += 0.2
        return plain(self, model)

    monkeypatch.setattr(Monitor, "__call__", slow)
    cost = measured(SETTINGS, task(), 0, PLAN, 0.05)
    assert cost.clocked == cost.start == cost.evaluation == pytest.approx(0.2)


def test_planning_leaves_out_the_first_step():
    seen = []

    @dataclass(frozen=True)
    class Recording(Supervised):
        def loss(self, model, batch):
            seen.append(batch.step)
            return super().loss(model, batch)

    measure_plan(Recording(), task(), SCHEDULE, 0, "fp32")
    assert seen and min(seen) == 1


@pytest.mark.thorough
def test_a_pilot_of_a_method_that_pauses_has_no_pause_in_it(clock):
    planned = Plan("fp32", 1, 0.01, pause=0.3, period=10)
    step = measured(replace(SETTINGS, method=Slow()), task(), 0, planned, 2.0).step
    assert step == pytest.approx(0.01)  # a pause among ten steps would be 0.03 more


@pytest.mark.thorough
def test_a_burst_of_other_work_in_the_pilot_does_not_count(clock):
    taken = []

    @dataclass(frozen=True)
    class Disturbed(Supervised):
        def loss(self, model, batch):
            taken.append(batch.step)
            clock.now += 0.01 if len(taken) > 20 else 0.1
            return super().loss(model, batch)

    step = step_seconds(
        replace(SETTINGS, method=Disturbed()), task(), 0, Plan("fp32", 1, 0.01), 0.6
    )
    assert taken == 5 * list(range(1, 13))
    assert step == pytest.approx(0.01)  # 0.04 if all counted


def test_long_steps_are_timed_once_a_repeat(clock):
    taken = []

    @dataclass(frozen=True)
    class Long(Supervised):
        def loss(self, model, batch):
            taken.append(batch.step)
            clock.now += 0.1
            return super().loss(model, batch)

    step = step_seconds(replace(SETTINGS, method=Long()), task(), 0, Plan("fp32", 1, 0.1), 0.06)
    assert taken == [1, 1, 1, 1, 1]
    assert step == pytest.approx(0.1)


def test_a_pilot_whose_short_schedule_diverges_is_still_timed(clock):
    """The pilot is not the training: a long schedule has a longer warm-up."""

    @dataclass(frozen=True)
    class Diverging(Supervised):
        def loss(self, model, batch):
            clock.now += 0.01
            step = super().loss(model, batch)
            return step._replace(loss=step.loss * (math.nan if batch.step == 5 else 1))

    method = replace(SETTINGS, method=Diverging())
    step = step_seconds(method, task(), 0, Plan("fp32", 1, 0.01), 0.6)
    assert step == pytest.approx(0.01, rel=0.3)  # of the steps before the divergence


@dataclass(frozen=True)
class Relabelling(DeepPropagation):
    """DeepPropagation, whose steps and graphs take at least known times."""

    def loss(self, model, batch):
        relabels = batch.schedule_progress.starts_period(batch.step, self.period)
        time.sleep(0.55 if relabels else 0.05)
        return super().loss(model, batch)


@pytest.mark.slow
def test_a_budget_is_met_by_a_method_that_pauses():
    method = Relabelling(period=25, neighbors=5)
    begun = time.perf_counter()
    handful.fit(stripes(), method, settings=QUICK, budget=30.0, estimate="none")
    assert time.perf_counter() - begun == pytest.approx(30, rel=0.05)


@dataclass(frozen=True)
class Contrasting(SimCLR):
    def loss(self, model, batch):
        time.sleep(0.1)
        return super().loss(model, batch)


@pytest.mark.slow
@pytest.mark.parametrize("then", ["features", "self_training", "supervised"])
def test_a_budget_is_met_by_pre_training_and_the_method_after_it(then, tmp_path, monkeypatch):
    plain = Supervised.loss

    def slow(self, model, batch):
        time.sleep(0.1)
        return plain(self, model, batch)

    monkeypatch.setattr(Supervised, "loss", slow)
    begun = time.perf_counter()
    method, settings = Contrasting(then=then), QUICK | {"looks": "2"}
    handful.fit(stripes(seed=21), method, settings=settings, budget=30.0, out=tmp_path / "run")
    assert time.perf_counter() - begun == pytest.approx(30, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("method", [PseudoLabel, MeanTeacher, UDA, FixMatch, SoftMatch])
def test_a_budget_is_met_by_consistency_methods(method):
    @dataclass(frozen=True)
    class Steady(method):
        def loss(self, model, batch):
            time.sleep(0.05)
            return super().loss(model, batch)

    begun = time.perf_counter()
    handful.fit(stripes(), Steady(), settings=QUICK, budget=20.0, estimate="none")
    assert time.perf_counter() - begun == pytest.approx(20, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("estimate, budget", [("none", 20.0), ("folds", 60.0)])
def test_a_budget_is_met_within_five_percent(estimate, budget):
    begun = time.perf_counter()
    run = handful.fit(stripes(), Sleeping(), settings=QUICK, budget=budget, estimate=estimate)
    assert time.perf_counter() - begun == pytest.approx(budget, rel=0.05)
    bought = run.record["schedule"][
        "steps"
    ]  # close to the steps done, if the measurement was right
    assert run.record["training"]["steps"] == pytest.approx(bought, rel=0.1)
