"""The faster backward passes of convolutions, compared with PyTorch's own."""

import copy

import pytest
import torch
from torch import nn

from handful.models import fast_conv as module
from handful.models.blocks import Conv2dSame
from handful.models.fast_conv import (
    DepthwiseConv2d,
    DepthwiseConv2dSame,
    NarrowConv2d,
    side_by_side,
    use_fast_backward,
    use_plain_backward,
)


def gradients(network, images):
    images = images.clone().requires_grad_()
    output = network(images)
    output.square().sum().backward()
    return [output.detach(), images.grad, *(p.grad for p in network.parameters())]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (5, 2, 2), (5, 2, 0)])
def test_values_and_gradients_are_those_of_conv2d(kernel, stride, padding, bias):
    plain = nn.Conv2d(6, 6, kernel, stride, padding, groups=6, bias=bias).double()
    fast = copy.deepcopy(plain)
    use_fast_backward(fast)
    assert type(fast) is DepthwiseConv2d
    images = torch.randn(4, 6, 11, 11, dtype=torch.float64)
    for ours, theirs in zip(gradients(fast, images), gradients(plain, images), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_tensorflow_padding_stays():
    layers = pytest.importorskip("timm.layers")
    plain = layers.create_conv2d(6, 6, 5, stride=2, padding="same", depthwise=True)
    fast = copy.deepcopy(plain)
    use_fast_backward(fast)
    assert type(fast) is DepthwiseConv2dSame
    images = torch.randn(2, 6, 12, 12)
    for ours, theirs in zip(gradients(fast, images), gradients(plain, images), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_bf16_outputs_are_bit_identical_and_gradients_more_exact():
    plain = nn.Conv2d(8, 8, 5, 2, 2, groups=8, bias=False)
    fast = copy.deepcopy(plain)
    use_fast_backward(fast)
    images = torch.randn(16, 8, 13, 13)
    exact = gradients(copy.deepcopy(plain).double(), images.double())[2]
    with torch.autocast("cpu", torch.bfloat16):
        value, _, gradient = gradients(fast, images)
        expected, _, rough = gradients(plain, images)
    assert torch.equal(value, expected)
    assert gradient.dtype == torch.float32
    assert (gradient - exact).abs().mean() < (rough - exact).abs().mean()


@pytest.fixture
def amx(monkeypatch):
    monkeypatch.setattr("handful.devices.amx", lambda: True)


def narrow(plain):
    fast = copy.deepcopy(plain)
    use_fast_backward(fast)
    assert type(fast) is NarrowConv2d
    return fast


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("height", "width"), [(9, 9), (5, 7), (7, 3), (1, 1)])
def test_maps_side_by_side_change_no_gradient(amx, monkeypatch, height, width, bias):
    monkeypatch.setattr(module, "computes_in_bf16", lambda images: True)
    plain = nn.Conv2d(3, 5, 3, padding=1, bias=bias).double()
    fast = narrow(plain)
    images = torch.randn(11, 3, height, width, dtype=torch.float64)
    for ours, theirs in zip(gradients(fast, images), gradients(plain, images), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_maps_are_side_by_side_with_zeros_after_each():
    maps = torch.arange(1.0, 23.0).view(11, 1, 1, 2)  # 10 maps of 3 columns in a row of 32
    laid = side_by_side(maps)
    assert laid.shape == (2, 1, 1, 30)
    assert laid[0, 0, 0, :7].tolist() == [1, 2, 0, 3, 4, 0, 5]
    assert laid[1].flatten().tolist() == [21, 22, *[0] * 28]


def test_inputs_without_gradient_get_none(amx, monkeypatch):
    monkeypatch.setattr(module, "computes_in_bf16", lambda images: True)
    fast = narrow(nn.Conv2d(3, 5, 3, padding=1))
    fast(torch.randn(4, 3, 7, 7)).sum().backward()
    known = fast.weight.grad.clone()
    fast.weight.requires_grad_(False).grad = None
    images = torch.randn(4, 3, 7, 7, requires_grad=True)
    fast(images).sum().backward()
    assert known.abs().sum() > 0 and fast.weight.grad is None and images.grad is not None


def test_narrow_bf16_outputs_are_bit_identical_and_gradients_as_exact(amx):
    plain = nn.Conv2d(8, 16, 3, padding=1)
    fast = narrow(plain)
    images = torch.randn(50, 8, 7, 7)
    exact = gradients(copy.deepcopy(plain).double(), images.double())[2]
    with torch.autocast("cpu", torch.bfloat16):
        value, _, gradient, to_bias = gradients(fast, images)
        expected, _, rough, _ = gradients(plain, images)
    assert torch.equal(value, expected)
    assert gradient.dtype == to_bias.dtype == torch.float32
    assert (gradient - exact).abs().mean() < 1.5 * (rough - exact).abs().mean()


@pytest.mark.parametrize(("width", "precision"), [(7, None), (10, torch.bfloat16)])
def test_wide_maps_and_full_precision_use_pytorch(amx, monkeypatch, width, precision):
    monkeypatch.setattr(module._Narrow, "apply", lambda *_: pytest.fail("laid side by side"))
    fast = narrow(nn.Conv2d(3, 5, 3, padding=1))
    with torch.autocast("cpu", precision, enabled=precision is not None):
        fast(torch.randn(4, 3, 7, width))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 8, 5, padding=1),
        nn.Conv2d(4, 8, 3, padding=0),
        nn.Conv2d(4, 8, 3, padding=1, stride=2),
        nn.Conv2d(4, 8, 3, padding=1, groups=2),
        nn.Conv2d(4, 8, 3, padding=1, dilation=2),
        nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect"),
    ],
)
def test_other_convolutions_do_not_change(amx, layer):
    use_fast_backward(layer)
    assert type(layer) is nn.Conv2d


def test_without_amx_no_convolution_is_narrow(monkeypatch):
    monkeypatch.setattr("handful.devices.amx", lambda: False)
    layer = nn.Conv2d(4, 8, 3, padding=1)
    use_fast_backward(layer)
    assert type(layer) is nn.Conv2d


def test_only_depthwise_convolutions_change_and_copies_are_independent():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.Conv2d(8, 8, 3, groups=8, padding_mode="reflect", padding=1),
    )
    names = list(network.state_dict())
    use_fast_backward(network)
    assert [type(m) is DepthwiseConv2d for m in network] == [False, True, False, False]
    assert list(network.state_dict()) == names
    other = copy.deepcopy(network)
    nn.init.zeros_(other[1].weight)
    assert network[1].weight.abs().sum() > 0


def test_the_plain_backward_pass_comes_back_with_the_plain_layers():
    def layers():
        return nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1, groups=4), Conv2dSame(4, 4, 3, groups=4, stride=2)
        )

    network = layers()
    use_fast_backward(network)
    assert [type(layer).__name__ for layer in network] == ["DepthwiseConv2d", "DepthwiseConv2dSame"]
    use_plain_backward(network)
    assert [type(layer) for layer in network] == [nn.Conv2d, Conv2dSame]
