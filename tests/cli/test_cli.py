"""The command line: output, files and errors."""

import csv
import json
import os
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from handful.cli import app, terminal
from handful.cli.label import fit_words
from image_files import save, smooth
from lazy_imports import fresh_python

QUICK = ["--set", "steps=4", "--set", "backbone.base=8", "--precision", "fp32"]
PLAIN = [*QUICK, "--estimate", "none"]


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of 12 + 12 labelled and 6 unlabelled photographs of various sizes."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, colour in [("red fox", 0), ("blue jay", 2), ("unlabeled", 1)]:
        (root / name).mkdir()
        for i in range(6 if name == "unlabeled" else 12):
            pixels = rng.integers(0, 120, (40 + i, 50, 3), dtype=np.uint8)
            pixels[..., colour] += 100
            Image.fromarray(pixels).save(root / name / f"{i}.jpg")
    return root


@pytest.fixture(scope="session")
def run_folder(photos, tmp_path_factory):
    """A finished run on the photos, made by the command."""
    out = tmp_path_factory.mktemp("runs") / "run"
    found = CliRunner().invoke(app, ["fit", str(photos), "--out", str(out), *PLAIN])
    assert found.exit_code == 0, found.output
    return out


def rows_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_help_comes_without_what_takes_long_to_import():
    code = (
        "import runpy, sys; sys.argv = ['handful', '--help']\n"
        "try: runpy.run_module('handful', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as leaving: assert not leaving.code\n"
        "slow = {'torch', 'numpy', 'scipy', 'sklearn', 'matplotlib', 'timm', 'pydantic', 'PIL'}\n"
        "assert not slow & sys.modules.keys(), slow & sys.modules.keys()"
    )
    found = fresh_python(code)
    assert found.returncode == 0, found.stderr
    assert "predict" in found.stdout


def test_fit_leaves_a_run_and_says_how_good_it_is(handful, tmp_path):
    out = tmp_path / "run"
    status, printed, _ = handful("fit", "digits", "--per-class", 3, "--out", out, *QUICK)
    assert status == 0
    assert "better than guessing" in printed
    assert "On 359 test images: about" in printed
    record = json.loads((out / "run.json").read_text())
    assert record["data"]["labeled"] == 30
    assert record["data"]["unlabeled"] == 1408
    assert record["data"]["images"] == 1797
    assert record["data"]["test"] == record["test"]["n"] == 359
    assert record["method"]["name"] == "supervised"
    assert 0 <= record["estimate"]["low"] <= record["estimate"]["high"] <= 1
    assert record["seed"] == 0
    assert record["training"]["steps"] == 4
    files = {path.name for path in out.iterdir()}
    assert files == {
        "run.json", "model.safetensors", "history.jsonl", "labels.csv", "predictions.csv",
        "label-next.csv", "familiar.safetensors", "out-of-fold.csv", "pictures.json", "report.html",
        "draw.json", "test.json", "confusion.svg",
    }  # fmt: skip
    assert len(rows_of(out / "labels.csv")) == 30
    assert len(rows_of(out / "predictions.csv")) == 1408
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in history] == [0, 1, 2, 3, 4]


@pytest.mark.thorough
def test_json_is_one_object_and_nothing_else_on_stdout(handful, tmp_path):
    words = ["fit", "digits", "--per-class", 3, "--out", tmp_path / "run", *PLAIN, "--json"]
    status, out, _ = handful(*words)
    assert status == 0
    record = json.loads(out)
    assert record == json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["estimate"] is None


def test_predict_writes_a_row_an_image(handful, run_folder, photos, tmp_path):
    status, out, _ = handful("predict", run_folder, photos, "--out", tmp_path / "p.csv")
    assert status == 0
    rows = rows_of(tmp_path / "p.csv")
    assert len(rows) == 30
    assert list(rows[0]) == ["file", "label", "confidence", "p(blue jay)", "p(red fox)"]
    for row in rows:
        shares = [float(row["p(blue jay)"]), float(row["p(red fox)"])]
        assert sum(shares) == pytest.approx(1, abs=2e-4)
        assert float(row["confidence"]) == pytest.approx(max(shares), abs=1e-4)
    assert "30 images" in out


def test_predict_takes_one_file_of_any_size_and_colour(handful, run_folder, tmp_path):
    Image.new("L", (7, 300), 90).save(tmp_path / "grey.png")
    status, out, _ = handful("predict", run_folder, tmp_path / "grey.png", "--json")
    assert status == 0
    (row,) = json.loads(out)["predictions"]
    assert row["file"] == "grey.png"
    assert row["label"] in ("red fox", "blue jay")


