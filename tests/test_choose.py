"""Choosing a method: the plan, the evidence, what was known before, and doing no harm."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import handful
from handful import choose, job
from handful.after import earlier_settings
from handful.budget import Cost
from handful.choose import Candidate, Evidence, Normal, Prior, decide, paired, prior, shared_steps
from handful.cli import app
from handful.data.imageset import quiet
from handful.methods.base import BackboneSpec
from handful.train import Plan
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

    monkeypatch.setattr(choose, "plan_candidates", planned)
    return calls


# --- the evidence


def test_a_paired_difference_at_forty_labels_spreads_by_about_six_points():
    rng = np.random.default_rng(0)
    a, b = (rng.random((2, 40)) < 0.8).astype(float)
    assert 0.05 < paired(a, b).sd < 0.13


def test_methods_that_agree_on_every_image_are_not_equal_with_certainty():
    found = paired(right(40, 30), right(40, 30))
    assert found.mean == 0
    assert 0 < found.sd < 0.05


def test_two_beliefs_are_weighted_by_their_precisions():
    found = Normal(0.1, 0.1).combined(Normal(0.0, 0.2))
    assert found.mean == pytest.approx(0.08)
    assert found.sd == pytest.approx(0.1 * 0.2 / 0.05**0.5)


def test_clear_evidence_beats_what_was_known_before():
    evidence = [Evidence("features", right(200, 100)), Evidence("supervised", right(200, 190))]
    best, verdicts = decide(evidence, lambda a, b: Prior(Normal(-0.1, 0.1), 1))
    assert best == 1
    assert verdicts[0].startswith("worse than supervised")


def test_where_labels_cannot_tell_what_was_known_before_decides_and_it_is_said():
    evidence = [Evidence("features", right(20, 11)), Evidence("supervised", right(20, 10))]
    best, verdicts = decide(evidence, lambda a, b: Prior(Normal(0.15, 0.05), 2))
    assert best == 1
    assert verdicts == [
        "cannot be told apart from supervised by these labels (+5.0 ± 10.8 points)",
        "chosen",
    ]


def test_what_the_last_fit_gains_over_its_folds_counts():
    folds = [Evidence("features", right(20, 11)), Evidence("supervised", right(20, 10))]
    assert decide(folds, undecided)[0] == 0
    longer = [folds[0], folds[1]._replace(gain=0.2)]
    best, verdicts = decide(longer, undecided)
    assert best == 1
    assert verdicts[0].endswith("(-15.0 ± 10.8 points)")


def test_only_networks_gain_and_more_where_folds_were_short():
    features, _, supervised = CANDIDATES
    half = right(20, 10)
    assert choose._gain(features, half) == 0
    same = replace(supervised, fold_steps=3)
    assert choose._gain(same, half) == pytest.approx(0.5 * (1 - 0.8**0.2))
    short = replace(supervised, plan=replace(PLAN, steps=20), fold_steps=2)
    assert choose._gain(short, half) == pytest.approx(0.5 * (1 - 0.08**0.2))
    assert choose._gain(short, right(20, 20)) == 0


def test_the_simpler_method_wins_a_draw():
    evidence = [Evidence("features", right(20, 10)), Evidence("supervised", right(20, 10))]
    assert decide(evidence, undecided)[0] == 0


def test_unlabelled_images_are_left_where_they_do_harm_however_well_they_did_elsewhere():
    evidence = [Evidence("features", right(40, 35)), Evidence("self_training", right(40, 25))]
    best, verdicts = decide(evidence, lambda a, b: Prior(Normal(0.9, 0.01), 9))
    assert best == 0
    assert verdicts[1].startswith("left: 25.0 points below features")


def test_unlabelled_images_are_used_only_with_evidence_or_experience_on_their_side():
    slightly = [Evidence("features", right(40, 30)), Evidence("self_training", right(40, 31))]
    best, verdicts = decide(slightly, undecided)
    assert best == 0
    assert verdicts[1].startswith("left: neither the labels nor other data sets")
    assert decide(slightly, lambda a, b: Prior(Normal(0.05, 0.05), 3))[0] == 1
    clearly = [Evidence("features", right(40, 20)), Evidence("self_training", right(40, 38))]
    assert decide(clearly, undecided)[0] == 1


# --- what was known before


def cell(source, per_class, channels, **accuracy):
    """What is known of a data set at that number of labels: method → accuracy."""
    known = {"source": source, "per_class": per_class, "channels": channels, "mixed": False}
    return [known | {"method": method, "accuracy": found} for method, found in accuracy.items()]


def twice(per_class, channels, **accuracy):
    """The same on two data sets, a and b."""
    return [row for name in "ab" for row in cell(name, per_class, channels, **accuracy)]


def test_experience_leaves_out_the_data_set_at_hand_and_other_colours():
    known = [
        *twice(10, 1, features=0.5, supervised=0.8),
        *cell("c", 10, 1, features=0.5, supervised=0.5),
        *twice(10, 3, features=0.8, supervised=0.5),
    ]
    assert prior("supervised", "features", 1, 10, "", known).belief.mean == pytest.approx(0.6 / 4)
    assert prior("supervised", "features", 3, 10, "", known).belief.mean == pytest.approx(-0.2)
    assert prior("supervised", "features", 1, 10, "a", known).belief.mean == pytest.approx(0.1)


def test_one_data_set_is_no_experience():
    known = cell("a", 10, 1, features=0.5, supervised=0.9)
    assert prior("supervised", "features", 1, 10, "", known) == prior("x", "y", 1, 10, "", known)


def test_of_a_data_set_the_experience_with_the_nearest_number_of_labels_counts():
    known = [
        *twice(1, 3, features=0.5, self_training=0.8),
        *twice(100, 3, features=0.9, self_training=0.75),
    ]
    means = [prior("self_training", "features", 3, n, "", known).belief.mean for n in (2, 10, 50)]
    assert means == pytest.approx([0.2, 0.05, -0.1])  # 10 lies between: both count


def test_methods_on_the_same_features_are_compared_whatever_the_colour():
    known = twice(10, 3, features=0.5, self_training=0.8, supervised=0.9)
    assert prior("self_training", "features", 1, 10, "", known).belief.mean == pytest.approx(0.2)
    assert prior("supervised", "features", 1, 10, "", known).belief.mean == 0


def test_experience_with_other_kinds_of_unlabelled_images_does_not_count():
    rows = twice(10, 3, features=0.5, self_training=0.8, supervised=0.8)
    known = [row | {"mixed": True} for row in rows]
    means = {
        (method, mixed): prior(method, "features", 3, 10, "", known, mixed).belief.mean
        for method in ("self_training", "supervised")
        for mixed in (False, True)
    }
    assert means["self_training", False] == 0
    assert means["self_training", True] == pytest.approx(0.2)
    assert means["supervised", False] == means["supervised", True] == pytest.approx(0.2)


def test_photographs_are_not_taken_for_what_suits_a_network_from_nothing():
    found = prior("supervised", "features", 3, 10, "photos")
    assert found.belief.mean <= 0


def blobs(first, seed, n):
    """(n, 8) points of two kinds: around axis `first` and around the one after it."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.eye(8)[first + torch.arange(n) % 2]
    return axes + 0.3 * torch.randn(n, 8, generator=generator)


