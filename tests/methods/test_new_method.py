"""Nearest means: a new method is one class and one line in METHODS."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import handful
from handful import methods, report
from handful.methods.base import About
from handful.methods.fixmatch import FixMatch
from handful.pipeline.compare import compare
from tiny import stripes

QUICK = {"precision": "fp32", "estimate": "none", "size": 32, "backbone": "lite0"}


@dataclass(frozen=True)
class NearestMean:
    """A head that predicts the class with the nearest mean of features."""

    sharpness: float = 1.0  # factor of the logits

    name: ClassVar[str] = "nearest_mean"
    about: ClassVar[About] = About(
        "predicts the class whose mean of features is nearest",
        "It has no parameters to fit.",
        "It ignores the spread of the classes.",
        uses_unlabeled=False,
        learned_weights=True,
    )
    limit: ClassVar[int] = 0

    def fit_features(self, labeled, labels, unlabeled, num_classes, seed):
        """-|x - mean|² / 2 up to a constant, as a linear head."""
        assert len(unlabeled) == 0
        means = torch.stack([labeled[labels == k].float().mean(dim=0) for k in range(num_classes)])
        head = nn.Linear(means.shape[1], num_classes)
        with torch.no_grad():
            head.weight.copy_(self.sharpness * means)
            head.bias.copy_(-self.sharpness * means.square().sum(dim=1) / 2)
        return head


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The one line that a new method adds to METHODS."""
    monkeypatch.setitem(methods.METHODS, "nearest_mean", NearestMean)


@pytest.fixture(scope="module")
def images():
    """60 training images and a test part of 20."""
    every = stripes(80, size=32, channels=3, labeled=80)
    return replace(every[np.arange(60)], test=every[np.arange(60, 80)])


def test_a_new_method_is_fitted_by_name_and_its_report_describes_it(images, tmp_path):
    settings = {"sharpness": "2"}
    seen = images[:].seen(np.arange(16))
    run = handful.fit(seen, "nearest_mean", out=tmp_path / "run", settings=settings, **QUICK)
    assert run.record["method"] == {"name": "nearest_mean", "sharpness": 2.0}
    assert run.score_test(images.test).accuracy > 0.8
    again = handful.open_run(tmp_path / "run").predict(images.test).probabilities
    assert torch.equal(again, run.predict(images.test).probabilities)
    page = report.render([tmp_path / "run"])
    assert "nearest_mean" in page and NearestMean.about.what in page
    assert "It learns from the labelled images only." in page


def test_a_new_method_is_compared_by_name_and_the_comparison_describes_it(images, tmp_path):
    names = ["nearest_mean", "features"]
    found = compare(images, names, range(2), 4, tmp_path, **QUICK)
    assert found.methods == ("nearest_mean", "features")
    assert len(found.accuracies("nearest_mean")) == 2
    page = report.render([tmp_path])
    for text in (NearestMean.about.what, NearestMean.about.strengths, NearestMean.about.weaknesses):
        assert text in page


def test_a_misspelled_new_method_is_suggested(images):
    with pytest.raises(handful.HandfulError, match="Did you mean 'nearest_mean'"):
        handful.fit(images[:], "nearest_maen", **QUICK)


def test_a_method_without_a_description_has_the_first_line_of_its_file(monkeypatch):
    monkeypatch.delattr(NearestMean, "about")
    assert methods.about("nearest_mean") == About(
        "a new method is one class and one line in METHODS"
    )


@dataclass(frozen=True)
class MyFixMatch(FixMatch):
    """A method of one's own that does as its parent does with unlabelled images."""

    name: ClassVar[str] = "my_fixmatch"


def test_a_subclass_inherits_what_it_does_with_unlabelled_images():
    known = methods.about(MyFixMatch())
    assert (known.uses_unlabeled, known.counterpart) == (True, "supervised")
    assert known.what.endswith("one class and one line in METHODS") and not known.strengths
    few = {"steps": "2", "batch": "8", "backbone.base": "8"}
    every = stripes(labeled=40)
    run = handful.fit(every, MyFixMatch(), settings=few, backbone="small", estimate="none")
    assert "every image has a label" in run.record["training"]["remark"]
