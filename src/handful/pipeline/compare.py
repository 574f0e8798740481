"""Compare methods on the same draws of labels; each fit is scored once on the test part.

A cell is one method on one draw: the fit of `handful fit --per-class P --seed DRAW`. Cells are
saved as they finish, and read by a later call, which may add draws and methods. A fit gets no test
part; its test labels are read in `_score`, once, afterwards.

Differences between methods are paired by draw, so the variation between draws cancels.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from handful import methods
from handful.clusters import Job, check_address, cluster
from handful.data.checks import check as inspect
from handful.data.imageset import ImageSet
from handful.data.source_names import redacted
from handful.data.store import Vanished
from handful.data.vanished import on_the_rest, say_left_out
from handful.errors import HandfulError
from handful.files import read_json, sole_writer, tidy, write_json
from handful.methods.base import Trained
from handful.pipeline.cross_validate import FOLDS
from handful.pipeline.fit import fit
from handful.pipeline.options import InputSpec
from handful.pipeline.pretrained import on_scale_of
from handful.pipeline.record_schema import CellRecord, checked
from handful.pipeline.run import Run
from handful.pipeline.setup import prepare, subsample_labels, validate
from handful.progress import QUIET, Reporter
from handful.text import counted, duration, some_of
from handful.training.failure import recorded_failures
from handful.training.settings import make_fingerprint

LEVEL = 0.9  # of the intervals, over draws
FINGERPRINT, RESULT = "fingerprint.json", "comparison.json"


@dataclass(frozen=True)
class Cell:
    """One method on one draw."""

    method: str
    draw: int
    test_accuracy: float
    estimate: dict[str, Any] | None  # as in run.json; None with `estimate="none"`
    seconds: float  # of the fit and its estimate
    trouble: str = ""  # what went wrong in the training; empty where nothing did


class Spread(NamedTuple):
    """Mean, deviation and t interval over n draws; for one draw only the mean is known."""

    mean: float
    std: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Comparison:
    """All cells, by draw and then by method, in the given order."""

    methods: tuple[str, ...]
    draws: tuple[int, ...]
    cells: tuple[Cell, ...]
    data: dict[str, Any] = field(default_factory=dict)  # source, per_class, classes, test
    command: tuple[str, ...] = ()  # as it was typed; empty from Python
    changed: dict[str, str] = field(default_factory=dict)  # settings that are not the defaults

    def accuracies(self, method: str) -> list[float]:
        """Return the test accuracy of a method on each of `draws`."""
        found = {cell.draw: cell.test_accuracy for cell in self.cells if cell.method == method}
        return [found[draw] for draw in self.draws]

    def differences(self, a: str, b: str) -> list[float]:
        """Return the test accuracy of `a` minus that of `b` on each of `draws`."""
        pairs = zip(self.accuracies(a), self.accuracies(b), strict=True)
        return [of_a - of_b for of_a, of_b in pairs]

    def as_json(self) -> dict[str, Any]:
        """Return cells, a summary of each method, and the difference a - b of each pair."""
        summary = [
            {"method": method, **spread_of_shares(self.accuracies(method))._asdict()}
            for method in self.methods
        ]
        paired = []
        for b, a in combinations(self.methods, 2):
            mean, _, low, high, n = spread(self.differences(a, b))
            paired.append({"a": a, "b": b, "difference": mean, "low": low, "high": high, "n": n})
        cells = [asdict(cell) for cell in self.cells]
        made = {"command": [redacted(word) for word in self.command], "changed": self.changed}
        return {"data": self.data, **made, "cells": cells, "summary": summary, "paired": paired}


def spread(values: Sequence[float], level: float = LEVEL) -> Spread:
    """Return mean, standard deviation and t interval of the mean; the latter need two values."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Spread(mean, None, None, None, n)
    std = float(np.std(values, ddof=1))
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * std / n**0.5
    return Spread(mean, std, mean - half, mean + half, n)


