"""Active learning: the suggested images, their order, and the origins of their labels."""

import csv
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import handful as library
from handful.evaluation.active_learning import (
    RANDOM_SHARE,
    RANK,
    doubt,
    herd,
    how_many,
    kernel_width,
    shown_again,
    shuffled,
    suggest,
    suggest_new_scenes,
)
from handful.methods.heads import principal
from handful.models.classifier import BackboneSpec
from scenes import frame, thumbnail
from tiny import SCHEDULE, stripes

QUICK = ["--set", "steps=3", "--set", "backbone.base=8", "--precision", "fp32"]


def clouds(sizes, seed=0):
    """Points around len(sizes) corners, and the corner of each."""
    corner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    noise = torch.randn(len(corner), 6, generator=torch.Generator().manual_seed(seed))
    return 8 * torch.eye(6)[corner] + noise, corner


def slow_herd(x, known, weights, count, scale):
    """Algorithm 1 of arXiv:2412.20644 in plain loops, with a Gaussian kernel of width `scale`."""

    def kernel(a, b):
        return np.exp(-((a - b) ** 2).sum() / (2 * scale**2))

    def coverage(selected):
        covers = [max((kernel(a, b) for b in selected), default=0) for a in x]
        return np.dot(weights, covers)

    found = []
    for _ in range(count):
        selected = [*known, *(x[i] for i in found)]
        left = [i for i in range(len(x)) if i not in found]
        found.append(max(left, key=lambda i: coverage([*selected, x[i]])))
    return found


@pytest.mark.parametrize("known", [0, 2])
def test_herding_chooses_what_the_plain_algorithm_chooses(known):
    x = clouds([6, 5, 4])[0].double()
    weights = torch.rand(15, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    labeled = x[:known] + 0.1
    scale = kernel_width(torch.cdist(x, x), known + 5)
    expected = slow_herd(x.numpy(), labeled.numpy(), weights.numpy(), 5, scale)
    assert herd(x, labeled, weights, 5) == expected


def test_every_cloud_gets_a_label_the_largest_first_before_any_gets_two():
    x, corner = clouds([40, 20, 10])
    suggested = corner[herd(x, x[:0], torch.ones(70), 3)].tolist()
    assert suggested == [0, 1, 2]


def test_labelled_images_cover_their_neighbourhood():
    x, corner = clouds([40, 20, 10])
    centre = x[corner == 0].mean(dim=0, keepdim=True)
    assert corner[herd(x, centre, torch.ones(70), 2)].tolist() == [1, 2]


def test_images_that_the_model_is_certain_of_are_suggested_last():
    x, corner = clouds([40, 20, 10])
    weights = torch.where(corner == 2, 1.0, 1e-4)
    assert corner[herd(x, x[:0], weights, 1)].tolist() == [2]


def test_uncertainty_is_one_minus_the_margin_of_the_two_likeliest_classes():
    rows = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0.6, 0.3, 0.1]])
    torch.testing.assert_close(doubt(rows), torch.tensor([0.0, 1.0, 0.7]))


def test_a_quarter_is_random_and_any_beginning_has_its_share():
    x, _ = clouds([30, 30, 30])
    suggestions = suggest(x, x[:0], None, 40)
    assert len({at for at, _ in suggestions}) == 40
    for some in (8, 20, 40):
        drawn = [at for at, why in suggestions[:some] if why == "random"]
        assert len(drawn) == RANDOM_SHARE * some
        assert drawn == list(range(len(drawn)))  # the first in random order
    assert {why for _, why in suggestions} == {"random", "typical"}


def test_the_choice_is_not_kept_away_from_labels_that_count_once_there_are_enough_others():
    """A cloud in which only labels that count lie gets a label; one with others does not."""
    x, corner = clouds([40, 40])
    labeled = torch.cat([x[corner == 0][:10], x[corner == 1][:10]]) + 0.1
    counted = torch.arange(20) < 10
    shuffled_x = x[torch.randperm(80, generator=torch.Generator().manual_seed(1))]
    in_first = (shuffled_x @ torch.eye(6)[0]) > 4

    def chosen_in_first(known, mask):
        found = suggest(shuffled_x, known, None, 4, mask)
        return [bool(in_first[at]) for at, why in found if why != "random"]

    assert chosen_in_first(labeled, counted) == [True] * 3
    assert chosen_in_first(labeled, ~counted) == [False] * 3
    for few in (None, torch.arange(20) < 11):  # nine that do not count are too few
        assert suggest(shuffled_x, labeled, None, 4, few) == suggest(shuffled_x, labeled, None, 4)


