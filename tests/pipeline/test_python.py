"""What Python users give `fit` and `predict`, and what they see of runs and predictions."""

import shutil
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

import handful
from handful.data.imageset import ImageSet
from handful.data.store import array_store
from handful.errors import HandfulError
from handful.pipeline.predictions import Predictions
from tiny import striped, stripes

QUICK = {"steps": 2, "batch": 8, "backbone.base": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight photographs of stripes, in a folder without sub-folders."""
    return striped(tmp_path_factory.mktemp("stripes"))


@pytest.fixture(scope="module")
def labels():
    return {f"{name}.png": "ab"[k % 2] for k, name in enumerate("abcdef")}


def quick(images, **options):
    return handful.fit(
        images, "supervised", settings=QUICK, estimate="none", precision="fp32", **options
    )


@pytest.fixture(scope="module")
def run(folder, labels):
    return quick(folder, labels=labels)


def test_a_fit_takes_a_path_and_labels_and_is_that_of_the_loaded_images(folder, labels, run):
    loaded = quick(handful.load(folder, labels=labels))
    assert loaded.record["fingerprint"] == run.record["fingerprint"]
    assert run.record["data"]["labeled"] == 6


def test_everything_that_holds_one_picture_gets_one_equal_prediction(folder, run):
    path = folder / "a.png"
    with Image.open(path) as opened:
        picture = opened.copy()
    pixels = np.array(picture)
    expected = run.predict(path).probabilities
    for given in (str(path), [path], picture, pixels, [pixels], torch.from_numpy(pixels)):
        found = run.predict(given)
        assert len(found) == 1
        torch.testing.assert_close(found.probabilities, expected)
    assert len(run.predict(folder)) == 8
    assert len(run.predict(handful.load(folder, labeled=False))) == 8


def test_a_colour_image_with_channels_first_is_not_three_answers():
    made = stripes(channels=3)
    run = quick(made)
    pixels = made.at(8).numpy()[0]
    with pytest.raises(HandfulError, match="may be one colour image, channels first"):
        run.predict(pixels)
    assert (
        len(run.predict(pixels.transpose(1, 2, 0))) == len(run.predict(torch.tensor(pixels))) == 1
    )


def test_a_budget_is_typed_as_on_the_command_line(monkeypatch):
    asked = []

    def stop(budget, settings):
        asked.append(budget)
        raise HandfulError("enough")

    monkeypatch.setattr("handful.pipeline.resolve.check_budget", stop)
    for budget in ("10m", "90s", 90):
        with pytest.raises(HandfulError, match="enough"):
            handful.fit(stripes(), "supervised", budget=budget)
    assert asked == [600, 90, 90]


def test_progress_shows_messages_on_stderr_and_is_silent_otherwise(folder, labels, capsys):
    frame = {"a.png": "a", "B.png": "b"}
    quick(folder, labels=frame)
    assert capsys.readouterr().err == ""
    quick(folder, labels=frame, progress=True)
    assert "name an image: 1 by its name, 1 by letter case" in capsys.readouterr().err


def test_folders_that_group_the_images_are_not_said_to_give_nothing(folder, tmp_path, capsys):
    names = [f"{'east' if k % 4 < 2 else 'west'}/{k}.png" for k in range(8)]
    for name, path in zip(names, sorted(folder.iterdir()), strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / name)
    labels = {name: "ab"[k % 2] for k, name in enumerate(names)}
    for groups, told in ((None, True), ("folder", False), (r"^(\w+)/", False)):
        run = quick(tmp_path, labels=labels, groups=groups, progress=True)
        assert ("its 2 sub-folders give none" in capsys.readouterr().err) == told
        assert run.record["groups"]["scenes"] == (8 if told else 2)


def test_images_without_labels_are_refused_before_any_work(folder):
    with pytest.raises(HandfulError, match="holds 8 images but no label"):
        quick(folder)


# --- predictions


@pytest.fixture
def predictions():
    return Predictions(
        ("x.png", "y.png", "z.png"),
        ("fox", "hare"),
        torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]),
        threshold=0.7,
    )


def test_predictions_are_counted_iterated_and_indexed(predictions):
    assert len(predictions) == 3
    assert [one.label for one in predictions] == ["fox", "", "hare"]
    assert predictions[0] == predictions["x.png"] == next(iter(predictions))
    assert predictions[-1].probabilities == pytest.approx({"fox": 0.2, "hare": 0.8})
    assert predictions[1:].names == ("y.png", "z.png")
    sure = np.array(predictions.confidence) > 0.7
    assert predictions[sure].names == ("x.png", "z.png")
    assert predictions[[2, 0]].labels == ["hare", "fox"]
    with pytest.raises(IndexError):
        predictions[3]
    with pytest.raises(KeyError, match="no image has the name 'w.png'"):
        predictions["w.png"]


def test_none_of_these_stays_with_its_image(predictions):
    marked = Predictions(
        predictions.names, predictions.classes, predictions.probabilities, 0.0,
        torch.tensor([False, False, True]),
    )  # fmt: skip
    assert marked[1:].none_of_these == [False, True]


def test_predictions_are_a_data_frame_where_pandas_is_installed(predictions, monkeypatch):
    fake = types.ModuleType("pandas")
    fake.DataFrame = dict
    monkeypatch.setitem(sys.modules, "pandas", fake)
    table = predictions.to_pandas()
    assert table["file"] == ["x.png", "y.png", "z.png"]
    assert table["label"] == ["fox", None, "hare"]
    assert table["p(hare)"] == pytest.approx([0.1, 0.6, 0.8])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(HandfulError, match="pip install pandas; or use to_csv"):
        predictions.to_pandas()


@pytest.fixture
def card(folder, tmp_path, monkeypatch):
    """Two sites with a photo of equal name each, below the current folder."""
    for site, name in zip(("north", "south"), "ab", strict=True):
        (tmp_path / "in" / "card" / site).mkdir(parents=True)
        shutil.copy(folder / f"{name}.png", tmp_path / "in" / "card" / site / "x.png")
    monkeypatch.chdir(tmp_path / "in")
    return tmp_path / "in" / "card"


@pytest.mark.parametrize("as_typed", ["card/{0}/x.png", "{1}/{0}/x.png", "card/../card/{0}/x.png"])
def test_images_given_as_paths_are_sorted_from_the_folder_that_holds_them(run, card, as_typed):
    paths = [as_typed.format(site, card) for site in ("north", "south")]
    for source, target in (
        ("card", "a"),
        (card, "b"),
        (card.parent, "../c"),
        ("card/../card", "d"),
    ):
        done = run.predict(paths).into_folders(source, card.parent / target)
        assert done.counts() == {"copied": 2} and not done.left_out
        copied = {path.name for path in (card.parent / target).rglob("*.png")}
        prefix = "card_" if source == card.parent else ""
        assert copied == {f"{prefix}north_x.png", f"{prefix}south_x.png"}


def test_a_copy_of_the_folder_is_sorted_as_the_folder(run, card):
    found = run.predict("card")
    card.rename("moved")
    assert found.into_folders("moved", "sorted").counts() == {"copied": 2}


def test_files_that_are_not_in_the_folder_are_an_error_before_anything_is_copied(run, card):
    (card.parent / "empty").mkdir()
    for source in ("empty", "card/north", "not-there"):
        with pytest.raises(HandfulError, match="give the folder that the predictions are of"):
            run.predict(["card/north/x.png", "card/south/x.png"]).into_folders(source, "sorted")
    found = run.predict("card")
    shutil.rmtree(card / "north")
    shutil.rmtree(card / "south")
    with pytest.raises(HandfulError, match="none of 2 files is in card, such as 'north/x.png'"):
        found.into_folders("card", "sorted")
    assert not (card.parent / "sorted").exists()


def test_what_was_sorted_is_shown_as_counts(run, card):
    found = run.predict("card")
    planned = found.into_folders("card", "sorted", dry_run=True)
    assert repr(planned) == "Sorted into sorted, planned: 2 copied"
    (card / "south" / "x.png").unlink()
    done = found.into_folders("card", "sorted")
    assert repr(done) == "Sorted into sorted: 1 copied, 1 left out"
    assert repr(found.into_folders("card", "sorted")).endswith("1 already there, 1 left out")


# --- what a notebook shows


def hostile():
    """Images, predictions and a run folder with names that are markup and control a terminal."""
    bad = "<script>alert(1)</script>\x1b[2J"
    store = array_store(np.zeros((2, 1, 4, 4), np.uint8), [bad, "b"])
    images = ImageSet(store, np.arange(2), np.array([0, 1]), (bad, "b"), source=bad)
    return images, Predictions((bad, "b"), (bad, "b"), torch.eye(2))


def test_what_is_shown_is_short_escaped_and_controls_no_terminal(run):
    run.record["data"]["source"] = "x"
    for shown in (*hostile(), run):
        assert len(repr(shown)) < 400
        assert "\n" not in repr(shown)
        assert "\x1b" not in repr(shown) + shown._repr_html_()
        assert "<script" not in shown._repr_html_()


def test_a_run_says_its_classes_labels_method_and_accuracy(run, monkeypatch):
    assert repr(run) == "Run: 2 classes from 6 labels, by supervised; accuracy not estimated"
    estimate = {"accuracy": 0.75, "low": 0.59, "high": 0.87, "n": 60}
    monkeypatch.setitem(run.record, "estimate", estimate)
    assert "about 75 % right (59–87 %)" in repr(run)
    monkeypatch.setitem(run.record, "estimate", estimate | {"n": 12, "accuracy": 1.0})
    assert "above about 59 % right" in repr(run)
    assert "100" not in repr(run)


def test_a_set_of_many_classes_is_shown_in_a_line():
    n = 300
    store = array_store(np.zeros((n, 1, 4, 4), np.uint8), [str(k) for k in range(n)])
    images = ImageSet(store, np.arange(n), np.arange(n), tuple(f"class {k}" for k in range(n)))
    assert repr(images).endswith("and 288 more)")
    assert images._repr_html_().count("<tr>") == 14


# --- Classifier


def test_auto_is_not_for_features():
    with pytest.raises(HandfulError, match="'auto' chooses among methods for images"):
        handful.Classifier("auto").fit(np.eye(6), [0, 1] * 3)


@pytest.mark.thorough
def test_a_classifier_chooses_its_method_within_its_budget():
    made = stripes(labeled=40)
    classifier = handful.Classifier("auto", budget="12s", settings={"backbone.base": 8})
    classifier.fit(made.at(8).numpy()[:, 0], made.labels)
    assert classifier.run_.record["choice"]
    assert len(classifier.predict(made.at(8).numpy()[:5, 0])) == 5


@pytest.mark.parametrize("labels", [{"a.png": "a"}, ["a"], np.array(["a"])])
def test_labels_in_the_place_of_the_method_are_named(folder, labels):
    with pytest.raises(ValueError, match="labels are given by name, as labels=..."):
        handful.fit(folder, labels)


def test_an_option_that_does_not_exist_is_named_before_images_are_read(folder):
    with pytest.raises(TypeError, match=r"fit\(\) has no option 'label'. Did you mean 'labels'\?"):
        handful.fit(folder / "none", label={"a.png": "a"})
    with pytest.raises(TypeError, match="no option 'buget'. Did you mean 'budget'"):
        handful.fit(folder / "none", buget=60)
    with pytest.raises(TypeError, match=r"handful.load\(..., file_column=...\) has it"):
        handful.fit(folder / "none", file_column="x")
    with pytest.raises(TypeError, match=r"no option 'zzz'. help\(handful.fit\) lists them"):
        handful.fit(folder / "none", zzz=1)
    with pytest.raises(TypeError, match="multiple values|too many"):
        handful.fit(folder / "none", "features", "x", method="features")


def test_labels_that_are_missing_are_asked_for_in_words_of_python(folder):
    with pytest.raises(ValueError, match="labels is empty; give a label for each image"):
        handful.fit(folder, labels={})
    with pytest.raises(
        ValueError, match="what was given holds 3 images but no label; give a label"
    ):
        handful.fit(np.zeros((3, 8, 8), np.uint8))


class Frame(dict):
    """As much of a data frame as labels are read from."""

    columns = property(list)
    index = ()


def test_labels_whose_files_are_missing_are_told_by_a_warning(folder, labels, tmp_path):
    """However they are given: a dict, a data frame, a CSV; to `load`, to `fit`, or afterwards."""
    more = {**labels, "gone.png": "a", "lost.png": "b"}
    table = tmp_path / "labels.csv"
    table.write_text(
        "\n".join(["file,label", *(f"{file},{label}" for file, label in more.items())])
    )
    told = "2 of 8 labels in .* are not used, as there is no such image: 'gone.png', 'lost.png'"
    frame = Frame({"file": list(more), "label": list(more.values())})
    for given in (more, frame, table):
        with pytest.warns(UserWarning, match=told):
            assert len(handful.load(folder, labels=given).labeled) == 6
    with pytest.warns(UserWarning, match=told):
        assert quick(folder, labels=more).record["data"]["labeled"] == 6
    with pytest.warns(UserWarning, match=told):
        handful.load(handful.load(folder, labeled=False), labels=more)


def test_labels_that_contradict_each_other_are_told_by_a_warning(folder, tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text("file,label\na.png,a\nb.png,b\nc.png,a\nc.png,b\n")
    with pytest.warns(UserWarning, match="1 image has contradicting labels in .*'c.png' is 'a' on"):
        handful.load(folder, labels=table)


def test_empty_text_is_not_the_folder_here(folder, run, monkeypatch):
    monkeypatch.chdir(folder)
    for ask in (run.predict, run.evaluate):
        with pytest.raises(HandfulError, match="the source is empty text"):
            ask("")


SPELLING = "classes that differ in spelling only: 'A', 'a'; if they are one, give them one name"


def test_a_fit_warns_of_classes_that_differ_in_case_only(folder, labels, capsys):
    named = {file: "aA"[k % 2] for k, file in enumerate(labels)}
    with pytest.warns(UserWarning, match=SPELLING):
        quick(folder, labels=named)
    quick(folder, labels=named, progress=True)
    assert capsys.readouterr().err.replace("\n", " ").count(SPELLING) == 1


def test_a_missing_file_of_a_list_is_named(folder, run):
    there = str(folder / "a.png")
    with pytest.raises(ValueError, match="no file 'nope.png' and 1 other of the list; check the"):
        run.predict([there, "nope.png", "none.png"])


class Series:
    """What a Series of pandas is to handful: an index, one dimension, and `tolist`."""

    ndim, index = 1, range(2)

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __getitem__(self, at):
        return self.values[at]

    def tolist(self):
        return list(self.values)


def test_paths_may_be_an_array_or_a_series(folder, run):
    paths = [str(folder / "a.png"), str(folder / "b.png")]
    wanted = run.predict(paths).probabilities
    for given in (np.array(paths), np.array(paths, object), Series(paths)):
        np.testing.assert_array_equal(run.predict(given).probabilities, wanted)


def test_images_of_one_class_can_be_scored_and_those_trained_on_are_told(folder, run, tmp_path):
    path = folder / "g.png"
    found = run.evaluate(path, labels={"g.png": "a"})
    assert found.n == 1
    assert repr(found).startswith(f"Evaluation of 1 images: {100 * found.accuracy:.1f} % right (")
    with pytest.raises(ValueError, match="holds no labelled image to score"):
        run.evaluate([path])
    with pytest.raises(ValueError, match=r"the classes of .* \(dog\) are not among the 2 known"):
        run.evaluate(folder, labels={"g.png": "dog"})
    kept = quick(folder, labels={"a.png": "a", "b.png": "b"}, out=tmp_path / "run")
    with pytest.warns(UserWarning, match="2 of these images are among those the run was trained"):
        kept.evaluate(folder, labels={"a.png": "a", "b.png": "b"})
    said = []
    kept.evaluate(folder, labels={"a.png": "a"}, say=said.append)
    assert "1 of these images are among those" in said[0]


def test_predictions_replace_predictions_and_never_a_file_of_the_user(folder, run, tmp_path):
    mine, found = tmp_path / "mylabels.csv", run.predict(folder)
    mine.write_text("file,label\na.png,a\n")
    for write in (found.to_csv, found.save, found.to_parquet):
        with pytest.raises(HandfulError, match="not what handful writes there .*another name, or"):
            write(mine)
    assert mine.read_text() == "file,label\na.png,a\n"

    table = tmp_path / "predictions.csv"
    found.to_csv(table)
    found.to_csv(table)
    header, first, *others = table.read_text().splitlines()
    name, label, *shares = first.split(",")
    corrected = ",".join([name, "mine", *shares])
    table.write_text("\n".join([header, corrected, *others]))
    with pytest.warns(UserWarning, match="labels that you typed into predictions.csv are kept in"):
        found.to_csv(table)
    (kept,) = tmp_path.glob("predictions (your labels*.csv")
    assert corrected in kept.read_text() and first in table.read_text()


def test_one_position_is_a_set_of_one_image(folder, labels):
    images = handful.load(folder, labels=labels)
    for position in (2, np.int64(2), -6):
        assert images[position].names == ["c.png"]
        assert images[position].labels.tolist() == [0]
    assert [one.names for one in images][:2] == [["a.png"], ["b.png"]]
    with pytest.raises(IndexError):
        images[8]


@pytest.mark.parametrize("abstain", ["0.9", 95, None])
def test_a_target_that_is_no_share_is_named(run, abstain):
    with pytest.raises(HandfulError, match=f"a number between 0 and 1, got {abstain!r}; try 0.95"):
        run.answering(abstain)


def test_warnings_name_the_line_of_the_user(folder, labels, tmp_path):
    earlier = quick(folder, labels=labels, out=tmp_path / "run")
    some = shutil.copytree(folder, tmp_path / "some", ignore=shutil.ignore_patterns("a.png"))
    with pytest.warns(UserWarning) as told:
        quick(some, after=earlier)
        quick(handful.load(some, labeled=False), labels=labels)
    assert len(told) >= 2
    assert {one.filename for one in told} == {__file__}
