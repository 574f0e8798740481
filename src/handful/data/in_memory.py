"""Images in memory, and data sets of other libraries, as an ImageSet.

What a picture may be, everywhere:

- a Pillow image of 8 bits. Its EXIF orientation is applied and transparency is composited, as for
  files. Images of modes I, I;16 and F are refused: files of such images share one scale;
- a numpy array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4, with alpha): whole numbers from 0 to 255,
  floats in [0, 1], or booleans;
- a torch tensor (H, W) or (C, H, W), with the same values;
- the bytes of an image file, alone or as {"bytes": …, "path": …}, as `datasets` keeps them.

Pictures in memory are named by their positions: "00000", "00001", …. Files keep the path that was
given.

Letters in shapes: N images, H height, W width, C channels.
"""

import io
import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from handful.data import decode
from handful.data.class_names import normalized
from handful.data.facts import facts_table
from handful.data.image_folder import file_store, group_numbers
from handful.data.imageset import ImageSet, sorted_classes
from handful.data.labels.given import by_position, class_text, is_missing, label_table
from handful.data.labels.label_file import GIVEN, LabelFile, match_labels
from handful.data.objects.address import scheme_of
from handful.data.objects.files import at_addresses
from handful.data.opened import Files, Folder
from handful.data.scan import UNKNOWN, Found, Scan, found_files
from handful.data.store import Store, array_store
from handful.data.thread_pool import in_order
from handful.errors import HandfulError
from handful.progress import Say, silent
from handful.text import counted

CHANNELS = (1, 3, 4)
DEEP = ("I", "F")  # modes of Pillow with more than 8 bits; and those that start with I;
IMAGES = ("image", "img", "picture", "photo", "pixel_values")  # columns of `datasets`
LABELS = ("label", "labels", "class", "target", "fine_label")
READ_AGAIN = 8  # pictures of a data set that are read twice
IN_MEMORY = "pictures in memory"
ACCEPTED = (
    "a path, a Pillow image, an array, a list of these, a data set of torch or of the library "
    "datasets, or what handful.load returns"
)

_turn = threading.Lock()  # data sets and Pillow images are not read by two threads at once


# --- one picture


def pixels_of(picture: Any, what: str) -> np.ndarray:
    """Pixels (H, W) or (H, W, 3) uint8 of one picture; HandfulError if it is none.

    Args:
        what: the name of the picture in messages, such as "picture 3".
    """
    try:
        if isinstance(picture, Mapping) and picture.get("bytes") is not None:
            picture = picture["bytes"]
        if isinstance(picture, bytes | bytearray):
            with decode.guarded():
                picture = Image.open(io.BytesIO(picture), formats=decode.FORMATS)
        if isinstance(picture, Image.Image):
            return _pixels_of_pillow(picture)
        if isinstance(picture, Mapping) and picture.get("path"):
            picture = picture["path"]
        if isinstance(picture, str | os.PathLike):
            with decode.guarded(), Image.open(picture, formats=decode.FORMATS) as opened:
                return _pixels_of_pillow(opened)
        return _pixels_of_array(picture)
    except HandfulError as error:
        raise HandfulError(f"{what} {error}") from None
    except (decode.Unreadable, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        reason = " ".join(str(e).split()) or type(e).__name__
        raise HandfulError(f"{what} cannot be read: {reason}") from e


def _pixels_of_pillow(picture: Image.Image) -> np.ndarray:
    mode = picture.mode
    if mode in DEEP or mode.startswith("I;"):
        raise HandfulError(
            f"is a Pillow image of mode {mode}, of more than 8 bits; bring it to 8 bits with a "
            f"scale that is equal for all pictures, or save the pictures as PNG or TIFF and give "
            f"their paths"
        )
    if not picture.width or not picture.height:
        raise HandfulError(f"has {picture.width}x{picture.height} pixels, so there is none")
    return decode.upright(picture)


def _pixels_of_array(picture: Any) -> np.ndarray:
    array = _channels_last(picture) if isinstance(picture, torch.Tensor) else np.asarray(picture)
    shape = np.shape(picture)
    if array.ndim == 3 and array.shape[2] not in CHANNELS and array.shape[0] in (1, 3):
        raise HandfulError(
            f"is an array of shape {shape}, and arrays are height x width x channels; for channels "
            f"first, give array.transpose(1, 2, 0)"
        )
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in CHANNELS):
        raise HandfulError(
            f"is {_kind(picture)} of shape {shape}; one picture is (H, W) or (H, W, C), with 1, 3 "
            f"or 4 channels"
        )
    if not array.size:
        raise HandfulError(f"has the shape {shape}, so it has no pixel")
    array = eight_bit(array)
    if array.ndim == 3 and array.shape[2] == 4:
        return decode.upright(Image.fromarray(np.ascontiguousarray(array), "RGBA"))
    return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array


