"""The plan of `auto`: candidates that fit into the time."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from handful.pipeline.auto import candidates
from handful.pipeline.auto.candidates import plan_candidates, split_steps
from handful.pipeline.auto.past_results import Normal, Prior
from handful.pipeline.cross_validate import FOLDS
from handful.pipeline.options import InputSpec
from handful.progress import QUIET, Reporter
from handful.training.plan import Plan
from handful.training.time_budget import Cost
from tiny import stripes

PLAN = Plan("fp32", 1, 0.0)


@pytest.mark.parametrize(
    "total, expected", [(100_000, (400, 400)), (1_400, (400, 200)), (140, (70, 14)), (0, (0, 0))]
)
def test_the_last_fit_gets_up_to_half_of_the_steps(total, expected):
    assert split_steps(total, 400) == expected
    steps, in_folds = split_steps(total, 400)
    assert steps + FOLDS.folds * in_folds <= total


@pytest.fixture
def inputs(monkeypatch):
    """A machine on which a pixel's side of an image takes a millisecond, a step ten."""
    monkeypatch.setattr(candidates, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    monkeypatch.setattr(candidates, "make_plan", lambda *_: PLAN)
    seconds = lambda task, _: len(task.images) * task.size / 1e3  # noqa: E731
    monkeypatch.setattr(candidates, "embedding_seconds", seconds)
    monkeypatch.setattr(candidates, "measured", lambda *_: Cost(0.0, 0.01, 0.0, 0.0))
    return InputSpec(precision="fp32")


def test_a_larger_budget_plans_larger_images_and_more_steps(inputs, monkeypatch):
    said = []
    images = stripes()
    poor, rich = (
        plan_candidates(images, budget, 0, inputs, Reporter(say=said.append))
        for budget in (20.0, 90.0)
    )
    assert [row.method for row in rich] == ["features", "self_training", "supervised"]
    assert (poor[0].size, rich[0].size) == (96, 160)
    assert poor[-1].fold_steps < rich[-1].fold_steps == 600
    assert sum(row.seconds for row in poor) < 20
    assert not said
    slow = plan_candidates(images, 9.0, 0, inputs, Reporter(say=said.append))
    assert [row.method for row in slow] == ["features", "supervised"]
    assert (slow[0].size, slow[0].seconds) == (128, pytest.approx(16 * 128 / 1e3, abs=0.01))
    assert said == [
        "features of the images that the choice does not need would take about 3 s more: they are "
        "made beyond the budget, for the predictions, if features is chosen"
    ]
    alone = plan_candidates(images[images.labeled], 9.0, 0, inputs, Reporter(say=said.append))
    assert [(row.method, row.size) for row in alone] == [("features", 128), ("supervised", 8)]
    monkeypatch.setattr(candidates, "_HEAD_SECONDS", 1.0)  # as with tens of thousands of labels
    many = plan_candidates(images, 90.0, 0, inputs, Reporter(say=said.append))
    assert [row.method for row in many] == ["supervised"]
    assert said[-1].endswith("heads on them, would take about 26 min: left out")
    monkeypatch.setattr(candidates, "_HEAD_SECONDS", 0.0)
    asked = plan_candidates(images, 90.0, 0, replace(inputs, size=32), Reporter(say=said.append))
    assert {row.size for row in asked} == {32}
    with pytest.raises(ValueError, match="no method can be evaluated within 1 s"):
        plan_candidates(images, 1.0, 0, inputs, Reporter(say=said.append))
    assert any("left out" in text for text in said)


def test_trainings_keep_to_their_time_where_that_is_what_limits_them(inputs, monkeypatch):
    cost = Cost(start=1.0, step=0.01, evaluation=0.1, image=0.0, clocked=0.5)
    monkeypatch.setattr(candidates, "measured", lambda *_: cost)

    def trained(budget):
        return plan_candidates(stripes(), budget, 0, inputs, QUIET)[-1]

    poor, rich = trained(40.0), trained(90.0)
    assert poor.plan.steps == 600 > poor.fold_steps  # 600 are the method's own
    looks = 0.5 + 10 * 0.1
    assert poor.plan.allowed == pytest.approx(0.01 * 600 + looks)
    assert poor.fold_seconds == pytest.approx(0.01 * poor.fold_steps + looks)
    assert poor.plan.look == 0.1
    assert rich.fold_steps == 600
    assert (rich.plan.allowed, rich.fold_seconds) == (None, None)


def test_a_long_budget_lets_methods_train_on_unlabelled_images(inputs, monkeypatch):
    monkeypatch.setattr(candidates, "_MIN_POOL", 4)
    images = stripes()
    known = candidates.BUDGET + candidates._EXPENSIVE_FROM

    def planned(images, budget):
        return plan_candidates(images, budget, 0, inputs, QUIET)

    short, long = planned(images, known), planned(images, known + 30)
    assert [row.method for row in short] == ["features", "self_training", "supervised"]
    assert [row.method for row in long] == [*(row.method for row in short), "deep_propagation"]
    assert sum(row.seconds for row in long) < known + 30
    assert "deep_propagation" not in [
        row.method for row in planned(images[images.labeled], known + 30)
    ]
    photographs = planned(stripes(channels=3), known + 30)
    assert [row.method for row in photographs][-1] == "fine_tuning"
    slow = replace(PLAN, pause=1.0, period=1000, first=60.0)
    monkeypatch.setattr(candidates, "make_plan", lambda *_: slow)
    assert sum(row.seconds for row in planned(images, known + 30)) < known + 30
    monkeypatch.setattr(candidates, "_MAX_GRAPH", 4)
    assert "deep_propagation" not in [row.method for row in planned(images, known + 30)]
    monkeypatch.setattr(candidates, "_MAX_GRAPH", 100)
    ahead = Prior(Normal(0.1, 0.1), 3)  # of a network from scratch
    monkeypatch.setattr(candidates, "prior_for", lambda _: lambda *_: ahead)
    drawings = planned(stripes(channels=3), known + 30)
    assert [row.method for row in drawings][-1] == "supervised"
