"""Class shares of unlabelled images from few labels and a labels-only head."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from handful.methods.base import Aligning
from handful.methods.class_shares import (
    POOL,
    ClassShares,
    calibrated_predictions,
    chance_of_even_counts,
    combined_shares,
    estimated_shares,
    even_counts,
    fit_head,
    telling_labels,
    towards_equal,
    wanted_shares,
)
from handful.methods.first_features import shares_for
from handful.methods.linear_head import Features
from handful.methods.self_training import SelfTraining
from tiny import stripes, task

EVEN = torch.tensor([0, 1, 2]).repeat(10)


def points(labels, seed, apart=2.5, width=12):
    """Unit noise around a corner for each class."""
    noise = torch.randn(len(labels), width, generator=torch.Generator().manual_seed(seed))
    return noise + apart * F.one_hot(labels, width)


def pool(counts):
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


def test_an_uneven_pool_is_seen_through_labels_balanced_by_hand():
    others = pool([800, 150, 50])
    found = estimated_shares(points(EVEN, 0), EVEN, points(others, 1), 3, seed=0)
    assert found.mean == pytest.approx([0.8, 0.15, 0.05], abs=0.08)
    assert found.mean.sum() == pytest.approx(1)
    assert (np.abs(found.mean - [0.8, 0.15, 0.05]) < 3 * found.sd).all()


def test_an_even_pool_has_equal_shares_without_noise_in_most_draws():
    others = pool([300, 300, 300])
    apart = [
        np.abs(estimated_shares(points(EVEN, s), EVEN, points(others, 50 + s), 3, 0).mean - 1 / 3)
        for s in range(10)
    ]
    exact = [bool(distance.max() < 1e-9) for distance in apart]
    assert sum(exact) >= 6
    assert max(distance.max() for distance in apart) < 0.2


def test_labels_of_a_random_draw_decide_where_the_head_tells_nothing():
    sizes = []
    for counts in (np.array([8.5, 3.5, 1.5]), np.array([80.5, 30.5, 10.5])):
        seen = counts / counts.sum()
        found = combined_shares(np.tile(seen, (200, 1)), seen, counts, 0.1)
        sizes.append(found.sd.max())
        assert found.mean == pytest.approx(seen, abs=1e-3)
    assert sizes[1] < 0.5 * sizes[0]


def test_labels_count_where_they_are_uneven_and_not_where_they_are_even():
    uneven, others = pool([16, 8, 6]), torch.zeros(200, 12)
    found = estimated_shares(points(uneven, 0), uneven, others[:0], 3, seed=0)
    assert found.mean == pytest.approx([17 / 33, 9 / 33, 7 / 33])
    counted = [
        estimated_shares(points(labels, 0, apart=0.0), labels, others, 3, seed=0).sd.max()
        for labels in (EVEN, uneven)
    ]
    assert counted[1] < counted[0]


def offered(seed):
    """15 random labels of a pool of 8 to 1 to 1, then 45 chosen ones, as many of each class."""
    labels = torch.cat([pool([12, 2, 1]), pool([15, 15, 15])])
    return points(labels, seed, apart=1.5), labels, torch.arange(60) < 15


def test_chosen_labels_of_other_classes_do_not_count_in_the_shares():
    others, true = pool([800, 100, 100]), np.array([0.8, 0.1, 0.1])
    for seed in range(3):
        x, labels, counted = offered(seed)
        u = points(others, seed + 20, apart=1.5)
        every, some = (
            np.abs(estimated_shares(x, labels, u, 3, 0, mask).mean - true).sum()
            for mask in (None, counted)
        )
        assert some < 0.7 * every


def test_shares_of_counted_labels_are_those_of_a_plain_calculation():
    """The shares start from, and are held to, the counts of labels that are counted."""
    x, labels, counted = offered(3)
    u = points(pool([24, 3, 3]), 4, apart=1.5)
    predicted = calibrated_predictions(x, labels, u, 3, 0)
    expected = slow_shares(predicted, [27 / 60, 17 / 60, 16 / 60], np.array([12.5, 2.5, 1.5]), 1.0)
    found = estimated_shares(x, labels, u, 3, 0, counted)
    kept = (found.mean - 1 / 3) / (np.array(expected) - 1 / 3)
    assert kept == pytest.approx([kept[0]] * 3, rel=1e-3) and 0.5 < kept[0] <= 1


def test_chosen_labels_of_classes_as_common_as_the_others_count():
    as_common = torch.cat([pool([12, 2, 1]), pool([36, 6, 3])])
    _, uncommon, counted = offered(0)
    assert torch.equal(telling_labels(as_common, counted), as_common)
    assert torch.equal(telling_labels(uncommon, counted), uncommon[:15])
    few = torch.arange(60) < 2  # two labels do not show a difference
    assert torch.equal(telling_labels(uncommon, few), uncommon)


def test_chosen_labels_seldom_pass_for_different_by_chance():
    generator, labels = torch.Generator().manual_seed(0), pool([20, 10, 6, 4])
    divided = [torch.randperm(40, generator=generator) < 15 for _ in range(50)]
    assert 1 <= sum(len(telling_labels(labels, mask)) == 15 for mask in divided) <= 6


def test_without_a_counted_label_and_without_a_chosen_one_all_labels_count():
    x, labels, counted = offered(5)
    u = points(pool([800, 100, 100]), 6)
    plain = estimated_shares(x, labels, u, 3, 0)
    for mask in (counted | True, counted & False):
        found = estimated_shares(x, labels, u, 3, 0, mask)
        assert (found.mean == plain.mean).all() and (found.sd == plain.sd).all()


def test_the_last_fit_and_methods_that_align_take_shares_of_counted_labels():
    x, labels, counted = offered(7)
    u = points(pool([800, 100, 100]), 8, apart=1.5)
    method = SelfTraining(rounds=3, rank=8, labels_only=0.0)
    shares = wanted_shares(None, x, labels, u, 3, 0, counted)
    by_hand = method.fit_features(x, labels, u, 3, 0, shares)
    assert torch.equal(fit_head(method, x, labels, u, 3, 0, None, counted).weight, by_hand.weight)
    plain = method.fit_features(x, labels, u, 3, 0)
    assert not torch.equal(plain.weight, by_hand.weight)
    for mask in (None, counted | True):
        assert torch.equal(fit_head(method, x, labels, u, 3, 0, None, mask).weight, plain.weight)


def test_a_network_aligns_to_the_shares_of_labels_that_were_not_chosen():
    images = stripes()
    chosen = replace(images, origins=dict.fromkeys(images.names[1:16:2], "chosen"))
    some = task(chosen, validation=(0, 5))
    x = points(torch.arange(40) % 2 * (torch.arange(40) < 18), 9)
    known = torch.tensor([i for i in range(16) if i not in (0, 5)])
    by_hand = estimated_shares(x[known], known % 2, x[16:], 2, 0, known % 2 == 0)
    others = np.r_[known.numpy(), np.arange(16, 40)]
    found = shares_for(some, x[others], torch.from_numpy(others))
    assert found.tolist() == pytest.approx(by_hand.mean.tolist(), abs=1e-6)


def slow_shares(probabilities, seen, images, weight):
    """The same iteration in plain Python."""
    shares = [count / sum(images) for count in images]
    for _ in range(2000):
        counts = list(images)
        for row in probabilities:
            joint = [p / s * share for p, s, share in zip(row, seen, shares, strict=True)]
            for k, part in enumerate(joint):
                counts[k] += weight * part / sum(joint)
        shares = [count / sum(counts) for count in counts]
    return shares


def test_shares_equal_those_of_a_plain_loop():
    rows = np.random.default_rng(0).dirichlet([0.5, 0.5, 0.5], size=20)
    seen, images = [0.5, 0.3, 0.2], np.array([1.5, 0.5, 0.5])
    found = combined_shares(rows, np.array(seen), images, 0.3)
    assert found.mean == pytest.approx(slow_shares(rows, seen, images, 0.3), abs=1e-4)


def test_the_deviation_is_that_of_counted_images_where_predictions_tell_nothing():
    """Dirichlet: the variance of a share is p (1 - p) / n."""
    images = np.array([30.0, 10.0])
    found = combined_shares(np.full((5, 2), 0.5), np.array([0.5, 0.5]), images, 1e-9)
    assert found.mean == pytest.approx([0.75, 0.25], abs=1e-6)
    assert found.sd == pytest.approx([np.sqrt(0.75 * 0.25 / 40)] * 2, rel=1e-3)


def test_the_pool_counts_as_no_more_than_twice_the_labels():
    """A hundred times as many images leave the deviations nearly as they were."""
    found = [
        estimated_shares(points(EVEN, 0), EVEN, points(pool([8 * n, n, n]), 1), 3, 0).sd.max()
        for n in (10, 500)
    ]
    assert POOL == 2 and found[1] > 0.6 * found[0]


def test_shares_within_their_error_of_equal_ones_become_equal_and_clear_ones_stay():
    near = towards_equal(ClassShares(np.array([0.4, 0.3, 0.3]), np.full(3, 0.1)))
    assert near.mean == pytest.approx([1 / 3] * 3)
    far = towards_equal(ClassShares(np.array([0.8, 0.1, 0.1]), np.full(3, 0.02)))
    assert far.mean == pytest.approx([0.8, 0.1, 0.1], abs=0.005)
    assert far.mean.sum() == pytest.approx(1)


def test_given_shares_are_used_and_none_of_them_is_0():
    x = points(EVEN, 0)
    found = wanted_shares(torch.tensor([0.7, 0.3, 0.0]), x, EVEN, x, 3, 0)
    assert found.tolist() == pytest.approx([0.7, 0.3, 0.0], abs=1e-5)
    assert (found > 0).all()


def test_even_counts_are_told_from_those_of_random_draws_and_their_chance_is_known():
    assert even_counts(np.repeat(np.arange(10), 4)) and not even_counts(pool([6, 2]).numpy())
    assert chance_of_even_counts(np.repeat(np.arange(10), 4)) < 0.001
    assert chance_of_even_counts(np.array([0, 0, 1, 1])) == pytest.approx(6 / 16, abs=0.02)
    assert chance_of_even_counts(np.repeat([0, 1], 10)) == pytest.approx(0.176, abs=0.02)
    assert chance_of_even_counts(np.zeros(5, int)) == 1


def test_shares_reach_methods_that_align_and_no_others():
    x, u = points(EVEN, 0, apart=1.0), points(pool([100, 100, 100]), 1, apart=1.0)
    method = SelfTraining(rounds=3, rank=8, labels_only=0.0)
    assert isinstance(method, Aligning) and not isinstance(Features(), Aligning)
    told = fit_head(method, x, EVEN, u, 3, 0, (0.9, 0.05, 0.05))
    alone = fit_head(method, x, EVEN, u, 3, 0)
    first = [(head(u).argmax(dim=1) == 0).float().mean() for head in (told, alone)]
    assert first[0] > first[1] + 0.2
    plain = [fit_head(Features(), x, EVEN, u, 3, 0, shares) for shares in (None, (0.9, 0.05, 0.05))]
    assert torch.equal(plain[0].weight, plain[1].weight)


def test_self_training_keeps_a_pool_uneven_that_is_uneven():
    """Labels balanced by hand, a pool of 10 to 1: equal shares would ruin the guesses."""
    others = pool([1000, 100, 100])
    x, u = points(EVEN, 0), points(others, 1)
    for shares, worst in ((None, 0.93), (torch.full((3,), 1 / 3), 0.0)):
        method = SelfTraining(labels_only=0.0)
        right = method.fit_features(x, EVEN, u, 3, 0, shares)(u).argmax(dim=1) == others
        if shares is None:
            assert right.float().mean() > worst
            best = right.float().mean()
        else:
            assert right.float().mean() < best - 0.1