def test_predict_sorts_copies_into_class_folders(handful, run_folder, photos, tmp_path):
    assert handful("predict", run_folder, photos, "--into", tmp_path / "sorted")[0] == 0
    copies = sorted(path for path in (tmp_path / "sorted").rglob("*.jpg"))
    assert len(copies) == 30
    assert {path.parent.name for path in copies} <= {"red fox", "blue jay"}


def test_evaluate_prints_the_figures_and_keeps_the_plot(handful, run_folder, photos, tmp_path):
    status, out, err = handful("evaluate", run_folder, photos, "--out", tmp_path / "scores")
    assert status == 0
    assert "24 of these images are among those the run was trained on" in err
    for word in ("accuracy on 24 images", "balanced accuracy", "macro-F1", "calibration", "recall"):
        assert word in out
    assert (tmp_path / "scores" / "confusion.svg").read_text().startswith("<?xml")
    figures = json.loads((tmp_path / "scores" / "evaluation.json").read_text())
    assert sum(map(sum, figures["confusion"])) == 24


def test_evaluate_goes_on_at_classes_that_the_run_does_not_know(
    handful, run_folder, photos, tmp_path
):
    known = sorted(path.name for path in photos.iterdir() if path.is_dir())[:1]
    for name, n in ((known[0], 3), ("zebra", 2)):
        (tmp_path / "new" / "test" / name).mkdir(parents=True)
        for number, photo in enumerate(sorted((photos / known[0]).iterdir())[:n]):
            shutil.copy(photo, tmp_path / "new" / "test" / name / f"{number}{photo.suffix}")
    status, out, err = handful("evaluate", run_folder, tmp_path / "new", "--json")
    found = json.loads(out)
    assert status == 0 and found["n"] == 3
    foreign = found["foreign"]
    right = sum(row[k] for k, row in enumerate(found["confusion"]))
    assert foreign["classes"] == {"zebra": 2} and foreign["n"] == 2
    assert foreign["accuracy_counting_as_wrong"] == pytest.approx(right / 5)
    assert foreign["low"] <= right / 5 <= foreign["high"]
    assert "no training part" in err
    _, out, _ = handful("evaluate", run_folder, tmp_path / "new")
    assert "accuracy on 3 images" in out and "zebra: 2" in out and "counting them as wrong" in out
    shutil.rmtree(tmp_path / "new" / "test" / known[0])
    status, _, err = handful("evaluate", run_folder, tmp_path / "new")
    assert status == 2 and "zebra" in err and known[0] in err


def test_predict_says_what_it_leaves_out(handful, run_folder, photos, tmp_path):
    photo = sorted(photos.rglob("*.jpg"))[0]
    (tmp_path / "new").mkdir()
    shutil.copy(photo, tmp_path / "new" / "a.jpg")
    (tmp_path / "new" / "b.jpg").write_bytes(photo.read_bytes()[:40])
    (tmp_path / "new" / "c.jp2").write_bytes(b"")
    status, out, err = handful("predict", run_folder, tmp_path / "new")
    assert status == 0 and out.startswith("a.jpg") and len(out.splitlines()) == 1
    assert "2 left out" in err and "1 .jp2 not read" in err
    _, out, err = handful("predict", run_folder, tmp_path / "new", "--json")
    left_out = {row["file"]: row["reason"] for row in json.loads(out)["left_out"]}
    assert left_out.keys() == {"b.jpg", "c.jp2"} and "JPEG 2000" in left_out["c.jp2"]
    assert "2 left out" in err


def test_a_label_without_an_image_is_told_once(handful, run_folder, photos, tmp_path):
    photo = sorted(photos.rglob("*.jpg"))[0]
    (tmp_path / "new").mkdir()
    shutil.copy(photo, tmp_path / "new" / "a.jpg")
    (tmp_path / "new" / "b.jpg").write_bytes(photo.read_bytes()[:40])
    labels = tmp_path / "labels.csv"
    labels.write_text(f"file,label\na.jpg,{photo.parent.name}\ngone.jpg,{photo.parent.name}\n")
    _, _, err = handful("evaluate", run_folder, tmp_path / "new", "--labels", labels)
    assert err.count("gone.jpg") == 1 and "1 left out" in err and "only in the label" not in err


