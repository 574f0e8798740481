"""The candidates of `auto`: what fits into the time, and in which order it is tried."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from handful.errors import HandfulError
from handful.methods.schedule import Schedule
from handful.pipeline.auto import candidates, race
from handful.pipeline.auto.candidates import (
    FOLD_SHARE,
    HEADS_WITH_POOL,
    Candidate,
    last_seconds,
    plan_features,
    plan_training,
    seconds_after_choice,
    share_with,
    split_steps,
)
from handful.pipeline.auto.past_results import Normal, Prior
from handful.pipeline.auto.race import Race, first_candidate
from handful.pipeline.cross_validate import FOLDS
from handful.pipeline.options import FitOptions, InputSpec
from handful.progress import QUIET, Reporter
from handful.training.plan import Plan
from handful.training.time_budget import Cost, Deadline
from tiny import stripes

PLAN = Plan("fp32", 1, 0.0)


@pytest.mark.parametrize(
    "total, expected",
    [(100_000, (400, 400)), (1_400, (400, 250)), (340, (100, 60)), (0, (0, 0)), (-5, (0, 0))],
)
def test_folds_get_most_of_the_steps_of_the_last_fit(total, expected):
    steps, fold_steps = split_steps(total, 400)
    assert (steps, fold_steps) == pytest.approx(expected, abs=1)
    assert fold_steps >= FOLD_SHARE * steps - 1
    assert steps + FOLDS.folds * fold_steps <= max(total, 0)


@pytest.fixture
def options(monkeypatch):
    """A machine on which an image of 160 pixels takes 160 ms with lite0, and a step ten."""
    still = SimpleNamespace(perf_counter=lambda: 0.0)
    monkeypatch.setattr(candidates, "time", still)
    monkeypatch.setattr("handful.training.time_budget.time", still)
    monkeypatch.setattr(candidates, "make_plan", lambda *_: PLAN)

    def seconds(task, _):
        cost = candidates.COST.get(task.backbone.name, 1.0)
        return cost * len(task.images) * task.size**2 / 160e3

    monkeypatch.setattr(candidates, "embedding_seconds", seconds)
    monkeypatch.setattr(candidates.models, "installed", lambda _: True)
    monkeypatch.setattr(candidates, "measured", lambda *_: Cost(0.0, 0.01, 0.0, 0.0))
    return FitOptions(inputs=InputSpec(precision="fp32"))


HEADS = ["features", *candidates.HEADS_WITH_POOL]


def planned_heads(images, seconds, options, reporter=QUIET, names=HEADS):
    return plan_features(images, seconds, options, names, reporter)


def test_more_time_plans_larger_images_and_heads_with_unlabelled_ones(options):
    said = []
    options = replace(options, backbone="lite0")
    images, reporter = stripes(), Reporter(say=said.append)
    rich = planned_heads(images, 9.0, options, reporter)
    assert [row.method for row in rich] == ["features", *candidates.HEADS_WITH_POOL]
    assert {row.size for row in rich} == {160}
    assert rich[1].settings == {"limit": "24"}
    assert not said
    poor = planned_heads(images, 2.2, options, reporter)
    assert [(row.method, row.size) for row in poor] == [("features", 128)]
    assert "beyond the budget" in said[-1]
    assert planned_heads(images, 0.8, options, reporter) == []
    assert "left out" in said[-1]
    asked = planned_heads(
        images, 9.0, replace(options, inputs=InputSpec(32, precision="fp32")), reporter
    )
    assert {row.size for row in asked} == {32}


def test_heads_share_the_cost_of_their_features(options):
    options = replace(options, backbone="lite0")
    features, first, *others = planned_heads(stripes(), 90.0, options, QUIET)
    assert first.seconds > 24 * 0.16 > max(row.seconds for row in others)
    assert features.seconds == pytest.approx(16 * 0.16, abs=0.01)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (90.0, ("lite0+lite2", 160)),
        (14.0, ("lite0+lite2", 128)),
        (9.0, ("lite0", 160)),
    ],
)
def test_time_that_features_leave_goes_into_more_accurate_networks(options, seconds, expected):
    rich = planned_heads(stripes(), seconds, options)
    assert {(row.backbone, row.size) for row in rich} == {expected}
    assert sum(row.seconds for row in rich[1:]) <= seconds
    assert rich[0].seconds == pytest.approx(
        candidates.COST[expected[0]] * 16 * expected[1] ** 2 / 160e3, abs=0.01
    )


def test_features_that_only_predictions_need_may_take_time_of_their_own(options, monkeypatch):
    monkeypatch.setattr(candidates, "_MIN_POOL", 4)
    monkeypatch.setattr(candidates, "_ENOUGH", 4)

    def planned(allowed, later):
        rows = plan_features(stripes(), allowed, options, HEADS, QUIET, later)
        return rows[0].backbone, rows[0].size, int(rows[1].settings["limit"])

    assert planned(9.0, 0.0) == ("lite0", 160, 24)
    assert planned(9.0, 6.6) == ("lite0+lite2", 160, 7)
    assert planned(9.0, 6.4) == ("lite0+lite2", 128, 19), "17 images of 384 ms take longer"
    assert planned(7.0, 9.0) == ("lite0+lite2", 128, 11), "beside the labels, four must fit"
    assert planned(3.3, 0.0) == ("lite0", 160, 4), "it is never too slow"


def test_folders_where_every_image_has_a_label_get_them_too(options):
    every = stripes(16, labeled=16)
    (one,) = planned_heads(every, 90.0, options, names=["features"])
    assert (one.backbone, one.size) == ("lite0+lite2", 160)
    (one,) = planned_heads(every, 4.0, options, names=["features"])
    assert (one.backbone, one.size) == ("lite0+lite2", 128)


def test_networks_that_are_not_installed_or_not_wanted_are_not_planned(options, monkeypatch):
    def network(options):
        (name,) = {row.backbone for row in planned_heads(stripes(), 90.0, options)}
        return name

    assert network(options) == "lite0+lite2"
    assert network(replace(options, backbone="lite0")) == "lite0"
    assert network(replace(options, inputs=InputSpec(64, precision="fp32"))) == "lite0"
    monkeypatch.setattr(candidates.models, "installed", lambda _: False)
    assert network(options) == "lite0"


def test_what_is_likely_to_take_too_long_is_not_measured(options, monkeypatch):
    real, asked = candidates.embedding_seconds, []
    monkeypatch.setattr(
        candidates,
        "embedding_seconds",
        lambda task, *rest: asked.append((task.backbone.name, task.size)) or real(task, *rest),
    )
    planned_heads(stripes(), 8.0, options)
    assert set(asked) == {("lite0", 160), ("lite0+lite2", 128)}


def test_many_labels_make_heads_slow(options, monkeypatch):
    monkeypatch.setattr(candidates, "_HEAD_SECONDS", 1.0)
    said = []
    assert planned_heads(stripes(), 90.0, options, Reporter(say=said.append)) == []
    assert "would take about 21 min" in said[-1]


def test_a_training_and_its_folds_fill_the_time(options, monkeypatch):
    cost = Cost(start=1.0, step=0.01, evaluation=0.1, image=0.0, clocked=0.5)
    monkeypatch.setattr(candidates, "measured", lambda *_: cost)

    def planned(seconds):
        return plan_training("supervised", stripes(), seconds, options, {}, QUIET)

    (poor,), (rich,) = planned(16.0), planned(60.0)
    looks = 0.5 + 10 * 0.1
    assert poor.seconds == pytest.approx(16.0, abs=0.1)
    assert poor.plan.allowed == pytest.approx(0.01 * poor.plan.steps + looks)
    assert poor.fold_seconds == pytest.approx(0.01 * poor.fold_steps + looks)
    assert poor.fold_steps == pytest.approx(FOLD_SHARE * poor.plan.steps, abs=1)
    assert rich.plan.steps == rich.fold_steps == 600  # the method's own
    assert (poor.plan.longer, rich.plan.longer) == (True, False)
    trainings = rich.plan.allowed + 4 * rich.fold_seconds
    assert trainings == pytest.approx(60.0 - 5 * 0.5, abs=0.1)


def test_a_training_that_does_not_fit_says_which_budget_holds_it(options):
    said = []
    reporter = Reporter(say=said.append)
    assert plan_training("supervised", stripes(), 0.1, options, {}, reporter) == []
    assert "a --budget that is 1 s longer holds it" in said[0]


def raced(images, budget, options, belief, monkeypatch):
    """The methods in the order in which a race would evaluate them."""
    monkeypatch.setattr(race, "prior_for", lambda *_: lambda *_: Prior(Normal(belief, 0.1), 3))
    deadline = Deadline(budget, 0.0)
    this = Race(images, deadline, options, ["random"] * 16, None, QUIET)
    return [candidate.method for candidate in this._candidates()]


def test_what_is_ahead_on_other_data_sets_is_tried_first(options, monkeypatch):
    heads = list(candidates.HEADS_WITH_POOL)
    photographs, drawings = (
        raced(stripes(), 90.0, options, belief, monkeypatch) for belief in (-0.1, 0.1)
    )
    assert photographs == ["features", *heads, "supervised", "fine_tuning"]
    assert drawings == ["features", "supervised", *heads]


def test_networks_of_packages_take_their_turn_after_ours(options, monkeypatch):
    monkeypatch.setattr(candidates.models, "of_packages", lambda: ["lite1"])
    monkeypatch.setattr(race, "prior_for", lambda *_: lambda *_: Prior(Normal(-0.1, 0.1), 3))

    def planned(**fixed):
        fitted = replace(options, **fixed)
        this = Race(stripes(), Deadline(90.0, 0.0), fitted, ["random"] * 16, None, QUIET)
        return [(one.method, one.backbone) for one in this._candidates()]

    first, second, *others = planned()
    assert [first[0], second] == ["features", ("features", "lite1")]
    assert {network for _, network in others} == {first[1], "lite2", "small"}
    assert "lite1" not in {network for _, network in planned(backbone="lite0")}


def test_heads_use_the_network_of_a_package_where_it_is_better(options, monkeypatch):
    monkeypatch.setattr(candidates.models, "of_packages", lambda: ["lite1"])
    monkeypatch.setattr(race, "prior_for", lambda *_: lambda *_: Prior(Normal(-0.1, 0.1), 3))
    monkeypatch.setattr(Race, "_best_network", lambda _: "lite1")
    this = Race(stripes(), Deadline(90.0, 0.0), options, ["random"] * 16, None, QUIET)
    heads = [one for one in this._candidates() if one.method in candidates.HEADS_WITH_POOL]
    assert {one.backbone for one in heads} == {"lite1"} and len(heads) == 2


def test_a_package_that_cannot_be_used_is_left_out_and_said(options, monkeypatch):
    def planned(images, allowed, options, *rest):
        if options.backbone == "vit":
            raise AttributeError("it has no patch_embed")
        return plan_features(images, allowed, options, *rest)

    said = []
    monkeypatch.setattr(candidates.models, "of_packages", lambda: ["vit"])
    monkeypatch.setattr(race, "plan_features", planned)
    this = Race(
        stripes(), Deadline(90.0, 0.0), options, ["random"] * 16, None, Reporter(say=said.append)
    )
    assert "features" in [one.method for one in this._candidates()]
    assert "backbone vit is left out: it has no patch_embed" in said


def test_a_network_of_a_package_that_fails_is_left_out_and_others_are_evaluated(
    options, monkeypatch
):
    def evaluate(self, candidate):
        if candidate.package:
            raise HandfulError("features that are not finite")
        self.evaluated.append(SimpleNamespace(candidate=candidate))

    said = []
    monkeypatch.setattr(candidates.models, "of_packages", lambda: ["lite1"])
    monkeypatch.setattr(race, "prior_for", lambda *_: lambda *_: Prior(Normal(-0.1, 0.1), 3))
    monkeypatch.setattr(Race, "_evaluate", evaluate)
    monkeypatch.setattr(Race, "shifted", False)
    monkeypatch.setattr(Race, "_best_network", lambda _: "")
    monkeypatch.setattr(Race, "_ensemble", lambda _: None)
    monkeypatch.setattr(Race, "_seconds_beside", lambda _: 0.0)
    this = Race(
        stripes(), Deadline(90.0, 0.0), options, ["random"] * 16, None, Reporter(say=said.append)
    )
    first = [one.candidate.method for one in this.run()][:2]
    assert first == ["features", "gaussian_mixture"]
    assert any(one.endswith("with lite1 is left out: features that are not finite") for one in said)


def test_a_method_is_explained_where_it_is_first_named_and_only_what_is_tried_is_called_so(
    options, monkeypatch
):
    def cannot_win(method, *_):
        return "is not tried: far behind" if method == "self_training" else ""

    class Prepared(Exception):
        pass

    def prepare(*_):
        raise Prepared

    said = []
    monkeypatch.setattr(race, "cannot_win", cannot_win)
    monkeypatch.setattr(race, "prior_for", lambda *_: lambda *_: Prior(Normal(-0.1, 0.1), 3))
    monkeypatch.setattr(Race, "_prepare", prepare)
    reporter = Reporter(say=said.append)
    this = Race(stripes(), Deadline(9.0, 0.0), options, ["random"] * 16, None, reporter)
    features = Candidate("features", "lite0", 160, {}, 1.0, PLAN)
    for _ in range(2):
        with pytest.raises(Prepared):
            this._evaluate(features)
    this._evaluate(replace(features, method="self_training"))
    what = "it fits a linear head on the features of a frozen network"
    assert said == [
        f"trying features with lite0 at 160 pixels: about 1 s ({what})",
        "trying features with lite0 at 160 pixels: about 1 s",
        f"self_training ({what}, then again on its own confident pseudo-labels) is not tried: far "
        "behind",
    ]


def test_a_package_that_no_wanted_method_takes_plans_nothing(options, monkeypatch):
    monkeypatch.setattr(candidates.models, "of_packages", lambda: ["lite1"])
    monkeypatch.setattr(race, "prior_for", lambda *_: lambda *_: Prior(Normal(-0.1, 0.1), 3))
    monkeypatch.setattr(Race, "_best_network", lambda _: "lite1")
    monkeypatch.setattr(
        Race, "_excluded", lambda _, method: "" if method in ("features", "supervised") else "no"
    )
    this = Race(stripes(), Deadline(90.0, 0.0), options, ["random"] * 16, None, QUIET)
    assert [one.method for one in this._candidates()] == ["features", "features", "supervised"]


def test_a_long_budget_lets_methods_train_on_unlabelled_images(options, monkeypatch):
    monkeypatch.setattr(race, "_MIN_POOL", 4)
    long = race.BUDGET + race._EXPENSIVE_FROM
    images, colour = stripes(), stripes(channels=3)

    def last(images, budget, belief=-0.1):
        return raced(images, budget, options, belief, monkeypatch)[-1]

    assert last(images, long - 1) == "fine_tuning"
    assert last(images, long + 30) == "deep_propagation"
    assert last(images[images.labeled], long + 30) == "supervised"
    assert last(colour, long + 30) == "fine_tuning"
    monkeypatch.setattr(race, "_MAX_GRAPH", 4)
    assert last(images, long + 30) == "fine_tuning"


def test_a_long_budget_is_not_spent_on_supervised_alone(options, monkeypatch):
    monkeypatch.setattr(race, "prior_for", lambda *_: lambda *_: Prior(Normal(-0.1, 0.1), 3))
    monkeypatch.setattr(race, "_MIN_POOL", 4)
    given = []
    monkeypatch.setattr(
        race, "plan_training", lambda method, _, allowed, *rest: given.append(allowed) or []
    )
    images = stripes()
    for budget, later, some, follower in (
        (1000.0, 0.0, images, 0.0),
        (1000.0, 0.0, images[images.labeled], 0.0),
        (670.0, 20.0, images, 0.0),
        (300.0, 0.0, images[images.labeled], 90.0),
        (260.0, 0.0, images[images.labeled], 90.0),
    ):
        this = Race(some, Deadline(budget, 0.0), options, (), None, QUIET)
        this._supervised(later, follower=follower)
    assert given == [race.BUDGET, 1000.0, 650.0, race.BUDGET, 260.0]


def planned_trainings(images, options, monkeypatch, belief=-0.1):
    """Method, seconds, settings, size and time for predictions of each training that is planned."""
    monkeypatch.setattr(race, "prior_for", lambda *_: lambda *_: Prior(Normal(belief, 0.1), 3))
    planned = []

    def plan(method, _, allowed, how, settings, reporter, later=0.0):
        planned.append((method, allowed, settings, how.inputs.size, later))
        return []

    monkeypatch.setattr(race, "plan_training", plan)
    list(Race(images, Deadline(100.0, 0.0), options, (), None, QUIET)._candidates())
    return planned


def test_fine_tuning_learns_from_the_head_before_it_and_leaves_time(options, monkeypatch):
    supervised, tuning = planned_trainings(stripes(channels=3), options, monkeypatch)
    method, seconds, settings, size, later = tuning
    assert method == "fine_tuning" and supervised[0] == "supervised"
    assert seconds == pytest.approx(100, rel=0.1)  # `supervised` was left out
    assert settings == {"embed_backbone": "lite0+lite2", "embed_size": "160", "limit": "24"}
    assert (size, later) == (160, 100.0)
    first = [one[0] for one in planned_trainings(stripes(), options, monkeypatch, belief=0.1)]
    assert first == ["supervised"]
    asked = replace(options, inputs=InputSpec(32, precision="fp32"))
    assert planned_trainings(stripes(channels=3), asked, monkeypatch)[1][3] == 32


@pytest.mark.parametrize(
    "head, budget, expected", [(224, 1_000.0, 224), (224, 200.0, 160), (96, 1_000.0, 96)]
)
def test_larger_images_are_fine_tuned_where_there_is_time(
    options, monkeypatch, head, budget, expected
):
    planned = []
    monkeypatch.setattr(race, "plan_training", lambda *given: planned.append(given) or [])
    chosen = Candidate("gaussian_mixture", "lite0+lite2", head, {"limit": "9000"}, 1.0, PLAN)
    images = stripes(channels=3)
    Race(images, Deadline(budget, 0.0), options, (), None, QUIET)._fine_tuning([chosen], 0.0)
    ((_, _, _, how, settings, *_),) = planned
    assert how.inputs.size == expected
    assert settings["embed_size"] == str(head) and settings["limit"] == "2000"


def test_no_fine_tuning_without_a_head_or_in_a_few_seconds(options, monkeypatch):
    monkeypatch.setattr(race, "plan_training", lambda *_: ["planned"])
    chosen = Candidate("gaussian_mixture", "lite0+lite2", 160, {"limit": "900"}, 1.0, PLAN)
    images = stripes(channels=3)
    said = []
    reporter = Reporter(say=said.append)
    for budget, heads, expected in ((90.0, [chosen], 1), (90.0, [], 0), (19.0, [chosen], 0)):
        this = Race(images, Deadline(budget, 0.0), options, (), None, reporter)
        assert len(this._fine_tuning(heads, 0.0)) == expected
    assert said == [
        "fine_tuning (it trains a pre-trained network further) is left out: 19 s are left, and it "
        "takes 20 s or more"
    ]
    monkeypatch.setattr(Race, "shifted", True)
    assert not Race(images, Deadline(90.0, 0.0), options, (), None, reporter)._fine_tuning(
        [chosen], 0.0
    )
    assert said[-1].endswith("it would learn from images unlike the labelled ones")
    monkeypatch.setattr(Race, "shifted", False)
    timm = replace(options, backbone="timm:resnet10t")
    assert not Race(images, Deadline(90.0, 0.0), timm, (), None, QUIET)._fine_tuning([chosen], 0.0)


def test_fine_tuning_leaves_time_for_the_network_beside_it_in_an_ensemble(options, monkeypatch):
    allowed = []
    monkeypatch.setattr(race, "plan_training", lambda *given: allowed.append(given[2]) or [])
    chosen = Candidate("gaussian_mixture", "lite0+lite2", 160, {"limit": "900"}, 1.0, PLAN)
    monkeypatch.setattr(Race, "shifted", False)
    for beside in (0.0, 15.0):
        this = Race(stripes(channels=3), Deadline(90.0, 0.0), options, (), None, QUIET)
        monkeypatch.setattr(Race, "_seconds_beside", lambda _, seconds=beside: seconds)
        this._fine_tuning([chosen], 0.0)
    alone, beside = allowed
    assert alone - beside == pytest.approx(15.0, abs=0.1)


@pytest.mark.parametrize("seconds, planned", [(35.0, True), (37.0, False)])
def test_fine_tuning_whose_first_layers_take_too_long_is_left_out(
    options, monkeypatch, seconds, planned
):
    said = []
    monkeypatch.setattr(race, "plan_training", lambda *_: ["planned"])
    monkeypatch.setattr(race.FineTuning, "first_seconds", lambda *_: seconds)
    monkeypatch.setattr(Race, "remaining", 90.0)
    chosen = Candidate("gaussian_mixture", "lite0+lite2", 160, {"limit": "900"}, 1.0, PLAN)
    reporter = Reporter(say=said.append)
    this = Race(stripes(channels=3), Deadline(90.0, 0.0), options, (), None, reporter)
    assert bool(this._fine_tuning([chosen], 0.0)) == planned
    if not planned:
        assert "left out: its first layers would take about 37 s for the images" in said[-1]


def test_fine_tuning_that_is_too_short_is_left_out_and_how_much_it_needs_is_said(options):
    said = []
    reporter = Reporter(say=said.append)
    how = stripes(channels=3), 3.0, options, {"limit": "24"}, reporter
    (planned,) = plan_training("fine_tuning", *how)
    assert planned.fold_steps >= 40
    assert plan_training("fine_tuning", *(how[0], 1.0, *how[2:])) == []
    assert "further) is left out: with its folds it would need about" in said[-1]
    plan_training("fine_tuning", *(how[0], 1.0, *how[2:]))
    assert "fine_tuning is left out: with its folds" in said[-1]  # explained before


def test_predictions_may_take_the_time_that_is_left_for_them(options, monkeypatch):
    monkeypatch.setattr(candidates, "measured", lambda *_: Cost(0.0, 0.01, 0.0, 1.0))
    said = []
    how = "supervised", stripes(), 10.0, options, {}, Reporter(say=said.append)
    assert plan_training(*how) == []  # 24 images of a second each
    assert "(24 s of them to predict 24 images), and 10 s are left" in said[0]
    (planned,) = plan_training(*how, 20.0)
    assert planned.plan.steps == pytest.approx(6.0 / 0.01 / (1 + FOLDS.folds * FOLD_SHARE), abs=2)


def test_another_network_is_planned_with_the_last_training_of_the_one_before(options):
    (one,) = plan_training("supervised", stripes(), 5.0, options, {}, QUIET)
    expected = one.seconds * one.plan.steps / (one.plan.steps + FOLDS.folds * one.fold_steps)
    assert last_seconds(one) == pytest.approx(expected)
    assert last_seconds(replace(one, fold_steps=None, plan=PLAN)) == 0


def test_a_training_leaves_the_time_that_a_head_needs_once_it_is_chosen(options, monkeypatch):
    head = Candidate("self_training", "lite0", 160, {"limit": "2000"}, 9.0, PLAN)
    some = stripes(120, labeled=100)
    # Eight more folds, the last fit, and four fits for the confidence of the answers.
    needed = 13 * 2000 * HEADS_WITH_POOL["self_training"]
    assert seconds_after_choice(head, some) == pytest.approx(needed)
    alone = replace(some, labels=np.where(np.arange(120) < 100, some.labels, 0))
    assert seconds_after_choice(head, alone) == pytest.approx(needed * 9 / 13)  # no answers to give
    assert seconds_after_choice(replace(head, method="features"), some) == 0
    for allowed in (20.0, 40.0, 80.0):
        given = share_with(needed, allowed)
        folds = given * FOLDS.folds * FOLD_SHARE / (1 + FOLDS.folds * FOLD_SHARE)
        assert given <= allowed and folds <= allowed - needed + 1e-9
    assert share_with(needed, 80.0) == 80.0  # the last fit of the network takes longer
    assert share_with(30.0, 20.0) == 0.0


def test_what_the_user_fixes_restricts_the_candidates(options, monkeypatch):
    monkeypatch.setattr(race, "_MIN_POOL", 4)
    long = race.BUDGET + race._EXPENSIVE_FROM + 30

    def methods(channels=1, budget=90.0, **fixed):
        images = stripes(channels=channels)
        return raced(images, budget, replace(options, **fixed), -0.1, monkeypatch)

    assert methods(backbone="lite0") == [*HEADS, "fine_tuning"]
    assert methods(backbone="small") == ["supervised"]
    assert methods(budget=long, backbone="small") == ["supervised", "deep_propagation"]
    assert methods(settings={"first_share": "0.2"}) == ["self_training"]
    assert methods(settings={"batch": "8"}) == ["supervised"]
    assert methods(schedule=Schedule(steps=5)) == ["supervised"]
    assert methods(channels=3, budget=long, backbone="lite0")[-1] == "fine_tuning"


def test_steps_that_the_user_fixes_are_taken_whatever_the_time(options):
    fixed = replace(options, settings={"steps": "50"})
    (one,) = plan_training("supervised", stripes(), 0.1, fixed, {}, QUIET)
    assert one.plan.steps == one.fold_steps == 50
    assert one.plan.allowed is None


def test_no_candidate_is_made_only_to_see_whether_it_is_allowed(options, monkeypatch):
    """`fine_tuning` computes the features of all images when it is made."""

    def refuse(*_):
        raise AssertionError("a network was made")

    monkeypatch.setattr("handful.methods.fine_tuning.FineTuning.build", refuse)
    colour = stripes(channels=3)
    assert (
        raced(colour, 90.0, replace(options, backbone="lite0"), -0.1, monkeypatch)[0] == "features"
    )


def test_a_setting_that_no_method_has_is_refused(options):
    unknown = replace(options, settings={"stepz": "5"})
    with pytest.raises(ValueError, match="no method that auto may choose .*stepz.*steps"):
        first_candidate(stripes(), unknown, QUIET)


def test_the_plan_of_a_stage_is_read_again(options, tmp_path, monkeypatch):
    monkeypatch.setattr(race, "prior_for", lambda *_: lambda *_: Prior(Normal(-0.1, 0.1), 3))

    def stages():
        this = Race(stripes(), Deadline(90.0, 0.0), options, (), tmp_path, QUIET)
        return list(this._candidates())

    first = stages()
    monkeypatch.setattr(candidates, "measured", lambda *_: Cost(0.0, 99.0, 0.0, 0.0))
    assert stages() == first
