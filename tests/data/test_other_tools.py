"""Label files of other tools: a row for each form, with the right labels."""

import json
import os

import pytest

from handful.csv_files import write_csv
from handful.data.labels.label_file import LabelFile, match_labels
from handful.data.labels.other_tools import Labelled, known_format, read_cvat
from handful.data.sources import load
from handful.errors import HandfulError
from handful.progress import silent
from image_files import save

NAMES = ("IMG_0.jpg", "IMG_1.jpg", "sub/IMG_2.jpg")


def read(tmp_path, content, name="labels.csv", names=NAMES, **options):
    """(file → label, reported sentences, listed file → reason) of a label file beside `names`."""
    path, said = tmp_path / name, []
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = match_labels(LabelFile(path, **options), names, tmp_path, said.append)
    labels = {file: row.label for file, row in found.rows.items()}
    return labels, "; ".join(said), {skipped.name: skipped.reason for skipped in found.unused}


def js(value):
    return json.dumps(value)


def task(image, *choices):
    result = [{"type": "choices", "value": {"choices": [choice]}} for choice in choices]
    return {"id": 1, "data": {"image": image}, "annotations": [{"result": result}]}


def seen(file, *boxes):
    return {"file": file, "detections": [{"category": c, "conf": conf} for c, conf in boxes]}


