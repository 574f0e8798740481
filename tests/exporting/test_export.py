"""`handful export`: the folder answers as the run does, or it is not left."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest
import torch
from PIL import Image

import handful
from benchmarks.lib.made_runs import made_run
from handful.errors import HandfulError
from handful.exporting import agreement, job
from handful.exporting.quantize import _out_of_fold
from handful.models import onnx_graph
from handful.onnx_runtime import OnnxModel
from handful.text import promises
from image_files import class_folder, smooth

FILES = {"model.onnx", "predict.py", "pictures.py", "check.npz", "card.md"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 24 pictures of two classes and two formats, some of them turned."""
    folder = tmp_path_factory.mktemp("photos")
    turn = Image.Exif()
    turn[0x0112] = 6
    for number in range(24):
        pixels = smooth(40, 60, seed=number) // (1 + number % 2)
        name = f"{'ab'[number % 2]}/{number}.{'jpg' if number % 3 else 'png'}"
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / name, exif=turn if number % 4 == 1 else Image.Exif())
    return folder


@pytest.fixture(scope="module")
def exported(photos, tmp_path_factory):
    """A run of these pictures, and the folder of its export."""
    place = tmp_path_factory.mktemp("exported")
    settings = {"steps": "6", "backbone.base": "8"}
    run = handful.fit(
        handful.load(photos), "supervised", backbone="small", size=24, settings=settings,
        precision="fp32", out=place / "run",
    )  # fmt: skip
    found = job.export(run, place / "model")
    return run, found


def predict(folder, *words, status=0):
    done = subprocess.run(
        [sys.executable, "predict.py", *map(str, words)], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == status, done.stderr
    return done


@pytest.mark.thorough
def test_the_folder_holds_what_it_needs_and_nothing_of_this_machine(exported, photos):
    run, found = exported
    assert {path.name for path in found.folder.iterdir()} == FILES
    for path in found.folder.iterdir():
        content = path.read_bytes()
        for word in (str(Path(handful.__file__).parent), str(photos), "site-packages"):
            assert word.encode() not in content, (path, word)
    assert found.agreement.images > 30
    assert found.agreement.files == 24 + 4
    assert found.agreement.worst < 1e-5


@pytest.mark.thorough
def test_predict_py_answers_as_handful_does(exported, photos, tmp_path):
    run, found = exported
    images = handful.load(photos, labeled=False, folders="ignore")
    run.predict(images).to_csv(tmp_path / "ours.csv")
    theirs = list(csv.DictReader(predict(found.folder, photos).stdout.splitlines()))
    ours = list(csv.DictReader((tmp_path / "ours.csv").read_text().splitlines()))
    assert len(ours) == 24
    assert {row["file"]: row["label"] for row in theirs} == {
        row["file"]: row["label"] for row in ours
    }
    for a, b in zip(sorted(theirs, key=str), sorted(ours, key=str), strict=True):
        assert float(a["p(a)"]) == pytest.approx(float(b["p(a)"]), abs=2e-4)


@pytest.mark.thorough
def test_predict_py_checks_itself_and_notices_a_wrong_answer(exported, tmp_path):
    _, found = exported
    assert "classes are equal: True" in predict(found.folder, "--check").stdout
    copy = shutil.copytree(found.folder, tmp_path / "copy")
    kept = dict(np.load(copy / "check.npz"))
    kept["probabilities"] = kept["probabilities"] + np.float32(0.002)
    np.savez(copy / "check.npz", **kept)
    predict(copy, "--check", status=1)


@pytest.mark.thorough
def test_predict_py_leaves_out_what_it_cannot_read_and_abstains(exported, tmp_path):
    run, found = exported
    folder = class_folder(tmp_path / "few", per_class=1)
    (folder / "=1+1.png").write_bytes((folder / "cat/0.png").read_bytes())
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (folder / "bomb.ppm").write_bytes(b"P6 60000 60000 255\n")
    done = predict(found.folder, folder, "--none-of-these")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["file"] for row in rows] == ["'=1+1.png", "cat/0.png", "dog/0.png"]
    assert {row["none_of_these"] for row in rows} <= {"", "yes"}
    assert "broken.jpg is left out" in done.stderr
    assert "bomb.ppm is left out" in done.stderr
    refused = predict(found.folder, folder, "--abstain", "0.9999", status=1)
    assert "cannot promise" in refused.stderr


