"""Read a run folder for its report. The folder may come from anyone: its content is checked.

Letters in shapes: n labelled images, K classes.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from handful.csv_files import read_csv
from handful.errors import HandfulError
from handful.files import read_json, read_text
from handful.pipeline.artifacts import (
    HISTORY,
    ISSUES,
    LABEL_NEXT,
    LABELS,
    OUT_OF_FOLD,
    PREDICTIONS,
    STAGE_HISTORY,
)
from handful.pipeline.record_schema import TestRecord, checked
from handful.pipeline.run import read_record
from handful.pipeline.thumbnails import Pictures, load_pictures


class HeldOut(NamedTuple):
    """Out-of-fold predictions for the labelled images."""

    names: list[str]
    labels: np.ndarray  # (n,)
    probabilities: np.ndarray  # (n, K), each row adding up to 1


class Predicted(NamedTuple):
    """The predictions for N images without a label."""

    names: list[str]
    classes: np.ndarray  # (N,) class numbers, -1 for no answer
    confidence: np.ndarray  # (N,)


@dataclass(frozen=True, eq=False)
class RunFolder:
    """The content of a run folder; fields of missing files are empty or None."""

    folder: Path
    record: dict[str, Any]
    history: list[dict[str, float]]
    held_out: HeldOut | None
    labels: dict[str, str]  # name of a labelled image → its label
    origins: dict[str, str]  # name → "random", "chosen" or "unknown": how the image was picked
    issues: list[dict[str, str]]  # labels that look wrong
    test: dict[str, Any] | None  # test.json: an Evaluation
    next: list[dict[str, str]]  # images to label next
    pictures: Pictures
    stage_history: list[dict[str, float]]  # of self-supervised pre-training
    predicted: Predicted | None = None  # None if every image had a label


def read_run(folder: Path, pictures: bool = True) -> RunFolder:
    """Read a finished run; HandfulError says which file is missing or damaged."""
    record = read_record(folder)
    test, seen = folder / "test.json", _labels(folder / LABELS, record["data"]["classes"])
    return RunFolder(
        folder=folder,
        record=record,
        history=_history(folder / HISTORY),
        held_out=_held_out(folder / OUT_OF_FOLD, record["data"]["classes"]),
        labels={row["file"]: row["label"] for row in seen},
        origins={row["file"]: row["origin"] for row in seen},
        issues=_rows(folder / ISSUES, "label", "guess", "p(guess)", shares=("p(guess)",)),
        test=_tested(test, record["data"]["classes"]) if test.exists() else None,
        next=_rows(folder / LABEL_NEXT, "why", shares=("confidence",)),
        pictures=load_pictures(folder) if pictures else Pictures({}),
        stage_history=_history(folder / STAGE_HISTORY),
        predicted=_predicted(folder / PREDICTIONS, record["data"]["classes"]),
    )


def _predicted(path: Path, classes: list[str]) -> Predicted | None:
    """Read predictions.csv; HandfulError unless its classes are those of the run."""
    rows = _rows(path, "label", "confidence", shares=("confidence",))
    if not rows:
        return None
    number = {name: k for k, name in enumerate(classes)} | {"": -1}
    if unknown := [row["label"] for row in rows if row["label"] not in number]:
        raise HandfulError(
            f"{path} names {unknown[0][:50]!r}, which is no class of this run; delete it or fit "
            f"again"
        )
    return Predicted(
        [row["file"] for row in rows],
        np.array([number[row["label"]] for row in rows], np.int64),
        np.array([float(row["confidence"] or 0) for row in rows]),
    )


def _tested(path: Path, classes: list[str]) -> dict[str, Any]:
    """Read test.json; HandfulError unless its classes are those of the run."""
    found = checked(TestRecord, read_json(path), path)
    sizes = [len(found["per_class"]), len(found["confusion"]), *map(len, found["confusion"])]
    if found["classes"] != classes or set(sizes) != {len(classes)}:
        raise HandfulError(f"{path} is not of the classes of this run; delete it or fit again")
    return found


def _labels(path: Path, classes: list[str]) -> list[dict[str, str]]:
    """Read labels.csv; HandfulError unless its classes are those of the run."""
    rows = _rows(path, "label", "origin")
    if unknown := [row["label"] for row in rows if row["label"] not in classes]:
        raise HandfulError(
            f"{path} names {unknown[0][:50]!r}, which is no class of this run; restore it or fit "
            f"again"
        )
    return rows


def _rows(path: Path, *columns: str, shares: tuple[str, ...] = ()) -> list[dict[str, str]]:
    """Read a CSV with a header, row by row; empty if the file is missing.

    Args:
        columns: required columns, besides "file".
        shares: columns that, if present, hold numbers from 0 to 1; a cell may be empty.
    """
    rows = read_csv(path) if path.exists() else []
    lacking = [name for name in columns if rows and name not in rows[0]]
    if lacking:
        raise HandfulError(
            f"{path} is damaged (it has no column {lacking[0]!r}); delete it or fit again"
        )
    for row in rows:
        if wrong := [c for c in map(row.get, shares) if c and not _is_share(c)]:
            raise HandfulError(
                f"{path} is damaged ({wrong[0][:50]!r} is no number from 0 to 1); delete it or "
                f"fit again"
            )
    return rows


def _is_share(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def _history(path: Path) -> list[dict[str, float]]:
    """Read the finite numbers of a history file; empty if the file is missing."""
    if not path.exists():
        return []
    lines = []
    try:
        for text in read_text(path).splitlines():
            line = json.loads(text)
            lines.append({str(k): float(v) for k, v in line.items() if math.isfinite(v)})
    except HandfulError:
        raise
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise HandfulError(f"{path} is damaged ({error}); delete it or fit again") from None
    return lines


def _held_out(path: Path, classes: list[str]) -> HeldOut | None:
    rows = _rows(path)
    if not rows:
        return None
    index = {name: k for k, name in enumerate(classes)}
    try:
        labels = np.array([index[row["label"]] for row in rows], np.int64)
        shares = np.array([[float(row[f"p({name})"]) for name in classes] for row in rows])
        names = [row["file"] for row in rows]
        if not (shares >= 0).all() or not np.allclose(shares.sum(axis=1), 1, atol=0.02):
            raise ValueError("probabilities must add up to 1")
    except (KeyError, TypeError, ValueError) as error:
        raise HandfulError(f"{path} is damaged ({error}); delete it or fit again") from None
    return HeldOut(names, labels, shares / shares.sum(axis=1, keepdims=True))
