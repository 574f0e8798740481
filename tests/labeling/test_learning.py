import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handful.evaluation.accuracy_estimate import Estimate
from handful.labeling import learning
from handful.labeling.opinions import opinion_of
from handful.methods.linear_head import Features
from handful.text import FEW, NOT_SHOWN, about_right
from labeling.pages import folder, opened
from soon import soon


def blobs(count: int, classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """(count, 16) float16 features around a centre for each class, and (count,) labels."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, 16)) * 3
    labels = np.arange(count) % classes
    return torch.from_numpy(centres[labels] + random.normal(size=(count, 16))).half(), labels


def test_the_head_is_that_of_the_method_features() -> None:
    x, labels = blobs(40)
    head = learning.fit_head(x, torch.from_numpy(labels), 3)
    other = Features().fit_features(x, torch.from_numpy(labels), x[:0], 3, 0)
    with torch.no_grad():
        expected = other(x.float()).softmax(dim=1)
    torch.testing.assert_close(head(x), expected, atol=1e-4, rtol=1e-3)


def test_the_head_for_many_labels_gives_the_same_answers() -> None:
    x, labels = blobs(learning.MANY + 60)
    new, truth = blobs(300, seed=1)
    head = learning.fit_head(x, torch.from_numpy(labels), 3, learning.map_of(x))
    assert (head(new).argmax(dim=1).numpy() == truth).mean() > 0.97


def test_the_first_images_chosen_are_of_different_kinds() -> None:
    x, labels = blobs(90)
    order = learning.choose(x, x[:0], None, learning.map_of(x), 3)
    assert len(set(labels[order])) == 3


def test_chosen_labels_train_but_do_not_count() -> None:
    x, labels = blobs(60)
    wrong = labels.copy()
    wrong[30:] = np.random.default_rng(0).permutation(wrong[30:])
    origins = ["random"] * 30 + ["chosen"] * 30
    found = learning.assess(x, wrong, origins, 3)
    assert found.estimate.n == 30
    shown = learning.as_json(found, origins, 0.9)
    assert shown["counted"] == 30 and shown["target"] == 0.9


def test_few_countable_labels_give_a_bound_and_no_figure() -> None:
    x, labels = blobs(60)
    few = ["random"] * (FEW - 1) + ["chosen"] * (61 - FEW)
    shown = learning.as_json(learning.assess(x, labels, few, 3), few, None)
    assert shown["few"] and shown["said"] == f"above about {100 * shown['low']:.0f} % right"
    enough = ["random"] * FEW + ["chosen"] * (60 - FEW)
    assert not learning.as_json(learning.assess(x, labels, enough, 3), enough, None)["few"]


def test_labels_that_mean_nothing_are_said_to_be_guessing_in_the_words_of_fit() -> None:
    x, labels = blobs(60)
    random = np.random.default_rng(0).permutation(labels)
    found = learning.assess(x, random, ["random"] * 60, 3)
    shown = learning.as_json(found, ["random"] * 60, None)
    assert shown["said"] == NOT_SHOWN == about_right(found.estimate.as_json("abc"))
    assert not shown["known"]


@pytest.mark.parametrize("count", [FEW - 1, FEW])
def test_without_a_figure_no_share_of_answers_is_promised(count: int) -> None:
    x, labels = blobs(60)
    origins = ["random"] * count + ["chosen"] * (60 - count)
    found = learning.assess(x, labels, origins, 3)
    assert found.answering(0.5, origins) is not None
    shown = learning.as_json(found, origins, 0.5)
    assert (shown["answers"] is not None) == shown["known"] == (count == FEW)


@pytest.mark.parametrize(
    "changes, known",
    [({}, True), ({"n": FEW - 1}, False), ({"guessing": True}, False), ({"accuracy": None}, False)],
)
def test_no_gain_is_added_to_a_figure_that_is_not_known(
    changes: dict[str, Any], known: bool
) -> None:
    figures = {"accuracy": 0.8, "low": 0.7, "high": 0.9, "n": 60} | changes
    of_page = Estimate(**figures, level=0.9, how="out of fold")
    shown = learning.as_json(learning.Assessed(of_page, None, (), 0.85), ["random"] * 60, None)
    assert shown["known"] == known
    assert shown["next_accuracy"] == (0.85 if known else None)


def test_the_precision_of_a_class_is_that_of_its_guesses_on_labels_not_seen() -> None:
    x, labels = blobs(60)
    given = labels.copy()
    given[(labels == 1) & (np.arange(60) < 15)] = 0  # 5 of 20: guesses of class 1 are wrong there
    found = learning.assess(x, given, ["random"] * 60, 3)
    shares = found.precision(("a", "b", "c"))
    assert shares["c"] == 1.0
    assert shares["b"] == pytest.approx(15 / 20, abs=0.1)


def test_contradicted_labels_are_found() -> None:
    x, labels = blobs(60)
    labels[7] = (labels[7] + 1) % 3
    assert learning.assess(x, labels, ["random"] * 60, 3).issues[0] == 7


def test_an_opinion_leaves_the_random_sample_out_of_the_order(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 30)) as page:
        session = page.session
        x, labels = blobs(30)
        numbers = session.shuffled[:4] + session.shuffled[-8:]
        items = [
            {"number": n, "kind": "label", "label": f"c{labels[n]}", "seen": "blind"}
            for n in numbers
        ]
        session.answer("1", items)
        row = np.arange(30, dtype=np.int32)
        found = opinion_of(session, x, row, list(range(30)), learning.map_of(x), 1.0, 1)
        assert found.sure and not set(found.order) & (session.sample | set(numbers))
        known = sorted({f"c{labels[n]}" for n in numbers})
        assert found.classes == tuple(known)
        right = [found.guess(n)[0] == f"c{labels[n]}" for n in found.order]  # type: ignore[index]
        assert np.mean(right) > 0.8


def test_the_labels_of_the_random_sample_steer_neither_choice_nor_suggestions(
    tmp_path: Path,
) -> None:
    orders = []
    for at, shift in enumerate((0, 1)):
        with opened(folder(tmp_path / str(at) / "photos", 60)) as page:
            session = page.session
            x, labels = blobs(60)
            numbers = session.shuffled[:6] + session.shuffled[-6:]
            items = [
                {
                    "number": n,
                    "kind": "label",
                    "label": f"c{(labels[n] + shift * (n in session.sample)) % 3}",
                    "seen": "blind",
                }
                for n in numbers
            ]
            session.answer("1", items)
            row = np.arange(60, dtype=np.int32)
            found = opinion_of(session, x, row, list(range(60)), learning.map_of(x), 1.0, 1)
            guesses = [found.guess(number) for number in session.shuffled]
            orders.append((found.order, guesses, found.probabilities))
    assert orders[0][:2] == orders[1][:2]
    assert not np.array_equal(orders[0][2], orders[1][2])  # pages are of all labels


def test_without_two_classes_there_is_an_order_and_no_guess(tmp_path: Path) -> None:
    with opened(folder(tmp_path / "photos", 30)) as page:
        x, _ = blobs(30)
        row = np.arange(30, dtype=np.int32)
        found = opinion_of(page.session, x, row, list(range(30)), learning.map_of(x), 1.0, 1)
        assert found.order and found.guess(found.order[0]) is None


@pytest.mark.thorough
def test_a_learner_makes_features_head_and_estimate(tmp_path: Path) -> None:

    with opened(folder(tmp_path / "photos", 40, side=32), learn=True) as page:
        numbers = page.session.shuffled[:16]
        items = [
            {"number": n, "kind": "label", "label": "ab"[at % 2], "seen": "blind"}
            for at, n in enumerate(numbers[:12])
        ]
        page.session.answer("1", items)
        page.learner.start()
        with soon(120):
            while page.learner.estimate is None:
                time.sleep(0.05)
        assert page.learner.problem == ""
        assert page.session.opinion is not None and page.session.opinion.sure
        assert page.learner.estimate is not None and page.learner.estimate["counted"] == 12
        assert len(page.learner.like(numbers[0], 5)) > 0