def eight_bit(values: np.ndarray) -> np.ndarray:
    """uint8 pixels of booleans, of whole numbers up to 255, or of floats in [0, 1]."""
    kind = values.dtype.kind
    if kind == "b":
        return values.astype(np.uint8) * 255
    if kind not in "uif":
        raise HandfulError(f"has values of type {values.dtype}; pixels are numbers or booleans")
    if values.dtype == np.uint8:
        return values
    low, high = values.min(), values.max()
    most = 1 if kind == "f" else 255
    if not (low >= 0 and high <= most):  # NaN is neither
        expected = "floats in [0, 1]" if most == 1 else "whole numbers from 0 to 255"
        raise HandfulError(
            f"has values from {low:g} to {high:g} ({values.dtype}), and pixels are {expected}; "
            f"{_remedy(float(low), float(high), kind)}"
        )
    return np.rint(values * 255).astype(np.uint8) if most == 1 else values.astype(np.uint8)


def _remedy(low: float, high: float, kind: str) -> str:
    if low < 0 and kind == "f":
        return "leave out the normalisation; handful makes its own"
    if kind == "f" and high <= 255:
        return "divide by 255"
    return "divide by the largest value that pixels can have, equal for all pictures"


def _channels_last(tensor: torch.Tensor) -> np.ndarray:
    """A tensor (H, W) or (C, H, W) as an array (H, W) or (H, W, C)."""
    if tensor.is_floating_point():
        tensor = tensor.float()  # numpy has no bfloat16
    array = tensor.detach().cpu().numpy()
    if array.ndim == 3 and array.shape[0] in CHANNELS:
        return array.transpose(1, 2, 0)
    if array.ndim == 3:
        raise HandfulError(
            f"is a tensor of shape {tuple(tensor.shape)}, and tensors are channels x height x "
            f"width; give tensor.permute(2, 0, 1) of one image, or a list of images"
        )
    return array


# --- many pictures


@dataclass(eq=False, kw_only=True)
class PictureStore(Store):
    """Pictures of any sizes, each read when it is wanted."""

    pictures: Sequence[Any]

    def picture(self, row: int) -> np.ndarray:
        """Pixels (H, W) or (H, W, 3) uint8 of one picture, at its own size."""
        with _turn:
            return _read(self.pictures, row)

    def batch(self, rows: np.ndarray, size: int, aspect: str, channels: int) -> np.ndarray:
        pixels = np.zeros((len(rows), channels, size, size), np.uint8)
        mode = "L" if channels == 1 else "RGB"
        for target, row in zip(pixels, rows.tolist(), strict=True):
            try:
                image = Image.fromarray(self.picture(row))
            except HandfulError as error:
                self.lost[row] = str(error)
                continue
            image = decode.resized(
                image if image.mode == mode else image.convert(mode), size, aspect
            )
            found = np.asarray(image)
            target[:] = found[None] if channels == 1 else found.transpose(2, 0, 1)
        return pixels