def test_random_images_of_a_round_keep_nothing_away_either():
    """Chosen images are those that would be chosen if other images were drawn at random."""
    x, _ = clouds([30, 30, 30], seed=2)
    labeled, counted = x[:12] + 0.1, torch.zeros(12, dtype=torch.bool)
    coordinates = principal(torch.cat([x, labeled]), RANK)
    known, pool = (F.normalize(coordinates.of(some)) for some in (labeled, x[2:]))
    expected = [at + 2 for at in herd(pool, known, torch.ones(88), 6)]
    found = suggest(x, labeled, None, 8, counted)
    assert [at for at, why in found if why != "random"] == expected


def test_a_fit_says_which_of_its_labels_count(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        "handful.pipeline.run_tables.suggest_new_scenes",
        lambda *given: told.append(given[-1]) or [],
    )
    images, spec = stripes(), BackboneSpec("small", {"base": 8})
    origins = dict.fromkeys(images.names[4:16], "chosen")
    given = {"schedule": SCHEDULE, "backbone": spec, "precision": "fp32", "estimate": "none"}
    library.fit(images, "supervised", **given, origins=origins, out=tmp_path / "run")
    assert told[0].tolist() == (shuffled(16, 0) < 4).tolist()


def test_an_uncertain_prediction_is_given_as_the_reason():
    x, corner = clouds([30, 30, 30])
    sure = torch.where(corner == 1, 0.5, 0.99)
    suggestions = suggest(x, x[:3], torch.stack([sure, 1 - sure], dim=1), 12)
    why = {at: why for at, why in suggestions}
    assert "uncertain" in why.values()
    assert all((corner[at] == 1) == (w == "uncertain") for at, w in why.items() if w != "random")


@pytest.mark.parametrize("images", [1, 2, 5])
def test_all_images_are_suggested_where_there_are_few(images):
    x, _ = clouds([images])
    assert sorted(at for at, _ in suggest(x, x[:0], None, 20)) == list(range(images))


def test_identical_images_do_no_harm():
    x = torch.ones(30, 4)
    assert len(suggest(x, x[:2], torch.full((30, 2), 0.5), 20)) == 20


def test_the_number_of_suggestions_is_that_of_the_labels_within_bounds():
    assert [how_many(n, 1000) for n in (4, 20, 50, 800)] == [20, 20, 50, 100]
    assert how_many(50, 7) == 7


def test_a_large_pool_is_sampled():
    chosen = shuffled(100_000, seed=0)
    assert len(chosen) == len(set(chosen.tolist())) == 4_000
    assert (shuffled(50, 1) != shuffled(50, 2)).any()


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    rng = np.random.default_rng(1)
    for i in range(60):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(root / f"{i:02}.png")
    return root


