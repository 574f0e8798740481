"""`handful embed` and `handful.embed`: messages, the file, and features shared with a fit."""

import json
import os
from functools import partial

import numpy as np
import pytest
import torch

import handful
from handful.data.splits import with_test
from handful.models import fingerprint, make
from handful.pipeline import embed
from handful.progress import Reporter
from image_files import class_folder, save
from tiny import stripes


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))


def photographs(**changes):
    return stripes(n=12, size=32, channels=3, labeled=6, **changes)


def embedded(images, **changes):
    """The embedding at 32 pixels, and the messages."""
    said = []
    reporter = Reporter(say=said.append)
    changes = {"size": 32, "precision": "fp32", **changes}
    return handful.embed(images, reporter=reporter, **changes), said


def test_features_are_those_of_the_bundled_network():
    images = photographs()
    found, _ = embedded(images)
    network = make("lite0", 3, 32, stages=3).eval()
    pixels = (images.at(32).float() / 255 - network.mean[0]) / network.std[0]
    with torch.inference_mode():
        expected = network(pixels)
    torch.testing.assert_close(
        torch.from_numpy(found.features).float(), expected, atol=2e-3, rtol=0
    )
    assert found.weights == fingerprint(network)
    assert found.labels.tolist() == images.labels.tolist()
    assert (found.names, found.classes) == (tuple(images.names), ("a", "b"))


@pytest.mark.parametrize(
    "precision",
    ["fp32", pytest.param("bf16", marks=[pytest.mark.thorough])],  # slow without bf16 units
)
def test_networks_side_by_side_are_embedded_in_a_budget(precision):
    found, said = embedded(
        photographs(), backbone="lite0+lite2", size=None, budget=60, precision=precision
    )
    assert found.precision == precision and found.features.shape[0] == 12
    assert any("12 images to embed" in text for text in said)


def test_the_precision_that_was_chosen_is_named():
    found, _ = embedded(photographs(), precision="auto")
    assert found.precision in ("int8", "bf16", "fp32")


@pytest.mark.thorough
def test_fit_and_embed_share_their_features():
    images = photographs()
    _, first = embedded(images)
    assert any(text.startswith("12 images to embed, about") for text in first)
    told = []

    def track(items, total, label):
        told.append(label)
        return items

    options = {"size": 32, "precision": "fp32", "estimate": "none"}
    handful.fit(images, "features", reporter=Reporter(track=track), **options)
    assert "embedding" not in told
    _, again = embedded(images)
    assert "the features of all images are known" in again


def test_the_test_part_comes_last_and_is_marked():
    images = photographs()
    found, _ = embedded(with_test(images, np.array([3, 4, 5])))
    assert found.test.tolist() == [False] * 9 + [True] * 3
    assert found.names[-3:] == ("003.png", "004.png", "005.png")
    everything, _ = embedded(images)
    assert np.array_equal(found.features[-3:], everything.features[3:6])


def test_the_file_opens_without_pickle_and_holds_all_that_is_needed(tmp_path):
    found, _ = embedded(photographs(), view="flipped", settings={"backbone.stages": "1"})
    found.save(tmp_path / "features.npz")
    with np.load(tmp_path / "features.npz", allow_pickle=False) as file:
        kept = {key: file[key] for key in file}
    assert np.array_equal(kept["features"], found.features)
    assert kept["features"].shape == (12, 1280) and kept["features"].dtype == np.float16
    assert kept["labels"].tolist() == found.labels.tolist()
    assert kept["names"].tolist() == list(found.names)
    assert kept["classes"].tolist() == ["a", "b"]
    assert not kept["test"].any()
    assert (kept["backbone"], kept["size"], kept["view"]) == ("lite0", 32, "flipped")
    assert json.loads(str(kept["options"])) == {"stages": 1}
    assert (kept["hash"], kept["weights"]) == (found.hash, found.weights)