def picture_store(pictures: Sequence[Any]) -> PictureStore:
    """A store of pictures; each is looked at once. HandfulError for what is no picture."""
    marks, sizes, grey = [], [], []
    for row in range(len(pictures)):
        with _turn:
            pixels = _read(pictures, row)
        mark, alone = _mark(pixels)
        marks.append(mark)
        sizes.append(pixels.shape[:2])
        grey.append(alone)
    return PictureStore(
        names=_numbers(len(pictures)),
        fingerprints=np.frombuffer(b"".join(marks), np.uint8).reshape(-1, 16),
        sizes=np.array(sizes, np.int64).reshape(-1, 2),
        grey=np.array(grey, bool),
        pictures=pictures,
    )


def _mark(pixels: np.ndarray) -> tuple[bytes, bool]:
    """The fingerprint of pixels (H, W) or (H, W, 3), and whether they are grey."""
    alone = pixels.ndim == 2 or decode.is_grey(pixels)
    seen = pixels[..., 0] if alone and pixels.ndim == 3 else pixels
    height, width = pixels.shape[:2]
    return decode.fingerprint(seen, (height, width)), alone


def path_store(paths: Sequence[str | os.PathLike[str]]) -> Store:
    """A store of image files, or of addresses; HandfulError if one is unreadable.

    Every position needs an image, so none is left out.
    """
    names = [os.fspath(path) for path in paths]
    files: Files = Folder(Path.cwd())
    if any(map(scheme_of, names)):
        files = at_addresses(names)
    elif missing := [name for name in names if not os.path.exists(name)]:
        others = f" and {counted(len(missing) - 1, 'other')} of the list" * (len(missing) > 1)
        raise HandfulError(f"no file {missing[0]!r}{others}; check the path")
    with decode.guarded():
        opened = zip(names, files.each(names), strict=True)
        facts = list(in_order(lambda item: _facts(*item), opened))
    found = [Found(name, -1, UNKNOWN) for name in names]
    if isinstance(files, Folder):
        states = ((name, os.stat(files.root / name)) for name in names)
        found = [Found(name, state.st_size, state.st_mtime_ns) for name, state in states]
    return file_store(files, Scan(found_files(found), facts_table(facts), [], Counter()), [])


def stacked_store(values: Any) -> Store:
    """A store of an array (N, H, W) or (N, H, W, C), or of a tensor (N, C, H, W)."""
    if isinstance(values, torch.Tensor):
        if values.ndim != 4 or values.shape[1] not in CHANNELS:
            raise HandfulError(
                f"the tensor has the shape {tuple(values.shape)}; many images are (N, C, H, W) and "
                f"one is (C, H, W), with 1, 3 or 4 channels"
            )
        values = values.permute(0, 2, 3, 1)
        values = (values.float() if values.is_floating_point() else values).detach().cpu().numpy()
    if values.ndim == 3:
        values = values[..., None]
    if values.ndim != 4 or values.shape[3] not in CHANNELS or not values.size:
        first = values.ndim == 4 and values.shape[1] in CHANNELS
        raise HandfulError(
            f"the array has the shape {values.shape}; images are (N, H, W) or (N, H, W, C) with 1, "
            f"3 or 4 channels" + ("; for channels first, array.transpose(0, 2, 3, 1)" * first)
        )
    if values.shape[3] == 4:
        return picture_store(values)
    try:
        pixels = eight_bit(values)
    except HandfulError as error:
        raise HandfulError(f"the array {error}") from None
    if len(pixels) > 1 and values.dtype.kind in "ui" and pixels.max() == 1:
        raise HandfulError(
            f"the images are whole numbers ({values.dtype}) and hold only 0 and 1, of 255; give "
            f"booleans, array.astype(bool), where 1 is white"
        )
    return array_store(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), _numbers(len(pixels)))


