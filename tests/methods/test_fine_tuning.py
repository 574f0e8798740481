from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from handful import devices
from handful.data.imageset import ImageSet
from handful.data.store import array_store
from handful.methods import fine_tuning, first_head
from handful.methods.base import Batch, Task
from handful.methods.class_shares import best_temperature
from handful.methods.fine_tuning import FineTuning, Student
from handful.methods.gaussian_mixture import GaussianMixture
from handful.methods.linear_head import Features
from handful.methods.schedule import Schedule, ScheduleProgress
from handful.methods.self_training import SelfTraining
from handful.models.classifier import BackboneSpec, Classifier, Normalize, embed
from handful.training.plan import Plan
from handful.training.settings import Settings
from handful.training.trainer import train_task


class Flat(nn.Module):
    """Pixels through a batch norm as features."""

    width = 4

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, images):
        return self.norm(images.flatten(1))


def student(frozen_norm=False, seed=0) -> Student:
    torch.manual_seed(seed)
    network = Classifier(Flat(), 3, Normalize([0.5], [0.5]))
    made = Student(network, frozen_norm)
    made.pseudo_labels = torch.tensor(
        [[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7], [0.9, 0.1, 0]]
    )
    made.prior = torch.full((3,), 1 / 3)
    return made


def batch(step=0, steps=10, averaged=None) -> Batch:
    images = torch.rand(12, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    return Batch(
        images[:4],
        torch.tensor([0, 1, 2, 0]),
        (images[4:8], images[8:]),
        torch.arange(4),
        torch.tensor([2, 1, 0, 3]),
        step,
        ScheduleProgress(steps),
        averaged,
    )


def test_at_first_the_strong_view_is_trained_on_the_pseudo_labels_of_the_head():
    model, given = student().eval(), batch()
    step = FineTuning(label_smoothing=0.0).loss(model, given)
    labeled = F.cross_entropy(model(given.images), given.labels)
    unlabeled = F.cross_entropy(model(given.unlabeled[1]), torch.tensor([2, 1, 0, 0]))
    torch.testing.assert_close(step.loss, labeled + unlabeled)
    assert step.logs["changed"] == 0


def test_without_the_average_no_plain_view_is_asked_for_and_the_loss_is_that_of_the_head():
    task = Task(photographs(), BackboneSpec("lite0", {"pretrained": False}), size=32)
    alone, both = FineTuning(own_share=0.0), FineTuning()
    assert (alone.views(task).unlabeled, both.views(task).unlabeled) == (
        ("strong",),
        ("none", "strong"),
    )
    model, given = student().eval(), batch()
    strong = given._replace(unlabeled=given.unlabeled[1:])
    torch.testing.assert_close(alone.loss(model, strong).loss, both.loss(model, given).loss)


def test_with_weight_zero_only_the_labels_count():
    model, given = student().eval(), batch()
    step = FineTuning(unlabeled_weight=0.0).loss(model, given)
    alone = FineTuning(unlabeled_ratio=0).loss(model, Batch(given.images, given.labels))
    torch.testing.assert_close(step.loss, alone.loss)


def test_at_the_end_the_average_gives_pseudo_labels_on_the_plain_view():
    model, average = student().eval(), student(seed=5)
    with torch.no_grad():
        average.head.weight.mul_(4)
        average.head.bias += torch.tensor([0.4, 0.0, 0.0])  # it predicts class 0 too often
    given = batch(step=10, averaged=average)
    step = FineTuning(own_share=1.0, label_smoothing=0.0, unlabeled_weight=1.0).loss(model, given)
    own = average.eval()(given.unlabeled[0]).softmax(dim=1)
    aligned = own / (own.sum(dim=0) + 1)  # four images, and a third of three for each class
    assert aligned.argmax(dim=1).tolist() != own.argmax(dim=1).tolist()
    unlabeled = F.cross_entropy(model(given.unlabeled[1]), aligned.argmax(dim=1))
    torch.testing.assert_close(step.logs["guessed"], unlabeled)
    assert step.logs["changed"] > 0


def test_no_gradient_reaches_the_average():
    model, average = student(), student(seed=5)
    FineTuning().loss(model, batch(step=5, averaged=average)).loss.backward()
    assert all(p.grad is None for p in average.parameters())
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norms_keep_their_statistics_only_when_frozen(frozen):
    model = student(frozen)
    before = model.backbone.norm.running_mean.clone()
    FineTuning().loss(model.train(), batch())
    assert torch.equal(model.backbone.norm.running_mean, before) == frozen
    assert model.training


def test_pseudo_labels_are_not_in_the_state_dict():
    plain = Classifier(Flat(), 3, Normalize([0.5], [0.5]))
    assert student().state_dict().keys() == plain.state_dict().keys()


def photographs(n=24, size=8) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 100, (n, 3, size, size), np.uint8)
    labels = np.arange(n) % 2
    pixels[labels == 1, 0] += 150  # the second class is red
    store = array_store(pixels, [f"{i:05}" for i in range(n)])
    return ImageSet(store, np.arange(n), labels, ("dark", "red")).seen(np.arange(6))


