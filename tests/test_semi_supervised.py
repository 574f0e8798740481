"""The semi-supervised methods: against slow references, and what they share."""

from dataclasses import dataclass, replace

import pytest
import torch

from handful.files import read_tensors
from handful.learn import Settings, learn
from handful.methods.base import BackboneSpec
from handful.methods.fixmatch import FixMatch
from handful.methods.supervised import Supervised
from handful.train import Plan, begin
from tiny import SCHEDULE, stripes, task

PLAN = Plan("fp32", 1, 0.01)
SETTINGS = Settings(FixMatch(), SCHEDULE, BackboneSpec("small", {"base": 8}), precision="fp32")
METHODS = [FixMatch(), FixMatch(threshold=0.0, align=True, teacher=True)]


def weights(learned):
    return learned.predictor.model.state_dict()


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a) and a.keys() == b.keys()


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_stopped_in_mid_method_and_resumed_ends_with_the_same_bits(tmp_path, monkeypatch, method):
    monkeypatch.setattr("handful.learn.SAVE_EVERY", 0)

    @dataclass(frozen=True)
    class Interrupted(type(method)):
        def loss(self, model, batch):
            if batch.step == 7:
                raise KeyboardInterrupt
            return super().loss(model, batch)

    settings = replace(SETTINGS, method=method)
    straight = learn(settings, task(), 1, planned=PLAN)
    with pytest.raises(KeyboardInterrupt):
        learn(replace(settings, method=Interrupted(**vars(method))), task(), 1, tmp_path, PLAN)
    saved = read_tensors(tmp_path / "checkpoint.safetensors")[0]
    started = begin(method, task(), SCHEDULE, 1).memory
    assert not torch.equal(saved["memory/guessed"], started["guessed"])
    resumed = learn(settings, task(), 1, tmp_path)
    assert same(weights(straight), weights(resumed))
    ours, theirs = (
        [{k: v for k, v in line.items() if k != "seconds"} for line in learned.history]
        for learned in (straight, resumed)
    )
    assert ours == theirs
    assert not any("memory" in key or "guessed" in key for key in weights(straight))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_with_no_unlabeled_image_it_is_supervised_to_the_last_bit(method):
    images = stripes(16, labeled=16)
    ours = learn(replace(SETTINGS, method=method), task(images), 0, planned=PLAN)
    plain = replace(SETTINGS, method=Supervised())
    theirs = learn(plain, task(images), 0, planned=PLAN)
    assert same(weights(ours), weights(theirs))
