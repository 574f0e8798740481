"""Files of boxes: what is read, what is refused, and what crops are cut."""

import json
import math
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from handful.data import decode
from handful.data.boxes.formats import MOST_IN_A_PHOTO, read_boxes
from handful.data.boxes.options import Boxes
from handful.data.folds import stratified_folds
from handful.data.grouping.find import find_groups
from handful.data.image_folder import EarlierLabels
from handful.data.sources import load
from handful.errors import HandfulError
from image_files import noise, save, smooth

KEYS = st.sampled_from(["category", "conf", "bbox", "id", "detector", "detector_metadata",
                        "typical_detection_threshold", "bbox", "score"])  # fmt: skip
ANIMAL = {"1": "animal", "2": "person"}


def detection(box, conf=0.9, category="1"):
    return {"category": category, "conf": conf, "bbox": box}


def megadetector(path, images, **more):
    found = {"info": {"format_version": "1.4"}, "detection_categories": ANIMAL, "images": [
        {"file": file, "detections": boxes} for file, boxes in images.items()], **more}  # fmt: skip
    path.write_text(json.dumps(found))
    return path


@pytest.fixture
def photos(tmp_path):
    """Four photos of 100 x 80 at two sites."""
    for number in range(4):
        site = tmp_path / "photos" / f"site{number % 2}"
        save(site / f"IMG_{number:04}.png", noise(80, 100, seed=number))
    return tmp_path / "photos"


def names_of(images):
    """Names in both parts."""
    return [*images.names, *(images.test.names if images.test else ())]


def crops(photos, boxes, **options):
    how = {"padding": 0, "square": False} | {
        key: options.pop(key) for key in ("padding", "square", "min_confidence") if key in options
    }
    options = {"labeled": False, "folders": "ignore"} | options
    return load(photos, boxes=Boxes(boxes, **how), **options)


BOX = [0.1, 0.25, 0.3, 0.5]  # 10, 20, 40, 60 in pixels


def test_the_three_formats_give_the_same_crop(photos, tmp_path):
    file = "site0/IMG_0000.png"
    coco = {
        "images": [{"id": 7, "file_name": file, "width": 100, "height": 80}],
        "annotations": [{"image_id": 7, "bbox": [10, 20, 30, 40], "category_id": 1}],
        "categories": [{"id": 1, "name": "animal"}],
    }
    written = {
        "md.json": megadetector(tmp_path / "md.json", {file: [detection(BOX)]}).read_text(),
        "coco.json": json.dumps(coco),
        "pixels.csv": f"file,x_min,y_min,width,height\n{file},10,20,30,40\n",
        "corners.csv": f"filename;x1;y1;x2;y2;conf\n{file};10;20;40;60;0.9\n",
        "voc.csv": f"filename,width,height,xmin,ymin,xmax,ymax\n{file},100,80,10,20,40,60\n",
        "relative.csv": f"file,x,y,w,h\n{file},0.1,0.25,0.3,0.5\n",
    }
    expected = noise(80, 100, seed=0)[20:60, 10:40]
    for name, text in written.items():
        (tmp_path / name).write_text(text)
        images = crops(photos, tmp_path / name)
        assert images.names == [f"{file}#1"], name
        assert not len(images.labeled), name  # a column y is a place, not a label
        assert images.store.boxes.tolist() == [[10, 20, 40, 60]], name
        found = images.store.picture(0, 40)
        assert (found[:, 5:35] == expected).all(), name


