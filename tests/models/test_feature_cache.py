import shutil

import numpy as np
import pytest
import torch
from torch import nn

from handful.data.imageset import ImageSet
from handful.data.store import array_store
from handful.models import feature_cache as engine
from handful.models import fingerprint, make
from handful.models.classifier import BackboneSpec, Classifier, Normalize, Predictor
from handful.models.feature_cache import (
    choose_size,
    feature_parts,
    features,
    not_yet_known,
    seconds_per_image,
)


class Spy(nn.Module):
    """A linear map that records its inputs; its dropout would show training mode."""

    def __init__(self, width: int = 5, size: int = 8, channels: int = 3) -> None:
        super().__init__()
        weights = torch.randn(
            width, channels * size * size, generator=torch.Generator().manual_seed(0)
        )
        self.weights = nn.Parameter(weights / 20)
        self.dropout = nn.Dropout(0.5)
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        return self.dropout(images.flatten(1)) @ self.weights.T

    @property
    def images_seen(self) -> int:
        return sum(int(images.flatten(1).any(1).sum()) for images in self.seen)  # none is black


class Killed(Exception):
    pass


def image_set(n: int = 20, size: int = 8, channels: int = 3, seed: int = 0) -> ImageSet:
    pixels = np.random.default_rng(seed).integers(0, 256, (n, channels, size, size), np.uint8)
    store = array_store(pixels, [f"{i:05}" for i in range(n)])
    return ImageSet(store, np.arange(n), np.zeros(n, np.int64), ("a", "b"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path))
    return tmp_path


def expected(network: Spy, images: ImageSet) -> torch.Tensor:
    flat = images.at(8).float().flatten(1) / 255
    return flat @ network.weights.detach().T


def close(found: torch.Tensor, reference: torch.Tensor) -> None:
    torch.testing.assert_close(found.float(), reference.float(), rtol=2e-3, atol=2e-3)


def test_features_equal_the_output_in_evaluation_mode():
    network, images = Spy(), image_set()
    found = features(images, network.train(), 8, precision="fp32")
    assert found.dtype == torch.float16
    close(found, expected(network, images))


def test_the_network_gets_channels_last_images_in_0_to_1_without_gradient():
    network = Spy()
    features(image_set(), network, 8)
    seen = network.seen[0]
    assert seen.is_contiguous(memory_format=torch.channels_last) and seen.is_inference()
    assert 0 <= seen.min() < 0.1 and 0.9 < seen.max() <= 1


def test_a_forward_pass_has_a_limited_number_of_pixels(monkeypatch):
    monkeypatch.setattr(engine, "_PASS", 3 * 8 * 8)
    network, images = Spy(), image_set()
    found = features(images, network, 8, precision="fp32")
    assert [len(seen) for seen in network.seen] == [2] * 10  # a power of two, all passes alike
    close(found, expected(network, images))


def test_cached_features_are_read_and_not_computed_again():
    network, images = Spy(), image_set()
    first = features(images, network, 8)
    assert network.images_seen == 20
    assert torch.equal(features(images, network, 8), first)
    assert network.images_seen == 20


def test_subsets_other_orders_and_other_labels_share_the_features():
    network, images = Spy(), image_set()
    everything = features(images, network, 8)
    order = np.array([7, 3, 3, 11])
    hidden = images.seen(np.array([2]))
    assert torch.equal(features(images[order], network, 8), everything[order])
    assert torch.equal(features(hidden, network, 8), everything)
    assert network.images_seen == 20


def test_a_larger_set_embeds_new_images_only():
    network, images = Spy(), image_set()
    features(images[:15], network, 8)
    assert len(features(images, network, 8)) == 20
    assert network.images_seen == 20


def test_equal_images_are_embedded_once():
    network, images = Spy(), image_set(4)
    found = features(images[np.array([0, 1, 0, 0])], network, 8)
    assert network.images_seen == 2
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    "change",
    [{"view": "flipped"}, {"precision": "fp32"}, {"aspect": "pad"}],
)
def test_another_view_precision_or_aspect_is_another_entry(change):
    network, images = Spy(), image_set()
    features(images, network, 8, precision="bf16")
    features(images, network, 8, **{"precision": "bf16", **change})
    assert network.images_seen == 40


def test_other_weights_have_other_features():
    network, images = Spy(), image_set()
    features(images, network, 8, precision="fp32")
    with torch.no_grad():
        network.weights.mul_(-1)
    close(features(images, network, 8, precision="fp32"), expected(network, images))


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("fast", {"base": 4, "width": 4}, {"base": 4, "width": 4, "shifted": True}),
        ("fast", {"base": 4, "width": 4}, {"base": 4, "width": 4, "mirrored": False}),
        ("lite0", {"pretrained": False, "stages": 1}, {"pretrained": False, "stages": 2}),
        ("split", {"encoder": "mlp"}, {"encoder": "mlp", "space": "ycbcr"}),
    ],
)
def test_other_options_of_a_network_have_other_features(name, one, other):
    network, changed = make(name, 3, 32, **one).eval(), make(name, 3, 32, **other).eval()
    changed.load_state_dict(network.state_dict())
    images = image_set(size=32)
    before = features(images, network, 32, precision="fp32")
    after = features(images, changed, 32, precision="fp32")
    assert before.shape != after.shape or not torch.equal(before, after)