@pytest.mark.thorough
def test_a_flipped_view_has_other_features():
    plain, flipped = (embedded(photographs(), view=view)[0] for view in ("plain", "flipped"))
    assert not np.array_equal(plain.features, flipped.features)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("side", "budget", "size", "reason"),
    [
        (32, None, 160, "images this small gain nothing from more"),
        (72, None, 224, "what most pre-trained networks take"),
        (32, 1000.0, 160, "the most that pays, and within 17 min"),
        (72, 1000.0, 224, "the most that pays, and within 17 min"),
        (72, 12.5, 96, "the largest of (224, 160, 128, 96, 64) within 12 s"),
        (72, 1.0, 64, "the smallest; it will take more than 1 s"),
    ],
)
def test_the_size_is_said_with_its_reason(monkeypatch, side, budget, size, reason):
    images = stripes(n=12, size=side, channels=3, labeled=6)
    monkeypatch.setattr(
        "handful.models.feature_cache.seconds_per_image",
        lambda _, network, size, **__: (size / 100) ** 2,
    )
    monkeypatch.setattr(embed, "seconds_per_image", lambda *_, **__: 0.0)
    monkeypatch.setattr(
        embed, "features", lambda part, *_, **__: torch.zeros(len(part), 3, dtype=torch.half)
    )
    found, said = embedded(images, size=None, budget=budget)
    assert found.size == size
    assert f"lite0 at {size} pixels: {reason}" in said


def test_a_budget_is_for_the_test_part_too(monkeypatch):
    given = []

    def choose(images, make, seconds, **_):
        given.append((len(images), seconds))
        return 32, 0.0

    monkeypatch.setattr(embed, "choose_size", choose)
    embedded(with_test(photographs(), np.array([3, 4, 5])), size=None, budget=60.0)
    assert given == [(9, 45.0)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "small"}, "'small' has no learned weights"),
        ({"budget": 60.0}, "budget chooses the size, and size is given too"),
        ({"view": "upside-down"}, "no view 'upside-down'"),
        ({"aspect": "squash"}, "no aspect 'squash'"),
        ({"precision": "fp8"}, "got 'fp8'"),
        ({"settings": {"backbone.stage": "1"}}, "Did you mean 'backbone.stages'"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        embedded(photographs(), **changes)


@pytest.fixture(name="command")
def handful_embed(handful):
    """Run `handful embed`; gives (exit status, stdout, stderr)."""
    return partial(handful, "embed")


def test_the_command_writes_the_file_and_says_what_it_did(command, tmp_path):
    photos, out = class_folder(tmp_path / "photos"), tmp_path / "new" / "features.npz"
    status, printed, said = command(photos, "--size", 32, "--out", out)
    assert status == 0
    assert "lite0 at 32 pixels: as asked" in said
    assert "6 images" in printed and "1792 features each" in printed
    assert np.load(out)["names"].tolist()[0] == "cat/0.png"


@pytest.mark.thorough
def test_json_describes_the_file_and_is_all_there_is_on_stdout(command, tmp_path):
    photos, out = class_folder(tmp_path / "photos"), tmp_path / "features.npz"
    status, printed, _ = command(photos, "--budget", "10m", "--out", out, "--json")
    told = json.loads(printed)
    assert status == 0
    assert (told["images"], told["width"], told["size"], told["out"]) == (6, 1792, 160, str(out))
    assert told["backbone"] == {"name": "lite0", "options": {"stages": 3}}


def test_images_without_labels_and_names_without_unicode_are_taken(command, tmp_path):
    save(tmp_path / "photos" / "a.png", seed=1)
    os.rename(tmp_path / "photos" / "a.png", os.fsencode(tmp_path / "photos") + b"/a\xff.png")
    out = tmp_path / "features.npz"
    assert command(tmp_path / "photos", "--size", 32, "--out", out)[0] == 0
    with np.load(out, allow_pickle=False) as file:
        assert file["labels"].tolist() == [-1]
        assert file["names"].tolist() == ["a\udcff.png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget", "soon"], "a time is typed as 90s, 10m or 1.5h, got 'soon'"),
        (["--budget", "0m"], "got '0m'"),
        (
            ["--out", "."],
            ". is a folder, and a file is to be written; try ./features.npz",
        ),
        (["--backbone", "lite9"], "'lite9' has no learned weights"),
    ],
)
def test_what_the_user_can_mend_is_one_line(command, tmp_path, words, message):
    photos = class_folder(tmp_path / "photos")
    status, out, said = command(photos, "--out", tmp_path / "features.npz", *words)
    assert (status, out) == (2, "")
    assert message in said
    assert not (tmp_path / "features.npz").exists()
