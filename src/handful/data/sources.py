"""Load a public data set by name, or a folder of images, as an ImageSet."""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from handful.data.boxes.crop_folder import load_crops
from handful.data.boxes.options import Boxes, boxes_of
from handful.data.cache import data_folder
from handful.data.checks import spelling_problems
from handful.data.folder_layout import check_folders
from handful.data.grouping.rules import AUTO, NONE, check_rule, grouped_by_rule
from handful.data.image_folder import EarlierLabels, Wanted, load_folder, no_label
from handful.data.imageset import ImageSet
from handful.data.in_memory import image_set, is_path, with_labels
from handful.data.labels.given import label_table
from handful.data.labels.label_file import GIVEN, LabelFile
from handful.data.objects.find import is_elsewhere
from handful.data.pixel_keys import pixel_numbers
from handful.data.shards import NothingInShard, Shard, shard_of
from handful.data.source_names import check_source
from handful.data.splits import holdout, labeled_sample, with_test
from handful.data.store import FileStore, Skipped, array_store
from handful.errors import HandfulError
from handful.progress import Say, Track, quiet, warned
from handful.text import counted


class Part(NamedTuple):
    """Images of one part of a public data set: (N, C, H, W) uint8, and (N,) class numbers or -1."""

    images: np.ndarray
    labels: np.ndarray


class Public(NamedTuple):
    """A public data set as its authors divide it."""

    train: Part
    test: Part
    classes: tuple[str, ...]
    unlabeled: np.ndarray | None = None  # (N, C, H, W)


