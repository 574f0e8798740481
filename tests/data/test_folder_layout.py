"""Interpretation of folders: a table of layouts with the right interpretation."""

import json
import unicodedata
from pathlib import Path

import pytest

import handful
from handful.cli import main
from handful.data.class_names import alike, normalized
from handful.data.folder_layout import in_test_part, layout, part_of
from handful.data.image_folder import MANIFEST
from handful.errors import HandfulError
from image_files import save


def tree(text: str) -> list[str]:
    """Paths of two images in every folder named; a name that ends in .jpg is one image."""
    return [
        path
        for name in text.split()
        for path in ([name] if name.endswith(".jpg") else [f"{name}/0.jpg", f"{name}/1.jpg"])
    ]


def taken(text: str, folders: str = "auto") -> str:
    """The interpretation of every folder, in order: a class, "-" for none, or left out."""
    paths = tree(text)
    places = dict(zip(paths, layout(paths, folders).places, strict=True))
    said = []
    for name in text.split():
        place = places[name if name.endswith(".jpg") else f"{name}/0.jpg"]
        group = f"@{place.group}" if place.group else ""
        test = "test:" if place.test else ""
        said.append("out" if place.reason else f"{test}{place.label or '-'}{group}")
    return " ".join(said)


LAYOUTS = [
    # Classes, and images without a label.
    ("cat dog", "cat dog"),
    ("cat dog unlabeled loose.jpg", "cat dog - -"),
    ("cat/close cat/far dog", "cat cat dog"),
    ("cat/a cat/b dog/a", "cat cat dog"),
    ("animal/cat animal/dog vehicle/car vehicle/bus", "animal animal vehicle vehicle"),
    ("cat/images dog/images", "cat dog"),
    ("cat", "cat"),
    ("valid invalid", "valid invalid"),
    ("train car bus", "train car bus"),
    ("test control", "test control"),
    # One folder around everything.
    ("photos/cat photos/dog", "cat dog"),
    ("a/b/c/cat a/b/c/dog", "cat dog"),
    ("set/train/cat set/train/dog set/test/cat", "cat dog test:cat"),
    ("set/train/cat set/train/dog set/test/cat docs", "cat dog test:cat out"),
    ("images/0.jpg images/1.jpg", "- -"),
    # Parts under their usual names.
    ("train/cat train/dog test/cat test/dog", "cat dog test:cat test:dog"),
    ("train/cat train/dog valid/cat", "cat dog test:cat"),
    ("train/cat valid/dog test/cat", "cat dog test:cat"),
    ("Training/cat Validation/cat", "cat test:cat"),
    ("train_set/cat train_set/dog test_set/cat", "cat dog test:cat"),
    ("trainset/cat trainset/dog testset/cat", "cat dog test:cat"),
    ("train_images/cat train_images/dog test_images/cat", "cat dog test:cat"),
    ("TrainImages/cat TrainImages/dog DevImages/cat", "cat dog test:cat"),
    ("train2017/cat train2017/dog val2017/cat", "cat dog test:cat"),
    ("train/cat train/dog", "cat dog"),
    ("train/cat train/unlabeled unlabeled", "cat - -"),
    # A part inside a folder of the same name, as archives unpack.
    (
        "training_set/training_set/cats training_set/training_set/dogs test_set/test_set/cats",
        "cats dogs test:cats",
    ),
    ("seg_train/seg_train/sea seg_train/seg_train/ice seg_test/seg_test/sea seg_pred/seg_pred",
     "sea ice test:sea out"),
    ("alphabet_train/a alphabet_train/b alphabet_test/a", "a b test:a"),
    ("train/all/cat train/all/dog test/cat", "cat dog test:cat"),
    ("train/cat train/dog test/cat/near test/cat/far", "cat dog test:cat test:cat"),
    ("train/train/cat train/train/dog valid/cat test/dog", "cat dog cat test:dog"),
    # Strays beside the parts.
    ("train/cat train/dog valid/cat valid/dog samples", "cat dog test:cat test:dog out"),
    ("train/cat train/dog samples sample_submission", "cat dog out out"),
    ("train/cat test/cat docs cover.jpg", "cat test:cat out -"),
    # Parts below the classes.
    ("cat/train cat/test dog/train dog/test", "cat test:cat dog test:dog"),
    ("cat/train cat/val dog/train dog/val unlabeled", "cat test:cat dog test:dog -"),
    # No training part.
    ("test/cat test/dog", "cat dog"),
    ("valid/cat test/cat test/dog", "cat test:cat test:dog"),
    ("set/test/cat set/test/dog", "cat dog"),
    # Images of parts without class folders.
    ("train test", "- out"),
    ("train/images valid/images", "- out"),
]  # fmt: skip


