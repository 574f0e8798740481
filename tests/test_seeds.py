from threading import Event, Thread

import numpy as np
import pytest
import torch

from handful import seeds
from handful.seeds import Purpose, Stream


def test_derived_seeds_are_those_that_saved_runs_were_made_with():
    """Other numbers would change every resumed run and every published figure."""
    assert seeds.hashed(0, 1) == 9017893900260303862
    assert seeds.hashed(7, Purpose.METHOD_STATE) == 4139825614861801188
    assert seeds.of_fold(0, 10, 1, 2) == 3183083604
    assert [seeds.generator(3, stream).integers(1000) for stream in Stream] == [124, 380, 67]


def test_a_purpose_is_hashed_as_its_number():
    assert seeds.hashed(5, Purpose.LABELED_ORDER) == seeds.hashed(5, -1)


@pytest.mark.parametrize("derive", [seeds.hashed, seeds.of_fold])
def test_neighbouring_numbers_give_seeds_without_a_pattern(derive):
    derived = np.array([derive(seed, step) for seed in range(10) for step in range(10)])
    assert len(set(derived)) == 100
    assert abs((derived % 2).mean() - 0.5) < 0.2


def test_another_thread_does_not_draw_from_torch_between_two_seeded_draws():
    def draw_twice(between):
        with seeds.seeded(1):
            first = torch.rand(3)
            between()
            return torch.cat([first, torch.rand(3)])

    drawn = Event()

    def draw_too():
        with seeds.own_turn():
            torch.rand(3)
            drawn.set()

    other = Thread(target=draw_too)

    def let_the_other_try():
        other.start()
        drawn.wait(0.1)  # it comes after this block: nothing waits longer than that

    alone = draw_twice(lambda: None)
    assert torch.equal(draw_twice(let_the_other_try), alone)
    other.join()
    assert drawn.is_set()


def test_torch_draws_go_on_in_a_turn_within_a_seeded_block():
    with seeds.seeded(1):
        plain = torch.rand(2)
    with seeds.seeded(1):
        with seeds.own_turn():
            first = torch.rand(1)
        assert torch.equal(torch.cat([first, torch.rand(1)]), plain)


def test_torch_draws_as_before_after_a_seeded_block():
    before = torch.get_rng_state()
    with seeds.seeded(3):
        torch.rand(2)
    assert torch.equal(torch.get_rng_state(), before)