def test_a_box_is_padded_and_made_square_within_the_photo(photos, tmp_path):
    boxes = megadetector(tmp_path / "b.json", {"site0/IMG_0000.png": [detection(BOX)]})
    of = crops(photos, boxes, padding=0.5).store.boxes
    assert of.tolist() == [[0, 0, 55, 80]]  # 30 x 40, and as much again, clipped
    assert crops(photos, boxes, square=True).store.boxes.tolist() == [[5, 20, 45, 60]]
    edge = megadetector(tmp_path / "e.json", {"site0/IMG_0000.png": [detection([0, 0, 0.1, 0.5])]})
    assert crops(photos, edge, square=True).store.boxes.tolist() == [[0, 0, 40, 40]]  # moved
    end = megadetector(
        tmp_path / "r.json", {"site0/IMG_0000.png": [detection([0.9, 0.5, 0.1, 0.5])]}
    )
    assert crops(photos, end, square=True).store.boxes.tolist() == [[60, 40, 100, 80]]
    wide = megadetector(tmp_path / "w.json", {"site0/IMG_0000.png": [detection([0, 0, 1, 0.5])]})
    assert crops(photos, wide, square=True).store.boxes.tolist() == [[0, 0, 100, 80]]
    assert Boxes(boxes).as_in(None).padding is None
    default = load(photos, boxes=boxes, labeled=False, folders="ignore")
    assert default.store.boxes.tolist() == [[5, 20, 45, 60]]  # no padding, and square


def test_a_name_has_the_number_in_the_file_whichever_boxes_are_used(photos, tmp_path):
    some = [detection(BOX, 0.1), detection([5, 5, 1, 1]), detection(BOX), detection(BOX, 0.9, "2"),
            detection([0.5, 0.5, 0.4, 0.4], 0.3)]  # fmt: skip
    boxes = megadetector(tmp_path / "b.json", {"site0/IMG_0000.png": some})
    said = []
    images = crops(photos, boxes, say=said.append)
    assert images.names == ["site0/IMG_0000.png#3", "site0/IMG_0000.png#5"]
    assert "2 crops of 1 photo" in said[0] and "below 0.2 are not used: 1" in said[0]
    assert "no animal are not classified: person 1" in said[0]
    assert crops(photos, boxes, min_confidence=0.5).names == ["site0/IMG_0000.png#3"]
    assert crops(photos, boxes, min_confidence=0).names == [
        f"site0/IMG_0000.png#{number}" for number in (1, 3, 5)
    ]


def test_the_file_recommends_a_confidence(photos, tmp_path):
    boxes = {"site0/IMG_0000.png": [detection(BOX, 0.5)]}
    info = {"detector_metadata": {"typical_detection_threshold": 0.6}}
    assert crops(photos, megadetector(tmp_path / "a.json", boxes)).names
    strict = megadetector(tmp_path / "b.json", boxes, info=info)
    assert not crops(photos, strict).names
    odd = {"detector_metadata": {"typical_detection_threshold": math.nan}}
    assert crops(photos, megadetector(tmp_path / "c.json", boxes, info=odd)).names


def test_boxes_that_are_none_are_listed_with_the_reason(photos, tmp_path):
    file = "site0/IMG_0000.png"
    odd = [
        ([0.5, 0.5, 0, 0.2], "no area"),
        ([0.5, 0.5, -0.1, 0.2], "no area"),
        ([2, 2, 0.5, 0.5], "less than 4 pixels"),
        ([0.98, 0.1, 0.5, 0.5], "less than 4 pixels"),
        ([math.nan, 0, 1, 1], "finite"),
        ([math.inf, 0, 1, 1], "finite"),
        ([10**400, 0, 1, 1], "finite"),
        ([0, 0, 1], "four numbers"),
        ("box", "four numbers"),
        ([True, 0, 1, 1], "finite"),
        ([[0], 0, 1, 1], "finite"),
    ]
    some = [detection(box) for box, _ in odd] + [
        detection(BOX, math.nan), detection(BOX, 7), {"category": "9", "conf": 1, "bbox": BOX}, 3,
        {"category": ["1"], "bbox": BOX}, detection(BOX)]  # fmt: skip
    reasons = [reason for _, reason in odd] + [
        "confidence", "confidence", "category", "not an object", "category"]  # fmt: skip
    images = crops(photos, megadetector(tmp_path / "b.json", {file: some}))
    assert images.names == [f"{file}#{len(some)}"]
    listed = {name: reason for name, reason in images.store.skipped if "#" in name}
    for number, reason in enumerate(reasons, 1):
        assert reason in listed[f"{file}#{number}"], number
    assert len(listed) == len(reasons)
    huge = crops(
        photos, megadetector(tmp_path / "h.json", {file: [detection([-1e308, 0, 1.7e308, 1])]})
    )
    assert huge.store.boxes.tolist() == [[0, 0, 100, 80]]  # clipped


