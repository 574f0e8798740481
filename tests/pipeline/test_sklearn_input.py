"""Input of handful.Classifier: labels with missing values of pandas, and Pillow images."""

import numpy as np
import pytest
from PIL import Image

from handful import Classifier
from handful.errors import HandfulError
from handful.pipeline.sklearn import _labels, _store
from not_available import NAType
from tiny import stripes


class Series:
    """As a column of pandas: `__array__` gives objects."""

    def __init__(self, values):
        self.values = values

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype=object)


BLANKS = [None, float("nan"), np.float32("nan"), np.datetime64("NaT"), NAType(), "", "  \t"]


@pytest.mark.parametrize("blank", BLANKS, ids=lambda blank: type(blank).__name__)
@pytest.mark.parametrize("held", [list, tuple, Series, lambda y: np.array(y, object)])
def test_what_pandas_puts_where_a_label_is_missing_is_no_class(blank, held):
    classes, labels = _labels(held(["cat", blank, "dog", blank, "cat"]), 5)
    assert classes.tolist() == ["cat", "dog"]
    assert labels.tolist() == [0, -1, 1, -1, 0]


@pytest.mark.parametrize("blank", BLANKS[:5], ids=lambda blank: type(blank).__name__)
def test_numbers_beside_a_missing_one_stay_numbers(blank):
    classes, labels = _labels([3, blank, 7, -1], 4)
    assert classes.tolist() == [3, 7]
    assert classes.dtype.kind in "if"
    assert labels.tolist() == [0, -1, 1, -1]


def test_a_column_of_floats_with_nan_is_partly_labelled():
    classes, labels = _labels(np.array([0.0, np.nan, 1.0, -1.0]), 4)
    assert classes.tolist() == [0, 1]
    assert labels.tolist() == [0, -1, 1, -1]


def test_blank_text_in_an_array_of_text_is_no_class():
    classes, labels = _labels(np.array(["a", "", "b", " "]), 4)
    assert (classes.tolist(), labels.tolist()) == (["a", "b"], [0, -1, 1, -1])


def test_a_real_column_of_pandas_is_partly_labelled():
    pandas = pytest.importorskip("pandas")
    for column in (
        pandas.Series(["a", None, "b"]),
        pandas.Series(["a", pandas.NA, "b"], dtype="string"),
        pandas.Series(["a", np.nan, "b"], dtype="category"),
        pandas.Series([1, pandas.NA, 2], dtype="Int64"),
    ):
        assert _labels(column, 3)[1].tolist() == [0, -1, 1]


@pytest.mark.parametrize(
    "y, named",
    [
        ([1, "1", 2, "2"], r"numbers \(1\) and text \('1'\)"),
        (np.array(["a", 2.5, None], object), r"numbers \(2.5\) and text \('a'\)"),
        ([True, 1, False, 0], r"numbers \(1\) and true or false \(True\)"),
        ([b"a", "a"], r"bytes objects \(b'a'\) and text \('a'\)"),
    ],
)
def test_labels_of_two_types_are_refused_and_named(y, named):
    with pytest.raises(HandfulError, match=f"y mixes {named}; give all labels as one type"):
        _labels(y, len(y))


@pytest.mark.parametrize("held", [list, np.array, Series])
def test_text_is_the_class_name_that_load_makes_of_it(held):
    features = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    y = held(["cat", " cat", "cat ", "cat", *["dog"] * 4, *["red  fox", "red fox"] * 2])
    classifier = Classifier("features").fit(features, y)
    assert classifier.classes_.tolist() == ["cat", "dog", "red fox"]
    assert classifier.score(features, y) == 1


def test_classes_that_differ_in_case_only_are_told():
    images = np.random.default_rng(0).random((6, 8, 8))
    features = np.random.default_rng(0).random((6, 3))
    quick = {"settings": {"steps": 1, "backbone.base": 8}, "precision": "fp32"}
    for x, of in ((images, Classifier(**quick)), (features, Classifier("features"))):
        with pytest.warns(UserWarning, match="spelling only: 'Cat', 'cat'; if they are one"):
            of.fit(x, ["Cat", "cat", "dog"] * 2)


