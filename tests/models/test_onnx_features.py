import numpy as np
import pytest
import torch
from PIL import Image

import handful
from handful import devices, models
from handful.data.imageset import ImageSet
from handful.data.store import array_store
from handful.models import make
from handful.models.classifier import BackboneSpec, Classifier, Normalize, Predictor
from handful.models.engine import ONNX_RUNTIME, TORCH, engine_of, forward, has_graph, resolved
from handful.models.feature_cache import features
from tiny import stripes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))


def network(name: str = "lite0", channels: int = 3, size: int = 64, **options) -> Classifier:
    backbone = make(name, channels, size, **options)
    return Classifier(backbone, 2, Normalize(list(backbone.mean), list(backbone.std))).eval()


def pixels(n: int, channels: int = 3, size: int = 64) -> torch.Tensor:
    own = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8, generator=own)


def of_torch(model: Classifier, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.features(images.float() / 255)


@pytest.mark.parametrize(
    "name, channels, size, stages",
    [("lite0", 3, 64, 1), ("lite0", 1, 64, 3), ("lite0", 3, 75, 8), ("lite2", 3, 50, 3)],
)
def test_features_of_onnx_runtime_are_those_of_torch(name, channels, size, stages):
    model = network(name, channels, size, stages=stages)
    images = pixels(5, channels, size)
    wanted = of_torch(model, images)
    torch.testing.assert_close(model.runner()(images), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
def test_features_of_onnx_runtime_are_those_of_torch_for_lite1():
    model, images = network("lite1", stages=2), pixels(3)
    torch.testing.assert_close(
        model.runner()(images), of_torch(model, images), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_a_run_takes_grey_and_colour_images_as_it_was_trained(tmp_path, channels):
    images = stripes(30, channels=channels, size=16)
    run = handful.fit(images, "features", backbone="lite0", size=32, out=tmp_path / "run")
    grey, colour = Image.new("L", (16, 16), 90), Image.new("RGB", (16, 16), (200, 30, 90))
    same = {1: colour.convert("L"), 3: grey.convert("RGB")}[channels]
    other = {1: colour, 3: grey}[channels]
    wanted = run.predict(same).probabilities
    np.testing.assert_array_equal(run.predict(other).probabilities, wanted)
    several = run.predict([other, grey, colour]).probabilities
    np.testing.assert_allclose(several[:1], wanted, rtol=1e-5)


@pytest.mark.parametrize("int8", [False, True])
def test_features_have_the_same_bits_in_any_batch(int8):
    model, images = network(stages=2), pixels(9)
    run = model.runner(int8)
    assert torch.equal(torch.cat([run(part) for part in images.split(1)]), run(images))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_features_have_the_same_bits_and_order_with_any_number_of_threads(precision, monkeypatch):
    model, images = network(stages=2), pixels(9)
    together = forward(model, precision, 4)(images)
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        run = forward(model, precision, 4)
        assert run.threads == threads
        assert torch.equal(torch.cat(list(run.each(images.split(2)))), together)


def test_torch_computes_one_batch_after_the_other():
    model = Classifier(make("small", 3, 8), 2, Normalize([0.5], [0.5])).eval()
    batches = pixels(4, size=8).split(2)
    run = forward(model, "fp32", 2)
    assert run.threads == 1
    assert torch.equal(torch.cat(list(run.each(batches))), run(torch.cat(batches)))


def test_weights_that_have_changed_are_used():
    model, images = network(), pixels(2)
    before = model.runner()(images)
    torch.nn.init.zeros_(model.backbone.network.conv_head.weight)
    after = model.runner()(images)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, of_torch(model, images), rtol=1e-4, atol=1e-5)


def test_onnx_runtime_takes_lite_networks_on_a_processor_in_32_bits(monkeypatch):
    lite, small = network(), Classifier(make("small", 3, 8), 2, Normalize([0.5], [0.5]))
    assert has_graph(lite) and not has_graph(small) and not has_graph(lite.backbone)
    assert engine_of(lite, "fp32") == ONNX_RUNTIME
    assert engine_of(lite, "bf16") == engine_of(small, "fp32") == TORCH
    monkeypatch.setattr(devices, "device", lambda: torch.device("cuda"))
    assert engine_of(lite, "fp32") == TORCH
    assert engine_of(lite, "int8") == ONNX_RUNTIME  # a run answers alike on any machine


def test_joined_networks_have_a_graph_where_each_of_them_has_one():
    both = network("lite0+lite2")
    assert has_graph(both) and all(map(has_graph, both.each()))
    assert models.has_graph("lite0+lite2")
    assert not models.has_graph("lite0+timm:resnet18") and not models.has_graph("small")


def test_auto_is_the_fastest_that_graph_and_processor_allow(monkeypatch):
    monkeypatch.setattr(devices, "has_bf16", lambda: True)
    for fast, wanted in ((True, "int8"), (False, "fp32")):
        monkeypatch.setattr(devices, "has_fast_int8", lambda fast=fast: fast)
        assert resolved("auto", has_graph=True) == wanted
    assert resolved("auto") == resolved("bf16", has_graph=True) == "bf16"
    monkeypatch.setattr(devices, "device", lambda: torch.device("cuda"))
    assert resolved("auto", has_graph=True) == "bf16"
    with pytest.raises(ValueError, match="precision is auto, int8, bf16 or fp32, got 'half'"):
        resolved("half")
    with pytest.raises(ValueError, match="int8 is for features of lite0"):
        resolved("int8")


def test_features_of_all_precisions_are_kept_apart():
    store = array_store(pixels(3).numpy(), ["a", "b", "c"])
    images = ImageSet(store, np.arange(3), np.zeros(3, np.int64), ("a", "b"))
    model = network()
    model.head = torch.nn.Identity()
    found = {name: features(images, model, 64, precision=name) for name in ("int8", "fp32", "bf16")}
    for name, other in (("int8", "fp32"), ("fp32", "bf16"), ("bf16", "int8")):
        assert not torch.equal(found[name], found[other])
        assert torch.equal(features(images, model, 64, precision=name), found[name])


@pytest.mark.parametrize("fast, precision", [(True, "int8"), (False, "fp32")])
def test_a_run_says_what_computed_its_features(tmp_path, monkeypatch, fast, precision):
    monkeypatch.setattr(devices, "has_fast_int8", lambda: fast)
    run = handful.fit(stripes(24), "features", backbone="lite0", size=64, out=tmp_path / "run")
    assert run.record["training"]["precision"] == precision
    assert run.record["training"]["engine"] == ONNX_RUNTIME
    assert set(run.record["versions"]) == {"python", "torch", "onnxruntime"}


def test_a_trained_network_is_computed_by_torch():
    assert Predictor(network(), BackboneSpec("lite0"), ("a", "b"), 64, 3).engine == TORCH
