"""Figures of a run: estimate, confidence, abstentions, doubted labels."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import handful
from handful.pipeline.earlier_run import with_earlier_labels
from handful.pipeline.run import open_run
from handful.pipeline.setup import class_shares
from tiny import stripes


def fit(images, **changes):
    return handful.fit(images, "features", size=32, precision="fp32", **changes)


@pytest.fixture(scope="module")
def images():
    """200 striped images, of which 100 are labelled, one of them wrongly."""
    images = stripes(200, size=16, labeled=100)
    labels = images.labels.copy()
    labels[4] = 1
    return images.with_labels(labels)


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    return fit(images, out=tmp_path_factory.mktemp("promise") / "run")


def test_the_record_holds_accuracy_by_class_and_balanced(run):
    record = json.loads((run.folder / "run.json").read_text())
    rows = record["estimate"]["per_class"]
    assert [row["label"] for row in rows] == ["a", "b"]
    assert [row["n"] for row in rows] == [49, 51]
    assert all(row["low"] <= row["recall"] <= row["high"] for row in rows)
    assert 0.5 < record["estimate"]["balanced_accuracy"] <= 1


def test_a_wrong_label_is_listed_and_kept(run, images):
    rows = list(csv.DictReader((run.folder / "label-issues.csv").read_text().splitlines()))
    assert list(rows[0]) == ["file", "label", "guess", "p(label)", "p(guess)"]
    first = rows[0]
    assert (first["file"], first["label"], first["guess"]) == ("004.png", "b", "a")
    assert float(first["p(guess)"]) >= 20 * float(first["p(label)"])
    assert run.record["label_issues"] == len(rows)
    kept = list(csv.DictReader((run.folder / "labels.csv").read_text().splitlines()))
    assert {row["file"]: row["label"] for row in kept}["004.png"] == "b"


def test_a_label_that_was_confirmed_is_not_listed_by_later_fits(images, tmp_path):
    confirmed = replace(images, confirmed=frozenset({"004.png"}))
    run = fit(confirmed, out=tmp_path / "run")
    later = fit(images, after=run, out=tmp_path / "later")
    for found in (run, later):
        rows = list(csv.DictReader((found.folder / "label-issues.csv").read_text().splitlines()))
        assert "004.png" not in {row["file"] for row in rows}
        assert found.record["label_issues"] == len(rows)
    corrected = images.labels.copy()
    corrected[4] = 0
    assert with_earlier_labels(images.with_labels(corrected), run).confirmed == frozenset()


def test_confidence_has_the_temperature_of_the_estimate_and_labels_do_not_change(run, images):
    temperature = run.estimate["temperature"]
    assert temperature != 1
    opened = open_run(run.folder)
    calibrated = opened.predictor.predict_proba(images)
    opened.predictor.temperature = 1.0
    plain = opened.predictor.predict_proba(images)
    expected = (plain.double().log() / temperature).softmax(dim=1)
    torch.testing.assert_close(calibrated.double(), expected, rtol=1e-3, atol=1e-5)
    assert torch.equal(plain.argmax(dim=1), calibrated.argmax(dim=1))


def test_unsure_images_get_no_label(run, images):
    promised = run.answering(0.8)
    assert promised["sure"] >= 0.8
    predictions = run.predict(images, abstain=0.8)
    sure = np.array(predictions.confidence) >= promised["threshold"]
    assert 0 < sure.sum() < len(sure)  # some images are answered, and some are not
    assert [label != "" for label in predictions.labels] == sure.tolist()
    plain = run.predict(images)
    assert "" not in plain.labels
    both = zip(predictions.labels, plain.labels, strict=True)
    assert all(label in ("", answer) for label, answer in both)


def test_the_lowest_known_threshold_that_promises_enough_is_used(run):
    rows = [
        {"sure": sure, "threshold": sure - 0.1, "share": 1 - sure, "accuracy": sure}
        for sure in (0.7, 0.8, 0.9)
    ]
    estimate = {"accuracy": 0.6, "low": 0.5, "n": 50, "abstentions": rows}
    run = handful.Run({"estimate": estimate}, run.predictor)
    assert run.answering(0.75)["threshold"] == pytest.approx(0.7)
    assert run.answering(0.9)["sure"] == 0.9
    with pytest.raises(ValueError, match="ask for 0.9 at most.* at least 57 labels that count"):
        run.answering(0.95)
    run.record["estimate"]["abstentions"] = []
    with pytest.raises(ValueError, match="predict without --abstain"):
        run.answering(0.5)


@pytest.mark.thorough
def test_images_of_a_group_are_never_split_by_the_estimate_of_a_fit(images, monkeypatch):
    from handful.pipeline import assess

    groups = np.arange(len(images)) // 4
    fits, fold_predictor = [], assess.fold_predictor

    def watched(*arguments):
        predict = fold_predictor(*arguments)

        def noted(train, held, seed):
            fits.append((train, held))
            return predict(train, held, seed)

        return noted

    monkeypatch.setattr(assess, "fold_predictor", watched)
    fit(replace(images, groups=groups))
    of_labeled = groups[images.labeled]
    assert len(fits) == 36
    assert not any(set(of_labeled[train]) & set(of_labeled[held]) for train, held in fits)


@pytest.mark.thorough
def test_a_prior_changes_the_estimate_and_not_the_model(images):
    even, uneven = fit(images), fit(images, prior={"a": 0.05, "b": 0.95})
    assert "class shares as given" in uneven.estimate["how"]
    assert uneven.record["prior"] == {"a": 0.05, "b": 0.95}
    assert uneven.estimate["accuracy"] != even.estimate["accuracy"]
    weights = [r.predictor.model.state_dict() for r in (even, uneven)]
    assert all(torch.equal(a, b) for a, b in zip(*(w.values() for w in weights), strict=True))


def test_a_prior_is_brought_into_the_order_of_the_classes():
    assert class_shares({"b": 0.75, "a": 0.25}, ("a", "b")) == [0.25, 0.75]
    thirds = class_shares({"a": 0.333, "b": 0.333, "c": 0.333}, ("a", "b", "c"))
    assert sum(thirds) == pytest.approx(1)
    assert class_shares(None, ("a",)) is None


def test_a_prior_for_a_class_without_a_random_label_is_refused_before_training(images, monkeypatch):
    monkeypatch.setattr("handful.pipeline.assess.predicted_out_of_fold", None)  # not reached
    origins = {name: "chosen" if i % 2 else "random" for i, name in enumerate(images.names)}
    origins["004.png"] = "chosen"  # the wrong one, the only other b
    with pytest.raises(ValueError, match="of which no random label is known"):
        fit(images, prior={"a": 0.5, "b": 0.5}, origins=origins)