def test_the_flipped_view_is_the_mirror_image():
    network, images = Spy(), image_set()
    mirrored = image_set()
    mirrored.store.images[:] = mirrored.store.images[..., ::-1].copy()
    found = features(images, network, 8, view="flipped", precision="fp32")
    close(found, expected(network, mirrored))


def test_killed_work_resumes_after_its_last_complete_file(monkeypatch):
    monkeypatch.setattr(engine, "_BATCH", 4)
    monkeypatch.setattr(engine, "_SHARD", 8)
    images, straight = image_set(30), Spy()

    def dies(batches, total, label):
        for number, batch in enumerate(batches):
            if number == 5:
                raise Killed
            yield batch

    network = Spy()
    with pytest.raises(Killed):
        features(images, network, 8, track=dies)
    assert network.images_seen == 20
    resumed = features(images, network, 8)
    assert network.images_seen == 20 + (30 - 16)  # two files of 8 were complete
    close(resumed, features(images, straight, 8))


class SizeOfPass(nn.Module):
    """How many images are in the pass, on which the last bits of a network depend."""

    width = 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.full((len(images), 1), float(len(images)))


@pytest.mark.parametrize("n, size_of_pass", [(30, 16), (17, 16), (16, 8), (9, 8), (8, 1), (1, 1)])
def test_features_do_not_depend_on_the_images_beside_them(monkeypatch, n, size_of_pass):
    monkeypatch.setattr(engine, "_PASS", 16 * 8 * 8)
    images, network = image_set(n), SizeOfPass()
    features(images[:7], network, 8)  # as after a kill, or before images were added
    assert features(images, network, 8).tolist() == [[size_of_pass]] * n
    assert features(images[1:], SizeOfPass(), 8).tolist() == [[size_of_pass]] * (n - 1)


def test_features_made_when_the_source_had_few_images_are_not_taken_for_many(monkeypatch):
    monkeypatch.setattr(engine, "_PASS", 16 * 8 * 8)
    assert features(image_set(16), SizeOfPass(), 8).tolist() == [[8.0]] * 16
    assert features(image_set(20), SizeOfPass(), 8).tolist() == [[16.0]] * 20


@pytest.mark.parametrize("n, size_of_pass", [(40, 32), (32, 8), (9, 8), (8, 1)])
def test_trained_networks_answer_alike_for_any_part_of_the_images(n, size_of_pass):
    model = Classifier(SizeOfPass(), 2, Normalize([0.5], [0.5]))
    predictor = Predictor(model, BackboneSpec("small"), ("a", "b"), 8, 3)
    images = image_set(n)
    for some in (images, images[:7], images[-1:]):
        assert predictor.features(some, batch=32).tolist() == [[size_of_pass]] * len(some)


def test_parts_are_the_rows_of_all_and_each_image_is_embedded_once():
    network, images = Spy(), image_set(20)
    parts = list(feature_parts(images, network, 8, most=8))
    assert [len(part) for part in parts] == [8, 8, 4]
    assert network.images_seen == 20
    assert torch.equal(torch.cat(parts), features(images, network, 8))


def test_parts_outlive_a_cache_that_is_cleared_meanwhile(cache):
    network, images = Spy(), image_set(20)
    parts = feature_parts(images, network, 8, most=8)
    found = [next(parts)]
    shutil.rmtree(cache / "features")
    found += parts
    assert torch.equal(torch.cat(found), features(images, network, 8))


def test_a_frozen_network_predicts_many_images_in_parts(monkeypatch):
    """The features of a million images would not fit into memory."""
    backbone = Spy(5)
    backbone.width = 5
    model = Classifier(backbone, 2, Normalize([0.0], [1.0]))
    predictor = Predictor(model, BackboneSpec("small"), ("a", "b"), 8, 3, frozen=True)
    images = image_set(20)
    whole = predictor.of_features(predictor.features(images))
    monkeypatch.setattr(engine.feature_parts, "__kwdefaults__",
                        engine.feature_parts.__kwdefaults__ | {"most": 8})  # fmt: skip
    sizes = []
    monkeypatch.setattr(
        Predictor, "of_features", lambda self, rows: sizes.append(len(rows)) or rows
    )
    predictor.predict_proba(images)
    assert sizes == [8, 8, 4]
    monkeypatch.undo()
    assert torch.equal(predictor.predict_proba(images), whole)