def spread_of_shares(values: Sequence[float], level: float = LEVEL) -> Spread:
    """`spread` of shares in [0, 1], such as accuracies, whose interval stays there."""
    found = spread(values, level)
    if found.low is None or found.high is None:
        return found
    return found._replace(low=max(found.low, 0.0), high=min(found.high, 1.0))


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
    command: Sequence[str] = (),
    on: str | None = None,
    **options: Any,
) -> Comparison:
    """Fit every method on every draw and score each fit on the test part of `images`.

    Files that vanish meanwhile are reported and left out of later cells; finished cells stay.

    Args:
        names: names of the methods.
        draws: seeds; each draws `per_class` labels of every class, and is the seed of its fits.
        out: folder for the cells. Finished cells in it are not computed again; a folder that
            holds another comparison is refused.
        estimate: "folds" or "none", as in `fit`.
        command: as it was typed, for the report.
        on: fit the cells on a cluster, each with one thread; see `handful.clusters.cluster`. Its
            machines see the images at the same paths. None: one after the other, here.
        settings: as in `fit`, for all methods, or for one: `features.strength` → "0.01".
        options: backbone, init, size, aspect, flips, precision and budget (of each fit), as in
            `fit`.

    Raises:
        HandfulError: there is no labelled test part, a method is unknown or named twice, or
            options do not fit together.
    """
    draws, folder = tuple(draws), Path(out)
    if on is not None:
        check_address(on)
    images = on_scale_of(images, options.get("init"), reporter.say)
    _check(images, names, draws)
    settings_of = _settings_of(names, settings or {})
    own = {name: {"estimate": estimate, "settings": settings_of[name], **options} for name in names}
    fingerprints = {
        name: _fingerprint_of(images, name, per_class, draws[0], settings_of[name], options)
        for name in names
    }
    assert images.test is not None
    shared = make_fingerprint(images.hash, images.test.hash, per_class, estimate)
    with sole_writer(folder):
        _acquire(folder, shared)
        for problem in inspect(images, near=False).problems:
            reporter.say(problem.said)
        saved = _saved_cells(folder, names, draws, fingerprints)
        todo = [(draw, name) for draw in draws for name in names if (name, draw) not in saved]
        if todo:
            reporter.say(_plan(todo, len(saved), estimate))
        for cell, at_once in _fitted_cells(images, todo, per_class, own, on, reporter):
            name, draw = cell.method, cell.draw
            write_json(_path(folder, name, draw), {"settings": fingerprints[name]} | asdict(cell))
            saved[name, draw] = cell
            todo.remove((draw, name))
            reporter.say(
                f"{name}, draw {draw}: {cell.test_accuracy:.1%} in {cell.seconds:.0f} s"
                + (f"; its training went wrong: {cell.trouble}" if cell.trouble else "")
                + _remaining(saved.values(), todo, at_once)
            )
        cells = tuple(saved[name, draw] for draw in draws for name in names)
        data = {
            "source": images.source,
            "per_class": per_class,
            "classes": images.num_classes,
            "test": len(images.test.labeled),
        }
        changed = _changed(options, settings or {})
        if estimate != "folds":
            changed["estimate"] = estimate
        comparison = Comparison(tuple(names), draws, cells, data, tuple(command), changed)
        write_json(folder / RESULT, comparison.as_json())
        tidy(folder)
    return comparison


def _changed(options: Mapping[str, Any], settings: Mapping[str, str]) -> dict[str, str]:
    """The options and settings that are not the defaults of `fit`."""
    usual = {field.name: field.default for field in fields(InputSpec)}
    given = {key: value for key, value in options.items() if value != usual.get(key)}
    return {key: str(value) for key, value in {**given, **settings}.items()}


def _fitted_cells(
    images: ImageSet,
    todo: Sequence[tuple[int, str]],
    per_class: int,
    options: dict[str, dict[str, Any]],
    on: str | None,
    reporter: Reporter,
) -> Iterator[tuple[Cell, int]]:
    """Yield the cells as they are fitted, with the number of cells that are fitted at a time.

    Args:
        todo: draws and names of methods.
        options: of each method.
        on: None: one after the other, here.
    """
    todo = tuple(todo)
    if on is None or not todo:
        for draw, name in todo:
            yield _fitted_cell(images, name, draw, per_class, options[name], reporter), 1
        return
    with cluster(on, reporter.say) as nodes:
        shared = nodes.share(images)
        jobs = (
            Job(None, f"{name}, draw {draw}", (shared, name, draw, per_class, options[name]))
            for draw, name in _longest_first(todo)
        )
        done = nodes.results(_fitted_cell, jobs)
        for _, cell in reporter.track(done, len(todo), "cells"):
            yield cell, nodes.at_once


