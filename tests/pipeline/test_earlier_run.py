"""Continue from an earlier run with more labels: its labels and settings are kept."""

import csv
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import handful as library
from handful import cli
from handful.data.image_folder import EarlierLabels
from handful.errors import HandfulError
from handful.methods.schedule import Schedule
from handful.models.classifier import BackboneSpec
from handful.pipeline.earlier_run import how_to_load, read_labels, with_earlier_labels
from handful.progress import Reporter
from handful.training.time_budget import Cost
from tiny import stripes

QUICK = ["--set", "steps=3", "--set", "backbone.base=8", "--precision", "fp32"]


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    rng = np.random.default_rng(1)
    for i in range(24):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(root / f"{i:02}.png")
    return root


def write(path, rows):
    path.write_text("file,label\n" + "".join(f"{i:02}.png,{label}\n" for i, label in rows))
    return path


@pytest.fixture
def fit(photos, tmp_path, handful):
    def run(out, rows, *words):
        table = write(tmp_path / f"{out}.csv", rows)
        return handful("fit", photos, "--labels", table, "--out", tmp_path / out, *words)

    return run


def labels_of(folder):
    text = (folder / "labels.csv").read_text(encoding="utf-8")
    return {row["file"]: (row["label"], row["origin"]) for row in csv.DictReader(text.splitlines())}


FEW = {
    "settings": {"steps": "3", "backbone.base": "8"}, "precision": "fp32", "estimate": "none",
    "pictures": False,
}  # fmt: skip
FIRST = [(i, "cat" if i % 2 else "dog") for i in range(8)]


QUICKEST = [*QUICK, "--method", "supervised", "--estimate", "none", "--no-images"]


def in_folders(root, *folders):
    """24 photos in folders of these names, in turn."""
    rng = np.random.default_rng(1)
    for i in range(24):
        path = root / folders[i % len(folders)] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(path)
    return root


def typed(path, root, *labels):
    """A table that labels the first photos in folders, in turn."""
    files = sorted(root.rglob("*.png"), key=lambda file: file.name)[:8]
    rows = [
        f"{file.relative_to(root).as_posix()},{labels[i % len(labels)]}\n"
        for i, file in enumerate(files)
    ]
    path.write_text("file,label\n" + "".join(rows))
    return path


def counts_of(folder):
    return Counter(label for label, _ in labels_of(folder).values())