MEGA = {
    "detection_categories": {"1": "animal", "2": "person"},
    "images": [seen("IMG_0.jpg", ("1", 0.9), ("2", 0.1)), seen("IMG_1.jpg")],
}
COCO = {
    "images": [{"id": 7, "file_name": "IMG_0.jpg"}, {"id": 8, "file_name": "IMG_1.jpg"}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [{"image_id": 7, "category_id": 1}, {"image_id": 8, "category_id": 2}],
}
CAT_DOG = {"IMG_0.jpg": "cat", "IMG_1.jpg": "dog"}
FORMS = {  # name: (file name, content, labels, reported words)
    "Kaggle id_code": ("a.csv", "id_code,diagnosis\nIMG_0,0\nIMG_1,1\n",
                       {"IMG_0.jpg": "0", "IMG_1.jpg": "1"},
                       "taking column 'id_code' for the files and 'diagnosis' for the labels, 2"),
    "Kaggle breeds": ("a.csv", "id,breed\nIMG_0,cat\nIMG_1,dog\n", CAT_DOG, "'breed'"),
    "Kaggle whales": ("a.csv", "Image,Id\nIMG_0.jpg,cat\nIMG_1.jpg,dog\n", CAT_DOG, "'Id'"),
    "chest x-rays": ("a.csv", "Image Index,Finding Labels\nIMG_0.jpg,cat\nIMG_1.jpg,dog\n",
                     CAT_DOG, "'Finding Labels'"),
    "pandas index": ("a.csv", ",fname,label\n0,IMG_0.jpg,cat\n1,IMG_1.jpg,dog\n", CAT_DOG, "fname"),
    "fastai": ("a.csv", "name,label\nIMG_0.jpg,cat\nIMG_1.jpg,dog\n", CAT_DOG, "'name'"),
    "Hugging Face": ("metadata.csv", "file_name,label\nIMG_0.jpg,cat\nIMG_1.jpg,dog\n", CAT_DOG,
                     "'file_name'"),
    "Hugging Face lines": ("metadata.jsonl", js({"file_name": "IMG_0.jpg", "label": "cat"}) + "\n"
                           + js({"file_name": "IMG_1.jpg", "label": "dog"}) + "\n",
                           CAT_DOG, "'file_name'"),
    "Label Studio CSV": ("a.csv", "annotator,choice,id,image\n"
                         "1,cat,1,/data/upload/1/1a2b3c4d-IMG_0.jpg\n"
                         "1,dog,2,/data/upload/1/0a2b3c4d-IMG_1.jpg\n", CAT_DOG, "'choice'"),
    "Label Studio JSON": ("a.json", js([task("/data/upload/1/1a2b3c4d-IMG_0.jpg", "cat"),
                                        task("/data/local-files/?d=my/IMG_1.jpg", "dog")]),
                          CAT_DOG, "Label Studio"),
    "Label Studio JSON-MIN": ("a.json", js([{"image": "IMG_0.jpg", "id": 1, "choice": "cat"},
                                            {"image": "IMG_1.jpg", "id": 2, "choice": "dog"}]),
                              CAT_DOG, "'choice'"),
    "CVAT": ("annotations.xml", '<annotations><image id="0" name="IMG_0.jpg"><tag label="cat"/>'
             '</image><image id="1" name="IMG_1.jpg"><tag label="dog"/></image></annotations>',
             CAT_DOG, "CVAT"),
    "Roboflow": ("_classes.csv", "filename, cat, dog\nIMG_0_jpg.rf.0a1b2c.jpg, 1, 0\n"
                 "IMG_1_jpg.rf.3d4e5f.jpg, 0, 1\n", CAT_DOG, "2 columns of 0 and 1"),
    "MegaDetector": ("a.json", js(MEGA), {"IMG_0.jpg": "animal", "IMG_1.jpg": "empty"},
                     "MegaDetector"),
    "COCO": ("a.json", js(COCO), CAT_DOG, "COCO"),
    "JSON mapping": ("a.json", js(CAT_DOG), CAT_DOG, ""),
    "no header": ("a.csv", "IMG_0.jpg,cat\nIMG_1.jpg,dog\n", CAT_DOG, "no header"),
    "no header, labels first": ("a.csv", "cat\tIMG_0.jpg\ndog\tIMG_1.jpg\n", CAT_DOG, "no header"),
    "two unknown columns": ("a.csv", "foo,bar\nIMG_0.jpg,cat\nIMG_1.jpg,dog\n", CAT_DOG, "'bar'"),
    "sep=": ("a.csv", "sep=;\r\nfile;label\r\nIMG_0.jpg;cat\r\nIMG_1.jpg;dog\r\n", CAT_DOG, ""),
    "UTF-16": ("a.csv", "file\tlabel\nIMG_0.jpg\tcat\nIMG_1.jpg\tdog\n".encode("utf-16"),
               CAT_DOG, ""),
    "a long unused cell": ("a.csv", f"file,label,notes\nIMG_0.jpg,cat,{'x' * 200_000}\n"
                           "IMG_1.jpg,dog,\n", CAT_DOG, ""),
}  # fmt: skip


@pytest.mark.parametrize("name, content, labels, words", FORMS.values(), ids=FORMS.keys())
def test_label_files_of_other_tools_are_read_and_their_columns_reported(
    tmp_path, name, content, labels, words
):
    found, said, listed = read(tmp_path, content, name)
    assert found == labels and not listed
    assert words in said if words else "taking" not in said


RULES = {  # cell: (image, reported rule; "" if the cell is the name)
    "IMG_0.jpg": ("IMG_0.jpg", ""),
    "sub\\IMG_2.jpg": ("sub/IMG_2.jpg", ""),
    "img_0.JPG": ("IMG_0.jpg", "by letter case"),
    "sub/IMG_2": ("sub/IMG_2.jpg", "without ending"),
    "IMG_2.jpg": ("sub/IMG_2.jpg", "by base name"),
    "IMG_2": ("sub/IMG_2.jpg", "by base name"),
    "C:\\Users\\me\\pics\\IMG_0.jpg": ("IMG_0.jpg", "by end of path"),
    "/home/x/sub/IMG_2.jpg": ("sub/IMG_2.jpg", "by end of path"),
    "https://h.org/p/IMG_0.jpg?x=1&y=a/b.jpg": ("IMG_0.jpg", "by end of address"),
    "s3://bucket/sub/IMG_2.jpg": ("sub/IMG_2.jpg", "by end of"),
    "my%20photo.jpg": ("my photo.jpg", "percent-encoding"),
    "/data/upload/3/0123abcd-IMG_1.jpg": ("IMG_1.jpg", "hash"),
    "IMG_1_jpg.rf.0aF3.jpg": ("IMG_1.jpg", "hash"),
    "cafe\u0301.jpg": ("caf\u00e9.jpg", ""),
}


@pytest.mark.parametrize("cell, image, rule", [(k, *v) for k, v in RULES.items()], ids=RULES)
def test_a_cell_finds_its_image_by_the_strictest_rule_which_is_reported(
    tmp_path, cell, image, rule
):
    names = (*NAMES, "my photo.jpg", "caf\u00e9.jpg")
    found, said, _ = read(tmp_path, f"file,label\n{cell},cat\n", names=names)
    assert found == {image: "cat"}
    assert rule in said if rule else not said


def test_the_longest_end_of_a_path_decides_between_equal_base_names(tmp_path):
    names = ("a/1.jpg", "b/1.jpg")
    content = "file,label\nD:\\x\\b\\1.jpg,cat\n/y/a/1.jpg,dog\n"
    assert read(tmp_path, content, names=names)[0] == {"b/1.jpg": "cat", "a/1.jpg": "dog"}


def test_a_cell_that_may_mean_two_images_is_listed_and_reported_with_both(tmp_path):
    content = "file,label\n1.jpg,cat\nc.jpg,dog\n"
    found, said, listed = read(tmp_path, content, names=("a/1.jpg", "b/1.jpg", "c.jpg"))
    assert found == {"c.jpg": "dog"}
    assert "'1.jpg' is 'a/1.jpg' or 'b/1.jpg'" in said
    assert "several images may be meant: a/1.jpg, b/1.jpg" in listed["1.jpg"]
    with pytest.raises(HandfulError, match="'1.jpg' is 'a/1.jpg' or 'b/1.jpg'"):
        read(tmp_path, "file,label\n1.jpg,cat\n", names=("a/1.jpg", "b/1.jpg"))


def test_the_end_of_a_path_does_not_take_an_image_that_another_row_names_whole(tmp_path):
    content = "file,label\nother/IMG_0.jpg,dog\nIMG_0.jpg,cat\n"
    found, _, listed = read(tmp_path, content)
    assert found == {"IMG_0.jpg": "cat"} and list(listed) == ["other/IMG_0.jpg"]


def test_contradictory_rows_are_all_listed_and_their_image_is_left_unlabelled(tmp_path):
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        save(tmp_path / "photos" / name, seed=seed)
    table, said = tmp_path / "labels.csv", []
    table.write_text("file,label\na.png,x\nb.png,y\n./a.png,z\nc.png,x\n")
    images = load(tmp_path / "photos", table, say=said.append)
    assert [images.names[row] for row in images.labeled] == ["b.png", "c.png"]
    assert [skipped.name for skipped in images.store.skipped] == ["a.png", "a.png"]
    reasons = " ".join(skipped.reason for skipped in images.store.skipped)
    assert "'x' on line 2" in reasons and "'z' on line 4" in reasons
    assert "1 image has contradicting labels" in said[0] and "'a.png'" in said[0]


SEVERAL = {
    "Roboflow": ("a.csv", "filename,cat,dog\nIMG_0.jpg,1,1\nIMG_1.jpg,0,1\n"),
    "Label Studio": ("a.json", js([task("IMG_0.jpg", "cat", "dog"), task("IMG_1.jpg", "dog")])),
    "Label Studio CSV": (
        "a.csv", 'image,choice\nIMG_0.jpg,"{""choices"":[""cat"",""dog""]}"\nIMG_1.jpg,dog\n'
    ),
}  # fmt: skip


@pytest.mark.parametrize("name, content", SEVERAL.values(), ids=SEVERAL)
def test_an_image_with_several_labels_is_listed_and_left_unlabelled(tmp_path, name, content):
    found, _, listed = read(tmp_path, content, name)
    assert found == {"IMG_0.jpg": None, "IMG_1.jpg": "dog"}
    assert "several labels (cat, dog)" in listed["IMG_0.jpg"]


def test_an_uncertain_detection_is_neither_a_category_nor_empty(tmp_path):
    images = [seen("IMG_0.jpg", ("1", 0.1)), {"file": "IMG_1.jpg", "failure": "broken"}]
    found, _, listed = read(tmp_path, js(MEGA | {"images": images}), "a.json")
    assert found == {"IMG_0.jpg": None, "IMG_1.jpg": None} and len(listed) == 2


def test_columns_can_be_typed_and_a_mistake_names_those_at_hand(tmp_path):
    content = "where,what,label\nIMG_0.jpg,cat,9\nIMG_1.jpg,dog,9\n"
    typed = {"file_column": "where", "label_column": "What"}
    assert read(tmp_path, content, **typed)[0] == CAT_DOG
    with pytest.raises(HandfulError, match=r"--label-column wat.*Did you mean 'what'.*'where', 'w"):
        read(tmp_path, content, file_column="where", label_column="wat")


def test_a_label_confirmed_is_no_mark_of_its_own(tmp_path):
    """Only another column says that a label was looked at again."""
    path = tmp_path / "labels.csv"
    path.write_text("file,mark\nIMG_0.jpg,confirmed\nIMG_1.jpg,suspected\n")
    file = LabelFile(path, file_column="file", label_column="mark")
    rows = match_labels(file, NAMES, tmp_path, silent).rows
    assert {row.label for row in rows.values()} == {"confirmed", "suspected"}
    assert not any(row.confirmed for row in rows.values())


def test_two_columns_that_could_be_meant_are_refused_with_the_choice(tmp_path):
    content = "filename,class,category\nIMG_0.jpg,cat,a\nIMG_1.jpg,dog,b\n"
    with pytest.raises(
        HandfulError,
        match=r"--label-column class or --label-column category \(in Python .*label_column=...\)\)",
    ):
        read(tmp_path, content)
    assert read(tmp_path, content, label_column="class")[0] == CAT_DOG
    content = "image,filename,label\nIMG_0.jpg,IMG_1.jpg,cat\nIMG_1.jpg,IMG_0.jpg,dog\n"
    with pytest.raises(HandfulError, match="--file-column image or --file-column filename"):
        read(tmp_path, content)
    assert read(tmp_path, content, file_column="image")[0] == CAT_DOG


def test_columns_without_a_label_file_are_refused(tmp_path):
    save(tmp_path / "a.png")
    with pytest.raises(HandfulError, match="--label-column x is for a label file"):
        load(tmp_path, label_column="x")


BINARY = {
    "Excel": ("a.xlsx", b"PK\x03\x04 xl/workbook.xml", "an Excel workbook.*'CSV UTF-8'"),
    "old Excel": ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook.*'CSV UTF-8'"),
    "OpenDocument": ("a.ods", b"PK\x03\x04 mimetype", "OpenDocument.*'CSV UTF-8'"),
    "Parquet": ("a.parquet", b"PAR1\x15\x04", "a Parquet file.*to_csv"),
}


@pytest.mark.parametrize("name, content, words", BINARY.values(), ids=BINARY)
def test_a_file_that_is_no_text_is_refused_by_its_format(tmp_path, name, content, words):
    for encoding in ("utf-8", "cp1252", "utf-16"):
        with pytest.raises(HandfulError, match=words):
            read(tmp_path, content, name, encoding=encoding)


def test_the_suggested_encoding_works(tmp_path):
    for content, encoding in (
        ("file,label\nIMG_0.jpg,café\n".encode("cp1252"), "cp1252"),
        (b"file,label\nIMG_0.jpg,caf\x81\n", "latin-1"),
        ("file,label\nIMG_0.jpg,café\n".encode("utf-16-le"), "utf-16"),
        ("file,label\nIMG_0.jpg,café\n".encode("utf-16-be"), "utf-16-be"),
    ):
        with pytest.raises(HandfulError, match=f"--encoding {encoding}$"):
            read(tmp_path, content)
        assert read(tmp_path, content, encoding=encoding)[0].keys() == {"IMG_0.jpg"}


def test_our_own_csv_is_a_label_file_again_whatever_names_and_labels_hold(tmp_path):
    names = ["=1.png", "a;=b.png", "caf\udce9.png", " x.png", "'=y.png", 'q".png', "n\n=l.png"]
    labels = ["=cmd", "'=x", "a;=b", "caf\udce9", "-0.5", "+1 b", "'90s"]
    rows = [[name, label, "random", "00"] for name, label in zip(names, labels, strict=True)]
    write_csv(tmp_path / "own.csv", ["file", "label", "origin", "pixels"], rows)
    content = (tmp_path / "own.csv").read_bytes()
    assert read(tmp_path, content, names=names)[0] == dict(zip(names, labels, strict=True))


def test_a_name_that_is_no_utf8_is_found_but_a_label_that_was_typed_is_not_guessed(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    content = b"file,label,why\ncaf\xe9.png,cat,random\n"
    assert read(tmp_path, content, names=[name])[0] == {name: "cat"}
    with pytest.raises(HandfulError, match="line 2 is not utf-8.*--encoding cp1252"):
        read(tmp_path, b"file,label,why\nIMG_0.jpg,caf\xe9,random\n")


def test_a_cvat_file_with_entities_is_refused(tmp_path):
    with pytest.raises(HandfulError, match="DOCTYPE"):
        read(tmp_path, '<!DOCTYPE a [<!ENTITY b "c">]><annotations/>', "annotations.xml")


def test_an_export_whose_file_name_is_no_text_is_refused(tmp_path):
    images = [{"file": 3, "detections": []}]
    with pytest.raises(HandfulError, match="names an image 3; a file name is text"):
        read(tmp_path, js(MEGA | {"images": images}), "a.json")


def test_a_cancelled_annotation_gives_no_label_and_the_most_confident_box_counts():
    def annotated(label, **more):
        return {"result": [{"value": {"choices": [label]}}], **more}

    task = {"data": {"image": "a.png"}, "annotations": [
        annotated("cat", was_cancelled=True), annotated("dog")]}  # fmt: skip
    assert known_format([task]) == ("Label Studio", [Labelled("a.png", ("dog",))])
    boxes = [{"category": "1", "conf": 0.9}, {"category": "1", "conf": 0.1}]
    detected = {"detection_categories": {"1": "animal"},
                "images": [{"file": "a.png", "detections": boxes}]}  # fmt: skip
    assert known_format(detected) == ("MegaDetector", [Labelled("a.png", ("animal",))])


def test_xml_of_cvat_that_lists_labels_and_no_image_is_refused(tmp_path):
    with pytest.raises(HandfulError, match="XML without images; export 'CVAT for images'"):
        read_cvat(tmp_path / "map.xml", "<label_map><label name='cat'/></label_map>")
