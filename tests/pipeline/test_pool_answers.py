"""The confidence of answers for images that a head learned from without their labels."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

import handful
from handful.csv_files import read_csv
from handful.methods.gaussian_mixture import GaussianMixture
from handful.methods.linear_head import Features
from handful.pipeline import pool_answers
from handful.pipeline.cross_validate import fold_predictor
from handful.pipeline.options import InputSpec
from handful.pipeline.setup import prepare
from handful.training.plan import make_plan
from tiny import stripes


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run whose head learned from its unlabelled images, in a folder."""
    out = tmp_path_factory.mktemp("pool") / "run"
    images = stripes(60, channels=3, labeled=24)
    return images, handful.fit(images, "gaussian_mixture", size=32, out=out)


def confidence(images, run, temperature):
    predictor = replace(run.predictor, temperature=temperature)
    return predictor.predict_proba(images[images.unlabeled]).amax(dim=1).numpy()


@pytest.mark.thorough
def test_answers_for_the_pool_have_a_temperature_of_their_own(saved):
    images, run = saved
    own, of_new = run.record["estimate"]["pool_temperature"], run.predictor.temperature
    assert own > 0 and own != of_new
    written = [float(row["confidence"]) for row in read_csv(run.folder / "predictions.csv")]
    np.testing.assert_allclose(written, confidence(images, run, own), atol=1e-4)
    opened = handful.open_run(run.folder)
    assert opened.estimate["pool_temperature"] == own
    assert opened.predictor.temperature == pytest.approx(of_new)  # new images keep theirs


@pytest.mark.thorough
def test_suggestions_have_the_confidence_of_the_answers(saved):
    _, run = saved
    answers = {row["file"]: row for row in read_csv(run.folder / "predictions.csv")}
    rows = read_csv(run.folder / "label-next.csv")
    assert rows and all(row["confidence"] == answers[row["file"]]["confidence"] for row in rows)


@pytest.mark.thorough
def test_a_head_that_learned_from_labels_alone_has_one_temperature(tmp_path):
    images = stripes(60, channels=3, labeled=24)
    run = handful.fit(images, "features", size=32, out=tmp_path / "run")
    assert run.estimate.get("pool_temperature") is None
    written = [float(row["confidence"]) for row in read_csv(tmp_path / "run" / "predictions.csv")]
    expected = confidence(images, run, run.predictor.temperature)
    np.testing.assert_allclose(written, expected, atol=1e-4)


@pytest.mark.thorough
def test_a_large_pool_has_no_temperature_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(pool_answers, "POOL_OF_LABEL", 1)
    images = stripes(60, channels=3, labeled=24)
    run = handful.fit(images, "gaussian_mixture", size=32, out=tmp_path / "run")
    assert run.estimate.get("pool_temperature") is None


@dataclass(frozen=True)
class Looking(GaussianMixture):
    """Notes the unlabelled features that it gets."""

    seen: ClassVar[list[torch.Tensor]] = []

    def fit_features(self, labeled, labels, unlabeled, num_classes, seed, shares=None):
        assert self.limit >= len(unlabeled)  # a sample would leave held-out images out
        self.seen.append(unlabeled)
        return Features().fit_features(labeled, labels, unlabeled[:0], num_classes, seed)


@pytest.mark.parametrize("among", [False, True])
def test_held_out_images_are_in_the_pool_only_where_they_are_asked_to_be(among):
    images = stripes(40, channels=3, labeled=16)
    settings, task = prepare(images, Looking(limit=24), inputs=InputSpec(size=32))
    plan = make_plan(settings, task, 0)
    Looking.seen.clear()
    predict = fold_predictor(settings, task, 0, plan, among_unlabeled=among)
    predict(np.arange(12), np.arange(12, 16), 0)
    assert len(Looking.seen[0]) == 24 + 4 * among
