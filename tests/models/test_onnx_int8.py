"""Features in int8: the arithmetic of the graph, and what depends on it."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

import handful
from handful import devices
from handful.errors import HandfulError
from handful.models import make
from handful.models.classifier import Classifier, Normalize
from handful.models.onnx_features import graph, runner
from image_files import smooth
from tiny import stripes

FAST = devices.has_fast_int8()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))


def network(name: str = "lite0", channels: int = 3, **options) -> Classifier:
    backbone = make(name, channels, 64, **options)
    return Classifier(backbone, 2, Normalize(list(backbone.mean), list(backbone.std))).eval()


def photos(n: int) -> torch.Tensor:
    """(n, 3, 64, 64) uint8 that resemble photographs, unlike noise."""
    shown = np.stack([smooth(64, 64, seed=number) for number in range(n)])
    return torch.from_numpy(shown).permute(0, 3, 1, 2).contiguous()


def likeness(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The smallest cosine of rows."""
    return float(F.cosine_similarity(found, wanted, dim=1).min())


def in_integers(model: Classifier, pixels: torch.Tensor) -> list[torch.Tensor]:
    """The means of all stages, computed slowly in integers that float64 holds.

    Each value is kept as (whole number, scale, zero); a convolution sums products of whole numbers,
    and the sum is scaled and rounded to the next whole number, half to even.
    """
    net = model.backbone.network

    def bounds(mean, variance):
        reach = 4 * variance.sqrt()
        return min(float((mean - reach).min()), 0.0), max(float((mean + reach).max()), 0.0)

    def to_whole(real, low, high):
        scale = np.float64(np.float32((high - low) / 255))
        zero = round(-low / ((high - low) / 255))
        return (real / scale).round().add(zero).clamp(0, 255) - zero, scale

    def conv(x, scale, layer, norm, relu6):
        factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        weight = layer.weight.double() * factor.view(-1, 1, 1, 1)
        bias = norm.bias.double() - norm.running_mean.double() * factor
        each = (weight.abs().flatten(1).amax(dim=1) / 127).clamp_min(1e-12)
        whole = (weight / each.view(-1, 1, 1, 1)).round()
        size, (kernel, stride) = x.shape[-1], (layer.kernel_size[0], layer.stride[0])
        missing = max(0, (-(-size // stride) - 1) * stride + kernel - size)
        before = missing // 2
        x = F.pad(x, (before, missing - before, before, missing - before))
        sums = F.conv2d(x, whole, None, stride, 0, 1, layer.groups)
        sums = sums + (bias / (scale * each)).round().view(1, -1, 1, 1)
        mean, variance = norm.bias.double(), norm.weight.double() ** 2
        low, high = bounds(mean, variance)
        if relu6:
            low, high = 0.0, min(6.0, high)
        return *to_whole(sums * scale * each.view(1, -1, 1, 1), low, high), mean, variance

    with torch.no_grad():
        x = conv(pixels.double() - 127, 1 / 128, net.conv_stem, net.bn1, True)
        means = []
        for stage in net.blocks:
            for block in stage:
                before, (*inner, last) = x, block.layers
                for pair in inner:
                    x = conv(x[0], x[1], *pair, True)
                x = conv(x[0], x[1], *last, False)
                if block.adds:
                    mean, variance = x[2] + before[2], x[3] + before[3]
                    real = x[0] * x[1] + before[0] * before[1]
                    x = (*to_whole(real, *bounds(mean, variance)), mean, variance)
            means.append(x)
        means.append(conv(x[0], x[1], net.conv_head, net.bn2, True))
        return [(whole * scale).mean(dim=(2, 3)).float() for whole, scale, *_ in means]


def test_the_graph_computes_what_integers_do():
    model, images = network(), photos(4)
    run = runner(model.backbone.network, *model.constants, 8, int8=True)
    first, *found = run(images)
    wanted_first, *wanted = in_integers(model, images)
    torch.testing.assert_close(first, wanted_first, rtol=1e-3, atol=1e-3)
    # A sum that lies between two whole numbers may be rounded to the other one. That adds up.
    for one, other, least in zip(found, wanted, [0.9999] * 3 + [0.998] * 4, strict=True):
        assert likeness(one, other) > least


def test_weights_with_and_without_a_sign_are_the_same_numbers(monkeypatch):
    model, images = network(), photos(4)
    monkeypatch.setattr(devices, "has_fast_int8", lambda: False)
    without = model.runner(int8=True)(images)
    wanted = in_integers(model, images)[-1]
    assert likeness(without, wanted) > 0.998
    if not FAST:
        pytest.skip("signed weights overflow on this processor")
    monkeypatch.setattr(devices, "has_fast_int8", lambda: True)
    assert torch.equal(model.runner(int8=True)(images), without)


@pytest.mark.parametrize("name, stages", [("lite0", 1), ("lite0", 3), ("lite2", 1)])
def test_features_are_near_those_in_32_bits(name, stages):
    model, images = network(name, stages=stages), photos(6)
    found, wanted = model.runner(int8=True)(images), model.runner()(images)
    assert likeness(found, wanted) > 0.9
    assert likeness(found.flip(0), wanted) < 0.9  # other images are further away


def test_other_constants_of_the_normalisation_are_kept():
    model = network()
    model.normalize = Normalize([0.3, 0.4, 0.5], [0.2, 0.25, 0.3])
    images = photos(4)
    assert likeness(model.runner(int8=True)(images), model.runner()(images)) > 0.9


def test_every_scale_is_one_number_or_one_a_channel():
    """ONNX Runtime before 1.32 refuses others."""
    model = onnx.load_from_string(graph(network().backbone.network, *network().constants, 1, True))
    shape = {one.name: list(one.dims) for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            of_channels = node.attribute and node.attribute[0].name == "axis"
            for name in node.input[1:]:
                assert len(shape[name]) == (1 if of_channels else 0), node


def test_a_bias_far_above_its_weights_is_kept():
    model = network()
    norm = model.backbone.network.bn1
    with torch.no_grad():  # channels whose weights are next to nothing and whose bias decides
        norm.weight[:8] *= 1e-9
        norm.bias[:8] = torch.linspace(-3, 3, 8)
    images = photos(3)
    first = runner(model.backbone.network, *model.constants, 8, int8=True)(images)[0]
    wanted = runner(model.backbone.network, *model.constants, 8)(images)[0]
    assert likeness(first, wanted) > 0.9


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_weights_that_are_no_numbers_are_refused(value):
    model = network()
    with torch.no_grad():
        model.backbone.network.conv_stem.weight[0, 0, 0, 0] = value
    with pytest.raises(HandfulError, match="too large for int8"):
        model.runner(int8=True)


def test_a_deviation_of_0_is_refused():
    model = network()
    model.normalize = Normalize([0.5] * 3, [0.5, 0.0, 0.5])
    with pytest.raises(HandfulError, match="no mean and deviation"):
        model.runner(int8=True)


@pytest.fixture
def run(tmp_path):
    how = {"backbone": "lite0", "size": 32, "precision": "int8"}
    return handful.fit(stripes(30, size=16), "features", out=tmp_path / "run", **how)


def test_a_run_answers_with_the_same_bits_on_a_machine_without_fast_int8(run, monkeypatch):
    images = stripes(20, size=16)
    wanted = run.predict(images).probabilities
    monkeypatch.setenv("HANDFUL_CACHE", str(run.folder.parent / "elsewhere"))
    monkeypatch.setattr(devices, "has_fast_int8", lambda: False)
    monkeypatch.setattr(devices, "has_bf16", lambda: False)
    again = handful.open_run(run.folder)
    assert again.predictor.precision_here() == "int8"
    assert torch.equal(again.predict(images).probabilities, wanted)


def test_a_network_without_a_graph_is_not_opened_in_int8(run, tmp_path):
    weights = run.folder / "model.safetensors"
    with safe_open(weights, "pt") as file:
        about, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}
    for key, text in about.items():
        if '"frozen"' in text:
            about[key] = json.dumps({**json.loads(text), "frozen": False})
    broken = tmp_path / "broken"
    shutil.copytree(run.folder, broken)
    save_file(tensors, broken / "model.safetensors", about)
    with pytest.raises(HandfulError, match="cannot be computed in int8"):
        handful.open_run(broken).predict(stripes(20, size=16))
