"""The first classifier of a fit, and the best one so far."""

import csv
import json
import shutil
import threading
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import handful
from handful.cli.failures import stopped_message
from handful.data import decode
from handful.data.splits import labeled_sample
from handful.devices import _one_thread, one_thread
from handful.files import write_json
from handful.pipeline.artifacts import RUN_LAYOUT
from handful.pipeline.best_so_far import BestSoFar, why_lower
from handful.pipeline.first_result import first_result
from handful.pipeline.fit import Target
from handful.pipeline.options import FitOptions
from handful.pipeline.replacement import BETTER, NEW, finish_replacement
from handful.pipeline.run_folder import acquire
from handful.pipeline.summary import summary
from handful.progress import Reporter


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
    said = " ".join(err.split())
    assert "a first classifier, from 12 labels, is in" in said
    assert "no figure yet: 12 labels count towards it, and it takes 20; Ctrl-C" in said
    assert "The fit ended early; the same command goes on" in printed
    assert "30 images: 12 with a label, 18 without, which were not read yet" in printed
    first = json.loads((out / "run.json").read_text())
    assert first["interim"] and first["method"]["name"] == "features"
    assert first["data"]["labeled"] == 12 and (out / "report.html").exists()
    assert len(handful_predict(out, photos)) == 30
    status, _, err = handful(*words, "--seed", 1)
    assert status == 2 and "holds another run, stopped before its end" in err
    with monkeypatch.context() as patch:
        patch.setattr("handful.pipeline.fit.select_method", stop)
        kept = (out / "model.safetensors").stat().st_mtime_ns
        status, printed, err = handful(*words, "--overwrite")  # goes on, and does not start over
    assert status == 0 and "the best classifier so far, from 12 labels" in err
    assert (out / "model.safetensors").stat().st_mtime_ns == kept
    with monkeypatch.context() as patch:
        number = count(1)
        told = "handful.pipeline.best_so_far.why_lower"
        patch.setattr(told, lambda *_: f"figure {next(number)} is lower")
        status, printed, err = handful(*words)
    assert status == 0 and "18 other images, classified" in printed
    figures = [line for line in err.splitlines() if line.endswith("is lower")]
    assert len(figures) >= 2 and err.rstrip().endswith(figures[-1])  # on the way, and at the end
    last = json.loads((out / "run.json").read_text())
    assert not last["interim"] and last["data"]["unlabeled"] == 18
    assert not (out / NEW).exists() and not (out / BETTER).exists()


def test_labels_that_are_not_used_are_counted_once_and_alike(
    handful, photos, tmp_path, monkeypatch
):
    def stop(*_):
        raise KeyboardInterrupt

    broken = shutil.copytree(photos / "photos", tmp_path / "photos")
    (broken / "30.png").write_bytes((broken / "00.png").read_bytes()[:100])
    table = tmp_path / "more.csv"
    table.write_text((photos / "labels.csv").read_text() + "30.png,red\ngone.png,red\n")
    monkeypatch.setattr("handful.pipeline.fit.select_method", stop)
    words = ["fit", broken, "--labels", table, "--out", tmp_path / "run"]
    status, printed, err = handful(*words, "--budget", "8s")
    said = " ".join(err.split())
    assert status == 0, said
    assert "a first classifier, from 12 labels, is in" in said
    assert "1 of 14 labels in" in said and "no such image: 'gone.png'" in said
    assert "1 labelled image of" in said and "cannot be read: '30.png'" in said
    assert "1 left out: 1 damaged; the first is 30.png" in said
    assert "2 left out" not in said and "12 with a label" in printed


@pytest.mark.thorough
def test_a_first_classifier_that_replaces_another_says_where_typed_labels_are(
    handful, photos, tmp_path, monkeypatch
):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("handful.pipeline.fit.select_method", stop)
    out = tmp_path / "run"
    words = ["fit", photos / "photos", "--labels", photos / "labels.csv", "--out", out]
    assert handful(*words)[0] == 0
    (out / "label-next.csv").write_text("file,label\n20.png,red\n")
    status, _, err = handful(*words, "--seed", 1, "--overwrite")
    assert status == 0
    kept = next(path for path in out.iterdir() if "your labels" in path.name)
    told = f"the labels that you typed into label-next.csv are kept in {kept}"
    assert "".join(err.split()).count("".join(told.split())) == 1


