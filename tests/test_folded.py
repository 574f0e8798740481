"""Batch norms folded into the convolutions before them: the same features, fewer layers."""

import copy

import pytest
import torch
from torch import nn

from handful import backbones
from handful.backbones.folded import folded


def stirred(network: nn.Module) -> nn.Module:
    """The network with batch norms that do something."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.data += torch.rand(tensor.shape, generator=generator)
    return network.eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def noise(channels: int, size: int) -> torch.Tensor:
    return torch.rand(3, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "options", "left"),
    [
        ("lite0", {"stages": 3}, 0),
        ("small", {}, 0),
        ("cifar-cnn", {"norm": True}, 3),
        ("resnet18", {}, 0),
    ],
)
def test_folding_changes_no_feature_and_leaves_only_norms_that_follow_no_convolution(
    name: str, options: dict[str, int], left: int
) -> None:
    network = stirred(backbones.make(name, 3, 32, **options))
    before, images = copy.deepcopy(network.state_dict()), noise(3, 32)
    faster = folded(network, images[:2])
    assert norms(faster) == left
    with torch.inference_mode():
        torch.testing.assert_close(faster(images), network(images), rtol=1e-4, atol=1e-4)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


class Twice(nn.Module):
    """One convolution used twice, and a convolution whose output goes past its norm too."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(3, 3, 1)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.second(self.shared(self.first(self.shared(images))))
        y = self.convolution(x)
        return (y + self.norm(y)).mean(dim=(2, 3))


def test_where_folding_would_compute_something_else_the_network_stays_as_it_is() -> None:
    network = stirred(Twice())
    assert folded(network, noise(3, 8)) is network