@pytest.mark.thorough
def test_predict_py_names_pictures_from_the_folder_that_holds_all_it_was_given(exported, tmp_path):
    _, found = exported
    photos = class_folder(tmp_path / "photos", per_class=1)  # cat/0.png and dog/0.png

    def named(*given):
        done = predict(found.folder, *given)
        return [row["file"] for row in csv.DictReader(done.stdout.splitlines())]

    assert named(photos / "cat", photos / "dog") == ["cat/0.png", "dog/0.png"]
    assert named(photos / "cat/0.png", photos / "dog/0.png") == ["cat/0.png", "dog/0.png"]
    assert named(photos / "cat/0.png") == named(photos / "dog") == ["0.png"]
    assert named(photos, photos / "cat/0.png") == ["cat/0.png", "dog/0.png"]


@pytest.mark.thorough
def test_predict_py_ends_quietly_where_nobody_reads_on(exported, photos):
    _, found = exported
    words = [sys.executable, "predict.py", str(photos)]
    with subprocess.Popen(words, cwd=found.folder, stdout=PIPE, stderr=PIPE) as begun:
        begun.stdout.close()
        assert begun.stderr.read() == b""
    assert begun.returncode == 0


@pytest.mark.thorough
def test_predict_py_refuses_what_holds_no_picture(exported, tmp_path):
    _, found = exported
    (tmp_path / "none").mkdir()
    (tmp_path / "none/notes.txt").write_text("no picture")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a.jpg").write_bytes(b"\xff\xd8\xff nothing")
    folder = class_folder(tmp_path / "few", per_class=1)
    for words, said in (
        (["nofolder"], "no such file or folder: nofolder; name pictures, or their folder"),
        ([folder, "nofolder"], "no such file or folder: nofolder;"),
        ([tmp_path / "none"], f"no picture in {tmp_path / 'none'}; pictures end in jpg "),
        ([tmp_path / "broken"], "none of the pictures can be read"),
        ([tmp_path / "none/notes.txt"], "none of the pictures can be read"),
    ):
        refused = predict(found.folder, *words, status=2)
        assert said in refused.stderr and refused.stdout == ""
    assert "a.jpg is left out" in predict(found.folder, tmp_path / "broken", status=2).stderr


@pytest.mark.thorough
def test_the_model_says_what_its_user_has_to_know(exported):
    run, found = exported
    model = OnnxModel(found.folder / "model.onnx")
    assert model.classes == run.classes
    assert model.about["input"] == {"size": 24, "channels": 3, "aspect": "crop", "ranges": {}}
    assert model.about["estimate"]["low"] == run.estimate["low"]
    assert model.about["abstentions"] == promises(run.estimate)
    assert torch.__version__.startswith(model.about["versions"]["exported_with"]["torch"])
    assert OnnxModel(run.to_onnx()).about == model.about