def test_missing_and_unnamed_photos_are_listed_and_no_path_is_opened(photos, tmp_path):
    save(tmp_path / "secret.png", seed=9)
    (photos / "site1" / "IMG_0003.png").write_bytes(b"no image")
    files = ["site0/IMG_0000.png", "gone.png", "../secret.png", str(tmp_path / "secret.png"),
             "site1/IMG_0003.png", "clip.mp4"]  # fmt: skip
    boxes = megadetector(tmp_path / "b.json", {file: [detection(BOX)] for file in files})
    images = crops(photos, boxes)
    assert images.names == ["site0/IMG_0000.png#1"]
    listed = dict(images.store.skipped)
    for name in ("gone.png", "../secret.png", str(tmp_path / "secret.png"), "clip.mp4"):
        assert listed[name].startswith("only in the file of boxes"), name
    assert listed["site0/IMG_0002.png"].startswith("not in the file of boxes")
    assert "image" in listed["site1/IMG_0003.png"]
    assert images.store.detected.unreadable.keys() == {"site1/IMG_0003.png"}


def test_boxes_of_another_folder_are_left_out(tmp_path):
    for number, name in enumerate(("site1/IMG_1", "site1/IMG_2", "site2/IMG_1", "site2/IMG_2")):
        save(tmp_path / "photos" / f"{name}.png", noise(20, 20, seed=number))
    (tmp_path / "far").mkdir()
    one, two = tmp_path / "photos" / "site1", {"site2/IMG_2.png": [detection(BOX)]}
    both = {f"site{n}/IMG_1.png": [detection(BOX)] for n in (1, 2)} | two
    for place in (tmp_path / "photos", tmp_path / "far"):
        images = crops(one, megadetector(place / "b.json", both))
        assert images.names == ["IMG_1.png#1"]
        listed = dict(images.store.skipped)
        assert all("another folder" in listed[f"site2/IMG_{n}.png"] for n in (1, 2)), listed
        with pytest.raises(HandfulError, match="may be of another folder"):
            crops(one, megadetector(place / "b.json", two))
    moved = {f"C:\\cams\\IMG_{n}.png": [detection(BOX)] for n in (1, 2)}
    boxes = megadetector(tmp_path / "b.json", moved)
    assert crops(one, boxes).names == ["IMG_1.png#1", "IMG_2.png#1"]
    boxes = megadetector(tmp_path / "b.json", moved | {"D:/x/IMG_2.png": [], "IMG_1.PNG": []})
    with pytest.raises(HandfulError, match="no box of a confidence"):
        load(one, boxes=Boxes(boxes), folders="classes")


