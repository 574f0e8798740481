"""Predictions for new images, and their CSV file."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from handful.csv_files import write_csv
from handful.data.boxes.crop_store import Detected
from handful.errors import HandfulError
from handful.output import PHOTO_ANSWERS, PREDICTIONS, RECOGNITIONS, output_target, written
from handful.parquet_files import columns_of, is_parquet, write_parquet
from handful.pipeline.photo_answers import (
    CropAnswer,
    PhotoAnswer,
    photo_answers,
    write_photo_csv,
    write_recognitions,
)
from handful.pipeline.sorting import Sorted, names_below, sort_into_folders
from handful.pipeline.typed_labels import keep_typed_labels
from handful.progress import Say, Track, quiet, warned
from handful.text import as_html_table, counted, for_terminal, name_in_text, some_of, sure

LISTED = 5  # rows in a notebook; classes in a line


class Prediction(NamedTuple):
    """The prediction for one image."""

    name: str
    label: str  # "" without an answer
    confidence: float  # probability of the likeliest class
    probabilities: dict[str, float]  # class → probability


@dataclass(frozen=True, eq=False, repr=False)
class Predictions:
    """Predictions for N images: name, likeliest class and probabilities of all classes.

    >>> predictions = run.predict(images[:3])
    >>> len(predictions)
    3
    >>> first = predictions[0]  # or predictions["train/00000"]
    >>> first.name, first.label == predictions.labels[0]
    ('train/00000', True)
    >>> [one.name for one in predictions[1:]]
    ['train/00001', 'train/00002']
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: Tensor  # (N, K)
    threshold: float = 0.0  # images of lower confidence get an empty label
    out_of_distribution: Tensor | None = None  # (N,) bool: out of distribution; None if not tested
    detected: Detected | None = None  # of crops: the boxes of all photos
    folder: Path | None = None  # the folder whose files the names are; None: they are of none

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Prediction]:
        labels, confidence = self.labels, self.confidence
        for row, shares in enumerate(self.probabilities.tolist()):
            named = dict(zip(self.classes, shares, strict=True))
            yield Prediction(self.names[row], labels[row], confidence[row], named)

    @overload
    def __getitem__(self, key: int | str) -> Prediction: ...
    @overload
    def __getitem__(self, key: slice | np.ndarray | list[int]) -> "Predictions": ...

    def __getitem__(self, key: Any) -> "Prediction | Predictions":
        """The prediction at a position or of a name; or those of a slice, positions or a mask."""
        if isinstance(key, str):
            if self.names.count(key) != 1:
                many = "several images have" if key in self.names else "no image has"
                raise KeyError(f"{many} the name {key!r}")
            key = self.names.index(key)
        if isinstance(key, int | np.integer):
            at = range(len(self))[key]
            return next(iter(self._at(np.array([at]))))
        return self._at(np.arange(len(self))[key])

    def _at(self, rows: np.ndarray) -> "Predictions":
        chosen = torch.from_numpy(rows.astype(np.int64))
        foreign = self.out_of_distribution
        return replace(
            self,
            names=tuple(self.names[row] for row in rows.tolist()),
            probabilities=self.probabilities[chosen],
            out_of_distribution=None if foreign is None else foreign[chosen],
            detected=None,  # some crops do not tell what is in the photos
        )

    def __repr__(self) -> str:
        return for_terminal(f"Predictions for {counted(len(self), 'image')}{self._shares()}")

    def _shares(self) -> str:
        """How many images are of which class: ": fox 3, hare 1, no answer 2"."""
        common = Counter(self.places).most_common()
        counts = [f"{name_in_text(name)} {n}" for name, n in common]
        return ": " + some_of(counts, LISTED) if counts else ""

    def _repr_html_(self) -> str:
        rows = [[one.name, one.label, sure(one.confidence)] for one in self[:LISTED]]
        if len(self) > LISTED:
            rows.append(["…", "", ""])
        return as_html_table(repr(self), ["file", "label", "confidence"], rows)

    @property
    def labels(self) -> list[str]:
        likeliest = self.probabilities.argmax(dim=1).tolist()
        return [
            self.classes[k] if confidence >= self.threshold and not out_of_distribution else ""
            for k, confidence, out_of_distribution in zip(
                likeliest, self.confidence, self.none_of_these, strict=True
            )
        ]

    @property
    def none_of_these(self) -> list[bool]:
        """Whether each image is out of distribution; False for all if that was not tested."""
        return (
            [False] * len(self.names)
            if self.out_of_distribution is None
            else self.out_of_distribution.tolist()
        )

    @property
    def places(self) -> list[str]:
        """The label of each image, or the reason why it has none."""
        return [
            label or ("none of these" if out_of_distribution else "no answer")
            for label, out_of_distribution in zip(self.labels, self.none_of_these, strict=True)
        ]

    @property
    def confidence(self) -> list[float]:
        return self.probabilities.amax(dim=1).tolist()

    def rows(self) -> Iterator[list[str]]:
        """The rows of the CSV file, as text.

        >>> next(run.predict(images).rows())[0]
        'train/00000'
        """
        cells: list[list[str]] = [[] for _ in self.names]
        if self.out_of_distribution is not None:
            cells = [
                ["yes" if out_of_distribution else ""] for out_of_distribution in self.none_of_these
            ]
        for name, label, confidence, cell, shares in zip(
            self.names,
            self.labels,
            self.confidence,
            cells,
            self.probabilities.tolist(),
            strict=True,
        ):
            yield [name, label, f"{confidence:.4f}", *cell, *(f"{share:.4f}" for share in shares)]

    def to_csv(self, path: Path | str, say: Say = warned) -> None:
        """Write a UTF-8 table: file, label, confidence, none_of_these (if tested), p(class)...

        A table of predictions that is there is replaced; if you typed labels into it, it is
        renamed.

        >>> run.predict(images).to_csv("predictions.csv")

        Args:
            say: gets a line where a table was renamed.

        Raises:
            HandfulError: another file is there, such as your labels.
        """
        self._write(Path(path), True, say)

    def to_parquet(self, path: Path | str) -> None:
        """Write the columns of `to_csv` as Parquet, with all digits; HandfulError without pyarrow.

        An image without an answer has no label (null). What is there is replaced as by `to_csv`.

        >>> run.predict(images).to_parquet("predictions.parquet")
        """
        self._write(Path(path), False, warned)

    def save(self, path: Path | str, say: Say = warned) -> None:
        """Write Parquet where the name ends in .parquet, else CSV; see `to_csv`.

        >>> run.predict(images).save("predictions.csv")
        """
        self._write(Path(path), not is_parquet(Path(path)), say)

    def _write(self, path: Path, csv: bool, say: Say) -> None:
        target = output_target(path, PREDICTIONS)
        if csv:
            keep_typed_labels(target, say)
        write_predictions(path, iter([self]), csv)

    def by_photo(self) -> list[PhotoAnswer]:
        """The answer for every photo, of predictions for crops: the class of its surest crop.

        A photo without a label has a remark, such as "no detection".

        >>> boxes = handful.Boxes("boxes.csv")
        >>> [one.name for one in run_of_crops.predict("photos", boxes=boxes).by_photo()][:2]
        ['fox-1.png', 'fox-2.png']

        Raises:
            HandfulError: the predictions are not for the crops of a folder.
        """
        return photo_answers(self._crops(), self._detected())

    def to_photo_csv(self, path: Path | str) -> None:
        """Write `by_photo` as a table that Timelapse imports, a row for every photo.

        Its columns are RelativePath, File, Label, Confidence, Detections and Remark. HandfulError
        where a file is that handful did not write.

        >>> run_of_crops.predict("photos", boxes="boxes.csv").to_photo_csv("by-photo.csv")
        """
        output_target(Path(path), PHOTO_ANSWERS)
        write_photo_csv(Path(path), self.by_photo())

    def to_recognitions(self, path: Path | str) -> None:
        """Write boxes and classes in MegaDetector's format, which Timelapse reads as recognitions.

        HandfulError where a file is that handful did not write, such as that of the detector.

        >>> found = run_of_crops.predict("photos", boxes="boxes.csv")
        >>> found.to_recognitions("recognitions.json")
        """
        output_target(Path(path), RECOGNITIONS)
        write_recognitions(Path(path), self._crops(), self.classes, self._detected())

    def _detected(self) -> Detected:
        if self.detected is None:
            raise HandfulError(
                "these predictions are not for all crops of a folder of photos; predict with boxes"
            )
        return self.detected

    def _crops(self) -> list[CropAnswer]:
        columns = (self.names, self.labels, self.confidence, self.probabilities.tolist())
        return [
            CropAnswer(name, label, sure, shares, "" if label else place)
            for (name, label, sure, shares), place in zip(
                zip(*columns, strict=True), self.places, strict=True
            )
        ]

    def to_pandas(self) -> Any:
        """A data frame with the columns of `to_csv`; pandas is installed apart: pip install pandas.

        HandfulError without it.

        >>> table = run.predict(images).to_pandas()  # doctest: +SKIP
        """
        try:
            import pandas
        except ImportError:
            raise HandfulError(
                "pandas is not installed here: pip install pandas; or use to_csv(path)"
            ) from None
        columns: dict[str, Any] = {
            "file": list(self.names),
            "label": [label or None for label in self.labels],
            "confidence": self.confidence,
        }
        if self.out_of_distribution is not None:
            columns["none_of_these"] = self.none_of_these
        shares = self.probabilities.T.tolist()
        columns |= {f"p({name})": share for name, share in zip(self.classes, shares, strict=True)}
        return pandas.DataFrame(columns)

    def into_folders(
        self, source: Path | str, target: Path | str, dry_run: bool = False, track: Track = quiet
    ) -> Sorted:
        """Copy every file of `source` into a sub-folder of `target` named after its class.

        Images that were given as a list of paths may lie anywhere below `source`. Originals and
        files of the user are not changed. Copies of an earlier call are moved where
        their class has changed. With `dry_run` nothing is written.

        Predictions for crops put every photo, as a whole, into the folder of its own answer.

        >>> run = handful.open_run("photos-run")
        >>> done = run.predict("photos").into_folders("photos", "sorted", dry_run=True)
        >>> done.counts()["copied"]
        4

        Raises:
            HandfulError: the images were not read from files of a folder, so that their names, such
                as those in an archive, may be anything; or their files are not in `source`.
        """
        if self.folder is None:
            raise HandfulError(
                "into_folders copies the files of a folder, and these predictions are of no "
                "folder's files; copy the images to a folder, and predict those"
            )
        names, labels, reasons = list(self.names), self.labels, self.places
        if self.detected is not None:
            photos = self.by_photo()
            names, labels = [one.name for one in photos], [one.label for one in photos]
            reasons = [one.remark for one in photos]
        return sort_into_folders(
            Path(source),
            Path(target),
            names_below(Path(source), self.folder, names),
            labels,
            reasons,
            self.classes,
            dry_run,
            track,
        )


def write_predictions(path: Path, blocks: Iterator[Predictions], csv: bool) -> int:
    """Write predictions that come in blocks as one table, and return the number of images.

    Args:
        blocks: at least one, all with the same classes.
        csv: write a CSV instead of Parquet.
    """
    first = next(blocks)
    every = chain([first], blocks)
    marked = [] if first.out_of_distribution is None else ["none_of_these"]
    shares = [f"p({name})" for name in first.classes]
    if not csv:
        return write_parquet(path, "predictions", (_columns(one, shares) for one in every))
    counted_rows = count()
    rows = (row for one in every for row in one.rows() if next(counted_rows) >= 0)
    with written(path) as whole:
        write_csv(whole, ["file", "label", "confidence", *marked, *shares], rows)
    return next(counted_rows)


def _columns(one: Predictions, shares: list[str]) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "file": one.names,
        "label": [label or None for label in one.labels],
        "confidence": one.probabilities.amax(dim=1).numpy(),
    }
    if one.out_of_distribution is not None:
        columns["none_of_these"] = one.out_of_distribution.numpy().astype(bool)
    return columns | columns_of(shares, one.probabilities.numpy())