def test_the_head_gives_pseudo_labels_to_all_but_labelled_images(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    monkeypatch.setattr(devices, "has_fast_int8", lambda: False)  # random weights need 32 bits
    task = Task(photographs(), BackboneSpec("lite0", {"pretrained": False}), size=32)
    torch.manual_seed(0)  # of the random weights
    model = FineTuning(embed_size=32).build(task)
    assert model.pseudo_labels.shape == (24, 2)
    assert model.pseudo_labels[:6].tolist() == F.one_hot(torch.arange(6) % 2, 2).tolist()
    assert model.pseudo_labels.argmax(dim=1).tolist() == [0, 1] * 12
    assert model.prior.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("teacher", [GaussianMixture, SelfTraining])
def test_the_teacher_is_the_head_that_was_named(tmp_path, monkeypatch, teacher):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    task = Task(photographs(), BackboneSpec("lite0", {"pretrained": False}), size=32)
    taught = []
    real = teacher.fit_features

    def spying(self, *args, **more):
        taught.append(self.name)
        return real(self, *args, **more)

    monkeypatch.setattr(teacher, "fit_features", spying)
    FineTuning(embed_size=32, embed_head=teacher.name, first_head="random").build(task)
    assert taught == [teacher.name]


def spied_embeddings(monkeypatch):
    """Record the network and size of every call of `embed`."""
    calls = []

    def spying(images, network, size, *rest):
        calls.append((type(network.backbone).__name__, size, len(images)))
        return embed(images, network, size, *rest)

    for module in (fine_tuning, first_head):
        monkeypatch.setattr(module, "embed", spying)
    return calls


def test_the_trained_head_starts_as_a_fitted_one_at_the_temperature_found_out_of_fold(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    images = photographs()
    task = Task(images, BackboneSpec("lite0"), size=32)
    model = FineTuning(unlabeled_ratio=0).build(task).eval()
    found = embed(images, model, 32, "crop", "fp32").float()
    labels = task.labels[task.labeled]
    fitted = Features().fit_features(found[:6], labels, found[:0], 2, seed=0)
    with torch.inference_mode():
        logits, expected = model.head(found), fitted(found)
    scale = expected.norm() / logits.norm()
    assert best_temperature(found[:6].double(), labels, 2, 0) == pytest.approx(scale.item())
    torch.testing.assert_close(logits * scale, expected, atol=1e-3, rtol=1e-3)
    assert (logits[:6].argmax(dim=1) == labels).all()


def test_the_first_head_learns_nothing_of_images_set_aside_for_validation(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    calls = spied_embeddings(monkeypatch)
    task = Task(photographs(), BackboneSpec("lite0"), size=32, validation=(0, 1))
    FineTuning(unlabeled_ratio=0).build(task)
    assert calls == [("Lite0", 32, 4)]


def test_with_a_share_of_1_the_start_is_saved_and_answers_as_the_fitted_head(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    images = photographs()
    task = Task(images, BackboneSpec("lite0"), size=32)
    schedule = Schedule(steps=2, batch=6, lr=1e-2, optimizer="adamw", looks=1)
    labels_only, shown = FineTuning(unlabeled_ratio=0), images.at(32).float() / 255
    logits = []
    for share in (0.0, 0.5, 1.0):
        method = replace(labels_only, start_share=share)
        settings = Settings(method, schedule, task.backbone, precision="fp32")
        trained = train_task(settings, task, 0, planned=Plan("fp32", 1, 0.01))
        with torch.inference_mode():
            logits.append(trained.predictor.model(shown))
    with torch.inference_mode():
        expected = labels_only.build(task).eval()(shown)
    pure, half, start = ((found - expected).norm() / expected.norm() for found in logits)
    assert start < 1e-5 < 0.01 < half < pure


def test_a_random_first_head_is_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    calls = spied_embeddings(monkeypatch)
    task = Task(photographs(), BackboneSpec("lite0"), size=32)
    FineTuning(unlabeled_ratio=0, first_head="random").build(task)
    assert calls == []


def test_pseudo_labels_may_come_from_several_networks(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    calls = spied_embeddings(monkeypatch)
    task = Task(photographs(), BackboneSpec("lite0"), size=32)
    model = FineTuning(embed_size=48, embed_backbone="lite0+lite1").build(task)
    assert calls == [("Lite0", 32, 6), ("Joined", 48, 24)]
    assert type(model.backbone).__name__ == "Lite0"


def test_without_unlabeled_images_no_features_are_computed():
    task = Task(photographs(), BackboneSpec("lite0", {"pretrained": False}), size=32)
    method = FineTuning(unlabeled_ratio=0)
    assert len(method.build(task).pseudo_labels) == 0
    assert method.views(task).unlabeled == ()


def lite_task() -> Task:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), np.uint8)
    store = array_store(pixels, list("abcd"))
    images = ImageSet(store, np.arange(4), np.array([0, 1, 0, 1]), ("x", "y"))
    return Task(images, BackboneSpec("lite0"), 32)


def test_frozen_parts_keep_weights_and_statistics_and_the_others_are_trained():
    method = FineTuning(unlabeled_ratio=0, frozen_parts=3)
    model = method.build(lite_task()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    method.loss(model, Batch(images, torch.tensor([0, 1, 0, 1]))).loss.backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1).step()
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    frozen = ("conv_stem.", "bn1.", "blocks.0.", "blocks.1.")
    assert not [
        name for name in changed if name.startswith(tuple(f"backbone.network.{f}" for f in frozen))
    ]
    assert any(name.startswith("backbone.network.blocks.2.") for name in changed)
    assert "head.weight" in changed


def test_more_frozen_parts_than_there_are_and_other_networks_are_refused():
    with pytest.raises(ValueError, match="frozen_parts is 0 to 9 for 'lite0', got 10"):
        FineTuning(unlabeled_ratio=0, frozen_parts=10).build(lite_task())
    with pytest.raises(ValueError, match="frozen_parts=1 needs lite0, lite1 or lite2"):
        FineTuning(frozen_parts=1)._freeze(Flat(), "flat")


def test_a_backbone_without_learned_weights_is_refused():
    task = Task(photographs(), BackboneSpec("small"), size=8)
    with pytest.raises(ValueError, match="'small' has none; use --backbone lite0"):
        FineTuning().build(task)


def test_impossible_settings_are_refused_when_made():
    with pytest.raises(ValueError, match=r"own_share lies in \[0, 1\], got 2"):
        FineTuning(own_share=2)
    with pytest.raises(ValueError, match="unlabeled_ratio must be 0 or more, got -1"):
        FineTuning(unlabeled_ratio=-1)
    task = Task(photographs(), BackboneSpec("lite0"), size=32)
    with pytest.raises(ValueError, match="embed_backbone has no learned weights, got 'small'"):
        FineTuning(embed_backbone="small", first_head="random").build(task)
    with pytest.raises(
        ValueError, match="embed_head is gaussian_mixture or self_training, got 'me'"
    ):
        FineTuning(embed_head="me")
    with pytest.raises(ValueError, match="first_head is linear or random, got 'zero'"):
        FineTuning(first_head="zero")
    with pytest.raises(ValueError, match=r"start_share lies in \[0, 1\], got -1"):
        FineTuning(start_share=-1)
    with pytest.raises(ValueError, match="start_share=0.5 needs a first head that is fitted"):
        FineTuning(start_share=0.5, first_head="random")
