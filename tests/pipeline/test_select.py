"""Selection of a method: evidence from labels and past results, and unlabelled images."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

import handful
from handful.cli import app
from handful.methods.self_training import SelfTraining
from handful.models.classifier import BackboneSpec
from handful.pipeline import fit
from handful.pipeline.auto import race, select
from handful.pipeline.auto.candidates import Candidate
from handful.pipeline.auto.past_results import Normal, Prior
from handful.pipeline.auto.race import Race
from handful.pipeline.earlier_run import earlier_settings
from handful.pipeline.options import FitOptions, InputSpec
from handful.progress import QUIET
from handful.training.plan import Plan
from handful.training.settings import Settings
from handful.training.time_budget import Deadline
from handful.training.trainer import train_task
from tiny import stripes

LOOK = {"size": 32, "precision": "fp32", "method": "auto"}
INPUTS = InputSpec(32, precision="fp32")
PLAN = Plan("fp32", 1, 0.0)
HEADS = [
    Candidate("features", "lite0", 32, {}, 1.0, PLAN),
    Candidate("self_training", "lite0", 32, {"limit": "20"}, 1.0, PLAN),
]
SUPERVISED = Candidate("supervised", "small", 8, {}, 1.0, replace(PLAN, steps=3), fold_steps=2)


def undecided(method, reference):
    return Prior(Normal(0.0, 0.5), 0)


def plan_quickly(monkeypatch, training=SUPERVISED):
    """Plan two heads and a training of three steps; return the stages as they are planned."""
    calls = []
    monkeypatch.setattr(race, "plan_features", lambda *_: calls.append("features") or HEADS)

    def plan_training(method, *_):
        calls.append(method)
        return [training] if method == training.method else []

    monkeypatch.setattr(race, "plan_training", plan_training)
    monkeypatch.setattr(race, "prior_for", lambda *_: undecided)
    return calls


@pytest.fixture
def quick_plan(monkeypatch):
    return plan_quickly(monkeypatch)


@pytest.fixture(scope="module")
def auto_run(tmp_path_factory):
    """A run of `auto` on `stripes()`, shared: nothing is written to it."""
    folder = tmp_path_factory.mktemp("auto") / "run"
    with pytest.MonkeyPatch.context() as patched:
        plan_quickly(patched)
        return handful.fit(stripes(), **LOOK, flips=True, out=folder)


@pytest.mark.thorough
@pytest.mark.parametrize("counts", [(1, 1), (9, 1)])
@pytest.mark.parametrize("method", ["auto", "features"])
def test_a_class_may_have_a_single_label(quick_plan, method, counts):
    images = stripes(labeled=40)
    kept = [np.flatnonzero(images.labels == k)[:count] for k, count in enumerate(counts)]
    run = handful.fit(images.seen(np.sort(np.concatenate(kept))), **LOOK | {"method": method})
    assert run.record["data"]["labeled"] == sum(counts)


@pytest.mark.thorough
def test_a_pool_shift_is_reported(quick_plan, monkeypatch):
    said = []
    monkeypatch.setattr(race, "shift_of_pool", lambda *_: 0.8)
    seen = []
    monkeypatch.setattr(
        select, "prior_for", lambda _, pool_shifted: seen.append(pool_shifted) or undecided
    )
    handful.fit(stripes(), **LOOK, reporter=fit.Reporter(say=said.append))
    assert seen == [True]  # past results are asked for such unlabelled images
    assert any("in 80% of comparisons (50% by chance)" in text for text in said)


def test_auto_leaves_a_run_of_the_method_that_was_chosen(auto_run):
    images, run, folder = stripes(), auto_run, auto_run.folder
    rows = run.record["choice"]
    assert [row["method"] for row in rows] == ["features", "self_training", "supervised"]
    (best,) = (row for row in rows if row["chosen"])
    assert best["method"] == run.record["method"]["name"]
    known = [row for row in rows if row["accuracy"] is not None]
    labels = run.record["data"]["labeled"]
    hits = np.array([labels * row["accuracy"] for row in known])
    assert hits == pytest.approx(hits.round())  # out of fold, without a correction
    assert run.estimate["selection"] >= 0
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in known)
    again = handful.open_run(folder)
    assert again.predict(images).labels == run.predict(images).labels
    assert json.loads((folder / "run.json").read_text())["choice"] == rows
    assert not (folder / "checkpoint").exists()


@pytest.mark.thorough
def test_folds_and_the_last_fit_are_told_how_long_they_may_take(monkeypatch):
    limited = replace(SUPERVISED, plan=replace(PLAN, steps=3, allowed=9.0), fold_seconds=5.0)
    plan_quickly(monkeypatch, limited)
    monkeypatch.setattr(race, "plan_features", lambda *_: [])
    told = []

    def spying(settings, task, seed, folder=None, planned=None, *rest):
        told.append(planned.allowed)
        return train_task(settings, task, seed, folder, replace(planned, allowed=None), *rest)

    monkeypatch.setattr("handful.pipeline.cross_validate.train_task", spying)
    monkeypatch.setattr("handful.pipeline.last_fit.train_task", spying)
    handful.fit(stripes(), **LOOK)
    assert told == [5.0] * 4 + [9.0]


def test_a_last_fit_is_shorter_where_the_evaluations_took_longer_than_planned():
    limited = replace(SUPERVISED, plan=replace(PLAN, steps=3, allowed=10.0), fold_seconds=6.0)
    one = race.Evaluated(limited, None, None, None, {}, 1.0)

    def allowed(remaining):
        return select.Selection(one, [one], [""], [], None, len, remaining).plan.allowed

    assert [allowed(seconds) for seconds in (60.0, 8.0, -3.0)] == [10.0, 8.0, 6.0]


def test_the_last_fit_of_a_head_learns_from_as_many_images_as_time_is_left_for(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(select, "LAST_POOL", 90)
    monkeypatch.setitem(select.HEADS_WITH_POOL, "self_training", 0.01)
    images = stripes(100)  # 84 of them unlabelled
    folds = select.MORE_FOLDS.fits + 1  # with the 20 images of the candidate

    def limit(remaining, work=None, candidate=None, fixed=None, images=images):
        candidate = candidate or replace(HEADS[1], image_seconds=0.09)
        settings = Settings(SelfTraining(limit=20), None, BackboneSpec("lite0"), "fp32")
        task = SimpleNamespace(images=images)
        one = race.Evaluated(candidate, settings, task, None, {}, 1.0)
        selection = select.Selection(one, [one], [""], [], None, len, remaining)
        options = FitOptions(settings=fixed or {})
        return select.with_more_images(selection, options, work).method.limit

    assert limit(folds * 0.2 + 3.05) == 20 + 30
    assert limit(0.0) == limit(-5.0) == 20, "never fewer than the folds"
    assert limit(1e6) == 84
    assert limit(1e6, images=stripes(200)) == 90
    assert limit(1e6, fixed={"limit": "20"}) == 20
    assert limit(1e6, candidate=HEADS[0]) == 20, "features uses none"
    assert limit(folds * 0.2 + 3.05, tmp_path) == limit(1e6, tmp_path) == 50, "as decided before"


@pytest.mark.thorough
def test_permuting_the_test_labels_changes_no_selection(quick_plan):
    every = stripes(60, labeled=60)
    train, test = every[np.arange(40)].seen(np.arange(16)), every[np.arange(40, 60)]
    shuffled = test.with_labels(np.random.default_rng(0).permutation(test.labels))
    first, second = (handful.fit(replace(train, test=part), **LOOK) for part in (test, shuffled))
    for row in first.record["choice"] + second.record["choice"]:
        del row["seconds"]
    assert first.record["choice"] == second.record["choice"]
    assert first.record["fingerprint"] == second.record["fingerprint"]


@pytest.mark.thorough
def test_a_killed_selection_reads_its_plan_and_its_folds_again(
    quick_plan, auto_run, tmp_path, monkeypatch
):
    images, look = stripes(), LOOK | {"flips": True}
    predictor = race.fold_predictor
    made = []

    def stopping(settings, *rest):
        made.append(settings.method.name)
        if settings.method.name == "supervised":
            raise KeyboardInterrupt
        return predictor(settings, *rest)

    monkeypatch.setattr(race, "fold_predictor", stopping)
    with pytest.raises(KeyboardInterrupt):
        handful.fit(images, **look, out=tmp_path / "run")

    def only_what_is_missing(settings, *rest):
        def refuse(*_):
            raise AssertionError("folds of features are fitted again")

        return refuse if settings.method.name == "features" else predictor(settings, *rest)

    monkeypatch.setattr(race, "fold_predictor", only_what_is_missing)
    monkeypatch.setattr("handful.pipeline.assess.with_more_folds", lambda selected, _: selected.out)
    resumed = handful.fit(images, **look, out=tmp_path / "run")
    assert quick_plan == ["features", "supervised", "fine_tuning"]
    verdicts = [[row["verdict"] for row in run.record["choice"]] for run in (resumed, auto_run)]
    assert verdicts[0] == verdicts[1]


@pytest.mark.thorough
def test_auto_is_the_default_whatever_is_fixed(quick_plan):
    look = {key: value for key, value in LOOK.items() if key != "method"}
    for given in (
        {},
        {"settings": {"backbone.base": "8"}},
        {"backbone": BackboneSpec("small", {"base": 4})},
        {"estimate": "none"},
    ):
        run = handful.fit(stripes(), **look | {"size": 8}, **given)
        assert run.record["choice"]
    assert run.estimate is None
    assert quick_plan.count("supervised") == 4
    assert quick_plan.count("features") == 2  # no features where the network is another


@pytest.mark.thorough
def test_what_the_user_fixed_is_repeated_after_auto(quick_plan, tmp_path):
    given = {"backbone": "small", "settings": {"batch": "8"}}
    run = handful.fit(stripes(), **LOOK | {"size": 8}, **given, out=tmp_path / "run")
    assert run.record["fixed"] == {"backbone": "small", "settings": {"batch": "8"}}
    again = earlier_settings(handful.open_run(tmp_path / "run"))
    assert again["backbone"] == "small" and again["settings"] == {"batch": "8"}


def test_a_run_after_auto_selects_again(auto_run):
    first = auto_run
    again = earlier_settings(first)
    assert "method" not in again
    assert again["flips"] is True
    assert again["settings"] == {}
    named = earlier_settings(first, first.record["method"]["name"])
    assert named["method"] == first.record["method"]["name"]
    assert named["settings"]


@pytest.mark.thorough
def test_the_command_line_leaves_the_choice_to_auto(quick_plan, tmp_path, monkeypatch):
    monkeypatch.setattr("handful.data.sources.load", lambda *_, **__: stripes())
    out = tmp_path / "run"
    found = CliRunner().invoke(app, ["fit", "digits", "--out", str(out), "--size", "32"])
    assert found.exit_code == 0, found.output
    assert "features with lite0 at 32 pixels" in found.stderr
    assert handful.open_run(out).record["choice"]


def test_the_first_fold_of_a_training_is_the_fold_that_is_read(monkeypatch):
    """Labels of two origins: even ones of unknown origin, and uneven ones picked at random."""
    images = stripes(60, labeled=36)
    uneven = [at for at in range(24, 36) if images.labels[at] == 0]
    images = images.seen(np.r_[np.arange(24), uneven])
    names = [images.names[at] for at in uneven]
    images = replace(images, origins=dict.fromkeys(names, "random"))
    monkeypatch.setattr(race, "prior_for", lambda *_: undecided)
    monkeypatch.setattr(race, "plan_features", lambda *_: HEADS[:1])
    monkeypatch.setattr(race, "plan_training", lambda *_: [SUPERVISED])

    def perfect(settings, task, *_):
        labels = task.images.labels[task.images.labeled]
        return lambda train, held, seed: np.eye(2)[labels[held]] * 0.8 + 0.1

    monkeypatch.setattr(race, "fold_predictor", perfect)
    monkeypatch.setattr("handful.pipeline.auto.select.fold_predictor", perfect)
    run = handful.fit(images, **LOOK)
    assert [row["accuracy"] for row in run.record["choice"]] == pytest.approx([1, 1])


def test_a_training_that_falls_behind_in_its_second_fold_is_given_up(monkeypatch):
    images = stripes(80, labeled=48)
    monkeypatch.setattr(race, "prior_for", lambda *_: undecided)
    monkeypatch.setattr(race, "plan_features", lambda *_: HEADS[:1])
    monkeypatch.setattr(
        race, "plan_training", lambda method, *_: [SUPERVISED] if method == "supervised" else []
    )
    fitted = []

    def predictor(settings, task, *_):
        labels = task.images.labels[task.images.labeled]

        def fit(train, held, seed):
            if settings.schedule is not None:
                fitted.append(len(held))
            right = np.ones(len(held)) if len(fitted) < 2 else np.full(len(held), 0.1)
            return np.where(np.eye(2)[labels[held]] == 1, right[:, None], 1 - right[:, None])

        return fit

    monkeypatch.setattr(race, "fold_predictor", predictor)
    this = Race(images, Deadline(1e9, 0.0), FitOptions(inputs=INPUTS), ["random"] * 48, None, QUIET)
    assert [one.candidate.method for one in this.run()] == ["features"]
    assert fitted == [12, 12]
    (left,) = this.left
    assert left.why == "is given up after 2 of its folds: 50 points below features there"


@pytest.mark.parametrize(
    "head, network, both, expected",
    [(0.9, 0.5, None, 0.0), (0.5, 0.9, None, 7.0), (0.8, 0.8, 0.9, 7.0), (0.9, 0.5, 0.5, 0.0)],
)
def test_time_is_kept_for_a_network_that_would_answer_alone_or_beside_a_head(
    monkeypatch, head, network, both, expected
):
    def seen(candidate, share, members=()):
        right = (np.arange(48) < round(48 * share)).astype(float)
        return SimpleNamespace(
            candidate=candidate, out=SimpleNamespace(right=right), members=members
        )

    monkeypatch.setattr(race, "prior_for", lambda *_: undecided)
    monkeypatch.setattr(race, "last_seconds", lambda _: 7.0)
    images = stripes(80, labeled=48)
    options = FitOptions(inputs=INPUTS)
    this = Race(images, Deadline(1e9, 0.0), options, ["random"] * 48, None, QUIET)
    assert this._seconds_beside() == 0
    members = (seen(HEADS[0], head), seen(SUPERVISED, network))
    this.evaluated += members
    ensemble = replace(SUPERVISED, method="ensemble")
    found = None if both is None else seen(ensemble, both, members)
    monkeypatch.setattr(Race, "_ensemble", lambda _: found)
    assert this._seconds_beside() == expected
