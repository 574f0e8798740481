import copy
import os
import signal
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import handful.training.trainer
from handful.files import read_tensors
from handful.methods.base import Batch, Step, Views, classifier
from handful.methods.class_shares import wanted_shares
from handful.methods.fixmatch import FixMatch
from handful.methods.schedule import Schedule
from handful.methods.supervised import Supervised
from handful.models.classifier import BackboneSpec
from handful.pipeline.cross_validate import fold_predictor
from handful.pipeline.setup import validate
from handful.training.batches import Batches
from handful.training.loop import Diverged, State, fresh, train
from handful.training.optimizers import make_optimizer
from handful.training.plan import Plan, measure_plan
from handful.training.settings import Settings, make_fingerprint
from handful.training.trainer import train_task
from handful.training.weight_average import Average
from tiny import SCHEDULE, stripes, task

METHOD = Supervised(augment="none")
PLAN = Plan("fp32", 1, 0.01)
SETTINGS = Settings(METHOD, SCHEDULE, BackboneSpec("small", {"base": 8}), precision="fp32")


def weights(result):
    return result.predictor.model.state_dict()


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a) and a.keys() == b.keys()


def test_every_trainable_tensor_moves():
    before = copy.deepcopy(fresh(METHOD, task(), seed=0))
    state = State(fresh(METHOD, task(), seed=0), SCHEDULE)
    for _ in train(state, METHOD, Batches(task(), METHOD.views(task()), SCHEDULE, 0), SCHEDULE):
        pass
    for (name, old), new in zip(before.named_parameters(), state.model.parameters(), strict=True):
        assert not torch.equal(old, new), f"{name} did not move"


@pytest.mark.thorough
def test_a_tiny_set_can_be_overfitted():
    settings = replace(SETTINGS, schedule=replace(SCHEDULE, steps=60, average=0.9))
    history = train_task(settings, task(), seed=0).history
    assert history[0]["train_accuracy"] < 0.9
    assert history[-1]["train_accuracy"] == 1.0


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not():
    first, again, other = (train_task(SETTINGS, task(), seed) for seed in (3, 3, 4))
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))


