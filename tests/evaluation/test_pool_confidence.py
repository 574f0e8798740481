"""The expected accuracy on images without a label, from a calibrated model's confidence."""

import numpy as np
import pytest

from handful.evaluation.pool_confidence import FEWEST, expected_accuracy


def sample(shares, n=20_000, seed=0):
    """Probabilities of a calibrated model of two classes, trained on even shares, and labels.

    Its feature is a number: normal around -1 or 1. The images have other class shares.
    """
    generator = np.random.default_rng(seed)
    labels = (generator.random(n) < shares[1]).astype(int)
    x = generator.normal(2 * labels - 1.0)
    second = 1 / (1 + np.exp(-2 * x))
    return np.stack([1 - second, second], axis=1), labels


def test_confidence_is_the_accuracy_of_a_calibrated_model():
    probabilities, labels = sample((0.5, 0.5))
    found = expected_accuracy(probabilities, np.array([0.5, 0.5]))
    assert found == pytest.approx((probabilities.argmax(axis=1) == labels).mean(), abs=0.01)


def test_the_accuracy_for_other_class_shares_does_not_depend_on_those_of_the_images():
    even = np.array([0.5, 0.5])
    truth = expected_accuracy(sample((0.5, 0.5))[0], even, even)
    assert truth == pytest.approx(0.841, abs=0.01)  # of a normal number within one deviation
    assert expected_accuracy(sample((0.9, 0.1))[0], even, even) == pytest.approx(truth, abs=0.02)


def test_the_recall_of_a_class_counts_by_its_share():
    """Class 0 is always recognised, class 1 in half of its images."""
    probabilities = np.array([[1.0, 0.0]] * 400 + [[0.0, 1.0]] * 200 + [[0.5 + 1e-9, 0.5]] * 400)
    shares = np.array([0.5, 0.5])
    found = expected_accuracy(probabilities, shares, np.array([0.0, 1.0]))
    alone = expected_accuracy(probabilities, shares, np.array([1.0, 0.0]))
    assert found < 0.6 < 0.95 < alone


def test_few_images_and_missing_classes_give_no_figure():
    few = np.full((FEWEST - 1, 2), 0.5)
    assert expected_accuracy(few, np.array([0.5, 0.5])) is None
    one_class = np.tile([1.0, 0.0], (FEWEST, 1))
    shares = np.array([0.5, 0.5])
    assert expected_accuracy(one_class, shares, shares) is None
