"""Estimates of class shares among unlabelled images."""

import numpy as np
import pytest
import torch

import handful
from handful.evaluation.calibration import calibrated
from handful.evaluation.cross_validation import OutOfFold, Scheme
from handful.evaluation.label_shift import expected_shares, unlabeled_shares
from handful.methods.fixmatch import FixMatch
from handful.methods.self_training import SelfTraining
from handful.pipeline.assess import assess
from handful.pipeline.earlier_run import earlier_settings
from handful.pipeline.pool_shares import pool_shares
from tiny import stripes


def classified(shares, m, seed=0, apart=2.0):
    """Classes (m,) drawn by `shares`, and likelihoods (m, K) of points around K corners."""
    generator = np.random.default_rng(seed)
    k = len(shares)
    labels = generator.choice(k, m, p=shares)
    points = apart * np.eye(k)[labels] + generator.normal(size=(m, k))
    apart_from = ((points[:, None] - apart * np.eye(k)) ** 2).sum(axis=2)  # (m, K)
    return labels, np.exp(-apart_from / 2)


def posterior(likelihood, shares):
    joint = likelihood * np.asarray(shares)
    return joint / joint.sum(axis=1, keepdims=True)


def test_shares_are_found_again_where_the_model_learned_from_others():
    seen, true = [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]
    _, likelihood = classified(true, 20_000)
    predicted = posterior(likelihood, seen).astype(np.float32)
    found = expected_shares(predicted, np.array(seen))
    assert found == pytest.approx(true, abs=0.015)
    assert predicted.mean(axis=0) != pytest.approx(true, abs=0.05)  # plain counting does not
    assert found.sum() == pytest.approx(1, abs=1e-12)


def test_the_shares_are_the_most_likely_ones():
    """By hand: p(x) is a mixture of the classes; shares on a grid maximise its mean log."""
    seen, true = np.array([0.5, 0.5]), [0.2, 0.8]
    _, likelihood = classified(true, 50, apart=1.0)
    grid = np.linspace(0.001, 0.999, 999)
    mixed = likelihood[:, :1] * grid + likelihood[:, 1:] * (1 - grid)  # (50, 999)
    best = grid[np.log(mixed).mean(axis=0).argmax()]
    assert expected_shares(posterior(likelihood, seen), seen)[0] == pytest.approx(best, abs=2e-3)


def test_a_model_that_saw_nothing_of_a_class_gives_it_no_share():
    _, likelihood = classified([0.4, 0.4, 0.2], 100)
    found = expected_shares(posterior(likelihood, [0.5, 0.5, 0]), np.array([0.5, 0.5, 0]))
    assert found[2] == 0 and found.sum() == pytest.approx(1)


def out_of_fold(labels, probabilities):
    halves = np.empty((0, *probabilities.shape))
    return OutOfFold(labels, probabilities[None], halves, 0.8, 0.5, Scheme(repeats=1), False)


def test_overconfident_predictions_are_calibrated_by_those_out_of_fold():
    seen, true = [0.4, 0.4, 0.2], [0.1, 0.1, 0.8]
    labels, likelihood = classified(seen, 2_000, apart=1.2)
    sharp = calibrated(posterior(likelihood, seen), 0.2)
    _, others = classified(true, 20_000, seed=1, apart=1.2)
    predicted = calibrated(posterior(others, seen), 0.2)
    found = unlabeled_shares(out_of_fold(labels, sharp), predicted)
    assert found == pytest.approx(true, abs=0.04)


def test_a_class_of_which_no_label_counts_gets_no_share():
    labels, likelihood = classified([0.4, 0.4, 0.2], 200)
    rows = posterior(likelihood, [0.4, 0.4, 0.2])
    origins = ["chosen" if label == 2 else "random" for label in labels]
    found = unlabeled_shares(out_of_fold(labels, rows), rows, origins)
    assert found[2] == 0 and found.sum() == pytest.approx(1)