def load(
    source: Any,
    labels: Any = None,
    *,
    data_root: str | Path | None = None,
    test_fraction: float = 0.0,
    seed: int = 0,
    encoding: str = "utf-8",
    file_column: str | None = None,
    label_column: str | None = None,
    follow_links: bool = False,
    keep_leaks: bool = False,
    labeled: bool = True,
    folders: str | None = None,
    every_class: bool = False,
    groups: str | None = None,
    labeled_only: int | None = None,
    boxes: Any = None,
    shard: Shard | str | None = None,
    known: EarlierLabels | None = None,
    track: Track = quiet,
    say: Say = warned,
) -> ImageSet:
    """Load images, with the labels that are known: a folder, a data set, or pictures in memory.

    >>> images = handful.load("photos", labels={"fox-1.png": "fox", "hare-1.png": "hare"})
    >>> images
    ImageSet of 4 images from photos: 2 labelled, 2 not; 2 classes (fox: 1, hare: 1)

    Args:
        source: a name in `SOURCES`, or the path of a folder of images. A string that is a name is
            taken as a name, even if there is a folder of that name; a Path is always a folder.
            Or an address (s3://…, https://…), an archive (zip, tar), or a table or list of images
            (Parquet, CSV); see "Photos in a bucket, an archive or a list".
            Or pictures in memory: a Pillow image, an array (N, H, W) or (N, H, W, C), a list of
            these or of paths, a torch `Dataset` of (picture, label), or a `datasets.Dataset`.
        labels: a CSV of file,label[,group], or the label file of another tool, for a folder whose
            sub-folders are not classes. Or the same in memory: a dict from file to label, a data
            frame with these columns, or a Series of labels with the files as its index. For
            pictures in memory a list with a label for each. Numbers become text, and True and
            False the classes "true" and "false". None, NaN, "" and the number -1 mean
            that the label is not known.
        data_root: folder of public data sets, into which missing ones are downloaded; by default
            HANDFUL_DATA.
        test_fraction: share of the labelled images that becomes `test`, if the source has none.
        seed: seed of the choice of these images.
        encoding: encoding of the label file.
        file_column, label_column: columns of the label file; by default file and label, or those
            of well-known tools.
        follow_links: read symbolic links that lead out of the folder.
        keep_leaks: keep training images whose pixels are also in the test part.
        labeled: refuse a source without labels, or with labels of one class only. False to predict.
        folders: what the sub-folders are: "classes", "groups" (sites or cameras, with the classes
            below them), "ignore" (no labels), or "auto": decide, and refuse an ambiguous folder.
            None is "auto", but with labeled=False an ambiguous folder has no labels.
        every_class: keep test images of classes that no training image has. True to evaluate.
        groups: "folder" or a regular expression groups the images by their folders or names before
            a test part is drawn; "none" and "auto" (for `fit`, which looks for groups among the
            labelled images) do nothing here. Groups that the source gives always count.
        labeled_only: return the labelled training images only, and at most so many, drawn at
            random by `seed`. The other files of a folder are listed, but not decoded.
        boxes: a file of boxes in the photos of a folder (MegaDetector's output, COCO, or a CSV), or
            `Boxes` with how crops are made of them. The images are then the crops, named after
            their photo and box: `IMG_0001.jpg#2`. Crops of one photo are in one group.
        shard: "3/64" returns only the images of the third of 64 shards, chosen by a hash of their
            names. The others are listed, but not decoded.
        known: where an earlier run has labels. Names of sub-folders then give none, as beside a
            label file, unless all of them are classes of that run.
        track: wraps long loops, `track(items, total, what)`, to show progress.
        say: receives sentences on how the source was interpreted. Without it, labels that were
            given and cannot be used, and classes that differ in spelling only, are told by a
            warning.

    Returns:
        The images. Files that cannot be read are left out and listed in `store.skipped`.
        HandfulError for a source that is missing, empty or ambiguous.
    """
    check_folders(folders)
    if groups is not None:
        check_rule(groups)
    shard = shard_of(shard) if isinstance(shard, str) else shard
    name, boxes, table = str(source) if is_path(source) else "", boxes_of(boxes), None
    if boxes is not None:
        _check_boxes(source, boxes, shard)
    if not is_path(source):
        images = source if isinstance(source, ImageSet) else image_set(source)
        images = images if labels is None else with_labels(images, labels, say)
    elif name in SOURCES and not isinstance(source, Path):
        if Path(name).is_dir():
            say(f"{name} is the data set of that name; for the folder here type ./{name}")
        if labels is not None:
            given = repr(str(labels)) if is_path(labels) else "..."
            raise HandfulError(f"{name} has its own labels; labels={given} is for a folder")
        images = _public(name, Path(data_root).expanduser() if data_root else data_folder())
    else:
        check_source(name)
        table = label_file(labels, encoding, file_column, label_column)
        grouped = groups not in (None, AUTO, NONE)
        wanted = Wanted(folders, labeled, every_class, labeled_only, seed, shard, grouped, known)
        if boxes is None:
            images = load_folder(name, table, follow_links, track, wanted=wanted, say=say)
        else:
            images = load_crops(name, boxes, table, follow_links, track, wanted=wanted, say=say)
    if shard is not None and not isinstance(images.store, FileStore):
        images = _of_shard(images, shard)
    if labeled_only is not None:
        images = images[labeled_sample(images.labeled, images.labels, labeled_only, seed)]
    if labeled:
        check_labels(images, table)
    if labeled and labeled_only is None:  # else the other images follow
        for problem in spelling_problems(images.classes):
            say(problem)
    images = _with_duplicates_grouped(images)
    if groups is not None:
        images = grouped_by_rule(images, groups)
    if test_fraction:
        images = _with_new_test(images, test_fraction, seed)
    return images if keep_leaks else _without_leaks(images)


def _check_boxes(source: Any, boxes: Boxes, shard: Shard | None) -> None:
    """HandfulError unless the images are all photos of a folder on this machine, or one photo."""
    given, name = f"boxes={str(boxes.file)!r}", str(source) if is_path(source) else ""
    if not name or (name in SOURCES and not isinstance(source, Path)):
        raise HandfulError(
            f"{given} is for a folder of photos; give the folder of the photos that the file names"
        )
    if is_elsewhere(name):
        raise HandfulError(
            f"{given} is for a folder of photos on this machine, and {name} is none; copy or "
            f"unpack its photos into a folder, and give that folder"
        )
    if shard is not None:
        raise HandfulError(
            f"{given} is for all photos of a folder, and shard='{shard}' takes a part of them; "
            f"leave one of the two out"
        )