def rows_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def fill_in(path, rows):
    """Save the table as a spreadsheet would, with the label column filled in."""
    with open(path, "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter=";")
        writer.writeheader()
        writer.writerows({**row, "label": "ab"[i % 2]} for i, row in enumerate(rows))


@pytest.fixture
def first_run(handful, photos, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n" + "".join(f"{i:02}.png,{'ab'[i % 2]}\n" for i in range(10)))
    words = ["fit", photos, "--labels", table, "--out", tmp_path / "one", *QUICK]
    status, out, err = handful(*words)
    assert status == 0, err
    listed = tmp_path / "one" / "label-next.csv"
    command = (
        f"fit {photos} --labels {listed} --after {tmp_path / 'one'} --out {tmp_path / 'one-2'}"
    )
    assert f"or fill in {listed}, then\n        handful {command}\n" in out
    return tmp_path / "one"


@pytest.mark.thorough
def test_labels_of_suggested_images_count_only_if_the_image_was_random(
    handful, photos, first_run, tmp_path
):
    rows = rows_of(first_run / "label-next.csv")
    assert list(rows[0]) == ["file", "label", "why", "prediction", "confidence", "rank"]
    assert [int(row["rank"]) for row in rows] == list(range(1, 21))
    assert not {row["file"] for row in rows} & {f"{i:02}.png" for i in range(10)}
    for row in rows:  # no guess leads a label that counts
        guessed = bool(row["prediction"]), bool(row["confidence"])
        assert guessed == ((row["why"] != "random"),) * 2
    assert [row["why"] for row in rows[:16]].count("random") == 4  # any first part is in proportion
    fill_in(first_run / "label-next.csv", rows)
    words = ["--labels", first_run / "label-next.csv", "--after", first_run]
    status, _, err = handful("fit", photos, *words, "--out", tmp_path / "two")
    assert status == 0, err
    assert "were picked: 5 at random, 15 chosen or" in " ".join(err.split())
    origins = {row["file"]: row["origin"] for row in rows_of(tmp_path / "two" / "labels.csv")}
    for row in rows:
        assert origins[row["file"]] == ("random" if row["why"] == "random" else "chosen")
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert record["estimate"]["n"] == 15  # the ten there were, and five of the twenty new ones
    assert record["data"]["labeled"] == 30


def test_labelling_by_moving_files_keeps_the_origin(handful, photos, first_run, tmp_path):
    rows = rows_of(first_run / "label-next.csv")
    for i in range(10):
        (photos / "ab"[i % 2]).mkdir(exist_ok=True)
        (photos / f"{i:02}.png").rename(photos / "ab"[i % 2] / f"{i:02}.png")
    for i, row in enumerate(rows):
        (photos / row["file"]).rename(photos / "ab"[i % 2] / row["file"])
    words = ["--after", first_run, "--out", tmp_path / "two", "--estimate", "none"]
    status, _, err = handful("fit", photos, *words)
    assert status == 0, err
    origins = [row["origin"] for row in rows_of(tmp_path / "two" / "labels.csv")]
    assert origins.count("chosen") == 15 and origins.count("random") == 5


@pytest.mark.thorough
def test_the_first_labels_are_typical_or_random_and_the_filled_in_file_is_taken(
    handful, photos, tmp_path
):
    about = tmp_path / "about"
    words = ["data", photos, "--first-labels", 12, "--out", about, "--no-near"]
    status, out, err = handful(*words)
    assert status == 0, err
    assert "12 images to label first are in" in out
    rows = rows_of(about / "label-first.csv")
    assert [list(row) for row in rows[:1]] == [["file", "label", "origin"]]
    assert [row["origin"] for row in rows].count("random") == 3
    assert {row["label"] for row in rows} == {""}
    fill_in(about / "label-first.csv", rows)
    words = ["--labels", about / "label-first.csv", "--out", tmp_path / "run", "--estimate", "none"]
    status, _, err = handful("fit", photos, *words, *QUICK)
    assert status == 0, err
    labels = {row["file"]: row["origin"] for row in rows_of(tmp_path / "run" / "labels.csv")}
    assert labels == {row["file"]: row["origin"] for row in rows}
    status, _, err = handful("data", photos, "--first-labels", 12, "--out", about, "--no-near")
    assert status == 2 and "perhaps with labels in it" in err


def test_more_first_labels_than_images_are_refused(handful, photos, tmp_path):
    status, _, err = handful("data", photos, "--first-labels", 61, "--no-near")
    assert status == 2 and "has 60; ask for" in err


def test_without_labels_data_says_how_to_begin(handful, photos):
    status, out, _ = handful("data", photos, "--no-near")
    assert status == 0 and "--first-labels 20" in out


def pictures_of_scenes(count):
    """(count, 1, 32, 32): pairs of frames of one scene follow each other."""
    frames = [frame(at // 2, at % 2) for at in range(count)]
    return torch.from_numpy(np.stack([thumbnail(one) for one in frames]))


def test_no_labelled_scene_and_no_scene_twice_is_suggested():
    looks = pictures_of_scenes(60)
    features = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    known = pictures_of_scenes(8)  # the first four scenes
    suggested = suggest_new_scenes(
        features, features[:0], None, 16, lambda positions: looks[positions], known
    )
    scenes = [at // 2 for at, _ in suggested]
    assert len(suggested) == 16 and len(set(scenes)) == 16 and min(scenes) >= 4
    assert [why for _, why in suggested].count("random") == 4


def test_where_every_scene_is_new_the_suggestions_are_those_without_pictures():
    looks = pictures_of_scenes(60)[::2]
    features = torch.randn(30, 5, generator=torch.Generator().manual_seed(0))
    new = suggest_new_scenes(
        features, features[:2], None, 12, lambda positions: looks[positions], looks[:0]
    )
    assert new == suggest(features, features[:2], None, 12)


def test_where_scenes_run_out_their_images_are_suggested_all_the_same():
    looks = pictures_of_scenes(20)
    features = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    suggested = suggest_new_scenes(
        features, features[:0], None, 20, lambda positions: looks[positions], looks
    )
    assert sorted(at for at, _ in suggested) == list(range(20))


def test_a_picture_is_shown_again_if_a_known_one_or_one_before_shows_its_scene():
    looks = pictures_of_scenes(40)
    assert shown_again(looks[[0, 2, 1, 4, 6, 8, 10, 12, 14, 16, 18]], looks[[5]]) == [2, 3]
    assert shown_again(looks[:0], looks) == [] and shown_again(looks[:1], looks[:0]) == []