@pytest.mark.thorough
def test_names_of_folders_are_no_labels_where_those_of_the_earlier_run_were_typed(
    handful, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    days = in_folders(Path("days"), "monday", "tuesday")
    typed(Path("typed.csv"), days, "cat", "dog")
    assert handful("fit", "days", "--labels", "typed.csv", "--out", "first", *QUICKEST)[0] == 0
    status, _, err = handful("fit", "days", "--after", "first", "--out", "next", "--no-images")
    assert status == 0, err
    assert counts_of(Path("next")) == {"cat": 4, "dog": 4}
    said = " ".join(err.split())
    assert "days: no label is taken from its folders (monday, tuesday)" in said
    assert "the labels are those of first; --folders classes takes these names" in said
    assert "0 labels are new, 8 are kept from first" in said
    words = ["fit", "days", "--after", "next", "--out", "other", "--folders", "classes"]
    status, _, err = handful(*words, "--no-images")
    assert status == 0, err
    assert counts_of(Path("other")) == {"monday": 12, "tuesday": 12}
    assert (
        "none of the classes that are given now (monday, tuesday) is one of next (cat, dog); if "
        "the sub-folders are no classes: --folders ignore" in " ".join(err.split())
    )


def test_folders_are_not_asked_about_where_the_earlier_run_has_the_labels(tmp_path):
    sites = in_folders(tmp_path / "photos", "site1", "site2")
    table = typed(tmp_path / "typed.csv", sites, "cat", "dog")
    first = library.fit(sites, "supervised", labels=table, out=tmp_path / "first", **FEW)
    said = []
    again = library.fit(sites, after=first, reporter=Reporter(say=said.append), estimate="none")
    assert again.classes == ("cat", "dog") and again.record["data"]["labeled"] == 8
    assert any("no label is taken from its folders (site1, site2)" in text for text in said)


def test_typed_labels_stay_where_folders_with_the_names_of_the_classes_say_others(tmp_path):
    photos = in_folders(tmp_path / "photos", "cat", "dog")
    table = typed(tmp_path / "typed.csv", photos, "dog", "cat")
    first = library.fit(photos, "supervised", labels=table, out=tmp_path / "first", **FEW)
    assert first.record["data"]["labels_by_folder"] is False
    again = library.fit(photos, after=first, estimate="none")
    assert again.record["data"]["labeled"] == 8


def test_images_moved_into_folders_of_the_classes_get_new_labels(tmp_path):
    photos = in_folders(tmp_path / "photos", ".")
    table = typed(tmp_path / "typed.csv", photos, "cat", "dog")
    first = library.fit(photos, "supervised", labels=table, out=tmp_path / "first", **FEW)
    assert first.record["data"]["labeled"] == 8
    files = sorted(path for path in photos.iterdir())
    for at, path in enumerate(files[-6:]):
        (photos / ("cat", "dog")[at % 2]).mkdir(exist_ok=True)
        path.rename(photos / ("cat", "dog")[at % 2] / path.name)
    said = []
    how = {"estimate": "none", "reporter": Reporter(say=said.append)}
    again = library.fit(photos, after=first, out=tmp_path / "again", **how)
    assert again.record["data"]["labeled"] == 8 + 6
    assert any("are named like classes of" in text for text in said)
    for at, path in enumerate(files[-12:-6]):
        path.rename(photos / ("cat", "dog")[at % 2] / path.name)
    third = library.fit(photos, after=again, **how)
    assert third.record["data"]["labeled"] == 8 + 12


def test_names_of_folders_are_labels_where_those_of_the_earlier_run_were(tmp_path):
    photos = in_folders(tmp_path / "photos", "cat", "dog")
    first = library.fit(photos, "supervised", out=tmp_path / "first", **FEW)
    assert first.record["data"]["labels_by_folder"] is True
    more = in_folders(tmp_path / "more", "cat", "dog")
    (more / "dog" / "01.png").rename(more / "dog" / "new.png")
    (more / "dog" / "03.png").unlink()
    said = []
    again = library.fit(
        more, after=first, out=tmp_path / "next", estimate="none",
        reporter=Reporter(say=said.append),
    )  # fmt: skip
    assert again.record["data"]["labeled"] == 23
    assert again.record["data"]["labels_by_folder"] is True
    assert f"1 label is new, 22 are kept from {tmp_path / 'first'}" in said


def test_labels_of_folders_and_of_a_table_together_are_not_by_folder(tmp_path):
    photos = in_folders(tmp_path / "photos", "cat", "dog")
    library.fit(photos, "supervised", out=tmp_path / "first", **FEW)
    table = typed(tmp_path / "typed.csv", photos, "dog", "cat")  # every one is corrected
    first = library.open_run(tmp_path / "first")
    images = library.load(photos, table)
    assert not with_earlier_labels(images, first).labels_by_folder
    hidden = library.load(photos).seen(np.arange(4))
    assert hidden.labels_by_folder and with_earlier_labels(hidden, first).labels_by_folder
    assert not hidden.with_labels(1 - hidden.labels.clip(0)).labels_by_folder
    corrected = library.fit(images, "supervised", out=tmp_path / "corrected", **FEW)
    few = library.load(photos).seen(np.arange(4))  # the others keep their typed labels
    assert not with_earlier_labels(few, corrected).labels_by_folder


def test_a_run_that_does_not_say_where_its_labels_are_from_is_judged_by_their_names(tmp_path):
    photos = in_folders(tmp_path / "photos", "cat", "dog")
    table = typed(tmp_path / "typed.csv", photos, "fox", "owl")
    for name, labels in (("folders", None), ("typed", table)):
        run = library.fit(photos, "supervised", labels=labels, out=tmp_path / name, **FEW)
        path = run.folder / "run.json"
        record = json.loads(path.read_text())
        del record["data"]["labels_by_folder"]
        path.write_text(json.dumps(record))
        _, known = how_to_load(tmp_path / name, None, None)
        expected = EarlierLabels(str(tmp_path / name), ("fox", "owl"))
        assert known == (None if labels is None else expected)


@pytest.mark.parametrize(
    "labels, folders, known", [(None, "auto", True), (None, "groups", True), (None, "ignore", True),
                               (None, "classes", False), ("new.csv", "auto", False)]
)  # fmt: skip
def test_what_is_typed_decides_whether_folders_give_labels(tmp_path, labels, folders, known):
    photos = in_folders(tmp_path / "photos", "cat", "dog")
    table = typed(tmp_path / "typed.csv", photos, "fox", "owl")
    first = library.fit(photos, "supervised", labels=table, out=tmp_path / "first", **FEW)
    expected = EarlierLabels(str(tmp_path / "first"), ("fox", "owl")) if known else None
    assert how_to_load(first, None, labels, folders) == (None, expected)


@pytest.mark.parametrize("folders", [("fox", "owl"), ("Fox ",), ("fox", "lynx")])
def test_images_that_were_moved_into_folders_named_like_classes_are_labelled(tmp_path, folders):
    """Only where all folders are named so: other names may be those of sites."""
    photos, said = in_folders(tmp_path / "photos", *folders), []
    known = EarlierLabels("first", ("Fox", "fox", "owl"))
    images = library.load(photos, labeled=False, known=known, say=said.append)
    if "lynx" in folders:
        assert images.classes == () and "no label is taken from its folders" in said[0]
    else:
        assert len(images.classes) == len(folders) and (images.labels >= 0).all()
        assert "are named like classes of first" in said[0]
    ignored = library.load(photos, labeled=False, known=known, folders="ignore")
    assert ignored.classes == ()


def test_folders_are_groups_beside_the_labels_of_an_earlier_run(tmp_path):
    photos = in_folders(tmp_path / "photos", "north/fox", "south/fox")
    said = []
    images = library.load(
        photos, folders="groups", labeled=False, known=EarlierLabels("first", ()), say=said.append
    )
    assert images.classes == () and len(set(images.groups)) == 2 and not said


@pytest.mark.thorough
def test_photos_without_a_label_of_the_earlier_run_are_refused(handful, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = in_folders(Path("flat"), ".")
    typed(Path("typed.csv"), first, "cat", "dog")
    assert handful("fit", "flat", "--labels", "typed.csv", "--out", "first", *QUICKEST)[0] == 0
    in_folders(Path("sorted"), "north", "south")
    status, _, err = handful("fit", "sorted", "--after", "first", "--out", "next")
    assert status == 2 and (
        "sorted gives none of its 24 images a label, and first has labels for other images only; "
        "give a table with --labels, or --folders classes if its sub-folders are classes"
        in " ".join(err.split())
    )
    assert not Path("next").exists()


def test_names_that_a_spreadsheet_would_run_are_written_as_paths_and_come_back(tmp_path):
    from handful.csv_files import read_csv, write_csv
    from handful.data.sources import load

    names = ["=1+1.png", "+a.png", "-b.png", "@c.png", "	f.png", "d/=e.png", "g.png"]
    path = tmp_path / "labels.csv"
    write_csv(path, ["file", "label", "origin"], [[name, "cat", "random"] for name in names])
    with open(path, newline="") as file:
        cells = [row["file"] for row in csv.DictReader(file)]
    assert not [cell for cell in cells if cell[0] in "=+-@	"]
    assert [row["file"] for row in read_csv(path)] == names
    assert list(read_labels(tmp_path).labels) == names

    root = tmp_path / "photos"
    (root / "d").mkdir(parents=True)
    for name in names:
        Image.fromarray(np.full((9, 9), len(name), np.uint8)).save(root / name)
    images = load(root, path, labeled=False)
    assert sorted(images.names) == sorted(names)
    assert (images.labels == 0).all()


@pytest.mark.thorough
def test_new_labels_join_the_old_ones_and_both_estimates_are_shown(fit, tmp_path):
    assert fit("old", FIRST, *QUICK)[0] == 0
    status, out, err = fit(
        "new", [(8, "cat"), (9, "bird"), (0, "cat")], "--after", tmp_path / "old"
    )
    assert status == 0, err
    assert "2 labels are new, 7 are kept" in err
    assert "1 label differs from" in err
    labels = labels_of(tmp_path / "new")
    assert len(labels) == 10
    assert labels["00.png"][0] == "cat"  # the new one counts
    assert labels["09.png"][0] == "bird"
    assert "The earlier run, from 8 labels: above about" in out
    assert "right on new images; 8 labels of random images are too few" in " ".join(out.split())
    old, new = (json.loads((tmp_path / n / "run.json").read_text()) for n in ("old", "new"))
    assert new["after"]["estimate"] == old["estimate"]
    assert new["after"]["labeled"] == 8
    for same in ("method", "schedule", "input"):
        assert new[same] == old[same]
    assert new["backbone"]["options"] == {"base": 8}


@pytest.mark.thorough
def test_settings_that_are_typed_win_over_the_old_ones(fit, tmp_path):
    fit("old", FIRST, *QUICK)
    words = ["--after", tmp_path / "old", "--set", "schedule.steps=2", "--no-flips"]
    assert fit("new", FIRST, *words, "--estimate", "none")[0] == 0
    new = json.loads((tmp_path / "new" / "run.json").read_text())
    assert new["training"]["steps"] == 2
    assert new["input"]["flips"] is False
    assert new["backbone"]["options"] == {"base": 8}


@pytest.mark.thorough
def test_a_budget_is_repeated_and_not_the_steps_that_it_bought(
    fit, tmp_path, monkeypatch, steady, clock
):
    seconds_a_step = iter([1.0, 0.5, 0.5])
    monkeypatch.setattr(
        "handful.training.time_budget.measured",
        lambda *_: Cost(0.0, next(seconds_a_step), 0.0, 0.0),
    )
    words = ["--method", "supervised", "--set", "backbone.base=8", "--estimate", "none"]
    assert fit("old", FIRST, *words, "--budget", "2s")[0] == 0
    for name, more, expected, steps in [
        ("again", [], 2.0, 4),
        ("longer", ["--budget", "3s"], 3.0, 6),
        ("counted", ["--set", "steps=2"], None, 2),
    ]:
        assert fit(name, FIRST, "--after", tmp_path / "old", "--estimate", "none", *more)[0] == 0
        training = json.loads((tmp_path / name / "run.json").read_text())["training"]
        assert training["budget"] == expected
        assert training["steps"] == steps


@pytest.mark.thorough
def test_the_origin_of_a_label_is_kept(fit, tmp_path):
    fit("old", FIRST, *QUICK, "--estimate", "none")
    path = tmp_path / "old" / "labels.csv"
    path.write_text(path.read_text().replace("00.png,dog,unknown", "00.png,dog,chosen"))
    path = tmp_path / "old" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"label_next": []}))
    fit("new", [(10, "dog")], "--after", tmp_path / "old", "--estimate", "none")
    labels = labels_of(tmp_path / "new")
    assert labels["00.png"] == ("dog", "chosen")
    assert labels["01.png"] == ("cat", "unknown")
    assert labels["10.png"] == ("dog", "unknown")


