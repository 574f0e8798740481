"""handful.Classifier: the checks of scikit-learn; images, paths and features as input."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import estimator_checks_generator

from handful import Classifier
from handful.errors import HandfulError
from handful.methods.linear_head import Features
from image_files import save
from tiny import stripes

NOT_FOR_US = {
    "check_classifiers_classes": "its classes are -1 and 1, and -1 marks an image without a label",
    "check_array_api_input": "runs only with SCIPY_ARRAY_API set; torch does the arithmetic here",
}
# The checks know 2-D data only, so they run on features; for images, what they ask of 2-D data
# (the same number of columns, no more than two dimensions, feature names) makes no sense.
CHECKS = list(estimator_checks_generator(Classifier("features")))
SETTINGS = {"steps": 40, "batch": 16, "lr": 0.02, "backbone.base": 8}


def name_of(check):
    return check.func.__name__


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "estimator, check",
    [pair for pair in CHECKS if name_of(pair[1]) not in NOT_FOR_US],
    ids=lambda value: name_of(value) if hasattr(value, "func") else "",
)
def test_it_passes_the_estimator_checks(estimator, check):
    check(estimator)


def test_every_check_that_is_left_out_exists():
    assert set(NOT_FOR_US) <= {name_of(check) for _, check in CHECKS}


@pytest.fixture(scope="module")
def images():
    """(40, 8, 8) uint8 of two classes, and their labels."""
    made = stripes(labeled=40)
    return made.at(8).numpy()[:, 0] * 2, made.labels  # from 0 to 254


def small(**changes):
    return Classifier(**({"settings": SETTINGS, "precision": "fp32", "flips": False} | changes))


@pytest.mark.thorough
def test_it_learns_from_arrays_with_some_labels_and_pickles(images):
    x, labels = images
    y = np.where(np.arange(40) < 24, labels, -1)
    fitted = small().fit(x, y)
    assert fitted.classes_.tolist() == [0, 1]
    assert fitted.run_.record["data"]["labeled"] == 24
    assert fitted.score(x, labels) > 0.8
    probabilities = fitted.predict_proba(x)
    assert probabilities.shape == (40, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_proba(x), probabilities)


@pytest.mark.thorough
def test_floats_in_0_to_1_and_a_colour_axis_are_the_same_images(images):
    x, y = images
    expected = small().fit(x, y).predict_proba(x)
    np.testing.assert_array_equal(small().fit(x / 255, y).predict_proba(x), expected)
    colour = np.repeat(x[..., None], 3, axis=3)
    np.testing.assert_array_equal(small().fit(colour, y).predict_proba(colour), expected)


@pytest.mark.thorough
def test_paths_are_the_same_images_and_none_marks_a_missing_name(images, tmp_path):
    x, labels = images
    paths = [save(tmp_path / f"{i}.png", image) for i, image in enumerate(x)]
    names = np.array(["down", "across"], object)[labels]
    names[24:] = None
    by_path = small().fit(paths, names)
    assert by_path.classes_.tolist() == ["across", "down"]
    by_array = small().fit(x, names)
    np.testing.assert_array_equal(by_path.predict(paths), by_array.predict(x))


def test_features_go_to_a_fitted_method_with_or_without_labels():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    x = np.eye(3)[labels] @ rng.normal(size=(3, 5)) * 3 + rng.normal(size=(60, 5)) * 0.3
    y = np.where(np.arange(60) < 12, labels, -1)
    for method in ("features", "self_training", "propagation", Features(strength=0.01)):
        fitted = Classifier(method).fit(x, y)
        assert fitted.n_features_in_ == 5
        assert fitted.score(x, labels) > 0.9


def test_images_without_a_label_do_not_count_in_a_score():
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2
    x = generator.normal(size=(60, 4)) + 5 * labels[:, None]
    y = np.where(np.arange(60) % 3 == 0, -1, labels)
    fitted = Classifier("features").fit(x, y)
    assert fitted.score(x, y) == 1.0
    assert np.mean(cross_val_score(Classifier("features"), x, y, cv=3)) == 1.0

    wrong = np.where(np.arange(60) == 1, 0, y)  # one of 40
    assert fitted.score(x, wrong) == pytest.approx(39 / 40)
    weight = np.where(np.arange(60) == 1, 3.0, 1.0)
    assert fitted.score(x, wrong, weight) == pytest.approx(39 / 42)
    names = [None if label < 0 else "ab"[label] for label in y]
    assert Classifier("features").fit(x, names).score(x, names) == 1.0


def test_a_score_of_no_label_is_refused():
    x = np.random.default_rng(0).normal(size=(6, 4))
    fitted = Classifier("features").fit(x, [0, 1] * 3)
    with pytest.raises(HandfulError, match="none of the 6 images to score has a label"):
        fitted.score(x, [-1] * 6)
    with pytest.raises(HandfulError, match="inconsistent lengths: 6 images and 5 labels"):
        fitted.score(x, [0] * 5)


@pytest.mark.thorough
def test_a_grid_search_chooses_a_setting(images):
    x, y = images
    grid = {"settings": [SETTINGS, SETTINGS | {"steps": 1}]}
    search = GridSearchCV(small(), grid, cv=2).fit(x, y)
    assert search.best_params_["settings"]["steps"] == 40


def test_a_clone_has_the_same_parameters():
    made = Classifier(Features(folds=3), size=32, settings={"steps": 5})
    assert clone(made).get_params() == made.get_params()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x, y: (x * 2.0, y), r"from 0 to 508 \(float64\), and pixels are floats in \[0, 1"),
        (
            lambda x, y: (x.astype(int) * 9, y),
            "pixels are whole numbers from 0 to 255; divide by the larg",
        ),
        (lambda x, y: (np.stack([x] * 5, 3), y), r"8, 8, 5\); images are .* 1, 3 or 4 chan"),
        (lambda x, y: (x, y[:-1]), "40 images and 39 labels"),
        (lambda x, y: (x, np.where(y == 1, -1, y)), "two classes or more, got 1 class"),
        (lambda x, y: (x, np.full(40, -1)), "two classes or more, got no label"),
        (
            lambda x, y: (x.reshape(40, 64), y),
            "choose a method for features: features, mlp_head, self_t",
        ),
        (lambda x, y: ("photos", y), "X is one path, 'photos'; pass a list of paths"),
        (
            lambda x, y: (["no.png"] * 40, y),
            "no file 'no.png' and 39 others of the list; check the path",
        ),
    ],
)
def test_what_does_not_fit_is_said(images, change, message):
    x, y = change(*images)
    with pytest.raises(ValueError, match=message):
        small().fit(x, y)


def test_a_classifier_of_images_refuses_features(images):
    fitted = small(settings=SETTINGS | {"steps": 1}).fit(*images)
    with pytest.raises(ValueError, match=r"shape \(2, 5\); the classifier was fitted to images"):
        fitted.predict(np.zeros((2, 5)))
