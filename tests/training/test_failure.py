"""A failed training is detected, reported and reverted, without any test label."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

import handful
from handful.files import read_tensors
from handful.methods.base import Step, advice_of
from handful.methods.fixmatch import FixMatch
from handful.methods.schedule import Schedule, ScheduleProgress
from handful.methods.supervised import Supervised
from handful.models.classifier import BackboneSpec
from handful.pipeline.cross_validate import FOLDS
from handful.pipeline.recipes.as_run import NormalizedTwice
from handful.progress import Reporter
from handful.training.failure import Collapse, FailureDetector
from handful.training.loop import Diverged
from handful.training.plan import Plan
from handful.training.settings import Settings
from handful.training.trainer import train_task
from tiny import SCHEDULE, stripes, task

PLAN = Plan("fp32", 1, 0.01)
SETTINGS = Settings(FixMatch(), SCHEDULE, BackboneSpec("small", {"base": 8}), precision="fp32")


def line(step, kept=0.5, swallowed=0.0, accuracy=1.0, **more):
    figures = {"kept": kept, "swallowed": swallowed, "train_loss": 0.1}
    return {"step": step, "train_accuracy": accuracy, "pseudo_0": 0.03, "pseudo_1": 0.97} | (
        figures | more
    )


def without(line, key):
    return {k: v for k, v in line.items() if k != key}


START = {"step": 0, "train_loss": 0.7, "train_accuracy": 0.5}


DETECTOR = FailureDetector(ScheduleProgress(100), chance=0.5, classes=("cat", "dog"))


def test_class_collapse_is_reported_with_the_class_and_the_step():
    history = [START, line(30), line(40, swallowed=0.95, accuracy=0.6)]
    assert DETECTOR.failure(history).startswith(
        "class collapse (dog, 97%) at step 40 of 100; try --set align=true"
    )
    assert DETECTOR.failure(history[:2]) is None
    assert DETECTOR.failure([START, line(30), line(40, swallowed=0.85, accuracy=0.6)]) is None
    nameless = replace(DETECTOR, classes=())
    assert "(number 1, 97%) at step 40" in nameless.failure(history)
    many = [{k: v for k, v in one.items() if not k.startswith("pseudo_")} for one in history]
    assert "class collapse at step 40" in DETECTOR.failure(many)


def test_a_network_that_never_learned_the_labels_collapses_too():
    history = [START, line(50, swallowed=0.95, accuracy=0.5)]
    assert DETECTOR.failure(history) is None  # the labels may still be learned
    history.append(line(60, swallowed=0.95, accuracy=0.5))
    assert "class collapse" in DETECTOR.failure(history)
    assert replace(DETECTOR, chance=0.0).failure(history) is None


def test_one_class_for_nearly_all_is_a_remark_while_the_labels_are_recognised():
    history = [START, line(30), *(line(s, swallowed=0.95, accuracy=0.8) for s in (40, 50))]
    assert DETECTOR.failure(history) is None
    assert not DETECTOR.should_stop(history)
    assert DETECTOR.remark(history) == (
        "nearly all pseudo-labels are of one class (dog, 97%) at step 50 of 100, a far larger "
        "share than among the labels. This is right if most unlabelled images are of this class; "
        "otherwise it is class collapse: check some predictions, and try --set align=true if the "
        "method has it"
    )
    assert DETECTOR.remark(history[:2]) is None
    assert DETECTOR.remark([line(20, swallowed=0.95)]) is None
    few_used = line(50, swallowed=0.95, kept=0.09)
    assert DETECTOR.remark([*history[:2], few_used]) is None


def test_nothing_is_tested_in_the_first_fifth_of_the_steps():
    lost, history = {"swallowed": 1.0, "accuracy": 0.6}, [START, line(5)]
    assert DETECTOR.failure([*history, line(20, **lost)]) is None
    assert not DETECTOR.should_stop([*history, line(10, **lost), line(20, **lost)])
    assert not DETECTOR.should_stop([*history, line(20, **lost), line(30, **lost)])
    assert DETECTOR.should_stop([*history, line(30, **lost), line(40, **lost)])


def test_two_evaluations_with_collapse_in_a_row_stop_a_training_and_one_does_not():
    once = [START, line(30), line(40, swallowed=0.95, accuracy=0.6)]
    assert not DETECTOR.should_stop([])
    assert not DETECTOR.should_stop(once)
    assert DETECTOR.should_stop([*once, line(50, swallowed=0.95, accuracy=0.6)])
    assert not DETECTOR.should_stop([*once, line(50, swallowed=0.2, accuracy=0.6)])


def test_pseudo_labels_that_are_no_longer_used_are_a_failure_after_a_while():
    early = [START, line(10), line(20), line(30)]
    late = [line(step, kept=0.001) for step in (40, 50, 60)]
    assert DETECTOR.failure([*early, *late[:2]]) is None
    assert "no longer used at step 60 of 100" in DETECTOR.failure([*early, *late])
    assert DETECTOR.remark([*early, *late]) is None


def test_pseudo_labels_that_were_never_used_are_a_remark():
    history = [START, *(line(step, kept=0.001) for step in range(10, 101, 10))]
    assert DETECTOR.failure(history) is None
    assert "learned from the labels alone" in DETECTOR.remark(history)
    assert DETECTOR.best_checkpoint(history) == 100


def test_the_best_checkpoint_is_the_latest_with_the_highest_training_accuracy():
    history = [START, line(10, accuracy=0.9), line(30), line(40), line(50, accuracy=0.8)]
    assert DETECTOR.best_checkpoint(history) == 40
    history.append(line(60, swallowed=0.99, accuracy=0.6))
    assert DETECTOR.best_checkpoint(history) == 40
    assert DETECTOR.best_checkpoint([START]) is None
    assert DETECTOR.best_checkpoint([START, without(line(10), "train_loss")]) is None


def test_a_checkpoint_half_way_to_collapse_is_restored_only_if_there_is_no_other():
    history = [START, line(10), line(30), line(40, swallowed=0.6)]
    assert DETECTOR.best_checkpoint(history) == 30
    assert DETECTOR.best_checkpoint([START, line(30, accuracy=0.9), line(40, swallowed=0.6)]) == 40
    assert DETECTOR.best_checkpoint([START, line(40, swallowed=0.6)]) == 40


def test_an_accuracy_at_the_share_of_the_commonest_label_is_nothing_learned():
    last = {"step": 100, "train_loss": 0.7, "train_accuracy": 0.5}
    assert DETECTOR.nothing_learned([last]) == (
        "nothing was learned from the labels at step 100 of 100: 50% of the labelled images are "
        "right, and 50% have the commonest label; try a lower learning rate or more steps"
    )
    assert DETECTOR.nothing_learned([last | {"train_accuracy": 0.51}]) is None
    for one_class_or_no_label in (1.0, 0.0):
        right = last | {"train_accuracy": one_class_or_no_label}
        detector = FailureDetector(ScheduleProgress(100), chance=one_class_or_no_label)
        assert detector.nothing_learned([right]) is None


def test_a_collapse_says_that_weights_at_chance_are_of_no_use():
    kept = Collapse(9, "it broke", 6)
    assert kept.text == "it broke; the averaged weights of step 6 are kept"
    known = f"{kept.text}, with 6% of the labelled images right"
    assert replace(kept, right=0.06, chance=0.05).text == known
    no_use = ", no more than the 10% that have the commonest label: no use"
    assert replace(kept, right=0.06, chance=0.1).text == known + no_use
    one_class = replace(kept, right=1.0, chance=1.0).text
    assert one_class == f"{kept.text}, with 100% of the labelled images right"


def test_methods_without_pseudo_labels_have_no_failure_of_them():
    plain = [START, *({"step": s, "train_loss": 0.1, "train_accuracy": 1.0} for s in (50, 100))]
    assert DETECTOR.failure(plain) is None
    assert DETECTOR.remark(plain) is None
    assert DETECTOR.best_checkpoint(plain) == 100


@dataclass(frozen=True)
class Collapsing(FixMatch):
    """FixMatch whose head predicts one class from step `since` on, and whose logs show it."""

    since: int = 5

    name: ClassVar[str] = "collapsing"

    def loss(self, model, batch):
        if batch.step >= self.since:
            with torch.no_grad():
                for head in (model.head, batch.averaged.head):
                    head.weight.zero_()
                    head.bias.copy_(torch.eye(len(head.bias))[0])
        step = super().loss(model, batch)
        taken = torch.tensor(1.0 if batch.step >= self.since else 0.0)
        return Step(step.loss, step.logs | {"swallowed": taken, "kept": torch.tensor(1.0)})


SIX = replace(SCHEDULE, looks=6)


def averaged_after(steps, method=FixMatch(), schedule=SIX):  # noqa: B008
    """Averaged weights of a training with these settings, stopped by an error after `steps`."""
    seen = {}

    @dataclass(frozen=True)
    class Stopping(type(method)):
        def loss(self, model, batch):
            if batch.step == steps:
                seen.update({k: v.clone() for k, v in batch.averaged.state_dict().items()})
                raise KeyboardInterrupt
            return super().loss(model, batch)

    with pytest.raises(KeyboardInterrupt):
        stopping = replace(SETTINGS, method=Stopping(**vars(method)), schedule=schedule)
        train_task(stopping, task(), 0, planned=PLAN)
    return seen


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a) and a.keys() == b.keys()


def test_class_collapse_stops_a_training_and_restores_the_best_checkpoint():
    said = []
    settings = replace(SETTINGS, method=Collapsing(since=6), schedule=SIX)
    result = train_task(settings, task(), 0, planned=PLAN, say=said.append)
    assert result.steps == 10  # the evaluations at 8 and 10 show it
    assert result.collapse.step == 10
    kept = result.collapse.kept
    accuracies = {one["step"]: one["train_accuracy"] for one in result.history if one["step"]}
    best = max(accuracies[step] for step in (2, 4, 6))
    assert kept == max(step for step in (2, 4, 6) if accuracies[step] == best)
    assert same(averaged_after(kept), result.predictor.model.state_dict())
    assert "at step 10 of 12" in said[-1] and f"step {kept} are kept" in said[-1]
    assert said[0].startswith("step 2 of 12: loss ")


def test_class_collapse_before_any_checkpoint_is_detected():
    settings = replace(SETTINGS, method=Collapsing(since=0), schedule=replace(SIX, looks=1))
    result = train_task(settings, task(), 0, planned=PLAN)
    assert result.steps == result.collapse.step == result.collapse.kept == 12
    assert result.collapse.text.endswith("that have the commonest label: no use")
    assert "class collapse (" in result.collapse.reason


def unbalanced():
    """Ten labelled images of each of two classes, and 490 and 6 unlabelled ones."""
    rows = np.concatenate([np.arange(0, 1000, 2), np.arange(1, 33, 2)])
    images = stripes(1000, labeled=1000)[rows]
    first = [np.flatnonzero(images.labels == k)[:10] for k in (0, 1)]
    return images.seen(np.concatenate(first))


@pytest.mark.thorough
def test_pseudo_labels_as_unbalanced_as_the_images_are_no_collapse():
    said = []
    schedule = replace(SCHEDULE, steps=100, looks=10)
    images = unbalanced()
    settings = replace(SETTINGS, method=FixMatch(threshold=0.0), schedule=schedule)
    result = train_task(settings, task(images), 0, planned=PLAN, say=said.append)
    assert result.history[-1]["swallowed"] > 0.9
    assert result.steps == 100
    assert result.collapse is None
    assert result.remark.startswith("nearly all pseudo-labels are of one class (a, 9")
    assert said[-1] == result.remark


@pytest.mark.thorough
def test_a_training_that_really_collapses_is_stopped():
    """Unlabelled images outweigh the labels, and every pseudo-label is used from the start."""
    images = stripes(400, classes=4, labeled=8)
    method = FixMatch(threshold=0.0, unlabeled_weight=20.0)
    schedule = replace(SCHEDULE, steps=120, looks=12, lr=0.2)
    settings = replace(SETTINGS, method=method, schedule=schedule)
    result = train_task(settings, task(images), 0, planned=PLAN)
    assert result.history[-1]["swallowed"] > 0.9
    assert result.history[-1]["prior_distance"] == pytest.approx(0.75, abs=0.05)
    assert result.steps == result.collapse.step == 80  # the evaluations at 70 and 80 show it
    assert "class collapse (" in result.collapse.reason


@dataclass(frozen=True)
class Doubting(FixMatch):
    """FixMatch in which no pseudo-label is confident enough from step `since` on."""

    since: int = 4

    name: ClassVar[str] = "doubting"

    def loss(self, model, batch):
        step = super().loss(model, batch)
        used = torch.tensor(float(batch.step < self.since))
        return step._replace(logs=step.logs | {"kept": used, "swallowed": torch.tensor(0.0)})


@pytest.mark.thorough
def test_pseudo_labels_that_are_no_longer_used_restore_the_best_checkpoint():
    said = []
    result = train_task(replace(SETTINGS, method=Doubting(), schedule=SIX), task(), 0, planned=PLAN)
    assert result.collapse.step == 12
    assert "the unlabelled images are no longer used at step 12 of 12" in result.collapse.reason
    kept = result.collapse.kept
    assert 0 < kept < 12
    assert same(averaged_after(kept), result.predictor.model.state_dict())
    never = replace(SETTINGS, method=Doubting(since=0), schedule=SIX)
    result = train_task(never, task(), 0, planned=PLAN, say=said.append)
    assert result.collapse is None
    assert said[-1].startswith(
        "hardly any pseudo-label was confident enough to be used in 12 steps, "
    )
    assert result.remark == said[-1]


def test_class_collapse_at_the_last_evaluation_is_detected():
    settings = replace(SETTINGS, method=Collapsing(since=10), schedule=SIX)
    result = train_task(settings, task(), 0, planned=PLAN)
    assert result.steps == 12
    assert result.collapse.kept < 12


@dataclass(frozen=True)
class Stuck(Supervised):
    """Supervised, with a head that is reset at every step from `since` on."""

    since: int = 0

    name: ClassVar[str] = "stuck"

    def loss(self, model, batch):
        if batch.step >= self.since:
            with torch.no_grad():
                for parameter in (*model.head.parameters(), *batch.averaged.head.parameters()):
                    parameter.zero_()
        step = super().loss(model, batch)
        return step._replace(loss=step.loss * float(batch.step < self.since))


STILL = replace(SIX, momentum=0.0)  # no momentum, so that a loss of 0 changes nothing


@pytest.mark.parametrize("classes", [2, 3, 5, 7, 10])
def test_a_training_that_never_learned_says_that_its_model_is_of_no_use(classes):
    said = []
    settings = replace(SETTINGS, method=Stuck(), schedule=STILL)
    images = stripes(40, classes=classes, labeled=3 * classes)
    result = train_task(settings, task(images), 0, planned=PLAN, say=said.append)
    assert result.collapse.step == result.collapse.kept == 12
    assert said[-1].endswith(
        f"the averaged weights of step 12 are kept, with {1 / classes:.0%} of the labelled images "
        f"right, no more than the {1 / classes:.0%} that have the commonest label: no use"
    )


@pytest.mark.parametrize("swallowed, kept", [(0.95, 0.5), (0.0, 0.0)])
def test_every_failure_says_what_the_method_knows_to_try(swallowed, kept):
    advised = replace(DETECTOR, advice="--set lr=1e-4")
    history = [START, line(30), line(60, swallowed=swallowed, kept=kept, accuracy=0.5)]
    history += [line(100, swallowed=swallowed, kept=kept, accuracy=0.5)]
    for told in (advised.failure(history), advised.nothing_learned(history)):
        assert "--set lr=1e-4" in told and "a lower learning rate" not in told
    assert "a lower learning rate" in DETECTOR.failure(history)


def test_a_failed_training_says_what_its_method_knows_to_try():
    @dataclass(frozen=True)
    class Knowing(Stuck):
        def advice(self, schedule):
            return f"--set lr={schedule.lr / 7:.3f}"

    said = []
    settings = replace(SETTINGS, method=Knowing(), schedule=replace(STILL, lr=0.07))
    train_task(settings, task(), 0, planned=PLAN, say=said.append)
    assert "try --set lr=0.010 or more steps" in said[-1]


def test_frozen_statistics_want_another_optimiser_than_the_default():
    wanted = "--set optimizer=adamw --set lr=1e-4"
    frozen, plain = FixMatch(frozen_norm=True), FixMatch()
    assert advice_of(frozen, frozen.schedule(task())) == wanted
    assert advice_of(frozen, Schedule(optimizer="adamw")) == ""
    assert advice_of(plain, plain.schedule(task())) == advice_of(Supervised(), Schedule()) == ""


def test_a_method_that_differs_in_evaluation_keeps_its_last_weights():
    @dataclass(frozen=True)
    class OnShow(Stuck):
        differs_in_evaluation: ClassVar[bool] = NormalizedTwice.differs_in_evaluation

    result = train_task(replace(SETTINGS, method=OnShow(), schedule=STILL), task(), 0, planned=PLAN)
    assert result.history[-1]["train_accuracy"] == 0.5
    assert result.collapse is None


def test_one_evaluation_is_enough_to_detect_that_nothing_was_learned():
    settings = replace(SETTINGS, method=Stuck(), schedule=replace(STILL, looks=1))
    assert train_task(settings, task(), 0, planned=PLAN).collapse.kept == 12


def test_a_training_that_patience_ends_early_is_tested_too():
    schedule = replace(STILL, patience=2, validation=0.25)
    result = train_task(
        replace(SETTINGS, method=Stuck(), schedule=schedule), task(), 0, planned=PLAN
    )
    assert result.collapse.step == result.steps < 12
    losses = {one["step"]: one["validation_loss"] for one in result.history}
    assert result.collapse.kept == min(losses, key=losses.__getitem__)


def test_labels_of_one_class_are_no_failure():
    images = replace(stripes(), labels=np.where(stripes().labels < 0, -1, 0))
    settings = replace(SETTINGS, method=Supervised(), schedule=SIX)
    result = train_task(settings, task(images), 0, planned=PLAN)
    assert result.history[-1]["train_accuracy"] == 1
    assert result.collapse is None


@pytest.mark.thorough
def test_a_training_that_forgot_everything_restores_the_best_checkpoint():
    schedule = replace(STILL, steps=60, lr=0.2)
    settings = replace(SETTINGS, method=Stuck(since=40), schedule=schedule)
    result = train_task(settings, task(), 0, planned=PLAN)
    accuracies = {one["step"]: one["train_accuracy"] for one in result.history if one["step"]}
    kept = result.collapse.kept
    assert accuracies[60] == 0.5 < accuracies[kept] == max(accuracies.values())
    assert result.collapse.right == accuracies[kept]
    assert "nothing was learned from the labels at step 60 of 60" in result.collapse.reason
    before = averaged_after(kept, Supervised(), schedule)
    assert same(before, result.predictor.model.state_dict())


def test_a_healthy_training_keeps_its_last_weights():
    settings = replace(SETTINGS, schedule=SIX)
    result = train_task(settings, task(), 0, planned=PLAN)
    assert result.collapse is None
    assert result.steps == 12


@dataclass(frozen=True)
class Exploding(FixMatch):
    """FixMatch with a loss that is NaN at step `at`."""

    at: int = 7

    name: ClassVar[str] = "exploding"

    def loss(self, model, batch):
        step = super().loss(model, batch)
        return step._replace(loss=step.loss * (math.nan if batch.step == self.at else 1))


def test_a_loss_that_is_not_finite_restores_the_best_checkpoint():
    said = []
    settings = replace(SETTINGS, method=Exploding(), schedule=SIX)
    result = train_task(settings, task(), 0, planned=PLAN, say=said.append)
    assert result.steps == 7
    assert result.collapse.kept in (2, 4, 6)
    assert same(averaged_after(result.collapse.kept), result.predictor.model.state_dict())
    assert "the loss became nan at step 8 of 12" in said[-1]
    assert "--set clip=1; the averaged weights of step" in said[-1]


def test_a_loss_that_is_not_finite_is_no_fault_of_ours(handful, tmp_path):
    words = ["--per-class", 2, "--method", "supervised", "--set", "lr=1e15", "--set", "steps=8"]
    words += ["--set", "backbone.base=8", "--precision", "fp32", "--estimate", "none"]
    status, _, err = handful("fit", "digits", *words, "--out", tmp_path / "run")
    said = " ".join(err.split())
    assert status == 2 and "the loss became nan at step" in said
    assert "lower the learning rate, as in --set lr=1e+14, or limit" in said
    assert "fault in handful" not in said


def test_untrained_weights_are_not_restored_with_patience():
    schedule = replace(SIX, patience=2, validation=0.25)
    with pytest.raises(Diverged, match="at step 2 of 12"):
        train_task(
            replace(SETTINGS, method=Exploding(at=1), schedule=schedule), task(), 0, planned=PLAN
        )


def test_a_loss_that_is_not_finite_before_any_checkpoint_is_an_error():
    with pytest.raises(Diverged, match="at step 2 of 12"):
        train_task(replace(SETTINGS, method=Exploding(at=1), schedule=SIX), task(), 0, planned=PLAN)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "method", [Collapsing(since=6), Exploding(), Stuck(since=6)], ids=lambda m: m.name
)
@pytest.mark.parametrize("at", [3, 7])
def test_a_collapse_is_the_same_after_a_resume(tmp_path, monkeypatch, method, at):
    monkeypatch.setattr("handful.training.history.SAVE_EVERY", 0)

    @dataclass(frozen=True)
    class Interrupted(type(method)):
        def loss(self, model, batch):
            if batch.step == at:
                raise KeyboardInterrupt
            return super().loss(model, batch)

    settings = replace(SETTINGS, method=method, schedule=SIX)
    straight = train_task(settings, task(), 0, planned=PLAN)
    with pytest.raises(KeyboardInterrupt):
        stopping = replace(settings, method=Interrupted(**vars(method)))
        train_task(stopping, task(), 0, tmp_path, PLAN)
    resumed = train_task(settings, task(), 0, tmp_path)
    again = train_task(settings, task(), 0, tmp_path)  # nothing is trained
    for other in (resumed, again):
        assert other.collapse == straight.collapse
        assert other.steps == straight.steps
        assert same(straight.predictor.model.state_dict(), other.predictor.model.state_dict())
    assert read_tensors(tmp_path / "checkpoint.safetensors")[0]["step"] == straight.steps


@pytest.mark.thorough
def test_a_collapse_is_in_the_record_and_collapses_of_folds_are_reported():
    said = []
    settings = {"steps": "12", "looks": "6", "batch": "8", "backbone.base": "8"}
    run = handful.fit(
        stripes(),
        Collapsing(since=6),
        settings=settings,
        precision="fp32",
        reporter=Reporter(say=said.append),
    )
    found = run.record["training"]["collapse"]
    assert found["step"] == 10 and found["kept"] < 10
    assert "class collapse" in found["reason"]
    assert run.record["training"]["remark"] is None
    start = "in a fit for the estimate class collapse"
    assert sum(text.startswith(start) for text in said) == FOLDS.fits


def test_a_healthy_run_records_no_collapse():
    settings = {"steps": "12", "backbone.base": "8"}
    run = handful.fit(stripes(), Supervised(), settings=settings, estimate="none")
    assert run.record["training"]["collapse"] is None


NONE = "every image has a label, so {} has no unlabelled image to learn from"
ALONE = ": it learns as supervised does, with its own network and schedule"


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("method", "labeled", "told"),
    [
        ("fixmatch", 16, NONE + ALONE),
        ("deep_propagation", 16, NONE + ALONE),
        ("self_training", 16, NONE),
        ("fine_tuning", 16, NONE),
        ("supervised", 16, None),
        ("fixmatch", 8, None),
        ("deep_propagation", 8, None),
        (
            FixMatch(unlabeled_weight=0.0),
            8,
            "unlabeled_weight is 0, so {} does not learn from images without a label" + ALONE,
        ),
    ],
)
def test_a_method_with_no_unlabelled_image_to_learn_from_says_so(method, labeled, told):
    said = []
    size, settings = None, {"steps": "2", "batch": "8", "backbone.base": "8"}
    if method == "self_training":
        size, settings = 32, None
    if method == "fine_tuning":
        size, settings = 32, {"steps": "2", "batch": "4", "embed_size": "32"}
    run = handful.fit(
        stripes(16, labeled=labeled),
        method,
        size=size,
        settings=settings,
        estimate="none",
        reporter=Reporter(say=said.append),
    )
    text = told and told.format(run.record["method"]["name"])
    assert run.record["training"]["remark"] == text
    assert [one for one in said if "to learn from" in one or "does not learn" in one] == (
        [text] if text else []
    )
