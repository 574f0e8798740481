"""Images that an exported model is checked on: of the run, where they are there, and made ones."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from handful.csv_files import read_csv
from handful.data import decode
from handful.data.imageset import ImageSet
from handful.data.sources import load
from handful.models.classifier import Predictor
from handful.pipeline.artifacts import LABELS
from handful.pipeline.run import Run

MOST = 64  # images of the run that are compared
KEPT = 12  # images in check.npz
_COARSE = (1, 2, 3, 5, 8, 13)  # cells a side of made images: from one colour to fine detail
PREDICTIONS = "predictions.csv"  # of the images without a label
_BUNDLED = "digits"  # the only public data set that needs no download


@dataclass(frozen=True, eq=False)
class CheckImages:
    """Images as the network takes them, and picture files to load."""

    pixels: np.ndarray  # (N, C, S, S) uint8
    files: tuple[Path, ...] = ()  # where images of the run come from files


def of_run(run: Run, given: ImageSet | None = None, most: int = MOST) -> CheckImages:
    """Labelled images of the run, evenly spaced; none where they are not there any more.

    Args:
        given: images to take instead.
    """
    if given is not None:
        return CheckImages(pixels_of(given[_spaced(len(given), most)], run.predictor))
    return named(run, None, labeled_names(run), most)[0]


def named(
    run: Run, given: ImageSet | None, names: Sequence[str], most: int
) -> tuple[CheckImages, list[str]]:
    """Images of the run by their names, evenly spaced, and the names of those that are there."""
    predictor, folder = run.predictor, run.source_folder
    if given is None and run.record["data"]["source"] == _BUNDLED:
        given = load(_BUNDLED)
    if given is not None:
        row = {name: number for number, name in enumerate(given.names)}
        known = [name for name in names if name in row]
        chosen = [known[n] for n in _spaced(len(known), most)]
        rows = np.array([row[name] for name in chosen], np.int64)
        return CheckImages(pixels_of(given[rows], predictor)), chosen
    if folder is None or run.record["data"].get("boxes"):  # crops are in no file of their own
        return of_files((), predictor), []
    inside = [name for name in names if _is_inside(name)]
    chosen = [inside[n] for n in _spaced(len(inside), most)]
    found = of_files([folder / name for name in chosen], predictor)
    read = {path: name for path, name in zip((folder / c for c in chosen), chosen, strict=True)}
    return found, [read[path] for path in found.files]


def labeled_names(run: Run) -> list[str]:
    return [row.get("file", "") for row in labels_of(run)]


def labels_of(run: Run) -> list[dict[str, str]]:
    """The rows of labels.csv; none where the run has no folder."""
    if run.folder is None or not (run.folder / LABELS).exists():
        return []
    return list(read_csv(run.folder / LABELS))


def unlabeled_names(run: Run) -> list[str]:
    """Names of the run's images without a label."""
    if run.folder is None or not (run.folder / PREDICTIONS).exists():
        return []
    return [row.get("file", "") for row in read_csv(run.folder / PREDICTIONS)]


def of_files(paths: Sequence[Path], predictor: Predictor) -> CheckImages:
    """The images of files as handful reads them, without those that cannot be read."""
    found, read = [], []
    with decode.guarded():
        for path in paths:
            try:
                found.append(read_file(path, predictor))
                read.append(path)
            except decode.Unreadable:
                continue
    pixels = np.stack(found) if found else np.empty((0, *_shape(predictor)), np.uint8)
    return CheckImages(pixels, tuple(read))


def read_file(path: Path, predictor: Predictor) -> np.ndarray:
    """(C, S, S) uint8 of a file, as handful reads it for this network."""
    return decode.read(
        path, predictor.size, predictor.aspect, predictor.channels, predictor.value_range
    )


def pixels_of(images: ImageSet, predictor: Predictor) -> np.ndarray:
    """(N, C, S, S) uint8 of an image set, as the network takes it."""
    if not len(images):
        return np.empty((0, *_shape(predictor)), np.uint8)
    scaled = images.scaled_by(predictor.value_range)
    parts = scaled.stream(predictor.size, predictor.aspect, MOST, predictor.channels)
    return np.concatenate([part.numpy() for part in parts])


def made(predictor: Predictor, n: int = KEPT) -> np.ndarray:
    """(n, C, S, S) uint8: random colours in grids from coarse to fine, smooth and with edges."""
    rng = np.random.default_rng(0)
    channels, size, _ = _shape(predictor)
    found = []
    for number in range(n):
        cells = _COARSE[number % len(_COARSE)]
        colours = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        smooth = Image.Resampling.BICUBIC if number % 2 else Image.Resampling.NEAREST
        image = Image.fromarray(colours).resize((size, size), smooth)
        pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
        found.append(pixels.reshape(size, size, channels).transpose(2, 0, 1))
    return np.stack(found)


def made_files() -> dict[str, bytes]:
    """Small picture files, each with something that a program may forget to do."""
    rng = np.random.default_rng(1)
    colours = Image.fromarray(rng.integers(0, 256, (6, 8, 4), dtype=np.uint8), "RGBA")
    photo = colours.convert("RGB").resize((640, 480), Image.Resampling.BICUBIC)
    turn = Image.Exif()
    turn[0x0112] = 6
    return {
        "turned.jpg": _written(photo, "JPEG", exif=turn, quality=90),
        "transparent.png": _written(colours.resize((90, 60)), "PNG"),
        "palette.gif": _written(photo.resize((70, 110)).quantize(16), "GIF"),
        "grey.png": _written(photo.resize((50, 50)).convert("L"), "PNG"),
    }


def _written(image: Image.Image, kind: str, **options: object) -> bytes:
    with io.BytesIO() as file:
        image.save(file, kind, **options)
        return file.getvalue()


def _is_inside(name: str) -> bool:
    """Whether a name stays in its folder: the table may be a stranger's."""
    path = PurePath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts


def _spaced(n: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64)) if n else np.arange(0)


def _shape(predictor: Predictor) -> tuple[int, int, int]:
    return predictor.channels, predictor.size, predictor.size