def test_a_fit_after_an_earlier_run_that_is_stopped_keeps_the_first_classifier(
    handful, photos, tmp_path, monkeypatch
):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("handful.pipeline.fit.select_method", stop)
    old, new, table = tmp_path / "run", tmp_path / "run-2", tmp_path / "more.csv"
    words = ["fit", photos / "photos"]
    status, _, err = handful(*words, "--labels", photos / "labels.csv", "--out", old)
    assert status == 0, err
    table.write_text("file,label\n12.png,red\n13.png,blue\n")
    words += ["--labels", table, "--after", old]
    kept = (old / "run.json").read_bytes()
    status, printed, err = handful(*words, "--out", old, "--overwrite")  # it stays until the end
    assert status == 130 and (old / "run.json").read_bytes() == kept
    status, printed, err = handful(*words, "--out", new)
    assert status == 0, err
    assert "a first classifier, from 14 labels, is in" in " ".join(err.split())
    assert "The fit ended early; the same command goes on" in printed
    assert "30 images: 14 with a label, 16 without, which were not read yet" in printed
    record = json.loads((new / "run.json").read_text())
    assert record["interim"] and record["after"]["labeled"] == 12
    assert record["method"]["name"] == "features"
    assert len(handful_predict(new, photos)) == 30
    status, printed, err = handful(*words, "--out", new)
    assert status == 0 and "the best classifier so far, from 14 labels" in " ".join(err.split())


def test_a_fit_that_is_stopped_before_anything_was_saved_says_so(
    handful, photos, tmp_path, monkeypatch
):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("handful.cli.source_options.SourceOptions.load", stop)
    status, _, err = handful("fit", photos / "photos", "--out", tmp_path / "run")
    command = f"handful fit {photos / 'photos'} --out {tmp_path / 'run'}"
    assert status == 130
    assert f"no classifier of this fit is saved yet; this starts again: {command}" in err
    assert stopped_message(["pretrain", "photos"]).endswith("the last checkpoint, if one was saved")
    assert stopped_message(["serve", "run"]) == "stopped"