@pytest.mark.thorough
def test_drawn_labels_are_random(monkeypatch, tmp_path):
    words = ["handful", "fit", "digits", "--per-class", "2", "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", [*words, *QUICK, "--estimate", "none"])
    cli.main()
    assert {origin for _, origin in labels_of(tmp_path / "run").values()} == {"random"}


@pytest.mark.thorough
@pytest.mark.parametrize("out", ["second", "first"])
def test_a_draw_after_an_earlier_run_lists_all_labels_that_were_trained_on(handful, tmp_path, out):
    words = ["fit", "digits", "--per-class", 2, *QUICK, "--estimate", "none"]
    assert handful(*words, "--out", tmp_path / "first")[0] == 0
    again = ["--draw", 1, "--after", tmp_path / "first", "--overwrite"]
    assert handful(*words, *again, "--out", tmp_path / out)[0] == 0
    draw = json.loads((tmp_path / out / "draw.json").read_text())
    assert len(draw["positions"]) == len(labels_of(tmp_path / out)) > 20


@pytest.mark.thorough
@pytest.mark.parametrize(
    "change, message",
    [
        (lambda path: path.unlink(), "labels.csv is missing"),
        (lambda path: path.write_text("file,label\n"), ""),
        (lambda path: path.write_text("a,b\n1,2\n"), "labels.csv is damaged"),
        (lambda path: path.write_text("file,label,origin\n1,2,luck\n"), "names the origin 'luck'"),
    ],
)
def test_a_damaged_label_file_is_named(fit, tmp_path, change, message):
    fit("old", FIRST, *QUICK, "--estimate", "none")
    change(tmp_path / "old" / "labels.csv")
    status, _, err = fit("new", FIRST, "--after", tmp_path / "old", "--estimate", "none")
    assert status == (2 if message else 0)
    assert message in err


