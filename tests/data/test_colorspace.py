import numpy as np
import pytest
import torch

from handful.data.augmentation import colorspace

color = pytest.importorskip("skimage.color")


@pytest.fixture
def images():
    noise = torch.rand(4, 3, 9, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise[0] *= 0.02  # near black, where both curves are linear
    noise[1, :, 0, 0], noise[1, :, 0, 1] = 0.0, 1.0
    return noise


@pytest.mark.parametrize("name", ["lab", "ycbcr"])
def test_spaces_agree_with_scikit_image(images, name):
    ours = getattr(colorspace, f"rgb_to_{name}")(images)
    theirs = getattr(color, f"rgb2{name}")(images.numpy(), channel_axis=1)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-3)


def test_lab_of_every_colour_lies_within_its_range():
    grid = torch.linspace(0, 1, 11)
    rgb = torch.stack(torch.meshgrid(grid, grid, grid, indexing="ij")).view(1, 3, 11, 121)
    lightness, a, b = colorspace.rgb_to_lab(rgb)[0]
    assert lightness.min() >= -1e-3 and lightness.max() <= 100.001
    assert a.min() > -87 and a.max() < 99
    assert b.min() > -108.5 and b.max() < 95


def test_spaces_are_exact_under_autocast(images):
    images = images.float()
    with torch.autocast("cpu", torch.bfloat16):
        found = colorspace.rgb_to_lab(images)
    assert found.dtype == torch.float32
    assert torch.equal(found, colorspace.rgb_to_lab(images))


def test_black_and_grey_have_finite_gradients():
    images = torch.zeros(1, 3, 2, 2, requires_grad=True)
    colorspace.rgb_to_lab(images).sum().backward()
    assert torch.isfinite(images.grad).all()