@pytest.mark.parametrize(("folders", "expected"), LAYOUTS)
def test_folders_are_interpreted_as_in_the_table(folders, expected):
    assert taken(folders) == expected
    assert not layout(tree(folders)).question


QUESTIONS = [
    ("siteA/fox siteA/deer siteB/fox siteB/deer", ("siteA", "fox")),
    ("siteA/fox siteA/deer siteB/fox siteC/boar siteC/deer", ("siteC", "deer")),
    ("set/siteA/fox set/siteA/deer set/siteB/fox set/siteB/deer", ("siteB", "deer")),
    ("train/A/fox train/A/deer train/B/fox train/B/deer test/A/fox", ("A", "fox")),
    ("A/train/fox A/train/deer B/train/fox B/train/deer A/test/fox B/test/fox", ("A", "fox")),
    ("train/steam train/diesel car bus", ("train/", "car/")),
    ("test/cat test/dog extra", ("test/", "extra/")),
    ("2024-01 2024-02 2024-11", ("2024-01", "--folders ignore")),
    ("DCIM/100APPLE DCIM/101APPLE", ("100APPLE", "dates")),
    ("site-0 site-1 site-2", ("site-1", "--folders groups")),
    ("camera_01 camera_02 unlabeled", ("camera_02", "sites or patients")),
    ("20240131 20240201 unlabeled", ("20240201", "dates")),
    ("plant_A plant_B plant_C", ("plant_A", "--folders groups", "--labels")),
    ("cam-2 cam-3", ("cam-3", "--folders groups")),
    ("Standort.A Standort.B loose.jpg", ("Standort.B", "a letter or a number only")),
    ("site1 site2 site10 unlabeled", ("site10", "--folders groups")),
    ("halleA halleB", ("halleB", "a letter or a number only")),
    ("Plant-1b plant-2", ("plant-2", "a letter or a number only")),
    ("c0 c1 c2", ("c1", "a letter or a number only")),
    ("set/plant_A set/plant_B/old", ("plant_B", "a letter or a number only")),
    ("train/plant_A train/plant_B test/plant_C", ("plant_A", "a letter or a number only")),
]


@pytest.mark.parametrize(("folders", "named"), QUESTIONS)
def test_ambiguous_folders_lead_to_a_question_that_names_them(folders, named):
    found = layout(tree(folders))
    assert "--folders classes" in found.question
    assert all(name in found.question for name in named)
    assert not any(place.label for place in found.places)


@pytest.mark.parametrize(
    "folders",
    ["2024 2025", "0 1 2", "2024-01 fox", "1999-13 1999-14", "site-1 fox", "cam2 campus", "A B C",
     "card care", "class_1 class_2", "Type_1 Type_2", "n01440764 n02102040", "plant_A plane_B",
     "fox_1", "plant_A unlabeled", "plant_A plant", "x_ray y_ray"],
)  # fmt: skip
def test_other_names_may_be_classes(folders):
    assert not layout(tree(folders)).question


SITES = "siteA/fox siteA/deer siteB/fox siteB/deer"


@pytest.mark.parametrize(
    ("text", "folders", "expected"),
    [
        (SITES, "classes", "siteA siteA siteB siteB"),
        (SITES, "groups", "fox@siteA deer@siteA fox@siteB deer@siteB"),
        (SITES, "ignore", "- - - -"),
        ("a.jpg siteA/b.jpg siteA/fox", "groups", "- -@siteA fox@siteA"),
        ("train/A/fox train/B/deer test/C/fox", "groups", "fox@A deer@B test:fox@C"),
        ("train/steam train/diesel car bus", "classes", "train train car bus"),
        ("train/cat test/cat", "ignore", "- -"),
    ],
)
def test_the_option_folders_overrides_the_interpretation(text, folders, expected):
    assert taken(text, folders) == expected
    assert not layout(tree(text), folders).question


def test_the_interpretation_is_reported_in_a_sentence():
    said = layout(tree("train/cat train/dog valid/cat samples")).said
    assert said == (
        "2 classes from the sub-folders of train/: cat, dog; valid/ is the test part; "
        "samples/ is left out"
    )
    groups = layout(tree(SITES), "groups").said
    assert "2 classes" in groups and "2 groups" in groups and "siteA, siteB" in groups


@pytest.mark.parametrize("name", ["cat", "trainer", "protest", "set", "images", "2017", "latest"])
def test_other_folders_are_no_part(name):
    assert part_of(name) is None


def test_the_test_part_is_known_without_labels_from_folders():
    paths = ["set/train/0.jpg", "set/test/1.jpg"]
    assert in_test_part(paths) == {"set/test/1.jpg"}