def test_a_relative_box_may_reach_out_of_the_photo_a_little(photos, tmp_path):
    file = "site0/IMG_0000.png"
    (tmp_path / "b.csv").write_text(f"file,x1,y1,x2,y2\n{file},0.5,0.5,1.005,1.05\n")
    assert crops(photos, tmp_path / "b.csv").store.boxes.tolist() == [[50, 40, 100, 80]]
    (tmp_path / "b.csv").write_text(f"file,x1,y1,x2,y2\n{file},0,0,1.06,1\n")
    assert not read_boxes(tmp_path / "b.csv").relative


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "JSON without boxes"),
        ("[1, 2]", "JSON without boxes"),
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"images": 3, "detection_categories": {}}', "images is no list"),
        ('{"images": [{"file": 3}], "detection_categories": {}}', "image 1 has no 'file'"),
        ('{"images": [null], "detection_categories": {}}', "image 1 has no 'file'"),
        ('{"images": [], "detection_categories": 3}', "not as MegaDetector or COCO"),
        ('{"images": [{"file": "a", "detections": {}}], "detection_categories": {}}', "no list"),
        ('{"images": [{"file_name": "a.png", "id": []}], "annotations": []}', "not as MegaD"),
        ('{"images": [{"file_name": "a", "id": 1}, {"file_name": "b", "id": 1}],'
         ' "annotations": []}', "image 2 has the id 1 of an earlier"),
        ('{"images": [], "annotations": [], "categories": [{}]}', "not as MegaDetector or COCO"),
        ('{"images": [], "annotations": []}', "none of the 0 photos"),
        ("file,label\na.png,fox\n", "needs a first line with the columns file, x_min"),
        ("file,x1,y1,x2,y2\n,1,2,3,4\n", "line 2 names no file"),
        ("", "needs a first line"),
        ("\0\1\2", "zero bytes"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_refused_with_what_would_be_right(photos, tmp_path, text, said):
    (tmp_path / "b").write_text(text)
    with pytest.raises(HandfulError, match=said.replace("(", r"\(")):
        crops(photos, tmp_path / "b")


def test_too_many_boxes_are_refused_or_listed(photos, tmp_path, monkeypatch):
    file, n = "site0/IMG_0000.png", MOST_IN_A_PHOTO + 2
    some = [detection(BOX, 0.5 + number / n / 4) for number in range(n)]
    boxes = megadetector(tmp_path / "b.json", {file: some})
    images = crops(photos, boxes)
    assert len(images) == MOST_IN_A_PHOTO and f"{file}#1" not in images.names  # the least sure
    assert "more than 1,000 boxes" in dict(images.store.skipped)[f"{file}#2"]
    monkeypatch.setattr("handful.data.boxes.formats.MOST_BOXES", 10)
    with pytest.raises(HandfulError, match="1,002 boxes, and 10 is the most"):
        read_boxes(boxes)
    monkeypatch.setattr("handful.data.boxes.formats.MOST_VALUES", 1000)
    monkeypatch.setattr("json.loads", None)  # counted before it is parsed
    with pytest.raises(HandfulError, match="more than 1,000 values"):
        read_boxes(boxes)


NUMBERS = st.floats() | st.integers(-5, 5) | st.none() | st.text(max_size=3) | st.booleans()
ANY = st.recursive(
    NUMBERS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner), max_leaves=9
)


@settings(max_examples=20)
@given(boxes=ANY, more=ANY, info=ANY, coco=st.booleans())
def test_any_json_is_read_or_refused(tmp_path_factory, boxes, more, info, coco):
    """No other error than HandfulError, and all that is used is finite and in the photo."""
    folder = tmp_path_factory.mktemp("any")
    save(folder / "photos" / "a.png", noise(20, 20, seed=0))
    one = {"category": "1", "conf": 0.9, "bbox": boxes}
    value = {"info": info, "detection_categories": {"1": "animal"},
             "images": [{"file": "a.png", "detections": [one, more], "x": info}]}  # fmt: skip
    if coco:
        marked = [{"image_id": 1, "bbox": boxes, "category_id": 1, "score": more}, more]
        value = {"images": [{"id": 1, "file_name": "a.png", "width": more}], "annotations": marked}
    (folder / "b.json").write_text(json.dumps(value))
    try:
        images = crops(folder / "photos", folder / "b.json", min_confidence=0)
    except HandfulError:
        return
    assert ((images.store.boxes >= 0) & (images.store.boxes <= 20)).all()
    assert (images.store.sizes > 0).all()


@pytest.mark.parametrize("value", [-0.1, 1.5, math.nan, "much", True])
def test_options_out_of_range_are_refused(value):
    with pytest.raises(HandfulError, match="min_confidence is a number from 0 to 1"):
        Boxes("b.json", min_confidence=value)
    if value != 1.5:
        with pytest.raises(HandfulError, match="padding is a number from 0 to 2"):
            Boxes("b.json", padding=value)


