"""Fair comparisons: every method on the same draws of labels, each scored once on the test part.

A cell is one method on one draw: the fit that `handful fit --per-class P --seed DRAW` does. Cells
are saved as they finish, and found again by the same comparison; it may grow by draws and methods.
What is fitted gets no test part at all; a cell's test labels are read in `_score`, once, after it.

Differences between methods are taken draw by draw, which rules out what a lucky draw does to all.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from handful import methods
from handful.data.checks import check as inspect
from handful.data.imageset import ImageSet
from handful.data.store import Vanished
from handful.data.vanished import on_the_rest, say_left_out
from handful.errors import HandfulError
from handful.files import read_json, sole_writer, tidy, write_json
from handful.pipeline.fit import fit
from handful.pipeline.options import InputSpec
from handful.pipeline.pretrained import scaled_as
from handful.pipeline.record_schema import CellRecord, checked
from handful.pipeline.run import Run
from handful.pipeline.setup import hide, prepare, rehearse
from handful.progress import QUIET, Reporter
from handful.text import duration
from handful.training.failure import recorded_failures
from handful.training.settings import fingerprint

LEVEL = 0.9  # of the intervals, over draws
MARK, RESULT = "fingerprint.json", "comparison.json"


@dataclass(frozen=True)
class Cell:
    """One method on one draw."""

    method: str
    draw: int
    test_accuracy: float
    estimate: dict[str, Any] | None  # as in run.json; None if it was not asked for
    seconds: float  # of the fit and its estimate
    trouble: str = ""  # what went wrong in the training; empty where nothing did


class Spread(NamedTuple):
    """Mean over n draws, and the interval of Student's t around it; None for a single draw."""

    mean: float
    std: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Comparison:
    """All cells, by draw and method in the order asked for."""

    methods: tuple[str, ...]
    draws: tuple[int, ...]
    cells: tuple[Cell, ...]
    data: dict[str, Any] = field(default_factory=dict)  # what it was made on

    def accuracies(self, method: str) -> list[float]:
        """Test accuracy on each of `draws`."""
        found = {cell.draw: cell.test_accuracy for cell in self.cells if cell.method == method}
        return [found[draw] for draw in self.draws]

    def differences(self, a: str, b: str) -> list[float]:
        """Accuracy of `a` minus that of `b`, on each of `draws`."""
        pairs = zip(self.accuracies(a), self.accuracies(b), strict=True)
        return [of_a - of_b for of_a, of_b in pairs]

    def as_json(self) -> dict[str, Any]:
        """Cells, one summary for each method, one difference (a minus b) for each pair."""
        summary = [
            {"method": method, **spread(self.accuracies(method))._asdict()}
            for method in self.methods
        ]
        paired = []
        for b, a in combinations(self.methods, 2):
            mean, _, low, high, n = spread(self.differences(a, b))
            paired.append({"a": a, "b": b, "difference": mean, "low": low, "high": high, "n": n})
        cells = [asdict(cell) for cell in self.cells]
        return {"data": self.data, "cells": cells, "summary": summary, "paired": paired}


