"""The semi-supervised methods: losses on small batches by hand, and common properties."""

import copy
import json
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import handful
from handful import seeds
from handful.data.augmentation.pipelines import PIPELINES
from handful.files import read_tensors
from handful.methods.base import Batch, Init, Stateful, classifier
from handful.methods.consistency import Consistency, StepLogits, UnlabeledCost, monitoring_logs
from handful.methods.deep_propagation import DeepPropagation
from handful.methods.first_head import fitted_head
from handful.methods.fixmatch import FixMatch
from handful.methods.mean_teacher import MeanTeacher
from handful.methods.pseudo_label import PseudoLabel
from handful.methods.schedule import ScheduleProgress
from handful.methods.softmatch import SoftMatch
from handful.methods.supervised import Supervised
from handful.methods.uda import UDA, signal_threshold
from handful.models.classifier import BackboneSpec
from handful.progress import Reporter
from handful.training.batches import Batches
from handful.training.loop import begin, fresh, train
from handful.training.plan import Plan
from handful.training.settings import Settings
from handful.training.trainer import train_task
from tiny import SCHEDULE, stripes, task

PLAN = Plan("fp32", 1, 0.01)
SETTINGS = Settings(FixMatch(), SCHEDULE, BackboneSpec("small", {"base": 8}), precision="fp32")
METHODS = [
    PseudoLabel(),
    MeanTeacher(),
    UDA(threshold=0.0, annealing="log"),
    FixMatch(threshold=0.0, align=True),
    FixMatch(threshold=0.5, teacher=True),
    SoftMatch(),
]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
# The consistency methods, and the one with a graph.
GRAPH = DeepPropagation(period=3, neighbors=5, rank=8)
any_method = pytest.mark.parametrize("method", [*METHODS, GRAPH], ids=lambda m: m.name)
CONSTANT = {"prior", "known", "images", "first"}  # keys of method states that do not change


def weights(result):
    return result.predictor.model.state_dict()


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a) and a.keys() == b.keys()


def without_time(history):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in history]