@pytest.mark.thorough
def test_the_same_command_again_finds_the_finished_run(handful, tmp_path):
    words = ["fit", "digits", "--per-class", 3, "--out", tmp_path / "run", *PLAIN]
    handful(*words)
    before = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    status, _, err = handful(*words)
    assert status == 0
    assert "already holds this run, finished" in err
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.thorough
def test_another_run_is_refused_until_overwrite(handful, tmp_path):
    words = ["fit", "digits", "--per-class", 3, "--out", tmp_path / "run", *PLAIN]
    handful(*words)
    (tmp_path / "run-2").mkdir()
    status, _, err = handful(*words, "--seed", 1)
    assert status == 2
    assert err.strip().endswith(
        "run holds another run, finished, made with other images, labels, settings, time or seed; "
        f"give another folder, --out {tmp_path / 'run-3'} (--after FOLDER goes on from its "
        "labels), or --overwrite (in Python overwrite=True) to put this one in its place"
    )
    assert handful(*words, "--seed", 1, "--overwrite")[0] == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["seed"] == 1


BAD = [
    (["fit", "nowhere", "--out", "{new}"], "nowhere"),
    (["fit", "digit", "--out", "{new}"], "Did you mean 'digits'?"),
    (["fit", "{empty}", "--out", "{new}"], "no image"),
    (["fit", "{one}", "--out", "{new}"], "one class only"),
    (["fit", "{none}", "--out", "{new}"], "no label"),
    (["fit", "digits", "--per-class", "0", "--out", "{new}"], "per_class=0"),
    (["fit", "digits", "--per-class", "999", "--out", "{new}"], "per_class=139"),
    (["fit", "digits", "--method", "supervize", "--out", "{new}"], "Did you mean 'supervised'?"),
    (["fit", "digits", "--backbone", "smal", "--out", "{new}"], "Did you mean 'small'?"),
    (
        ["fit", "digits", "--method", "features", "--backbone", "small", "--out", "{new}"],
        "'small' has none; use --backbone lite0",
    ),
    (["fit", "digits", "--set", "stepz=3", "--out", "{new}"], "Did you mean 'steps'?"),
    (
        ["fit", "digits", "--set", "steps=many", "--out", "{new}"],
        "takes a whole number, got 'many'",
    ),
    (["fit", "digits", "--set", "steps", "--out", "{new}"], "--set takes NAME=VALUE, got 'steps'"),
    (["fit", "digits", "--set", "lr=-1", "--out", "{new}"], "lr must be above 0, got -1.0"),
    (["fit", "digits", "--set", "augment=digitz", "--out", "{new}"], "Did you mean 'digits'?"),
    (
        ["fit", "digits", "--precision", "fp16", "--out", "{new}"],
        "choose one of auto, int8, fp32, bf16",
    ),
    (["fit", "digits", "--estimate", "guess", "--out", "{new}"], "choose one of folds, none"),
    (
        ["fit", "digits", "--prior", "7", "--out", "{new}"],
        "--prior takes CLASS=SHARE,..., unlabeled or labels, got '7'",
    ),
    (["fit", "digits", "--prior", "0=.5,l=.5", "--out", "{new}"], "prior names no class 'l'"),
    (["fit", "digits", "--prior", "0=.5,1=.5", "--out", "{new}"], "'2' has none; give it 0"),
    (["fit", "{photos}", "--prior", "blue jay=1,red fox=1", "--out", "{new}"], "add up to 2"),
    (["fit", "{photos}", "--prior", "unlabeled", "--out", "{new}", *PLAIN], "is none"),
    (["predict", "{run}", "digits", "--abstain", "0.95"], "this run has no estimate"),
    (["predict", "{run}", "digits", "--abstain", "95"], "got 95.0; try 0.95"),
    (["fit", "digits", "--aspect", "squash", "--out", "{new}"], "choose one of crop, pad, stretch"),
    (["fit", "digits", "--size", "0", "--out", "{new}"], "8 to 2048, got 0"),
    (["fit", "digits", "--out", "{other}"], "holds other files"),
    (["fit", "digits", "--out", "{file}"], "is a file"),
    (["fit", "digits", "--outt", "{new}"], "--out"),
    (["predict", "{empty}", "digits"], "run.json is missing"),
    (["predict", "{new}", "digits"], "no folder"),
    (["evaluate", "{run}", "digits"], "not among the 2 known classes"),
    (["evaluate", "{run}", "{none}"], "no labelled image"),
]


