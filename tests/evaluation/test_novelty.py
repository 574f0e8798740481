"""Out-of-distribution detection, and the shift between labelled and unlabelled images."""

import csv
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import handful
from handful import cli
from handful.evaluation.novelty import (
    FEWEST,
    POOL_SHIFT,
    Distances,
    fit_in_distribution,
    load_in_distribution,
    pool_shift,
    save_in_distribution,
)
from handful.files import write_tensors
from image_files import save, smooth
from tiny import stripes


def cloud(n, seed, width=40, axes=6):
    """Points that vary along the first axes, with little noise along the others."""
    generator = torch.Generator().manual_seed(seed)
    points = 0.05 * torch.randn(n, width, generator=generator)
    points[:, :axes] += torch.randn(n, axes, generator=generator)
    return points


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("images", "runs", "promised"),
    [(9, 60, 0.1), (20, 60, 1 / 21), (48, 60, 1 / 49), (49, 60, 0.02), (150, 40, 0.02)]
    + [(300, 20, 0.02), (3000, 8, 0.02)],
)
def test_no_more_in_distribution_images_are_flagged_than_promised(images, runs, promised):
    known = [fit_in_distribution(cloud(images, seed)) for seed in range(runs)]
    flagged = [
        one.out_of_distribution(cloud(2000, 1000 + seed)).float().mean().item()
        for seed, one in enumerate(known)
    ]
    assert float(known[0].flagged) == pytest.approx(promised)
    assert np.mean(flagged) < promised + 2 * np.std(flagged) / runs**0.5
    assert np.mean(flagged) > promised / 4  # a threshold that flags nothing would be no use


def test_fewer_than_nine_images_allow_no_promise_so_nothing_is_flagged():
    known = fit_in_distribution(cloud(FEWEST - 1, 1))
    assert float(known.flagged) == 0
    other = cloud(50, 2).roll(20, dims=1)
    assert not known.out_of_distribution(other).any()
    assert fit_in_distribution(cloud(FEWEST, 1)).out_of_distribution(other).any()


def test_a_file_of_an_earlier_version_promises_what_its_calibration_allowed(tmp_path):
    path = tmp_path / "familiar.safetensors"
    for references, promised in ((20, 1 / 10), (200, 0.02)):  # 9 or 10 and about 100 scores
        known = fit_in_distribution(cloud(references, 1))
        tensors = {
            name: getattr(known, name) for name in ("mean", "axes", "scale", "threshold")
        } | {"reference": known.coordinates(cloud(references, 1)).half()}
        write_tensors(path, tensors)
        read = load_in_distribution(path, 40)
        assert float(read.flagged) == pytest.approx(promised)


def test_images_outside_the_axes_are_out_of_distribution():
    known = fit_in_distribution(cloud(300, 1))
    other = cloud(200, 2).roll(20, dims=1)  # varies along other axes than the run's images
    assert known.out_of_distribution(other).float().mean() > 0.99


def test_images_elsewhere_along_the_axes_are_out_of_distribution():
    own, other = cloud(400, 1), cloud(200, 2)
    own[:, 0] += torch.tensor([-8.0, 8.0]).repeat(200)
    other[:, 1] += 8
    assert fit_in_distribution(own).out_of_distribution(other).float().mean() > 0.9


def test_scaling_all_features_changes_nothing():
    own, new = cloud(300, 1), cloud(500, 2)
    assert torch.equal(
        fit_in_distribution(own).out_of_distribution(new),
        fit_in_distribution(1000 * own).out_of_distribution(1000 * new),
    )


@pytest.mark.parametrize("images", [2, 3, 9])
def test_few_images_are_no_error(images):
    known = fit_in_distribution(cloud(images, 1))
    assert known.out_of_distribution(cloud(5, 2)).shape == (5,)
    assert torch.isfinite(known.threshold)


def test_identical_images_are_no_error():
    known = fit_in_distribution(torch.ones(30, 8))
    assert not known.out_of_distribution(torch.ones(4, 8)).any()


