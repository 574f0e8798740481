"""Past results: which rows count, and with which weight."""

import pytest

from handful.pipeline.auto.past_results import load_past_results, prior


def cell(source, per_class, channels, **accuracy):
    """Return past results of a data set at a number of labels: method → accuracy."""
    known = {"source": source, "per_class": per_class, "channels": channels, "mixed": False}
    return [known | {"method": method, "accuracy": found} for method, found in accuracy.items()]


def twice(per_class, channels, **accuracy):
    """Return equal past results of two data sets, a and b."""
    return [row for name in "ab" for row in cell(name, per_class, channels, **accuracy)]


def test_past_results_leave_out_the_data_set_at_hand_and_other_colours():
    known = [
        *twice(10, 1, features=0.5, supervised=0.8),
        *cell("c", 10, 1, features=0.5, supervised=0.5),
        *twice(10, 3, features=0.8, supervised=0.5),
    ]
    assert prior("supervised", "features", 1, 10, "", known).belief.mean == pytest.approx(0.6 / 4)
    assert prior("supervised", "features", 3, 10, "", known).belief.mean == pytest.approx(-0.2)
    assert prior("supervised", "features", 1, 10, "a", known).belief.mean == pytest.approx(0.1)


def test_one_data_set_is_too_few():
    known = cell("a", 10, 1, features=0.5, supervised=0.9)
    nothing = prior("supervised", "features", 1, 10, "", [])
    assert prior("supervised", "features", 1, 10, "", known) == nothing


def test_of_a_data_set_the_result_with_the_nearest_number_of_labels_counts():
    known = [
        *twice(1, 3, features=0.5, self_training=0.8),
        *twice(100, 3, features=0.9, self_training=0.75),
    ]
    means = [prior("self_training", "features", 3, n, "", known).belief.mean for n in (2, 10, 50)]
    assert means == pytest.approx([0.2, 0.05, -0.1])  # 10 lies between: both count


def test_methods_on_the_same_features_are_compared_whatever_the_colour():
    known = twice(10, 3, features=0.5, self_training=0.8, supervised=0.9)
    assert prior("self_training", "features", 1, 10, "", known).belief.mean == pytest.approx(0.2)
    assert prior("supervised", "features", 1, 10, "", known).belief.mean == 0


def test_past_results_with_other_kinds_of_unlabelled_images_do_not_count():
    rows = twice(10, 3, features=0.5, self_training=0.8, supervised=0.8)
    known = [row | {"mixed": True} for row in rows]
    means = {
        (method, mixed): prior(method, "features", 3, 10, "", known, mixed).belief.mean
        for method in ("self_training", "supervised")
        for mixed in (False, True)
    }
    assert means["self_training", False] == 0
    assert means["self_training", True] == pytest.approx(0.2)
    assert means["supervised", False] == means["supervised", True] == pytest.approx(0.2)


def test_photographs_are_not_taken_for_what_suits_a_network_from_nothing():
    found = prior("supervised", "features", 3, 10, "photos")
    assert found.belief.mean <= 0


def test_without_past_results_the_belief_is_wide_and_takes_no_side():
    found = prior("supervised", "features", 1, 10, "", [])
    assert found.sources == 0
    assert found.belief.mean == 0
    assert found.belief.sd == pytest.approx(0.5 * 2**0.5)
    alike = prior("self_training", "features", 1, 10, "", [])
    assert alike.belief.sd == pytest.approx(0.1 * 2**0.5)
    assert prior("fixmatch", "supervised", 1, 10, "", []).belief.sd == alike.belief.sd


def test_more_data_sets_that_agree_make_the_belief_narrower():
    def agreeing(k):
        return [row for i in range(k) for row in cell(str(i), 10, 1, features=0.6, supervised=0.65)]

    spreads = [prior("supervised", "features", 1, 10, "", agreeing(k)).belief.sd for k in (1, 3, 9)]
    assert spreads == sorted(spreads, reverse=True)


def test_the_past_results_in_the_package_are_valid():
    for row in load_past_results():
        assert row["channels"] in (1, 3)
        assert row["mixed"] == (row["source"] == "tin10")
        assert 0 < row["accuracy"] < 1
