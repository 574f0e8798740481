"""The first classifier of a fit, and the best one so far."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import handful
from handful.data import decode
from handful.files import write_json
from handful.pipeline.artifacts import RUN_LAYOUT
from handful.pipeline.best_so_far import BestSoFar
from handful.pipeline.replacement import BETTER, NEW, finish_replacement
from handful.pipeline.run_folder import acquire


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A flat folder of 30 photographs, and a label file that names 12 of them."""
    root = tmp_path_factory.mktemp("flat")
    (root / "photos").mkdir()
    rng = np.random.default_rng(0)
    rows = []
    for i in range(30):
        pixels = rng.integers(0, 120, (32, 32, 3), dtype=np.uint8)
        pixels[..., 2 * (i % 2)] += 100
        Image.fromarray(pixels).save(root / "photos" / f"{i:02}.png")
        rows.append((f"{i:02}.png", ("red", "blue")[i % 2] if i < 12 else ""))
    with open(root / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *rows])
    return root


def test_only_labelled_files_are_decoded_at_first(photos, monkeypatch):
    seen = []
    inspect = decode.inspect
    monkeypatch.setattr(decode, "inspect", lambda path: seen.append(path.name) or inspect(path))
    monkeypatch.setenv("HANDFUL_CACHE", str(photos / "cache"))
    labels = photos / "labels.csv"
    first = handful.load(photos / "photos", labels=labels, labeled_only=300)
    assert sorted(seen) == first.names == [f"{i:02}.png" for i in range(12)]
    assert len(first.unlabeled) == 0 and first.classes == ("blue", "red")
    seen.clear()
    every = handful.load(photos / "photos", labels=labels)
    assert sorted(seen) == [f"{i:02}.png" for i in range(12, 30)]  # the others are known
    assert len(every) == 30 and len(every.labeled) == 12


def test_at_most_so_many_labelled_images_are_drawn(photos):
    some = [
        handful.load(photos / "photos", labels=photos / "labels.csv", labeled_only=8, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert [len(images) for images in some] == [8, 8, 8]
    assert some[0].names == some[1].names != some[2].names


@pytest.mark.thorough
def test_a_fit_that_is_stopped_keeps_the_first_classifier_and_can_go_on(
    handful, photos, tmp_path, monkeypatch
):
    def stop(*_):
        raise KeyboardInterrupt

    out = tmp_path / "run"
    words = ["fit", photos / "photos", "--labels", photos / "labels.csv", "--out", out]
    words += ["--budget", "8s"]
    with monkeypatch.context() as patch:
        patch.setattr("handful.pipeline.fit.select_method", stop)
        status, printed, err = handful(*words)
    assert status == 0
    assert "a first classifier, from 12 labels, above about" in err
    assert "The fit was stopped; the same command goes on" in printed
    assert "The other images are not classified yet." in printed
    first = json.loads((out / "run.json").read_text())
    assert first["interim"] and first["method"]["name"] == "features"
    assert first["data"]["labeled"] == 12 and (out / "report.html").exists()
    assert len(handful_predict(out, photos)) == 30
    status, _, err = handful(*words, "--seed", 1)
    assert status == 2 and "holds another run" in err
    status, printed, _ = handful(*words)
    assert status == 0 and "18 other images, classified" in printed
    last = json.loads((out / "run.json").read_text())
    assert not last["interim"] and last["data"]["unlabeled"] == 18
    assert not (out / NEW).exists() and not (out / BETTER).exists()


def handful_predict(out, photos):
    run = handful.open_run(out)
    return run.predict(handful.load(photos / "photos", labeled=False)).labels


def test_a_process_killed_while_it_kept_a_better_run_leaves_a_whole_one(tmp_path):
    better = tmp_path / BETTER
    better.mkdir()
    write_json(better / "run.json", {"fingerprint": "a"})
    (better / "labels.csv").write_text("file,label\n")
    finish_replacement(tmp_path, RUN_LAYOUT)
    assert json.loads((tmp_path / "run.json").read_text()) == {"fingerprint": "a"}
    assert (tmp_path / "labels.csv").exists() and not better.exists()


def test_only_the_command_that_made_an_interim_run_replaces_it(tmp_path):
    write_json(tmp_path / "run.json", {"fingerprint": "first", "interim": True})
    with pytest.raises(handful.HandfulError, match="holds another run"):
        acquire(tmp_path, "whole", overwrite=False)
    with pytest.raises(handful.HandfulError, match="holds another run"):
        acquire(tmp_path, "whole", overwrite=False, improves="another")
    assert acquire(tmp_path, "whole", overwrite=False, improves="first") == tmp_path / NEW
    write_json(tmp_path / "run.json", {"fingerprint": "first", "interim": False})
    with pytest.raises(handful.HandfulError, match="holds another run"):
        acquire(tmp_path, "whole", overwrite=False, improves="first")


@pytest.mark.parametrize(
    "method, labels, accuracy, better",
    [
        ("features", 60, 0.9, False),  # the same method on the same labels
        ("self_training", 60, 0.9, True),
        ("self_training", 60, 0.7, False),
        ("features", 100, 0.7, True),
    ],
)
def test_the_kept_run_is_replaced_by_better_ones_only(
    tmp_path, monkeypatch, method, labels, accuracy, better
):
    kept = {
        "method": {"name": "features"},
        "data": {"labeled": 60},
        "estimate": {"accuracy": 0.8},
        "fingerprint": "first",
    }
    monkeypatch.setattr("handful.pipeline.best_so_far.read_record", lambda folder: kept)
    best = BestSoFar(tmp_path, None, None, True, print)
    found = SimpleNamespace(
        candidate=SimpleNamespace(method=method),
        task=SimpleNamespace(images=SimpleNamespace(labeled=range(labels))),
    )
    assert best._is_better(found, accuracy) is better