def check_not_channels_first(images: Any, channels: int) -> None:
    """HandfulError for an array (3, H, W) and colour: is it one image, or three grey ones?"""
    shape: tuple[int, ...] = getattr(images, "shape", ())
    if channels == 3 and isinstance(images, np.ndarray) and len(shape) == 3 and shape[0] == 3:
        if shape[2] not in CHANNELS:
            raise HandfulError(
                f"an array of shape {tuple(shape)} may be one colour image, channels first, or "
                f"three grey images; give array.transpose(1, 2, 0), or a list of three arrays"
            )


def _read(pictures: Sequence[Any], row: int) -> np.ndarray:
    try:
        picture = pictures[row]
    except HandfulError:
        raise
    except Exception as error:  # a data set is code of others, and may raise anything
        raise HandfulError(f"picture {row} cannot be read: {error!r}") from error
    return pixels_of(picture, f"picture {row}")


def _facts(name: str, file: AbstractContextManager[Path]) -> decode.Facts:
    try:
        with file as path:
            return decode.inspect(path)
    except decode.Unreadable as error:
        raise HandfulError(f"cannot read {name}: {error}; leave it out of the list") from None


def _numbers(n: int) -> list[str]:
    return [f"{number:05d}" for number in range(n)]


# --- what a user may give


def is_picture(value: Any) -> bool:
    """Whether a value is one picture: an image, an array or tensor of two or three axes, bytes."""
    if isinstance(value, Image.Image | bytes | bytearray):
        return True
    if isinstance(value, Mapping):
        return {"bytes", "path"} <= set(value)
    return isinstance(value, np.ndarray | torch.Tensor) and value.ndim in (2, 3)


def is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def image_set(given: Any) -> ImageSet:
    """Images in memory or a data set of another library; labels come from a data set only.

    Args:
        given: one picture, a list of pictures, of paths, or of (picture, label); an array (N, H, W)
            or (N, H, W, C); a tensor (N, C, H, W); a torch `Dataset` of (picture, label); a
            `datasets.Dataset`, or a list of its rows.

    Raises:
        HandfulError: it is none of these, or a picture cannot be read.
    """
    if getattr(given, "ndim", 0) == 1 and (_of_objects(given) or hasattr(given, "index")):
        given = given.tolist()  # an array or a Series of paths, pictures or pairs
    if isinstance(given, np.ndarray) and given.ndim == 3 and given.shape[2] not in CHANNELS:
        return _unlabelled(stacked_store(given))
    if is_picture(given):
        return _unlabelled(picture_store([given]))
    if isinstance(given, np.ndarray | torch.Tensor):
        return _unlabelled(stacked_store(given))
    _refuse_strangers(given)
    if hasattr(given, "features") and hasattr(given, "column_names"):
        return _of_rows(given, given.features, given.column_names)
    if not len(given):
        raise HandfulError("there is no image in what was given; it has the length 0")
    if isinstance(given, list | tuple):
        return _of_list(given)
    return _of_pairs(given)


def _of_objects(given: Any) -> bool:
    """Whether it is an array of objects or of text."""
    return isinstance(given, np.ndarray) and given.dtype.kind in "OU"


def _refuse_strangers(given: Any) -> None:
    """Raise HandfulError for what is neither a list nor a data set with a length."""
    if isinstance(given, Mapping):
        parts = ", ".join(map(repr, list(given)[:5]))
        raise HandfulError(
            f"what was given is a {type(given).__name__} with the keys {parts}; give one of its "
            f"values, such as dataset['train']"
        )
    if hasattr(given, "columns") and hasattr(given, "index"):
        raise HandfulError(
            "what was given is a table; give the folder of the images, and the table as labels=..."
        )
    if not hasattr(given, "__getitem__") or not hasattr(given, "__len__"):
        streaming = hasattr(given, "__iter__")
        raise HandfulError(
            f"what was given is {_kind(given)}, not images; give {ACCEPTED}"
            + (". Something to iterate over becomes a list by list(...)" * streaming)
        )


