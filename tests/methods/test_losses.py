"""Losses against slow references in plain Python, written from the papers, in float64."""

import math

import pytest
import torch

from handful.methods.losses import (
    aligned,
    annealed_cross_entropy,
    divergence_loss,
    pseudo_label_loss,
    sharpened,
    squared_difference,
    truncated_gaussian,
)


def softmax(row):
    powers = [math.exp(x) for x in row]
    return [x / sum(powers) for x in powers]


def cross_entropy(row, k):
    return -math.log(softmax(row)[k])


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Five images, three classes: confident, confident mistake, unsure, fairly confident, undecided.
WEAK = torch.tensor(
    [[6.0, 0, 0], [0, 7.0, 0], [0.2, 0.1, 0], [0, 0, 2.0], [0, 0, 0]], dtype=torch.float64
)
STRONG = normal(5, 3, seed=1) * 2


def fixmatch(weak, strong, threshold):
    total = 0.0
    for w, s in zip(weak.tolist(), strong.tolist(), strict=True):
        p = softmax(w)
        if max(p) >= threshold:
            total += cross_entropy(s, p.index(max(p)))
    return total / len(weak)


def uda(weak, strong, temperature, threshold):
    total = 0.0
    for w, s in zip(weak.tolist(), strong.tolist(), strict=True):
        target, q = softmax([x / temperature for x in w]), softmax(s)
        if max(softmax(w)) > threshold:
            total += sum(t * (math.log(t) - math.log(x)) for t, x in zip(target, q, strict=True))
    return total / len(weak)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.8, 0.95, 1.0])
def test_pseudo_label_loss_matches_fixmatchs_equation(threshold):
    loss, mask = pseudo_label_loss(WEAK.softmax(1), STRONG, threshold)
    assert loss.item() == pytest.approx(fixmatch(WEAK, STRONG, threshold), rel=1e-12)
    assert mask.sum() == {0.0: 5, 0.5: 3, 0.8: 2, 0.95: 2, 1.0: 0}[threshold]


@pytest.mark.parametrize("temperature", [0.3, 0.4, 1.0])
@pytest.mark.parametrize("threshold", [0.0, 0.8])
def test_divergence_matches_udas_equation(temperature, threshold):
    loss, mask = divergence_loss(WEAK.softmax(1), STRONG, temperature, threshold)
    assert loss.item() == pytest.approx(uda(WEAK, STRONG, temperature, threshold), rel=1e-12)
    assert mask.sum() == {0.0: 5, 0.8: 2}[threshold]


def test_udas_threshold_applies_before_sharpening_and_excludes_equality():
    probabilities = torch.tensor([[0.8, 0.2], [0.81, 0.19], [0.7, 0.3]], dtype=torch.float64)
    _, mask = divergence_loss(probabilities, probabilities, temperature=0.1, threshold=0.8)
    assert mask.tolist() == [False, True, False]


def test_fixmatchs_threshold_includes_equality():
    probabilities = torch.tensor([[0.75, 0.25]], dtype=torch.float64)
    assert pseudo_label_loss(probabilities, probabilities, 0.75)[1].tolist() == [True]


def test_both_means_are_over_all_images_masked_ones_included():
    probabilities = torch.tensor([[0.99, 0.01], [0.6, 0.4]])  # one confident, one not
    logits = torch.zeros(2, 2)
    assert pseudo_label_loss(probabilities, logits, 0.95)[0].item() == pytest.approx(
        math.log(2) / 2
    )
    one = 0.99 * math.log(0.99 / 0.5) + 0.01 * math.log(0.01 / 0.5)
    assert divergence_loss(probabilities, logits, 1.0, 0.95)[0].item() == pytest.approx(one / 2)


def test_sharpening_applies_to_the_target_and_not_to_the_prediction():
    probabilities = torch.tensor([[0.6, 0.4]], dtype=torch.float64)
    squared = torch.tensor([[0.36 / 0.52, 0.16 / 0.52]], dtype=torch.float64)
    torch.testing.assert_close(sharpened(probabilities, 0.5), squared)
    exact, _ = divergence_loss(probabilities, squared.log(), temperature=0.5)
    assert exact.item() == pytest.approx(0, abs=1e-12)
    other, _ = divergence_loss(probabilities, probabilities.log(), temperature=0.5)
    assert other.item() > 0.01