def test_a_saved_distribution_is_read_back_unchanged(tmp_path):
    known, new = fit_in_distribution(cloud(300, 1)), cloud(500, 2)
    save_in_distribution(known, tmp_path / "familiar.safetensors")
    again = load_in_distribution(tmp_path / "familiar.safetensors", known.mean.numel())
    assert torch.equal(known.distances(new), again.distances(new))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 120 smooth colour images of two classes, most of them unlabelled."""
    root = tmp_path_factory.mktemp("photos")
    for i in range(120):
        pixels = smooth(32, 32, seed=i) // 3
        pixels[..., i % 2] += 150
        folder = "unlabeled" if i >= 20 else ("red", "green")[i % 2]
        save(root / folder / f"{i}.png", pixels)
    return root


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    images = handful.load(photos)
    return handful.fit(images, "features", size=32, out=out, estimate="none", precision="fp32")


def test_other_kinds_of_images_are_out_of_distribution_and_own_ones_are_not(run, photos):
    own = run.predict(handful.load(photos), none_of_these=True)
    assert np.mean(own.none_of_these) <= 0.05
    others = run.predict(stripes(60, size=32, channels=3), none_of_these=True)
    assert np.mean(others.none_of_these) > 0.9
    assert {
        label for label, none in zip(others.labels, others.none_of_these, strict=True) if none
    } == {""}


def test_the_reference_is_small(run):
    assert (run.folder / "familiar.safetensors").stat().st_size < 20e6


def test_predictions_do_not_change_where_it_is_not_asked_for(run, photos):
    plain, marked = (run.predict(handful.load(photos), none_of_these=on) for on in (False, True))
    assert torch.equal(plain.probabilities, marked.probabilities)
    assert plain.none_of_these == [False] * 120
    assert len(next(plain.rows())) + 1 == len(next(marked.rows()))


def test_predict_marks_and_sorts_them(run, tmp_path, monkeypatch, capsys):
    new = tmp_path / "new"
    for i, pixels in enumerate(stripes(10, size=32, channels=3, labeled=4).at(32).numpy()):
        save(new / f"{i}.png", pixels.transpose(1, 2, 0))
    words = ["predict", run.folder, new, "--none-of-these", "--out", tmp_path / "out.csv"]
    monkeypatch.setattr(sys, "argv", ["handful", *map(str, [*words, "--into", tmp_path / "to"])])
    cli.main()
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    flagged = [row for row in rows if row["none_of_these"] == "yes"]
    assert len(flagged) >= 9 and all(row["label"] == "" for row in flagged)
    assert len(list((tmp_path / "to" / "none of these").iterdir())) == len(flagged)
    printed = capsys.readouterr()
    assert f"none of these: {len(flagged)}" in printed.out
    assert "at most 2 % of images like those that this run has seen are marked" in printed.err


@pytest.mark.parametrize(
    ("flagged", "frozen", "said"),
    [
        (1 / 31, True, "at most 3.3 % of images"),  # never less than it is
        (0.02, False, "about 2 % of images.*there may be more, since the network has learned"),
        (0.0, True, "fewer than 9 images, too few .* none is marked; fit again with more"),
    ],
)
def test_a_run_says_how_many_images_are_mistaken(run, monkeypatch, flagged, frozen, said):
    monkeypatch.setattr(
        type(run), "in_distribution", replace(run.in_distribution, flagged=torch.tensor(flagged))
    )
    monkeypatch.setattr(run.predictor, "frozen", frozen)
    assert re.search(said, run.mistaken_for_none)


def test_a_run_without_a_folder_says_what_is_missing():
    run = handful.fit(
        stripes(), "supervised", settings={"steps": "2", "backbone.base": "8"}, estimate="none"
    )
    with pytest.raises(ValueError, match="fit with out"):
        run.predict(stripes(), none_of_these=True)


def blobs(first, seed, n):
    """Points (n, 8) of two kinds: around axis `first` and around the next axis."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.eye(8)[first + torch.arange(n) % 2]
    return axes + 0.3 * torch.randn(n, 8, generator=generator)


def test_an_unlabelled_pool_of_the_labelled_kinds_is_not_shifted():
    shares = [pool_shift(blobs(0, seed, 40), blobs(0, 100 + seed, 200)) for seed in range(20)]
    assert max(shares) < POOL_SHIFT


def test_an_unbalanced_pool_beside_balanced_labels_is_not_shifted():
    pool = torch.cat([blobs(0, 1, 400)[::2], blobs(0, 2, 400)[1::2][:20]])
    assert pool_shift(blobs(0, 0, 50), pool) < POOL_SHIFT


def test_an_unlabelled_pool_of_other_kinds_is_shifted():
    assert pool_shift(blobs(0, 0, 40), blobs(4, 1, 200)) > 0.9
    half = torch.cat([blobs(0, 1, 60), blobs(4, 2, 140)])
    assert POOL_SHIFT < pool_shift(blobs(0, 0, 40), half) < 0.9


def test_labelled_images_of_one_group_do_not_make_a_pool_shifted():
    known = blobs(0, 0, 20)
    pairs = torch.cat([known, known + 0.001])
    groups = np.arange(40) % 20
    assert pool_shift(pairs, blobs(0, 1, 200)) > POOL_SHIFT
    assert pool_shift(pairs, blobs(0, 1, 200), groups) < POOL_SHIFT


def test_the_network_of_distances_gives_the_distances_that_decide():
    features = torch.randn(90, 12, generator=torch.Generator().manual_seed(1))
    known = fit_in_distribution(features[:60])
    torch.testing.assert_close(
        Distances(known)(features), known.distances(features), rtol=1e-4, atol=1e-5
    )