def test_a_label_file_without_a_label_is_refused_and_costs_no_fit(fit, tmp_path):
    assert fit("first", [(i, "a" if i % 2 else "b") for i in range(8)], *QUICK)[0] == 0
    status, _, err = fit("again", [(9, ""), (10, "")], "--after", tmp_path / "first", *QUICK)
    assert status == 2 and "gives no image a label" in " ".join(err.split())
    assert not (tmp_path / "again").exists()


def test_in_python_too_a_run_goes_on_from_the_labels_and_settings_of_an_earlier_one(tmp_path):
    every = stripes(size=32, channels=3, labeled=40)
    images = every.seen(np.arange(16))
    first = library.fit(
        images, "features", size=32, estimate="none", settings={"strength": "0.01"},
        out=tmp_path / "first",
    )  # fmt: skip
    more = every.seen(np.arange(16, 24))  # eight new labels; the sixteen of before are hidden
    said = []
    again = library.fit(
        more, after=tmp_path / "first", estimate="none", reporter=Reporter(say=said.append)
    )
    assert again.record["data"]["labeled"] == 24
    assert again.record["method"] == first.record["method"]
    assert again.record["method"]["strength"] == 0.01
    assert again.record["after"]["labeled"] == 16
    assert f"8 labels are new, 16 are kept from {tmp_path / 'first'}" in said
    other = library.fit(more, "mlp_head", after=first, estimate="none", settings={"epochs": "1"})
    assert other.record["method"]["name"] == "mlp_head"
    assert other.record["data"]["labeled"] == 24
    with pytest.raises(HandfulError, match="fit with out"):
        library.fit(more, after=other, estimate="none")


