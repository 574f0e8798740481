"""`handful.Classifier`: all methods as a scikit-learn estimator.

Letters in shapes: N images, H height, W width, C channels (1 or 3), D features, K classes.
"""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import check_array
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from handful import methods
from handful.data.checks import spelling_problems
from handful.data.class_names import normalized
from handful.data.imageset import ImageSet
from handful.data.in_memory import (
    CHANNELS,
    check_not_channels_first,
    is_path,
    is_picture,
    path_store,
    picture_store,
    stacked_store,
)
from handful.data.labels.given import is_missing, refuse_mixed
from handful.data.store import Store
from handful.errors import HandfulError
from handful.methods.base import Fitted, Method
from handful.pipeline.configure import configure
from handful.progress import warned

AUTO = "auto"


class Classifier(ClassifierMixin, BaseEstimator):
    """An image classifier that learns from few labels, and from images without one.

    What X may be, in `fit` and afterwards:
        - (N, H, W) or (N, H, W, C) array: whole numbers from 0 to 255, or floats in [0, 1], which
          are rounded to 8 bits;
        - N paths of image files, of any sizes;
        - a list of N pictures of any sizes: Pillow images of 8 bits, or arrays (H, W), (H, W, C);
        - (N, D) array of features, for a method that is fitted to features.

    What y may be: N labels of one type: numbers or text. -1, blank text and what numpy and pandas
    put where a value is missing (None, NaN, NaT, NA) mark an image without a label. Such images
    are learned from too, by the methods that can. -1 is thus no class. Spaces around text do not
    count: " cat" is the class "cat".

    One image is a list of one: [image].

    >>> X, y = digits.images[:60] / 16, digits.target[:60]
    >>> classifier = handful.Classifier("supervised", settings={"steps": 5}).fit(X, y)
    >>> classifier.predict(digits.images[60:64] / 16).shape
    (4,)

    Args:
        method: a name (`handful methods` lists them) or a method object; with images also
            "auto", which tries several methods and takes `budget` for every `fit`.
        budget: seconds, or text such as "2m", for each `fit`; None: as long as the method takes,
            and three minutes with "auto".
        backbone, size, aspect, flips, precision: as in `handful.fit`; not used with features.
        settings: fields of the method, the schedule or the backbone by name: {"steps": 500}.
        seed: the same seed gives the same classifier.

    After `fit` there are `classes_`, the (K,) labels in rising order, which are the columns of
    `predict_proba`; `run_`, the `handful.Run` (`run_.save(folder)`; None with features); and with
    features `n_features_in_`, which is D.
    """

    def __init__(
        self,
        method: str | Method = "supervised",
        *,
        backbone: str | None = None,
        size: int | None = None,
        aspect: str = "crop",
        flips: bool | None = None,
        settings: dict[str, Any] | None = None,
        precision: str = "auto",
        budget: float | str | None = None,
        seed: int = 0,
    ) -> None:
        self.method = method
        self.backbone = backbone
        self.size = size
        self.aspect = aspect
        self.flips = flips
        self.settings = settings
        self.precision = precision
        self.budget = budget
        self.seed = seed

    def fit(self, X: Any, y: Any) -> "Classifier":
        """Train on images or features, with and without labels.

        >>> classifier.fit(digits.images[:40] / 16, [0, 1, None, None] * 10).classes_
        array([0, 1])

        Raises:
            HandfulError: X or y are not of the kinds above, or y has fewer than two classes.
        """
        if y is None:
            raise HandfulError(
                "Classifier requires y to be passed, but the target y is None; give one label an "
                "image, -1 or None where it is not known"
            )
        self.run_: Any = None
        self.head_: Any = None
        text = {name: str(value) for name, value in (self.settings or {}).items()}
        if _is_features(X):
            x = validate_data(self, X, dtype=np.float32)
            self.classes_, labels = _labels(y, len(x))
            for problem in spelling_problems(map(str, self.classes_.tolist())):
                warned(problem)
            self.head_ = self._fit_features(x, labels, text)
        else:
            store = _store(X)
            self.classes_, labels = _labels(y, len(store.names))
            self.run_ = self._fit_images(store, labels, text)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """(N, K) probabilities, columns in the order of `classes_`.

        >>> classifier.predict_proba(digits.images[:5] / 16).shape
        (5, 10)
        """
        check_is_fitted(self)
        if self.head_ is None:
            store = _store(X, self.run_.record["input"]["channels"])
            return self.run_.predictor.predict_proba(_image_set(store)).numpy()
        _refuse_one(X)
        x = torch.from_numpy(validate_data(self, X, dtype=np.float32, reset=False))
        with torch.inference_mode():
            return self.head_(x).softmax(dim=1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """(N,) the likeliest label of each image.

        >>> classifier.predict([digits.images[0] / 16]).shape  # one image is a list of one
        (1,)
        """
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of images with a label that are predicted rightly; the others do not count.

        So cross-validation and searches may be given all images, with and without labels.
        scikit-learn's own SelfTrainingClassifier counts each image with the label -1 as a mistake.

        >>> classifier.score(digits.images[:3] / 16, [-1, None, -1])
        Traceback (most recent call last):
        ...
        handful.errors.HandfulError: none of the 3 images to score has a label; ...

        Args:
            X, y: as in `fit`; one class is enough.
            sample_weight: (N,) of all images, with and without labels.

        Raises:
            HandfulError: X or y are not of the kinds above, or no image has a label.
        """
        predicted = self.predict(X)
        known, labels = _known_labels(y, len(predicted))
        if not len(labels):
            raise HandfulError(
                f"none of the {len(predicted)} images to score has a label; give the right labels "
                f"of some"
            )
        weight = None if sample_weight is None else np.asarray(sample_weight)[known]
        return float(accuracy_score(labels, predicted[known], sample_weight=weight))

    def _fit_features(self, x: np.ndarray, labels: np.ndarray, text: dict[str, str]) -> Any:
        if self.method == AUTO:
            raise HandfulError(
                f"'auto' chooses among methods for images, and X has the shape {x.shape} of "
                f"features; name a method for features, such as 'features'"
            )
        method = methods.make(self.method) if isinstance(self.method, str) else self.method
        if not isinstance(method, Fitted):
            fitted = [
                name for name, kind in methods.METHODS.items() if hasattr(kind, "fit_features")
            ]
            raise HandfulError(
                f"{method.name} trains on images, and X has the shape {x.shape} of features; pass "
                f"(N, H, W) images, or choose a method for features: {', '.join(fitted)}"
            )
        method = configure(text, method=method)["method"]
        known, features = torch.from_numpy(labels >= 0), torch.from_numpy(x)
        targets = torch.from_numpy(labels)[known]
        classes = len(self.classes_)
        return method.fit_features(features[known], targets, features[~known], classes, self.seed)

    def _fit_images(self, store: Store, labels: np.ndarray, text: dict[str, str]) -> Any:
        from handful.pipeline.fit import fit

        names = tuple(map(str, self.classes_.tolist()))
        return fit(
            _image_set(store, labels, names),
            self.method,
            seed=self.seed,
            backbone=self.backbone,
            size=self.size,
            aspect=self.aspect,
            flips=self.flips,
            precision=self.precision,
            budget=self.budget,
            estimate="none",
            settings=text,
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags


def _is_features(X: Any) -> bool:
    """Return whether X is neither images nor paths; scikit-learn then checks it as features."""
    _refuse_one(X)
    if _are_pictures(X):
        return False
    shape = np.asarray(X).shape
    if len(shape) == 1:
        return not (shape[0] and all(map(is_path, X)))
    return len(shape) not in (3, 4)


def _refuse_one(X: Any) -> None:
    """Raise HandfulError for one image, or its path, where a list of images is due."""
    if is_path(X):
        raise HandfulError(f"X is one path, {str(X)!r}; pass a list of paths")
    if isinstance(X, Image.Image):
        raise HandfulError(f"X is one image of {X.width}x{X.height} pixels; pass a list: [image]")


def _store(X: Any, channels: int = 1) -> Store:
    """Return a store of the images that X holds or names; HandfulError for anything else.

    Args:
        channels: of the images that the classifier has learned from.
    """
    _refuse_one(X)
    if _are_pictures(X):
        return picture_store(list(X))
    check_not_channels_first(X.numpy() if isinstance(X, torch.Tensor) else X, channels)
    shape = np.asarray(X).shape
    if len(shape) == 3 and shape[2] in CHANNELS:
        raise HandfulError(
            f"X is one image of shape {shape}, height x width x channels; pass a list: [image]"
        )
    if _is_features(X):
        raise HandfulError(
            f"X has the shape {shape}; the classifier was fitted to images: pass an array "
            f"(N, H, W) or (N, H, W, C), or a list of paths; of one image [image]"
        )
    if len(shape) == 1:
        return path_store(list(X))
    if isinstance(X, torch.Tensor) and X.ndim == 4 and shape[3] not in CHANNELS:
        return stacked_store(X)
    return stacked_store(check_array(X, allow_nd=True, dtype="numeric"))


def _are_pictures(X: Any) -> bool:
    """Return whether X is a list of pictures, as Pillow images or as arrays."""
    listed = isinstance(X, Sequence) or (isinstance(X, np.ndarray) and X.ndim == 1)
    return listed and len(X) > 0 and all(map(is_picture, X))


def _image_set(
    store: Store, labels: np.ndarray | None = None, classes: tuple[str, ...] = ()
) -> ImageSet:
    n = len(store.names)
    labels = np.full(n, -1) if labels is None else labels
    return ImageSet(store, np.arange(n), labels, classes, source="X")


def _plain(labels: Any) -> np.ndarray:
    """Labels (N,) with text as `load` makes class names of it; others unchanged."""
    found = np.asarray(labels)
    if found.dtype.kind == "U" or (
        found.dtype == object and all(isinstance(label, str) for label in found.flat)
    ):
        return np.array([normalized(label) for label in found.tolist()], dtype=found.dtype)
    return found


def _labels(y: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct labels, (K,), and the class number of each image, (N,), -1 for none."""
    where, known = _known_labels(y, n)
    classes, numbers = np.unique(known, return_inverse=True)
    if len(classes) < 2:
        raise HandfulError(
            f"a classifier needs labels of two classes or more, got "
            f"{'1 class' if len(classes) else 'no label'}"
        )
    labels = np.full(n, -1, np.int64)
    labels[where] = numbers
    return classes, labels


def _known_labels(y: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which of `n` images have a label, (N,) bool, and these labels."""
    if isinstance(y, list | tuple):
        y = np.array(y, dtype=object)  # numpy makes text of numbers beside text, and of NaN
    y = column_or_1d(y, warn=True)
    if len(y) != n:
        raise HandfulError(f"X and y have inconsistent lengths: {n} images and {len(y)} labels")
    missing = np.array([is_missing(label) for label in y.tolist()], bool)
    known = y[~missing]
    if known.dtype == object:
        refuse_mixed(known)
        if len(known) and isinstance(known[0], str | Real):
            known = np.array(known.tolist())
    known = _plain(known)
    check_classification_targets(known)
    return ~missing, known
