import math

import pytest
import torch

from handful.methods.schedule import Schedule
from handful.models.classifier import BackboneSpec, Classifier, Normalize
from handful.models.packaged import Packaged
from handful.models.timm_networks import Timm
from handful.training.optimizers import Lars, make_optimizer


def stepped(weights, gradients, **options):
    parameter = torch.nn.Parameter(torch.tensor(weights))
    optimizer = Lars([parameter], **options)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    return parameter.detach()


def test_one_step_by_hand():
    """|w| = 5, |g| = 13: w - lr * trust * 5 / 13 * g."""
    found = stepped([3.0, 4.0], [[5.0, 12.0]], lr=2.0, trust=0.01)
    ratio = 0.01 * 5 / 13
    torch.testing.assert_close(found, torch.tensor([3 - 2 * ratio * 5, 4 - 2 * ratio * 12]))


def test_two_steps_with_momentum_and_decay_by_hand():
    lr, momentum, decay, trust = 0.5, 0.9, 0.1, 0.02
    w, v = [2.0, -1.0], [0.0, 0.0]
    gradients = [[1.0, 4.0], [-3.0, 0.5]]
    for raw in gradients:
        g = [raw[i] + decay * w[i] for i in range(2)]
        ratio = trust * math.hypot(*w) / math.hypot(*g)
        v = [momentum * v[i] + lr * ratio * g[i] for i in range(2)]
        w = [w[i] - v[i] for i in range(2)]
    options = {"lr": lr, "momentum": momentum, "weight_decay": decay, "trust": trust}
    torch.testing.assert_close(stepped([2.0, -1.0], gradients, **options), torch.tensor(w))


def test_the_rate_is_inside_the_momentum_buffer():
    """A step made at a high rate stays long in the buffer when the rate falls."""
    parameter = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = Lars([{"params": [parameter], "adapt": False}], lr=1.0, momentum=0.5)
    parameter.grad = torch.tensor([1.0])
    optimizer.step()  # buffer 1, weight 0
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.step()  # buffer 0.5 * 1 + 0.1 * 1
    assert parameter.item() == pytest.approx(-0.6)


def test_without_weight_decay_the_trust_ratio_still_counts():
    found = stepped([1.0], [[100.0]], lr=1.0, weight_decay=0.0)
    assert found.item() == pytest.approx(1 - 0.001)


def test_an_excluded_group_is_plain_sgd_with_momentum():
    parameter, other = (torch.nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    ours = Lars([{"params": [parameter], "adapt": False}], lr=0.1, momentum=0.9)
    sgd = torch.optim.SGD([other], lr=0.1, momentum=0.9)
    for number in range(3):
        parameter.grad = other.grad = torch.tensor([0.3 * number, 1.0])
        ours.step()
        sgd.step()
    torch.testing.assert_close(parameter, other)


@pytest.mark.parametrize("weights, gradient", [([0.0], [2.0]), ([2.0], [0.0])])
def test_zero_weights_or_gradients_have_the_ratio_1(weights, gradient):
    found = stepped(weights, [gradient], lr=0.5)
    assert math.isclose(found.item(), weights[0] - 0.5 * gradient[0])


def classifier_on(backbone, classes=3):
    return Classifier(backbone, classes, Normalize([0.5] * 3, [0.5] * 3))


def rates(model, schedule):
    """Factor of the rate and weight decay of each parameter, by its name."""
    names = {weight: name for name, weight in model.named_parameters()}
    groups = make_optimizer(model, schedule).param_groups
    return {
        names[weight]: (group["rate"], group["weight_decay"])
        for group in groups
        for weight in group["params"]
    }


def test_the_rate_decays_from_the_head_to_the_stem_of_lite():
    model = classifier_on(BackboneSpec("lite0", {"pretrained": False}).make(3, 32))
    schedule = Schedule(layer_decay=0.5, backbone_rate=0.8, weight_decay=0.1)
    found = rates(model, schedule)
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert found["head.weight"] == (1.0, 0.1) and found["head.bias"] == (1.0, 0.0)
    by_part = ["conv_stem.", *(f"blocks.{at}." for at in range(7)), "conv_head."]
    for at, part in enumerate(by_part):
        of_part = {k: v for k, v in found.items() if k.startswith(f"backbone.network.{part}")}
        assert {rate for rate, _ in of_part.values()} == {0.8 * 0.5 ** (9 - at)}, part
    assert found["backbone.network.bn1.weight"] == (0.8 * 0.5**9, 0.0)
    assert found["backbone.network.bn2.bias"] == (0.8 * 0.5, 0.0)
    for name, weight in model.named_parameters():
        assert (found[name][1] > 0) == (weight.ndim > 1), name


def test_without_layer_decay_there_are_the_four_groups_in_their_order():
    model = classifier_on(BackboneSpec("lite0", {"pretrained": False}).make(3, 32))
    weights = list(model.named_parameters())
    expected = [
        [p for n, p in weights if n.startswith("backbone.") == inside and (p.ndim > 1) == matrix]
        for inside, matrix in ((True, True), (True, False), (False, True), (False, False))
    ]
    groups = make_optimizer(model, Schedule(backbone_rate=0.3)).param_groups
    assert [group["rate"] for group in groups] == [0.3, 0.3, 1.0, 1.0]
    for group, own in zip(groups, expected, strict=True):
        assert len(group["params"]) == len(own)
        assert all(a is b for a, b in zip(group["params"], own, strict=True))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18", "convnext_atto"])
def test_the_layers_of_a_timm_network_are_those_of_its_own_layer_decay(name):
    """ConvNeXt has a norm before the head that is of the head's layer; ViT's is of the last."""
    import timm
    from timm.optim import param_groups_layer_decay

    model = classifier_on(Timm(3, 32, model=name, pretrained=False))
    found = rates(model, Schedule(layer_decay=0.75, weight_decay=0.05))
    size = {"img_size": 32} if name.startswith("vit") else {}
    whole = timm.create_model(name, num_classes=3, **size)
    names = {weight: name for name, weight in whole.named_parameters()}
    expected = {
        names[weight]: (group["lr_scale"], group["weight_decay"])
        for group in param_groups_layer_decay(whole, weight_decay=0.05, layer_decay=0.75)
        for weight in group["params"]
    }
    assert len({rate for rate, _ in expected.values()}) > 8
    head = timm.get_pretrained_cfg(name).classifier
    ours = {key.removeprefix("backbone.network."): value for key, value in found.items()}
    ours |= {f"{head}.{part}": ours.pop(f"head.{part}") for part in ("weight", "bias")}
    assert ours == expected


def test_a_packaged_network_says_the_layers_of_timm():
    made = Packaged.__new__(Packaged)  # without a package
    torch.nn.Module.__init__(made)
    made.network = Timm(3, 32, model="resnet18", pretrained=False).network
    assert made.layers_above["network.conv1.weight"] == 9
    assert set(made.layers_above) == {name for name, _ in made.named_parameters()}


def test_networks_that_do_not_say_their_layers_are_refused():
    small = classifier_on(BackboneSpec("small").make(3, 32))
    with pytest.raises(ValueError, match="says its layers: lite0, .*; Small does not. Use layer_"):
        make_optimizer(small, Schedule(layer_decay=0.75))
    strange = Timm(3, 32, model="resnet18", pretrained=False)
    strange.network = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="does not say the layers of its Linear"):
        make_optimizer(classifier_on(strange), Schedule(layer_decay=0.75))