def _of_shard(images: ImageSet, shard: Shard) -> ImageSet:
    """The images of a shard, its test part included."""
    parts = [images] if images.test is None else [images, images.test]
    at = shard.divide([name for part in parts for name in part.names])
    held = [part[np.array([name in at for name in part.names], bool)] for part in parts]
    if not any(map(len, held)):
        raise NothingInShard(shard)
    return replace(held[0], test=held[1] if len(held) > 1 and len(held[1]) else None)


def label_file(
    labels: Any, encoding: str, file_column: str | None, label_column: str | None
) -> LabelFile | None:
    """The labels that were given, or None; HandfulError for a column without a file."""
    if labels is not None and not is_path(labels):
        table = label_table(labels)
        return LabelFile(GIVEN, encoding, file_column, label_column, table)
    if labels is not None:
        return LabelFile(Path(labels).expanduser(), encoding, file_column, label_column)
    for name, value in (("--file-column", file_column), ("--label-column", label_column)):
        if value is not None:
            raise HandfulError(f"{name} {value} is for a label file; give that with --labels")
    return None


def _digits(root: Path) -> Public:
    """scikit-learn's 1,797 digits, with a fixed test part of 359 that we chose."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = digits.target.astype(np.int64)
    test = holdout(labels, fraction=0.2, seed=0)
    train = np.setdiff1d(np.arange(len(labels)), test)
    classes = tuple(str(name) for name in digits.target_names)
    return Public(Part(images[train], labels[train]), Part(images[test], labels[test]), classes)


def _mnist(root: Path) -> Public:
    from torchvision.datasets import MNIST

    train, test = (MNIST(str(root), train=train, download=True) for train in (True, False))
    return Public(_grey_part(train), _grey_part(test), tuple(str(digit) for digit in range(10)))


def _fashion_mnist(root: Path) -> Public:
    from torchvision.datasets import FashionMNIST

    train, test = (FashionMNIST(str(root), train=train, download=True) for train in (True, False))
    return Public(_grey_part(train), _grey_part(test), tuple(train.classes))


def _cifar10(root: Path) -> Public:
    from torchvision.datasets import CIFAR10

    train, test = (CIFAR10(str(root), train=train, download=True) for train in (True, False))
    parts = [
        Part(part.data.transpose(0, 3, 1, 2), np.array(part.targets, np.int64))
        for part in (train, test)
    ]
    return Public(parts[0], parts[1], tuple(train.classes))


def _stl10(root: Path) -> Public:
    from torchvision.datasets import STL10

    train, test = (STL10(str(root), split, download=True) for split in ("train", "test"))
    parts = [Part(part.data, part.labels.astype(np.int64)) for part in (train, test)]
    unlabeled = STL10(str(root), "unlabeled").data
    return Public(parts[0], parts[1], tuple(train.classes), unlabeled)


SOURCES: dict[str, Callable[[Path], Public]] = {
    "digits": _digits,
    "mnist": _mnist,
    "fashion-mnist": _fashion_mnist,
    "cifar10": _cifar10,
    "stl10": _stl10,
}


def _grey_part(data: Any) -> Part:
    """A part from one of torchvision's MNIST classes, whose tensors are (N, H, W)."""
    return Part(data.data.numpy()[:, None], data.targets.numpy().astype(np.int64))