def test_unlabelled_images_of_the_labelled_kinds_are_not_taken_for_strangers():
    shares = [choose.unlike(blobs(0, seed, 40), blobs(0, 100 + seed, 200)) for seed in range(20)]
    assert max(shares) < choose._UNLIKE


def test_balanced_labels_beside_an_unbalanced_pool_are_no_sign_of_strangers():
    pool = torch.cat([blobs(0, 1, 400)[::2], blobs(0, 2, 400)[1::2][:20]])
    assert choose.unlike(blobs(0, 0, 50), pool) < choose._UNLIKE


def test_unlabelled_images_of_other_kinds_are_noticed():
    assert choose.unlike(blobs(0, 0, 40), blobs(4, 1, 200)) > 0.9
    half = torch.cat([blobs(0, 1, 60), blobs(4, 2, 140)])
    assert choose._UNLIKE < choose.unlike(blobs(0, 0, 40), half) < 0.9


def test_labelled_images_of_one_group_do_not_make_the_others_strangers():
    known = blobs(0, 0, 20)
    pairs = torch.cat([known, known + 0.001])
    groups = np.arange(40) % 20
    assert choose.unlike(pairs, blobs(0, 1, 200)) > choose._UNLIKE
    assert choose.unlike(pairs, blobs(0, 1, 200), groups) < choose._UNLIKE