def folder(root, text):
    for seed, path in enumerate(tree(text)):
        save(root / path, seed=seed)
    return root


def test_sites_are_groups_that_are_never_split(tmp_path):
    images = handful.load(folder(tmp_path, SITES), folders="groups")
    assert images.classes == ("deer", "fox")
    sites = [name.split("/")[0] for name in images.names]
    assert len(set(zip(sites, images.groups.tolist(), strict=True))) == 2
    assert len(set(images.groups.tolist())) == 2


def test_sites_are_asked_about_where_labels_matter_only(tmp_path):
    folder(tmp_path, SITES)
    with pytest.raises(HandfulError, match="--folders groups"):
        handful.load(tmp_path)
    with pytest.raises(HandfulError, match="--folders groups"):
        handful.load(tmp_path, labeled=False, folders="auto")
    said = []
    images = handful.load(tmp_path, labeled=False, say=said.append)
    assert (len(images), len(images.labeled)) == (8, 0)
    assert "no label is taken" in said[0]


def test_a_folder_without_a_training_part_is_scored_but_not_trained_on(tmp_path):
    folder(tmp_path, "valid/cat valid/dog test/cat test/fox")
    with pytest.raises(HandfulError, match="no training part.*valid"):
        handful.load(tmp_path)
    images = handful.load(tmp_path, labeled=False, every_class=True)
    assert images.test is not None
    labels = [images.classes[k] for k in images.test.labels]
    assert labels == ["cat", "cat", "fox", "fox"]


def test_folders_inside_the_classes_are_reported():
    nested = tree("animals/cat animals/dog vehicles/car")
    assert layout(nested).said == (
        "2 classes from the sub-folders: animals, vehicles; folders inside them do not count (car, "
        "cat, dog): if those are the classes, move them up, beside each other, or give --labels; "
        "--folders classes if all is right"
    )
    assert [place.label for place in layout(nested).places[::2]] == [
        "animals",
        "animals",
        "vehicles",
    ]
    for settled in (layout(nested, "classes"), layout(tree("cat dog unlabeled/a"))):
        assert "inside" not in settled.said
    assert (
        "('2019', '2020')" in layout(tree("train/cat/2019 train/dog test/cat/2020 test/dog")).said
    )


def test_unknown_folders_options_are_refused(tmp_path):
    with pytest.raises(HandfulError, match="classes, groups, ignore"):
        handful.load(folder(tmp_path, "cat dog"), folders="sites")


@pytest.mark.parametrize("typed", ["", "sites"])
@pytest.mark.parametrize("beside", [(), ("--labels", "labels.csv")], ids=["alone", "with labels"])
def test_folders_is_one_of_its_choices(tmp_path, monkeypatch, capsys, typed, beside):
    folder(tmp_path, "cat dog")
    monkeypatch.chdir(tmp_path)
    Path("labels.csv").write_text("file,label\ncat/0.jpg,cat\ndog/0.jpg,dog\n")
    assert command(monkeypatch, "data", ".", "--folders", typed, *beside) == 2
    error = f"no folders={typed!r}; it is one of auto, classes, groups, ignore\n"
    assert capsys.readouterr().err.endswith(error)


def test_folders_beside_a_label_file(tmp_path):
    folder(tmp_path, "train/A test/B")
    table = tmp_path / "labels.csv"
    rows = ("train/A/0.jpg,cat", "train/A/1.jpg,dog", "test/B/0.jpg,cat", "test/B/1.jpg,dog")
    table.write_text("\n".join(("file,label", *rows)))
    parted = handful.load(tmp_path, table)
    assert parted.test is not None and len(parted) == len(parted.test) == 2
    assert handful.load(tmp_path, table, folders="ignore").test is None
    with pytest.raises(HandfulError, match="leave one of them out"):
        handful.load(tmp_path, table, folders="classes")


@pytest.mark.parametrize(
    ("typed", "right"),
    [
        (unicodedata.normalize("NFD", "Käfer"), "Käfer"),
        ("fox\u200b", "fox"),
        ("\ufefffox", "fox"),
        ("f\u00adox", "fox"),
        ("red\u00a0 fox ", "red fox"),
        ("\u202efox\u202c", "fox"),
        ("01", "01"),
        ("0.0", "0.0"),
        ("\u200b", ""),
    ],
)
def test_invisible_characters_are_removed_from_class_names(typed, right):
    assert normalized(typed) == right


