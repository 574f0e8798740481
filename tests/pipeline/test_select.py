"""Selection of a method: evidence from labels and past results, and unlabelled images."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import handful
from handful.cli import app
from handful.models.classifier import BackboneSpec
from handful.pipeline import fit
from handful.pipeline.auto import select
from handful.pipeline.auto.candidates import Candidate
from handful.pipeline.auto.past_results import Normal, Prior
from handful.pipeline.auto.select import Evidence, paired_difference, select_by_evidence
from handful.pipeline.earlier_run import earlier_settings
from handful.training.plan import Plan
from handful.training.time_budget import Cost
from handful.training.trainer import train_task
from tiny import SCHEDULE, stripes

LOOK = {"size": 32, "precision": "fp32", "method": "auto"}
PLAN = Plan("fp32", 1, 0.0)
CANDIDATES = [
    Candidate("features", "lite0", 32, {}, 1.0, PLAN),
    Candidate("self_training", "lite0", 32, {"limit": "20"}, 1.0, PLAN),
    Candidate("supervised", "small", 8, {}, 1.0, replace(PLAN, steps=3), fold_steps=2),
]


def undecided(method, reference):
    return Prior(Normal(0.0, 0.1), 0)


def right(n, hits):
    """(n,) of which the first `hits` are predicted rightly."""
    return (np.arange(n) < hits).astype(float)


@pytest.fixture
def quick_plan(monkeypatch):
    calls = []

    def planned(*_):
        calls.append(1)
        return CANDIDATES

    monkeypatch.setattr(select, "plan_candidates", planned)
    return calls


@pytest.fixture(scope="module")
def auto_run(tmp_path_factory):
    """A run of `auto` on `stripes()`, shared: nothing is written to it."""
    folder = tmp_path_factory.mktemp("auto") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(select, "plan_candidates", lambda *_: CANDIDATES)
        return handful.fit(stripes(), **LOOK, flips=True, out=folder)


def test_a_paired_difference_at_forty_labels_spreads_by_about_six_points():
    rng = np.random.default_rng(0)
    a, b = (rng.random((2, 40)) < 0.8).astype(float)
    assert 0.05 < paired_difference(a, b).sd < 0.13


def test_methods_that_agree_on_every_image_are_not_equal_with_certainty():
    found = paired_difference(right(40, 30), right(40, 30))
    assert found.mean == 0
    assert 0 < found.sd < 0.05


def test_two_beliefs_are_weighted_by_their_precisions():
    found = Normal(0.1, 0.1).combined(Normal(0.0, 0.2))
    assert found.mean == pytest.approx(0.08)
    assert found.sd == pytest.approx(0.1 * 0.2 / 0.05**0.5)


def test_clear_evidence_beats_past_results():
    evidence = [Evidence("features", right(200, 100)), Evidence("supervised", right(200, 190))]
    best, verdicts = select_by_evidence(evidence, lambda a, b: Prior(Normal(-0.1, 0.1), 1))
    assert best == 1
    assert verdicts[0] == (
        "left: 45.0 points below supervised out of fold, more than the standard error of 5.6; "
        "no expected gain outweighs that"
    )


def test_past_results_decide_where_labels_cannot_and_the_verdict_says_so():
    evidence = [Evidence("features", right(20, 11)), Evidence("supervised", right(20, 10))]
    best, verdicts = select_by_evidence(evidence, lambda a, b: Prior(Normal(0.15, 0.05), 2))
    assert best == 1
    assert verdicts == [
        "cannot be told apart from supervised by these labels "
        "(+5.0 points, 90 % interval -12.7 to +22.7)",
        "chosen",
    ]


def test_what_the_last_fit_gains_over_its_folds_counts():
    folds = [Evidence("features", right(20, 11)), Evidence("supervised", right(20, 10))]
    assert select_by_evidence(folds, undecided)[0] == 0
    longer = [folds[0], folds[1]._replace(gain=0.2)]
    best, verdicts = select_by_evidence(longer, undecided)
    assert best == 1
    assert verdicts[0].endswith(
        "(-15.0 points, 90 % interval -39.2 to +9.2; -20.0 of them expected of more labels and "
        "steps)"
    )


def test_no_expected_gain_outweighs_a_difference_that_was_seen():
    """Of 60 labels, features have 38 right; a network has 27, in a fifth of its steps."""
    features, _, supervised = CANDIDATES
    network = replace(supervised, plan=replace(PLAN, steps=2060), fold_steps=412)
    hits = right(60, 38), np.roll(right(60, 27), 16)
    folds = [
        Evidence(this.method, seen, select._gain(this, seen))
        for this, seen in zip((features, network), hits, strict=True)
    ]
    assert folds[1].gain > hits[0].mean() - hits[1].mean() - 0.02
    best, verdicts = select_by_evidence(folds, lambda a, b: Prior(Normal(0.3, 0.05), 3))
    assert best == 0
    assert verdicts[1] == (
        "left: 18.3 points below features out of fold, more than the standard error of 11.7; "
        "no expected gain outweighs that"
    )


def test_a_difference_is_seen_beside_the_best_out_of_fold_whatever_is_taken_in_the_end():
    evidence = [
        Evidence("features", right(100, 40), gain=0.0),
        Evidence("propagation", right(100, 70)),
        Evidence("supervised", right(100, 69), gain=0.05),
    ]
    best, verdicts = select_by_evidence(evidence, lambda a, b: Prior(Normal(0.0, 0.5), 0))
    assert best == 2
    assert verdicts[0].startswith("left: 30.0 points below propagation out of fold")
    assert verdicts[1].startswith("cannot be told apart from supervised")


def test_a_gain_that_is_only_expected_leaves_no_better_method_either():
    evidence = [
        Evidence("supervised", right(100, 60), gain=0.9),
        Evidence("fixmatch", right(100, 90)),
    ]
    best, verdicts = select_by_evidence(evidence, undecided)
    assert best == 1
    assert verdicts[0].startswith("left: 30.0 points below fixmatch out of fold")


def test_only_networks_gain_and_more_where_folds_were_short():
    features, _, supervised = CANDIDATES
    half = right(20, 10)
    assert select._gain(features, half) == 0
    same = replace(supervised, fold_steps=3)
    assert select._gain(same, half) == pytest.approx(0.5 * (1 - 0.8**0.2))
    short = replace(supervised, plan=replace(PLAN, steps=20), fold_steps=2)
    assert select._gain(short, half) == pytest.approx(0.5 * (1 - 0.08**0.2))
    assert select._gain(short, right(20, 20)) == 0


def test_the_simpler_method_wins_a_draw():
    evidence = [Evidence("features", right(20, 10)), Evidence("supervised", right(20, 10))]
    assert select_by_evidence(evidence, undecided)[0] == 0


def test_unlabelled_images_are_left_where_they_do_harm_however_well_they_did_elsewhere():
    evidence = [Evidence("features", right(40, 35)), Evidence("self_training", right(40, 25))]
    best, verdicts = select_by_evidence(evidence, lambda a, b: Prior(Normal(0.9, 0.01), 9))
    assert best == 0
    assert verdicts[1].startswith("left: 25.0 points below features")


def test_unlabelled_images_are_used_only_with_evidence_or_past_results_on_their_side():
    slightly = [Evidence("features", right(40, 30)), Evidence("self_training", right(40, 31))]
    best, verdicts = select_by_evidence(slightly, undecided)
    assert best == 0
    assert verdicts[1].startswith("left: neither the labels nor other data sets")
    assert select_by_evidence(slightly, lambda a, b: Prior(Normal(0.05, 0.05), 3))[0] == 1
    clearly = [Evidence("features", right(40, 20)), Evidence("self_training", right(40, 38))]
    assert select_by_evidence(clearly, undecided)[0] == 1


def test_unlabelled_images_are_not_used_for_a_gain_that_is_only_expected():
    same = right(100, 80)
    evidence = [Evidence("supervised", same), Evidence("fixmatch", same, gain=0.2)]
    best, verdicts = select_by_evidence(evidence, undecided)
    assert best == 0
    assert verdicts[1].startswith("left: neither the labels nor other data sets")


# --- the fit


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
    monkeypatch.setattr(select, "pool_shift", lambda *_: 0.8)
    seen = []
    monkeypatch.setattr(
        select, "prior_for", lambda _, pool_shifted: seen.append(pool_shifted) or undecided
    )
    handful.fit(stripes(), **LOOK, reporter=fit.Reporter(say=said.append))
    assert seen == [True]
    assert any("in 80% of comparisons (50% by chance)" in text for text in said)


def test_auto_leaves_a_run_of_the_method_that_was_chosen(auto_run):
    images, run, folder = stripes(), auto_run, auto_run.folder
    rows = run.record["choice"]
    assert [row["method"] for row in rows] == ["features", "self_training", "supervised"]
    (best,) = (row for row in rows if row["chosen"])
    assert best["method"] == run.record["method"]["name"]
    assert best["accuracy"] == run.estimate["accuracy"]
    assert run.estimate["selection"] >= 0
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in rows)
    again = handful.open_run(folder)
    assert again.predict(images).labels == run.predict(images).labels
    assert json.loads((folder / "run.json").read_text())["choice"] == rows
    assert not (folder / "checkpoint").exists()


@pytest.mark.thorough
def test_folds_and_the_last_fit_are_told_how_long_they_may_take(monkeypatch):
    limited = replace(CANDIDATES[2], plan=replace(PLAN, steps=3, allowed=9.0), fold_seconds=5.0)
    monkeypatch.setattr(select, "plan_candidates", lambda *_: [limited])
    told = []

    def spying(settings, task, seed, folder=None, planned=None, *rest):
        told.append(planned.allowed)
        return train_task(settings, task, seed, folder, replace(planned, allowed=None), *rest)

    monkeypatch.setattr("handful.pipeline.cross_validate.train_task", spying)
    monkeypatch.setattr("handful.pipeline.fit.train_task", spying)
    handful.fit(stripes(), **LOOK)
    assert told == [5.0] * 5 + [9.0]


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
    predictor = select.fold_predictor
    made = []

    def stopping(settings, *rest):
        made.append(settings.method.name)
        if settings.method.name == "supervised":
            raise KeyboardInterrupt
        return predictor(settings, *rest)

    monkeypatch.setattr(select, "fold_predictor", stopping)
    with pytest.raises(KeyboardInterrupt):
        handful.fit(images, **look, out=tmp_path / "run")

    def only_what_is_missing(settings, *rest):
        def refuse(*_):
            raise AssertionError("folds of features are fitted again")

        return refuse if settings.method.name == "features" else predictor(settings, *rest)

    monkeypatch.setattr(select, "fold_predictor", only_what_is_missing)
    monkeypatch.setattr("handful.pipeline.assess.with_more_folds", lambda selected, _: selected.out)
    resumed = handful.fit(images, **look, out=tmp_path / "run")
    assert len(quick_plan) == 1
    verdicts = [[row["verdict"] for row in run.record["choice"]] for run in (resumed, auto_run)]
    assert verdicts[0] == verdicts[1]


@pytest.mark.thorough
def test_auto_is_the_default_and_supervised_where_auto_would_have_to_decide(
    quick_plan, monkeypatch, steady, clock
):
    look = {key: value for key, value in LOOK.items() if key != "method"}
    assert handful.fit(stripes(), **look).record["choice"]
    quick = {"steps": "2", "backbone.base": "8"}
    for given in (
        {"settings": quick},
        {"schedule": SCHEDULE},
        {"backbone": BackboneSpec("small", {"base": 4}), "settings": {"steps": "2"}},
        {"estimate": "none", "budget": 30.0},
    ):
        if "budget" in given:
            monkeypatch.setattr(
                "handful.training.time_budget.measured", lambda *_: Cost(0.0, 10.0, 0.0, 0.0)
            )
        run = handful.fit(stripes(), **look | {"size": 8}, **given)
        assert run.record["method"]["name"] == "supervised"
        assert run.record["choice"] == []
    assert len(quick_plan) == 1


@pytest.mark.parametrize(
    "given, named",
    [
        ({"backbone": "small"}, "backbone"),
        ({"settings": {"steps": "3"}}, "settings"),
        ({"estimate": "none"}, "estimate"),
    ],
)
def test_auto_refuses_what_it_chooses_itself(given, named):
    with pytest.raises(ValueError, match=f"auto chooses .*{named}"):
        handful.fit(stripes(), "auto", **given)


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
    found = CliRunner().invoke(app, ["fit", "photos", "--out", str(out), "--size", "32"])
    assert found.exit_code == 0, found.output
    plan = found.stderr.splitlines()[1:3]  # a line for each candidate
    assert plan[0].startswith("the plan, about") and plan[1].startswith("  features with lite0")
    assert handful.open_run(out).record["choice"]