@pytest.mark.thorough
@pytest.mark.parametrize(
    "backbone, channels, head",
    [("lite0", 1, "linear"), ("lite0", 3, "mlp"), ("lite0+lite2", 3, "mixed")],
)
def test_features_in_int8_are_exported_so(backbone, channels, head, tmp_path):
    how = {"stages": 3, "precision": "int8", "frozen": True}
    run = made_run(backbone, head=head, channels=channels, size=64, **how)
    found = job.export(run, tmp_path / "model", int8=True)
    assert found.agreement.worst < 1e-4
    assert not (found.folder / "model-int8.onnx").exists()
    assert any("int8 already" in remark for remark in found.remarks)
    size = (found.folder / "model.onnx").stat().st_size
    assert size < 0.4 * len(made_run(backbone, size=64, frozen=True, stages=3).to_onnx())
    pixels = np.random.default_rng(0).integers(0, 256, (5, channels, 64, 64), dtype=np.uint8)
    for model in (OnnxModel(found.folder / "model.onnx"), OnnxModel(job.checked_model(run))):
        expected = agreement.run_answers(run.predictor, pixels).probabilities
        np.testing.assert_allclose(model.answer(pixels).probabilities, expected, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("fault", ["temperature", "class", "frozen batch"])
def test_an_export_that_answers_otherwise_is_not_left(fault, tmp_path, monkeypatch):
    run = made_run("small", base=4, size=8)
    right = onnx_graph.Exported.forward

    def wrong(self, images):
        if fault == "frozen batch":
            images = images[:1].expand_as(images)
        found = right(self, images)
        return {"temperature": found * 0.99, "class": found.roll(1, dims=1)}.get(fault, found)

    monkeypatch.setattr(onnx_graph.Exported, "forward", wrong)
    with pytest.raises(HandfulError, match="does not answer as the run does"):
        job.export(run, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.thorough
def test_a_program_that_reads_other_pixels_is_not_left(tmp_path, monkeypatch):
    run = made_run("small", base=4, size=8)
    monkeypatch.setattr("handful.exporting.folder.pictures.TURNS", {})
    with pytest.raises(HandfulError, match="reads other pixels from turned.jpg"):
        job.export(run, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.thorough
def test_no_images_keeps_only_made_images(exported, tmp_path):
    run, _ = exported
    job.export(run, tmp_path / "model", keep_images=False)
    kept = np.load(tmp_path / "model" / "check.npz")["images"]
    own = job.check_images.of_run(run).pixels
    assert not any((image == other).all() for image in kept for other in own)
    with pytest.raises(HandfulError, match="holds files, and they stay"):
        job.export(run, tmp_path / "model")


@pytest.mark.thorough
def test_the_command_exports_and_says_how_well_it_agrees(exported, handful, tmp_path):
    run, _ = exported
    status, out, _ = handful("export", run.folder, "--out", tmp_path / "model", "--json")
    assert status == 0
    said = json.loads(out)
    assert said["files"] == 28 and said["worst"] < 1e-5


@pytest.mark.parametrize("asked", ["--web", "--int8", "--hub-folder", "--no-images"])
def test_the_command_hands_on_what_is_asked(asked, exported, handful, tmp_path, monkeypatch):
    run, _ = exported
    given = {}

    def export(run, out, **options):
        given.update(options)
        return job.Exported(out, agreement.Agreement(1, 0.0), ())

    monkeypatch.setattr(job, "export", export)
    assert handful("export", run.folder, "--out", tmp_path / "model", asked)[0] == 0
    key = {"--hub-folder": "hub", "--no-images": "keep_images"}.get(asked, asked[2:])
    usual = {"web": False, "int8": False, "hub": False, "keep_images": True}
    assert {one for one in usual if given[one] != usual[one]} == {key}


def test_a_folder_with_files_is_refused_before_any_work(handful, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    status, _, err = handful("export", tmp_path, "--out", tmp_path)
    assert status == 2
    assert "holds files, and they stay" in err
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_probabilities_may_differ_by_a_thousandth_and_classes_not_at_all():
    def answers(*shares):
        return agreement.Answers(np.array([shares], np.float32), None)

    assert agreement.differences(answers(0.6, 0.4), answers(0.6005, 0.3995)) < 1e-3
    with pytest.raises(HandfulError, match="differ by up to 0.002"):
        agreement.differences(answers(0.6, 0.4), answers(0.602, 0.398))
    with pytest.raises(HandfulError, match="class of 1 of 1 images"):
        agreement.differences(answers(0.5002, 0.4998), answers(0.4998, 0.5002))
    assert agreement.differences(answers(0.5, 0.5), answers(0.4999998, 0.5000002)) < 1e-6
    with pytest.raises(HandfulError, match="differ by up to nan"):
        agreement.differences(answers(float("nan"), 0.4), answers(0.6, 0.4))


@pytest.mark.thorough
def test_an_int8_model_is_left_only_if_the_labelled_images_show_no_loss(
    exported, photos, tmp_path, monkeypatch
):
    run, _ = exported
    monkeypatch.setattr("handful.exporting.quantize.FEWEST", 5)
    images = handful.load(photos)
    found = job.export(run, tmp_path / "good", images=images, int8=True, hub=True)
    assert {path.name for path in found.folder.iterdir()} == (FILES - {"card.md"}) | {
        "README.md", "model.safetensors", "model-int8.onnx",
    }  # fmt: skip
    sizes = [(found.folder / name).stat().st_size for name in ("model-int8.onnx", "model.onnx")]
    assert sizes[0] < sizes[1]
    table = predict(found.folder, photos, "--model", "model-int8.onnx").stdout
    assert len(table.splitlines()) == 25
    text = (found.folder / "README.md").read_text()
    assert text.startswith("---\nlicense: other")
    assert "of 24 labelled images right" in text

    monkeypatch.setattr(
        "handful.exporting.quantize._int8",
        lambda content, *_: made_run("small", base=4, size=24, classes=2, seed=3).to_onnx(),
    )
    monkeypatch.setattr(
        "handful.exporting.quantize._accuracies", lambda *_: (0.9, 0.7, "out of fold")
    )
    refused = job.export(run, tmp_path / "bad", images=images, int8=True)
    assert not (refused.folder / "model-int8.onnx").exists()
    assert "not less than its standard error" in refused.remarks[-1]


def test_the_head_of_int8_learns_from_32_bits_and_is_asked_by_images_it_did_not_see():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = (np.eye(3)[labels] * 4 + rng.normal(0, 1, (60, 3))).astype(np.float32)
    noise = rng.normal(0, 1, (60, 3)).astype(np.float32)
    plain, same, lost = _out_of_fold([features, features, noise], labels, 3)
    assert plain.mean() > 0.9
    assert (plain == same).all()
    assert lost.mean() < 0.6
    for right in _out_of_fold([noise, features], labels, 3):
        assert right.mean() < 0.8  # a head of the features themselves has 0.9 and more