def test_a_damaged_file_is_computed_again(cache):
    network, images = Spy(), image_set()
    before = features(images, network, 8)
    (shard,) = cache.rglob("features/*/*.safetensors")
    shard.write_bytes(shard.read_bytes()[:40])
    assert torch.equal(features(images, network, 8), before)


def test_nothing_unfinished_is_left_in_the_cache(cache):
    features(image_set(), Spy(), 8)
    assert [p.name for p in cache.rglob("features/*/*") if p.suffix != ".safetensors"] == []


def test_progress_is_reported_in_batches(monkeypatch):
    monkeypatch.setattr(engine, "_BATCH", 8)
    told = []

    def track(items, total, label):
        told.append((total, label))
        return items

    features(image_set(20), Spy(), 8, track=track)
    assert told == [(3, "embedding")]


def test_an_empty_set_has_no_features():
    assert len(features(image_set()[:0], Spy(), 8)) == 0


def test_features_that_overflow_float16_are_refused():
    network = Spy()
    with torch.no_grad():
        network.weights.mul_(1e9)
    with pytest.raises(ValueError, match="not finite in float16"):
        features(image_set(), network, 8)


def test_wrong_views_and_precisions_are_refused_by_name():
    with pytest.raises(ValueError, match="no view 'upside-down'.*plain, flipped"):
        features(image_set(), Spy(), 8, view="upside-down")
    with pytest.raises(ValueError, match="precision is auto, int8, bf16 or fp32, got 'fp8'"):
        features(image_set(), Spy(), 8, precision="fp8")


def test_the_size_is_the_largest_that_fits_in_the_time(monkeypatch):
    monkeypatch.setattr(
        engine, "seconds_per_image", lambda images, network, size, **_: size**2 / 1e6
    )
    small, large = image_set(1000, 8), image_set(1000, 72)

    def make(size):
        return Spy()

    assert choose_size(small, make, 100) == (160, pytest.approx(25.6))
    assert choose_size(large, make, 100) == (224, pytest.approx(50.176))
    assert choose_size(large, make, 10) == (96, pytest.approx(9.216))
    assert choose_size(large, make, 1) == (64, pytest.approx(4.096))


def test_every_size_is_measured_with_a_network_for_it():
    made = []

    def make(size):
        made.append(size)
        return Spy(size=size)

    size, seconds = choose_size(image_set(3, 72), make, 0)
    assert made == [224, 160, 128, 96, 64]
    assert size == 64 and seconds > 0


def test_the_time_of_an_image_includes_its_decoding(monkeypatch, clock):
    images, network = image_set(), Spy()
    quick = seconds_per_image(images, network, 8)
    batches = images.store.batches

    def slowly(*given):
        for pixels in batches(*given):
            clock.now += 0.2
            yield pixels

    monkeypatch.setattr(images.store, "holds", lambda *_: False)
    monkeypatch.setattr(images.store, "batches", slowly)
    assert seconds_per_image(images, network, 8) >= 0.2 / 20 > quick


def test_not_yet_known_are_the_images_to_embed():
    network, images = Spy(), image_set()
    features(images[:15], network, 8)
    assert not_yet_known(images, network, 8).rows.tolist() == [15, 16, 17, 18, 19]
    assert len(not_yet_known(images, network, 8, view="flipped")) == 20


def test_a_real_backbone_keeps_its_weights_and_buffers_and_takes_grey_images():
    network = make("small", 1, 8)
    before = fingerprint(network)
    assert features(image_set(5, channels=1), network, 8).shape == (5, 128)
    assert fingerprint(network) == before


@pytest.mark.parametrize("size, most, expected", [(160, 256, 16), (64, 500, 64), (2_000, 64, 1)])
def test_a_processor_computes_few_large_images_at_once(monkeypatch, size, most, expected):
    monkeypatch.setattr(engine.devices, "device", lambda: torch.device("cpu"))
    assert engine.at_once(size, most) == expected
    monkeypatch.setattr(engine.devices, "device", lambda: torch.device("cuda"))
    assert engine.at_once(size, most) == most


@pytest.mark.parametrize("size, expected", [(96, 32), (64, 256)])
def test_a_trained_network_sees_few_large_images_at_once(monkeypatch, size, expected):
    """Small ones as many as before, so that the answers of saved runs keep their last bits."""
    seen = []

    class Body(nn.Module):
        width = 1

        def forward(self, images):
            seen.append(len(images))
            return images.mean(dim=(1, 2, 3)).unsqueeze(1)

    monkeypatch.setattr(engine.devices, "device", lambda: torch.device("cpu"))
    model = Classifier(Body(), 2, Normalize([0.0], [1.0]))
    predictor = Predictor(model, BackboneSpec("small"), ("a", "b"), size, 3)
    answers = predictor.predict_proba(image_set(300))
    assert max(seen) == expected and answers.shape == (300, 2)