def test_without_experience_the_belief_is_wide_and_takes_no_side():
    found = prior("supervised", "features", 1, 10, "", [])
    assert found.sources == 0
    assert found.belief.mean == 0
    assert found.belief.sd == pytest.approx(0.1 * 2**0.5)


def test_more_data_sets_that_agree_make_the_belief_narrower():
    def agreeing(k):
        return [row for i in range(k) for row in cell(str(i), 10, 1, features=0.6, supervised=0.65)]

    spreads = [prior("supervised", "features", 1, 10, "", agreeing(k)).belief.sd for k in (1, 3, 9)]
    assert spreads == sorted(spreads, reverse=True)


def test_the_experience_in_the_package_is_whole():
    for row in choose.experience():
        assert row["channels"] in (1, 3)
        assert row["mixed"] == (row["source"] == "tin10")
        assert 0 < row["accuracy"] < 1


# --- the plan


@pytest.mark.parametrize(
    "total, expected", [(100_000, (400, 400)), (1_400, (400, 200)), (140, (70, 14)), (0, (0, 0))]
)
def test_the_last_fit_gets_up_to_half_of_the_steps(total, expected):
    assert shared_steps(total, 400) == expected
    steps, in_folds = shared_steps(total, 400)
    assert steps + choose.FOLDS.folds * in_folds <= total


def test_a_larger_budget_plans_larger_images_and_more_steps(monkeypatch):
    monkeypatch.setattr(choose, "time", SimpleNamespace(perf_counter=lambda: 0.0))
    monkeypatch.setattr(choose, "make_plan", lambda *_: PLAN)
    seconds = lambda task, _: len(task.images) * task.size / 1e3  # noqa: E731
    monkeypatch.setattr(choose, "embedding_seconds", seconds)
    monkeypatch.setattr(choose, "measured", lambda *_: Cost(0.0, 0.01, 0.0, 0.0))
    look = {"size": None, "aspect": "crop", "flips": None, "precision": "fp32"}
    look |= {"track": quiet}
    said = []
    images = stripes()
    poor, rich = (
        choose.plan_candidates(images, budget, 0, look, said.append) for budget in (20.0, 90.0)
    )
    assert [row.method for row in rich] == ["features", "self_training", "supervised"]
    assert (poor[0].size, rich[0].size) == (96, 160)
    assert poor[-1].fold_steps < rich[-1].fold_steps == 600
    assert sum(row.seconds for row in poor) < 20
    assert not said
    slow = choose.plan_candidates(images, 9.0, 0, look, said.append)
    assert [row.method for row in slow] == ["features", "supervised"]
    assert (slow[0].size, slow[0].seconds) == (128, pytest.approx(16 * 128 / 1e3, abs=0.01))
    assert said == [
        "features of the images that the choice does not need would take about 3 s more: they are "
        "made beyond the budget, for the predictions, if features is chosen"
    ]
    alone = choose.plan_candidates(images[images.labeled], 9.0, 0, look, said.append)
    assert [(row.method, row.size) for row in alone] == [("features", 128), ("supervised", 8)]
    monkeypatch.setattr(choose, "_HEAD", 1.0)  # as with tens of thousands of labels
    many = choose.plan_candidates(images, 90.0, 0, look, said.append)
    assert [row.method for row in many] == ["supervised"]
    assert said[-1].endswith("heads on them, would take about 26 min: left out")
    monkeypatch.setattr(choose, "_HEAD", 0.0)
    asked = choose.plan_candidates(images, 90.0, 0, look | {"size": 32}, said.append)
    assert {row.size for row in asked} == {32}
    with pytest.raises(ValueError, match="no method can be judged within 1 s"):
        choose.plan_candidates(images, 1.0, 0, look, said.append)
    assert any("left out" in text for text in said)


# --- the fit


@pytest.mark.parametrize("counts", [(1, 1), (9, 1)])
@pytest.mark.parametrize("method", ["auto", "features"])
def test_a_class_may_have_a_single_label(quick_plan, method, counts):
    images = stripes(labeled=40)
    kept = [np.flatnonzero(images.labels == k)[:count] for k, count in enumerate(counts)]
    run = handful.fit(images.seen(np.sort(np.concatenate(kept))), **LOOK | {"method": method})
    assert run.record["data"]["labeled"] == sum(counts)


