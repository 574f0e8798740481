"""`handful.Classifier`: all methods as a scikit-learn estimator.

Letters in shapes: N images, H height, W width, C channels (1 or 3), D features, K classes.
"""

import os
from collections import Counter
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_array
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from handful import methods
from handful.data import decode
from handful.data.image_folder import file_store
from handful.data.imageset import ImageSet
from handful.data.scan import Found, Scan
from handful.data.store import Store, array_store
from handful.data.thread_pool import in_order
from handful.errors import HandfulError
from handful.methods.base import Fitted, Method
from handful.pipeline.configure import configure


class Classifier(ClassifierMixin, BaseEstimator):
    """An image classifier that learns from few labels, and from images without one.

    What X may be, in `fit` and afterwards:
        - (N, H, W) or (N, H, W, C) array: whole numbers from 0 to 255, or floats in [0, 1], which
          are rounded to 8 bits;
        - N paths of image files, of any sizes;
        - N Pillow images of one size and of mode 1, L, P or RGB;
        - (N, D) array of features, for a method that is fitted to features.

    What y may be: N labels of one type: numbers or text. -1, blank text and what numpy and pandas
    put where a value is missing (None, NaN, NaT, NA) mark an image without a label. Such images
    are learned from too, by the methods that can. -1 is thus no class.

    Args:
        method: a name (`handful fit --help` lists them) or a method object. No "auto": it chooses
            by an estimate, and a pipeline or a search has its own.
        backbone, size, aspect, flips, precision: as in `handful.fit`; not used with features.
        settings: fields of the method, the schedule or the backbone by name: {"steps": 500}.
        seed: the same seed gives the same classifier.

    Attributes after `fit`:
        classes_: (K,) labels in rising order: the columns of `predict_proba`.
        n_features_in_: D; only with features.
        run_: the `handful.Run` (`run_.save(folder)`); None with features.
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
        seed: int = 0,
    ) -> None:
        self.method = method
        self.backbone = backbone
        self.size = size
        self.aspect = aspect
        self.flips = flips
        self.settings = settings
        self.precision = precision
        self.seed = seed

    def fit(self, X: Any, y: Any) -> "Classifier":
        """Train on images or features, with and without labels.

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
            self.head_ = self._fit_features(x, labels, text)
        else:
            store = _store(X)
            self.classes_, labels = _labels(y, len(store.names))
            self.run_ = self._fit_images(store, labels, text)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """(N, K) probabilities, columns in the order of `classes_`."""
        check_is_fitted(self)
        if self.head_ is None:
            return self.run_.predictor.predict_proba(_image_set(_store(X))).numpy()
        x = torch.from_numpy(validate_data(self, X, dtype=np.float32, reset=False))
        with torch.inference_mode():
            return self.head_(x).softmax(dim=1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """(N,) the likeliest label of each image."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def _fit_features(self, x: np.ndarray, labels: np.ndarray, text: dict[str, str]) -> Any:
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
    if isinstance(X, str | os.PathLike):
        raise HandfulError(f"X is one path, {str(X)!r}; pass a list of paths")
    if isinstance(X, Image.Image):
        raise HandfulError(f"X is one image of {X.width}x{X.height} pixels; pass a list: [image]")
    if _are_pictures(X):
        return False
    shape = np.asarray(X).shape
    if len(shape) == 1:
        return not (shape[0] and all(isinstance(item, str | os.PathLike) for item in X))
    return len(shape) not in (3, 4)


def _store(X: Any) -> Store:
    """Return a store of the images that X holds or names; HandfulError for anything else."""
    if not _is_features(X) and _are_pictures(X):
        X = _arrays(X)
    shape = np.asarray(X).shape
    if len(shape) == 3 and shape[2] in (1, 3, 4):
        raise HandfulError(
            f"X is one image of shape {shape}, height x width x channels; pass a list: [image]"
        )
    if _is_features(X):
        raise HandfulError(
            f"X has the shape {shape}; the classifier was fitted to images: pass an array "
            f"(N, H, W) or (N, H, W, C), or a list of paths; of one image [image]"
        )
    if np.asarray(X).ndim == 1:
        return _files([os.fspath(path) for path in X])
    images = _bytes(check_array(X, allow_nd=True, dtype="numeric"))
    images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    if images.shape[1] not in (1, 3):
        raise HandfulError(
            f"images are (N, H, W) or (N, H, W, C) with 1 or 3 channels, got X of shape "
            f"{np.asarray(X).shape}"
        )
    return array_store(np.ascontiguousarray(images), [f"{i:05}" for i in range(len(images))])


def _are_pictures(X: Any) -> bool:
    """Return whether X is a list of Pillow images."""
    listed = isinstance(X, Sequence) or (isinstance(X, np.ndarray) and X.ndim == 1)
    return listed and len(X) > 0 and all(isinstance(item, Image.Image) for item in X)


def _arrays(pictures: Sequence[Image.Image]) -> np.ndarray:
    """Return (N, H, W) or (N, H, W, 3) uint8, rotated as the EXIF data say."""
    for position, picture in enumerate(pictures):
        if picture.mode not in ("1", "L", "P", "RGB") or "transparency" in picture.info:
            raise HandfulError(
                f"X[{position}] is a picture of mode {picture.mode}"
                f"{' with transparency' * ('transparency' in picture.info)}; convert it to RGB or L"
            )
    turned = [ImageOps.exif_transpose(picture) for picture in pictures]
    sizes = sorted({picture.size for picture in turned})
    if len(sizes) > 1:
        (w, h), (other_w, other_h) = sizes[0], sizes[-1]
        raise HandfulError(
            f"X holds pictures of several sizes, such as {w}x{h} and {other_w}x{other_h}; bring "
            f"them to one size, or pass the paths of their files"
        )
    mode = "L" if all(picture.mode in ("1", "L") for picture in turned) else "RGB"
    return np.stack([np.asarray(picture.convert(mode)) for picture in turned])


def _bytes(images: np.ndarray) -> np.ndarray:
    """Convert floats in [0, 1], or whole numbers up to 255, to uint8."""
    low, high = images.min(), images.max()
    most = 1 if images.dtype.kind == "f" else 255
    if low < 0 or high > most:
        kind = "floats in [0, 1]" if most == 1 else "whole numbers from 0 to 255"
        raise HandfulError(f"images of {images.dtype} are {kind}, got {low:g} to {high:g}; scale X")
    return np.rint(images * 255).astype(np.uint8) if most == 1 else images.astype(np.uint8)


def _files(paths: list[str]) -> Store:
    """Return a store of image files; HandfulError if one is unreadable: every row needs one."""
    paths = [os.path.abspath(path) for path in paths]
    with decode.guarded():
        facts = list(in_order(_facts, paths))
    states = ((path, os.stat(path)) for path in paths)
    found = [Found(path, state.st_size, state.st_mtime_ns) for path, state in states]
    return file_store(Path(os.sep), Scan(found, facts, [], Counter()), [])


def _facts(path: str) -> decode.Facts:
    try:
        return decode.inspect(Path(path))
    except decode.Unreadable as error:
        raise HandfulError(f"cannot read {path}: {error}; leave it out of X and y") from None


def _image_set(
    store: Store, labels: np.ndarray | None = None, classes: tuple[str, ...] = ()
) -> ImageSet:
    n = len(store.names)
    labels = np.full(n, -1) if labels is None else labels
    return ImageSet(store, np.arange(n), labels, classes, source="X")


def _labels(y: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct labels, (K,), and the class number of each image, (N,), -1 for none."""
    if isinstance(y, list | tuple):
        y = np.array(y, dtype=object)  # numpy makes text of numbers beside text, and of NaN
    y = column_or_1d(y, warn=True)
    if len(y) != n:
        raise HandfulError(f"X and y have inconsistent lengths: {n} images and {len(y)} labels")
    missing = np.array([_is_missing(label) for label in y.tolist()], bool)
    known = y[~missing]
    if known.dtype == object:
        _refuse_mixed(known)
        if len(known) and isinstance(known[0], str | Real):
            known = np.array(known.tolist())
    check_classification_targets(known)
    classes, numbers = np.unique(known, return_inverse=True)
    if len(classes) < 2:
        raise HandfulError(
            f"a classifier needs labels of two classes or more, got {len(classes)} class"
        )
    labels = np.full(n, -1, np.int64)
    labels[~missing] = numbers
    return classes, labels


def _is_missing(label: Any) -> bool:
    """Return whether a label means "no label": -1, blank text, None, NaN, NaT, pandas' NA."""
    if label is None or isinstance(label, str):
        return label is None or not label.strip()
    try:
        return bool(label != label or label == -1)
    except TypeError:  # pandas' NA has no truth value
        return type(label).__name__ == "NAType"


def _refuse_mixed(labels: np.ndarray) -> None:
    """Raise HandfulError for text beside numbers: "1" and 1 may be one class or two."""
    examples = {_kind(label): label for label in reversed(labels.tolist())}
    if len(examples) > 1:
        named = " and ".join(f"{kind} ({label!r})" for kind, label in sorted(examples.items()))
        raise HandfulError(f"y mixes {named}; give all labels as one type, such as text")


def _kind(label: Any) -> str:
    if isinstance(label, bool | np.bool_):
        return "true or false"
    if isinstance(label, str):
        return "text"
    return "numbers" if isinstance(label, Real) else f"{type(label).__name__} objects"