def test_targets_have_no_gradient():
    for loss in (
        lambda g, z: pseudo_label_loss(g, z)[0],
        lambda g, z: divergence_loss(g, z, 0.4)[0],
        squared_difference,
    ):
        weak, strong = WEAK.clone().requires_grad_(), STRONG.clone().requires_grad_()
        loss(weak.softmax(1), strong).backward()
        assert weak.grad is None
        assert strong.grad.abs().sum() > 0


def test_sharpening_of_a_probability_of_0_is_finite():
    found = sharpened(torch.tensor([[1.0, 0.0]]), 0.4)
    assert found.tolist() == [[1.0, 0.0]]


def annealed(logits, labels, threshold):
    costs = [
        cross_entropy(row, k)
        for row, k in zip(logits.tolist(), labels.tolist(), strict=True)
        if softmax(row)[k] <= threshold
    ]
    return sum(costs) / max(1, len(costs))


LABELS = torch.tensor([0, 0, 1, 2, 1])  # the second is a confident mistake


@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.9, 1.0])
def test_training_signal_annealing_matches_the_paper(threshold):
    found = annealed_cross_entropy(WEAK, LABELS, threshold).item()
    assert found == pytest.approx(annealed(WEAK, LABELS, threshold), rel=1e-12)


def test_a_confident_mistake_is_not_masked_and_the_mean_is_over_images_used():
    wrong, known = WEAK[1:2], WEAK[0:1]
    both = annealed_cross_entropy(torch.cat([wrong, known]), torch.tensor([0, 0]), 0.5)
    assert both.item() == pytest.approx(cross_entropy([0, 7.0, 0], 0))
    assert annealed_cross_entropy(known, torch.tensor([0]), 0.5).item() == 0


def test_squared_difference_is_a_mean_over_images_and_classes():
    total = sum(
        (p - q) ** 2
        for w, s in zip(WEAK.tolist(), STRONG.tolist(), strict=True)
        for p, q in zip(softmax(w), softmax(s), strict=True)
    )
    found = squared_difference(WEAK.softmax(1), STRONG).item()
    assert found == pytest.approx(total / 15, rel=1e-12)


def test_alignment_moves_probabilities_to_the_wanted_shares():
    probabilities = torch.tensor([[0.5, 0.5], [0.8, 0.2]], dtype=torch.float64)
    seen, wanted = torch.tensor([0.8, 0.2]), torch.tensor([0.5, 0.5])
    first = [0.5 * 0.5 / 0.8, 0.5 * 0.5 / 0.2]
    second = [0.8 * 0.5 / 0.8, 0.2 * 0.5 / 0.2]
    expected = torch.tensor([first, second], dtype=torch.float64)
    found = aligned(probabilities, seen, wanted)
    torch.testing.assert_close(found, expected / expected.sum(1, keepdim=True), rtol=1e-6, atol=0)
    torch.testing.assert_close(aligned(probabilities, wanted, wanted), probabilities)


def test_softmatchs_weights_match_the_paper():
    confidence = torch.tensor([0.3, 0.6, 0.7, 0.9], dtype=torch.float64)
    mean, variance = torch.tensor(0.7).double(), torch.tensor(0.04).double()
    expected = [
        1.0 if c >= 0.7 else math.exp(-((c - 0.7) ** 2) / (2 * 0.04 / 2**2))
        for c in confidence.tolist()
    ]
    found = truncated_gaussian(confidence, mean, variance, 2.0)
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_softmatchs_weights_are_1_for_equal_confidences():
    confidence = torch.full((3,), 0.7)
    found = truncated_gaussian(confidence, torch.tensor(0.7), torch.tensor(0.0), 2.0)
    assert found.tolist() == [1, 1, 1]
