"""One cell of a table: a source, labels per class, a method, a draw and a budget, scored once.

Development draws are seeds from 1000 on, scored on a part cut from the training images; final draws
on the test part. A cell that has its line is not made again.
"""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import handful
from benchmarks.lib import record
from handful.cli.options import pairs
from handful.data.splits import development
from handful.pipeline.auto.select import AUTO
from handful.pipeline.setup import subsample_labels
from handful.progress import Reporter
from handful.text import in_seconds

SOURCES = ("digits", "mnist", "fashion-mnist", "cifar10-jpeg", "sign-digits", "tin10", "steel")
# Folders that `unseen_folders` makes; no setting was chosen on them.
UNSEEN = ("letters", "drawings", "words")
# The share that is set aside where a source has no test part.
OWN_TEST = {"sign-digits": 0.3, "steel": 0.3} | dict.fromkeys(UNSEEN, 0.4)
DEVELOPMENT = 0.2  # of the labelled training images, or less: what development draws are scored on
MOST = 10_000
FIRST_DEVELOPMENT = 1000


@dataclass(frozen=True)
class Cell:
    """What tells one line of a results file from another."""

    source: str
    per_class: int
    method: str
    draw: int
    budget: str
    part: str  # dev or final
    given: tuple[str, ...] = ()  # settings beside the method's own, NAME=VALUE; backbone, size too
    hardware: str = ""  # as a line names it; "" where a line of any will do

    @property
    def name(self) -> str:
        return " ".join([f"{self.source}-{self.method}", *sorted(self.given)])


def fill(cells: Iterable[Cell], file: str, *, dry: bool = False) -> None:
    """Run the cells that have no line in `file` yet."""
    for cell in cells:
        if cell.draw not in accuracies(file, cell):
            run(opened(cell.source, cell.part), cell, file, dry=dry)


def fill_if_time_does(cell: Cell, file: str, *, dry: bool = False) -> None:
    """`fill` one cell; one for which the budget is too short is named and left out."""
    try:
        fill([cell], file, dry=dry)
    except ValueError as error:
        if "larger --budget" not in str(error):
            raise
        print(f"{cell.name}, {cell.budget}: {error}", flush=True)


@lru_cache(maxsize=1)
def opened(source: str, part: str) -> handful.ImageSet:
    folder = Path(os.environ.get("HANDFUL_DATA", "")) / source
    fraction = OWN_TEST.get(source, 0.0)
    images = handful.load(folder if folder.is_dir() else source, test_fraction=fraction, seed=0)
    if part == "final":
        return images
    held = min(MOST, int(DEVELOPMENT * len(images.labeled)))
    return in_development(images, held)


def in_development(images: handful.ImageSet, held: int) -> handful.ImageSet:
    """Without the test part: instead so many images, always the same, of the labelled ones."""
    return development(replace(images, test=None), held, seed=FIRST_DEVELOPMENT)


def run(images: handful.ImageSet, cell: Cell, file: str, *, dry: bool = False) -> None:
    """Fit, score, and keep a line in `file`; `auto` has to estimate within its budget, too."""
    seen = subsample_labels(images, cell.per_class, cell.draw)
    assert seen.test is not None
    given = pairs(list(cell.given))
    size = given.pop("size", None)
    begun = time.perf_counter()
    fitted = handful.fit(
        seen,
        cell.method,
        seed=cell.draw,
        budget=in_seconds(cell.budget),
        backbone=given.pop("backbone", None),
        size=None if size is None else int(size),
        settings=given,
        estimate="folds" if cell.method == AUTO else "none",
        origins=dict.fromkeys(seen.names, "random"),
        reporter=Reporter(say=lambda text: print(text, flush=True)),
    )
    seconds = time.perf_counter() - begun
    trainings = (fitted.record["stage"] or {}, fitted.record["training"])
    figures = {
        "test_accuracy": round(fitted.evaluate(seen.test).accuracy, 5),
        "n_test": len(seen.test),
        "seconds": round(seconds, 1),
        "turns": sum(len(part.get("turns", ())) for part in trainings),
    }
    if cell.method == AUTO:
        estimate = {key: fitted.estimate[key] for key in ("accuracy", "low", "high")}
        figures |= {"estimate": estimate, "choice": fitted.record["choice"]}
        for row in fitted.record["choice"]:
            print(f"  {row['method']} {row['accuracy']}, {row['seconds']} s: {row['verdict']}")
    settings = {key: fitted.record[key] for key in ("method", "schedule", "backbone", "input")}
    if fitted.record["stage"] is not None:
        settings["stage"] = fitted.record["stage"]
    print(cell, figures["test_accuracy"], flush=True)
    if not dry:
        more = {"draw": cell.draw, "per_class": cell.per_class, "budget": cell.budget}
        record.append(file, cell.name, cell.part, figures, settings=settings, **more)


def split_name(name: str) -> tuple[str, str]:
    """Source and method, with what was given beside it, of a line's name."""
    plain, *given = name.split(" ")
    source, method = plain.rsplit("-", 1)
    return source, " ".join([method, *given])


def accuracies(file: str, cell: Cell) -> dict[int, float]:
    """Draw → accuracy, of all draws of the cell that have a line."""
    wanted = (cell.name, cell.part, cell.per_class, cell.budget)
    return {
        line["draw"]: line["figures"]["test_accuracy"]
        for line in record.read(file)
        if (line["name"], line["kind"], line["per_class"], line["budget"]) == wanted
        and cell.hardware in ("", line["hardware"])
    }