class Identity(nn.Module):
    """Returns its (N, K) input, times a factor of 1, as logits."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return images * self.scale


def state_of(method, classes=3):
    prior = torch.full((classes,), 1 / classes)
    found = {"prior": prior, "guessed": prior.clone(), "used": prior.clone()}
    if isinstance(method, SoftMatch):
        found |= {"mean": torch.tensor(1 / classes), "variance": torch.tensor(1.0)}
    return found


# Logits of four labelled images, the third a confident mistake, and of five unlabelled ones.
LABELED = torch.tensor([[3.0, 0, 0], [0, 1.0, 0], [0, 0, 8.0], [0.5, 0, 0]])
LABELS = torch.tensor([0, 1, 0, 2])
WEAK = torch.tensor([[6.0, 0, 0], [0, 7.0, 0], [0.2, 0.1, 0], [0, 0, 2.2], [0, 0, 0.1]])
STRONG = torch.tensor([[2.0, 1, 0], [3.0, 0, 0], [0, 0.5, 0], [0, 0, 1.0], [1.0, 0, 0]])


def batch(method, step=5, steps=10, views=None, averaged=None):
    unlabeled = (WEAK, STRONG) if views is None else views
    return Batch(
        LABELED,
        LABELS,
        unlabeled,
        step=step,
        schedule_progress=ScheduleProgress(steps),
        averaged=averaged or Identity().eval(),
        state=state_of(method),
    )


def supervised_loss():
    return F.cross_entropy(LABELED, LABELS).item()


def softmax(row):
    powers = [math.exp(x) for x in row]
    return [x / sum(powers) for x in powers]


def test_fixmatch_on_a_small_batch():
    method = FixMatch(unlabeled_weight=2.0)
    step = method.loss(Identity(), batch(method))
    unlabeled = (-math.log(softmax([2, 1, 0])[0]) - math.log(softmax([3, 0, 0])[1])) / 5
    assert step.loss.item() == pytest.approx(supervised_loss() + 2 * unlabeled, rel=1e-6)
    assert step.logs["unlabeled"].item() == pytest.approx(unlabeled, rel=1e-6)
    assert step.logs["labeled"].item() == pytest.approx(supervised_loss(), rel=1e-6)
    assert step.logs["kept"].item() == pytest.approx(2 / 5)
    assert step.logs["agreement"].item() == pytest.approx(2 / 5)


def test_aligned_fixmatch_prefers_a_class_that_was_predicted_too_rarely():
    method = FixMatch(threshold=0.0, align=True)
    given = batch(method)
    given.state["guessed"].copy_(torch.tensor([0.90, 0.05, 0.05]))
    probabilities = method.target_probabilities(torch.tensor([[1.0, 0.0, -1.0]]), given)
    mean = [
        0.99 * g + 0.01 * p for g, p in zip([0.9, 0.05, 0.05], softmax([1, 0, -1]), strict=True)
    ]
    scaled = [p / 3 / g for p, g in zip(softmax([1, 0, -1]), mean, strict=True)]
    assert probabilities[0].tolist() == pytest.approx([x / sum(scaled) for x in scaled], rel=1e-5)
    assert probabilities.argmax() == 1
    assert given.state["guessed"].tolist() == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("annealing", ["none", "linear", "log", "exp"])
def test_uda_on_a_small_batch_with_a_confident_mistake(annealing):
    method = UDA(annealing=annealing)
    step = method.loss(Identity(), batch(method))
    threshold = {
        "none": 1.0,
        "linear": 0.5 * 2 / 3 + 1 / 3,
        "log": (1 - math.exp(-2.5)) * 2 / 3 + 1 / 3,
        "exp": math.exp(-2.5) * 2 / 3 + 1 / 3,
    }[annealing]
    costs = []
    for row, k in zip(LABELED.tolist(), LABELS.tolist(), strict=True):
        if softmax(row)[k] <= threshold:
            costs.append(-math.log(softmax(row)[k]))
    assert -math.log(softmax([0, 0, 8])[0]) in costs
    consistency = 0.0
    for w, s in zip(WEAK.tolist(), STRONG.tolist(), strict=True):
        if max(softmax(w)) > 0.8:
            target = softmax([x / 0.4 for x in w])
            consistency += sum(t * math.log(t / q) for t, q in zip(target, softmax(s), strict=True))
    expected = sum(costs) / len(costs) + consistency / 5
    assert step.loss.item() == pytest.approx(expected, rel=1e-5)


def test_signal_thresholds_rise_from_chance_to_1():
    for annealing in ("linear", "log", "exp"):
        last = signal_threshold(annealing, 1.0, 10)
        assert signal_threshold(annealing, 0.0, 10) == pytest.approx(0.1, abs=0.01)
        assert last == pytest.approx(1.0, abs=0.01)
    half = [signal_threshold(kind, 0.5, 10) for kind in ("exp", "linear", "log")]
    assert half == sorted(half)


def test_pseudo_label_trains_the_view_that_gives_the_label_with_a_weight_that_rises():
    method = PseudoLabel(rise_from=0.2, rise_to=0.6)
    own = sum(-math.log(max(softmax(row))) for row in WEAK.tolist()) / 5
    for step, share in ((1, 0.0), (2, 0.0), (4, 0.5), (6, 1.0), (9, 1.0)):
        found = method.loss(Identity(), batch(method, step, views=(WEAK,))).loss.item()
        assert found == pytest.approx(supervised_loss() + 3 * share * own, rel=1e-5)


def test_the_weight_of_pseudo_labels_may_rise_at_once():
    method = PseudoLabel(rise_from=0.5, rise_to=0.5)
    assert [method.ramp(at) for at in (0.0, 0.4, 0.5, 0.9)] == [0.0, 0.0, 1.0, 1.0]


def test_mean_teacher_is_trained_on_the_average_with_a_weight_that_rises():
    method = MeanTeacher(unlabeled_weight=10.0, rise=0.5)
    teacher = Identity().eval()
    nn.init.constant_(teacher.scale, 0.5)
    squares = 0.0
    for w, s in zip((WEAK / 2).tolist(), STRONG.tolist(), strict=True):
        squares += sum((p - q) ** 2 for p, q in zip(softmax(w), softmax(s), strict=True))
    for step, share in ((0, math.exp(-5)), (2, math.exp(-5 * 0.36)), (5, 1.0), (9, 1.0)):
        found = method.loss(Identity(), batch(method, step, averaged=teacher)).loss.item()
        assert found == pytest.approx(supervised_loss() + 10 * share * squares / 15, rel=1e-5)


def test_softmatch_weighs_by_running_moments_of_the_confidence():
    method = SoftMatch(keep=0.5, align=False)
    given = batch(method)
    step = method.loss(Identity(), given)
    sure = [max(softmax(row)) for row in WEAK.tolist()]
    mean = 0.5 / 3 + 0.5 * np.mean(sure)
    variance = 0.5 + 0.5 * np.var(sure, ddof=1)
    weight = [1.0 if c > mean else math.exp(-((c - mean) ** 2) * 4 / 2 / variance) for c in sure]
    classes = [row.index(max(row)) for row in WEAK.tolist()]
    unlabeled = sum(
        w * -math.log(softmax(row)[k])
        for w, row, k in zip(weight, STRONG.tolist(), classes, strict=True)
    )
    assert step.loss.item() == pytest.approx(supervised_loss() + unlabeled / 5, rel=1e-5)
    assert given.state["mean"].item() == pytest.approx(mean, rel=1e-5)
    assert given.state["variance"].item() == pytest.approx(variance, rel=1e-5)
    assert step.logs["kept"].item() == pytest.approx(np.mean(weight), rel=1e-5)


def test_softmatch_weighs_by_the_confidence_of_aligned_probabilities():
    method = SoftMatch(keep=0.5)
    given, before = batch(method), np.array([0.6, 0.3, 0.1])
    given.state["guessed"].copy_(torch.from_numpy(before))
    step = method.loss(Identity(), given)
    plain = [softmax(row) for row in WEAK.tolist()]
    running = 0.99 * before + 0.01 * np.mean(plain, axis=0)  # class shares of predictions
    aligned = np.array(plain) / 3 / running
    sure = (aligned / aligned.sum(axis=1, keepdims=True)).max(axis=1)
    mean, variance = 0.5 / 3 + 0.5 * sure.mean(), 0.5 + 0.5 * sure.var(ddof=1)
    weight = np.where(sure > mean, 1.0, np.exp(-((sure - mean) ** 2) * 2 / variance))
    costs = [
        -math.log(softmax(row)[np.argmax(p)]) for row, p in zip(STRONG.tolist(), plain, strict=True)
    ]
    expected = supervised_loss() + np.mean(weight * costs)
    assert step.loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_plain_form_of_uda_has_neither_threshold_nor_sharpening():
    method = UDA(threshold=0.0, temperature=1.0, unlabeled_weight=1.1)
    pairs = zip(WEAK.tolist(), STRONG.tolist(), strict=True)
    divergence = 0.0
    for p, q in ((softmax(weak), softmax(strong)) for weak, strong in pairs):
        divergence += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    found = method.loss(Identity(), batch(method)).loss.item()
    assert found == pytest.approx(supervised_loss() + 1.1 * divergence / 5, rel=1e-5)


def test_softmatch_aligns_the_weights_and_not_the_pseudo_labels():
    method = SoftMatch(keep=0.0)
    given = batch(method)
    given.state["guessed"].copy_(torch.tensor([0.98, 0.01, 0.01]))
    cost = method.unlabeled_loss(StepLogits(LABELED, WEAK, STRONG), given)
    assert cost.pseudo_label.tolist() == WEAK.argmax(dim=1).tolist()
    assert cost.weight[0] < 1  # confident in a class that is predicted too often: a lower weight


def network(method):
    """A linear classifier; without batch norm the views do not affect each other."""
    torch.manual_seed(0)
    return nn.Linear(3, 3)


@every_method
def test_weight_zero_has_the_gradients_of_supervised(method):
    gradients = []
    for one in (replace(method, unlabeled_weight=0.0), Supervised()):
        if isinstance(one, UDA):
            one = replace(one, annealing="none")
        model = network(one)
        views = (WEAK,) if getattr(one, "strong", "") == "same" else (WEAK, STRONG)
        one.loss(model, batch(method, views=views, averaged=network(one))).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


@every_method
def test_weight_zero_trains_the_weights_that_supervised_trains(method):
    """Including batch norm, since no unlabelled image passes through the network."""
    method = replace(method, unlabeled_weight=0.0)
    ours = train_task(replace(SETTINGS, method=method), task(), 1, planned=PLAN)
    theirs = train_task(replace(SETTINGS, method=Supervised()), task(), 1, planned=PLAN)
    assert same(weights(ours), weights(theirs))


@every_method
def test_with_a_weight_the_gradients_differ(method):
    model, plain = network(method), network(method)
    method.loss(model, batch(method, step=9, averaged=network(method))).loss.backward()
    Supervised().loss(plain, batch(method)).loss.backward()
    assert not torch.allclose(model.weight.grad, plain.weight.grad, atol=1e-4)


@every_method
def test_pseudo_labels_have_no_gradient(method):
    """A parameter that affects weak views only has a gradient of 0."""

    class TwoScales(Identity):
        def __init__(self):
            super().__init__()
            self.for_weak = nn.Parameter(torch.ones(()))

        def forward(self, images):
            rows = [images[:4], images[4:9] * self.for_weak, images[9:]]
            return torch.cat(rows)

    if method.strong == "same":
        return
    model, averaged = TwoScales(), TwoScales()
    method.loss(model, batch(method, averaged=averaged)).loss.backward()
    if not method.teacher:
        assert model.for_weak.grad.item() == 0
    assert averaged.for_weak.grad is None


def test_all_views_are_one_forward_pass_and_the_teacher_has_its_own():
    calls = []

    class Counting(Identity):
        def forward(self, images):
            calls.append((len(images), self.training))
            return super().forward(images)

    method = FixMatch()
    method.loss(Counting(), batch(method, averaged=Counting()))
    assert calls == [(4 + 5 + 5, True)]
    calls.clear()
    method = FixMatch(teacher=True)
    method.loss(Counting(), batch(method, averaged=Counting()))
    assert calls == [(4 + 5, True), (5, False)]


@every_method
def test_logs_show_the_pseudo_labels(method):
    given = batch(method)
    views = (WEAK,) if method.strong == "same" else (WEAK, STRONG)
    logs = method.loss(Identity(), given._replace(unlabeled=views)).logs
    assert {"labeled", "unlabeled", "accuracy", "kept", "prior_distance"} <= set(logs)
    assert ("agreement" in logs) == (method.strong != "same")  # a view agrees with itself
    shares = [logs[f"pseudo_{k}"].item() for k in range(3)]
    assert sum(shares) == pytest.approx(1)
    distance = sum(abs(share - 1 / 3) for share in shares) / 2
    assert logs["prior_distance"].item() == pytest.approx(distance, abs=1e-6)
    assert 0 <= logs["kept"] <= 1


def test_monitoring_logs_by_hand():
    """Of ten pseudo-labels three of class 0 and one of class 2 are used."""
    labels = torch.tensor([0, 0, 0, 2, 1, 1, 1, 1, 1, 2])
    cost = UnlabeledCost(
        torch.tensor(0.0), labels, torch.tensor([1, 1, 1, 1, 0, 0, 0, 0, 0, 0]).bool()
    )
    prior = torch.tensor([0.5, 0.3, 0.2])
    state = {"prior": prior, "used": prior.clone()}
    logs = monitoring_logs(state, cost, steps=10)  # in few steps the shares are those of the step
    assert logs["kept"].item() == pytest.approx(0.4)
    assert [logs[f"pseudo_{k}"].item() for k in range(3)] == pytest.approx([0.75, 0.0, 0.25])
    assert logs["prior_distance"].item() == pytest.approx(0.3)
    assert logs["swallowed"].item() == pytest.approx((0.75 - 0.5) / (1 - 0.5))

    state = {"prior": prior, "used": prior.clone()}
    logs = monitoring_logs(state, cost, steps=5000)  # in many steps they span a hundred
    used = 0.99 * prior + 0.01 * torch.tensor([0.3, 0.0, 0.1])
    assert state["used"].tolist() == pytest.approx(used.tolist())
    assert logs["pseudo_0"].item() == pytest.approx((used[0] / used.sum()).item())
    state = {"prior": prior, "used": prior.clone()}
    monitoring_logs(state, cost, steps=200)  # in 200 steps they span ten
    assert state["used"][1].item() == pytest.approx(0.9 * 0.3)


def test_agreement_by_hand():
    logs = FixMatch().loss(Identity(), batch(FixMatch())).logs
    same = WEAK.argmax(dim=1) == STRONG.argmax(dim=1)
    assert 0 < same.float().mean() < 1
    assert logs["agreement"].item() == pytest.approx(same.float().mean().item())


def test_pseudo_labels_of_one_class_move_the_running_shares_away_from_the_prior():
    method = FixMatch(threshold=0.0)
    given = batch(method, views=(WEAK[:1].repeat(5, 1), STRONG))
    for _ in range(500):
        logs = method.loss(Identity(), given).logs
    assert logs["pseudo_0"].item() > 0.95
    assert logs["prior_distance"].item() > 0.6


def test_named_pipelines_for_grey_and_colour():
    grey, colour = task(), task(stripes(channels=3))
    assert FixMatch().views(grey).unlabeled == ("digits", "digits-strong")
    assert FixMatch().views(colour).unlabeled == ("weak", "strong")
    assert PseudoLabel().views(grey).unlabeled == ("auto",)
    assert MeanTeacher().views(grey).unlabeled == ("digits", "digits")
    assert MeanTeacher().views(colour).unlabeled == ("weak", "weak")
    assert set(FixMatch().views(grey).unlabeled) <= set(PIPELINES)


@pytest.fixture(scope="module")
def supervised():
    return weights(train_task(replace(SETTINGS, method=Supervised()), task(), 1, planned=PLAN))


@pytest.mark.thorough
@any_method
def test_a_resumed_training_is_bit_identical_method_state_included(
    tmp_path, monkeypatch, method, supervised
):
    monkeypatch.setattr("handful.training.history.SAVE_EVERY", 0)

    @dataclass(frozen=True)
    class Interrupted(type(method)):
        def loss(self, model, batch):
            if batch.step == 7:
                raise KeyboardInterrupt
            return super().loss(model, batch)

    settings = replace(SETTINGS, method=method)
    straight = train_task(settings, task(), 1, planned=PLAN)
    with pytest.raises(KeyboardInterrupt):
        train_task(replace(settings, method=Interrupted(**vars(method))), task(), 1, tmp_path, PLAN)
    saved = read_tensors(tmp_path / "checkpoint.safetensors")[0]
    started = begin(method, task(), SCHEDULE, 1).method_state
    for key in set(started) - CONSTANT:
        assert not torch.equal(saved[f"memory/{key}"], started[key]), key
    resumed = train_task(settings, task(), 1, tmp_path)
    assert same(weights(straight), weights(resumed))
    assert without_time(straight.history) == without_time(resumed.history)
    assert set(weights(straight)) == set(supervised)


@every_method
def test_method_state_is_neither_averaged_nor_shared_between_runs(method):
    assert isinstance(method, Stateful)
    first, second = (begin(method, task(), SCHEDULE, 0) for _ in range(2))
    for _ in train(first, method, Batches(task(), method.views(task()), SCHEDULE, 0), SCHEDULE):
        break
    assert not torch.equal(first.method_state["guessed"], second.method_state["guessed"])
    assert not any("guessed" in key for key in first.average.model.state_dict())


@any_method
def test_without_unlabeled_images_training_is_bit_identical_to_supervised(method):
    images = stripes(16, labeled=16)
    ours = train_task(replace(SETTINGS, method=method), task(images), 0, planned=PLAN)
    plain = replace(SETTINGS, method=Supervised())
    theirs = train_task(plain, task(images), 0, planned=PLAN)
    assert same(weights(ours), weights(theirs))


def test_averaged_weights_are_evaluated_with_batch_norm_statistics_of_their_own():
    method, given = FixMatch(threshold=0.0), task()
    state = begin(method, given, SCHEDULE, 0)
    kept = [copy.deepcopy(state.model.state_dict())]
    for progress in train(
        state, method, Batches(given, method.views(given), SCHEDULE, 0), SCHEDULE
    ):
        kept.append(copy.deepcopy(progress.state.model.state_dict()))
    name = next(key for key in kept[0] if key.endswith("running_var"))
    expected = kept[0][name].double()
    for step, one in enumerate(kept[1:], 1):
        decay = min(SCHEDULE.average, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * one[name].double()
    averaged = state.average.model.state_dict()[name]
    torch.testing.assert_close(averaged.double(), expected, rtol=1e-5, atol=0)
    assert not torch.allclose(averaged, kept[-1][name], rtol=1e-3)


QUICK = {"steps": "4", "batch": "8", "backbone.base": "8"}


@any_method
@pytest.mark.parametrize("classes, labeled, n", [(2, 4, 40), (3, 7, 40), (2, 30, 33)])
def test_few_classes_and_fewer_unlabeled_than_labeled_images(method, classes, labeled, n):
    images = stripes(n, classes=classes, labeled=labeled)
    run = handful.fit(images, method, settings=QUICK, precision="fp32", estimate="none")
    assert run.predict(images).probabilities.shape == (n, classes)
    assert run.record["training"]["steps"] == 4


def unbalanced():
    """Three classes with ten, five and one labels."""
    images = stripes(48, classes=3, labeled=30)
    labels = images.labels.copy()
    labels[np.flatnonzero(labels == 1)[5:]] = -1
    labels[np.flatnonzero(labels == 2)[1:]] = -1
    return images.with_labels(labels)


@any_method
def test_unbalanced_labels_and_a_class_with_one(method):
    run = handful.fit(unbalanced(), method, settings=QUICK, precision="fp32", estimate="none")
    assert run.record["data"]["labeled"] == 16


def test_logs_are_in_the_history_and_on_screen(tmp_path):
    said = []
    images = stripes()
    run = handful.fit(
        images,
        "fixmatch",
        settings=QUICK | {"looks": "2", "threshold": "0.4"},
        precision="fp32",
        estimate="none",
        out=tmp_path / "run",
        reporter=Reporter(say=said.append),
    )
    lines = [json.loads(x) for x in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 4]
    last = lines[-1]
    assert last["kept"] > 0
    watched = {"labeled", "unlabeled", "kept", "agreement", "prior_distance", "pseudo_0"}
    assert watched <= set(last)
    prior = np.bincount(images.labels[images.labeled]) / len(images.labeled)
    apart = [abs(last[f"pseudo_{k}"] - prior[k]) for k in range(2)]
    most = int(np.argmax(apart))
    shares = f"{run.classes[most]}: {last[f'pseudo_{most}']:.0%}, of the labels {prior[most]:.0%}"
    (line,) = [text for text in said if text.startswith("step 4 of 4")]
    assert line.startswith(
        f"step 4 of 4: loss {last['labeled']:.3f} on labelled and {last['unlabeled']:.3f} on "
        f"unlabelled images, {last['kept']:.0%} of them used; views agree on "
        f"{last['agreement']:.0%}; class shares of pseudo-labels off by "
        f"{last['prior_distance']:.0%} ({shares}); "
    )


@pytest.mark.thorough
def test_an_estimate_works_with_a_class_of_one_label():
    run = handful.fit(unbalanced(), "fixmatch", settings=QUICK, precision="fp32")
    assert run.estimate is not None


def test_the_prior_follows_the_labels():
    prior = FixMatch().state(task(unbalanced()))["prior"]
    assert prior.tolist() == pytest.approx([11 / 19, 6 / 19, 2 / 19])


@any_method
def test_unlabeled_images_of_other_classes_do_no_harm_to_the_loop(method):
    rng = np.random.default_rng(0)
    images = stripes(60, classes=4, labeled=60)
    known = images.labels < 2
    labels = np.where(known & (rng.random(60) < 0.5), images.labels, -1)
    two = replace(images, classes=images.classes[:2], labels=labels)
    run = handful.fit(two, method, settings=QUICK, precision="fp32", estimate="none")
    assert run.predict(two).probabilities.shape == (60, 2)


@every_method
def test_a_network_with_learned_weights_starts_with_a_fitted_head(tmp_path, monkeypatch, method):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    images = stripes(channels=3, size=32)
    learned = task(images, backbone=BackboneSpec("lite0"))
    found = fresh(method, learned, 0)
    random = fresh(replace(method, first_head="random"), learned, 0)
    with seeds.seeded(0):
        plain = classifier(learned)
    expected = fitted_head(plain, learned)
    assert torch.equal(found.head.weight, expected.weight)
    assert torch.equal(found.head.bias, expected.bias)
    assert torch.equal(random.head.weight, plain.head.weight)
    assert same(found.backbone.state_dict(), random.backbone.state_dict())
    with torch.inference_mode():
        shown = learned.pixels[learned.labeled].float() / 255
        assert (found.eval()(shown).argmax(dim=1) == learned.labels[learned.labeled]).all()


def test_a_network_pre_trained_without_labels_starts_with_a_fitted_head_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    given = task()
    weights_before = fresh(FixMatch(), given, 5).backbone.state_dict()
    learned = task(init=Init(weights_before, (0.5,), (0.25,), "made here"))
    found = fresh(FixMatch(), learned, 0)
    assert torch.equal(found.head.weight, fitted_head(classifier(learned), learned).weight)


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norms_keep_the_statistics_of_learned_weights_only_when_frozen(
    tmp_path, monkeypatch, frozen
):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    spec = BackboneSpec("lite0")
    learned = task(stripes(channels=3, size=32), backbone=spec)
    schedule = replace(SCHEDULE, steps=2, lr=1e-3)
    settings = Settings(FixMatch(frozen_norm=frozen), schedule, spec, precision="fp32")
    after = weights(train_task(settings, learned, 0, planned=PLAN))
    before = fresh(settings.method, learned, 0).state_dict()
    statistics = [name for name in before if name.endswith(("running_mean", "running_var"))]
    assert statistics
    for name in statistics:
        assert torch.equal(before[name], after[name]) == frozen, name
    assert not torch.equal(
        before["backbone.network.bn1.weight"], after["backbone.network.bn1.weight"]
    )


def test_labels_of_one_class_leave_the_first_head_random():
    """A fold of two labels has one to learn from."""
    images = stripes(channels=3, size=32).seen(np.array([0]))
    given = task(images, backbone=BackboneSpec("lite0"))
    random = fresh(FixMatch(first_head="random"), given, 0)
    assert same(fresh(FixMatch(), given, 0).state_dict(), random.state_dict())


@every_method
def test_small_networks_start_with_the_random_head_of_before(method):
    found = fresh(method, task(), 3)
    with seeds.seeded(3):
        plain = classifier(task())
    assert same(found.state_dict(), plain.state_dict())


def test_a_pretrained_network_with_random_weights_starts_with_a_random_head():
    images = stripes(channels=3, size=32)
    random = task(images, backbone=BackboneSpec("lite0", {"pretrained": False}))
    settings = Settings(FixMatch(), SCHEDULE, random.backbone)
    assert "first_head" not in settings.identity(random)["method"]
    found = fresh(FixMatch(), random, 3)
    with seeds.seeded(3):
        plain = classifier(random)
    assert same(found.state_dict(), plain.state_dict())
    with pytest.raises(ValueError, match="first_head=linear needs learned weights"):
        FixMatch(first_head="linear").build(random)


def test_a_fitted_head_needs_learned_weights():
    with pytest.raises(ValueError, match="first_head=linear needs learned weights, .*'small'"):
        FixMatch(first_head="linear").build(task())
    with pytest.raises(ValueError, match="frozen_norm=true needs learned weights, .*'small'"):
        FixMatch(frozen_norm=True).build(task())
    with pytest.raises(ValueError, match="first_head is auto, linear or random, got 'zero'"):
        UDA(first_head="zero")


def test_impossible_settings_are_refused_when_made():
    for wrong, text in [
        (lambda: FixMatch(threshold=2), "threshold is a probability, got 2"),
        (lambda: FixMatch(unlabeled_ratio=0), "got 0; to train without unlabelled images use"),
        (lambda: UDA(unlabeled_weight=-1), "unlabeled_weight must be 0 or more, got -1"),
        (lambda: UDA(temperature=0), "temperature must be above 0, got 0"),
        (lambda: UDA(annealing="cubic"), "no annealing 'cubic'; choose one of none, linear, log"),
        (lambda: PseudoLabel(rise_from=0.7, rise_to=0.5), "0 <= from <= to <= 1, got 0.7 and 0.5"),
        (lambda: MeanTeacher(rise=1.5), "rise is a share of the steps, got 1.5"),
        (lambda: SoftMatch(keep=1.0), r"keep lies in \[0, 1\), got 1.0"),
    ]:
        with pytest.raises(ValueError, match=text):
            wrong()


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError):
        Consistency()
