"""The rules of `auto`: what labels and past results say of candidates."""

import numpy as np
import pytest

from handful.pipeline.auto.evidence import (
    Evidence,
    cannot_win,
    hopeless,
    paired_difference,
    select_by_evidence,
    selected,
)
from handful.pipeline.auto.past_results import Normal, Prior


def undecided(method, reference):
    return Prior(Normal(0.0, 0.1), 0)


def sure_of(mean, sd=0.05):
    """The same belief about every pair."""
    return lambda method, reference: Prior(Normal(mean, sd), 3)


def right(n, hits):
    """(n,) of which the first `hits` are predicted rightly."""
    return (np.arange(n) < hits).astype(float)


def test_a_paired_difference_at_forty_labels_spreads_by_about_six_points():
    rng = np.random.default_rng(0)
    a, b = (rng.random((2, 40)) < 0.8).astype(float)
    assert 0.05 < paired_difference(Evidence("a", a), Evidence("b", b)).sd < 0.13


def test_methods_that_agree_on_every_image_are_not_equal_with_certainty():
    found = paired_difference(*[Evidence("a", right(40, 30))] * 2)
    assert found.mean == 0
    assert 0 < found.sd < 0.05


def test_a_difference_on_images_of_few_scenes_is_as_uncertain_as_one_on_so_many_images():
    """Ten scenes of eight images each; in three of them one method has all images right."""
    a, b = right(10, 8), right(10, 5)
    of_scenes = paired_difference(Evidence("a", a), Evidence("b", b))
    a, b, scenes = (np.repeat(some, 8) for some in (a, b, np.arange(10)))
    alone = paired_difference(Evidence("a", a), Evidence("b", b))
    together = paired_difference(Evidence("a", a, scenes), Evidence("b", b, scenes))
    assert together.mean == alone.mean == pytest.approx(0.3)
    assert together.sd == pytest.approx(of_scenes.sd) and alone.sd < 0.4 * together.sd
    own = paired_difference(*(Evidence("a", some, np.arange(80)) for some in (a, b)))
    assert own.sd == pytest.approx(alone.sd)


def test_what_few_scenes_show_excludes_no_method():
    a, b, scenes = (np.repeat(some, 12) for some in (right(5, 4), right(5, 3), np.arange(5)))
    rivals = [Evidence("features", b), Evidence("supervised", a)]
    assert "20 points below" in select_by_evidence(rivals, sure_of(-0.2))[1][0]
    rivals = [one._replace(groups=scenes) for one in rivals]
    assert select_by_evidence(rivals, sure_of(-0.2))[0] == 0


def test_two_beliefs_are_weighted_by_their_precisions():
    found = Normal(0.1, 0.1).combined(Normal(0.0, 0.2))
    assert found.mean == pytest.approx(0.08)
    assert found.sd == pytest.approx(0.1 * 0.2 / 0.05**0.5)


def test_clear_evidence_beats_past_results():
    evidence = [Evidence("features", right(200, 100)), Evidence("supervised", right(200, 190))]
    best, verdicts = select_by_evidence(evidence, sure_of(-0.1, 0.1))
    assert best == 1
    assert verdicts == ["45 points below supervised on the same images", "chosen"]


def test_past_results_decide_where_labels_cannot_and_the_verdict_says_so():
    evidence = [Evidence("features", right(20, 11)), Evidence("supervised", right(20, 10))]
    best, verdicts = select_by_evidence(evidence, sure_of(0.15))
    assert best == 1
    assert verdicts == ["as good as supervised, within 18 points", "chosen"]


def test_no_past_results_outweigh_a_difference_that_was_seen():
    """Of 60 labels, features have 38 right; a network has 27."""
    evidence = [
        Evidence("features", right(60, 38)),
        Evidence("supervised", np.roll(right(60, 27), 16)),
    ]
    best, verdicts = select_by_evidence(evidence, sure_of(0.3))
    assert best == 0
    assert verdicts[1] == "18 points below features on the same images"


def test_a_difference_is_seen_beside_the_best_out_of_fold_whatever_is_taken_in_the_end():
    evidence = [
        Evidence("features", right(100, 40)),
        Evidence("mlp_head", right(100, 70)),
        Evidence("supervised", right(100, 69)),
    ]
    beliefs = {"mlp_head": Normal(0.0, 0.1), "supervised": Normal(0.5, 0.1)}
    best, verdicts = select_by_evidence(evidence, lambda method, _: Prior(beliefs[method], 3))
    assert best == 2
    assert verdicts[0].startswith("30 points below mlp_head")
    assert verdicts[1].startswith("as good as supervised")


def test_the_simpler_method_wins_a_draw():
    evidence = [Evidence("features", right(20, 10)), Evidence("supervised", right(20, 10))]
    assert select_by_evidence(evidence, undecided)[0] == 0


def test_unlabelled_images_are_left_where_they_do_harm_however_well_they_did_elsewhere():
    evidence = [Evidence("features", right(40, 35)), Evidence("self_training", right(40, 25))]
    best, verdicts = select_by_evidence(evidence, sure_of(0.9, 0.01))
    assert best == 0
    assert verdicts[1] == "25 points below features on the same images"