HUGE = "99999999999999999999"
EXTREME = [
    (["--set", f"steps={HUGE}"], "steps takes a number below"),
    (["--set", "batch=100000000"], "batch must be"),
    (["--set", "lr=1e999"], "lr"),
    (["--size", "999999999"], "size"),
    (["--per-class", HUGE], "per_class"),
    (["--budget", "1e999h"], "1e999h"),
    (["--seed", "1" + 40 * "0"], "seed"),
]


@pytest.mark.parametrize("words, message", EXTREME, ids=[words[-1] for words, _ in EXTREME])
def test_absurd_numbers_are_refused_before_anything_is_made(handful, words, message, tmp_path):
    out = tmp_path / "run"
    status, _, err = handful("fit", "digits", *words, "--estimate", "none", "--out", out)
    assert status == 2
    assert err.strip().startswith("Error: ") and len(err.strip().splitlines()) == 1
    assert message in err
    assert not out.exists()


@pytest.mark.parametrize("words, message", BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_is_one_line_status_two_and_nothing_written(
    handful, words, message, tmp_path, photos, run_folder
):
    places = {
        "photos": photos,
        "run": run_folder,
        "new": tmp_path / "new",
        "file": tmp_path / "file.txt",
    }
    for name in ("empty", "one", "none", "other"):
        places[name] = tmp_path / name
        places[name].mkdir()
    (places["one"] / "cat").mkdir()
    for i in range(3):
        Image.new("RGB", (20, 20), (i, 40, 90)).save(places["one"] / "cat" / f"{i}.png")
        Image.new("RGB", (20, 20), (i, 40, 90)).save(places["none"] / f"{i}.png")
    (places["other"] / "diary.txt").write_text("mine")
    places["file"].write_text("mine")
    status, out, err = handful(*[word.format(**places) for word in words])
    assert status == 2, err
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert not places["new"].exists()
    assert (places["other"] / "diary.txt").read_text() == "mine"


def damaged(run_folder, tmp_path, name, change):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run_folder, copy)
    path = copy / name
    if change == "missing":
        path.unlink()
    elif change == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif change == "foreign":
        path.write_text('{"something": "else"}')
    return copy


@pytest.mark.parametrize("name", ["run.json", "model.safetensors"])
@pytest.mark.parametrize("change", ["missing", "truncated", "foreign"])
def test_a_damaged_run_folder_is_named(handful, run_folder, photos, tmp_path, name, change):
    copy = damaged(run_folder, tmp_path, name, change)
    status, _, err = handful("predict", copy, photos)
    assert status == 2
    assert name in err
    assert len(err.strip().splitlines()) == 1


def test_weights_of_another_network_are_refused(handful, run_folder, photos, tmp_path):
    from safetensors.torch import save_file

    from handful.files import read_tensors

    copy = damaged(run_folder, tmp_path, "model.safetensors", "kept")
    tensors, metadata = read_tensors(copy / "model.safetensors")
    tensors.pop("head.bias")
    save_file(tensors, copy / "model.safetensors", metadata)
    status, _, err = handful("predict", copy, photos)
    assert status == 2
    assert "does not hold the network it describes" in err


def test_a_header_cannot_ask_for_more_memory_than_its_file_holds(
    handful, run_folder, photos, tmp_path
):
    from safetensors.torch import save_file

    from handful.files import read_tensors

    copy = damaged(run_folder, tmp_path, "model.safetensors", "kept")
    tensors, metadata = read_tensors(copy / "model.safetensors")
    described = json.loads(metadata["predictor"])
    described |= {"backbone": {"name": "mlp", "options": {}}, "size": 200_000}
    save_file(tensors, copy / "model.safetensors", {"predictor": json.dumps(described)})
    status, _, err = handful("predict", copy, photos)
    assert status == 2
    assert "size" in err and "less than or equal to 2048" in err


def test_an_unfinished_run_says_how_to_finish_it(handful, tmp_path, photos):
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    status, _, err = handful("predict", tmp_path / "run", photos)
    assert status == 2
    assert "holds an unfinished run; start the same fit again to finish it" in err


@pytest.mark.thorough
def test_a_full_or_read_only_disk_is_one_line(handful, monkeypatch, tmp_path):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "model.safetensors")

    monkeypatch.setattr("handful.pipeline.model_file.write_tensors", full)
    status, _, err = handful("fit", "digits", "--per-class", 3, "--out", tmp_path / "r", *PLAIN)
    assert status == 2
    assert "cannot use model.safetensors: no space left on device" in err
    assert not (tmp_path / "r" / "run.json").exists()