def spread(values: Sequence[float], level: float = LEVEL) -> Spread:
    """Mean, standard deviation and the t interval of the mean, which needs two values or more."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Spread(mean, None, None, None, n)
    std = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * std / n**0.5
    return Spread(mean, std, mean - half, mean + half, n)


@on_the_rest
def compare(
    images: ImageSet,
    names: Sequence[str],
    draws: Iterable[int],
    per_class: int,
    out: Path | str,
    *,
    estimate: str = "folds",
    settings: Mapping[str, str] | None = None,
    reporter: Reporter = QUIET,
    **options: Any,
) -> Comparison:
    """Fit every method on every draw and score each on the test part, which `images` must have.

    Files that vanish meanwhile are said and left out of what comes after; cells that are made stay.

    Args:
        names: of the methods.
        draws: seeds; each chooses `per_class` labels of every class, and is the seed of its fits.
        out: folder for the cells. Those that are in there already are not done again; a folder
            that holds another comparison is refused.
        estimate: "folds" or "none", as in `fit`.
        settings: as in `fit`, for all methods, or for one: `features.strength` → "0.01".
        options: backbone, init, size, aspect, flips and precision, as in `fit`.
    """
    draws, folder = tuple(draws), Path(out)
    images = scaled_as(images, options.get("init"), reporter.say)
    _check(images, names, draws)
    own = _settings_of(names, settings or {})
    marks = {
        name: _rehearsed(images, name, per_class, draws[0], own[name], options) for name in names
    }
    assert images.test is not None
    shared = fingerprint(images.hash, images.test.hash, per_class, estimate)
    with sole_writer(folder):
        _claim(folder, shared)
        for problem in inspect(images, near=False).problems:
            reporter.say(problem.text)
        known = _known(folder, names, draws, marks)
        todo = [(draw, name) for draw in draws for name in names if (name, draw) not in known]
        for done, (draw, name) in enumerate(todo, 1):
            begun = time.perf_counter()
            seen, listed = hide(images[:], per_class, draw), len(images.store.skipped)
            run = fit(
                seen,
                name,
                seed=draw,
                estimate=estimate,
                origins=dict.fromkeys(seen.names, "random"),
                settings=own[name],
                reporter=Reporter(reporter.track),
                **options,
            )
            seconds = round(time.perf_counter() - begun, 2)
            accuracy = _score(run, images, reporter)
            say_left_out(images.store.skipped[listed:], reporter.say)
            cell = Cell(name, draw, accuracy, run.estimate, seconds, recorded_failures(run.record))
            write_json(_path(folder, name, draw), {"settings": marks[name]} | asdict(cell))
            known[name, draw] = cell
            reporter.say(
                f"{name}, draw {draw}: {accuracy:.1%} in {seconds:.0f} s"
                + (f"; its training went wrong: {cell.trouble}" if cell.trouble else "")
                + _left(known.values(), todo[done:])
            )
        cells = tuple(known[name, draw] for draw in draws for name in names)
        data = {
            "source": images.source,
            "per_class": per_class,
            "classes": images.num_classes,
            "test": len(images.test.labeled),
        }
        comparison = Comparison(tuple(names), draws, cells, data)
        write_json(folder / RESULT, comparison.as_json())
        tidy(folder)
    return comparison


def _score(run: Run, images: ImageSet, reporter: Reporter) -> float:
    """Accuracy on the test part: its labels are read here, after the fit, and nowhere else."""
    assert images.test is not None
    return run.evaluate(images.test, reporter.track).accuracy


def _check(images: ImageSet, names: Sequence[str], draws: Sequence[int]) -> None:
    if images.test is None or not len(images.test.labeled):
        raise HandfulError(
            f"{images.source} has no labelled test part to compare on; set one aside with "
            f"--test-fraction 0.3"
        )
    if not names or not draws:
        raise HandfulError(
            f"a comparison needs a method and a draw at least, got {len(names)} methods and "
            f"{len(draws)} draws"
        )
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise HandfulError(f"method {twice[0]!r} is named twice; name each method once")
    for name in names:
        methods.make(name)


def _settings_of(names: Sequence[str], settings: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The settings of each method: those with its name before the dot, and those of all."""
    own: dict[str, dict[str, str]] = {name: {} for name in names}
    for key, value in settings.items():
        owner, _, field = key.partition(".")
        if owner in methods.METHODS and owner not in own:
            raise HandfulError(
                f"--set {key} is for a method that is not compared: add it or leave out"
            )
        for name in names if owner not in own else (owner,):
            own[name][field if owner in own else key] = value
    return own


def _rehearsed(
    images: ImageSet,
    name: str,
    per_class: int,
    draw: int,
    settings: dict[str, str],
    options: dict[str, Any],
) -> str:
    """Fingerprint of all that a method's cells are made with; raises what is wrong with it."""
    try:
        given = {key: options[key] for key in ("backbone", "init") if key in options}
        looked = {key: value for key, value in options.items() if key not in given}
        seen = hide(images[:], per_class, draw)
        chosen, task = prepare(seen, name, inputs=InputSpec(**looked), settings=settings, **given)
        rehearse(chosen, task, draw)
    except Vanished:  # for `on_the_rest`
        raise
    except HandfulError as error:
        raise HandfulError(f"{name}: {error}") from None
    start = [] if task.init is None else [task.init.hash]
    return fingerprint(chosen.as_json(), task.size, task.aspect, task.flips, *start)


def _claim(folder: Path, mark: str) -> None:
    """Make the folder this comparison's; HandfulError if it holds something else."""
    if (folder / MARK).exists():
        if read_json(folder / MARK) != mark:
            raise HandfulError(
                f"{folder} holds a comparison of other images, labels per class or estimates; "
                f"give another --out"
            )
    elif any(not path.name.startswith(".") for path in folder.iterdir()):
        raise HandfulError(f"{folder} holds other files; give --out a folder that is new or empty")
    else:
        write_json(folder / MARK, mark)


def _path(folder: Path, name: str, draw: int) -> Path:
    return folder / f"{name}-{draw}.json"


def _known(
    folder: Path, names: Sequence[str], draws: Sequence[int], marks: Mapping[str, str]
) -> dict[tuple[str, int], Cell]:
    """Cells that are there already; HandfulError if they were made with other settings."""
    known = {}
    for name in names:
        for draw in draws:
            if not (path := _path(folder, name, draw)).exists():
                continue
            found = dict(checked(CellRecord, read_json(path), path))
            if found.pop("settings", None) != marks[name]:
                raise HandfulError(
                    f"{path} is a cell of {name} with other settings; give another --out, or "
                    f"delete the file to have it made again"
                )
            keys = [field.name for field in fields(Cell) if field.name in found]
            known[name, draw] = Cell(**{key: found[key] for key in keys})
    return known


def _left(done: Iterable[Cell], todo: Sequence[tuple[int, str]]) -> str:
    """How long the cells to do should take, once there is one of every method."""
    if not todo:
        return ""
    seconds: dict[str, list[float]] = {}
    for cell in done:
        seconds.setdefault(cell.method, []).append(cell.seconds)
    if any(name not in seconds for _, name in todo):
        return f"; {len(todo)} to go"
    total = sum(float(np.mean(seconds[name])) for _, name in todo)
    return f"; {len(todo)} to go, about {duration(total)}"
