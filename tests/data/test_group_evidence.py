"""Whether images look like one scene."""

import numpy as np

from handful.data.grouping.evidence import Verdict, of_keys, of_pairs, rare_likeness


def likeness(keys, within, seed=0):
    """Random likeness of unrelated images, and `within` of images of one key."""
    rng = np.random.default_rng(seed)
    found = rng.uniform(0, 0.5, (len(keys), len(keys)))
    found = (found + found.T) / 2
    same = keys[:, None] == keys[None, :]
    found[same] = within
    return found


def alone(count):
    return np.arange(count)


def test_images_of_one_scene_win_and_images_grouped_at_random_do_not():
    keys, classes = np.arange(40) // 2, np.arange(40) // 2 % 2
    frames = of_keys(likeness(keys, 0.9), classes, keys, alone(40))
    assert frames.sure and frames.units == 20
    other = of_keys(likeness(np.roll(keys, 1), 0.9), classes, np.arange(40) // 2, alone(40))
    assert not other.likely


def test_images_of_one_kind_are_likely_but_not_sure():
    keys, classes = np.arange(60) // 2, np.zeros(60, int)
    verdict = of_keys(likeness(keys, 0.3), classes, keys, alone(60))
    assert verdict.likely and not verdict.sure


def test_only_images_of_the_same_class_are_compared():
    keys = np.arange(40) // 2
    classes = np.arange(40) % 2  # the two of a key are of two classes
    assert of_keys(likeness(keys, 0.9), classes, keys, alone(40)).units == 0


def test_pairs_that_are_known_already_do_not_count_again():
    keys, classes = np.arange(40) // 2, np.zeros(40, int)
    assert of_keys(likeness(keys, 0.9), classes, keys, keys).units == 0


def test_few_groups_say_nothing():
    keys, classes = np.arange(20) // 2, np.zeros(20, int)
    few = np.where(np.arange(20) < 8, keys, -1)
    verdict = of_keys(likeness(keys, 0.9), classes, few, alone(20))
    assert verdict.units == 4 and not verdict.likely
    assert not Verdict().likely


def test_all_pairs_between_two_groups_count_as_one():
    keys, classes = np.arange(40) // 4, np.zeros(40, int)
    pairs = np.array([(at, at + 1) for at in range(0, 40, 2)])
    single = of_pairs(likeness(keys, 0.9), classes, alone(40), pairs, pairs)
    assert single.units == 20 and single.sure
    grouped = of_pairs(likeness(keys, 0.9), classes, np.arange(40) // 8, pairs, pairs)
    assert grouped.units == 5
    assert of_pairs(likeness(keys, 0.9), classes, alone(40), pairs[:0], pairs).units == 0


def test_a_rare_likeness_is_that_of_one_unrelated_pair_in_a_hundred():
    keys, classes = np.arange(60) // 2, np.zeros(60, int)
    found = likeness(keys, 0.9)
    near = np.array([(at, at + 1) for at in range(0, 60, 2)])
    unrelated = found[(keys[:, None] != keys[None, :])]
    assert np.isclose(rare_likeness(found, classes, near), np.quantile(unrelated, 0.99), atol=0.01)
    assert rare_likeness(np.ones((1, 1)), np.zeros(1, int), near[:0]) == 1