def _public(name: str, root: Path) -> ImageSet:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # torchvision prints while it downloads
            data = SOURCES[name](root)
    except (OSError, RuntimeError, ValueError, AssertionError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise HandfulError(
            f"cannot get {name} in {root}: {reason}; check the network, or put its files there as "
            f"torchvision lays them out"
        ) from error
    images, labels = data.train
    names = _numbered("train", len(labels))
    if data.unlabeled is not None:
        images = np.concatenate([images, data.unlabeled])
        labels = np.concatenate([labels, np.full(len(data.unlabeled), -1)])
        names += _numbered("unlabeled", len(data.unlabeled))
    test = _array_set(name, *data.test, _numbered("test", len(data.test.labels)), data.classes)
    return replace(_array_set(name, images, labels, names, data.classes), test=test)


def _array_set(
    source: str, images: np.ndarray, labels: np.ndarray, names: list[str], classes: tuple[str, ...]
) -> ImageSet:
    store = array_store(images, names)
    return ImageSet(store, np.arange(len(names)), labels, classes, source=source)


def _numbered(part: str, n: int) -> list[str]:
    return [f"{part}/{number:05d}" for number in range(n)]


def check_labels(images: ImageSet, given: LabelFile | None = None) -> None:
    """HandfulError unless the images have labels of two classes or more.

    Args:
        given: the label file that was asked for.
    """
    used = np.unique(images.labels[images.labeled])
    if not len(used):
        if not isinstance(images.store, FileStore):
            raise HandfulError(
                f"what was given holds {len(images)} images but no label; give a label for each "
                f"one you know as labels=..., a list with None for the others"
            )
        what = f"{counted(len(images), 'image')} but no label"
        in_folder = images.store.in_folder
        raise HandfulError(no_label(images.source, what, images.names, in_folder, given))
    if len(used) == 1:
        raise HandfulError(
            f"{images.source} has labels of one class only ({images.classes[used[0]]!r}); "
            f"a classifier needs two or more"
        )


def _with_duplicates_grouped(images: ImageSet) -> ImageSet:
    """Join images with equal pixels in one group, so that no fold or test part splits them."""
    test = images.test
    pixels = pixel_numbers(images, blank_alone=True)
    if images.groups is None and pixels.max(initial=-1) + 1 == len(pixels):
        return images
    grouped_by = images.grouped_by
    if images.groups is None or (test and test.groups is None):
        groups, grouped_by = np.arange(len(pixels)), "copies"
    else:
        groups = np.concatenate([images.groups, test.groups if test else images.groups[:0]])
    joined = _joined(pixels, groups)
    n = len(images)
    test = test and replace(test, groups=joined[n:], grouped_by=grouped_by)
    return replace(images, groups=joined[:n], grouped_by=grouped_by, test=test)


def _joined(pixels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Group numbers (N,) after joining groups that have an image with equal pixels (N,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    _, group = np.unique(groups, return_inverse=True)
    different = int(pixels.max()) + 1
    size = different + int(group.max()) + 1
    edges = coo_array((np.ones(len(pixels)), (pixels, different + group)), (size, size))
    component: np.ndarray = connected_components(edges, directed=False)[1][pixels]
    return component.astype(np.int64)


def _with_new_test(images: ImageSet, fraction: float, seed: int) -> ImageSet:
    if images.test is not None:
        raise HandfulError(
            f"{images.source} already has a test part of {len(images.test)} images; "
            f"leave out --test-fraction {fraction}"
        )
    return with_test(images, holdout(images.labels, fraction, seed, images.groups))


def _without_leaks(images: ImageSet) -> ImageSet:
    """Leave out training images whose pixels are in the test part, and list them as skipped."""
    if images.test is None:
        return images
    pixels, n = pixel_numbers(images, blank_alone=True), len(images)
    leaked = np.isin(pixels[:n], pixels[n:])
    if not leaked.any():
        return images
    test_name = dict(zip(pixels[n:].tolist(), images.test.names, strict=True))
    images.store.skipped += tuple(
        Skipped(
            images.store.names[images.rows[at]],
            f"same pixels as a test image: {test_name[pixels[at]]}",
        )
        for at in np.flatnonzero(leaked)
    )
    return replace(images[~leaked], test=images.test)
