import copy
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
from handful.methods.base import Batch, Task, classifier
from handful.methods.class_shares import best_temperature
from handful.methods.fine_tuning import FineTuning, Student
from handful.methods.gaussian_mixture import GaussianMixture
from handful.methods.linear_head import Features
from handful.methods.schedule import Schedule, ScheduleProgress
from handful.methods.self_training import SelfTraining
from handful.models import feature_cache
from handful.models.classifier import BackboneSpec, Classifier, Normalize, embed
from handful.training.batches import Batches
from handful.training.loop import begin, train
from handful.training.optimizers import make_optimizer
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
    alone, both = (FineTuning(own_share=x, trained_layers="all") for x in (0.0, 0.5))
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


def test_class_shares_that_are_given_are_those_that_pseudo_labels_are_aligned_to(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    task = Task(photographs(), BackboneSpec("lite0"), size=32, shares=(0.8, 0.2))
    model = FineTuning(embed_size=32, first_head="random").build(task)
    assert model.prior.tolist() == pytest.approx([0.8, 0.2])


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
    labels_only = FineTuning(unlabeled_ratio=0, trained_layers="all", frozen_norm=False)
    shown = images.at(32).float() / 255
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


@pytest.mark.parametrize(
    "backbone, given, expected",
    [("lite2", "auto", "Joined"), ("lite2", "", "Lite2"), ("timm:resnet10t", "auto", "Timm")],
)
def test_by_default_both_lite_networks_teach_one_of_them(
    tmp_path, monkeypatch, backbone, given, expected
):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    calls = spied_embeddings(monkeypatch)
    task = Task(photographs(), BackboneSpec(backbone, {"pretrained": False}), size=32)
    FineTuning(embed_backbone=given, first_head="random").build(task)
    assert calls == [(expected, 32, 24)]


def test_without_unlabeled_images_no_features_are_computed():
    task = Task(photographs(), BackboneSpec("lite0", {"pretrained": False}), size=32)
    method = FineTuning(unlabeled_ratio=0)
    assert len(method.build(task).pseudo_labels) == 0
    assert method.views(task).unlabeled == ()


def trained_on_last_layers(images=None, backbone="lite0", **changes):
    """The task, the method, the network before training, and the result after three steps."""
    task = Task(images or photographs(), BackboneSpec(backbone), size=32)
    method = FineTuning(**changes)
    schedule = Schedule(steps=3, batch=6, lr=1e-2, optimizer="adamw", average=0.0, looks=1)
    settings = Settings(method, schedule, task.backbone, precision="fp32")
    before = method.build(task)
    result = train_task(settings, task, 0, planned=Plan("fp32", 1, 0.01))
    return task, method, before, result


def test_only_the_last_layers_are_trained_by_default(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    _, _, before, result = trained_on_last_layers()
    old, new = before.state_dict(), result.predictor.model.state_dict()
    changed = {name for name in old if not old[name].equal(new[name])}
    layers = {name.rsplit(".", 1)[0].removeprefix("backbone.network.") for name in changed}
    first = ("conv_stem", "bn1", *(f"blocks.{at}" for at in range(5)), "blocks.5.0")
    assert not [layer for layer in layers if layer.startswith(first)]
    last = ["blocks.5.1.conv_pw", "blocks.5.3.bn3", "blocks.6.0.conv_dw", "conv_head", "bn2"]
    assert set(last) <= layers and "head" in layers
    assert not [name for name in changed if "running" in name]


@pytest.mark.parametrize(
    "backbone, trained_layers, own_share",
    [("lite0", "auto", 0.5), pytest.param("lite2", "last", 0.0, marks=pytest.mark.thorough)],
)
def test_the_first_layers_keep_the_weights_of_the_pre_training_and_the_last_do_not(
    tmp_path, monkeypatch, backbone, trained_layers, own_share
):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    how = {"backbone": backbone, "trained_layers": trained_layers, "own_share": own_share}
    task, _, before, result = trained_on_last_layers(**how)
    pre_trained = classifier(task).backbone
    last = [name for layer in pre_trained.after_maps for name in names_of(pre_trained, layer)]
    after = result.predictor.model.backbone.state_dict()
    for name, weights in pre_trained.state_dict().items():
        if name not in last or "running" in name or "num_batches" in name:
            assert torch.equal(after[name], weights), name
        else:
            assert not torch.equal(after[name], weights), name
    trained = {
        name for name, weights in before.backbone.named_parameters() if weights.requires_grad
    }
    assert trained == set(last) & {name for name, _ in pre_trained.named_parameters()}
    assert not torch.equal(result.predictor.model.head.weight, before.head.weight)


def names_of(network, layer):
    """The names of the weights and buffers of a layer in the state of its network."""
    own = {weights.data_ptr() for weights in layer.state_dict().values()}
    return [name for name, weights in network.state_dict().items() if weights.data_ptr() in own]


def test_maps_give_the_logits_that_images_give(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    task, method, model, _ = trained_on_last_layers(own_share=0.0)
    model = model.eval()
    some = torch.tensor([20, 0, 7])
    with torch.inference_mode():
        found = model.logits(model.maps.at(some))
        expected = model(task.pixels[some].float() / 255)
    assert (found - expected).norm() < 0.02 * expected.norm()  # maps are in 16 bits
    assert model.maps.at(some).shape == (3, 192, 1, 1)


def test_steps_on_maps_are_those_on_images_that_are_only_mirrored(tmp_path, monkeypatch):
    """The reference trains on images, with the first layers frozen."""
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    monkeypatch.setattr(devices, "has_bf16", lambda: False)
    task = replace(Task(photographs(), BackboneSpec("lite0"), size=64), flips=False)
    schedule = Schedule(steps=3, batch=6, lr=1e-3, optimizer="adamw", average=0.0, looks=1)
    method, found = FineTuning(), []
    for trained_layers in ("last", "all"):
        method = FineTuning(
            trained_layers=trained_layers,
            **({"augment": "none"} if trained_layers == "all" else {}),
        )
        state = begin(method, task, schedule, 0)
        for part in state.model.backbone.network.blocks[:5]:
            part.requires_grad_(False)
        for module in (state.model.backbone.network.conv_stem, state.model.backbone.network.bn1):
            module.requires_grad_(False)
        state.model.backbone.network.blocks[5][0].requires_grad_(False)
        state.optimizer = make_optimizer(state.model, schedule)
        batches = Batches(task, method.views(task), schedule, 0)
        for _ in train(state, method, batches, schedule):
            pass
        with torch.inference_mode():
            found.append(state.average.model(task.pixels.float() / 255))
    one, other = found
    assert (one - other).norm() < 0.05 * other.norm()


def test_batches_of_positions_have_no_images_and_maps_are_mirrored_at_random(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    task = Task(photographs(size=64), BackboneSpec("lite0"), size=64)
    method = FineTuning(limit=5)
    model, schedule = method.build(task), Schedule(steps=3, batch=8)
    batches = Batches(task, method.views(task), schedule, 0)
    batch = batches[0]
    assert batch.images.numel() == 0 and batch.pixels is None and not batch.unlabeled
    assert "pixels" not in vars(task)
    assert len(batch.ids) == 8 and len(batch.unlabeled_ids) == 8 * 4
    assert batches.images_per_step == 40
    seen, plain, strong = model.inputs(batch)
    assert torch.equal(plain, model.maps.at(batch.unlabeled_ids))
    mirrored = [torch.equal(one, other.flip(-1)) for one, other in zip(plain, strong, strict=True)]
    same = [torch.equal(one, other) for one, other in zip(plain, strong, strict=True)]
    assert any(mirrored) and any(same) and all(np.logical_or(mirrored, same))
    model.maps.flips = False
    assert torch.equal(model.inputs(batch)[2], plain)


def test_of_many_images_a_sample_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    calls = spied_embeddings(monkeypatch)
    task = Task(photographs(), BackboneSpec("lite0"), size=32)
    method = FineTuning(limit=5)
    model, pool = method.build(task), method.views(task).pool
    assert len(pool) == 6 + 5 and set(range(6)) < set(pool.tolist())
    assert calls[-1] == ("Joined", 32, 11)
    known = model.pseudo_labels.sum(dim=1) > 0
    assert known.nonzero().flatten().tolist() == pool.tolist()
    everywhere = method.views(replace(task, validation=(0, 1))).pool.tolist()
    assert not {0, 1} & set(everywhere)
    assert FineTuning(trained_layers="all", limit=5).views(task).pool.tolist() == pool.tolist()


def test_all_folds_and_the_last_fit_use_one_sample():
    """Also where a fold holds labels out, and drops some to keep the classes even."""
    images, method = photographs(200), FineTuning(limit=50)
    images = replace(images, labels=np.where(np.arange(200) < 40, np.arange(200) % 2, -1))
    whole = Task(images, BackboneSpec("lite0"), size=32)
    names = np.array(images.names)
    of_all = set(names[method.views(whole).pool.numpy()])
    for held, dropped in ((np.arange(8), [9]), (np.arange(8, 16), [0, 1])):
        train = np.setdiff1d(np.arange(40), np.concatenate([held, dropped]))
        kept = np.setdiff1d(np.arange(200), held)
        fold = replace(whole, images=images.seen(train)[kept])
        own = set(np.array(fold.images.names)[method.views(fold).pool.numpy()])
        assert len(own - of_all) == 0 and len(own) <= len(train) + 50
    order = np.random.default_rng(0).permutation(200)  # of the files: a sample, not the first ones
    again = replace(whole, images=images[order])
    assert set(names[order][method.views(again).pool.numpy()]) == of_all


def test_maps_are_measured_on_the_device_that_computed_them(tmp_path, monkeypatch):
    """As on a GPU: computing features moves the layers away from the processor."""
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    real = feature_cache.compute_features

    def moving(images, network, *rest):
        real(images, network, *rest)
        network.to("meta")

    monkeypatch.setattr(feature_cache, "compute_features", moving)
    network = classifier(Task(photographs(), BackboneSpec("lite0"), size=32))
    layers = fine_tuning.FirstLayers(network.normalize, network.backbone)
    task = Task(photographs(), BackboneSpec("lite0"), size=32)
    found = fine_tuning.Maps(layers, task, torch.arange(6)).found
    assert found.shape == (6, 192, 1, 1) and found.device.type == "meta"


def test_the_trained_classifier_holds_no_maps(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    _, _, before, result = trained_on_last_layers()
    model = result.predictor.model
    assert type(model) is Classifier and not hasattr(model, "maps")
    assert model.state_dict().keys() == before.state_dict().keys()


def test_the_time_for_maps_is_known_before_they_are_made(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    monkeypatch.setattr(fine_tuning, "seconds_per_image", lambda *_, **__: 0.5)
    task = Task(photographs(), BackboneSpec("lite0"), size=32)
    method = FineTuning(limit=4, first_head="random")
    assert method.first_seconds(task) == 0.5 * 10
    assert FineTuning(trained_layers="all").first_seconds(task) == 0
    method.build(task)
    assert method.first_seconds(task) == 0
    assert replace(method, limit=9).first_seconds(task) == 0.5 * 5  # of those that are new


def test_networks_that_give_more_stages_than_maps_have_are_trained_whole():
    task = Task(photographs(), BackboneSpec("lite0", {"stages": 4}), size=32)
    assert FineTuning().views(task).images
    with pytest.raises(ValueError, match="with at most 3 stages"):
        FineTuning(trained_layers="last").views(task)


def test_augmentation_that_maps_cannot_have_is_refused():
    task = Task(photographs(), BackboneSpec("lite0"), size=32)
    with pytest.raises(ValueError, match="augment=digits needs trained_layers=all"):
        FineTuning(augment="digits").views(task)
    assert FineTuning(augment="digits", trained_layers="all").views(task).labeled == "digits"


def test_the_schedule_of_all_layers_is_longer():
    last, whole = (
        FineTuning().schedule(Task(photographs(), BackboneSpec(name), size=32))
        for name in ("lite2", "timm:resnet10t")
    )
    assert (last.steps, whole.steps) == (120, 480)


@pytest.mark.parametrize("trained_layers", ["last", "all"])
def test_labels_of_one_class_are_all_that_the_teacher_says(tmp_path, monkeypatch, trained_layers):
    """As in a fold of few labels."""
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    images = photographs().seen(np.array([1, 3, 5]))
    task = Task(images, BackboneSpec("lite0"), size=32)
    method = FineTuning(trained_layers=trained_layers)
    model = method.build(task)
    assert model.pseudo_labels.tolist() == [[0, 1]] * 24 and model.prior.tolist() == [0, 1]
    schedule = Schedule(steps=2, batch=2, lr=1e-3, optimizer="adamw", looks=1)
    settings = Settings(method, schedule, task.backbone, precision="fp32")
    result = train_task(settings, task, 0, planned=Plan("fp32", 1, 0.01))
    assert torch.isfinite(result.predictor.predict_proba(images)).all()


def test_copies_of_a_network_share_its_maps(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    model = FineTuning().build(Task(photographs(), BackboneSpec("lite0"), size=32))
    assert copy.deepcopy(model).maps is model.maps


def test_all_layers_of_networks_that_do_not_have_the_last_ones_apart():
    assert FineTuning().network(3, 64) == "lite2"
    task = Task(photographs(), BackboneSpec("timm:resnet10t"), size=32)
    assert FineTuning().views(task).images
    with pytest.raises(ValueError, match="trained_layers=last needs lite0, lite1 or lite2"):
        FineTuning(trained_layers="last").views(task)


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
    with pytest.raises(ValueError, match="trained_layers is auto, last or all, got 'first'"):
        FineTuning(trained_layers="first")
    with pytest.raises(ValueError, match="limit must be 1 or more, got 0"):
        FineTuning(limit=0)
    with pytest.raises(ValueError, match="first_head is linear or random, got 'zero'"):
        FineTuning(first_head="zero")
    with pytest.raises(ValueError, match=r"start_share lies in \[0, 1\], got -1"):
        FineTuning(start_share=-1)
    with pytest.raises(ValueError, match="start_share=0.5 needs a first head that is fitted"):
        FineTuning(start_share=0.5, first_head="random")
