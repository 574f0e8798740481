"""Files that vanish or fail while a job runs are listed, and the job is done without them."""

import json

import numpy as np
import pytest
import torch

import handful as package
from handful.data import decode
from handful.data.sources import load
from handful.data.store import FileStore, Vanished
from handful.errors import HandfulError
from handful.models.feature_cache import features
from handful.pipeline import compare, fit
from handful.pipeline.run import open_run
from image_files import class_folder, save


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    return class_folder(tmp_path / "photos", per_class=8)


def failing(monkeypatch, name, harm):
    """Call `harm` just before the file of this name is decoded."""
    really_read = decode.read

    def read(path, *how):
        if path.as_posix().endswith(name):
            harm(path)
        return really_read(path, *how)

    monkeypatch.setattr(decode, "read", read)


def io_error(path):
    raise decode.Unreadable("cannot be read: Input/output error")


HARM = {
    "vanished": (lambda path: path.unlink(missing_ok=True), "vanished"),
    "changed": (lambda path: save(path, seed=77), "changed while it was read"),
    "input/output error": (io_error, "cannot be read: Input/output error"),
}


def steps(folder, **more):
    plain = {"settings": {"steps": "3"}, "estimate": "none", "precision": "fp32"}
    return package.fit(load(folder), "supervised", **plain, **more)


@pytest.mark.parametrize("harm, reason", HARM.values(), ids=HARM.keys())
def test_a_fit_goes_on_without_what_vanished(tmp_path, folder, monkeypatch, harm, reason):
    failing(monkeypatch, "cat/3.png", harm)
    images, said = load(folder), []
    run = package.fit(
        images, "supervised", settings={"steps": "3"}, estimate="none", out=tmp_path / "run",
        reporter=fit.Reporter(say=said.append),
    )  # fmt: skip
    assert run.record["data"]["labeled"] == 15
    assert f"left out: cat/3.png: {reason}" in said
    assert ("cat/3.png", reason) in images.store.skipped
    assert "cat/3.png" not in (tmp_path / "run" / "labels.csv").read_text()
    assert open_run(tmp_path / "run").record["fingerprint"] == run.record["fingerprint"]


@pytest.mark.thorough
def test_the_run_is_that_of_a_folder_without_what_vanished(tmp_path, folder, monkeypatch):
    save(folder / "dog" / "copy.png", seed=1003)  # groups are numbered anew, too
    with monkeypatch.context() as here:
        failing(here, "cat/3.png", HARM["vanished"][0])
        first = steps(folder)
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "another"))
    assert not (folder / "cat" / "3.png").exists()
    second = steps(folder)
    assert first.record["fingerprint"] == second.record["fingerprint"]
    assert first.record["data"] == second.record["data"]
    ours, theirs = (run.predictor.model.state_dict() for run in (first, second))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_class_of_which_all_images_vanished_is_none_any_more(folder, monkeypatch):
    save(folder / "owl" / "1.png", seed=55)
    failing(monkeypatch, "owl/1.png", HARM["vanished"][0])
    run = steps(folder)
    assert run.classes == ("cat", "dog") and run.record["data"]["images"] == 16


def test_where_all_vanished_the_message_says_so(folder, monkeypatch):
    failing(monkeypatch, ".png", HARM["vanished"][0])
    with pytest.raises(HandfulError, match="no image of .* can be read any more.*cat/0.png"):
        steps(folder)


def test_a_folder_with_another_run_is_refused_after_a_file_vanished(tmp_path, folder, monkeypatch):
    steps(folder, out=tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_bytes()
    failing(monkeypatch, "cat/3.png", HARM["vanished"][0])
    with pytest.raises(HandfulError, match="holds another run, finished"):
        steps(folder, size=11, out=tmp_path / "run")
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_predict_answers_for_the_rest(tmp_path, folder, monkeypatch, handful):
    steps(folder, out=tmp_path / "run")
    new = class_folder(tmp_path / "new", per_class=5, classes=("x", "y"))
    out = tmp_path / "out.csv"
    failing(monkeypatch, "x/2.png", HARM["vanished"][0])
    failing(monkeypatch, "y/4.png", io_error)
    status, _, err = handful("predict", tmp_path / "run", new, "--out", out)
    assert status == 0
    assert "left out: x/2.png: vanished" in err
    assert "left out: y/4.png: cannot be read: Input/output error" in err
    with_loss = out.read_text().splitlines()
    assert [line.split(",")[0] for line in with_loss[1:]] == [
        *(f"x/{n}.png" for n in (0, 1, 3, 4)), *(f"y/{n}.png" for n in range(4))
    ]  # fmt: skip
    monkeypatch.undo()
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "another"))
    assert handful("predict", tmp_path / "run", new, "--out", out)[0] == 0
    assert set(with_loss) <= set(out.read_text().splitlines())  # the answers are the same


