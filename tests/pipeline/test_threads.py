"""Fits in several threads of one process at once."""

from threading import Thread

import pytest
import torch

import handful
from handful import models, seeds
from tiny import stripes

STEPS = {"steps": "8", "backbone.base": "8", "dropout": "0.3"}


def trained(seed):
    run = handful.fit(
        stripes(), "supervised", settings=STEPS, estimate="none", seed=seed, precision="fp32"
    )
    return models.fingerprint(run.predictor.model)


def test_fits_in_threads_at_once_give_the_bits_of_fits_alone():
    numbers = [0, 1, 2]
    alone = {seed: trained(seed) for seed in numbers}
    found = {}
    threads = [Thread(target=lambda s=s: found.__setitem__(s, trained(s))) for s in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("supervised", {"settings": STEPS, "estimate": "none"}),
        ("features", {"size": 32, "estimate": "none"}),
        pytest.param("mlp_head", {"size": 32, "estimate": "none"}, marks=pytest.mark.thorough),
    ],
)
def test_a_fit_draws_from_torch_in_a_turn_of_its_own_only(method, options, tmp_path, monkeypatch):
    """Whatever draws outside of a turn would change what other threads draw."""
    turn = Watched()
    monkeypatch.setattr(seeds, "_turn", turn)
    handful.fit(stripes(), method, out=tmp_path / "run", precision="fp32", **options)
    assert turn.entered > 1 and turn.untouched()


class Watched:
    """A turn that sees whether anything was drawn from torch's generator since the last one."""

    def __init__(self):
        self.depth, self.entered, self.left = 0, 0, torch.get_rng_state()

    def untouched(self):
        return torch.equal(torch.get_rng_state(), self.left)

    def __enter__(self):
        assert self.depth or self.untouched()
        self.depth, self.entered = self.depth + 1, self.entered + 1

    def __exit__(self, *_):
        self.depth -= 1
        self.left = torch.get_rng_state()
