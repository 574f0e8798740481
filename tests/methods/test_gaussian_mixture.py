"""The semi-supervised Gaussian mixture: its steps beside plain loops, and what it is for."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from handful.methods.gaussian_mixture import GaussianMixture, fit_mixture, shrunk
from handful.methods.heads import mixed
from handful.methods.linear_head import Features


def ovals(n, seed, stretch=4.0):
    """Two classes that differ along one axis, and noise that is strong along another."""
    labels = torch.arange(n) % 2
    noise = torch.randn(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    noise[:, 1] *= stretch
    noise[:, 0] += 5.0 * labels
    return noise, labels


def slow_mixture(x, labels, u, shares, pool_weight, shrinkage, rounds):
    """Expectation maximisation image by image: logits (m, K) of the unlabelled images."""
    x, u, classes = x.numpy(), u.numpy(), len(shares)
    rank, each = x.shape[1], min(1.0, pool_weight * len(x) / len(u))
    beliefs = np.zeros((len(u), classes))
    for done in range(rounds + 1):
        means, masses = [], []
        for k in range(classes):
            total, mass = np.zeros(rank), 0.0
            for row, label in zip(x, labels, strict=True):
                if label == k:
                    total, mass = total + row, mass + 1
            for row, belief in zip(u, beliefs, strict=True):
                total, mass = total + each * belief[k] * row, mass + each * belief[k]
            means.append(total / mass)
            masses.append(mass)
        spread = np.zeros((rank, rank))
        for k in range(classes):
            for row, label in zip(x, labels, strict=True):
                if label == k:
                    spread += np.outer(row - means[k], row - means[k])
            for row, belief in zip(u, beliefs, strict=True):
                spread += each * belief[k] * np.outer(row - means[k], row - means[k])
        spread /= sum(masses)
        share = shrinkage if done else max(shrinkage, 0.5)
        spread = (1 - share) * spread + share * np.trace(spread) / rank * np.eye(rank)
        inverse = np.linalg.inv(spread)
        logits = np.array(
            [
                [
                    np.log(shares[k]) - (row - means[k]) @ inverse @ (row - means[k]) / 2
                    for k in range(classes)
                ]
                for row in u
            ]
        )
        beliefs = np.exp(logits - logits.max(axis=1, keepdims=True))
        beliefs /= beliefs.sum(axis=1, keepdims=True)
    return beliefs


def test_a_mixture_equals_that_of_plain_loops():
    (x, labels), (u, _) = ovals(8, 0), ovals(30, 1)
    shares = torch.tensor([0.3, 0.7], dtype=torch.float64)
    found = fit_mixture(x, F.one_hot(labels, 2).double(), u, shares, 2.0, 0.1, 3)
    by_hand = slow_mixture(x, labels.tolist(), u, shares.numpy(), 2.0, 0.1, 3)
    np.testing.assert_allclose(found.probabilities.numpy(), by_hand, atol=1e-9)
    logits = u @ found.weight + found.bias
    torch.testing.assert_close(logits.softmax(dim=1), found.probabilities)


def test_unlabelled_images_show_how_classes_spread():
    """Two labels of each class say little of the covariance; 300 images without a label do."""
    gains = []
    for seed in range(8):
        (x, labels), (u, truth) = ovals(4, seed), ovals(300, 100 + seed)
        x, u = x.float(), u.float()
        heads = [m.fit_features(x, labels, u, 2, 0) for m in (GaussianMixture(), Features())]
        ours, plain = ((h(u).argmax(dim=1) == truth).float().mean().item() for h in heads)
        gains.append(ours - plain)
    assert np.mean(gains) > 0.05


def test_without_unlabelled_images_and_with_the_whole_share_it_is_the_labels_only_head():
    x, labels = ovals(12, 0)
    u, _ = ovals(40, 1)
    plain = Features().fit_features(x, labels, u, 2, 0)
    for method, pool in ((GaussianMixture(), u[:0]), (GaussianMixture(labels_only=1.0), u)):
        assert torch.equal(method.fit_features(x, labels, pool, 2, 0).weight, plain.weight)


def test_a_class_without_a_label_leaves_everything_finite():
    (x, labels), (u, _) = ovals(8, 0), ovals(40, 1)
    head = GaussianMixture(labels_only=0.0).fit_features(x, labels, u, 4, 0)
    assert torch.isfinite(head.weight).all() and torch.isfinite(head.bias).all()


def test_given_shares_move_the_border():
    (x, labels), (u, _) = ovals(8, 0), ovals(60, 1, stretch=1.0)
    u[:, 0] = 2.5 + 0.5 * torch.randn(60, generator=torch.Generator().manual_seed(3)).double()
    method = GaussianMixture(labels_only=0.0)
    heads = [
        method.fit_features(x, labels, u, 2, 0, shares=torch.tensor([share, 1 - share]))
        for share in (0.95, 0.05)
    ]
    first = [(head(u.float()).argmax(dim=1) == 0).float().mean() for head in heads]
    assert first[0] > first[1]


def test_shrinking_keeps_the_mean_variance():
    covariance = torch.diag(torch.tensor([4.0, 1.0, 1.0], dtype=torch.float64))
    found = shrunk(covariance, 0.5)
    assert found.diagonal().tolist() == pytest.approx([3.0, 1.5, 1.5])


def test_a_mixed_head_has_the_spread_of_the_labels_only_head():
    u, _ = ovals(50, 0)
    own, plain = torch.nn.Linear(6, 3), torch.nn.Linear(6, 3)
    with torch.no_grad():
        own.weight.mul_(100)
    assert torch.equal(mixed(own, plain, u.float(), 1.0).weight, plain.weight)
    alone = mixed(own, plain, u.float(), 0.0)
    logits = [head(u.float()) for head in (alone, plain, own)]
    spreads = [(x - x.mean(dim=1, keepdim=True)).square().mean().item() for x in logits]
    assert spreads[0] == pytest.approx(spreads[1], rel=1e-4)
    assert torch.equal(logits[0].argmax(dim=1), logits[2].argmax(dim=1))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"shrinkage": 2.0}, r"shrinkage lies in \[0, 1\], got 2.0"),
        ({"labels_only": -1.0}, r"labels_only lies in \[0, 1\], got -1.0"),
        ({"rounds": 0}, "rounds must be more than 0, got 0"),
    ],
)
def test_impossible_settings_are_refused_when_made(wrong, text):
    with pytest.raises(ValueError, match=text):
        GaussianMixture(**wrong)