def test_our_own_mistakes_show_a_traceback_and_exit_one(handful, monkeypatch, tmp_path):
    monkeypatch.setattr("handful.pipeline.resolve.check_labels", lambda *_: 1 / 0)
    status, _, err = handful("fit", "digits", "--out", tmp_path / "run")
    assert status == 1
    assert "ZeroDivisionError" in err


def test_unlabeled_images_are_predicted_in_the_run_folder(run_folder):
    rows = rows_of(run_folder / "predictions.csv")
    assert len(rows) == 6
    assert all(Path(row["file"]).parent.name == "unlabeled" for row in rows)


def test_predict_leaves_out_no_image_whatever_the_folders_are_called(
    handful, run_folder, photos, tmp_path
):
    for number, place in enumerate(["train/a", "train/b", "test/a", "test/b"]):
        (tmp_path / "new" / place).mkdir(parents=True)
        photo = sorted(photos.rglob("*.jpg"))[number % 2]  # the test part has the same pixels
        shutil.copy(photo, tmp_path / "new" / place / "1.jpg")
    status, out, _ = handful("predict", run_folder, tmp_path / "new")
    assert status == 0
    assert [line.split("\t")[0] for line in out.splitlines()] == [
        "test/a/1.jpg",
        "test/b/1.jpg",
        "train/a/1.jpg",
        "train/b/1.jpg",
    ]


def test_copies_of_files_with_one_name_do_not_overwrite_each_other(
    handful, run_folder, photos, tmp_path
):
    photo = next(photos.rglob("*.jpg"))
    for name in ("a/b_c.jpg", "a_b/c.jpg"):
        (tmp_path / "new" / name).parent.mkdir(parents=True)
        shutil.copy(photo, tmp_path / "new" / name)
    assert handful("predict", run_folder, tmp_path / "new", "--into", tmp_path / "sorted")[0] == 0
    copies = sorted(path.name for path in (tmp_path / "sorted").rglob("*.jpg"))
    assert copies == ["a_b_c (2).jpg", "a_b_c.jpg"]


def test_names_that_are_markup_or_no_unicode_are_written_as_they_are(
    handful, run_folder, photos, tmp_path
):
    new = tmp_path / "new[/b]"
    new.mkdir(parents=True)
    name = os.fsencode(new) + b"/photo\xff.jpg"
    shutil.copy(next(photos.rglob("*.jpg")), os.fsdecode(name))
    status, out, _ = handful("predict", run_folder, new, "--out", new / "predictions.csv")
    assert status == 0 and "new[/b]/predictions.csv" in out.replace("\n", "")
    assert b"photo\xff.jpg," in (new / "predictions.csv").read_bytes()
    status, out, _ = handful("predict", run_folder, new, "--json")
    assert json.loads(out)["predictions"][0]["file"] == "photo\udcff.jpg"


def test_sorting_into_the_source_is_refused_before_anything_is_predicted(
    handful, run_folder, photos, tmp_path, monkeypatch
):
    new = tmp_path / "new"
    shutil.copytree(photos / "red fox", new / "red fox")
    shutil.copy(photos / "blue jay" / "0.jpg", new / "0.jpg")
    before = {path: path.read_bytes() for path in new.rglob("*.jpg")}
    monkeypatch.setattr("handful.pipeline.run.Run.predict", lambda *_: pytest.fail("predicted"))
    for target in (new, new / "sorted"):
        status, _, err = handful("predict", run_folder, new, "--into", target)
        assert status == 2 and "where the originals are" in err
    assert {path: path.read_bytes() for path in new.rglob("*.jpg")} == before


def test_sorting_into_the_folder_that_the_run_learned_from_is_refused(
    handful, run_folder, photos, tmp_path
):
    new = tmp_path / "new"
    shutil.copytree(photos / "red fox", new)
    before = sorted(photos.rglob("*"))
    status, _, err = handful("predict", run_folder, new, "--into", photos)
    assert status == 2 and "was trained on" in " ".join(err.split())
    assert sorted(photos.rglob("*")) == before


def test_a_dry_run_tells_in_json_what_would_be_sorted_and_writes_nothing(
    handful, run_folder, photos, tmp_path
):
    words = ["predict", run_folder, photos, "--into", tmp_path / "to", "--json"]
    status, out, _ = handful(*words, "--dry-run")
    assert status == 0 and not (tmp_path / "to").exists()
    promised = json.loads(out)["sorted"]
    assert (promised["copied"], promised["moved"], promised["dry_run"]) == (30, 0, True)
    assert sum(row["copied"] for row in promised["classes"]) == 30
    status, out, _ = handful(*words)
    found = json.loads(out)
    assert found["sorted"] == {**promised, "dry_run": False} and found["left_out"] == []
    assert len(list((tmp_path / "to").rglob("*.jpg"))) == 30


