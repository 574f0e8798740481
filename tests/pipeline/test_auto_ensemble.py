"""`auto` makes an ensemble where predictions out of fold speak for one."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import handful
from handful.errors import HandfulError
from handful.evaluation.cross_validation import OutOfFold, Scheme
from handful.methods.ensemble import Ensemble
from handful.models.classifier import BackboneSpec
from handful.pipeline import last_fit
from handful.pipeline.auto import race
from handful.pipeline.auto.candidates import Candidate
from handful.pipeline.auto.ensemble import ensemble as stacked
from handful.pipeline.auto.ensemble import weights_of
from handful.pipeline.auto.evaluated import Evaluated
from handful.pipeline.auto.past_results import Normal, Prior
from handful.pipeline.earlier_run import earlier_settings
from handful.pipeline.options import FitOptions
from handful.pipeline.pretrain import pretrain
from handful.pipeline.setup import prepare
from handful.progress import QUIET
from handful.report import render
from handful.training.plan import Plan
from handful.training.settings import Settings
from handful.training.time_budget import Deadline
from handful.training.trainer import train_task
from tiny import stripes

PLAN = Plan("fp32", 1, 0.0)
HEAD = Candidate("features", "lite0", 32, {}, 1.0, PLAN)
TRAINED = Candidate("supervised", "small", 8, {}, 1.0, replace(PLAN, steps=3), fold_steps=2)
LABELS = np.arange(200) % 2


def ensemble(head, trained, counted):
    return stacked(head, [trained], counted)


def sure(shares):
    """(1, n, 2) probabilities, from those of the label (n,)."""
    shares = np.asarray(shares, float)
    rows = np.stack([shares, 1 - shares], axis=1)
    rows[LABELS == 1] = rows[LABELS == 1, ::-1]
    return rows[None]


def evaluated(candidate, shares, class_seen=None):
    out = OutOfFold(
        LABELS, sure(shares), np.empty((0, 200, 2)), 0.75, 0.5, Scheme(4, 1, 0), True, None,
        class_seen,
    )  # fmt: skip
    settings = Settings(SimpleNamespace(), None, BackboneSpec(candidate.backbone))
    task = SimpleNamespace(size=candidate.size)
    return Evaluated(candidate, settings, task, out, {}, 1.0)


def unlike_members(rng, first=0.5, second=0.5):
    """Probabilities of two classifiers whose mistakes have nothing to do with each other."""
    return [1 / (1 + np.exp(-rng.normal(mean, 1.0, len(LABELS)))) for mean in (first, second)]


def test_two_that_make_different_mistakes_answer_together():
    one, other = unlike_members(np.random.default_rng(0), 0.8, 0.8)
    both = ensemble(evaluated(HEAD, one), evaluated(TRAINED, other), np.full(200, True))
    assert both.settings.method.weight == (0.5,)
    alone = [(x > 0.5).mean() for x in (one, other)]
    assert both.out.right.mean() > max(alone) + 0.03
    assert np.allclose(both.out.probabilities.sum(axis=2), 1)
    assert both.candidate.backbone == "lite0 and small" and both.candidate.size == 32
    assert [one.candidate.method for one in both.members] == ["features", "supervised"]


def test_heads_on_networks_of_others_are_in_no_ensemble(monkeypatch):
    """A network of a package is known by name only, and `Ensemble` has ours."""
    one, other = unlike_members(np.random.default_rng(0), 0.8, 0.8)
    monkeypatch.setattr(race.models, "beside_ours", lambda: ["lite1"])
    monkeypatch.setattr(race, "prior_for", lambda *_: lambda *_: Prior(Normal(0.0, 0.5), 0))
    monkeypatch.setattr(race.Race, "shifted", False)
    images = stripes(200, labeled=200)
    deadline, options = Deadline(9.0, 0.0), FitOptions()
    this = race.Race(images, deadline, options, ["random"] * 200, None, QUIET)
    for backbone, together in (("lite0", True), ("lite1", False)):
        head = evaluated(replace(HEAD, backbone=backbone), one)
        this.evaluated = [head, evaluated(TRAINED, other)]
        assert bool(this._ensemble()) == together


@pytest.mark.parametrize("better", [0, 1])
def test_one_that_is_far_better_answers_alone(better):
    rng = np.random.default_rng(1)
    shares = unlike_members(rng, 3.0, 0.0)
    head, trained = (shares[better], shares[1 - better])
    assert ensemble(evaluated(HEAD, head), evaluated(TRAINED, trained), np.full(200, True)) is None


def test_labels_that_do_not_count_have_no_say():
    """The two complete each other on the first half; on the others the network is always right."""
    first = np.arange(200) < 100
    one, other = unlike_members(np.random.default_rng(0), 0.8, 0.8)
    members = (
        evaluated(HEAD, np.where(first, one, 1e-6)),
        evaluated(TRAINED, np.where(first, other, 0.999)),
    )
    every, found = ensemble(*members, np.full(200, True)), ensemble(*members, first)
    assert every is None or every.settings.method.weight > found.settings.method.weight
    assert (found.stack.likely[:, ~first] == 0).all()


def test_models_that_saw_no_label_of_the_class_have_no_say():
    """On some images the network gives the label no chance, since it knew none of the class."""
    one, other = unlike_members(np.random.default_rng(0), 0.8, 0.8)
    unknown = np.arange(200) < 40
    shares = np.where(unknown, 1e-9, other)
    head, every = evaluated(HEAD, one), np.full(200, True)
    assert ensemble(head, evaluated(TRAINED, shares), every) is None
    found = ensemble(head, evaluated(TRAINED, shares, ~unknown[None]), every)
    assert found.settings.method.weight == (0.5,)


def test_the_weight_is_chosen_anew_on_other_images():
    """Where the estimate asks what other images would have chosen."""
    first = np.arange(200) < 100
    one, other = unlike_members(np.random.default_rng(0), 0.8, 0.8)
    members = evaluated(HEAD, np.where(first, one, 0.999)), evaluated(TRAINED, other)
    found = ensemble(*members, np.full(200, True))
    found = found or ensemble(*members, first)
    weights = [weights_of(2)[found.stack.best(np.flatnonzero(some))][1] for some in (first, ~first)]
    assert weights[0] > weights[1] == 0
    assert np.array_equal(found.stack.right[0], members[0].out.right)
    assert np.array_equal(found.stack.right[-1], members[1].out.right)


FINE_TUNED = Candidate("fine_tuning", "lite2", 32, {}, 1.0, replace(PLAN, steps=3), fold_steps=2)


def test_three_that_make_different_mistakes_answer_together():
    rng = np.random.default_rng(0)
    one, other, third = (unlike_members(rng, 0.8, 0.8)[0] for _ in range(3))
    members = evaluated(HEAD, one), [evaluated(FINE_TUNED, other), evaluated(TRAINED, third)]
    found = stacked(*members, np.full(200, True))
    assert found.settings.method.trained == ("fine_tuning", "supervised")
    assert min(found.settings.method.weight) > 0 and sum(found.settings.method.weight) < 1
    pair = ensemble(members[0], members[1][1], np.full(200, True))
    assert found.out.right.mean() > pair.out.right.mean()
    names = [one.candidate.method for one in found.members]
    assert names == ["features", "fine_tuning", "supervised"]
    options = found.settings.backbone.options
    assert (options["trained"], options["side"]) == ("lite2", 32)
    assert options["other"] == {"trained": "small", "options": {}, "side": 8}


def test_a_network_without_a_say_is_left_out_of_three():
    rng = np.random.default_rng(0)
    one, other = unlike_members(rng, 0.8, 0.8)
    guess = np.full(200, 0.5)
    trained = [evaluated(FINE_TUNED, guess), evaluated(TRAINED, other)]
    found = stacked(evaluated(HEAD, one), trained, np.full(200, True))
    assert found.settings.method.trained == ("supervised",)
    assert [one.candidate.method for one in found.members] == ["features", "supervised"]
    assert "other" not in found.settings.backbone.options


@pytest.mark.parametrize("members, number", [(2, 5), (3, 12)])
def test_the_weights_that_are_tried_are_quarters_and_the_head_has_a_part(members, number):
    tried = weights_of(members)
    assert len(tried) == len(set(tried)) == number
    assert all(sum(one) == 1 and (one[0] or max(one) == 1) for one in tried)
    assert tried[0] == (1.0, *[0.0] * (members - 1))


@pytest.fixture
def complementary(monkeypatch):
    """Plan a head and a training whose mistakes out of fold are different ones."""
    monkeypatch.setattr(race, "prior_for", lambda *_: lambda *_: Prior(Normal(0.0, 0.5), 0))
    monkeypatch.setattr(race, "plan_features", lambda *_: [HEAD])
    monkeypatch.setattr(
        race, "plan_training", lambda method, *_: [TRAINED] if method == "supervised" else []
    )

    def predictor(settings, task, *_):
        labels = task.images.labels[task.images.labeled]
        wrong = 0 if settings.schedule is None else 1

        def fit(train, held, seed):
            right = np.where(held % 4 == wrong, 0.4, 0.9)
            return np.where(np.eye(2)[labels[held]] == 1, right[:, None], 1 - right[:, None])

        return fit

    monkeypatch.setattr(race, "fold_predictor", predictor)
    monkeypatch.setattr("handful.pipeline.auto.select.fold_predictor", predictor)


def test_auto_takes_the_ensemble_and_the_run_is_whole(complementary, tmp_path):
    images = stripes(60, labeled=32)
    out = tmp_path / "run"
    run = handful.fit(images, "auto", size=32, precision="fp32", out=out)
    method, rows = run.record["method"], run.record["choice"]
    assert method["name"] == "ensemble" and tuple(method["weight"]) == (0.5,)
    assert [row["method"] for row in rows] == ["features", "supervised", "ensemble"]
    assert rows[2]["accuracy"] > max(rows[0]["accuracy"], rows[1]["accuracy"])
    assert rows[2]["verdict"] == "chosen" and run.record["training"]["steps"] == 3
    told = [(one["method"]["name"], one["size"]) for one in run.record["members"]]
    assert told == [("features", 32), ("supervised", 8)]
    again = handful.open_run(out)
    pool = images[images.unlabeled]
    assert (again.predict(pool).probabilities == run.predict(pool).probabilities).all()
    assert len(again.predict(pool, none_of_these=True)) == len(pool)
    assert "the network has learned from some of these images" in again.mistaken_for_none
    assert (out / "predictions.csv").exists() and (out / "label-next.csv").exists()
    report = render([out])
    assert "lite0+small" in report
    assert run.predictor.backbone.name == Ensemble.name


@pytest.fixture
def three(monkeypatch):
    """Plan a head and two trainings whose mistakes out of fold are different ones."""
    planned = {"fine_tuning": FINE_TUNED, "supervised": TRAINED}
    monkeypatch.setattr(race, "prior_for", lambda *_: lambda *_: Prior(Normal(-0.1, 0.5), 3))
    pool_head = replace(HEAD, method="gaussian_mixture", settings={"limit": "20"})
    monkeypatch.setattr(race, "plan_features", lambda *_: [pool_head])
    monkeypatch.setattr(race, "plan_training", lambda method, *_: [planned[method]])
    wrong = {"gaussian_mixture": 0, "fine_tuning": 1, "supervised": 2}

    def predictor(settings, task, *_):
        labels = task.images.labels[task.images.labeled]

        def fit(train, held, seed):
            right = np.where(held % 4 == wrong[settings.method.name], 0.4, 0.9)
            return np.where(np.eye(2)[labels[held]] == 1, right[:, None], 1 - right[:, None])

        return fit

    monkeypatch.setattr(race, "fold_predictor", predictor)
    monkeypatch.setattr("handful.pipeline.auto.select.fold_predictor", predictor)


@pytest.mark.parametrize(
    "remaining, expected", [(100.0, 11.5), (32.0, 9.0), (25.0, 7.0), (-5.0, 7.0)]
)
def test_the_last_of_three_gets_the_time_that_was_planned_or_is_left(
    monkeypatch, remaining, expected
):
    given = []

    def trained(settings, task, seed, folder, plan, *_):
        given.append(plan.allowed)
        return SimpleNamespace(seconds=settings.schedule, predictor=None)

    monkeypatch.setattr(last_fit, "train_task", trained)
    monkeypatch.setattr(last_fit, "joined", lambda *_: None)
    monkeypatch.setattr(
        last_fit,
        "replace",
        lambda this, **new: replace(this, **new) if isinstance(this, Plan) else this,
    )
    plans = [PLAN, replace(PLAN, allowed=24.0), replace(PLAN, allowed=11.5)]
    members = []
    for seconds, plan, fold in zip((1.0, 22.0, 11.0), plans, (None, 15.0, 7.0), strict=True):
        settings = Settings(SimpleNamespace(), seconds, BackboneSpec("small"))
        images = stripes()
        candidate = Candidate("m", "small", 8, {}, 1.0, plan, fold_seconds=fold)
        members.append(
            SimpleNamespace(
                settings=settings, task=SimpleNamespace(images=images), candidate=candidate
            )
        )
    method = Ensemble("features", ("fine_tuning", "supervised"), 1.0, (1.0, 1.0), (0.25, 0.25))
    selection = SimpleNamespace(remaining=remaining, selected=SimpleNamespace(members=members))
    settings = SimpleNamespace(method=method)
    decision = SimpleNamespace(settings=settings, selection=selection, plan=plans[-1])
    last_fit._train_ensemble(decision, 0, None, print)
    assert given == [None, 24.0, expected]


def test_a_run_of_three_is_whole_and_goes_on_after_a_kill(three, tmp_path, monkeypatch):
    monkeypatch.setattr(race, "_FINE_TUNING_FROM", 0.0)
    images, how = stripes(60, labeled=32, channels=3), {"size": 32, "precision": "fp32"}
    run = handful.fit(images, "auto", out=tmp_path / "run", **how)
    method = run.record["method"]
    assert method["name"] == "ensemble" and sum(method["weight"]) < 1
    assert tuple(method["trained"]) == ("supervised", "fine_tuning")
    told = [(one["method"]["name"], one["size"]) for one in run.record["members"]]
    assert told == [("gaussian_mixture", 32), ("supervised", 8), ("fine_tuning", 32)]
    again, pool = handful.open_run(tmp_path / "run"), images[images.unlabeled]
    assert (again.predict(pool).probabilities == run.predict(pool).probabilities).all()
    report = render([tmp_path / "run"])
    assert "lite0+small+lite2" in report and "weights: gaussian_mixture 0." in report

    trained = []

    def killed(settings, *rest):
        trained.append(settings.method.name)
        if settings.method.name == "fine_tuning":
            raise KeyboardInterrupt
        return train_task(settings, *rest)

    with monkeypatch.context() as patched:
        patched.setattr("handful.pipeline.last_fit.train_task", killed)
        with pytest.raises(KeyboardInterrupt):
            handful.fit(images, "auto", out=tmp_path / "killed", **how)
    assert trained == ["gaussian_mixture", "supervised", "fine_tuning"]
    resumed = handful.fit(images, "auto", out=tmp_path / "killed", **how)
    assert resumed.record["backbone"]["weights"] == run.record["backbone"]["weights"]


def test_the_ensemble_of_a_kept_run_is_the_same_again(complementary, tmp_path):
    how = {"size": 32, "precision": "fp32"}
    first, second = (
        handful.fit(stripes(60, labeled=32), "auto", out=tmp_path / name, **how) for name in "ab"
    )
    assert first.record["backbone"]["weights"] == second.record["backbone"]["weights"]


def test_the_network_of_a_kept_run_that_the_user_named_is_named_again():
    options = {"networks": "lite2", "trained": "lite0", "side": 96, "stages": 3, "options": {}}
    backbone = {"name": "ensemble", "options": options, "parameters": 1}
    record = {
        "backbone": backbone,
        "fixed": {"backbone": "lite2", "settings": {}},
        "method": {"name": "ensemble"},
        "choice": [{}],
        "input": {"aspect": "crop", "flips": False},
    }
    assert earlier_settings(SimpleNamespace(record=record))["backbone"] == "lite2"
    options["networks"] = "timm:resnet18"
    with pytest.raises(HandfulError, match="may have to be downloaded"):
        earlier_settings(SimpleNamespace(record=record, folder="run"))


def test_settings_of_fine_tuning_in_earlier_versions_are_repeated_as_they_were():
    method = {"name": "fine_tuning", "unlabeled_ratio": 8, "frozen_norm": False, "frozen_parts": 0}
    record = {
        "backbone": {"name": "lite0", "options": {}},
        "method": method,
        "schedule": {"steps": 480, "lr": 1e-3},
        "choice": [],
        "input": {"size": 96, "aspect": "crop", "flips": True},
        "training": {"budget": None},
    }
    again = earlier_settings(SimpleNamespace(record=record, folder="run"))
    images = stripes(60, labeled=32, channels=3)
    resolved, task = prepare(
        images, again["method"], backbone=again["backbone"], settings=again["settings"]
    )
    assert resolved.method.trained_layers == "all" and not resolved.method.frozen_norm
    assert resolved.method.views(task).images and resolved.schedule.steps == 480
    record |= {"choice": [{}], "fixed": {"settings": {"frozen_parts": "5", "batch": "4"}}}
    fixed = earlier_settings(SimpleNamespace(record=record, folder="run"))["settings"]
    assert fixed == {"batch": "4"}


def test_two_of_one_pre_trained_backbone_make_no_ensemble(complementary, monkeypatch, tmp_path):
    """`--init` gives both the same network, which the head then looks at."""
    images = stripes(60, labeled=32, size=16)
    init = tmp_path / "init"
    monkeypatch.setattr(
        race, "plan_features", lambda *_: [replace(HEAD, backbone="small", size=16)]
    )
    monkeypatch.setattr(
        race,
        "plan_training",
        lambda method, *_: [replace(TRAINED, size=16)] if method == "supervised" else [],
    )
    pretrain(images, "simclr", backbone="small", settings={"steps": "2"}, out=init)
    run = handful.fit(images, "auto", init=init, precision="fp32")
    assert run.record["method"]["name"] in ("features", "supervised")