def test_names_that_look_alike_are_found():
    names = ["0", "0.0", "1", "01", "2", "Cat", "cat", "red fox", "red_fox", "Ｃar", "car", "-1"]
    assert alike(names) == [
        ["0", "0.0"], ["1", "01"], ["Cat", "cat"], ["red fox", "red_fox"], ["Ｃar", "car"]
    ]  # fmt: skip


def test_spellings_of_a_class_are_one_class_in_both_parts(tmp_path):
    composed, apart = (unicodedata.normalize(form, "Käfer") for form in ("NFC", "NFD"))
    said = []
    folder(tmp_path, f"train/{composed} train/car test/{apart} test/car")
    images = handful.load(tmp_path, say=said.append)
    assert images.classes == ("Käfer", "car")
    assert images.test is not None and len(images.test) == 4
    assert any("are one class" in text for text in said)


def test_labels_of_a_file_that_look_the_same_are_one_class(tmp_path):
    folder(tmp_path, "0.jpg 1.jpg 2.jpg 3.jpg")
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n0.jpg,fox\n1.jpg,fox\u200b\n2.jpg,0\n3.jpg,\u200b\n", "utf-8")
    images = handful.load(tmp_path, table)
    assert images.classes == ("0", "fox")
    assert images.labels.tolist() == [1, 1, 0, -1]


def test_an_earlier_spelling_of_a_class_is_the_same_class(tmp_path):
    images = handful.load(folder(tmp_path, "Käfer car"))
    apart = unicodedata.normalize("NFD", "Käfer")
    assert images.relabeled((apart, "car")).labels.tolist() == images.labels.tolist()


def test_other_files_are_counted_and_unread_formats_listed(tmp_path):
    save(tmp_path / "cat/0.jpg", seed=0)
    save(tmp_path / "dog/0.jpg", seed=1)
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "LICENSE").write_text("b")
    (tmp_path / ".DS_Store").write_text("c")
    (tmp_path / "scan").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "b.jp2").write_bytes(b"")
    (tmp_path / "c.SVG").write_text("<svg/>")
    images = handful.load(tmp_path)
    assert dict(images.store.other) == {".txt": 1, "without an ending": 1}
    assert {skip.name: skip.reason.split(";")[0] for skip in images.store.skipped} == {
        "b.jp2": ".jp2 not read: JPEG 2000",
        "c.SVG": ".svg not read: SVG",
        "scan": "without an ending not read: DICOM",
    }


def command(monkeypatch, *typed) -> int:
    monkeypatch.setattr("sys.argv", ["handful", *map(str, typed)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_data_says_what_folders_are_and_counts_other_files(tmp_path, monkeypatch, capsys):
    folder(tmp_path, "train/cat train/dog valid/cat samples")
    (tmp_path / "notes.txt").write_text("a")
    (tmp_path / "e.dcm").write_bytes(b"")
    assert command(monkeypatch, "data", tmp_path, "--json") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert "2 classes from the sub-folders of train/: cat, dog" in err
    assert [row["name"] for row in found["classes"]] == ["cat", "dog"]
    assert found["other"] == {".txt": 1}
    assert command(monkeypatch, "data", tmp_path) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "1 other file: 1 .txt" in out and "1 .dcm not read" in out


def test_what_predict_sorted_is_called_predictions(tmp_path, monkeypatch, capsys):
    folder(tmp_path, "cat dog")
    assert command(monkeypatch, "data", tmp_path, "--json") == 0
    assert "predictions" not in capsys.readouterr().err
    (tmp_path / MANIFEST).write_text("{}")
    assert command(monkeypatch, "data", tmp_path, "--json") == 0
    assert "its folders are predictions" in " ".join(capsys.readouterr().err.split())
    assert command(monkeypatch, "data", tmp_path, "--json", "--folders", "ignore") == 0
    assert "predictions" not in capsys.readouterr().err


def test_data_asks_what_site_folders_are(tmp_path, monkeypatch, capsys):
    assert command(monkeypatch, "data", folder(tmp_path, SITES)) == 2
    assert "--folders groups" in capsys.readouterr().err
    assert command(monkeypatch, "data", tmp_path, "--folders", "groups", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["classes"]] == ["deer", "fox"]


def test_with_a_label_file_a_test_part_is_found_inside_a_wrapping_folder(tmp_path):
    for k, name in enumerate(("set/train/a", "set/train/b", "set/test/c", "set/test/d")):
        save(tmp_path / f"{name}.png", seed=k)
    rows = "set/train/a.png,x\nset/train/b.png,y\nset/test/c.png,x\nset/test/d.png,\n"
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n" + rows)
    images = handful.load(tmp_path, table, labeled=False)
    assert images.test is not None
    assert images.test.names == ["set/test/c.png"]  # d has no label, so it is no test image
