"""Networks side by side: features, cache, names, and runs that are saved and opened."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import handful
from handful import models
from handful.methods.base import classifier
from handful.models import feature_cache as engine
from handful.models import make
from handful.models.classifier import BackboneSpec, Classifier, Normalize, embed
from handful.pipeline.setup import default_backbone, make_task
from handful.training.time_budget import embedding_seconds
from tiny import stripes

PAIR = "timm:resnet10t+timm:mobilenetv3_small_050"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))


@pytest.fixture
def pair():
    return make(PAIR, 3, 64, pretrained=False).eval()


def images(n=2, seed=0):
    return torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_features_are_those_of_each_network_at_length_1(pair):
    first, second = pair.networks
    x = images()
    with torch.inference_mode():
        expected = [F.normalize(one(x), dim=1) for one in (first, second)]
        found = pair(x)
    assert pair.width == first.width + second.width
    torch.testing.assert_close(found, torch.cat(expected, dim=1))


def test_every_network_sees_images_normalised_as_in_its_own_training(pair):
    first, second = pair.networks
    second.mean, second.std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    raw = images()
    with torch.inference_mode():
        found = pair(Normalize(list(pair.mean), list(pair.std))(raw))
        own = second(Normalize(list(second.mean), list(second.std))(raw))
    torch.testing.assert_close(found[:, first.width :], F.normalize(own, dim=1), atol=1e-5, rtol=0)


def test_cached_features_are_those_of_the_network_to_the_precision_of_float16():
    task = make_task(stripes(), BackboneSpec("lite0+lite1", {"stages": 3}))
    network = classifier(task)
    cached = embed(task.images, network, 64, "crop", "fp32")
    with torch.inference_mode():
        direct = network.eval().features(task.images.at(64, "crop").float() / 255)
    assert cached.dtype == torch.float16
    torch.testing.assert_close(cached.float(), direct, atol=5e-4, rtol=0)


def test_features_of_one_network_are_read_where_another_is_put_beside_it(monkeypatch):
    stages = {"stages": 3}
    alone = make_task(stripes(), BackboneSpec("lite0", stages))
    both = make_task(stripes(), BackboneSpec("lite0+lite1", stages))
    first = embed(alone.images, classifier(alone), 32, "crop", "fp32")
    computed = []
    real = engine.compute_features
    monkeypatch.setattr(
        engine,
        "compute_features",
        lambda images, network, *rest, **how: (
            computed.append(network) or real(images, network, *rest, **how)
        ),
    )
    joined = embed(both.images, classifier(both), 32, "crop", "fp32")
    assert [type(one.backbone).__name__ for one in computed] == ["Lite1"]
    own = F.normalize(first.float(), dim=1).half()
    assert torch.equal(joined[:, : first.shape[1]], own)


def test_only_new_features_are_expected_to_take_time(monkeypatch):
    monkeypatch.setattr("handful.training.time_budget.seconds_per_image", lambda *_, **__: 1.0)
    stages = {"stages": 3}
    alone = make_task(stripes(), BackboneSpec("lite0", stages))
    both = make_task(stripes(), BackboneSpec("lite0+lite1", stages))
    some = len(np.unique(alone.images.at(alone.size, "crop").flatten(1).numpy(), axis=0))
    assert embedding_seconds(both, "fp32") == pytest.approx(2 * some)
    embed(alone.images, classifier(alone), alone.size, "crop", "fp32")
    assert embedding_seconds(both, "fp32") == pytest.approx(some)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("lite0+lite0", "names a network twice"),
        ("lite0+small", "puts 'small' beside others, and it has no learned weights"),
        ("lite0+lit1", "no backbone 'lit1'. Did you mean 'lite"),
        ("lite0+", "no backbone ''"),
        ("+".join(f"timm:resnet{i}" for i in range(9)), "2 to 8 networks"),
    ],
)
def test_networks_that_cannot_stand_side_by_side_are_named(name, why):
    with pytest.raises(handful.HandfulError) as refused:
        make(name, 3, 32, pretrained=False)
    assert why in str(refused.value)


def test_a_name_of_several_is_pretrained_if_all_are():
    assert models.pretrained("lite0+timm:resnet18")
    assert not models.pretrained("lite0+small")
    assert default_backbone(handful.methods.make("features"), "lite0+timm:resnet18").options == {
        "stages": 3
    }


def test_a_classifier_of_one_network_is_itself():
    network = Classifier(make("small", 3, 8), 2, Normalize([0.0] * 3, [1.0] * 3))
    assert network.each() == [network]


@pytest.mark.thorough
def test_a_run_of_two_networks_is_saved_opened_and_exported(tmp_path):
    images = stripes()
    run = handful.fit(images, "features", backbone="lite0+lite1", size=32, out=tmp_path / "run")
    again = handful.open_run(tmp_path / "run")
    assert again.predict(images).labels == run.predict(images).labels
    assert run.record["backbone"]["name"] == "lite0+lite1"
    assert len(again.to_onnx()) > 8e6  # a byte for each weight, at least