def test_labels_of_before_that_are_given_again_are_kept_and_origins_are_those_of_the_table(
    tmp_path,
):
    images = stripes(size=32, channels=3, labeled=40).seen(np.arange(16))
    library.fit(images, "features", size=32, estimate="none", out=tmp_path / "first")
    earlier, said = library.open_run(tmp_path / "first"), []
    more = stripes(size=32, channels=3, labeled=40).seen(np.arange(24))  # and the 16 of before
    names = more.names[16:24]
    origins = dict.fromkeys(names[:5], "random") | dict.fromkeys(names[5:7], "chosen")
    merged = with_earlier_labels(replace(more, origins=origins), earlier, said.append)
    assert len(merged.labeled) == 24 and merged.origins[names[0]] == "random"
    assert said == [
        f"8 labels are new, 16 are kept from {tmp_path / 'first'}",
        "how the images of the new labels were picked: 5 at random, 3 chosen or with a "
        "suggestion; labels of chosen ones train, but do not count in the estimate",
    ]
    said.clear()
    labels = more.labels.copy()
    labels[0] = 1 - labels[0]
    changed = more.with_labels(labels).seen(np.arange(17))
    with_earlier_labels(changed, earlier, said.append)
    first = tmp_path / "first"
    assert said[:2] == [
        f"1 label is new, 15 are kept from {first}",
        f"1 label differs from {first}; what is given now counts",
    ]


def test_a_schedule_or_a_network_as_an_object_replaces_that_of_the_earlier_run(tmp_path):
    images = stripes()
    few = {"steps": "3", "batch": "8", "backbone.base": "8"}
    plain = {"estimate": "none", "precision": "fp32"}
    library.fit(images, "supervised", settings=few, out=tmp_path / "first", **plain)
    schedule, wider = Schedule(steps=2, lr=0.5, batch=4), BackboneSpec("small", {"base": 12})
    again = library.fit(images, after=tmp_path / "first", schedule=schedule, **plain).record
    assert (again["schedule"]["steps"], again["schedule"]["lr"]) == (2, 0.5)
    assert again["backbone"]["options"] == {"base": 8}
    other = library.fit(images, after=tmp_path / "first", backbone=wider, **plain).record
    assert other["backbone"]["options"] == {"base": 12}
    assert other["schedule"]["steps"] == 3
    named = library.fit(images, after=tmp_path / "first", backbone="mlp", **plain).record
    assert (named["backbone"]["name"], named["backbone"]["options"]) == ("mlp", {})


def test_origins_of_an_image_set_count_and_those_given_to_fit_win():
    images = stripes()
    chosen = replace(images, origins=dict.fromkeys(images.names[:6], "chosen"))
    options = {"size": 32, "precision": "fp32"}
    assert library.fit(images, "features", **options).estimate["n"] == 16
    assert library.fit(chosen, "features", **options).estimate["n"] == 10
    random = dict.fromkeys(images.names, "random")
    assert library.fit(chosen, "features", origins=random, **options).estimate["n"] == 16