def test_boxes_for_a_photo_of_another_shape_are_no_crops(photos, tmp_path):
    one = {"image_id": 1, "bbox": [20, 40, 60, 80]}
    image = {"id": 1, "file_name": "site0/IMG_0000.png"}
    twice = {"images": [image | {"width": 200, "height": 160}], "annotations": [one]}
    (tmp_path / "twice.json").write_text(json.dumps(twice))
    assert crops(photos, tmp_path / "twice.json").store.boxes.tolist() == [[10, 20, 40, 60]]
    turned = {"images": [image | {"width": 160, "height": 200}], "annotations": [one]}
    (tmp_path / "turned.json").write_text(json.dumps(turned))
    skipped = dict(crops(photos, tmp_path / "turned.json").store.skipped)
    assert "for 160 x 200 pixels" in skipped["site0/IMG_0000.png#1"]


def test_a_crop_of_a_large_jpeg_is_as_sharp_as_the_photo(tmp_path):
    """300 of 2,400 pixels, with detail that an eighth of the photo does not have."""
    pixels = np.full((1600, 2400, 3), 90, np.uint8)
    pixels[1000:1300, 300:600] = np.where(
        np.indices((300, 300)).sum(0)[..., None] // 4 % 2, 40, 210
    )
    path = save(tmp_path / "p" / "a.jpg", pixels, quality=95)
    csv = tmp_path / "b.csv"
    csv.write_text("file,x_min,y_min,width,height\na.jpg,300,1000,300,300\n")
    images = crops(tmp_path / "p", csv)
    got = images.at(224)[0].float()
    exact = Image.open(path).crop((300, 1000, 600, 1300)).resize((224, 224), Image.BICUBIC)
    assert np.abs(got.numpy().transpose(1, 2, 0) - np.asarray(exact, float)).mean() < 1
    assert got.std() > 60
    # A large crop may be cut from a reduced photo, and keeps twice the side that is asked for.
    assert decode.crop_reduction((0, 0, 2400, 1600), 100) == 8
    assert decode.crop_reduction((0, 0, 2400, 1599), 100) == 4
    assert decode.crop_reduction((0, 0, 300, 300), 224) == 1


def test_a_crop_of_a_reduced_jpeg_is_at_its_place(tmp_path):
    pixels = np.full((1600, 2400, 3), 255, np.uint8)
    pixels[800:1200, 600:1200] = 0
    save(tmp_path / "p" / "a.jpg", pixels)
    csv = tmp_path / "b.csv"
    csv.write_text("file,x1,y1,x2,y2\na.jpg,616,816,1184,1184\na.jpg,1216,16,2384,1584\n")
    images = crops(tmp_path / "p", csv)
    assert [decode.crop_reduction(box, 16) for box in images.store.boxes.tolist()] == [8, 8]
    black, white = images.at(16)
    assert black.max() < 16 and white.min() > 240


def test_boxes_are_of_the_upright_photo(tmp_path):
    pixels = np.zeros((80, 100, 3), np.uint8)
    pixels[:40, 50:] = 255  # upright, after a turn by 90 degrees to the right: right and below
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "p" / "a.png", pixels, exif=exif)
    csv = tmp_path / "b.csv"
    csv.write_text("file,x1,y1,x2,y2\na.png,42,52,78,98\na.png,2,2,38,48\n")
    images = crops(tmp_path / "p", csv)
    assert images.store.full.tolist() == [[100, 80]] * 2
    white, black = images.at(16)
    assert white.min() == 255 and black.max() == 0


def test_pixels_do_not_depend_on_the_other_crops_of_a_batch(tmp_path):
    save(tmp_path / "p" / "a.jpg", noise(900, 1200, seed=1))
    csv = tmp_path / "b.csv"
    rows = ["a.jpg,0,0,1200,900", "a.jpg,10,10,60,60", "a.jpg,0,0,1000,800", "a.jpg,5,5,90,90"]
    csv.write_text("\n".join(["file,x1,y1,x2,y2", *rows]))
    images = crops(tmp_path / "p", csv)
    store, size = images.store, 32
    together = store.batch(np.arange(4), size, "crop", 3)
    alone = np.concatenate([store.batch(np.array([row]), size, "crop", 3) for row in range(4)])
    assert (together == alone).all()
    assert [len(places) for places in store._read_together(np.array([1, 3, 0, 2]), size)] == [2, 2]


