import json
import math
import time

import numpy as np
import pytest
import torch

from handful.evaluation.accuracy_estimate import (
    BY_HAND,
    DEPENDENCE,
    DEPENDENCE_ONCE,
    DRAWN_EVEN,
    EVEN,
    Selected,
    better_than_guessing,
    effective_n,
    estimate,
    learning_curve_correction,
    seen_out_of_fold,
    selection_optimism,
)
from handful.evaluation.calibration import (
    USUAL_TEMPERATURE,
    abstention,
    calibrated,
    fewest_labels,
    fit_temperature,
    temperature_of,
)
from handful.evaluation.cross_validation import (
    OutOfFold,
    Scheme,
    balanced_by_hand,
    out_of_fold,
    plan_fits,
)
from handful.evaluation.label_errors import label_issues
from handful.evaluation.metrics import accuracy_interval, wilson
from handful.methods.linear_head import Features

SMALL = Scheme(folds=5, repeats=2, halves=1)


def blobs(n=60, k=3, spread=1.0, seed=0):
    """Points around k corners, with random labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(k, size=n)
    return np.eye(k)[labels] * 2 + spread * generator.normal(size=(n, k)), labels


def nearest_mean(points, labels, k):
    """A nearest-mean classifier, as `out_of_fold` takes it."""

    def fit_and_predict(train, held, seed):
        assert not set(train) & set(held)
        scores = np.full((len(held), k), -1e3)
        for label in np.unique(labels[train]):
            centre = points[train[labels[train] == label]].mean(axis=0)
            scores[:, label] = -((points[held] - centre) ** 2).sum(axis=1)
        return calibrated(np.exp(np.maximum(scores, -50)), 1.0)

    return fit_and_predict


def given(labels, probabilities, halves=None, **changes):
    """OutOfFold with given predictions."""
    probabilities = np.asarray(probabilities, dtype=float)
    probabilities = probabilities if probabilities.ndim == 3 else probabilities[None]
    fields = dict(
        labels=np.asarray(labels),
        probabilities=probabilities,
        halves=np.empty((0, *probabilities.shape[1:])) if halves is None else halves[None],
        share=0.9,
        half_share=0.5,
        scheme=Scheme(repeats=len(probabilities), halves=0 if halves is None else 1),
        stratified=False,
    )
    return OutOfFold(**(fields | changes))


def guesses(of, k, confidence=0.9):
    """Probabilities (n, K) that predict class `of[i]` for image i."""
    rows = np.full((len(of), k), (1 - confidence) / (k - 1))
    rows[np.arange(len(of)), of] = confidence
    return rows


def test_every_image_is_held_out_once_in_each_round_and_never_trained_on_then():
    labels = np.random.default_rng(0).integers(4, size=53)
    held = {}
    for fit in plan_fits(labels, SMALL, seed=3):
        assert not set(fit.train) & set(fit.held)
        assert len(fit.train) + len(fit.held) == 53
        held.setdefault((fit.key.folds, fit.key.repeat), []).extend(fit.held)
    assert sorted(held) == [(2, 2), (5, 0), (5, 1)]
    assert all(sorted(positions) == list(range(53)) for positions in held.values())


def test_folds_are_stratified_where_classes_were_balanced_by_hand():
    labels = np.repeat(np.arange(4), 10)
    for fit in plan_fits(labels, Scheme(folds=5, repeats=1, halves=0)):
        assert np.bincount(labels[fit.held]).tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize(("per_class", "folds"), [(4, 4), (7, 7), (25, 10)])
def test_models_train_on_the_same_number_of_each_class_where_classes_are_balanced(per_class, folds):
    labels = np.repeat(np.arange(5), per_class)
    fits = plan_fits(labels)
    assert {fit.key.fold for fit in fits if fit.key.folds == 10} == set(range(folds))
    for fit in fits:
        counts = np.bincount(labels[fit.train])
        assert (counts == counts[0]).all()
        assert counts[0] == per_class - np.bincount(labels[fit.held]).max()


def test_groups_are_never_split():
    generator = np.random.default_rng(1)
    labels, groups = generator.integers(3, size=40), generator.integers(12, size=40)
    for stratified in (True, False):
        for fit in plan_fits(labels, SMALL, 0, groups, stratified):
            assert not set(groups[fit.train]) & set(groups[fit.held])


def test_another_seed_gives_other_folds_and_the_same_seed_the_same():
    labels = np.arange(30) % 3
    first, again, other = (plan_fits(labels, SMALL, seed) for seed in (1, 1, 2))
    assert all(
        (a.held == b.held).all() and a.seed == b.seed for a, b in zip(first, again, strict=True)
    )
    assert any((a.held != b.held).any() for a, b in zip(first, other, strict=True))


def test_even_counts_are_recognised_as_balanced_by_hand_and_random_ones_hardly_ever():
    assert balanced_by_hand(np.repeat(np.arange(10), 4))
    generator = np.random.default_rng(0)
    taken = [balanced_by_hand(generator.integers(10, size=100)) for _ in range(500)]
    assert np.mean(taken) < 0.03


def test_balance_is_judged_by_the_labels_of_one_origin():
    generator = np.random.default_rng(0)
    labels = np.concatenate([np.repeat(np.arange(10), 4), generator.integers(10, size=40)])
    origins = ["unknown"] * 40 + ["random"] * 10 + ["chosen"] * 30
    assert not balanced_by_hand(labels)
    assert balanced_by_hand(labels, origins)
    assert not balanced_by_hand(labels[::-1], origins)
    assert not balanced_by_hand(labels, ["unknown"] * 30 + ["random"] * 50)
    assert not balanced_by_hand(labels[:40], ["chosen"] * 40)
    out = out_of_fold(
        labels,
        10,
        lambda train, held, seed: np.eye(10)[labels[held]],
        SMALL,
        stratified=balanced_by_hand(labels, origins),
    )
    assert out.stratified
    assert BY_HAND in estimate(out, origins=origins).caveats


def test_even_counts_that_chance_brings_about_too_are_called_so():
    for labels, caveat in ((np.array([0, 0, 1, 1]), EVEN), (np.arange(40) % 10, BY_HAND)):
        out = given(labels, guesses(labels, 10), stratified=True)
        assert [x for x in estimate(out).caveats if x in (BY_HAND, EVEN)] == [caveat]


def test_killed_and_resumed_equals_straight_through():
    points, labels = blobs()
    fit_and_predict = nearest_mean(points, labels, 3)
    straight = out_of_fold(labels, 3, fit_and_predict, SMALL, seed=5)
    finished, count = {}, 0

    def killed(train, held, seed):
        nonlocal count
        count += 1
        if count == 8:
            raise KeyboardInterrupt
        return fit_and_predict(train, held, seed)

    with pytest.raises(KeyboardInterrupt):
        out_of_fold(labels, 3, killed, SMALL, seed=5, finished=finished)
    assert len(finished) == 7
    resumed = out_of_fold(labels, 3, killed, SMALL, seed=5, finished=finished)
    assert count == 8 + len(plan_fits(labels, SMALL)) - 7
    assert (resumed.probabilities == straight.probabilities).all()
    assert (resumed.halves == straight.halves).all()


def test_estimate_of_an_easy_problem_contains_its_accuracy_and_is_json():
    points, labels = blobs(n=200, spread=0.8)
    found = estimate(out_of_fold(labels, 3, nearest_mean(points, labels, 3)))
    more_points, more_labels = blobs(n=5000, spread=0.8, seed=1)
    everything = np.concatenate([points, more_points])
    with_more = nearest_mean(everything, np.concatenate([labels, more_labels]), 3)
    predicted = with_more(np.arange(200), np.arange(200, 5200), 0).argmax(axis=1)
    assert found.low < (predicted == more_labels).mean() < found.high
    assert found.low < found.accuracy < found.high
    assert [row.label for row in found.per_class] == [0, 1, 2]
    assert json.loads(json.dumps(found.as_json("abc"), allow_nan=False))["level"] == 0.9


def test_saved_estimates_keep_the_keys_of_older_runs():
    labels = np.arange(60) % 3
    saved = estimate(given(labels, guesses(labels, 3))).as_json("abc")
    assert saved["rough"] and "extrapolated" not in saved
    assert list(saved["abstentions"][0]) == ["sure", "threshold", "share", "accuracy", "held"]
    assert saved["abstentions"][0]["sure"] == 0.7


def test_wilson_of_whole_numbers_is_that_of_the_evaluation():
    for right, n in ((18, 20), (0, 7), (7, 7)):
        assert wilson(right / n, n, 0.9) == pytest.approx(accuracy_interval(right, n, 0.9))


def test_effective_n_by_hand():
    right = np.array([1, 1, 0, 0.0])
    even = np.full(4, 0.25)
    assert effective_n(right, even) == pytest.approx(4 * DEPENDENCE)
    assert effective_n(right, np.array([0.5, 0.5, 0, 0])) == pytest.approx(2 * DEPENDENCE)
    # Two groups, each right or wrong as a whole, are two images.
    assert effective_n(right, even, np.array([5, 5, 9, 9])) == pytest.approx(2 * DEPENDENCE)
    assert effective_n(right, even, np.arange(4)) == pytest.approx(4 * DEPENDENCE)
    # One wrong of four: 1 / 32 between groups, 3 / 64 between images; half a group that is wrong as
    # a whole adds 1 / 8 and 1 / 16.
    one_wrong = effective_n(np.array([1, 1, 1, 0.0]), even, np.array([5, 5, 9, 9]))
    assert one_wrong == pytest.approx(4 / ((1 / 32 + 1 / 8) / (3 / 64 + 1 / 16)) * DEPENDENCE)


def test_groups_that_are_all_right_are_no_more_images_than_groups():
    right, even, groups = np.ones(96), np.full(96, 1 / 96), np.arange(96) // 6
    assert effective_n(right, even, groups) == pytest.approx(16 * DEPENDENCE)
    assert effective_n(right, even) == pytest.approx(96 * DEPENDENCE)


def test_groups_whose_images_have_nothing_in_common_cost_little():
    right = (np.random.default_rng(0).random(300) < 0.7).astype(float)
    grouped = effective_n(right, np.full(300, 1 / 300), np.arange(300) // 3)
    assert 0.75 * 300 < grouped / DEPENDENCE <= 300


def test_no_share_of_right_predictions_is_above_one():
    for n in range(20, 60):
        labels = np.arange(n) % 2
        all_right = given(labels, guesses(labels, 2))
        found = seen_out_of_fold(all_right, None, 0.9)
        assert max(found["accuracy"], found["high"], estimate(all_right).out_of_fold) <= 1


def test_learning_curve_correction_by_hand():
    labels = np.zeros(10, int)
    whole = guesses([0] * 8 + [1] * 2, 2)
    half = guesses([0] * 6 + [1] * 4, 2)
    weights = np.full(10, 0.1)
    correction = 0.2 * math.log(1 / 0.9) / math.log(0.9 / 0.5)
    assert learning_curve_correction(given(labels, whole, half), weights) == pytest.approx(
        correction
    )
    # A loss counts as it is: where the curve is flat, chance shows as many losses as gains.
    assert learning_curve_correction(given(labels, half, whole), weights) == pytest.approx(
        -correction
    )
    assert learning_curve_correction(given(labels, whole), weights) == 0


def most_right(right):
    """The usual rule: the method with the most images right, of those at some positions."""
    return lambda some: int(right[:, some].mean(axis=1).argmax())


def test_selection_optimism_corrects_the_best_of_many_random_methods():
    right = np.random.default_rng(0).integers(2, size=(20, 100)).astype(float)
    ranked = right[np.argsort(-right.mean(axis=1), kind="stable")]
    weights = np.full(100, 0.01)
    left = ranked[0].mean() - selection_optimism(Selected(ranked, 0, most_right(ranked)), weights)
    assert ranked[0].mean() >= 0.6 and abs(left - 0.5) < 0.05


def test_selection_optimism_is_zero_without_others_or_with_a_clear_winner():
    good, bad = np.ones(50), np.zeros(50)
    weights = np.full(50, 0.02)
    for rows in ([good], [good, bad], [good, good]):
        both = np.stack(rows)
        assert selection_optimism(Selected(both, 0, most_right(both)), weights) == 0


def test_selection_optimism_repeats_the_rule_that_selected():
    right = np.random.default_rng(0).integers(2, size=(20, 100)).astype(float)
    weights = np.full(100, 0.01)
    assert selection_optimism(Selected(right, 3, lambda _: 3), weights) == 0


def test_the_rule_sees_only_images_that_count():
    right = np.random.default_rng(0).integers(2, size=(2, 40)).astype(float)
    weights = np.repeat([0.0, 0.05], 20)
    seen = []

    def rule(sample):
        seen.append(sample)
        return most_right(right)(sample)

    selection_optimism(Selected(right, 0, rule), weights, draws=5)
    assert all(sample.shape == (20,) for sample in seen)
    assert all(set(sample) <= set(range(20, 40)) for sample in seen)


def test_the_selection_is_repeated_on_scenes_and_scored_on_others():
    """Ten scenes of six images, right or wrong together: few methods look good by chance."""
    scenes = np.random.default_rng(1).integers(2, size=(20, 10)).astype(float)
    right, groups = np.repeat(scenes, 6, axis=1), np.repeat(np.arange(10), 6)
    weights = np.full(60, 1 / 60)
    best = int(right.mean(axis=1).argmax())
    chosen = Selected(right, best, most_right(right))
    alone, together = (selection_optimism(chosen, weights, some) for some in (None, groups))
    of_scenes = Selected(scenes, best, most_right(scenes))
    assert together == pytest.approx(selection_optimism(of_scenes, np.full(10, 0.1)))
    assert together > alone + 0.1


def test_the_estimate_is_the_mean_with_the_confidence_on_unlabelled_images():
    labels = np.arange(40) % 2
    out = given(labels, guesses(np.where(np.arange(40) < 8, 1 - labels, labels), 2))
    alone, both = estimate(out), estimate(out, confidence=0.9)
    assert both.accuracy == pytest.approx((alone.accuracy + 0.9) / 2)
    assert both.confidence == 0.9 and alone.confidence is None
    assert both.effective_n == alone.effective_n
    assert "90.0 %, the mean confidence" in both.how


def test_prior_reweights_the_classes():
    labels = np.array([0] * 20 + [1] * 5)
    out = given(labels, guesses([0] * 25, 2), share=1.0)  # right on class 0, wrong on class 1
    assert estimate(out).accuracy == pytest.approx(0.8)
    assert estimate(out, prior=[0.3, 0.7]).accuracy == pytest.approx(0.3)
    assert estimate(out).how.startswith(
        "80.0 % of 25 labels predicted right by models that had not seen them (out of fold: "
    )
    assert "weighted" not in estimate(out).how
    told = estimate(out, prior=[0.3, 0.7]).how
    assert told.startswith("80.0 % of 25") and "30.0 % with every class weighted" in told
    assert estimate(out).balanced_accuracy == pytest.approx(0.5)
    with pytest.raises(ValueError, match="prior gives a share to class 2"):
        estimate(given(labels, guesses([0] * 25, 3)), prior=[0.5, 0.4, 0.1])


def test_classes_balanced_by_hand_are_a_caveat_unless_a_prior_is_given():
    labels = np.repeat(np.arange(3), 10)
    out = given(labels, guesses(labels, 3), stratified=True)
    assert any("look balanced by hand" in caveat for caveat in estimate(out).caveats)
    with_prior = estimate(out, prior=[0.2, 0.3, 0.5], prior_how="as predicted")
    assert not any("balanced" in caveat for caveat in with_prior.caveats)
    assert with_prior.how.endswith("class shares as predicted")


@pytest.fixture(scope="module")
def known_features():
    """For 100 images of ten classes: the estimate, its seconds of processor time, its fits."""
    fits, method = [], Features()
    labels = np.random.default_rng(0).integers(10, size=100)
    x = torch.randn(100, 1280, generator=torch.Generator().manual_seed(0))
    x[torch.arange(100), labels] += 5
    begun = time.process_time()
    chosen = method.tuned(x, torch.from_numpy(labels), 10, 0)

    def fit_and_predict(train, held, seed):
        fits.append(seed)
        some = torch.from_numpy(labels[train])
        head = chosen.fit_features(x[train], some, x[:0], 10, seed)
        return head(x[held]).softmax(dim=1).detach().numpy()

    found = estimate(out_of_fold(labels, 10, fit_and_predict))
    return found, time.process_time() - begun, len(fits)


def test_a_whole_estimate_on_known_features_is_thirty_six_fits(known_features):
    found, _, fits = known_features
    assert found.accuracy > 0.2
    assert fits == 36


@pytest.mark.slow
def test_a_whole_estimate_on_known_features_of_100_images_takes_less_than_five_seconds(
    known_features,
):
    """Processor time for 36 fits and one choice of a setting."""
    assert known_features[1] < 5


def test_a_class_with_one_label_leaves_the_others_their_labels_when_it_is_held_out():
    labels = np.array([0, *range(1, 9), *range(1, 9), 9, 9, 9])  # of class 0 one, of 9 three
    assert balanced_by_hand(labels)
    (train,) = [fit.train for fit in plan_fits(labels, Scheme(5, 1, 0)) if 0 in fit.held]
    assert set(labels[train]) == set(range(1, 10))


def test_classes_with_few_labels_have_no_estimate_of_their_own():
    found = estimate(given([0] * 20 + [1] * 4, guesses([0] * 24, 2)))
    assert found.balanced_accuracy is None and found.balanced_low is None
    assert [row.label for row in found.per_class] == [0]


def test_chosen_labels_do_not_count_where_random_ones_are_known():
    labels = np.array([0, 1] * 20)
    wrong_on_chosen = np.where(np.arange(40) < 30, labels, 1 - labels)
    out = given(labels, guesses(wrong_on_chosen, 2), share=1.0)
    origins = ["random"] * 30 + ["chosen"] * 10
    assert estimate(out).accuracy == pytest.approx(0.75)
    found = estimate(out, origins=origins)
    assert found.accuracy == 1 and found.n == 30
    chosen = "10 labels are of images that were chosen, not drawn at random: they teach the model"
    assert any(caveat.startswith(chosen) for caveat in found.caveats)
    mixed = ["unknown"] * 20 + ["random"] * 10 + ["chosen"] * 10
    assert estimate(out, origins=mixed).n == 30
    none = estimate(out, origins=["chosen"] * 40)
    assert none.accuracy is None and "none picked at random" in none.how
    assert json.dumps(none.as_json("abc"), allow_nan=False)


def test_one_label_of_each_class_gives_no_estimate():
    found = estimate(given([0, 1, 2], guesses([1, 2, 0], 3)))
    assert found.accuracy is None and "label two or more of each class" in found.how


def test_few_fits_extrapolate_the_learning_curve_say_so_and_widen_the_interval():
    points, labels = blobs()
    found = estimate(out_of_fold(labels, 3, nearest_mean(points, labels, 3), Scheme(3, 1, 0)))
    assert found.extrapolated and found.out_of_fold is not None and found.out_of_fold < 1
    wrong = 1 - found.out_of_fold
    assert found.accuracy == pytest.approx(1 - wrong * math.sqrt(2 / 3), abs=1e-3)
    assert "the final model sees all labels, the test models only 67%" in found.how
    assert found.effective_n == pytest.approx(DEPENDENCE_ONCE * len(labels))
    thorough = estimate(out_of_fold(labels, 3, nearest_mean(points, labels, 3), SMALL))
    assert not thorough.extrapolated and "usual" not in thorough.how


def test_a_network_that_did_not_learn_its_labels_gains_little_from_more_of_them():
    labels = np.arange(60) % 3
    out = given(labels, guesses(np.where(np.arange(60) < 36, labels, (labels + 1) % 3), 3))
    whole, learned = estimate(out), (np.arange(60) < 45).astype(float)
    assert whole.out_of_fold == pytest.approx(0.6) and whole.extrapolated
    assert whole.learning_curve == pytest.approx(0.4 * (1 - math.sqrt(0.9)))
    assert estimate(out, learned=np.ones(60)) == whole
    short = estimate(out, learned=learned)
    assert short.learning_curve == pytest.approx(0.15 * (1 - math.sqrt(0.9)))
    assert "the saved model predicts 75.0 % of its own labels right" in short.how
    assert "of its own labels" not in whole.how


def test_a_saved_network_is_not_taken_to_be_better_on_new_images_than_on_its_own():
    labels = np.arange(60) % 3
    out = given(labels, guesses(np.where(np.arange(60) < 36, labels, (labels + 1) % 3), 3))
    worse = estimate(out, learned=(np.arange(60) < 24).astype(float))
    assert (worse.accuracy, worse.learning_curve) == (pytest.approx(0.4), 0)
    sure = estimate(out, learned=(np.arange(60) < 24).astype(float), confidence=0.9)
    assert sure.accuracy == pytest.approx(0.4)
    some = np.where(np.arange(60) < 30, np.nan, 1.0)  # only half of them were looked at
    assert estimate(out, learned=some).accuracy == estimate(out).accuracy
    assert estimate(out, learned=np.full(60, np.nan)) == estimate(out)
    origins = ["random"] * 40 + ["chosen"] * 20
    of_chosen = np.where(np.arange(60) < 40, np.nan, 0.0)
    assert estimate(out, origins=origins, learned=of_chosen) == estimate(out, origins=origins)


def noise(n, classes, seed, folds=2):
    """OutOfFold of labels that have nothing to do with the images, by five folds once."""
    generator = np.random.default_rng(seed)
    labels, said = generator.integers(classes, size=(2, n))
    changes = {"share": 1 - 1 / folds, "scheme": Scheme(folds, 1, 0)}
    return given(labels, guesses(said, classes, confidence=0.5), **changes)


def test_nothing_is_added_for_more_labels_where_the_labels_are_noise():
    found = [estimate(noise(120, 11, seed)) for seed in range(60)]
    lucky = [one for one in found if not one.guessing]
    assert len(lucky) <= 6
    for one in found:
        if one.guessing:
            assert one.learning_curve == 0 and one.accuracy == one.out_of_fold
            assert "no better than guessing" in one.how
            assert any(caveat.startswith("no better than guessing") for caveat in one.caveats)
            assert one.as_json([str(k) for k in range(11)])["guessing"] is True


def test_a_classifier_that_names_the_commonest_class_is_guessing_however_often_it_is_right():
    labels = np.where(np.arange(100) < 90, 0, 1)
    always = estimate(given(labels, guesses(np.zeros(100, int), 2)))
    assert always.guessing and always.out_of_fold == pytest.approx(0.9)
    assert "right for 90 % of images" in " ".join(always.caveats)
    assert not estimate(given(labels, guesses(labels, 2))).guessing
    # With a prior, the commonest class of new images is named.
    even = estimate(given(labels, guesses(np.zeros(100, int), 2)), prior=[0.5, 0.5])
    assert even.guessing and "right for 50 % of images" in " ".join(even.caveats)


def test_better_than_guessing_is_an_exact_binomial_test():
    # 0.5 ** 5 = 0.03 and 0.5 ** 4 = 0.06: five of five right at a chance of a half.
    assert better_than_guessing(1.0, 5, 0.5) and not better_than_guessing(1.0, 4, 0.5)
    assert not better_than_guessing(0.0, 1000, 0.0)


def test_renaming_the_classes_changes_nothing():
    points, labels = blobs()
    order = np.array([2, 0, 1])
    out = out_of_fold(labels, 3, nearest_mean(points, labels, 3), SMALL)
    renamed = given(
        np.argsort(order)[labels],
        out.probabilities[..., order],
        halves=out.halves[0][..., order],
        share=out.share,
    )
    a, b = estimate(out), estimate(renamed)
    assert (a.accuracy, a.low, a.high) == pytest.approx((b.accuracy, b.low, b.high))
    assert a.temperature == pytest.approx(b.temperature, rel=1e-3)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_temperature_is_found_again(true):
    generator = np.random.default_rng(0)
    logits = 2 * generator.normal(size=(4000, 5))
    sharp = calibrated(np.exp(logits), 1.0)
    labels = (generator.random((4000, 1)) < sharp.cumsum(axis=1)).argmax(axis=1)
    assert fit_temperature(calibrated(sharp, 1 / true)[None], labels) == pytest.approx(
        true, rel=0.1
    )


def test_few_labels_that_are_all_right_do_not_make_every_answer_certain():
    """The likelihood alone is highest at the lowest temperature that is allowed, 0.1."""
    found = {n: fit_temperature(guesses([0] * n, 3, 0.6)[None], np.zeros(n, int)) for n in (10, 40)}
    assert 0.2 < found[40] < found[10] < 0.65
    doubtful = calibrated(np.array([0.45, 0.35, 0.2]), found[10])
    assert doubtful.max() < 0.7


def test_the_temperature_of_no_labels_is_the_usual_one():
    counted = np.zeros((1, 5), bool)
    found = fit_temperature(guesses([0] * 5, 3)[None], np.zeros(5, int), counted)
    assert found == pytest.approx(USUAL_TEMPERATURE, rel=1e-3)


def test_models_that_saw_no_label_of_a_class_do_not_count_in_the_temperature():
    """Held out, the only label of a class is impossible: that says nothing of the saved model."""
    labels = np.append(np.arange(24) % 3, 3)

    def fit_and_predict(train, held, seed):
        rows = guesses(labels[held], 4, 0.8)
        rows[labels[held] == 3] = [0.7, 0.3 - 2e-4, 1e-4, 1e-4]
        return rows

    out = out_of_fold(labels, 4, fit_and_predict, SMALL)
    assert not out.class_seen[:, -1].any() and out.class_seen[:, :-1].all()
    others = fit_temperature(out.probabilities[:, :-1], labels[:-1])
    assert temperature_of(out) == pytest.approx(others)
    assert fit_temperature(out.probabilities, labels) > 1.5 * others
    assert estimate(out).temperature == pytest.approx(others)


def test_abstention_keeps_the_most_confident_answers_that_reach_the_target():
    confidence = np.linspace(0.99, 0.51, 400)
    right = (np.arange(400) < 200) & (np.arange(400) != 50)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    found = abstention(probabilities[None], np.where(right, 0, 1), target_accuracy=0.95)
    # With none wrong 0.95 ** 44.9 is a tenth, so the first of the thresholds answers 45 / 0.8
    # images; each of the others 1.25 times as many. Those with one wrong answer pass from 77
    # independent ones on: at 87.7 / 0.8, 109.6 / 0.8, 137 / 0.8 images; the next has 14 wrong ones.
    assert found.share == pytest.approx(math.ceil(44.89 * 1.25**5 / 0.8) / 400)
    assert found.threshold == pytest.approx(confidence[round(400 * found.share) - 1])
    assert found.accuracy == pytest.approx(1 - 1 / (400 * found.share))
    assert found.held == 0.9
    assert abstention(probabilities[None], np.ones(400, int), target_accuracy=0.95) is None


def test_too_few_labels_allow_no_threshold_however_right_they_are():
    for target in (0.7, 0.9, 0.95, 0.98):
        n = fewest_labels(target)
        few, enough = (
            abstention(guesses([0] * m, 2)[None], np.zeros(m, int), target) for m in (n - 1, n)
        )
        assert few is None and enough is not None and enough.share == 1
    assert fewest_labels(0.95) == 57 and fewest_labels(0.98) == 143


def test_at_most_one_label_set_in_ten_leads_to_answers_that_are_right_less_often_than_promised():
    generator = np.random.default_rng(0)
    missed = found = 0
    for _ in range(300):
        confidence = generator.uniform(0.5, 1, 150)  # right with this probability
        labels = (generator.random(150) > confidence).astype(int)
        threshold = abstention(
            np.stack([confidence, 1 - confidence], axis=1)[None], labels, 0.85, independence=1.0
        )
        if threshold is not None:
            found += 1
            missed += (threshold.threshold + 1) / 2 < 0.85
    assert found > 100 and missed <= 30


def test_repeats_groups_and_a_prior_count_for_a_threshold():
    confidence = np.linspace(0.99, 0.6, 100)
    rows = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.zeros(100, int)
    once, thrice = (abstention(np.stack([rows] * r), labels, 0.9) for r in (1, 3))
    assert thrice == pytest.approx(once)
    assert abstention(np.stack([rows] * 3), labels, 0.98) is None  # three times the same answers
    # Half the independence needs twice the answers, and so do images half of which hardly count.
    assert abstention(rows[None], labels, 0.95, independence=0.4) is None
    uneven = np.where(np.arange(100) % 2, 1.0, 1e-9)
    assert abstention(rows[None], labels, 0.95, weights=uneven) is None
    assert abstention(rows[None], labels, 0.95) is not None


def test_flipped_labels_are_listed_the_worst_first():
    labels = np.arange(60) % 3
    rows = guesses(labels, 3, confidence=0.95)
    assert label_issues(given(labels, rows)) == []
    flipped = labels.copy()
    flipped[[4, 17]] = (flipped[[4, 17]] + 1) % 3
    rows[17] = guesses([labels[17]], 3, confidence=0.99)
    issues = label_issues(given(flipped, rows))
    assert [issue.position for issue in issues] == [17, 4]
    assert [issue.label for issue in issues] == flipped[[17, 4]].tolist()
    assert [issue.guess for issue in issues] == labels[[17, 4]].tolist()


def test_no_label_is_doubted_where_most_of_a_list_would_be_right():
    labels = np.arange(60) % 3
    flipped = labels.copy()
    flipped[[4, 17]] = (flipped[[4, 17]] + 1) % 3
    rows = guesses(labels, 3, confidence=0.95)
    assert len(label_issues(given(flipped, rows))) == 2
    assert label_issues(given(flipped[:29], rows[:29])) is None  # fewer than ten of each class
    wrong = guesses((labels + (np.arange(60) < 20)) % 3, 3, confidence=0.95)
    assert label_issues(given(labels, wrong)) is None  # two thirds are right


def test_weak_contradictions_are_not_listed():
    labels = np.arange(60) % 3
    out = given(labels, guesses((labels + (np.arange(60) < 12)) % 3, 3, confidence=0.6))
    assert label_issues(out) == []
    assert [issue.position for issue in label_issues(out, times=1.5)] == list(range(12))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Scheme(folds=1), "needs folds >= 2"),
        (lambda: plan_fits(np.array([0])), "of one group, .* two.*none .in Python estimate="),
        (lambda: estimate(given([0, 0], guesses([0, 0], 2)), level=90), "level is a probability"),
        (lambda: estimate(given([0, 0], guesses([0, 0], 2)), origins=["mine"] * 2), "'random'"),
        (lambda: estimate(given([0, 0], guesses([0, 0], 2)), prior=[1, 1]), "adding up to 1"),
        (lambda: abstention(np.ones((1, 2, 2)), np.zeros(2), target_accuracy=95), "try 0.95"),
        (
            lambda: out_of_fold(np.arange(2), 2, lambda train, held, seed: np.ones((1, 3))),
            r"must give probabilities \(1, 2\)",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_no_threshold_lies_within_answers_of_the_same_confidence():
    sure = np.tile([[1.0, 0.0]], (130, 1))
    labels = np.repeat([0, 1], [60, 70])
    assert abstention(sure[None], labels, 0.95) is None
    right = abstention(sure[None, :60], labels[:60], 0.95)
    assert right is not None and right.share == 1.0


def test_a_gain_removes_half_of_the_mistakes_at_most():
    """A slope of few groups is steep by chance, and would put 98 % at 100 %."""
    labels = np.array([0, 1] * 25)
    guessed = labels.copy()
    guessed[0] = 1  # 49 of 50 right, and half of the labels teach nothing
    out = given(labels, guesses(guessed, 2), halves=guesses(1 - labels, 2), share=0.8)
    assert learning_curve_correction(out, np.full(50, 1 / 50)) > 0.2
    assert estimate(out).accuracy == pytest.approx(0.99)


def test_labels_that_handful_chose_are_not_balanced_by_hand():
    labels = np.arange(40) % 10
    out = given(labels, guesses(labels, 10), stratified=True)
    page = ["random"] * 20 + ["chosen"] * 20
    assert BY_HAND in estimate(out).caveats
    told = estimate(out, origins=page).caveats
    assert DRAWN_EVEN in told and not {BY_HAND, EVEN} & set(told)


@pytest.mark.parametrize(
    ("single", "origins", "told"),
    [
        ([], None, None),
        ([2], None, "class fox has a single label, which counts as wrong: label more of it"),
        (
            [2, 3],
            None,
            "classes fox, hare have a single label each, which counts as wrong: label more of them",
        ),
        ([2], [*["random"] * 8, "chosen"], None),  # it counts neither as right nor as wrong
    ],
)
def test_a_class_with_a_single_label_is_named_with_what_follows(single, origins, told):
    labels = np.array([0, 1] * 4 + single)
    found = estimate(given(labels, guesses(labels, 4)), origins=origins)
    caveats = found.as_json(["cat", "dog", "fox", "hare"])["caveats"]
    assert [one for one in caveats if "single label" in one] == ([] if told is None else [told])
    if told is not None:
        assert caveats[0] == told
