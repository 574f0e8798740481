"""A training that goes wrong is noticed, said, and gone back from, without any test label."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch

import handful
from handful.files import read_tensors
from handful.methods.base import Step
from handful.methods.fixmatch import FixMatch
from handful.methods.schedule import Course
from handful.methods.supervised import Supervised
from handful.models.classifier import BackboneSpec
from handful.pipeline.cross_validate import FOLDS
from handful.pipeline.recipes.as_run import NormalizedTwice
from handful.progress import Reporter
from handful.training.failure import Collapse, Judge
from handful.training.loop import Diverged
from handful.training.plan import Plan
from handful.training.settings import Settings
from handful.training.trainer import learn
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


JUDGE = Judge(Course(100), chance=0.5, classes=("cat", "dog"))


def test_a_class_that_swallows_the_guesses_is_named_with_the_step():
    history = [START, line(30), line(40, swallowed=0.95, accuracy=0.6)]
    assert JUDGE.trouble(history).startswith(
        "one class has taken over the guesses (dog, 97%) at step 40 of 100; try --set align=true"
    )
    assert JUDGE.trouble(history[:2]) is None
    assert JUDGE.trouble([START, line(30), line(40, swallowed=0.85, accuracy=0.6)]) is None
    nameless = replace(JUDGE, classes=())
    assert "(number 1, 97%) at step 40" in nameless.trouble(history)
    many = [{k: v for k, v in one.items() if not k.startswith("pseudo_")} for one in history]
    assert "taken over the guesses at step 40" in JUDGE.trouble(many)


def test_a_network_that_never_knew_the_labels_is_swallowed_too():
    history = [START, line(50, swallowed=0.95, accuracy=0.5)]
    assert JUDGE.trouble(history) is None  # it may still learn them
    history.append(line(60, swallowed=0.95, accuracy=0.5))
    assert "one class has taken over" in JUDGE.trouble(history)
    assert replace(JUDGE, chance=0.0).trouble(history) is None


def test_one_class_for_nearly_all_is_only_said_while_the_labels_are_known():
    history = [START, line(30), *(line(s, swallowed=0.95, accuracy=0.8) for s in (40, 50))]
    assert JUDGE.trouble(history) is None
    assert not JUDGE.hopeless(history)
    assert JUDGE.remark(history) == (
        "nearly all guesses are of one class (dog, 97%) at step 50 of 100, far more than of the "
        "labels. That is right if most unlabelled images are of it; if not, it has taken over: "
        "look at some predictions, and try --set align=true if the method has it"
    )
    assert JUDGE.remark(history[:2]) is None
    assert JUDGE.remark([line(20, swallowed=0.95)]) is None
    assert JUDGE.remark([*history[:2], line(50, swallowed=0.95, kept=0.09)]) is None  # of few


def test_nothing_is_judged_before_training_has_settled():
    lost, history = {"swallowed": 1.0, "accuracy": 0.6}, [START, line(5)]
    assert JUDGE.trouble([*history, line(20, **lost)]) is None
    assert not JUDGE.hopeless([*history, line(10, **lost), line(20, **lost)])
    assert not JUDGE.hopeless([*history, line(20, **lost), line(30, **lost)])
    assert JUDGE.hopeless([*history, line(30, **lost), line(40, **lost)])


def test_two_looks_in_a_row_are_hopeless_and_one_is_not():
    once = [START, line(30), line(40, swallowed=0.95, accuracy=0.6)]
    assert not JUDGE.hopeless([])
    assert not JUDGE.hopeless(once)
    assert JUDGE.hopeless([*once, line(50, swallowed=0.95, accuracy=0.6)])
    assert not JUDGE.hopeless([*once, line(50, swallowed=0.2, accuracy=0.6)])


def test_guesses_that_were_used_and_are_no_more_are_trouble_after_long():
    early = [START, line(10), line(20), line(30)]
    late = [line(step, kept=0.001) for step in (40, 50, 60)]
    assert JUDGE.trouble([*early, *late[:2]]) is None
    assert "used no more at step 60 of 100" in JUDGE.trouble([*early, *late])
    assert JUDGE.remark([*early, *late]) is None


def test_guesses_that_never_were_used_are_said_and_do_no_harm():
    history = [START, *(line(step, kept=0.001) for step in range(10, 101, 10))]
    assert JUDGE.trouble(history) is None
    assert "the labels alone were learned from" in JUDGE.remark(history)
    assert JUDGE.soundest(history) == 100


def test_the_soundest_look_is_the_latest_of_those_with_most_labels_right():
    history = [START, line(10, accuracy=0.9), line(30), line(40), line(50, accuracy=0.8)]
    assert JUDGE.soundest(history) == 40
    history.append(line(60, swallowed=0.99, accuracy=0.6))
    assert JUDGE.soundest(history) == 40
    assert JUDGE.soundest([START]) is None
    assert JUDGE.soundest([START, without(line(10), "train_loss")]) is None


def test_a_look_at_which_a_class_was_half_on_its_way_is_no_place_to_go_back_to():
    history = [START, line(10), line(30), line(40, swallowed=0.6)]
    assert JUDGE.soundest(history) == 30
    assert JUDGE.soundest([START, line(30, accuracy=0.9), line(40, swallowed=0.6)]) == 40
    assert JUDGE.soundest([START, line(40, swallowed=0.6)]) == 40


def test_as_many_right_as_have_the_commonest_label_is_nothing_learned():
    last = {"step": 100, "train_loss": 0.7, "train_accuracy": 0.5}
    assert JUDGE.unlearned([last]) == (
        "nothing is known of the labelled images at step 100 of 100: 50% of them are right, and "
        "50% have the commonest label; try a lower learning rate or more steps"
    )
    assert JUDGE.unlearned([last | {"train_accuracy": 0.51}]) is None
    for one_class_or_no_label in (1.0, 0.0):
        right = last | {"train_accuracy": one_class_or_no_label}
        assert Judge(Course(100), chance=one_class_or_no_label).unlearned([right]) is None


def test_what_is_kept_is_of_no_use_where_chance_would_do_as_well():
    kept = Collapse(9, "it broke", 6)
    assert kept.text == "it broke; the averaged weights of step 6 are kept"
    known = f"{kept.text}, with 6% of the labelled images right"
    assert replace(kept, right=0.06, chance=0.05).text == known
    no_use = ", no more than the 10% that have the commonest label: no use"
    assert replace(kept, right=0.06, chance=0.1).text == known + no_use
    one_class = replace(kept, right=1.0, chance=1.0).text
    assert one_class == f"{kept.text}, with 100% of the labelled images right"


def test_other_methods_have_no_such_figures_and_no_trouble():
    plain = [START, *({"step": s, "train_loss": 0.1, "train_accuracy": 1.0} for s in (50, 100))]
    assert JUDGE.trouble(plain) is None
    assert JUDGE.remark(plain) is None
    assert JUDGE.soundest(plain) == 100


@dataclass(frozen=True)
class Swallowed(FixMatch):
    """FixMatch in which one class takes over from some step on, and its figures say so."""

    since: int = 5

    name: ClassVar[str] = "swallowed"

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
    """Averaged weights of a training in the same settings, stopped by an error after `steps`."""
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
        learn(stopping, task(), 0, planned=PLAN)
    return seen


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a) and a.keys() == b.keys()


def test_a_swallowed_training_stops_and_leaves_the_weights_of_a_sound_look():
    said = []
    settings = replace(SETTINGS, method=Swallowed(since=6), schedule=SIX)
    learned = learn(settings, task(), 0, planned=PLAN, say=said.append)
    assert learned.steps == 10  # looks at 8 and 10 saw it
    assert learned.collapse.step == 10
    kept = learned.collapse.kept
    accuracies = {one["step"]: one["train_accuracy"] for one in learned.history if one["step"]}
    best = max(accuracies[step] for step in (2, 4, 6))
    assert kept == max(step for step in (2, 4, 6) if accuracies[step] == best)
    assert same(averaged_after(kept), learned.predictor.model.state_dict())
    assert "at step 10 of 12" in said[-1] and f"step {kept} are kept" in said[-1]
    assert said[0].startswith("step 2 of 12: loss ")


def test_a_class_that_takes_over_before_any_sound_look_is_noticed_too():
    settings = replace(SETTINGS, method=Swallowed(since=0), schedule=replace(SIX, looks=1))
    learned = learn(settings, task(), 0, planned=PLAN)
    assert learned.steps == learned.collapse.step == learned.collapse.kept == 12
    assert learned.collapse.text.endswith("that have the commonest label: no use")
    assert "one class has taken over the guesses (" in learned.collapse.reason


def unbalanced():
    """Ten labelled images of each of two classes, and 490 and 6 without a label."""
    rows = np.concatenate([np.arange(0, 1000, 2), np.arange(1, 33, 2)])
    images = stripes(1000, labeled=1000)[rows]
    first = [np.flatnonzero(images.labels == k)[:10] for k in (0, 1)]
    return images.seen(np.concatenate(first))


@pytest.mark.thorough
def test_guesses_as_unbalanced_as_the_images_are_no_collapse():
    said = []
    schedule = replace(SCHEDULE, steps=100, looks=10)
    images = unbalanced()
    settings = replace(SETTINGS, method=FixMatch(threshold=0.0), schedule=schedule)
    learned = learn(settings, task(images), 0, planned=PLAN, say=said.append)
    assert learned.history[-1]["swallowed"] > 0.9
    assert learned.steps == 100
    assert learned.collapse is None
    assert learned.remark.startswith("nearly all guesses are of one class (a, 9")
    assert said[-1] == learned.remark


@pytest.mark.thorough
def test_a_training_that_really_collapses_is_stopped():
    """The unlabelled images outweigh the labels, and every guess is believed from the start."""
    images = stripes(400, classes=4, labeled=8)
    method = FixMatch(threshold=0.0, unlabeled_weight=20.0)
    schedule = replace(SCHEDULE, steps=120, looks=12, lr=0.2)
    settings = replace(SETTINGS, method=method, schedule=schedule)
    learned = learn(settings, task(images), 0, planned=PLAN)
    assert learned.history[-1]["swallowed"] > 0.9
    assert learned.history[-1]["prior_distance"] == pytest.approx(0.75, abs=0.05)
    assert learned.steps == learned.collapse.step == 80  # the looks at 70 and 80 saw it
    assert "one class has taken over the guesses (" in learned.collapse.reason


@dataclass(frozen=True)
class Doubting(FixMatch):
    """FixMatch in which no guess is sure enough from some step on."""

    since: int = 4

    name: ClassVar[str] = "doubting"

    def loss(self, model, batch):
        step = super().loss(model, batch)
        used = torch.tensor(float(batch.step < self.since))
        return step._replace(logs=step.logs | {"kept": used, "swallowed": torch.tensor(0.0)})


@pytest.mark.thorough
def test_guesses_that_are_used_no_more_for_long_leave_the_weights_of_a_sound_look():
    said = []
    learned = learn(replace(SETTINGS, method=Doubting(), schedule=SIX), task(), 0, planned=PLAN)
    assert learned.collapse.step == 12
    assert "the unlabelled images are used no more at step 12 of 12" in learned.collapse.reason
    kept = learned.collapse.kept
    assert 0 < kept < 12
    assert same(averaged_after(kept), learned.predictor.model.state_dict())
    never = replace(SETTINGS, method=Doubting(since=0), schedule=SIX)
    learned = learn(never, task(), 0, planned=PLAN, say=said.append)
    assert learned.collapse is None
    assert said[-1].startswith("hardly any guess was sure enough to be used in 12 steps: ")
    assert learned.remark == said[-1]


def test_a_class_that_takes_over_at_the_very_end_is_noticed_too():
    settings = replace(SETTINGS, method=Swallowed(since=10), schedule=SIX)
    learned = learn(settings, task(), 0, planned=PLAN)
    assert learned.steps == 12
    assert learned.collapse.kept < 12


@dataclass(frozen=True)
class Stuck(Supervised):
    """Throws away what has been learned, from some step on."""

    since: int = 0

    name: ClassVar[str] = "stuck"

    def loss(self, model, batch):
        if batch.step >= self.since:
            with torch.no_grad():
                for parameter in (*model.head.parameters(), *batch.averaged.head.parameters()):
                    parameter.zero_()
        step = super().loss(model, batch)
        return step._replace(loss=step.loss * float(batch.step < self.since))


STILL = replace(SIX, momentum=0.0)  # no step goes on after the loss is gone


@pytest.mark.parametrize("classes", [2, 3, 5, 7, 10])
def test_a_training_that_never_learned_says_that_its_model_is_of_no_use(classes):
    said = []
    settings = replace(SETTINGS, method=Stuck(), schedule=STILL)
    images = stripes(40, classes=classes, labeled=3 * classes)
    learned = learn(settings, task(images), 0, planned=PLAN, say=said.append)
    assert learned.collapse.step == learned.collapse.kept == 12
    assert said[-1].endswith(
        f"the averaged weights of step 12 are kept, with {1 / classes:.0%} of the labelled images "
        f"right, no more than the {1 / classes:.0%} that have the commonest label: no use"
    )


def test_a_bug_on_show_keeps_its_last_weights():
    @dataclass(frozen=True)
    class OnShow(Stuck):
        looks_mislead: ClassVar[bool] = NormalizedTwice.looks_mislead

    learned = learn(replace(SETTINGS, method=OnShow(), schedule=STILL), task(), 0, planned=PLAN)
    assert learned.history[-1]["train_accuracy"] == 0.5
    assert learned.collapse is None


def test_one_look_is_enough_to_see_it():
    settings = replace(SETTINGS, method=Stuck(), schedule=replace(STILL, looks=1))
    assert learn(settings, task(), 0, planned=PLAN).collapse.kept == 12


def test_patience_that_ends_a_training_early_does_not_hide_it():
    schedule = replace(STILL, patience=2, validation=0.25)
    learned = learn(replace(SETTINGS, method=Stuck(), schedule=schedule), task(), 0, planned=PLAN)
    assert learned.collapse.step == learned.steps < 12
    losses = {one["step"]: one["validation_loss"] for one in learned.history}
    assert learned.collapse.kept == min(losses, key=losses.__getitem__)


def test_labels_of_one_class_are_no_sign_of_trouble():
    images = replace(stripes(), labels=np.where(stripes().labels < 0, -1, 0))
    settings = replace(SETTINGS, method=Supervised(), schedule=SIX)
    learned = learn(settings, task(images), 0, planned=PLAN)
    assert learned.history[-1]["train_accuracy"] == 1
    assert learned.collapse is None


@pytest.mark.thorough
def test_a_training_that_forgot_all_leaves_what_it_knew():
    schedule = replace(STILL, steps=60, lr=0.2)
    settings = replace(SETTINGS, method=Stuck(since=40), schedule=schedule)
    learned = learn(settings, task(), 0, planned=PLAN)
    accuracies = {one["step"]: one["train_accuracy"] for one in learned.history if one["step"]}
    kept = learned.collapse.kept
    assert accuracies[60] == 0.5 < accuracies[kept] == max(accuracies.values())
    assert learned.collapse.right == accuracies[kept]
    assert "nothing is known of the labelled images at step 60 of 60" in learned.collapse.reason
    before = averaged_after(kept, Supervised(), schedule)
    assert same(before, learned.predictor.model.state_dict())


def test_a_sound_training_keeps_its_last_weights():
    settings = replace(SETTINGS, schedule=SIX)
    learned = learn(settings, task(), 0, planned=PLAN)
    assert learned.collapse is None
    assert learned.steps == 12


@dataclass(frozen=True)
class Exploding(FixMatch):
    """FixMatch with a loss that is no number at one step."""

    at: int = 7

    name: ClassVar[str] = "exploding"

    def loss(self, model, batch):
        step = super().loss(model, batch)
        return step._replace(loss=step.loss * (math.nan if batch.step == self.at else 1))


def test_a_loss_that_is_no_number_leaves_the_weights_of_a_sound_look():
    said = []
    settings = replace(SETTINGS, method=Exploding(), schedule=SIX)
    learned = learn(settings, task(), 0, planned=PLAN, say=said.append)
    assert learned.steps == 7
    assert learned.collapse.kept in (2, 4, 6)
    assert same(averaged_after(learned.collapse.kept), learned.predictor.model.state_dict())
    assert "the loss became nan at step 8 of 12" in said[-1]
    assert "--set clip=1; the averaged weights of step" in said[-1]


def test_with_patience_too_untrained_weights_are_no_answer():
    schedule = replace(SIX, patience=2, validation=0.25)
    with pytest.raises(Diverged, match="at step 2 of 12"):
        learn(replace(SETTINGS, method=Exploding(at=1), schedule=schedule), task(), 0, planned=PLAN)


def test_without_a_sound_look_before_it_stops_with_an_error():
    with pytest.raises(Diverged, match="at step 2 of 12"):
        learn(replace(SETTINGS, method=Exploding(at=1), schedule=SIX), task(), 0, planned=PLAN)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "method", [Swallowed(since=6), Exploding(), Stuck(since=6)], ids=lambda m: m.name
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
    straight = learn(settings, task(), 0, planned=PLAN)
    with pytest.raises(KeyboardInterrupt):
        stopping = replace(settings, method=Interrupted(**vars(method)))
        learn(stopping, task(), 0, tmp_path, PLAN)
    resumed = learn(settings, task(), 0, tmp_path)
    again = learn(settings, task(), 0, tmp_path)  # killed after the end: nothing is trained
    for other in (resumed, again):
        assert other.collapse == straight.collapse
        assert other.steps == straight.steps
        assert same(straight.predictor.model.state_dict(), other.predictor.model.state_dict())
    assert read_tensors(tmp_path / "checkpoint.safetensors")[0]["step"] == straight.steps


@pytest.mark.thorough
def test_a_collapse_is_in_the_record_and_those_of_folds_are_said():
    said = []
    settings = {"steps": "12", "looks": "6", "batch": "8", "backbone.base": "8"}
    run = handful.fit(
        stripes(),
        Swallowed(since=6),
        settings=settings,
        precision="fp32",
        reporter=Reporter(say=said.append),
    )
    found = run.record["training"]["collapse"]
    assert found["step"] == 10 and found["kept"] < 10
    assert "one class has taken over" in found["reason"]
    assert run.record["training"]["remark"] is None
    assert (
        sum(text.startswith("in a fit for the estimate one class") for text in said) == FOLDS.fits
    )


def test_a_sound_run_records_no_collapse():
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
