"""Pictures in memory, data sets of other libraries and labels as Python objects."""

import io
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import handful
from handful.data.imageset import ImageSet
from handful.data.in_memory import image_set, pixels_of
from handful.errors import HandfulError
from image_files import noise, save, smooth
from not_available import NAType


def pixels(images, size, channels=None):
    return images.at(size, channels=channels).numpy()


class Series:
    """As a column of pandas: values with an index."""

    def __init__(self, values, index=None):
        self.values = list(values)
        self.index = list(range(len(self.values))) if index is None else list(index)

    def __len__(self):
        return len(self.values)

    def __iter__(self):
        return iter(self.values)

    def items(self):
        return zip(self.index, self.values, strict=True)

    def tolist(self):
        return self.values


class Frame:
    """As a data frame of pandas."""

    def __init__(self, columns, index=None):
        self.held = columns
        self.columns = list(columns)
        self.index = range(len(next(iter(columns.values())))) if index is None else index

    def __getitem__(self, name):
        return Series(self.held[name])

    def __len__(self):
        return len(self.index)


# --- one picture


COLOUR = smooth(9, 7, seed=1).copy()
GREY = noise(9, 7, seed=2, channels=1)


@pytest.mark.parametrize(
    "picture, expected",
    [
        (COLOUR, COLOUR),
        (GREY, GREY),
        (GREY[..., None], GREY),
        (Image.fromarray(COLOUR), COLOUR),
        (Image.fromarray(GREY), GREY),
        (torch.from_numpy(COLOUR).permute(2, 0, 1), COLOUR),
        (torch.from_numpy(GREY), GREY),
        (COLOUR / 255, COLOUR),
        (torch.from_numpy(GREY / 255).to(torch.float32)[None], GREY),
        (GREY.astype(np.int64), GREY),
        (GREY > 127, np.where(GREY > 127, 255, 0)),
        (Image.fromarray(GREY > 127), np.where(GREY > 127, 255, 0)),
    ],
)
def test_a_picture_is_the_pixels_that_it_shows(picture, expected):
    np.testing.assert_array_equal(pixels_of(picture, "it"), expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "CMYK", "YCbCr", "1"])
def test_a_picture_of_any_mode_is_decoded_as_its_file(mode, tmp_path):
    picture = Image.fromarray(COLOUR).convert(mode)
    ending = {"CMYK": "tif", "YCbCr": "tif"}.get(mode, "png")
    picture.save(tmp_path / f"a.{ending}")
    by_file = handful.load(tmp_path, labeled=False)
    np.testing.assert_array_equal(pixels(image_set(picture), 7, 3), pixels(by_file, 7, 3))


