import json

import numpy as np
import pytest

from handful.data.folds import stratified_folds
from handful.data.sources import load
from handful.data.splits import (
    development,
    draw,
    first,
    holdout,
    save_draw,
    with_test,
)

LABELS = np.repeat([0, 1, 2], [50, 30, 20])[np.random.default_rng(7).permutation(100)]


def counts(labels, classes=3):
    return np.bincount(labels, minlength=classes).tolist()


@pytest.mark.parametrize("per_class", [1, 4, 20])
def test_a_draw_holds_exactly_per_class_images_of_every_class(per_class):
    chosen = draw(LABELS, per_class, seed=0)
    assert counts(LABELS[chosen]) == [per_class] * 3
    assert (np.diff(chosen) > 0).all()


def test_draws_of_one_seed_nest_and_seeds_differ():
    small, large = draw(LABELS, 4, seed=3), draw(LABELS, 10, seed=3)
    assert set(small) < set(large)
    assert set(small) != set(draw(LABELS, 4, seed=4))


def test_a_draw_is_the_same_on_every_machine_and_version():
    assert draw(LABELS, 2, seed=0).tolist() == [3, 11, 15, 20, 21, 92]


def test_images_without_a_label_are_never_drawn():
    labels = LABELS.copy()
    labels[::2] = -1
    assert (labels[draw(labels, 5, seed=0)] >= 0).all()
    assert (labels[holdout(labels, 0.3, seed=0)] >= 0).all()
    assert first(labels, 3).tolist() == [1, 3, 5]


def test_a_draw_larger_than_a_class_says_the_largest_possible():
    with pytest.raises(ValueError) as error:
        draw(np.array([0, 0, 0, 0, 1, 1, 1]), 4, seed=0)
    assert str(error.value) == (
        "per_class=4 asks for more images than class 1 has (3); "
        "the largest balanced budget here is per_class=3"
    )


def test_a_draw_names_the_class_that_is_too_small():
    labels = np.array([0, 0, 1])
    with pytest.raises(ValueError, match="more images than class dog has \\(1\\)"):
        draw(labels, 2, seed=0, classes=("cat", "dog"))
    with pytest.raises(ValueError, match="class owl has no labelled image, so no balanced draw"):
        draw(labels, 1, seed=0, classes=("cat", "dog", "owl"))


def test_a_draw_of_nothing_names_the_possible_sizes():
    with pytest.raises(ValueError, match="per_class=0 leaves nothing to learn from; use 1 to 20"):
        draw(LABELS, 0, seed=0)


def test_draws_folds_and_parts_never_split_a_group():
    groups = np.arange(100) // 4
    drawn = draw(LABELS, 5, seed=0, groups=groups)
    assert set(groups[drawn]).isdisjoint(groups[np.setdiff1d(np.arange(100), drawn)])
    assert min(counts(LABELS[drawn])) >= 5
    fold = stratified_folds(LABELS, 5, seed=0, groups=groups)
    assert all(len(set(fold[groups == group])) == 1 for group in range(25))
    part = holdout(LABELS, 0.3, seed=0, groups=groups)
    assert set(groups[part]).isdisjoint(groups[np.setdiff1d(np.arange(100), part)])
    assert 20 <= len(part) <= 40


def test_draws_with_groups_nest():
    groups = np.arange(100) // 3
    assert set(draw(LABELS, 3, 1, groups)) < set(draw(LABELS, 9, 1, groups))


@pytest.mark.parametrize("k", [2, 3, 5, 10])
def test_folds_are_stratified(k):
    fold = stratified_folds(LABELS, k, seed=1)
    table = np.array([counts(LABELS[fold == number]) for number in range(k)])
    assert (np.ptp(table, axis=0) <= 1).all()
    assert np.ptp(table.sum(1)) <= 1
    assert not np.array_equal(fold, stratified_folds(LABELS, k, seed=2))


def test_a_rare_class_makes_fewer_folds():
    labels = np.array([0] * 10 + [1] * 3)
    assert set(stratified_folds(labels, 5, seed=0)) == {0, 1, 2}
    assert set(stratified_folds(np.array([0, 0, 0, 1]), 5, seed=0)) == {0, 1}


def test_folds_count_groups_not_images():
    labels = np.array([0] * 10 + [1] * 10)
    groups = np.array([*range(10), *([10] * 5), *([11] * 5)])
    assert set(stratified_folds(labels, 5, seed=0, groups=groups)) == {0, 1}


def test_folds_of_unequal_groups_come_out_even():
    groups = np.array([0, 0, 0, 1, 2, 3])
    for seed in range(30):
        assert counts(stratified_folds(np.zeros(6, np.int64), 2, seed, groups), 2) == [3, 3]


def test_one_fold_is_refused():
    with pytest.raises(ValueError, match="folds=1 leaves nothing to test on; use 2 or more"):
        stratified_folds(LABELS, 1, seed=0)


def test_a_holdout_has_the_share_of_every_class():
    assert counts(LABELS[holdout(LABELS, 0.2, seed=5)]) == [10, 6, 4]


@pytest.mark.parametrize("fraction", [0.001, 0.99])
def test_a_holdout_that_empties_a_class_is_refused(fraction):
    with pytest.raises(ValueError, match="choose a part between 3 and 97"):
        holdout(LABELS, fraction, seed=0)


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_a_share_outside_0_and_1_is_refused(fraction):
    with pytest.raises(ValueError, match="test_fraction is a share between 0 and 1"):
        holdout(LABELS, fraction, seed=0)


def test_a_development_part_is_cut_from_the_training_images():
    images = load("digits")
    cut = development(images, 300, seed=1000)
    assert (len(cut), len(cut.test)) == (1138, 300)
    assert set(cut.names) | set(cut.test.names) == set(images.names)
    assert set(cut.test.names).isdisjoint(images.test.names)


def test_with_test_moves_the_chosen_images():
    images = load("digits")
    parted = with_test(images, np.array([5, 7]))
    assert parted.test.names == ["train/00005", "train/00007"]
    assert len(parted) == len(images) - 2


def test_a_saved_draw_holds_its_positions_and_a_hash_that_changes_with_them(tmp_path):
    path = tmp_path / "draw.json"
    hashes = []
    for positions in ([3, 1, 4], [3, 1, 4], [3, 1, 5]):
        save_draw(path, positions, per_class=1, seed=9, data="sha256:abc")
        record = json.loads(path.read_text())
        hashes.append(record.pop("hash"))
        assert record == {"data": "sha256:abc", "per_class": 1, "seed": 9, "positions": positions}
    assert hashes[0] == hashes[1] != hashes[2]
