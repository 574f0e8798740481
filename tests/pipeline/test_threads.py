"""Fits in several threads of one process at once."""

from threading import Thread

import pytest
import torch

import handful
from handful import models
from tiny import stripes

STEPS = {"steps": "8", "backbone.base": "8", "dropout": "0.3"}


def trained(seed):
    run = handful.fit(
        stripes(), "supervised", settings=STEPS, estimate="none", seed=seed, precision="fp32"
    )
    return models.fingerprint(run.predictor.model)


def test_fits_in_threads_at_once_give_the_bits_of_fits_alone():
    seeds = [0, 1, 2]
    alone = {seed: trained(seed) for seed in seeds}
    found = {}
    threads = [Thread(target=lambda s=s: found.__setitem__(s, trained(s))) for s in seeds]
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
def test_a_fit_leaves_the_generator_of_torch_alone(method, options, tmp_path):
    """Whatever draws from it outside of a turn would change what other threads draw."""
    images = stripes()
    before = torch.get_rng_state()
    handful.fit(images, method, out=tmp_path / "run", precision="fp32", **options)
    assert torch.equal(torch.get_rng_state(), before)