@pytest.mark.parametrize("words", [["--dry-run"], ["--into", "to", "--out", "p.csv", "--dry-run"]])
def test_a_dry_run_is_of_into_alone(handful, run_folder, photos, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    status, _, err = handful("predict", run_folder, photos, *words)
    assert status == 2 and "use it with --into and without --out" in err
    assert not list(tmp_path.iterdir())


def test_no_figure_is_printed_that_is_withheld(capsys):
    estimate = {
        "accuracy": 0.97,
        "low": 0.41,
        "high": 1.0,
        "level": 0.9,
        "n": 60,
        "how": "by folds",
    }
    estimate |= {"guessing": True, "balanced_accuracy": None, "caveats": [], "per_class": []}
    terminal.print_estimate(estimate)
    printed = capsys.readouterr().out
    assert "not shown to be better than guessing" in printed and "97" not in printed


def test_a_fit_on_features_explains_itself_where_it_is_asked(handful, photos, tmp_path):
    words = ["--method", "features", "--size", "32", "--precision", "fp32"]
    status, out, err = handful("fit", photos, "--out", tmp_path / "my run", *words)
    assert status == 0 and "features (it fits a linear head on" in err
    assert "method: features" not in out and "out of fold" not in out
    assert "The 6 other images" not in out and "the 6 other images, classified" in out
    assert f"handful predict '{tmp_path / 'my run'}' MORE-IMAGES" in out
    status, out, _ = handful("fit", photos, "--out", tmp_path / "my run", *words, "--explain")
    assert status == 0 and " steps " not in out
    words = " ".join(out.split())
    what = r"method: features \(it fits a linear head on [\w ]+\), \d+ s in all"
    assert re.search(what, words) and "out of fold" in words


def test_the_page_names_a_fit_that_no_run_is_in_the_way_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table, run = Path("labels.csv"), Path("photos-run")
    assert fit_words("photos", table, None) == ["fit", "photos", "--labels", table]
    run.mkdir()
    beside = [*fit_words("photos", table, None)[-2:]]
    assert list(map(str, beside)) == ["--out", "photos-run-2"]
    after = fit_words("photos", table, run)[-4:]
    assert list(map(str, after)) == ["--after", "photos-run", "--out", "photos-run-2"]


@pytest.mark.thorough
def test_labels_that_are_here_and_not_used_are_told(handful, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for at in range(8):
        save(tmp_path / "photos" / f"{at}.png", smooth(20, 20, seed=at))
    rows = [f"{at}.png,{'ab'[at % 2]}" for at in range(6)]
    Path("labels.csv").write_text("\n".join(["file,label", *rows]))
    words = ["fit", "photos", "--method", "features", "--size", "32", "--estimate", "none"]
    assert handful(*words)[0] == 0
    for more, told in (([], False), (["0.png,b"], True), (["7.png,b"], True)):
        changed = [*rows, *more][-6:]
        Path("labels.csv").write_text("\n".join(["file,label", *changed]))
        status, _, err = handful(*words, "--after", "photos-run", "--out", "more", "--overwrite")
        assert status == 0 and ("with --after, give --labels labels.csv" in err) == told, more
    table = Path("photos-run/label-next.csv")
    table.write_text("\n".join(["file,label", *rows]))
    _, _, err = handful(*words, "--labels", table, "--out", "other")
    told = (
        "photos-run/label-next.csv has new labels only: --after photos-run keeps those of that run"
    )
    assert told in err
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as Python has it where nothing is said
        status, _, err = handful(*words, "--labels", table, "--out", "quiet", "--quiet")
    assert (status, err) == (0, f"{told}\n")


@pytest.mark.parametrize("word, shown", [("--quiet", ""), ("--verbose", "odd \\x1b[2J number\n")])
def test_a_warning_of_another_package_is_a_sentence_and_not_shown_with_quiet(
    handful, monkeypatch, word, shown
):
    def warn(*words):
        warnings.warn("odd \x1b[2J number", RuntimeWarning, stacklevel=1)
        return []

    monkeypatch.setattr("handful.pipeline.method_list.described", warn)
    before = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert handful("methods", word)[2] == shown
    assert warnings.showwarning is before