def test_unlabelled_images_are_used_only_with_evidence_or_past_results_on_their_side():
    slightly = [Evidence("features", right(40, 30)), Evidence("self_training", right(40, 31))]
    best, verdicts = select_by_evidence(slightly, undecided)
    assert best == 0
    assert verdicts[1].startswith("no sign that it is better than features")
    assert select_by_evidence(slightly, sure_of(0.05))[0] == 1
    clearly = [Evidence("features", right(40, 20)), Evidence("self_training", right(40, 38))]
    assert select_by_evidence(clearly, undecided)[0] == 1


def test_the_rule_without_verdicts_is_the_rule_with_them():
    rng = np.random.default_rng(0)
    names = ["features", "self_training", "supervised"]
    for _ in range(20):
        table = (rng.random((3, 30)) < rng.random((3, 1))).astype(float)
        evidence = [Evidence(name, row) for name, row in zip(names, table, strict=True)]
        assert selected(evidence, sure_of(0.1)) == select_by_evidence(evidence, sure_of(0.1))[0]


def test_a_candidate_that_never_gained_as_much_is_not_tried():
    seen = [Evidence("features", right(100, 70)), Evidence("supervised", right(100, 98))]
    assert "supervised is 28 points ahead" in cannot_win("self_training", seen, sure_of(0.05))
    assert cannot_win("self_training", seen, sure_of(0.05, 0.3)) == ""  # it gained more at times
    assert cannot_win("self_training", seen[:1], sure_of(-0.5)) == ""  # nothing is ahead
    assert cannot_win("features", [], undecided) == ""
    assert cannot_win("deep_propagation", seen, sure_of(-0.1)) == ""  # beside `supervised`


def test_a_training_is_given_up_only_where_it_is_far_behind():
    others = [Evidence("features", right(30, 28)), Evidence("self_training", right(30, 20))]
    assert "28 points" not in hopeless(Evidence("supervised", right(30, 20)), others, 1)
    assert hopeless(Evidence("supervised", right(30, 25)), others, 1) == ""
    why = hopeless(Evidence("supervised", right(30, 3)), others, 1)
    assert why == "is given up after one of its folds: 83 points below features there"
    assert "after 2 of its folds" in hopeless(Evidence("supervised", right(30, 3)), others, 2)


def test_a_network_of_a_package_is_compared_and_named_as_another_candidate():
    ours, better = right(100, 60), right(100, 85)
    evidence = [
        Evidence("features", ours),
        Evidence("features", better, network="vit"),
        Evidence("self_training", np.roll(better, 1), network="vit"),
    ]
    best, verdicts = select_by_evidence(evidence, sure_of(-0.01))
    assert best == 1
    assert verdicts[0] == "25 points below features with vit on the same images"
    # It is held against heads on features of the same network, not of ours.
    assert verdicts[2].startswith("no sign that it is better than features")


def test_past_results_say_nothing_of_the_network_of_a_package():
    ours, better = Evidence("features", right(100, 60)), Evidence("features", right(100, 61))
    assert select_by_evidence([ours, better._replace(network="vit")], refuse)[0] == 1
    seen = [Evidence("features", right(100, 80)), Evidence("supervised", right(100, 98))]
    assert "18 points ahead of features" in cannot_win("self_training", seen, sure_of(0.05))
    assert cannot_win("self_training", seen, sure_of(0.05), "vit") == ""


def refuse(method, reference):
    raise AssertionError(f"{method} and {reference} were looked up")


def rivals_and_ensemble(head, trained, both, members=("features", "supervised")):
    """Evidence of 100 images: so many of the first ones are right."""
    return [
        Evidence("features", right(100, head)),
        Evidence("supervised", right(100, trained)),
        Evidence("ensemble", right(100, both), members=members),
    ]


@pytest.mark.parametrize("head, trained", [(70, 70), (74, 70), (60, 80)])
def test_an_ensemble_takes_the_place_of_its_member(head, trained):
    evidence = rivals_and_ensemble(head, trained, 84)
    assert select_by_evidence(evidence, undecided)[0] == selected(evidence, undecided) == 2
    assert select_by_evidence(evidence, undecided)[1][2] == "chosen"


def test_an_ensemble_that_is_seen_worse_than_its_member_is_not_chosen():
    evidence = rivals_and_ensemble(80, 60, 70)
    best, verdicts = select_by_evidence(evidence, undecided)
    assert best == selected(evidence, undecided) == 0
    assert verdicts[2] == "10 points below features on the same images"


def test_an_ensemble_of_others_is_not_chosen():
    evidence = rivals_and_ensemble(80, 60, 82, members=("self_training", "supervised"))
    best, verdicts = select_by_evidence(evidence, undecided)
    assert best == selected(evidence, undecided) == 0
    assert verdicts[2] == "features is not in it, and was better alone than those that are"


def test_an_ensemble_excludes_none_of_its_members():
    evidence = rivals_and_ensemble(70, 70, 95, members=("self_training", "fine_tuning"))
    best, verdicts = select_by_evidence(evidence, undecided)
    assert best != 2 and verdicts[best] == "chosen"