def test_a_fit_learns_from_blanks_as_unlabelled():
    rng = np.random.default_rng(0)
    x = np.repeat(np.eye(2), 6, axis=0) * 4 + rng.normal(size=(12, 2)) * 0.1
    y = ["a", "a", "", None, "a", float("nan")] + ["b", "b", "", None, "b", float("nan")]
    fitted = Classifier("features").fit(x, y)
    assert fitted.classes_.tolist() == ["a", "b"]
    assert fitted.predict(x).tolist() == ["a"] * 6 + ["b"] * 6


# --- images


@pytest.fixture(scope="module")
def fitted():
    made = stripes(labeled=40)
    settings = {"steps": 1, "batch": 16, "backbone.base": 8}
    classifier = Classifier(settings=settings, precision="fp32", flips=False)
    return classifier.fit(made.at(8).numpy()[:, 0], made.labels)


@pytest.mark.parametrize(
    "image",
    [
        Image.new("L", (8, 8)),
        Image.new("RGB", (100, 8)),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((8, 8, 1), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
    ],
    ids=lambda image: f"{type(image).__name__}{getattr(image, 'shape', '')}",
)
def test_one_image_is_no_list_of_images(fitted, image):
    with pytest.raises(HandfulError, match=r"one image.*\[image\]"):
        fitted.predict(image)


def test_one_image_is_no_row_of_features():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 8)), [0, 1] * 6
    with pytest.raises(HandfulError, match=r"one image of 8x8 pixels; pass a list: \[image\]"):
        Classifier("features").fit(x, y).predict(Image.new("L", (8, 8)))


def test_one_colour_image_with_channels_first_is_not_three_answers():
    made = stripes(labeled=40, channels=3)
    x = made.at(8).numpy().transpose(0, 2, 3, 1)
    settings = {"steps": 1, "batch": 16, "backbone.base": 8}
    colour = Classifier(settings=settings, precision="fp32", flips=False).fit(x, made.labels)
    with pytest.raises(HandfulError, match=r"may be one colour image, channels first"):
        colour.predict(x[0].transpose(2, 0, 1))
    assert len(colour.predict(list(x[:3]))) == 3


def test_pictures_of_several_sizes_are_classified(fitted):
    assert len(fitted.predict([Image.new("L", (8, 8)), Image.new("RGBA", (30, 9))])) == 2


def test_a_list_of_one_image_is_one_answer(fitted):
    assert len(fitted.predict([Image.new("L", (8, 8))])) == 1
    assert len(fitted.predict([np.zeros((8, 8), np.uint8)])) == 1


def shown(store, size, channels=1):
    rows = np.arange(len(store.names))
    return store.batch(rows, size, "crop", channels)


def test_pillow_images_are_the_pixels_that_they_show():
    colour = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20
    picture = Image.fromarray(colour)
    palette = picture.quantize(4)
    np.testing.assert_array_equal(
        shown(_store([picture, palette]), 2, 3), np.stack([colour, colour]).transpose(0, 3, 1, 2)
    )
    grey = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8))
    bits = shown(_store([grey, grey.convert("1")]), 2)
    np.testing.assert_array_equal(bits[:, 0], [[[0, 255], [255, 0]]] * 2)


def test_pillow_images_are_turned_as_their_camera_says():
    lying = Image.fromarray(np.array([[1, 2], [3, 4]], np.uint8))
    lying.getexif()[0x0112] = 6
    np.testing.assert_array_equal(shown(_store([lying]), 2)[0, 0], [[3, 1], [4, 2]])


@pytest.mark.parametrize(
    "pictures, message",
    [
        (
            [Image.new("L", (8, 8)), Image.new("I;16", (8, 8))],
            r"picture 1 is .* of mode I;16, of m",
        ),
        ([Image.new("F", (8, 8))], "picture 0 is a Pillow image of mode F, of more than 8 bits"),
        ([np.zeros((3, 9, 8), np.uint8)], r"shape \(3, 9, 8\).*transpose\(1, 2, 0\)"),
    ],
)
def test_pillow_images_that_need_a_decision_are_refused(pictures, message):
    with pytest.raises(HandfulError, match=message):
        _store(pictures)