def test_training_leaves_the_global_random_state_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train_task(SETTINGS, task(), seed=0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.usefixtures("in_the_foreground")
def test_control_c_saves_a_checkpoint_of_its_step(tmp_path):
    def track(items, total, description):
        for number, item in enumerate(items, 1):
            if number == 3:
                os.kill(os.getpid(), signal.SIGINT)
            yield item

    with pytest.raises(KeyboardInterrupt):
        train_task(SETTINGS, replace(task(), track=track), seed=0, folder=tmp_path, planned=PLAN)
    tensors, _ = read_tensors(tmp_path / "checkpoint.safetensors")
    assert int(tensors["step"]) == 3


@dataclass(frozen=True)
class Interrupted(Supervised):
    """Supervised, interrupted at step `at`."""

    at: int = 7

    def loss(self, model, batch):
        if batch.step == self.at:
            raise KeyboardInterrupt
        return super().loss(model, batch)


@pytest.mark.thorough
@pytest.mark.parametrize("backbone", ["small", "cnn", "fast", "resnet18"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_step_equals_that_of_the_unfused_optimizer(optimizer, backbone):
    schedule = Schedule(optimizer=optimizer, lr=0.01, weight_decay=0.1)
    torch.manual_seed(0)
    state = State(BackboneSpec(backbone).make(3, 32), schedule)
    reference = copy.deepcopy(state.model)
    groups = [
        {"params": [p for p in reference.parameters() if (p.ndim > 1) == matrix], "weight_decay": w}
        for matrix, w in ((True, 0.1), (False, 0.0))
    ]
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer]
    more = {"momentum": 0.9, "nesterov": True} if optimizer == "sgd" else {}
    plain = kind(groups, lr=0.01, foreach=False, fused=False, **more)
    images = torch.rand(8, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    for _ in range(3):
        state.optimizer.zero_grad()
        state.model(images).square().mean().backward()
        pairs = zip(state.model.parameters(), reference.parameters(), strict=True)
        for mine, other in pairs:
            other.grad = None if mine.grad is None else mine.grad.clone()
        state.optimizer.step()
        plain.step()
    for mine, other in zip(state.model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)  # steps are 0.01


@pytest.mark.thorough
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "lars"])
def test_a_resumed_training_is_bit_identical_to_an_uninterrupted_one(
    tmp_path, monkeypatch, optimizer
):
    monkeypatch.setattr("handful.training.history.SAVE_EVERY", 0)
    schedule = replace(SCHEDULE, optimizer=optimizer, warmup=0.2, clip=1.0)
    dropped = replace(SETTINGS, method=Supervised("digits", dropout=0.5), schedule=schedule)
    stopping = replace(dropped, method=Interrupted("digits", dropout=0.5))
    straight = train_task(dropped, task(), 1, planned=PLAN)
    with pytest.raises(KeyboardInterrupt):
        train_task(stopping, task(), 1, tmp_path, PLAN)
    assert read_tensors(tmp_path / "checkpoint.safetensors")[0]["step"] == 7
    resumed = train_task(dropped, task(), 1, tmp_path)
    assert same(weights(straight), weights(resumed))
    without_time = [{k: v for k, v in h.items() if k != "seconds"} for h in straight.history]
    assert without_time == [{k: v for k, v in h.items() if k != "seconds"} for h in resumed.history]


def test_a_finished_training_is_not_trained_again(tmp_path):
    first = train_task(SETTINGS, task(), 0, tmp_path)
    again = train_task(replace(SETTINGS, method=Interrupted(at=0)), task(), 0, tmp_path)
    assert same(weights(first), weights(again))


def test_batches_use_every_labeled_image_before_one_repeats():
    batches = Batches(task(), Views("none"), replace(SCHEDULE, batch=5), seed=0)
    seen = torch.cat([batches[step].ids for step in range(16)])  # 80 = 5 passes over 16
    for shuffle in seen.split(16):
        assert sorted(shuffle.tolist()) == list(range(16))
    assert len({tuple(shuffle.tolist()) for shuffle in seen.split(16)}) == 5  # in different orders


def test_unlabeled_views_show_equal_images_labeled_ones_included():
    batches = Batches(task(), Views("none", ("none", "digits"), unlabeled_ratio=5), SCHEDULE, 0)
    batch = batches[0]
    assert sorted(batch.unlabeled_ids.tolist()) == list(range(40))
    plain = task().pixels[batch.unlabeled_ids].float() / 255
    torch.testing.assert_close(batch.unlabeled[0], plain)
    assert batch.unlabeled[1].shape == plain.shape
    assert not torch.equal(batch.unlabeled[1], plain)


def test_the_average_starts_at_the_first_weights_and_follows_the_formula():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    average = Average(model, 0.9)
    expected, value = 1.0, 1.0
    for step in range(1, 12):
        value += 1.0
        nn.init.constant_(model.weight, value)
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    assert average.model.weight.item() == pytest.approx(expected, rel=1e-5)


class Counting(nn.Module):
    """A network with batch norm, and a buffer that is no statistic."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.register_buffer("bank", torch.zeros(3))


def test_the_average_includes_batch_norm_and_copies_other_buffers():
    model = Counting()
    average = Average(model, 0.5)
    with torch.no_grad():
        model.norm.running_mean.fill_(1.0)
        model.norm.num_batches_tracked.fill_(5)
        model.bank.fill_(2.0)
    average.update(step=100)
    assert average.model.norm.running_mean.tolist() == [0.5, 0.5]
    assert average.model.norm.num_batches_tracked.item() == 5
    assert average.model.bank.tolist() == [2.0, 2.0, 2.0]


def test_without_averaging_the_last_weights_are_kept():
    state = State(fresh(METHOD, task(), 0), replace(SCHEDULE, average=0.0))
    for _ in train(state, METHOD, Batches(task(), Views("none"), SCHEDULE, 0), SCHEDULE):
        pass
    assert same(state.model.state_dict(), state.average.model.state_dict())


def test_biases_and_norms_do_not_decay():
    groups = State(fresh(METHOD, task(), 0), SCHEDULE).optimizer.param_groups
    assert {group["weight_decay"] for group in groups} == {SCHEDULE.weight_decay, 0.0}
    for group in groups:
        assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])


@dataclass(frozen=True)
class Exploding:
    name: ClassVar[str] = "exploding"

    def schedule(self, task):
        return SCHEDULE

    def views(self, task):
        return Views("none")

    def build(self, task):
        return classifier(task)

    def loss(self, model: nn.Module, batch: Batch) -> Step:
        loss = model(batch.images).mean() * (float("inf") if batch.step == 2 else 1.0)
        return Step(loss, {"loss": loss})


def test_a_loss_that_is_not_finite_is_an_error_with_the_step_and_a_remedy():
    with pytest.raises(Diverged, match=r"at step 3 of 12 .*--set lr=0.002.*--set clip=1"):
        train_task(replace(SETTINGS, method=Exploding()), task(), seed=0)


def test_a_loss_that_is_not_finite_says_what_the_method_knows_to_try():
    class Knowing(Exploding):
        def advice(self, schedule):
            return "--set optimizer=adamw --set lr=1e-4"

    said = r"\); try --set optimizer=adamw --set lr=1e-4, or limit the gradient with --set clip=1"
    with pytest.raises(Diverged, match=said):
        train_task(replace(SETTINGS, method=Knowing()), task(), seed=0)


def test_validation_images_are_never_trained_on():
    held = task(validation=(0, 1, 2, 3))
    assert set(held.labeled.tolist()) == set(range(4, 16))
    assert set(held.training_pool.tolist()) == set(range(4, 40))


def test_patience_stops_early_and_keeps_the_best_weights(monkeypatch):
    parts = []
    monitor = handful.training.trainer.Monitor
    monkeypatch.setattr(
        "handful.training.trainer.Monitor",
        lambda task, precision: parts.append(task) or monitor(task, precision),
    )
    schedule = replace(
        SCHEDULE, steps=200, lr=0.1, looks=100, patience=2, average=0.0, validation=0.25
    )
    unlearnable = stripes()
    noise = np.random.default_rng(3).integers(0, 2, 40)
    images = unlearnable.with_labels(np.where(unlearnable.labels >= 0, noise, -1))
    result = train_task(replace(SETTINGS, schedule=schedule), task(images), seed=0)
    losses = [line["validation_loss"] for line in result.history]
    assert result.steps < 200
    assert losses.index(min(losses)) == len(losses) - 3
    held = torch.tensor(parts[0].validation)
    assert len(held) == 4
    with torch.no_grad():
        logits = result.predictor.model(task(images).pixels[held].float() / 255)
    loss = nn.functional.cross_entropy(logits, task(images).labels[held]).item()
    assert loss < losses[-1] - 0.01
    assert loss == pytest.approx(min(losses), rel=1e-4)


def test_the_gradient_is_clipped_to_the_norm_asked_for():
    schedule = replace(SCHEDULE, steps=1, lr=1.0, momentum=0.0, weight_decay=0.0, clip=0.01)
    state = State(fresh(METHOD, task(), 0), schedule)
    before = [p.detach().clone() for p in state.model.parameters()]
    for _ in train(state, METHOD, Batches(task(), Views("none"), schedule, 0), schedule):
        pass
    moved = [(p - q).flatten() for p, q in zip(state.model.parameters(), before, strict=True)]
    assert torch.cat(moved).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_held_out_images_are_not_in_the_training_pool_of_their_fold():
    seen = []

    @dataclass(frozen=True)
    class Looking(Supervised):
        def views(self, task):
            seen.append(task)
            return super().views(task)

    predict = fold_predictor(replace(SETTINGS, method=Looking(augment="none")), task(), 0, PLAN)
    chances = predict(np.arange(12), np.arange(12, 16), 5)
    assert chances.shape == (4, 2)
    names = set(seen[0].images.names)
    assert len(names) == 36
    assert not names & {"012.png", "013.png", "014.png", "015.png"}
    assert len(seen[0].labeled) == 12


def test_labels_in_neither_part_of_a_fold_are_not_trained_on():
    seen = []

    @dataclass(frozen=True)
    class Looking(Supervised):
        def views(self, task):
            seen.append(task)
            return super().views(task)

    predict = fold_predictor(replace(SETTINGS, method=Looking(augment="none")), task(), 0, PLAN)
    predict(np.arange(8), np.arange(12, 16), 5)  # 8 to 11 were dropped to keep classes even
    images = seen[0].images
    assert [images.names[i] for i in seen[0].labeled] == [f"{i:03}.png" for i in range(8)]
    assert {"008.png", "011.png"} <= set(images.names)  # without a label


def test_the_last_fit_and_the_folds_align_to_shares_of_labels_that_were_not_chosen():
    told = []

    @dataclass(frozen=True)
    class Looking:
        name: ClassVar[str] = "looking"
        aligns: ClassVar[bool] = True

        def fit_features(self, labeled, labels, unlabeled, num_classes, seed, shares=None):
            told.append((labeled, labels, unlabeled, shares))
            return nn.Linear(labeled.shape[1], num_classes)

    settings = replace(SETTINGS, method=Looking(), schedule=None)
    images = stripes()
    chosen = replace(images, origins=dict.fromkeys(images.names[1:16:2], "chosen"))
    assert task(chosen).counted.tolist() == [True, False] * 8
    train_task(settings, task(chosen), 0, planned=PLAN)
    fold_predictor(settings, task(chosen), 0, PLAN)(np.arange(12), np.arange(12, 16), 5)
    for (x, labels, u, shares), seed in zip(told, (0, 5), strict=True):
        assert torch.equal(shares, wanted_shares(None, x, labels, u, 2, seed, labels == 0))
        assert not torch.equal(shares, wanted_shares(None, x, labels, u, 2, seed))
    told.clear()
    train_task(settings, task(images), 0, planned=PLAN)
    assert told[0][3] is None  # where none was chosen, the method estimates them


def test_a_plan_is_measured_and_says_its_precision(monkeypatch, clock):
    plain = Supervised.loss

    def loss(self, model, batch):
        clock.now += 0.25
        return plain(self, model, batch)

    monkeypatch.setattr(Supervised, "loss", loss)
    found = measure_plan(METHOD, task(), SCHEDULE, seed=0, precision="fp32")
    assert found.precision == "fp32"
    assert found.seconds_per_step == pytest.approx(0.25)
    assert found.threads == torch.get_num_threads()


@pytest.mark.parametrize(
    ("timings", "precision", "seconds"),
    [
        ([0.10, 0.15, 0.11, 0.05], "bf16", 0.05),  # other work slowed the first steps in bf16
        ([0.10, 0.05, 0.11, 0.15], "bf16", 0.05),
        ([0.10, 0.095, 0.12, 0.15], "fp32", 0.10),  # bf16 has to save a tenth
        ([0.90, 0.30], "bf16", 0.30),  # long steps are timed once
    ],
)
def test_short_steps_are_timed_twice_and_the_faster_time_counts(
    monkeypatch, timings, precision, seconds, tmp_path
):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))  # no choice is remembered
    left = list(timings)
    monkeypatch.setattr("handful.devices.has_bf16", lambda: True)
    monkeypatch.setattr("handful.training.plan.time_step", lambda *_: left.pop(0))
    planned = measure_plan(Supervised(), task(), SCHEDULE, 0)
    assert (planned.precision, planned.seconds_per_step) == (precision, seconds)
    assert not left


def test_convolutions_run_in_bf16_if_the_plan_says_so():
    seen = []

    @dataclass(frozen=True)
    class Watching(Supervised):
        def loss(self, model, batch):
            hook = model.head.register_forward_hook(lambda m, a, out: seen.append(out.dtype))
            step = super().loss(model, batch)
            hook.remove()
            return step

    train_task(replace(SETTINGS, method=Watching(augment="none"), precision="bf16"), task(), seed=0)
    assert set(seen) == {torch.bfloat16}


def test_a_backbone_with_constants_is_normalised_by_them():
    model = classifier(task(backbone=BackboneSpec("cifar-cnn")))
    pixels = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1)
    assert model.normalize(pixels).flatten().tolist() == [-1, 0, 1]


def test_a_backbone_without_biases_gets_a_head_without_one():
    assert classifier(task(backbone=BackboneSpec("cifar-cnn"))).head.bias is not None
    plain = classifier(task(backbone=BackboneSpec("cifar-cnn", {"bias": False})))
    assert not [name for name, _ in plain.named_parameters() if name.endswith("bias")]


def test_normalisation_happens_once_with_the_constants_of_the_data():
    images = stripes(channels=3)
    model = classifier(task(images=images))
    pixels = images.at(8).float() / 255
    normal = model.normalize(pixels)
    torch.testing.assert_close(normal.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-5, rtol=0)


@dataclass(frozen=True)
class LabelBlind(Supervised):
    """Uses unlabelled views only, and asserts that a batch has no labels."""

    def views(self, task):
        return Views(None, ("none", "digits"), unlabeled_ratio=1)

    def loss(self, model, batch):
        assert batch.images.shape == (0, 1, 8, 8) and batch.labels.shape == (0,)
        spread = model(torch.cat(batch.unlabeled)).square().mean()
        return Step(spread, {"loss": spread})


def test_a_method_that_uses_no_label_trains_on_a_set_without_labels():
    images = stripes(labeled=0)
    batches = Batches(task(images), LabelBlind().views(task(images)), SCHEDULE, seed=0)
    assert batches.images_per_step == 16
    state = State(fresh(LabelBlind(), task(images), 0), SCHEDULE)
    assert len(list(train(state, LabelBlind(), batches, SCHEDULE))) == SCHEDULE.steps


def test_the_backbone_can_be_trained_at_a_lower_rate():
    schedule = replace(SCHEDULE, backbone_rate=0.0, steps=2)
    state = State(fresh(METHOD, task(), 0), schedule)
    before = copy.deepcopy(dict(state.model.named_parameters()))
    for _ in train(state, METHOD, Batches(task(), METHOD.views(task()), schedule, 0), schedule):
        pass
    for name, now in state.model.named_parameters():
        assert torch.equal(now, before[name]) == name.startswith("backbone."), name


def test_lars_adapts_weights_and_neither_biases_nor_norms():
    optimizer = make_optimizer(fresh(METHOD, task(), 0), replace(SCHEDULE, optimizer="lars"))
    for group in optimizer.param_groups:
        assert all((p.ndim > 1) == group["adapt"] for p in group["params"])
        assert group["adapt"] or group["weight_decay"] == 0


def test_layer_decay_is_refused_before_a_network_is_trained_that_does_not_say_its_layers():
    settings = replace(SETTINGS, schedule=replace(SCHEDULE, layer_decay=0.9))
    with pytest.raises(ValueError, match="Small does not"):
        validate(settings, task(), seed=0)


def test_a_share_of_the_first_weights_and_statistics_is_mixed_into_the_average():
    model = Counting()
    average = Average(model, 0.0, start_share=0.25)
    with torch.no_grad():
        model.norm.weight.fill_(3.0)  # 1 at the start
        model.norm.running_mean.fill_(8.0)  # 0
        model.norm.running_var.fill_(2.0)  # 1
        model.norm.num_batches_tracked.fill_(5)
        model.bank.fill_(2.0)
    average.update(step=1)
    mixed = average.mixed
    assert mixed.norm.weight.tolist() == [2.5, 2.5]
    assert mixed.norm.running_mean.tolist() == [6.0, 6.0]
    assert mixed.norm.running_var.tolist() == [1.75, 1.75]
    assert mixed.norm.num_batches_tracked.item() == 5
    assert mixed.bank.tolist() == [2.0, 2.0, 2.0]
    assert average.model.norm.weight.tolist() == [3.0, 3.0]  # which the training goes on with
    assert not mixed.training and not mixed.norm.weight.requires_grad


@dataclass(frozen=True)
class Anchored(Interrupted):
    """Supervised with a share of its first weights in the saved ones; interrupted at step `at`."""

    at: int = -1
    start_share: float = 0.4
    other: bool = False  # the network is built with other weights

    def build(self, task):
        if self.other:
            torch.manual_seed(99)
        return super().build(task)


def anchored(**changes):
    return replace(SETTINGS, method=Anchored("digits", **changes))


def test_with_a_share_of_0_nothing_changes(tmp_path):
    plain = replace(SETTINGS, method=Supervised("digits"))
    assert same(
        weights(train_task(plain, task(), 1, planned=PLAN)),
        weights(train_task(anchored(start_share=0.0), task(), 1, tmp_path, PLAN)),
    )
    tensors, _ = read_tensors(tmp_path / "checkpoint.safetensors")
    assert {key.partition("/")[0] for key in tensors} == {
        "model", "average", "optimizer", "best", "step", "turns",
    }  # fmt: skip


def test_with_a_share_of_1_the_first_weights_are_evaluated_and_saved_in_folds_too():
    schedule = replace(SCHEDULE, validation=0.25)
    settings = replace(anchored(start_share=1.0), schedule=schedule)
    result = train_task(settings, task(), 1, planned=PLAN)
    first = fresh(settings.method, task(), 1).state_dict()
    saved = weights(result)
    trained = {key for key in first if not torch.equal(first[key], saved[key])}
    assert all(key.endswith("num_batches_tracked") for key in trained)
    assert len({line["validation_loss"] for line in result.history}) == 1
    assert len(result.history) > 2
    part = np.arange(12), np.arange(12, 16)
    chances = fold_predictor(anchored(start_share=1.0), task(), 0, PLAN)(*part, 5)
    untrained = replace(settings, schedule=replace(SCHEDULE, steps=0))
    assert np.array_equal(chances, fold_predictor(untrained, task(), 0, PLAN)(*part, 5))
    assert not np.array_equal(chances, fold_predictor(anchored(), task(), 0, PLAN)(*part, 5))


def test_the_average_itself_teaches_where_a_share_of_the_start_is_saved():
    pure = train_task(anchored(start_share=0.0), task(), 1, planned=PLAN)
    mixed = train_task(anchored(), task(), 1, planned=PLAN)
    first = fresh(Anchored("digits"), task(), 1).state_dict()
    for key, value in weights(mixed).items():
        if not key.endswith("num_batches_tracked"):
            expected = torch.lerp(weights(pure)[key], first[key], 0.4)
            torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("other", [False, True])
def test_a_resumed_training_has_the_first_weights_of_its_first_session(
    tmp_path, monkeypatch, other
):
    monkeypatch.setattr("handful.training.history.SAVE_EVERY", 0)
    straight = train_task(anchored(), task(), 1, planned=PLAN)
    with pytest.raises(KeyboardInterrupt):
        train_task(anchored(at=7), task(), 1, tmp_path, PLAN)
    resumed = train_task(anchored(other=other), task(), 1, tmp_path)
    assert same(weights(straight), weights(resumed))
    without_time = [{k: v for k, v in h.items() if k != "seconds"} for h in straight.history]
    assert without_time == [{k: v for k, v in h.items() if k != "seconds"} for h in resumed.history]
    again = train_task(anchored(at=0), task(), 1, tmp_path)  # finished: nothing is trained
    assert same(weights(straight), weights(again))


@pytest.mark.parametrize(
    "method, backbone, before",
    [
        (FixMatch(), "small", "a889f9a69ec9067a770f77cd9be901cbd32ebe45786acd92e889cec8ca0e7b0c"),
        (Supervised(), "small", "8bba56222cc729b32ace3c5b485ec2e92bc9b6fa10966a95e82d50c32bedaaf0"),
    ],
)
def test_settings_of_before_have_the_fingerprint_of_before(method, backbone, before):
    """Unfinished runs are resumed by it, and results of a comparison are found by it."""
    spec = BackboneSpec(backbone)
    settings = Settings(method, Schedule(), spec)
    given = task(backbone=spec)
    assert make_fingerprint(settings.identity(given)) == f"sha256:{before}"
    other = replace(settings, schedule=Schedule(layer_decay=0.9))
    assert make_fingerprint(other.identity(given)) != f"sha256:{before}"
    assert set(settings.as_json()["schedule"]) == {one.name for one in fields(Schedule)}


def test_a_first_head_that_is_fitted_now_has_a_fingerprint_of_its_own():
    spec = BackboneSpec("lite0")
    ours = Settings(FixMatch(), Schedule(), spec)
    assert ours.identity(task(backbone=spec))["method"]["first_head"] == "auto"
    assert not {"first_head", "frozen_norm"} & set(ours.identity(task())["method"])
    frozen = replace(ours, method=FixMatch(frozen_norm=True))
    assert frozen.identity(task())["method"]["frozen_norm"]
