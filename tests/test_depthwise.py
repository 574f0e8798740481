"""The faster gradient of depthwise convolutions against PyTorch's own."""

import copy

import pytest
import torch
from torch import nn

from handful.backbones.depthwise import DepthwiseConv2d, DepthwiseConv2dSame, quicken


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
    quicken(fast)
    assert type(fast) is DepthwiseConv2d
    images = torch.randn(4, 6, 11, 11, dtype=torch.float64)
    for ours, theirs in zip(gradients(fast, images), gradients(plain, images), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_padding_is_tensorflows_where_it_was():
    layers = pytest.importorskip("timm.layers")
    plain = layers.create_conv2d(6, 6, 5, stride=2, padding="same", depthwise=True)
    fast = copy.deepcopy(plain)
    quicken(fast)
    assert type(fast) is DepthwiseConv2dSame
    images = torch.randn(2, 6, 12, 12)
    for ours, theirs in zip(gradients(fast, images), gradients(plain, images), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_bf16_values_stay_the_same_bits_and_the_gradient_gets_more_exact():
    plain = nn.Conv2d(8, 8, 5, 2, 2, groups=8, bias=False)
    fast = copy.deepcopy(plain)
    quicken(fast)
    images = torch.randn(16, 8, 13, 13)
    exact = gradients(copy.deepcopy(plain).double(), images.double())[2]
    with torch.autocast("cpu", torch.bfloat16):
        value, _, gradient = gradients(fast, images)
        expected, _, rough = gradients(plain, images)
    assert torch.equal(value, expected)
    assert gradient.dtype == torch.float32
    assert (gradient - exact).abs().mean() < (rough - exact).abs().mean()


def test_only_depthwise_convolutions_change_and_copies_are_independent():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.Conv2d(8, 8, 3, groups=8, padding_mode="reflect", padding=1),
    )
    names = list(network.state_dict())
    quicken(network)
    assert [type(m) is DepthwiseConv2d for m in network] == [False, True, False, False]
    assert list(network.state_dict()) == names
    other = copy.deepcopy(network)
    nn.init.zeros_(other[1].weight)
    assert network[1].weight.abs().sum() > 0