def test_a_fingerprint_depends_on_photo_and_box(photos, tmp_path):
    save(photos / "site0" / "copy.png", noise(80, 100, seed=0))
    files = ["site0/IMG_0000.png", "site0/copy.png", "site0/IMG_0002.png"]
    other = [0.2, 0.25, 0.3, 0.5]
    boxes = {file: [detection(BOX), detection(other)] for file in files}
    images = crops(photos, megadetector(tmp_path / "b.json", boxes))
    marks = dict(zip(images.names, map(bytes, images.store.fingerprints), strict=True))
    assert marks[f"{files[0]}#1"] == marks[f"{files[1]}#1"]  # copies of one photo
    assert len(set(marks.values())) == 4
    groups = dict(zip(images.names, images.groups.tolist(), strict=True))
    copies = [f"{file}#{number}" for file in files[:2] for number in (1, 2)]
    assert len({groups[name] for name in copies}) == 1  # joined by their copies
    assert groups[f"{files[2]}#1"] == groups[f"{files[2]}#2"] != groups[f"{files[0]}#1"]


@pytest.fixture
def many(tmp_path):
    """Sixty photos at six sites with two or three crops each, and their boxes; labels by box."""
    rng = np.random.default_rng(0)
    lines = ["file,x1,y1,x2,y2,label"]
    for number in range(60):
        file = f"site{number % 6}/IMG_{number:04}.png"
        save(tmp_path / "many" / file, noise(40, 40, seed=number, channels=1))
        for _ in range(2 + number % 2):
            x, y = rng.integers(0, 20, 2)
            lines.append(f"{file},{x},{y},{x + 12},{y + 12},{('fox', 'hare')[rng.integers(2)]}")
    (tmp_path / "many.csv").write_text("\n".join(lines))
    return tmp_path / "many", tmp_path / "many.csv"


def photos_of(images):
    return {name.rpartition("#")[0] for name in images.names}


def test_crops_of_a_photo_are_on_one_side_of_every_split(many):
    images = load(many[0], boxes=many[1], test_fraction=0.3, seed=1)
    assert images.grouped_by == "crops" and len(images.test) > 20
    assert not photos_of(images) & photos_of(images.test)
    for _, held in split_by_folds(images):
        rest = np.setdiff1d(np.arange(len(images)), held)
        assert len(held) and not photos_of(images[held]) & photos_of(images[rest])


def split_by_folds(images):
    folds = stratified_folds(images.labels, 4, seed=0, groups=images.groups)
    return [(fold, np.flatnonzero(folds == fold)) for fold in range(4)]


def test_with_groups_given_crops_of_photos_of_one_group_stay_together(many):
    images = load(many[0], boxes=many[1], groups="folder", test_fraction=0.3, seed=1)
    assert images.grouped_by == "folder"

    def sites(part):
        return {name.partition("/")[0] for name in part.names}

    assert sites(images) and sites(images.test) and not sites(images) & sites(images.test)
    by_name = load(many[0], boxes=many[1], groups=r"IMG_(\d{3})\d\.png$")  # the photo's own name
    assert len(np.unique(by_name.groups)) == 6
    both = load(many[0], boxes=many[1], folders="groups")
    assert both.grouped_by == "source" and len(np.unique(both.groups)) == 6