def test_features_of_what_vanished_are_never_kept(folder, monkeypatch):
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 81, 2))
    with monkeypatch.context() as here:
        failing(here, "cat/3.png", io_error)
        images = load(folder)
        with pytest.raises(Vanished, match="cat/3.png could be read a moment ago"):
            features(images, network, 9, precision="fp32")
    again = load(folder)
    names = []
    really_batch = FileStore.batch

    def batch(self, rows, *how):
        names.extend(self.names[row] for row in rows)
        return really_batch(self, rows, *how)

    monkeypatch.setattr(FileStore, "batch", batch)
    found = features(again, network, 9, precision="fp32")
    assert names == ["cat/3.png"]  # the others are known, and this one is not, as black
    with torch.no_grad():
        expected = network(again.at(9).float() / 255)
    np.testing.assert_allclose(found.float(), expected, atol=2e-3)


def test_embed_leaves_out_what_vanished(tmp_path, folder, monkeypatch, handful):
    failing(monkeypatch, "cat/3.png", HARM["vanished"][0])
    out = tmp_path / "features.npz"
    status, told, err = handful("embed", folder, "--out", out, "--size", 32, "--json")
    assert status == 0 and "left out: cat/3.png: vanished" in err
    assert json.loads(told)["images"] == 15
    with np.load(out) as found:
        assert len(found["features"]) == len(found["labels"]) == 15
        assert "cat/3.png" not in found["names"]
        assert found["labels"].tolist() == [0] * 7 + [1] * 8


def test_data_tells_of_the_rest(tmp_path, folder, monkeypatch, handful):
    failing(monkeypatch, "cat/3.png", HARM["vanished"][0])
    failing(monkeypatch, "dog/4.png", io_error)
    status, told, err = handful("data", folder, "--out", tmp_path / "about", "--json")
    assert status == 0, err
    assert "left out: cat/3.png: vanished" in err
    found = json.loads(told)
    assert found["labeled"] == 14 and found == json.loads(
        (tmp_path / "about" / "data.json").read_text()
    )
    skipped = {row["name"]: row["reason"] for row in found["skipped"]}
    assert skipped == {
        "cat/3.png": "vanished", "dog/4.png": "cannot be read: Input/output error"
    }  # fmt: skip
    page = (tmp_path / "about" / "data.html").read_text()
    assert "2 left out" in page


def test_first_labels_are_of_the_rest(tmp_path, folder, monkeypatch, handful):
    photos = tmp_path / "photos" / "cat"
    failing(monkeypatch, "3.png", HARM["vanished"][0])
    words = ("--no-near", "--first-labels", 7, "--folders", "ignore", "--out", tmp_path / "about")
    status, told, err = handful("data", photos, *words)
    assert status == 0, err
    assert err.count("left out: 3.png: vanished") == 1
    rows = (tmp_path / "about" / "label-first.csv").read_text().splitlines()[1:]
    assert sorted(row.split(",")[0] for row in rows) == [f"{n}.png" for n in (0, 1, 2, 4, 5, 6, 7)]


def compared(folder, out, said):
    images = load(folder, test_fraction=0.25)
    return images, compare.compare(
        images, ["supervised"], range(2), 3, out, estimate="none", precision="fp32",
        settings={"steps": "2", "backbone.base": "8"}, reporter=fit.Reporter(say=said.append),
    )  # fmt: skip


def test_a_comparison_goes_on_without_what_vanished(tmp_path, folder, monkeypatch):
    said, gone = [], load(folder, test_fraction=0.25).names[0]
    failing(monkeypatch, gone, HARM["vanished"][0])
    images, found = compared(folder, tmp_path / "cmp", said)
    assert len(found.cells) == 2
    assert said.count(f"left out: {gone}: vanished") == 1
    assert (gone, "vanished") in images.store.skipped


@pytest.mark.parametrize("part", ["training", "test"])
def test_what_vanishes_between_two_cells_is_said(tmp_path, folder, monkeypatch, part):
    """Everything is decoded anew for the second draw, and one file is gone by then."""
    said, fits, fit = [], [], compare.fit
    known = load(folder, test_fraction=0.25)
    gone = (known if part == "training" else known.test).names[0]

    def watched(images, *args, **how):
        fits.append(images)
        if len(fits) == 2:
            (folder / gone).unlink()
            images.store._held = None
            monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "another"))
        return fit(images, *args, **how)

    monkeypatch.setattr(compare, "fit", watched)
    _, found = compared(folder, tmp_path / "cmp", said)
    assert len(fits) == len(found.cells) == 2
    assert said.count(f"left out: {gone}: vanished") == 1


def test_files_that_appear_during_a_fit_are_no_part_of_it(folder, monkeypatch):
    failing(monkeypatch, "cat/3.png", lambda path: save(folder / "cat" / "new.png", seed=99))
    assert steps(folder).record["data"]["images"] == 16


@pytest.mark.thorough
def test_a_fit_that_had_begun_begins_again_with_the_rest(tmp_path, folder, monkeypatch):
    acquired, acquire = [], fit.acquire
    monkeypatch.setattr(
        fit, "acquire", lambda at, mark, *more, **how: (
            acquired.append(mark), acquire(at, mark, *more, **how))[1]
    )  # fmt: skip
    failing(monkeypatch, "dog/2.png", HARM["vanished"][0])
    images = load(folder)
    package.fit(images, "features", size=32, estimate="none", out=tmp_path / "run")
    assert len(set(acquired)) == 2  # the file vanished after the folder was acquired
    assert open_run(tmp_path / "run").record["data"]["labeled"] == 15
    assert not (tmp_path / "run" / "checkpoint").exists()
