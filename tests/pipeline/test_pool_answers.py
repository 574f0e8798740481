"""The confidence of answers for images that a head learned from without their labels."""

import shutil
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

import handful
from handful.csv_files import read_csv
from handful.errors import HandfulError
from handful.files import write_tensors
from handful.methods.gaussian_mixture import GaussianMixture
from handful.methods.linear_head import Features
from handful.pipeline import pool_answers, pool_check, pool_images
from handful.pipeline.artifacts import POOL
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


@pytest.fixture(scope="module")
def far_apart(tmp_path_factory):
    """A run whose two temperatures are so far apart that no confidence is the same at both."""
    images = stripes(60, channels=3, labeled=24)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool_answers, "pool_temperature", lambda *decision: 40.0)
        out = tmp_path_factory.mktemp("pool") / "run"
        run = handful.fit(images, "gaussian_mixture", size=32, out=out)
    assert run.predictor.temperature < 2
    return images, run


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


def confidences(run, images):
    return np.array(run.predict(images).confidence)


@pytest.mark.thorough
def test_predict_answers_for_the_pool_as_the_run_did_and_for_other_images_as_new(far_apart):
    images, run = far_apart
    opened = handful.open_run(run.folder)
    pool = images[images.unlabeled]
    written = [float(row["confidence"]) for row in read_csv(run.folder / "predictions.csv")]
    np.testing.assert_allclose(confidences(opened, pool), written, atol=1e-4)
    np.testing.assert_allclose(confidences(opened, pool[[3, 0]]), [written[3], written[0]], 1e-3)
    renamed = replace(pool, store=replace(pool.store, names=[f"new/{n}" for n in pool.store.names]))
    np.testing.assert_allclose(confidences(opened, renamed), written, atol=1e-4)
    others = stripes(60, channels=3, labeled=24, seed=1)
    expected = run.predictor.predict_proba(others).amax(dim=1).numpy()
    np.testing.assert_allclose(confidences(opened, others), expected, atol=1e-6)


@pytest.mark.thorough
def test_a_run_of_an_earlier_version_takes_every_image_as_new(far_apart, tmp_path):
    images, run = far_apart
    shutil.copytree(run.folder, tmp_path / "run")
    (tmp_path / "run" / POOL).unlink()
    pool = images[images.unlabeled]
    expected = run.predictor.predict_proba(pool).amax(dim=1).numpy()
    np.testing.assert_allclose(confidences(handful.open_run(tmp_path / "run"), pool), expected)


@pytest.mark.thorough
def test_a_damaged_list_of_the_pool_is_refused(far_apart, tmp_path):
    images, run = far_apart
    shutil.copytree(run.folder, tmp_path / "run")
    for pixels in (
        torch.zeros(3, 8, dtype=torch.uint8),
        torch.tensor(1, dtype=torch.uint8),
        torch.zeros(3, 16),
    ):
        write_tensors(tmp_path / "run" / POOL, {"pixels": pixels})
        with pytest.raises(HandfulError, match=f"{POOL} was not written by handful"):
            handful.open_run(tmp_path / "run").predict(images)
    (tmp_path / "run" / POOL).write_bytes(b"no tensors")
    with pytest.raises(HandfulError, match=f"{POOL} is damaged"):
        handful.open_run(tmp_path / "run").predict(images)


def test_the_largest_small_pool_can_be_saved():
    assert pool_check.MOST_LABELS * pool_check.POOL_OF_LABEL == pool_images.MOST


@pytest.mark.thorough
def test_suggestions_have_the_confidence_of_the_answers(saved):
    _, run = saved
    answers = {row["file"]: row for row in read_csv(run.folder / "predictions.csv")}
    rows = read_csv(run.folder / "label-next.csv")
    shown = [row for row in rows if row["why"] != "random"]  # those have no guess
    assert shown and all(row["confidence"] == answers[row["file"]]["confidence"] for row in shown)


@pytest.mark.thorough
def test_a_head_that_learned_from_labels_alone_has_one_temperature(tmp_path):
    images = stripes(60, channels=3, labeled=24)
    run = handful.fit(images, "features", size=32, out=tmp_path / "run")
    assert run.estimate.get("pool_temperature") is None
    assert not (tmp_path / "run" / POOL).exists()
    written = [float(row["confidence"]) for row in read_csv(tmp_path / "run" / "predictions.csv")]
    expected = confidence(images, run, run.predictor.temperature)
    np.testing.assert_allclose(written, expected, atol=1e-4)


@pytest.mark.thorough
def test_a_large_pool_has_no_temperature_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(pool_check, "POOL_OF_LABEL", 1)
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