def test_a_label_of_a_photo_is_that_of_its_only_crop(photos, tmp_path):
    one, two, three = (f"site{n % 2}/IMG_{n:04}.png" for n in (0, 1, 2))
    found = {one: [detection(BOX), detection(BOX, 0.1)], two: [detection(BOX)] * 2, three: []}
    boxes = megadetector(tmp_path / "b.json", found)
    table = tmp_path / "labels.csv"
    table.write_text(f"file,label\n{one},fox\n{two},hare\n{three},deer\n{two}#2,wolf\n")
    images = crops(photos, boxes, labels=table, folders=None)
    labels = {name: images.classes[k] for name, k in zip(images.names, images.labels, strict=True)
              if k >= 0}  # fmt: skip
    assert labels == {f"{one}#1": "fox", f"{two}#2": "wolf"}
    listed = dict(images.store.skipped)
    assert listed[two].startswith("one label and several crops: 'hare' may be any of 2")
    assert listed[three].startswith("labelled, and without a crop")


def test_folders_that_are_classes_label_photos_with_one_crop(tmp_path):
    for name in ("fox/1.png", "fox/2.png", "hare/3.png", "hare/4.png"):
        save(tmp_path / "p" / name, seed=int(name[-5]))
    rows = [f"{name},0,0,8,8" for name in ("fox/1.png", "hare/3.png", "hare/3.png", "hare/4.png")]
    (tmp_path / "b.csv").write_text("\n".join(["file,x1,y1,x2,y2", *rows, "fox/2.png,,,,"]))
    images = load(tmp_path / "p", boxes=tmp_path / "b.csv")
    assert images.names == ["fox/1.png#1", "hare/3.png#1", "hare/3.png#2", "hare/4.png#1"]
    assert [images.classes[k] if k >= 0 else "" for k in images.labels] == ["fox", "", "", "hare"]
    assert "hare/3.png" in dict(images.store.skipped)