def test_strangers_among_the_unlabelled_images_are_said(quick_plan, monkeypatch):
    said = []
    monkeypatch.setattr(choose, "unlike", lambda *_: 0.8)
    seen = []
    monkeypatch.setattr(choose, "_prior_for", lambda _, mixed: seen.append(mixed) or undecided)
    handful.fit(stripes(), **LOOK, reporter=job.Reporter(say=said.append))
    assert seen == [True]
    assert any("in 80% of comparisons (50% by chance)" in text for text in said)


def test_auto_leaves_a_run_of_the_method_that_was_chosen(quick_plan, tmp_path):
    images = stripes()
    run = handful.fit(images, **LOOK, out=tmp_path / "run")
    rows = run.record["choice"]
    assert [row["method"] for row in rows] == ["features", "self_training", "supervised"]
    (best,) = (row for row in rows if row["chosen"])
    assert best["method"] == run.record["method"]["name"]
    assert best["accuracy"] == run.estimate["accuracy"]
    assert run.estimate["selection"] >= 0
    assert all(row["low"] <= row["accuracy"] <= row["high"] for row in rows)
    again = handful.open_run(tmp_path / "run")
    assert again.predict(images).labels == run.predict(images).labels
    assert json.loads((tmp_path / "run" / "run.json").read_text())["choice"] == rows
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_permuting_the_test_labels_changes_no_choice(quick_plan):
    every = stripes(60, labeled=60)
    train, test = every[np.arange(40)].seen(np.arange(16)), every[np.arange(40, 60)]
    shuffled = test.with_labels(np.random.default_rng(0).permutation(test.labels))
    first, second = (handful.fit(replace(train, test=part), **LOOK) for part in (test, shuffled))
    for row in first.record["choice"] + second.record["choice"]:
        del row["seconds"]
    assert first.record["choice"] == second.record["choice"]
    assert first.record["fingerprint"] == second.record["fingerprint"]


def test_a_killed_choice_reads_its_plan_and_its_folds_again(quick_plan, tmp_path, monkeypatch):
    images = stripes()
    predictor = choose.fold_predictor
    made = []

    def stopping(settings, *rest):
        made.append(settings.method.name)
        if settings.method.name == "supervised":
            raise KeyboardInterrupt
        return predictor(settings, *rest)

    monkeypatch.setattr(choose, "fold_predictor", stopping)
    with pytest.raises(KeyboardInterrupt):
        handful.fit(images, **LOOK, out=tmp_path / "run")

    def only_what_is_missing(settings, *rest):
        def refuse(*_):
            raise AssertionError("folds of features are fitted again")

        return refuse if settings.method.name == "features" else predictor(settings, *rest)

    monkeypatch.setattr(choose, "fold_predictor", only_what_is_missing)
    monkeypatch.setattr(job, "thorough", lambda winner, seed: winner.out)
    resumed = handful.fit(images, **LOOK, out=tmp_path / "run")
    assert len(quick_plan) == 1
    monkeypatch.setattr(choose, "fold_predictor", predictor)
    straight = handful.fit(images, **LOOK)
    verdicts = [[row["verdict"] for row in run.record["choice"]] for run in (resumed, straight)]
    assert verdicts[0] == verdicts[1]


def test_auto_is_the_default_and_supervised_where_auto_would_have_to_decide(
    quick_plan, monkeypatch
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
            monkeypatch.setattr("handful.budget.measured", lambda *_: Cost(0.0, 10.0, 0.0, 0.0))
        run = handful.fit(stripes(), **look, **given)
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


def test_a_run_after_one_that_chose_chooses_again(quick_plan, tmp_path):
    images = stripes()
    first = handful.fit(images, **LOOK, flips=True, out=tmp_path / "run")
    again = earlier_settings(first)
    assert "method" not in again
    assert again["flips"] is True
    assert again["settings"] == {}
    named = earlier_settings(first, first.record["method"]["name"])
    assert named["method"] == first.record["method"]["name"]
    assert named["settings"]


def test_the_command_line_leaves_the_choice_to_auto(quick_plan, tmp_path, monkeypatch):
    monkeypatch.setattr("handful.data.sources.load", lambda *_, **__: stripes())
    out = tmp_path / "run"
    found = CliRunner().invoke(app, ["fit", "photos", "--out", str(out), "--size", "32"])
    assert found.exit_code == 0, found.output
    assert handful.open_run(out).record["choice"]