def test_transparent_parts_are_white_as_in_files():
    clear = np.dstack([COLOUR // 3, np.where(GREY > 127, 255, 0)]).astype(np.uint8)
    shown = pixels_of(clear, "it")
    assert (shown[GREY <= 127] == 255).all()
    np.testing.assert_array_equal(shown[GREY > 127], COLOUR[GREY > 127] // 3)


def test_a_photograph_is_turned_as_its_camera_says():
    lying = Image.fromarray(np.array([[1, 2], [3, 4]], np.uint8))
    lying.getexif()[0x0112] = 6
    np.testing.assert_array_equal(pixels_of(lying, "it"), [[3, 1], [4, 2]])


def test_the_bytes_of_a_file_are_a_picture():
    file = io.BytesIO()
    Image.fromarray(COLOUR).save(file, "PNG")
    for held in (file.getvalue(), {"bytes": file.getvalue(), "path": None}):
        np.testing.assert_array_equal(pixels_of(held, "it"), COLOUR)


@pytest.mark.parametrize(
    "picture, said",
    [
        (Image.new("I;16", (4, 4)), "it is a Pillow image of mode I;16, of more than 8 bits"),
        (Image.new("F", (4, 4)), "mode F, of more than 8 bits; bring it to 8 bits"),
        (COLOUR * 1.0, r"values from .* to .* \(float64\), and pixels are floats in \[0, 1\]; div"),
        (COLOUR / 128 - 1, "leave out the normalisation"),
        (COLOUR.astype(np.uint16) * 16, r"\(uint16\), and pixels are whole numbers from 0 to 255"),
        (np.where(GREY > 9, np.nan, 0.5), "values from nan to nan"),
        (np.full((4, 4), "a"), "values of type <U1; pixels are numbers or booleans"),
        (COLOUR.transpose(2, 0, 1), r"shape \(3, 9, 7\).*give array.transpose\(1, 2, 0\)"),
        (torch.from_numpy(COLOUR), r"shape \(9, 7, 3\).*tensor.permute\(2, 0, 1\)"),
        (np.zeros((7, 4, 5)), r"an array of shape \(7, 4, 5\); one picture is \(H, W\)"),
        (np.zeros((0, 4)), r"it has the shape \(0, 4\), so it has no pixel"),
        (np.zeros(4), r"an array of shape \(4,\)"),
        (b"no image", "it cannot be read"),
        ({"bytes": b"%!PS-Adobe-3.0", "path": "a.eps"}, "it cannot be read"),
        ({"bytes": None, "path": "/no/such.png"}, "it cannot be read: .*such.png"),
    ],
)
def test_what_is_no_picture_is_said_with_what_to_do(picture, said):
    with pytest.raises(HandfulError, match=said):
        pixels_of(picture, "it")


def test_a_truncated_photograph_is_named_by_its_position():
    file = io.BytesIO()
    Image.fromarray(smooth(90, 90, seed=1)).save(file, "JPEG")
    cut = Image.open(io.BytesIO(file.getvalue()[:700]))
    with pytest.raises(HandfulError, match="picture 1 cannot be read: .*truncated"):
        image_set([Image.new("L", (8, 8)), cut])


# --- many pictures


def test_pictures_of_several_sizes_are_classified_as_their_files(tmp_path):
    shapes = [(20, 30), (40, 25), (16, 16)]
    held = [smooth(h, w, seed=k) for k, (h, w) in enumerate(shapes)]
    paths = [save(tmp_path / f"{k}.png", picture) for k, picture in enumerate(held)]
    by_file = pixels(handful.load(tmp_path, labeled=False), 12)
    for given in (held, [Image.fromarray(picture) for picture in held], paths):
        np.testing.assert_array_equal(pixels(image_set(given), 12), by_file)


@pytest.mark.parametrize(
    "given, n",
    [
        (Image.new("L", (8, 9)), 1),
        (np.zeros((8, 9), np.uint8), 1),
        (np.zeros((8, 9, 3), np.uint8), 1),
        (np.zeros((5, 8, 9), np.uint8), 5),
        (np.zeros((5, 8, 9, 3), np.uint8), 5),
        (np.zeros((5, 8, 9, 4), np.uint8), 5),
        (torch.zeros(3, 8, 9), 1),
        (torch.zeros(5, 3, 8, 9), 5),
        ([np.zeros((8, 9), np.uint8)] * 2, 2),
        (np.array([Image.new("L", (8, 9)), None], object)[:1], 1),
    ],
)
def test_one_picture_is_one_image_and_many_are_many(given, n):
    images = image_set(given)
    assert len(images) == n
    assert images.names == [f"{k:05d}" for k in range(n)]
    assert not len(images.labeled)


def test_paths_keep_the_names_that_were_given(tmp_path, monkeypatch):
    save(tmp_path / "a.png", COLOUR)
    monkeypatch.chdir(tmp_path)
    assert image_set(["a.png", tmp_path / "a.png"]).names == ["a.png", str(tmp_path / "a.png")]


@pytest.mark.parametrize(
    "given, said",
    [
        (3.5, "a float, not images; give a path, a Pillow image"),
        (None, "a NoneType, not images"),
        ((x for x in []), r"a generator, not images.*list\(\.\.\.\)"),
        ({"train": 1, "test": 2}, r"a dict with the keys 'train', 'test'.*dataset\['train'\]"),
        (Frame({"file": ["a.png"]}), "is a table; give the folder of the images"),
        ([], "no image in what was given"),
        ([Image.new("L", (8, 8)), "a.png"], "position 1 of the list is a str; a list holds"),
        ([Image.new("L", (8, 8)), None], "position 1 of the list is a NoneType"),
        (["no.png"], "no file 'no.png'; check the path"),
        (np.zeros((2, 3, 8, 9)), r"\(2, 3, 8, 9\).*array.transpose\(0, 2, 3, 1\)"),
        (np.zeros((2, 8, 9, 7)), "with 1, 3 or 4 channels"),
        (torch.zeros(5, 8, 9), r"a tensor of shape \(5, 8, 9\)"),
        (np.ones((2, 8, 9), int) * [[[0], [1]] * 4], "hold only 0 and 1, of 255; give booleans"),
        (np.full((2, 8, 9), 300), "the array has values from 300 to 300"),
    ],
)
def test_what_is_no_images_is_said_with_what_to_do(given, said):
    with pytest.raises(HandfulError, match=said):
        image_set(given)


def test_a_store_of_pictures_goes_to_another_process():
    images = image_set([COLOUR, GREY])
    again = pickle.loads(pickle.dumps(images))
    np.testing.assert_array_equal(pixels(again, 8), pixels(images, 8))


# --- data sets


class Rows:
    """As a `datasets.Dataset`: rows are dicts, columns are read by name."""

    class Image:
        pass

    class ClassLabel:
        def __init__(self, names):
            self.names = names

    class Value:
        pass

    def __init__(self, columns, features):
        self.held, self.features = columns, features
        self.column_names = list(columns)

    def __len__(self):
        return len(next(iter(self.held.values())))

    def __getitem__(self, key):
        if isinstance(key, str):
            return self.held[key]
        return {name: values[key] for name, values in self.held.items()}


PICTURES = [Image.fromarray(smooth(10 + k, 12, seed=k)) for k in range(4)]


def rows(labels, kind, name="label"):
    return Rows({"id": [9, 8, 7, 6], "image": PICTURES, name: labels},
                {"id": Rows.Value(), "image": Rows.Image(), name: kind})  # fmt: skip


@pytest.mark.parametrize(
    "labels, kind",
    [
        ([1, 0, -1, 1], Rows.ClassLabel(["hare", "fox"])),
        ([1, 0, None, 1], Rows.ClassLabel(["hare", "fox"])),
        (["fox", "hare", None, "fox"], Rows.Value()),
        (["fox", "hare", "", "fox"], Rows.Value()),
    ],
)
def test_a_data_set_of_rows_has_its_class_names_and_unknown_labels(labels, kind):
    images = image_set(rows(labels, kind))
    assert images.classes == ("fox", "hare")
    assert images.labels.tolist() == [0, 1, -1, 0]
    np.testing.assert_array_equal(pixels(images, 8), pixels(image_set(PICTURES), 8))


def test_a_list_of_rows_is_a_data_set():
    listed = [{"image": picture, "label": k % 2} for k, picture in enumerate(PICTURES)]
    images = image_set(listed)
    assert (images.classes, images.labels.tolist()) == (("0", "1"), [0, 1, 0, 1])


def test_undecoded_pictures_of_a_data_set_are_read():
    file = io.BytesIO()
    PICTURES[0].save(file, "PNG")
    images = image_set([{"image": {"bytes": file.getvalue(), "path": "a.png"}, "label": "fox"}])
    np.testing.assert_array_equal(pixels(images, 8), pixels(image_set(PICTURES[:1]), 8))


@pytest.mark.parametrize(
    "given, said",
    [
        (Rows({"text": ["a"]}, {"text": Rows.Value()}), "no column of images; its columns are te"),
        (rows([5, 0, 1, 1], Rows.ClassLabel(["hare", "fox"])), "picture 0 is class 5, and .* 2 cl"),
        (
            rows([[1], [0], [1], [1]], Rows.Value()),
            r"label of picture 0 is \[1\]; an image has one",
        ),
        (
            Rows(
                {"left": PICTURES, "right": PICTURES},
                {"left": Rows.Image(), "right": Rows.Image()},
            ),
            "several columns of images: left, right; keep one",
        ),
        ([(1, 2)], "an item of the data set is a tuple; items are"),
    ],
)
def test_a_data_set_that_does_not_fit_is_said(given, said):
    with pytest.raises(HandfulError, match=said):
        image_set(given)


class Pairs:
    """As a torch `Dataset`."""

    classes = ["hare", "fox"]

    def __init__(self, pairs):
        self.pairs = pairs

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, at):
        return self.pairs[at]


def test_a_torch_data_set_is_pairs_with_its_class_names():
    held = Pairs([(picture, torch.tensor(k % 2)) for k, picture in enumerate(PICTURES)])
    for given in (held, torch.utils.data.Subset(held, [0, 1, 2, 3])):
        images = image_set(given)
        assert (images.classes, images.labels.tolist()) == (("fox", "hare"), [1, 0, 1, 0])
    np.testing.assert_array_equal(pixels(images, 8), pixels(image_set(PICTURES), 8))


@pytest.mark.thorough
def test_data_sets_of_torchvision_are_read(tmp_path):
    from torchvision.datasets import FakeData, ImageFolder
    from torchvision.transforms import v2

    to_tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    plain, tensors = FakeData(6, (3, 8, 8), 3), FakeData(6, (3, 8, 8), 3, transform=to_tensor)
    images = image_set(plain)
    assert (len(images), set(images.classes) <= {"0", "1", "2"}) == (6, True)
    np.testing.assert_array_equal(pixels(image_set(tensors), 8), pixels(images, 8))
    for k, picture in enumerate(PICTURES):
        save(tmp_path / ["fox", "hare"][k % 2] / f"{k}.png", np.asarray(picture))
    folder = image_set(ImageFolder(tmp_path))
    assert (folder.classes, folder.labels.tolist()) == (("fox", "hare"), [0, 0, 1, 1])


def test_a_data_set_with_random_transforms_is_refused():
    rng = np.random.default_rng(0)

    class Flipping(Pairs):
        def __getitem__(self, at):
            return self.pairs[at][0].rotate(180 * int(rng.integers(2))), 0

    with pytest.raises(HandfulError, match="leave out its random transforms"):
        image_set(Flipping([(picture, 0) for picture in PICTURES * 2]))


def test_an_item_that_fails_is_named():
    class Broken(Pairs):
        def __getitem__(self, at):
            if at == 2:
                raise KeyError("moon")
            return self.pairs[at]

    with pytest.raises(HandfulError, match=r"picture 2 cannot be read: KeyError\('moon'\)"):
        image_set(Broken([(picture, 0) for picture in PICTURES]))


# --- labels


BLANKS = [None, float("nan"), NAType(), "", "  ", -1, np.float64("nan")]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for k, name in enumerate("abcd"):
        save(folder / f"{name}.png", smooth(12, 12, seed=k))
    return folder


@pytest.mark.parametrize("blank", BLANKS, ids=[str(at) for at in range(len(BLANKS))])
def test_labels_of_a_folder_come_as_a_dict_a_frame_or_a_series(blank, photos):
    files, values = ["a.png", "b.png", "c.png"], ["fox", "hare", blank]
    for labels in (
        dict(zip(files, values, strict=True)),
        Frame({"file": files, "label": values}),
        Frame({"label": values}, index=files),
        Series(values, index=files),
    ):
        images = handful.load(photos, labels)
        assert images.classes == ("fox", "hare")
        assert images.labels.tolist() == [0, 1, -1, -1]


def test_numbers_are_classes_with_and_without_missing_ones(photos):
    for values in ([3, 12, None], [3.0, 12.0, float("nan")], np.array([3, 12, -1])):
        images = handful.load(photos, dict(zip(["a.png", "b.png", "c.png"], values, strict=True)))
        assert (images.classes, images.labels.tolist()) == (("3", "12"), [0, 1, -1, -1])


def test_a_frame_gives_groups_and_names_its_columns(photos):
    frame = Frame(
        {
            "photo": ["a.png", "b.png", "c.png"],
            "species": ["fox", "hare", "fox"],
            "group": [1.0, 1.0, None],
        }
    )
    said = []
    images = handful.load(photos, frame, say=said.append)
    assert images.groups[0] == images.groups[1] != images.groups[2]
    assert any("'photo' for the files and 'species' for the labels" in text for text in said)


def test_a_csv_and_its_frame_give_one_image_set(photos, tmp_path):
    (tmp_path / "labels.csv").write_text("file,label\na.png,=fox\nb.png,hare\nd.png,\n")
    by_file = handful.load(photos, tmp_path / "labels.csv")
    by_dict = handful.load(photos, {"a.png": "=fox", "b.png": "hare", "d.png": ""})
    assert by_file.hash == by_dict.hash


def test_pictures_in_memory_take_a_label_each():
    for labels in (["fox", "hare", None, "fox"], Series(["fox", "hare", None, "fox"])):
        images = handful.load(PICTURES, labels)
        assert (images.classes, images.labels.tolist()) == (("fox", "hare"), [0, 1, -1, 0])


def test_labels_given_beside_a_set_replace_its_labels(photos):
    images = handful.load(photos, {"a.png": "fox", "b.png": "hare"})
    again = handful.load(images, {"c.png": "owl", "d.png": "fox"})
    assert (again.classes, again.labels.tolist()) == (("fox", "owl"), [-1, -1, 1, 0])
    assert isinstance(again, ImageSet)


@pytest.mark.parametrize(
    "labels, said",
    [
        (["fox", "hare"], "labels of a folder name its files, and this is a list of 2 labels"),
        (Series(["fox"]), "the keys of the labels are files, and one is 0"),
        ({"a.png": "fox", "b.png": 1}, r"labels mixes numbers \(1\) and text \('fox'\)"),
        ({"a.png": ["fox"], "b.png": "x"}, r"labels mixes list objects|a label is text or a num"),
        ({"e.png": "fox"}, "none of the 1 files named in the labels given is an image"),
        (Frame({"when": ["x"], "what": ["y"]}), "the labels given has|has no column|columns"),
        ("no.csv", "no.csv"),
    ],
)
def test_labels_that_do_not_fit_are_said(labels, said, photos):
    with pytest.raises(HandfulError, match=said):
        handful.load(photos, labels)


def test_names_in_a_list_that_look_equal_are_one_class():
    names = [
        " fox",
        "red  hare",
        "red\N{NO-BREAK SPACE}hare",
        "fox",
        None,
        "fox\N{ZERO WIDTH SPACE}",
    ]
    found = handful.load([noise(8, 8, seed=seed) for seed in range(6)], names)
    assert found.classes == ("fox", "red hare")
    assert found.labels.tolist() == [0, 1, 1, 0, -1, 0]


def test_too_few_labels_for_pictures_are_counted():
    with pytest.raises(HandfulError, match="4 images and 3 labels; give a label for each"):
        handful.load(PICTURES, ["fox", "hare", "fox"])


def test_a_data_set_of_that_name_keeps_its_labels():
    with pytest.raises(HandfulError, match="digits has its own labels"):
        handful.load("digits", {"a": "b"})


def test_numbers_beside_blanks_are_one_class_as_text_and_as_numbers(photos):
    files = ["a.png", "b.png", "c.png"]
    for column in ([3.0, 10.0, np.nan], ["3.0", "10.0", ""], ["3", "10", None], [3, 10, None]):
        found = handful.load(photos, Frame({"file": files, "label": column}))
        assert found.classes == ("3", "10")
        assert found.labels.tolist() == [0, 1, -1, -1]
    real = handful.load(photos, Frame({"file": files, "label": ["3.0", "1.5", ""]}))
    assert real.classes == ("1.5", "3.0")


@pytest.mark.parametrize("blank", [None, np.nan, "", NAType()], ids=["None", "NaN", "text", "NA"])
@pytest.mark.parametrize("file, label", [("file", "label"), ("Datei", "Klasse")])
def test_rows_without_a_file_count_only_with_a_label(photos, file, label, blank):
    named = {} if file == "file" else {"file_column": file, "label_column": label}
    table = {
        file: ["a.png", blank, "b.png"],
        label: ["fox", blank, "hare"],
        "remark": [blank, "by Ann", blank],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert handful.load(photos, Frame(table), **named).labels.tolist() == [0, 1, -1, -1]
    table[label][1] = "fox"
    with pytest.raises(HandfulError, match="^the labels given line 2 names no file; fill its file"):
        handful.load(photos, Frame(table), **named)


@pytest.mark.parametrize("blank", [None, np.nan])
def test_an_index_of_files_may_have_blanks(photos, blank):
    index, values = ["a.png", blank, "b.png"], ["fox", None, "hare"]
    for labels in (Series(values, index), Frame({"label": values}, index)):
        assert handful.load(photos, labels).labels.tolist() == [0, 1, -1, -1]
    with pytest.raises(HandfulError, match="the labels given line 2 names no file"):
        handful.load(photos, Series(["fox", "fox", "hare"], index))


def test_a_real_data_frame_gives_labels(photos):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"file": ["a.png", "b.png", "c.png"], "label": ["fox", "hare", None]})
    for labels in (
        frame,
        frame.set_index("file"),
        frame.set_index("file")["label"],
        frame.astype({"label": "string"}),
        frame.astype({"label": "category"}),
    ):
        assert handful.load(photos, labels).labels.tolist() == [0, 1, -1, -1]


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(HandfulError, match="cannot read"):
        image_set([Path(tmp_path)])