def test_folders_give_crops_no_label_where_an_earlier_run_has_them(tmp_path):
    for name in ("p/monday/a.png", "p/tuesday/b.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("RGB", (40, 40), "red").save(tmp_path / name)
    (tmp_path / "b.csv").write_text(
        "file,x,y,width,height\nmonday/a.png,0.1,0.1,0.5,0.5\ntuesday/b.png,0.1,0.1,0.5,0.5\n"
    )
    images = load(
        tmp_path / "p", boxes=tmp_path / "b.csv", labeled=False, known=EarlierLabels("run", ())
    )
    assert len(images) == 2 and images.classes == ()


def test_folders_win_over_labels_of_boxes_where_they_are_said_to_be_classes(many):
    with_boxes = load(many[0], boxes=many[1])
    assert with_boxes.classes == ("fox", "hare")
    by_folder = load(many[0], boxes=many[1], folders="classes", labeled=False)
    assert by_folder.classes == () and len(by_folder.store.skipped) == 60  # two or three crops each


def test_scenes_are_found_among_photos_not_among_their_crops(tmp_path, monkeypatch):
    """Crops of a photo look alike and have one number and time: a photo counts once."""
    counted = []
    monkeypatch.setattr(
        "handful.data.grouping.find.times", lambda taken, names: counted.append(list(names))
    )
    rows = ["file,x1,y1,x2,y2,label"]
    for number in range(40):
        file = f"IMG_{number:04}.png"
        save(tmp_path / "p" / file, np.tile(smooth(24, 24, seed=number), (1, 3, 1)))
        rows += [
            f"{file},{24 * k},0,{24 * k + 24},24,{('fox', 'hare')[number % 2]}" for k in range(3)
        ]
    (tmp_path / "b.csv").write_text("\n".join(rows))
    images = load(tmp_path / "p", boxes=tmp_path / "b.csv")
    found = find_groups(images)
    assert counted == [[f"IMG_{number:04}.png" for number in range(40)]]
    assert found.scenes == 40 and not found.signs and found.likely is None
    assert len(np.unique(found.groups.reshape(40, 3), axis=1).T) == 1
    alone = find_groups(images[::3])
    assert (found.groups[::3] == alone.groups).all()


def test_a_metadata_csv_in_the_folder_labels_photos_with_one_crop(photos, tmp_path):
    rows = [f"site{n % 2}/IMG_{n:04}.png,{('fox', 'hare')[n % 2]}" for n in range(4)]
    (photos / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    found = {f"site{n % 2}/IMG_{n:04}.png": [detection(BOX)] for n in range(3)}
    found["site0/IMG_0002.png"].append(detection([0.5, 0.5, 0.4, 0.4]))
    boxes = megadetector(tmp_path / "b.json", found)
    images = load(photos, boxes=boxes)
    labels = [images.classes[k] if k >= 0 else None for k in images.labels.tolist()]
    assert dict(zip(images.names, labels, strict=True)) == {
        "site0/IMG_0000.png#1": "fox",
        "site0/IMG_0002.png#1": None,
        "site0/IMG_0002.png#2": None,
        "site1/IMG_0001.png#1": "hare",
    }
    said = {one.name: one.reason for one in images.store.skipped}
    assert "one label and several crops: 'fox'" in said["site0/IMG_0002.png"]
    assert not load(photos, boxes=boxes, labeled=False, folders="ignore").labeled.any()


def test_categories_of_coco_are_labels_where_they_tell_things_apart(photos, tmp_path):
    file = "site0/IMG_0000.png"
    content = {
        "images": [{"id": 1, "file_name": file}],
        "annotations": [
            {"image_id": 1, "bbox": [0, 0, 30, 40], "category_id": 1},
            {"image_id": 1, "bbox": [40, 0, 30, 40], "category_id": 2},
            {"image_id": 1, "category_id": 2},  # of the whole photo
        ],
        "categories": [{"id": 1, "name": "fox"}, {"id": 2, "name": "hare"}],
    }
    (tmp_path / "b.json").write_text(json.dumps(content))
    images = crops(photos, tmp_path / "b.json")
    assert [images.classes[k] for k in images.labels] == ["fox", "hare"]
    content["categories"][1]["name"] = "fox"
    (tmp_path / "b.json").write_text(json.dumps(content))
    assert not len(crops(photos, tmp_path / "b.json").labeled)
    content["categories"] = [{"id": 1, "name": "animal"}, {"id": 2, "name": "person"}]
    (tmp_path / "b.json").write_text(json.dumps(content))
    assert crops(photos, tmp_path / "b.json").names == [f"{file}#1"]


def test_boxes_are_for_a_folder_of_photos(photos, tmp_path):
    boxes = megadetector(tmp_path / "b.json", {"site0/IMG_0000.png": [detection(BOX)]})
    for source in ("digits", np.zeros((2, 8, 8))):
        with pytest.raises(HandfulError, match="is for a folder of photos"):
            load(source, boxes=boxes, labeled=False)
    with pytest.raises(HandfulError, match="boxes is a int"):
        load(photos, boxes=3)
    with pytest.raises(HandfulError, match="no file"):
        load(photos, boxes=tmp_path / "none.json")
    with pytest.raises(HandfulError, match="is a folder"):
        load(photos, boxes=tmp_path)
    with pytest.raises(HandfulError, match="and s3://bucket/photos/ is none; copy or unpack"):
        load("s3://bucket/photos/", boxes=boxes)
    packed = tmp_path / "packed" / "photos.zip"
    packed.parent.mkdir()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(photos / "site0" / "IMG_0000.png", "site0/IMG_0000.png")
    with pytest.raises(HandfulError, match=r"photos.zip is none; copy or unpack its photos into"):
        load(packed, boxes=boxes)
    with pytest.raises(HandfulError, match="no photo but photos.zip, .*; unpack the photos into"):
        load(packed.parent, boxes=boxes)
    with pytest.raises(HandfulError, match="shard='1/2' takes a part of them; leave one of the"):
        load(photos, boxes=boxes, shard="1/2")
    one = crops(photos / "site0" / "IMG_0000.png", boxes)
    assert one.names == ["IMG_0000.png#1"] and not one.store.skipped
    strict = Boxes(boxes, min_confidence=0.95)
    with pytest.raises(HandfulError, match="no box of a confidence of 0.95 or more"):
        load(photos, boxes=strict, folders="classes")