def _of_list(given: Sequence[Any]) -> ImageSet:
    if all(map(is_path, given)):
        return _unlabelled(path_store(given))
    if all(isinstance(item, tuple) and len(item) == 2 for item in given):
        return _of_pairs(given)
    if all(isinstance(item, Mapping) and not is_picture(item) for item in given):
        return _of_rows(given, {}, list(given[0]))
    for position, item in enumerate(given):
        if not is_picture(item):
            raise HandfulError(
                f"position {position} of the list is {_kind(item)}; a list holds pictures, paths, "
                f"pairs of (picture, label), or rows of a data set, and only one of these"
            )
    return _unlabelled(picture_store(given))


class _Pictures(Sequence[Any]):
    """The pictures of a data set: a part of every row."""

    def __init__(self, rows: Any, key: int | str) -> None:
        self.rows, self.key = rows, key

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: Any) -> Any:
        return self.rows[row][self.key]


def _of_pairs(pairs: Any) -> ImageSet:
    """The images of a torch `Dataset`, whose items are (picture, label) or pictures."""
    first = _item(pairs, 0)
    if is_picture(first):
        whole = picture_store(_Whole(pairs))
        _refuse_random(whole)
        return _unlabelled(whole)
    if not isinstance(first, tuple | list) or len(first) < 2 or not is_picture(first[0]):
        raise HandfulError(f"an item of the data set is {_kind(first)}; items are (picture, label)")
    targets: list[Any] = []
    store = picture_store(_Noting(pairs, targets))
    store.pictures = _Pictures(pairs, 0)
    _refuse_random(store)
    return _with_targets(store, targets, _class_names(pairs))


class _Whole(_Pictures):
    """The pictures of a data set whose items are pictures."""

    def __init__(self, rows: Any) -> None:
        super().__init__(rows, 0)

    def __getitem__(self, row: Any) -> Any:
        return self.rows[row]


class _Noting(_Pictures):
    """The pictures of a data set of pairs; notes the labels of what is read, in order."""

    def __init__(self, rows: Any, targets: list[Any]) -> None:
        super().__init__(rows, 0)
        self.targets = targets

    def __getitem__(self, row: Any) -> Any:
        picture, target, *_ = self.rows[row]
        self.targets.append(target)
        return picture


def _refuse_random(store: PictureStore) -> None:
    """HandfulError for a data set whose pictures differ when they are read again."""
    for row in range(min(READ_AGAIN, len(store.names))):
        mark, _ = _mark(store.picture(row))
        if mark != store.fingerprints[row].tobytes():
            raise HandfulError(
                "the data set returns another picture each time it is read; leave out its random "
                "transforms, handful augments images itself"
            )


def _item(rows: Any, row: int) -> Any:
    try:
        return rows[row]
    except Exception as error:  # a data set is code of others, and may raise anything
        raise HandfulError(f"item {row} of the data set cannot be read: {error!r}") from error


def _class_names(data: Any) -> Sequence[str] | None:
    """The names that a torch data set gives its class numbers; looks through `Subset`."""
    for _ in range(10):
        names = getattr(data, "classes", None)
        if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
            return names
        data = getattr(data, "dataset", None)
    return None


def _of_rows(rows: Any, features: Mapping[str, Any], columns: Sequence[str]) -> ImageSet:
    """The images of a `datasets.Dataset`: rows that are dicts."""
    image = _column(features, columns, "Image", IMAGES)
    if image is None:
        raise HandfulError(
            f"the data set has no column of images; its columns are {', '.join(columns)}. Call it "
            f"image: dataset.rename_column(…, 'image')"
        )
    if not len(rows):
        raise HandfulError("there is no image in what was given; it has the length 0")
    label = _column(features, columns, "ClassLabel", LABELS)
    store = picture_store(_Pictures(rows, image))
    _refuse_random(store)
    if label is None:
        return _unlabelled(store)
    targets = [row.get(label) for row in rows] if isinstance(rows, list) else list(rows[label])
    return _with_targets(store, targets, getattr(features.get(label), "names", None))