def _longest_first(todo: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    """Cells of methods that train a network, then those of heads on features.

    A training takes minutes and a head seconds: with a training last, one process of a cluster
    would work while all others wait. The draws keep their order, since all cells of a
    self-supervised method wait for one pre-training.
    """
    return sorted(todo, key=lambda cell: not _trains(cell[1]))


def _trains(name: str) -> bool:
    """Whether a method trains a network."""
    return name in methods.METHODS and isinstance(methods.make(name), Trained)


def _fitted_cell(
    images: ImageSet,
    name: str,
    draw: int,
    per_class: int,
    options: dict[str, Any],
    reporter: Reporter,
) -> Cell:
    """Fit one method on one draw and score it on the test part."""
    begun = time.perf_counter()
    labeled_images = subsample_labels(images[:], per_class, draw)
    skipped_before = len(images.store.skipped)
    run = fit(
        labeled_images,
        name,
        seed=draw,
        origins=dict.fromkeys(labeled_images.names, "random"),
        reporter=Reporter(reporter.track),
        **options,
    )
    seconds = round(time.perf_counter() - begun, 2)
    accuracy = _score(run, images, reporter)
    say_left_out(images.store.skipped[skipped_before:], reporter.say)
    return Cell(name, draw, accuracy, run.estimate, seconds, recorded_failures(run.record))


def _score(run: Run, images: ImageSet, reporter: Reporter) -> float:
    """Return the accuracy on the test part, whose labels are read here and nowhere else."""
    assert images.test is not None
    return run.evaluate(images.test, track=reporter.track, say=reporter.say).accuracy


def _check(images: ImageSet, names: Sequence[str], draws: Sequence[int]) -> None:
    if images.test is None or not len(images.test.labeled):
        raise HandfulError(
            f"{images.source} has no labelled test part to compare on; set one aside with "
            f"--test-fraction 0.3"
        )
    if not names or not draws:
        raise HandfulError(
            f"a comparison needs at least one method and one draw, got {len(names)} methods and "
            f"{len(draws)} draws"
        )
    if twice := [name for name in names if list(names).count(name) > 1]:
        raise HandfulError(f"method {twice[0]!r} is named twice; name each method once")
    for name in names:
        methods.make(name)


def _settings_of(names: Sequence[str], settings: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the settings of each method: those with its name before the dot, and the common."""
    settings_of: dict[str, dict[str, str]] = {name: {} for name in names}
    for key, value in settings.items():
        owner, _, field = key.partition(".")
        if owner in methods.METHODS and owner not in settings_of:
            raise HandfulError(
                f"--set {key} is for a method that is not compared; add {owner} to the methods, or "
                f"leave out this setting"
            )
        for name in names if owner not in settings_of else (owner,):
            settings_of[name][field if owner in settings_of else key] = value
    return settings_of


def _fingerprint_of(
    images: ImageSet,
    name: str,
    per_class: int,
    draw: int,
    settings: dict[str, str],
    options: dict[str, Any],
) -> str:
    """Return the fingerprint of a method's settings; HandfulError if they do not fit together."""
    try:
        given = {key: options[key] for key in ("backbone", "init") if key in options}
        others = (*given, "budget")
        inputs = {key: value for key, value in options.items() if key not in others}
        labeled_images = subsample_labels(images[:], per_class, draw)
        resolved, task = prepare(
            labeled_images, name, inputs=InputSpec(**inputs), settings=settings, **given
        )
        validate(resolved, task, draw)
    except Vanished:  # for `on_the_rest`
        raise
    except HandfulError as error:
        raise HandfulError(f"{name}: {error}") from None
    more: list[Any] = [] if task.init is None else [task.init.hash]
    if options.get("budget") is not None:
        more.append(float(options["budget"]))
    return make_fingerprint(resolved.identity(task), task.size, task.aspect, task.flips, *more)


def _acquire(folder: Path, fingerprint: str) -> None:
    """Mark the folder with the comparison's fingerprint; HandfulError if it holds other files."""
    if (folder / FINGERPRINT).exists():
        if read_json(folder / FINGERPRINT) != fingerprint:
            raise HandfulError(
                f"{folder} holds a comparison of other images, labels per class or estimates; "
                f"give another --out"
            )
    elif any(not path.name.startswith(".") for path in folder.iterdir()):
        raise HandfulError(f"{folder} holds other files; give --out a folder that is new or empty")
    else:
        write_json(folder / FINGERPRINT, fingerprint)


def _path(folder: Path, name: str, draw: int) -> Path:
    return folder / f"{name}-{draw}.json"


def _saved_cells(
    folder: Path, names: Sequence[str], draws: Sequence[int], fingerprints: Mapping[str, str]
) -> dict[tuple[str, int], Cell]:
    """Return the finished cells in a folder; HandfulError if one has other settings."""
    saved = {}
    for name in names:
        for draw in draws:
            if not (path := _path(folder, name, draw)).exists():
                continue
            found = dict(checked(CellRecord, read_json(path), path))
            if found.pop("settings", None) != fingerprints[name]:
                raise HandfulError(
                    f"{path} is a cell of {name} with other settings; give another --out, or "
                    f"delete the file to have it made again"
                )
            keys = [field.name for field in fields(Cell) if field.name in found]
            saved[name, draw] = Cell(**{key: found[key] for key in keys})
    return saved


def _plan(todo: Sequence[tuple[int, str]], done: int, estimate: str) -> str:
    """Return a text on the cells to be fitted, before the first is.

    Args:
        todo: draws and names of methods.
        done: number of cells that are there.
    """
    draws, names = {draw for draw, _ in todo}, sorted({name for _, name in todo})
    text = f"{counted(len(todo), 'cell')} to fit: {some_of(names, 6)}, "
    text += counted(len(draws), "draw")
    text += f"; {done} are there already" if done else ""
    trained = [name for name in names if _trains(name)]
    if trained:
        times = f" {1 + FOLDS.folds} times" if estimate == "folds" else ""
        text += f"; a cell of {some_of(trained, 6)} trains a network{times}, which may take minutes"
    return text


def _remaining(done: Iterable[Cell], todo: Sequence[tuple[int, str]], at_once: int) -> str:
    """Return a text on the number of remaining cells and, if known, their expected time."""
    if not todo:
        return ""
    seconds: dict[str, list[float]] = {}
    for cell in done:
        seconds.setdefault(cell.method, []).append(cell.seconds)
    if any(name not in seconds for _, name in todo):
        return f"; {len(todo)} to go"
    total = sum(float(np.mean(seconds[name])) for _, name in todo)
    return f"; {len(todo)} to go, about {duration(total / min(at_once, len(todo)))}"
