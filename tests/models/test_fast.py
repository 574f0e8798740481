"""The backbone `fast`: whitening, initial weights, and evaluation on mirrored copies."""

import pytest
import torch

from handful.methods.base import classifier
from handful.models.classifier import BackboneSpec
from handful.models.fast import Fast, _Norm
from handful.pipeline.options import InputSpec
from handful.pipeline.setup import prepare
from tiny import stripes, task


def images(n=64, size=32, seed=0):
    """(N, 3, size, size) with correlated pixels and channels, as in photographs."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, 3, size, size, generator=generator)
    return noise + 2 * noise.mean(dim=1, keepdim=True) + torch.roll(noise, 1, dims=3)


def test_whitened_patches_have_mean_0_variance_1_and_no_correlation():
    network, some = Fast(3, 32), images()
    network.init_from_data(some)
    patches = network.whiten(some)[::2, :12, ::2, ::2].transpose(0, 1).flatten(1)  # (P, patches)
    torch.testing.assert_close(patches.mean(dim=1), torch.zeros(12), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.cov(patches), torch.eye(12), atol=0.01, rtol=0)


def test_every_direction_has_both_signs():
    network, some = Fast(3, 32), images()
    network.init_from_data(some)
    whitened = network.whiten(some)
    torch.testing.assert_close(whitened[:, :12], -whitened[:, 12:])


def test_the_first_layer_is_set_from_images_of_the_task_and_never_trained():
    some = stripes(30, size=32, channels=3, labeled=30)
    model = classifier(task(some, backbone=BackboneSpec("fast", {"base": 8, "width": 8})))
    whiten = model.backbone.whiten
    assert not any(p.requires_grad for p in whiten.parameters())
    patches = whiten(model.normalize(some.at(32).float() / 255))[::2, :12, ::2, ::2]
    spread = patches.transpose(0, 1).flatten(1).std(dim=1)
    assert spread.max().item() == pytest.approx(1, abs=0.01)  # below 1 where there is no variance


def test_an_image_and_its_mirror_image_have_equal_features_in_evaluation():
    network = Fast(3, 32, base=8, width=8).eval()
    some = images(4)
    torch.testing.assert_close(network(some), network(some.flip(-1)))
    plain = Fast(3, 32, base=8, width=8, mirrored=False).eval()
    assert not torch.allclose(plain(some), plain(some.flip(-1)), atol=1e-4)


@pytest.mark.parametrize(("channels", "flips"), [(1, None), (3, False)])
def test_features_exclude_mirror_images_where_they_change_the_class(channels, flips):
    some = stripes(30, size=32, channels=channels)
    chosen, on = prepare(some, "supervised", backbone="fast", inputs=InputSpec(flips=flips))
    assert chosen.backbone.options == on.backbone.options == {"mirrored": False}
    assert not on.make_backbone().mirrored
    settings = {"backbone.mirrored": "true"}
    asked = prepare(
        some, "supervised", backbone="fast", inputs=InputSpec(flips=flips), settings=settings
    )
    assert asked[0].backbone.options == {"mirrored": True}
    spec = BackboneSpec("fast", {"mirrored": True})
    assert (
        prepare(some, "supervised", backbone=spec, inputs=InputSpec(flips=flips))[0].backbone
        == spec
    )


def test_features_include_mirror_images_by_default():
    chosen, on = prepare(stripes(30, size=32, channels=3), "supervised", backbone="fast")
    assert chosen.backbone.options == {} and on.make_backbone().mirrored
    chosen, _ = prepare(stripes(30, size=32), "supervised", backbone="small")
    assert chosen.backbone.options == {}


def test_copies_shifted_by_a_pixel_are_half_of_the_features():
    plain = Fast(3, 32, base=8, width=8).eval()
    moving = Fast(3, 32, base=8, width=8, shifted=True).eval()
    moving.load_state_dict(plain.state_dict())
    some = images(4)
    up_left, down_right = some.clone(), some.clone()
    up_left[..., :-1, :-1] = some[..., 1:, 1:]
    up_left[..., -1, :-1], up_left[..., :-1, -1] = some[..., -2, 1:], some[..., 1:, -2]
    up_left[..., -1, -1] = some[..., -2, -2]
    down_right[..., 1:, 1:] = some[..., :-1, :-1]
    down_right[..., 0, 1:], down_right[..., 1:, 0] = some[..., 1, :-1], some[..., :-1, 1]
    down_right[..., 0, 0] = some[..., 1, 1]
    by_hand = plain(some) / 2 + (plain(up_left) + plain(down_right)) / 4
    torch.testing.assert_close(moving(some), by_hand)


def test_training_uses_no_copies():
    network = Fast(3, 32, base=8, width=8, shifted=True).train()
    with torch.no_grad():
        seen = []
        network.whiten.register_forward_hook(lambda module, given, out: seen.append(len(out)))
        network(images(4))
    assert seen == [4]


def test_convolutions_start_as_the_identity():
    first = Fast(3, 32).layers[1]
    through = first.weight[:24, :, 1, 1]
    torch.testing.assert_close(through, torch.eye(24))


def test_the_shift_learns_64_times_as_fast_as_a_plain_one():
    norm, x = _Norm(2).eval(), torch.ones(3, 2, 1, 1)
    norm(x).sum().backward()
    moved = 8 * norm.shift.grad  # change of the output by a step of 1 on the parameter
    torch.testing.assert_close(moved, torch.full((2,), 64.0 * 3))


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match="size=24 is too small for fast"):
        Fast(3, 24)
    assert Fast(3, 25).eval()(torch.zeros(1, 3, 25, 25)).shape == (1, 256)