def _column(
    features: Mapping[str, Any], columns: Sequence[str], kind: str, usual: Sequence[str]
) -> str | None:
    """The column of a kind of feature, or of a usual name; None without one."""
    found = [name for name in columns if type(features.get(name)).__name__ == kind]
    found = found or [name for name in usual if name in columns]
    named = [name for name in found if name in usual] or found
    if len(found) > 1 and len(named) != 1:
        raise HandfulError(
            f"the data set has several columns of {'images' if kind == 'Image' else 'labels'}: "
            f"{', '.join(found)}; keep one, with dataset.select_columns([…])"
        )
    return named[0] if named else None


def _with_targets(store: Store, targets: Sequence[Any], names: Sequence[str] | None) -> ImageSet:
    """Images with the labels of a data set: class numbers, with names or without, or text."""
    texts: list[str] = []
    for row, target in enumerate(targets):
        if hasattr(target, "item") and getattr(target, "ndim", None) == 0:
            target = target.item()
        if is_missing(target):
            texts.append("")
        elif isinstance(target, list | tuple | np.ndarray | torch.Tensor | Mapping):
            raise HandfulError(
                f"the label of picture {row} is {target!r}; an image has one class, or none"
            )
        elif names is not None and isinstance(target, int) and not isinstance(target, bool):
            if not 0 <= target < len(names):
                raise HandfulError(
                    f"the label of picture {row} is class {target}, and the data set names "
                    f"{len(names)} classes, from 0 on"
                )
            texts.append(names[target])
        else:
            texts.append(class_text(target))
    return labelled_by_text(_unlabelled(store, "a data set"), texts)


def with_labels(images: ImageSet, labels: Any, say: Say = silent) -> ImageSet:
    """The images with other labels, and with groups and origins where a table gives them.

    Args:
        labels: one for each image, in their order; or by the names of the images, as
            `label_table` takes them.
    """
    texts = by_position(labels, len(images)) if not is_path(labels) else None
    if texts is not None:
        return labelled_by_text(images, texts)
    file = (
        LabelFile(Path(labels).expanduser())
        if is_path(labels)
        else LabelFile(GIVEN, table=label_table(labels))
    )
    root = Path(images.store.source or os.curdir)
    matched = match_labels(file, images.names, root, say)
    rows = [matched.rows.get(name) for name in images.names]
    found = labelled_by_text(images, [(row and row.label) or "" for row in rows])
    origins = {
        name: row.origin
        for name, row in zip(images.names, rows, strict=True)
        if row and row.label and row.origin
    }
    images.store.skipped += tuple(matched.unused)
    groups = group_numbers([row.group if row else None for row in rows])
    if groups is not None:
        found = replace(found, groups=groups, grouped_by="source")
    confirmed = frozenset(
        name for name, row in zip(images.names, rows, strict=True) if row and row.confirmed
    )
    return replace(found, origins={**images.origins, **origins}, confirmed=confirmed)


def labelled_by_text(images: ImageSet, texts: Sequence[str]) -> ImageSet:
    """The images with other labels: class names, "" where unknown, which are normalised."""
    texts = [normalized(text) for text in texts]
    test = () if images.test is None else np.unique(images.test.labels[images.test.labeled])
    classes = sorted_classes({*texts, *(images.classes[k] for k in test)} - {""})
    number = {name: index for index, name in enumerate(classes)}
    bare = images.with_labels(np.full(len(images), -1)).relabeled(classes)
    return bare.with_labels(np.array([number.get(text, -1) for text in texts], np.int64))


def _unlabelled(store: Store, source: str = IN_MEMORY) -> ImageSet:
    n = len(store.names)
    return ImageSet(store, np.arange(n), np.full(n, -1, np.int64), (), source=source)


def _kind(value: Any) -> str:
    """A value's type with its article, for messages."""
    name = "array" if isinstance(value, np.ndarray) else type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
