"""Limits on numbers of images, tested at the limit, beside it and just below twice it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from handful.data.splits import evenly_spaced
from handful.methods.base import Task
from handful.models import split
from handful.pipeline.pretrain_plots import PretrainPlots
from handful.training import monitor
from handful.training.monitor import Monitor
from tiny import stripes, task


@pytest.mark.parametrize("n, kept", [(9, 9), (10, 10), (11, 10), (19, 10), (20, 10), (35, 10)])
def test_evenly_spaced_items_are_as_many_as_the_limit_and_reach_to_the_end(n, kept):
    some = evenly_spaced(torch.arange(n), 10)
    assert len(some) == kept
    assert some[0] == 0 and some[-1] >= n - 1 - n / 10
    steps = some.diff()
    assert steps.min() >= 1 and steps.max() - steps.min() <= 1


def test_at_multiples_of_the_limit_evenly_spaced_items_are_every_second_or_third():
    assert evenly_spaced(torch.arange(20), 10).tolist() == list(range(0, 20, 2))
    assert evenly_spaced(torch.arange(30), 10).tolist() == list(range(0, 30, 3))
    assert evenly_spaced(torch.arange(30), 0).tolist() == []


@pytest.mark.parametrize("labeled, evaluated", [(9, 9), (10, 10), (11, 10), (19, 10)])
def test_an_evaluation_of_the_loss_uses_no_more_images_than_its_limit(
    monkeypatch, labeled, evaluated
):
    monkeypatch.setattr(monitor, "EVALUATION_LIMIT", 10)
    metrics = Monitor(task(stripes(labeled=labeled)), "fp32")
    assert len(metrics.parts["train"][1]) == evaluated


@pytest.mark.parametrize(
    "n, kept", [(9_999, 9_999), (10_000, 10_000), (10_001, 10_000), (19_999, 10_000)]
)
def test_statistics_are_of_ten_thousand_images_at_most(n, kept):
    pixels = torch.zeros(n, 1, 1, 1, dtype=torch.uint8)
    assert len(Task.some_pixels(SimpleNamespace(pixels=pixels))) == kept


@pytest.mark.parametrize("n, kept", [(999, 999), (1_000, 1_000), (1_001, 1_000), (1_999, 1_000)])
def test_a_split_backbone_takes_its_constants_from_a_thousand_images_at_most(monkeypatch, n, kept):
    taken = []
    plain = split.SPACES["lab"]
    monkeypatch.setitem(split.SPACES, "lab", lambda some: taken.append(len(some)) or plain(some))
    network = split.Split(3, 16)
    network.init_from_data(torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(0)))
    assert taken == [kept]


def test_a_map_of_images_has_all_labelled_ones_and_reaches_to_the_last_of_the_others(
    monkeypatch, tmp_path
):
    drawn, seen = [], []
    monkeypatch.setattr("handful.pipeline.pretrain_plots.MAPPED", 30)
    monkeypatch.setattr("handful.pipeline.pretrain_plots.save_curves", lambda *_: None)
    monkeypatch.setattr(
        "handful.pipeline.pretrain_plots.save_map", lambda _, labels, *__: drawn.append(labels)
    )
    monkeypatch.setattr(
        "handful.pipeline.pretrain_plots.representation",
        lambda *_: lambda pixels: seen.append(pixels) or np.zeros(len(pixels)),
    )
    given = task(stripes(n=45, labeled=16))
    PretrainPlots(tmp_path, given).after_training(torch.nn.Identity(), [])
    assert len(drawn[0]) == 30
    assert torch.equal(seen[0][:16], given.pixels[given.labeled])
    others = given.training_pool[~torch.isin(given.training_pool, given.labeled)]
    assert torch.equal(seen[0][16:], given.pixels[evenly_spaced(others, 14)])
    assert torch.equal(seen[0][-1], given.pixels[others[13 * len(others) // 14]])
