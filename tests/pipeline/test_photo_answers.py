"""Answers for photos from those for their crops, and the files that Timelapse reads."""

import csv
import json

import numpy as np
import pytest

import handful
from handful.data.boxes.options import Boxes
from handful.errors import HandfulError
from handful.pipeline.earlier_run import with_earlier_labels
from handful.pipeline.photo_answers import COLUMNS, CropAnswer, photo_answers
from image_files import noise, save

QUICK = {"steps": 2, "batch": 8, "backbone.base": 8}
WHOLE = "site1/deep/IMG_0001.png"
BOXES = {
    "site0/IMG_0000.png": [["1", 0.9, [0.1, 0.1, 0.4, 0.4]], ["1", 0.8, [0.5, 0.5, 0.5, 0.5]]],
    WHOLE: [["1", 0.7, [0.1, 0.1, 0.4, 0.4]], ["1", 0.1, [0.2, 0.2, 0.4, 0.4]],
            ["2", 0.9, [0.6, 0.6, 0.2, 0.2]], ["1", 0.9, [3, 3, 1, 1]]],
    "site0/IMG_0002.png": [],
    "site1/IMG_0003.png": [["1", 0.19, [0.1, 0.1, 0.4, 0.4]]],
    "site0/IMG_0004.png": [["2", 0.9, [0.1, 0.1, 0.4, 0.4]]],
    "top.png": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """photos/ with detections.json, and run/, which learned from crops."""
    folder = tmp_path_factory.mktemp("place")
    for seed, name in enumerate((*BOXES, "site0/unnamed.png")):
        save(folder / "photos" / name, noise(40, 40, seed=seed))
    images = [
        {"file": file, "failure": "Failure image access", "detections": None} if boxes is None else
        {"file": file, "detections": [dict(zip(("category", "conf", "bbox"), box, strict=True))
                                      for box in boxes]}
        for file, boxes in BOXES.items()
    ]  # fmt: skip
    found = {
        "info": {"format_version": "1.3", "detector": "md_v5a.0.0.pt", "more": ["dropped"]},
        "detection_categories": {"1": "animal", "2": "person"},
        "images": [*images, {"file": "gone.png", "detections": []}],
    }
    (folder / "detections.json").write_text(json.dumps(found))
    names = [*(f"site0/IMG_0000.png#{n}" for n in (1, 2)), f"{WHOLE}#1"]
    handful.fit(
        folder / "photos",
        "supervised",
        labels=dict(zip(names, ("fox", "hare", "fox"), strict=True)),
        boxes=Boxes(folder / "detections.json", padding=0.3),
        settings=QUICK,
        precision="fp32",
        estimate="none",
        out=folder / "run",
        pictures=False,
    )
    return folder


@pytest.fixture
def predictions(place):
    return handful.open_run(place / "run").predict(
        place / "photos", boxes=place / "detections.json"
    )


def test_a_photo_gets_the_class_of_its_surest_crop(predictions):
    detected = predictions.detected
    name = "site0/IMG_0000.png"
    crops = [CropAnswer(f"{name}#1", "fox", 0.6, [0.6, 0.4], ""),
             CropAnswer(f"{name}#2", "hare", 0.9, [0.1, 0.9], "")]  # fmt: skip
    answers = {one.name: one for one in photo_answers(crops, detected)}
    assert answers[name][1:] == ("hare", 0.9, 2, "")
    unsure = [crops[0], crops[1]._replace(label="", remark="no answer")]
    assert photo_answers(unsure, detected)[0][1:] == ("fox", 0.6, 2, "")
    unknown = [one._replace(label="", remark="none of these") for one in crops]
    assert photo_answers(unknown, detected)[0][1:] == ("", None, 2, "none of these")


def test_a_photo_without_a_crop_has_no_class_and_says_why(predictions):
    answers = {one.name: one for one in predictions.by_photo()}
    assert len(answers) == 7 and "gone.png" not in answers
    for name in ("site0/IMG_0002.png", "site1/IMG_0003.png"):
        assert answers[name][1:] == ("", None, 0, "no detection")
    assert answers["site0/IMG_0004.png"].remark == "only 1 person"
    assert answers["top.png"].remark == "the detector failed: Failure image access"
    assert answers["site0/unnamed.png"].remark == "not in detections.json"
    assert {one.label for one in answers.values()} <= {"fox", "hare", ""}
    assert all(bool(one.label) != bool(one.remark) for one in answers.values())
    assert {one.name for one in answers.values() if one.label} == {"site0/IMG_0000.png", WHOLE}


def test_some_of_the_crops_do_not_answer_for_photos(place, predictions):
    with pytest.raises(HandfulError, match="not for all crops"):
        predictions[:1].by_photo()
    run = handful.open_run(place / "run")
    with pytest.warns(UserWarning, match="these are whole images"):
        whole = run.predict(place / "photos")
    with pytest.raises(HandfulError, match="not for all crops"):
        whole.by_photo()


def check_timelapse_csv(path):
    """As Timelapse documents and reads it: one comma, File and RelativePath, no odd headings."""
    text = path.read_bytes().decode("utf-8")
    assert not text.startswith("\ufeff")
    header, *rows = csv.reader(text.splitlines())
    assert {"File", "RelativePath"} <= set(header)
    assert all(name.isidentifier() for name in header)  # data labels: letters, digits, underscores
    assert rows and all(len(row) == len(header) for row in rows)
    found = [dict(zip(header, row, strict=True)) for row in rows]
    for row in found:
        assert row["File"] and not {"/", "\\"} & set(row["File"])
        assert "/" not in row["RelativePath"] and not row["RelativePath"].startswith("\\")
    places = [(row["RelativePath"], row["File"]) for row in found]
    assert len(set(places)) == len(places)
    return header, {f"{folder}\\{file}".lstrip("\\"): row for (folder, file), row in
                    zip(places, found, strict=True)}  # fmt: skip


def test_the_csv_is_what_timelapse_imports(predictions, tmp_path):
    predictions.to_photo_csv(tmp_path / "by-photo.csv")
    header, rows = check_timelapse_csv(tmp_path / "by-photo.csv")
    assert header == COLUMNS == ["RelativePath", "File", "Label", "Confidence", "Detections",
                                 "Remark"]  # fmt: skip
    assert len(rows) == 7
    one = rows["site1\\deep\\IMG_0001.png"]
    assert one["RelativePath"] == "site1\\deep" and one["File"] == "IMG_0001.png"
    assert one["Label"] in ("fox", "hare") and 0.5 <= float(one["Confidence"]) <= 1
    assert one["Detections"] == "1" and one["Remark"] == ""
    empty = rows["site0\\IMG_0002.png"]
    assert (empty["Label"], empty["Confidence"], empty["Detections"]) == ("", "", "0")
    assert empty["Remark"] == "no detection"
    assert rows["top.png"]["RelativePath"] == ""


def check_megadetector(found, classified):
    """As https://lila.science/megadetector-output-format says, version 1.4."""
    assert found.keys() == {"info", "detection_categories", "classification_categories", "images"}
    assert found["info"]["format_version"] == "1.4"
    assert all(isinstance(found["info"][key], str) for key in ("classifier", "detector"))
    for kind in ("detection_categories", "classification_categories"):
        assert all(key.isdecimal() and name for key, name in found[kind].items())
    number = 0
    for image in found["images"]:
        assert "\\" not in image["file"]
        if image.get("failure"):
            assert isinstance(image["failure"], str) and image["detections"] is None
            continue
        for box in image["detections"]:
            assert box.keys() - {"classifications"} == {"category", "conf", "bbox"}
            assert box["category"] in found["detection_categories"]
            assert isinstance(box["conf"], float) and 0 <= box["conf"] <= 1
            assert len(box["bbox"]) == 4 and all(isinstance(v, float) for v in box["bbox"])
            left, top, width, height = box["bbox"]
            assert min(box["bbox"]) >= 0 and left + width <= 1.00001 and top + height <= 1.00001
            if "classifications" in box:
                number += 1
                ids, shares = zip(*box["classifications"], strict=True)
                assert set(ids) <= found["classification_categories"].keys()
                assert list(shares) == sorted(shares, reverse=True)
                assert all(isinstance(share, float) for share in shares)
    assert number == classified


def test_the_recognitions_are_megadetectors_format_with_classes(predictions, tmp_path):
    predictions.to_recognitions(tmp_path / "recognitions.json")
    found = json.loads((tmp_path / "recognitions.json").read_text())
    check_megadetector(found, classified=3)
    assert found["classification_categories"] == {"1": "fox", "2": "hare"}
    assert found["info"]["detector"] == "md_v5a.0.0.pt" and "more" not in found["info"]
    assert [image["file"] for image in found["images"]] == sorted(BOXES)
    of = {image["file"]: image for image in found["images"]}
    whole = of[WHOLE]["detections"]
    assert [box["bbox"] for box in whole] == [box for _, _, box in BOXES[WHOLE][:3]] + [
        [1.0, 1.0, 0.0, 0.0]
    ]
    best = predictions[f"{WHOLE}#1"]
    first, share = whole[0]["classifications"][0]
    assert found["classification_categories"][first] == best.label
    assert share == pytest.approx(best.confidence, abs=1e-4)
    assert "classifications" not in whole[1] and whole[1]["conf"] == 0.1
    assert of["site0/IMG_0002.png"]["detections"] == []
    again = handful.load(
        predictions.detected.of.path.parent / "photos",
        boxes=tmp_path / "recognitions.json",
        labeled=False,
        folders="ignore",
    )
    assert again.names == list(predictions.names)  # what is written can be read again


def test_crops_without_an_answer_have_no_class_in_the_recognitions(predictions, tmp_path):
    from dataclasses import replace

    unsure = replace(predictions, threshold=1.1)
    unsure.to_recognitions(tmp_path / "r.json")
    check_megadetector(json.loads((tmp_path / "r.json").read_text()), classified=0)
    assert {one.label for one in unsure.by_photo()} == {""}
    assert [one.remark for one in unsure.by_photo()].count("no answer") == 2


def test_boxes_in_pixels_are_written_relative_to_the_photo(place, tmp_path):
    table = tmp_path / "boxes.csv"
    table.write_text("file,x1,y1,x2,y2\nsite0/IMG_0000.png,4,8,24,28\nsite0/IMG_0002.png,,,,\n")
    run = handful.open_run(place / "run")
    run.predict(place / "photos", boxes=table).to_recognitions(tmp_path / "r.json")
    found = json.loads((tmp_path / "r.json").read_text())
    found["info"]["detector"] = ""
    check_megadetector(found, classified=1)
    assert found["detection_categories"] == {"1": "animal"}
    pixels, without = found["images"]
    assert pixels["detections"][0]["bbox"] == [0.1, 0.2, 0.5, 0.5]
    assert without == {"file": "site0/IMG_0002.png", "detections": []}


def test_photos_are_sorted_whole_by_their_answer(place, predictions, tmp_path):
    done = predictions.into_folders(place / "photos", tmp_path / "sorted")
    assert done.counts() == {"copied": 7}
    copied = {path.name: path.parent.name for path in (tmp_path / "sorted").rglob("*.png")}
    answers = {one.name: one for one in predictions.by_photo()}
    assert copied["site1_deep_IMG_0001.png"] == answers[WHOLE].label
    assert copied["site0_IMG_0002.png"] == "no detection"
    assert copied["site0_IMG_0004.png"] == copied["top.png"] == "no answer"
    assert (tmp_path / "sorted").is_dir() and len(copied) == 7


def test_the_run_says_how_its_crops_were_made_and_predict_cuts_alike(place, predictions):
    run = handful.open_run(place / "run")
    cut = run.record["data"]["boxes"]
    assert cut == {"file": str(place / "detections.json"), "min_confidence": 0.2, "padding": 0.3,
                   "square": True}  # fmt: skip
    assert run.record["groups"]["by"] == "crops"
    assert predictions.detected.padding == 0.3
    other = run.cut_alike(Boxes("b.json", padding=0, square=False))
    assert (other.padding, other.square) == (0, False)
    said = []
    run.predict(place / "photos", say=said.append)
    labels = {"site0/IMG_0000.png": "fox", WHOLE: "hare"}
    run.evaluate(place / "photos", labels, say=said.append)
    assert said == 2 * [
        "this run learned from crops, and these are whole images: its estimate is not for them; "
        "give their --boxes"
    ]


def test_a_photo_listed_twice_keeps_its_boxes(place, tmp_path):
    found = json.loads((place / "detections.json").read_text())
    files = (WHOLE, "top.png")
    again = [{"file": file, "failure": "Failure image access"} for file in files]
    found["images"] += [*again, {"file": "top.png", "detections": []}]
    (tmp_path / "b.json").write_text(json.dumps(found))
    predictions = handful.open_run(place / "run").predict(
        place / "photos", boxes=tmp_path / "b.json"
    )
    predictions.to_recognitions(tmp_path / "r.json")
    written = json.loads((tmp_path / "r.json").read_text())
    of = {image["file"]: image for image in written["images"]}
    assert "classifications" in of[WHOLE]["detections"][0] and "failure" not in of[WHOLE]
    assert of["top.png"]["failure"] == "Failure image access"


def test_a_page_does_not_go_on_from_labels_of_crops(place):
    from handful.labeling.start import Wanted, open_page

    with pytest.raises(HandfulError, match="learned from crops, and `handful label` shows whole"):
        open_page(Wanted(str(place / "photos"), place / "none.csv", after=place / "run"))
    assert not list(place.glob("none*"))


def test_boxes_given_to_fit_are_cut_as_those_of_the_earlier_run(place):
    how = {"estimate": "none", "precision": "fp32", "after": place / "run", "size": 16}
    how["labels"] = {"site0/IMG_0000.png#1": "fox", "site0/IMG_0000.png#2": "hare"}
    boxes = Boxes(place / "detections.json", square=False)
    run = handful.fit(place / "photos", boxes=boxes, settings=QUICK | {"steps": 1}, **how)
    cut = run.record["data"]["boxes"]
    assert (cut["padding"], cut["square"], cut["min_confidence"]) == (0.3, False, 0.2)
    with pytest.raises(HandfulError, match="learned from crops, and its labels are theirs"):
        handful.fit(place / "photos", **how)


def test_labels_of_an_earlier_run_stay_with_their_crops(place, tmp_path):
    table = tmp_path / "boxes.csv"
    name = "site0/IMG_0000.png"  # its two boxes change places, and a third photo gets one
    table.write_text(f"file,x,y,w,h\n{name},.5,.5,.5,.5\n{name},.1,.1,.4,.4\n{WHOLE},.1,.1,.4,.4\n")
    run, said = handful.open_run(place / "run"), []
    images = handful.load(
        place / "photos", boxes=run.cut_alike(table), labeled=False, folders="ignore"
    )
    merged = with_earlier_labels(images, run, said.append)
    assert [merged.names[k] for k in merged.labeled] == [f"{WHOLE}#1"]
    assert "1 is kept" in said[0] and said[1].startswith("2 labels of ")
    assert "are not kept" in said[1] and len(said) == 2


def test_files_of_somebody_else_are_not_replaced_from_python(predictions, place, tmp_path):
    with pytest.raises(HandfulError, match="is not what handful writes there"):
        predictions.to_recognitions(place / "detections.json")
    (tmp_path / "mine.csv").write_text("a,b\n1,2\n")
    with pytest.raises(HandfulError, match="is not what handful writes there"):
        predictions.to_photo_csv(tmp_path / "mine.csv")
    for _ in range(2):  # its own files are replaced
        predictions.to_recognitions(tmp_path / "r.json")
        predictions.to_photo_csv(tmp_path / "p.csv")


def test_a_folder_without_any_animal_gets_its_answers(place, tmp_path):
    table = tmp_path / "boxes.csv"
    table.write_text("file,x1,y1,x2,y2\nsite0/IMG_0000.png,,,,\ntop.png,,,,\n")
    found = handful.open_run(place / "run").predict(place / "photos", boxes=table)
    assert len(found) == 0
    remarks = [one.remark for one in found.by_photo()]
    assert remarks.count("no detection") == 2 and remarks.count("not in boxes.csv") == 5
    found.to_photo_csv(tmp_path / "by-photo.csv")
    found.to_recognitions(tmp_path / "r.json")


def test_a_crop_that_vanishes_is_left_out_and_its_photo_says_so(place, tmp_path):
    import shutil

    photos = shutil.copytree(place / "photos", tmp_path / "photos")
    images = handful.load(photos, boxes=place / "detections.json", labeled=False, folders="ignore")
    (photos / "site0" / "IMG_0000.png").unlink()
    found = handful.open_run(place / "run").predict(images)
    assert found.names == (f"{WHOLE}#1",)
    assert found.by_photo()[0][:2] == ("site0/IMG_0000.png", "")
    assert found.by_photo()[0].remark == "not classified"


def test_a_name_that_a_spreadsheet_would_run_is_made_safe(place, tmp_path):
    photos = tmp_path / "photos"
    save(photos / "=1+1.png", noise(40, 40, seed=0))
    table = tmp_path / "boxes.csv"
    table.write_text("file,x1,y1,x2,y2\n=1+1.png,4,8,24,28\n")
    found = handful.open_run(place / "run").predict(photos, boxes=table)
    assert found.names == ("=1+1.png#1",)
    found.to_photo_csv(tmp_path / "by-photo.csv")
    assert ",'=1+1.png," in (tmp_path / "by-photo.csv").read_text()


def test_predict_writes_what_timelapse_reads_and_keeps_the_detectors_file(place, tmp_path, handful):
    where = [place / "run", place / "photos", "--boxes", place / "detections.json"]
    out = ["--by-photo", tmp_path / "p.csv", "--recognitions", tmp_path / "r.json"]
    status, said, err = handful("predict", *where, *out, "--out", tmp_path / "crops.csv")
    assert status == 0, err
    words = " ".join(err.split())
    assert "5 of 7 photos have no class: 2 no detection, 1 only 1 person" in words
    check_timelapse_csv(tmp_path / "p.csv")
    check_megadetector(json.loads((tmp_path / "r.json").read_text()), classified=3)
    assert (tmp_path / "crops.csv").read_text().count("#") == 3
    assert handful("predict", *where, *out)[0] == 0  # its own files are replaced
    before = (place / "detections.json").read_bytes()
    status, _, err = handful("predict", *where, "--recognitions", place / "detections.json")
    assert status == 2 and "is not what handful writes there" in err
    assert (place / "detections.json").read_bytes() == before
    status, said, _ = handful("predict", *where, "--json")
    found = json.loads(said)
    assert len(found["predictions"]) == 3 and len(found["photos"]) == 7
    assert found["photos"][1] == {
        "file": "site0/IMG_0002.png", "label": "", "confidence": None, "crops": 0,
        "remark": "no detection"}  # fmt: skip
    assert {
        "file": "gone.png",
        "reason": f"only in the file of boxes: {place}/detections.json",
    } in (found["left_out"])
    dry = ["--into", tmp_path / "sorted", "--dry-run"]
    for name in ("--by-photo", "--recognitions"):
        status, _, err = handful("predict", *where, *dry, name, tmp_path / "none")
        assert status == 2 and f"without {name}" in " ".join(err.split())
    same = ["--out", tmp_path / "none", "--by-photo", tmp_path / "x" / ".." / "none"]
    status, _, err = handful("predict", *where, *same)
    assert status == 2 and "--out and --by-photo would both write" in " ".join(err.split())
    assert not (tmp_path / "none").exists()
    for wrong in (["--by-photo", "p.csv"], ["--padding", "0.1"], ["--recognitions", "r.json"]):
        status, _, err = handful("predict", *where[:2], *wrong)
        assert status == 2 and "--boxes" in err
    shard = [*where, "--shard", "1/2", "--out", tmp_path / "parts"]
    for command in (["predict", *shard], ["embed", *shard[1:]]):
        status, _, err = handful(*command)
        assert status == 2 and "--boxes needs all " in err and not (tmp_path / "parts").exists()


def test_commands_that_load_images_take_boxes(place, tmp_path, handful):
    where = [place / "photos", "--boxes", place / "detections.json", "--folders", "ignore"]
    status, said, _ = handful("data", *where, "--json")
    found = json.loads(said)
    assert status == 0 and found["images"] == 3 and found["smallest"] == [16, 16]
    labels = tmp_path / "labels.csv"
    rows = [f"site0/IMG_0000.png#{n},{name}" for n, name in ((1, "fox"), (2, "hare"))]
    labels.write_text("\n".join(["file,label", *rows]))
    status, said, err = handful("evaluate", place / "run", *where, "--labels", labels, "--json")
    assert status == 0 and json.loads(said)["n"] == 2, err
    assert "are among those the run was trained on" in " ".join(err.split())
    status, _, err = handful("fit", place / "photos", "--after", place / "run")
    assert status == 2 and "give the boxes again" in " ".join(err.split())
    status, _, err = handful("fit", place / "photos", "--boxes", "none.json")
    assert status == 2 and "no file 'none.json'" in err
    status, _, err = handful("fit", place / "photos", "--min-confidence", "0.5")
    assert status == 2 and "--min-confidence is for boxes in photos" in err


def test_a_run_scores_the_crops_of_a_folder(place):
    run = handful.open_run(place / "run")
    labels = {f"site0/IMG_0000.png#{n}": name for n, name in ((1, "fox"), (2, "hare"))}
    where = {"boxes": place / "detections.json", "say": lambda _: None}  # it learned from them
    assert run.evaluate(place / "photos", labels, **where).n == 2


@pytest.mark.thorough
def test_features_are_those_of_crops(place):
    found = handful.embed(place / "photos", boxes=place / "detections.json", size=32)
    assert found.names[0] == "site0/IMG_0000.png#1" and len(np.unique(found.features, axis=0)) == 3


@pytest.mark.thorough
def test_the_way_of_a_fit_on_crops_goes_on_with_its_next_labels(place, tmp_path, handful):
    """Fit, fill in label-next.csv, which names crops, fit again, and predict, by commands."""
    rng = np.random.default_rng(0)
    lines, labels = ["file,x1,y1,x2,y2"], ["file,label"]
    for number in range(24):
        file = f"site{number % 4}/IMG_{number:04}.png"
        pixels = rng.integers(0, 60, (48, 64, 3), dtype=np.uint8)
        for box, at in enumerate((4, 36), 1):
            kind = int(rng.integers(2))
            pixels[10:30, at : at + 20, 2 * kind] += 150
            lines.append(f"{file},{at},10,{at + 20},30")
            if number < 16:
                labels.append(f"{file}#{box},{('red', 'blue')[kind]}")
        save(tmp_path / "photos" / file, pixels)
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    (tmp_path / "labels.csv").write_text("\n".join(labels))
    photos, boxes = tmp_path / "photos", ["--boxes", tmp_path / "boxes.csv"]
    how = ["--method", "supervised", "--set", "steps=3", "--set", "backbone.base=8"]
    run = ["fit", photos, *boxes, "--padding", "0.2", *how, "--out", tmp_path / "run"]
    status, said, err = handful(*run, "--labels", tmp_path / "labels.csv")
    assert status == 0, err
    assert "--by-photo by-photo.csv" in said and "handful label" not in said
    assert f"improve fill in {tmp_path / 'run' / 'label-next.csv'}, then" in said
    assert f"--out {tmp_path / 'run-2'} --boxes {tmp_path / 'boxes.csv'}\n" in said
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["groups"]["labels"] == 32 and record["groups"]["scenes"] <= 16
    assert record["data"]["boxes"]["padding"] == 0.2
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"--boxes {tmp_path / 'boxes.csv'} --labels" in page and "PHOTOS --boxes BOXES" in page
    table = tmp_path / "run" / "label-next.csv"
    rows = table.read_text().splitlines()
    assert len(rows) > 3 and all("#" in row.split(",")[0] for row in rows[1:])
    first = rows[1].split(",")
    first[rows[0].split(",").index("label")] = "red"
    table.write_text("\n".join([rows[0], ",".join(first), *rows[2:]]))
    again = ["fit", photos, *boxes, "--labels", table, "--after", tmp_path / "run"]
    status, _, err = handful(*again, "--out", tmp_path / "run-2")
    assert status == 0, err
    assert "1 label is new, 32 are kept" in " ".join(err.split())
    record = json.loads((tmp_path / "run-2" / "run.json").read_text())
    assert record["data"]["boxes"]["padding"] == 0.2 and record["data"]["labeled"] == 33
    into = ["--into", tmp_path / "sorted", "--by-photo", tmp_path / "p.csv"]
    status, said, err = handful("predict", tmp_path / "run-2", photos, *boxes, *into)
    assert status == 0, err
    assert len(list((tmp_path / "sorted").rglob("*.png"))) == 24
    assert len(check_timelapse_csv(tmp_path / "p.csv")[1]) == 24
    held = {row["file"] for row in _rows(tmp_path / "run-2" / "predictions.csv")}
    assert len(held) == 48 - 33


def _rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
