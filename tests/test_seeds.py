import numpy as np
import pytest

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