def test_a_named_method_that_is_stopped_says_what_is_left_and_how_to_go_on(
    handful, photos, tmp_path, monkeypatch
):
    def stop(*_, **__):
        raise KeyboardInterrupt

    out = tmp_path / "my run"
    words = ["fit", photos / "photos", "--labels", photos / "labels.csv", "--out", out]
    words += ["--method", "supervised", "--set", "steps=4", "--precision", "fp32"]
    goes_on = f"this goes on with it: handful fit {photos / 'photos'}"
    with monkeypatch.context() as patch:
        patch.setattr("handful.pipeline.fit.train_on_all_labels", stop)
        status, _, err = handful(*words)
        assert status == 130 and not (out / "run.json").exists()
        assert (
            f"no classifier of this fit is saved yet; what was done so far is kept, and {goes_on}"
            in err
        )
        assert err.rstrip().endswith(
            f"--out '{out}' --method supervised --set steps=4 --precision fp32"
        )
    assert handful(*words)[0] == 0
    words += ["--seed", "1", "--overwrite"]
    with monkeypatch.context() as patch:
        patch.setattr("handful.cli.terminal.print_run", stop)
        status, _, err = handful(*words[:-3], "--seed", "2", "--overwrite")
        assert status == 130 and f"stopped: a classifier of this fit is saved in {out}" in err
    before = (out / "run.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("handful.cli.source_options.SourceOptions.load", stop)
        status, _, err = handful(*words)
        there = f"and the one that was in {out} before is still there; "
        assert status == 130 and f"{there}this starts again: handful fit" in err
    with monkeypatch.context() as patch:
        patch.setattr("handful.pipeline.fit.train_on_all_labels", stop)
        status, _, err = handful(*words)
        assert f"{there}what was done so far is kept, and {goes_on}" in err
        assert (out / "run.json").read_bytes() == before


def test_the_first_classifier_says_of_how_many_labels_it_learned(handful, photos, tmp_path):
    out = tmp_path / "run"
    images = handful_load(photos)
    target = Target(out)
    said = []
    images.store.whole, images.store.whole_labeled = 30, 20  # a sample of 20 labels
    reporter = Reporter(say=said.append)
    first = first_result(lambda: images, FitOptions(None, 0), target, reporter)
    assert "from 12 of 20 labels" in said[0]
    assert first.record["data"]["whole"] == {"images": 30, "labeled": 20}
    assert summary(first, "photos")[0].startswith(
        "30 images: 20 with a label, of which this first classifier has learned 12, 10 without, "
        "which were not read yet"
    )


def test_of_images_that_were_read_before_some_labels_are_drawn(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("handful.pipeline.first_result.FIRST_LABELS", 8)
    images = handful.load(photos / "photos", labels=photos / "labels.csv")
    said = []
    reporter, options = Reporter(say=said.append), FitOptions(None, 0)
    first = first_result(lambda: images, options, Target(tmp_path / "run"), reporter)
    assert "from 8 of 12 labels" in said[0]
    assert first.record["data"]["labeled"] == 8
    assert first.record["data"]["whole"] == {"images": len(images), "labeled": 12}


def handful_load(photos):
    return handful.load(photos / "photos", labels=photos / "labels.csv", labeled_only=300)


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


def test_what_a_killed_process_began_is_in_no_later_run(tmp_path):
    (tmp_path / BETTER).mkdir()
    (tmp_path / BETTER / "pictures.json").write_text("{}")
    assert acquire(tmp_path, "whole", overwrite=False) == tmp_path
    assert not (tmp_path / BETTER).exists()


def test_another_budget_does_not_replace_what_an_unfinished_fit_has_learned(tmp_path):
    write_json(tmp_path / "run.json", {"fingerprint": "first", "interim": True})
    acquire(tmp_path, "3 minutes", overwrite=False, improves="first")
    (tmp_path / NEW / "checkpoint" / "learned").write_text("much")
    with pytest.raises(handful.HandfulError, match="holds another run, unfinished"):
        acquire(tmp_path, "10 minutes", overwrite=False, improves="first")
    assert (tmp_path / NEW / "checkpoint" / "learned").read_text() == "much"
    acquire(tmp_path, "3 minutes", overwrite=True, improves="first")
    assert (tmp_path / NEW / "checkpoint" / "learned").read_text() == "much"


def test_a_sample_of_labelled_images_has_some_of_every_class():
    labels = ["common"] * 600 + ["rare"] * 3 + ["single"]
    for seed in range(5):
        drawn = labeled_sample(np.arange(604), labels, 300, seed)
        found = [labels[at] for at in drawn]
        assert 300 <= len(drawn) <= 303 and (np.diff(drawn) > 0).all()
        assert found.count("rare") >= 2 and found.count("single") == 1
    assert np.array_equal(labeled_sample(np.arange(5), labels, 5, 0), np.arange(5))


def test_mistakes_are_told_before_the_other_images_are_read(handful, photos, tmp_path, monkeypatch):
    seen = []
    inspect = decode.inspect
    monkeypatch.setattr(decode, "inspect", lambda path: seen.append(path.name) or inspect(path))
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    words = ["fit", photos / "photos", "--labels", photos / "labels.csv", "--out", tmp_path / "run"]
    for mistake in (["--backbone", "nope"], ["--prior", "green=1"], ["--set", "stepz=3"]):
        status, _, err = handful(*words, *mistake)
        assert status == 2 and len(err.strip().splitlines()) == 1
    assert len(seen) == 12 and not (tmp_path / "run").exists()


def test_blocks_of_one_thread_may_overlap_in_threads():
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    inside, leave = threading.Event(), threading.Event()

    def other():
        with one_thread():
            inside.set()
            leave.wait(60)

    try:
        thread = threading.Thread(target=other)
        with one_thread():
            thread.start()
            assert inside.wait(60)
            with one_thread():
                pass
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        leave.set()
        thread.join(60)
        fresh = []
        thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
        thread.start()
        thread.join(60)
        assert fresh == [2]
        assert _one_thread().active == 0
    finally:
        torch.set_num_threads(usual)


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


@pytest.mark.parametrize(
    "now, before, tried, said",
    [
        (
            {"accuracy": 0.842},
            {"accuracy": 0.87},
            4,
            "about 84 % is below the 87 % said before: an estimate moves by chance, and this one "
            "allows for the choice among the 4 methods that were tried",
        ),
        (
            {"accuracy": 0.842},
            {"accuracy": 0.87},
            1,
            "about 84 % is below the 87 % said before: an estimate moves by chance",
        ),
        ({"accuracy": 0.87}, {"accuracy": 0.842}, 4, ""),
        ({"accuracy": 0.866}, {"accuracy": 0.874}, 4, ""),  # both are said to be 87 %
        ({"accuracy": 0.842}, {"accuracy": 0.87, "n": 12}, 4, ""),  # no figure was said
        ({"accuracy": 0.842, "guessing": True}, {"accuracy": 0.87}, 4, ""),
        ({"accuracy": None, "low": None, "high": None}, {"accuracy": 0.87}, 4, ""),
    ],
)
def test_a_figure_below_the_one_said_before_is_explained(now, before, tried, said):
    figures = {"low": 0.7, "high": 0.93, "n": 60, "guessing": False}
    assert why_lower(figures | now, figures | before, tried) == said


@pytest.mark.thorough
def test_a_budget_too_short_for_any_method_keeps_the_first_classifier(handful, photos, tmp_path):
    out = tmp_path / "run"
    words = ["fit", photos / "photos", "--labels", photos / "labels.csv", "--out", out]
    status, printed, err = handful(*words, "--budget", "0.001s")
    assert status == 0
    assert "no method can be evaluated within 0 s" in err and "first classifier is kept" in err
    assert "The fit ended early; the same command goes on" in printed
    assert json.loads((out / "run.json").read_text())["interim"]
    assert (out / "report.html").exists()
    status, _, _ = handful(*words, "--budget", "8s")  # without --overwrite
    assert status == 0 and not json.loads((out / "run.json").read_text())["interim"]
    status, _, err = handful(*words, "--overwrite", "--budget", "0.001s", "--seed", 1)
    assert status == 2 and "no method can be evaluated" in err  # the finished run stays
    assert not json.loads((out / "run.json").read_text())["interim"]