@pytest.fixture(scope="module")
def images():
    """100 labelled images of two classes, and 100 unlabelled ones, 80 of the second class."""
    every = stripes(400, size=16, labeled=400)
    a, b = (np.flatnonzero(every.labels == k) for k in (0, 1))
    some = np.concatenate([a[:50], b[:50], a[50:70], b[50:130]])
    return every[some].seen(np.arange(100))


def fit(images, **changes):
    return handful.fit(images, "features", size=32, precision="fp32", **changes)


def test_caveats_of_an_estimate_stay_with_class_shares_from_the_unlabelled_images():
    labels = np.arange(40) % 2
    out = out_of_fold(labels, np.eye(2)[labels] * 0.8 + 0.1)
    found = (
        assess(out, ["random"] * 40, None)
        .with_remark("half the steps")
        .with_remark("and more")
        .with_pool_shares(out.probabilities[0])
    )
    assert found.estimate.how.endswith("; half the steps; and more")
    assert "as predicted for 40 images without a label" in found.estimate.how


@pytest.mark.thorough
def test_a_fit_takes_the_shares_from_its_unlabelled_images_and_says_so(images):
    run, plain = fit(images, prior="unlabeled"), fit(images)
    assert run.record["prior_from"] == "unlabeled"
    assert run.record["prior"]["b"] == pytest.approx(0.8, abs=0.08)
    assert "class shares as predicted for 100 images without a label" in run.estimate["how"]
    recalls = {row["label"]: row["recall"] for row in run.estimate["per_class"]}
    shift = run.estimate["accuracy"] - run.estimate["out_of_fold"]
    by_hand = sum(share * (recalls[name] - shift) for name, share in run.record["prior"].items())
    assert run.estimate["out_of_fold"] == pytest.approx(by_hand, abs=1e-6)
    assert run.estimate["temperature"] == plain.estimate["temperature"]
    assert (plain.record["prior_from"], plain.record["prior"]) == ("labels", None)
    assert "class shares as labelled" in plain.estimate["how"]


@pytest.mark.thorough
def test_shares_after_self_training_are_seen_by_the_labels_alone(images, monkeypatch):
    """A model that aligned its guesses to equal shares would see equal shares."""
    fit_features = SelfTraining.fit_features

    def aligned_to_equal_shares(self, *arguments, shares=None):
        return fit_features(self, *arguments, shares=torch.tensor([0.5, 0.5]))

    monkeypatch.setattr(SelfTraining, "fit_features", aligned_to_equal_shares)
    run = handful.fit(images, "self_training", size=32, precision="fp32", prior="unlabeled")
    assert run.record["prior"]["b"] == pytest.approx(0.8, abs=0.1)
    assert "a model that learned from the labels alone, give or take" in run.estimate["how"]


def test_a_network_that_aligns_nothing_is_asked_itself(images):
    assert pool_shares(FixMatch(), None, "fp32") is None


@pytest.mark.thorough
def test_what_is_repeated_is_the_prior_as_it_was_asked_for(images):
    given = {"a": 0.25, "b": 0.75}
    for prior, kept in (("unlabeled", "unlabeled"), (given, given), ("labels", None)):
        run = fit(images[np.arange(0, 200, 5)], prior=prior)
        assert earlier_settings(run).get("prior") == kept
        assert earlier_settings(run, "supervised").get("prior") == kept


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prior": "unlabelled"}, "no prior 'unlabelled'; choose labels or unlabeled"),
        ({"prior": "unlabeled", "estimate": "none"}, "prior unlabeled is for the estimate"),
    ],
)
def test_a_wrong_prior_is_refused(images, changes, message):
    with pytest.raises(ValueError, match=message):
        fit(images, **changes)


def test_without_unlabelled_images_there_is_nothing_to_take_shares_from(images):
    with pytest.raises(ValueError, match="every image has one; give the shares"):
        fit(images[:][images.labeled], prior="unlabeled")
