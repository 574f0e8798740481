"""Save and load the thumbnails that the report of a run shows.

They are saved at the end of a fit. A report made later needs no image files, and the source that a
foreign run folder names is never opened.

Letters in shapes: N images, K classes, C channels, S the side in pixels.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from handful.csv_files import read_csv
from handful.data.imageset import ImageSet
from handful.errors import HandfulError
from handful.evaluation.label_errors import LabelIssue
from handful.files import read_json, write_json
from handful.methods.base import Task, Trained
from handful.methods.schedule import Schedule
from handful.pipeline import pretrained
from handful.pipeline.artifacts import LABEL_NEXT, PICTURES, PREDICTIONS
from handful.training.batches import Batches

SIDE = 176  # pixels: larger images are reduced to this side; a click enlarges them to it
SHARP = 32  # pixels: up to this side thumbnails are PNG, without loss
SHOWN = 24  # mistakes, and as many doubted labels
EXAMPLES = 8  # images per class
MOST_EXAMPLES = 200  # images of all classes together
ANSWERS = 5  # of each class: surest answers for unlabelled images, and as many least sure ones
MOST_ANSWERS = 240  # of all classes together
VIEWED = 4  # training images shown augmented
VIEWS = 6  # augmented views of each of them
CAPTIONS = {
    "views": "Images, and under each the views of it that the network learned from.",
    "channels": "Images, and under each its channels as the two encoders see them: light, then two "
    "of colour.",
}
PAINTED_CAPTION = "Images, and under each its reconstruction by the network after {:,} steps."
_KINDS = {b"\xff\xd8\xff": "jpeg", b"\x89PNG": "png"}


@dataclass(frozen=True)
class Augmented:
    """Rows of training images: the original, then its augmented views."""

    name: str
    rows: tuple[tuple[str, ...], ...]  # data: URLs


@dataclass(frozen=True)
class Pictures:
    """The saved thumbnails, as data: URLs."""

    images: dict[str, str]  # by file name
    augmented: tuple[Augmented, ...] = ()
    stage: tuple[tuple[str, str], ...] = ()  # of a pre-training: (caption, data: URL)


def mistakes(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return positions whose likeliest class is not the label, most confident first.

    Args:
        labels: (N,) class numbers.
        probabilities: (N, K); a row of NaN counts as no mistake.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]


def examples(labels: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """Return for each class the positions of its first images; labels are (N,)."""
    each = min(EXAMPLES, max(1, MOST_EXAMPLES // max(1, num_classes)))
    shown = range(min(num_classes, MOST_EXAMPLES))
    return [np.flatnonzero(labels == k)[:each] for k in shown]


class Answers(NamedTuple):
    """Positions of the answers of a class that are shown."""

    total: int
    surest: np.ndarray  # the most confident first
    least_sure: np.ndarray  # the least confident first


def answers(predicted: np.ndarray, confidence: np.ndarray, num_classes: int) -> list[Answers]:
    """Return for each class its surest and its least sure answers, no image in both.

    Args:
        predicted: (N,) class numbers, -1 for no answer.
        confidence: (N,).
    """
    each = min(ANSWERS, max(1, MOST_ANSWERS // max(1, 2 * num_classes)))
    found = []
    for k in range(num_classes):
        of_class = np.flatnonzero(predicted == k)
        order = of_class[np.argsort(-confidence[of_class], kind="stable")]
        surest = order[: min(each, (len(order) + 1) // 2)]
        rest = order[len(surest) :][::-1]
        shown = each if k < MOST_ANSWERS else 0
        found.append(Answers(len(order), surest[:shown], rest[:shown]))
    return found


def save_pictures(
    folder: Path,
    task: Task,
    method: Any,
    probabilities: np.ndarray | None = None,
    issues: Sequence[LabelIssue] = (),
    seed: int = 0,
    stage: Path | None = None,
) -> None:
    """Write the thumbnails of a report: examples, mistakes, doubted labels, augmented views.

    The first images of label-next.csv, and the surest and least sure answers of predictions.csv,
    are included if the folder holds these files.

    Args:
        probabilities: (n, K) out-of-fold predictions of the n labelled images, or None.
        issues: doubted labels, by position among the labelled images.
        stage: folder of a pre-training, whose pictures are included, or None.
    """
    labeled = task.images[task.images.labeled]
    positions = np.concatenate(examples(labeled.labels, labeled.num_classes)).tolist()
    positions += [issue.position for issue in issues[:SHOWN]]
    if probabilities is not None:
        positions += mistakes(labeled.labels, probabilities)[:SHOWN].tolist()
    named = [*_to_label(folder), *_answered(folder, task.images.classes)]
    rows = set(labeled.rows[positions].tolist()) | _rows_named(task.images, named)
    shown = task.images[np.isin(task.images.rows, list(rows))]
    augmented = _augmented(task, method, seed) if isinstance(method, Trained) else []
    write_json(
        folder / PICTURES,
        {
            "images": thumbnails(shown, task.size, task.aspect),
            "augmented": augmented,
            "stage": _pretraining_pictures(stage) if stage is not None else [],
        },
    )


def _pretraining_pictures(folder: Path) -> list[dict[str, str]]:
    """Return captions and pictures (base 64) of a pre-training: views, channels, reconstructions.

    Of the reconstructions the first and the last are included.
    """
    painted = sorted((folder / pretrained.PICTURES).glob("painted-*.png"))
    shown = [
        folder / pretrained.PICTURES / "views.png",
        folder / pretrained.PICTURES / "channels.png",
    ]
    kept = []
    for path in filter(Path.exists, [*shown, *painted[:1], *painted[1:][-1:]]):
        file = io.BytesIO()
        try:
            with Image.open(path) as image:
                image.convert("RGB").save(file, "JPEG", quality=90)
        except (OSError, SyntaxError):  # damaged in the cache: no reason to lose a finished fit
            continue
        text = CAPTIONS.get(path.stem) or PAINTED_CAPTION.format(
            int(path.stem.removeprefix("painted-"))
        )
        kept.append({"what": text, "picture": base64.b64encode(file.getvalue()).decode()})
    return kept


def thumbnails(images: ImageSet, size: int, aspect: str) -> dict[str, str]:
    """Return name → thumbnail (base 64) of each image as a network of side `size` sees it."""
    pixels = (picture for batch in images.stream(size, aspect) for picture in batch.numpy())
    return {name: _encoded(thumbnail) for name, thumbnail in zip(images.names, pixels, strict=True)}


def load_pictures(folder: Path) -> Pictures:
    """Load the thumbnails of a run folder; empty where there are none.

    HandfulError if a picture is neither JPEG nor PNG, since it is put into an HTML page.
    """
    path = folder / PICTURES
    if not path.exists():
        return Pictures({})
    kept = read_json(path)
    try:
        return Pictures(
            {name: data_url(text) for name, text in kept["images"].items()},
            tuple(
                Augmented(
                    str(strip["name"]),
                    tuple(tuple(data_url(thumbnail) for thumbnail in row) for row in strip["rows"]),
                )
                for strip in kept["augmented"]
            ),
            tuple(
                (str(thumbnail["what"]), data_url(thumbnail["picture"]))
                for thumbnail in kept.get("stage", [])
            ),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise HandfulError(f"{path} is damaged ({error!r}); delete it or fit again") from None


def _to_label(folder: Path) -> list[str]:
    """Return the first file names in label-next.csv; none if there is no such file."""
    path = folder / LABEL_NEXT
    return [row["file"] for row in read_csv(path)][:SHOWN] if path.exists() else []


def _answered(folder: Path, classes: Sequence[str]) -> list[str]:
    """Return the file names of the answers in predictions.csv that are shown."""
    path = folder / PREDICTIONS
    rows = read_csv(path) if path.exists() else []
    number = {name: k for k, name in enumerate(classes)}
    predicted = np.array([number.get(row["label"], -1) for row in rows], np.int64)
    confidence = np.array([float(row["confidence"]) for row in rows])
    shown = answers(predicted, confidence, len(classes))
    return [rows[at]["file"] for one in shown for at in (*one.surest, *one.least_sure)]


def _rows_named(images: ImageSet, names: Iterable[str]) -> set[int]:
    wanted = set(names)
    pairs = zip(images.names, images.rows.tolist(), strict=True)
    return {row for name, row in pairs if name in wanted} if wanted else set()


def _augmented(task: Task, method: Trained, seed: int) -> list[dict[str, Any]]:
    """Return the first training images under each augmentation of the method."""
    views = method.views(task)
    if not views.images:
        return []
    batches = Batches(task, views, Schedule(steps=1), seed)
    pipelines = []
    if batches.labeled_pipeline is not None:
        pipelines.append(("labelled images" + _called(views.labeled), batches.labeled_pipeline))
    for view, pipeline in zip(views.unlabeled, batches.unlabeled_pipelines, strict=True):
        pipelines.append(("unlabelled images" + _called(view), pipeline))
    labels = task.labels[task.labeled].numpy()
    firsts = [int(np.flatnonzero(labels == k)[0]) for k in np.unique(labels)[:VIEWED]]
    pixels = task.pixels[task.labeled[firsts]]  # (I, C, S, S)
    strips = []
    for name, pipeline in pipelines:
        generator = torch.Generator().manual_seed(seed)
        augmented = pipeline(pixels.repeat_interleave(VIEWS, dim=0), generator)
        augmented = (augmented.clamp(0, 1) * 255).round().to(torch.uint8)
        augmented = augmented.unflatten(0, (-1, VIEWS))
        rows = [
            [_encoded(thumbnail.numpy()) for thumbnail in (original, *variants)]
            for original, variants in zip(pixels, augmented, strict=True)
        ]
        strips.append({"name": name, "rows": rows})
    return strips


def _called(view: object) -> str:
    return f" ({view})" if isinstance(view, str) and view != "auto" else ""


def _encoded(pixels: np.ndarray) -> str:
    """Encode (C, S, S) uint8 in base 64: as PNG up to a side of SHARP, else as JPEG."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    file = io.BytesIO()
    if image.width <= SHARP:
        image.save(file, "PNG", optimize=True)
    else:
        image.thumbnail((SIDE, SIDE))
        image.save(file, "JPEG", quality=82)
    return base64.b64encode(file.getvalue()).decode()


def data_url(text: str) -> str:
    """Return a picture in base 64 as a data: URL; TypeError if it is neither JPEG nor PNG."""
    start = base64.b64decode(text, validate=True)[:4]
    kinds: Iterable[str] = (kind for mark, kind in _KINDS.items() if start.startswith(mark))
    kind = next(iter(kinds), None)
    if kind is None:
        raise TypeError("a picture is neither JPEG nor PNG")
    return f"data:image/{kind};base64,{text}"
