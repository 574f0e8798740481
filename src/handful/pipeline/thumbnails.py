"""The few images that a report shows, kept small beside the run.

They are kept when the images are at hand, after a fit. A report made later needs no source, and
what a stranger's run folder names as its source is never opened.

Letters in shapes: N images, K classes, C channels, S the side in pixels.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from handful.pipeline.artifacts import LABEL_NEXT, PICTURES
from handful.training.batches import Batches

SIDE = 96  # pixels: larger images are kept at this size
SHARP = 32  # up to this side pictures are kept without loss
SHOWN = 24  # mistakes, doubted labels
EXAMPLES = 8  # images shown of a class
MOST_EXAMPLES = 200  # of all classes together
VIEWED = 4  # training images shown augmented
VIEWS = 6  # times each of them
SEEN = {
    "views": "Images, and under each the views of it that the network learned from.",
    "channels": "Images, and under each its channels as the two encoders see them: light, then two "
    "of colour.",
}
PAINTS = "Images, and under each what the network painted of it after {:,} steps."
_KINDS = {b"\xff\xd8\xff": "jpeg", b"\x89PNG": "png"}


@dataclass(frozen=True)
class Augmented:
    """Training images, each in a row: first as it is, then as training sees it."""

    name: str
    rows: tuple[tuple[str, ...], ...]  # data: URLs


@dataclass(frozen=True)
class Pictures:
    """What was kept, as data: URLs."""

    images: dict[str, str]  # by file name
    augmented: tuple[Augmented, ...] = ()
    stage: tuple[tuple[str, str], ...] = ()  # of a stage without labels: what is seen, data: URL


def mistakes(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Positions whose likeliest class is not the label: from labels (N,) and (N, K), surest first.

    Where the probability of every class is unknown (NaN), there is no mistake.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]


def examples(labels: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """For each class positions of the first of its images, from labels (N,)."""
    each = min(EXAMPLES, max(1, MOST_EXAMPLES // max(1, num_classes)))
    shown = range(min(num_classes, MOST_EXAMPLES))
    return [np.flatnonzero(labels == k)[:each] for k in shown]


def save_pictures(
    folder: Path,
    task: Task,
    method: Any,
    probabilities: np.ndarray | None = None,
    issues: Sequence[LabelIssue] = (),
    seed: int = 0,
    stage: Path | None = None,
) -> None:
    """Keep what the report of a fit shows: examples, mistakes, doubted labels, augmented views.

    And the first images of label-next.csv, if it is in the folder already.

    Args:
        stage: folder of a stage without labels, whose pictures are kept too.
        probabilities: (n, K) of the n labelled images out of fold, or None.
        issues: by position among the labelled images.
    """
    seen = task.images[task.images.labeled]
    positions = np.concatenate(examples(seen.labels, seen.num_classes)).tolist()
    positions += [issue.position for issue in issues[:SHOWN]]
    if probabilities is not None:
        positions += mistakes(seen.labels, probabilities)[:SHOWN].tolist()
    rows = set(seen.rows[positions].tolist()) | _rows_named(task.images, _to_label(folder))
    shown = task.images[np.isin(task.images.rows, list(rows))]
    augmented = _augmented(task, method, seed) if isinstance(method, Trained) else []
    write_json(
        folder / PICTURES,
        {
            "images": thumbnails(shown, task.size, task.aspect),
            "augmented": augmented,
            "stage": _of_stage(stage) if stage is not None else [],
        },
    )


def _of_stage(folder: Path) -> list[dict[str, str]]:
    """What its images look like to it, and what it paints at first and in the end, in base 64."""
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
        text = SEEN.get(path.stem) or PAINTS.format(int(path.stem.removeprefix("painted-")))
        kept.append({"what": text, "picture": base64.b64encode(file.getvalue()).decode()})
    return kept


def thumbnails(images: ImageSet, size: int, fit: str) -> dict[str, str]:
    """name → a small JPEG or PNG in base 64, of the image as a network of side `size` sees it."""
    pixels = (picture for batch in images.stream(size, fit) for picture in batch.numpy())
    return {name: _encoded(one) for name, one in zip(images.names, pixels, strict=True)}


def load_pictures(folder: Path) -> Pictures:
    """What was kept in a run folder; nothing where nothing was.

    HandfulError where a picture is anything but a JPEG or PNG: it goes into a page.
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
                    tuple(tuple(data_url(one) for one in row) for row in strip["rows"]),
                )
                for strip in kept["augmented"]
            ),
            tuple((str(one["what"]), data_url(one["picture"])) for one in kept.get("stage", [])),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise HandfulError(f"{path} is damaged ({error!r}); delete it or fit again") from None


def _to_label(folder: Path) -> list[str]:
    """Names of the first images of label-next.csv; none where there is no such file."""
    path = folder / LABEL_NEXT
    return [row["file"] for row in read_csv(path)][:SHOWN] if path.exists() else []


def _rows_named(images: ImageSet, names: Iterable[str]) -> set[int]:
    wanted = set(names)
    pairs = zip(images.names, images.rows.tolist(), strict=True)
    return {row for name, row in pairs if name in wanted} if wanted else set()


def _augmented(task: Task, method: Trained, seed: int) -> list[dict[str, Any]]:
    """The first training images under every augmentation that the method asks for."""
    views = method.views(task)
    batches = Batches(task, views, Schedule(steps=1), seed)
    named = []
    if batches.labeled_pipeline is not None:
        named.append(("labelled images" + _called(views.labeled), batches.labeled_pipeline))
    for view, pipeline in zip(views.unlabeled, batches.unlabeled_pipelines, strict=True):
        named.append(("unlabelled images" + _called(view), pipeline))
    labels = task.labels[task.labeled].numpy()
    firsts = [int(np.flatnonzero(labels == k)[0]) for k in np.unique(labels)[:VIEWED]]
    pixels = task.pixels[task.labeled[firsts]]  # (I, C, S, S)
    strips = []
    for name, pipeline in named:
        generator = torch.Generator().manual_seed(seed)
        seen = pipeline(pixels.repeat_interleave(VIEWS, dim=0), generator)
        seen = (seen.clamp(0, 1) * 255).round().to(torch.uint8).unflatten(0, (-1, VIEWS))
        rows = [
            [_encoded(one.numpy()) for one in (original, *variants)]
            for original, variants in zip(pixels, seen, strict=True)
        ]
        strips.append({"name": name, "rows": rows})
    return strips


def _called(view: object) -> str:
    return f" ({view})" if isinstance(view, str) and view != "auto" else ""


def _encoded(pixels: np.ndarray) -> str:
    """(C, S, S) uint8 as base 64 of a PNG where small, else of a JPEG."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    file = io.BytesIO()
    if image.width <= SHARP:
        image.save(file, "PNG", optimize=True)
    else:
        image.thumbnail((SIDE, SIDE))
        image.save(file, "JPEG", quality=82)
    return base64.b64encode(file.getvalue()).decode()


def data_url(text: str) -> str:
    """A picture in base 64 as a data: URL."""
    start = base64.b64decode(text, validate=True)[:4]
    kinds: Iterable[str] = (kind for mark, kind in _KINDS.items() if start.startswith(mark))
    kind = next(iter(kinds), None)
    if kind is None:
        raise TypeError("a picture is neither JPEG nor PNG")
    return f"data:image/{kind};base64,{text}"
