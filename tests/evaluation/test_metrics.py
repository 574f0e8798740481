import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from handful.evaluation.metrics import (
    accuracy_interval,
    calibration_error,
    equal_groups,
    evaluate,
    reliability_bins,
)
from handful.evaluation.plots import plot_confusion


def random_case(n=300, k=4, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(k, size=n)
    logits = generator.normal(size=(n, k)) + 1.5 * np.eye(k)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities, labels, tuple(f"class {i}" for i in range(k))


def slow_calibration_error(confidence, right, bins):
    error = 0.0
    for index in range(bins):
        low, high = index / bins, (index + 1) / bins
        inside = [i for i, c in enumerate(confidence) if low < c <= high]
        if inside:
            gap = np.mean([confidence[i] for i in inside]) - np.mean([right[i] for i in inside])
            error += len(inside) / len(confidence) * abs(gap)
    return error


def test_wilson_interval_of_18_right_of_20():
    low, high = accuracy_interval(18, 20, level=0.95)
    assert (low, high) == pytest.approx((0.699, 0.972), abs=5e-4)


def test_interval_stays_within_0_and_1_and_contains_the_share():
    for n in (1, 3, 50):
        for correct in range(n + 1):
            low, high = accuracy_interval(correct, n)
            assert 0 <= low <= correct / n + 1e-12 and correct / n - 1e-12 <= high <= 1


def test_scores_match_scikit_learn():
    probabilities, labels, classes = random_case()
    found = evaluate(probabilities, labels, classes)
    guesses = probabilities.argmax(axis=1)
    assert found.accuracy == np.mean(guesses == labels)
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, guesses))
    assert found.macro_f1 == pytest.approx(f1_score(labels, guesses, average="macro"))
    assert found.confusion.sum() == found.n == 300
    assert np.trace(found.confusion) == (guesses == labels).sum()
    assert found.confusion[1, 2] == ((labels == 1) & (guesses == 2)).sum()


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_matches_a_slow_reference(bins):
    generator = np.random.default_rng(1)
    confidence = np.append(generator.uniform(0.01, 1, size=200), [1.0, 0.2, 0.6])
    right = generator.random(203) < confidence**2
    found = calibration_error(reliability_bins(confidence, right, bins))
    assert found == pytest.approx(slow_calibration_error(confidence, right, bins), abs=1e-12)


def test_groups_of_equal_size_split_what_one_bin_would_hold():
    confidence = np.concatenate([np.linspace(0.4, 0.5, 10), np.linspace(0.9, 1.0, 90)])
    right = np.arange(100) >= 8
    groups = equal_groups(confidence, right)
    assert [group.n for group in groups] == [20] * 5
    assert groups[0].accuracy == pytest.approx(0.6) and groups[-1].accuracy == 1
    assert groups[0].low == 0.4 and groups[-1].high == 1.0
    assert sum(g.n * g.confidence for g in groups) == pytest.approx(confidence.sum())


@pytest.mark.parametrize(
    "n, sizes", [(0, []), (3, [3]), (16, [5, 5, 6]), (24, [6] * 4), (3000, [200] * 15)]
)
def test_the_number_of_groups_follows_the_number_of_images(n, sizes):
    groups = equal_groups(np.linspace(0, 1, n), np.ones(n, bool))
    assert [group.n for group in groups] == sizes


def test_equal_confidences_are_one_group_whatever_their_order():
    confidence = np.append(np.full(80, 1.0), np.linspace(0.5, 0.6, 20))
    right = np.append(np.arange(80) < 40, np.ones(20, bool))
    groups = equal_groups(confidence, right)
    assert [(group.n, group.accuracy) for group in groups] == [(20, 1.0), (80, 0.5)]


def test_calibration_error_by_hand():
    # Two bins hold images: confidence 0.95 and half right, confidence 0.55 and all right.
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.55, 0.45], [0.55, 0.45]])
    found = evaluate(probabilities, np.array([0, 1, 0, 0]), ("a", "b"))
    assert found.calibration_error == pytest.approx(0.5 * 0.45 + 0.5 * 0.45)


def test_class_without_images_counts_for_no_mean_and_is_none_in_json():
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1]])
    found = evaluate(probabilities, np.array([0, 1, 1]), ("a", "b", "c"))
    assert found.balanced_accuracy == pytest.approx((1 + 0.5) / 2)
    absent = json.loads(json.dumps(found.as_json(), allow_nan=False))["per_class"][2]
    assert absent["n"] == 0 and absent["recall"] is None and absent["precision"] is None


def test_relabelling_the_classes_changes_no_score():
    probabilities, labels, classes = random_case()
    order = np.array([2, 0, 3, 1])
    moved = evaluate(probabilities[:, order], np.argsort(order)[labels], classes)
    found = evaluate(probabilities, labels, classes)
    assert moved.accuracy == found.accuracy
    assert moved.macro_f1 == pytest.approx(found.macro_f1)
    assert (moved.confusion == found.confusion[np.ix_(order, order)]).all()


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.ones((2, 2)) / 2, [0, -1], "leave images of unknown label out"),
        (np.ones((2, 3)) / 3, [0, 1], r"got \(2, 3\) for \(2,\) labels and 2 classes"),
        (np.ones((2, 2)), [0, 1], "add up to 1"),
        (np.ones((0, 2)), [], "no labelled image"),
    ],
)
def test_bad_input_is_named(probabilities, labels, message):
    with pytest.raises(ValueError, match=message):
        evaluate(probabilities, labels, ("a", "b"))


@pytest.mark.thorough
@pytest.mark.parametrize("k", [2, 100])
def test_confusion_is_drawn_as_svg_with_every_name(tmp_path, k):
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(k), 3)
    probabilities = generator.dirichlet(np.ones(k), size=len(labels))
    names = ("costs $5 & <more>", "犬", *(f"name {i}" for i in range(2, k)))
    plot_confusion(evaluate(probabilities, labels, names), tmp_path / "confusion.svg")
    text = (tmp_path / "confusion.svg").read_text(encoding="utf-8")
    words = [element.text for element in ElementTree.fromstring(text).iter() if element.text]
    assert all(words.count(name) == 2 for name in names)
