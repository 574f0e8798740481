"""Prepare the page of a comparison: methods on equal draws of labels, or several runs."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from handful import methods
from handful.data import source_names
from handful.errors import HandfulError
from handful.files import read_json
from handful.methods.base import About
from handful.pipeline.compare import LEVEL, RESULT, Spread, spread, spread_of_shares
from handful.pipeline.record_schema import ComparisonRecord, checked
from handful.report import plots
from handful.report.plots import Plot
from handful.report.read import RunFolder
from handful.report.run import source_name
from handful.text import counted, listed, percent, points, sentence, span, time
from handful.training.failure import recorded_failures


class Fit(NamedTuple):
    """The result of one method on one draw of labels."""

    name: str  # shown name: the method's, with its folder where settings differ
    method: str
    draw: str  # name of the labels that it saw
    row: str  # row of the table: the draw, with the seed where a method saw a draw several times
    accuracy: float
    seconds: float
    estimate: dict[str, Any] | None
    trouble: str  # what went wrong in its training, or ""


@dataclass(frozen=True)
class Study:
    """The fits that are compared."""

    title: str
    about: str  # the data and the protocol, in sentences
    tested: bool  # whether accuracies are measured on test images; otherwise they are estimates
    fits: tuple[Fit, ...]
    commands: tuple[str, ...] = ()  # as they were typed
    # What the user changed, or what differs between the runs: (setting, value of each).
    changed: tuple[tuple[str, tuple[str, ...]], ...] = ()
    columns: tuple[str, ...] = ()  # headings of the values in `changed`

    @property
    def names(self) -> list[str]:
        """The shown names of the methods, in order."""
        return list(dict.fromkeys(fit.name for fit in self.fits))

    @property
    def rows(self) -> list[str]:
        """The rows of the table, in order."""
        return list(dict.fromkeys(fit.row for fit in self.fits))

    def of(self, name: str) -> list[Fit]:
        """The fits of the method with this shown name."""
        return [fit for fit in self.fits if fit.name == name]

    def by_draw(self, name: str) -> dict[str, float]:
        """Draw → mean accuracy of the method's fits on that draw, over seeds."""
        return _means((fit.draw, fit.accuracy) for fit in self.of(name))

    @property
    def troubles(self) -> list[tuple[str, str]]:
        """Failed trainings: which method on which labels, and what went wrong, as a sentence."""
        return [(f"{f.name} on {f.row}", sentence(f.trouble)) for f in self.fits if f.trouble]

    def table(self) -> tuple[tuple[str, tuple[float | None, ...]], ...]:
        """Each row with the accuracy of each method, or None where the method has no fit."""
        columns = [_means((fit.row, fit.accuracy) for fit in self.of(name)) for name in self.names]
        return tuple((row, tuple(column.get(row) for column in columns)) for row in self.rows)

    def differences(self, a: str, b: str) -> list[float]:
        """Accuracy of `a` minus accuracy of `b`, on every draw that both saw."""
        of_a, of_b = self.by_draw(a), self.by_draw(b)
        return [of_a[draw] - of_b[draw] for draw in of_a if draw in of_b]


def _means(found: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Key → mean of its values, with keys in order of appearance."""
    under: dict[str, list[float]] = {}
    for key, value in found:
        under.setdefault(key, []).append(value)
    return {key: fmean(values) for key, values in under.items()}


@dataclass(frozen=True)
class Standing:
    """One method's results among those of the others."""

    name: str
    colour: str  # a CSS variable
    about: About
    found: Spread
    seconds: float  # mean over its fits
    held: tuple[int, int]  # (estimates whose interval holds the test accuracy, estimates)
    sentence: str


@dataclass(frozen=True)
class ComparisonPage:
    """The data of comparison.html."""

    study: Study
    verdict: tuple[str, ...]
    overall: Plot
    differences: Plot | None
    cost: Plot
    table: tuple[tuple[str, tuple[float | None, ...]], ...]
    standings: tuple[Standing, ...]
    level: float


def of_folder(folder: Path) -> Study:
    """Read the folder of `handful compare`; HandfulError if its file is damaged."""
    kept = checked(ComparisonRecord, read_json(folder / RESULT), folder / RESULT)
    data = kept.get("data") or {}
    fits = tuple(
        Fit(
            str(cell["method"]),
            str(cell["method"]),
            f"draw {cell['draw']}",
            f"draw {cell['draw']}",
            float(cell["test_accuracy"]),
            float(cell["seconds"]),
            cell["estimate"],
            str(cell.get("trouble", "")),
        )
        for cell in kept["cells"]
    )
    names = list(dict.fromkeys(fit.name for fit in fits))
    source = source_names.source_name(str(data["source"])) if data else folder.name
    about = (
        "In a draw, every method saw the same labels, and was scored once on the same test images."
    )
    if data:
        about = (
            f"{counted(int(data['per_class']), 'label')} of each of {data['classes']} classes, "
            f"chosen anew in each draw. {about} There are {data['test']:,} of them."
        )
    command = shlex.join(["handful", *kept["command"]]) if kept.get("command") else ""
    changed = tuple((key, (value,)) for key, value in kept.get("changed", {}).items())
    return Study(
        f"{_title(names)} on {source}",
        about,
        True,
        fits,
        (command,) if command else (),
        changed,
        ("value",),
    )


def of_runs(runs: Sequence[RunFolder]) -> Study:
    """Compare several runs; runs with equal images and labels are of one draw.

    HandfulError for a run without a test score or an estimate.
    """
    tested = all(run.record["test"] is not None for run in runs)
    names, draws = _names(runs), _draws(runs)
    rows = _rows(runs, names, draws)
    fits = []
    for run, name, draw, row in zip(runs, names, draws, rows, strict=True):
        record = run.record
        found = record["test"] if tested else record["estimate"]
        if found is None or found["accuracy"] is None:
            raise HandfulError(
                f"{run.folder} has neither a test score nor an estimate to compare; score it with "
                f"handful evaluate, or leave it out"
            )
        fits.append(
            Fit(
                name,
                str(record["method"]["name"]),
                draw,
                row,
                float(found["accuracy"]),
                float(record["seconds"]),
                record["estimate"],
                recorded_failures(record),
            )
        )
    sources = list(dict.fromkeys(source_name(run.record) for run in runs))
    about = f"{counted(len(runs), 'run')}; those on one line of the table saw the same labels."
    if rows != draws:
        about += " Several fits of a method on the same labels count as one draw, with their mean."
    if not tested:
        about += " Not all have a test part, so what is compared are their estimates."
    if len(sources) > 1:
        about += " Their images differ: accuracies on different images do not compare."
    typed = [run.record.get("command") for run in runs]
    return Study(
        f"{_title(list(dict.fromkeys(names)))} on {listed(sources)}",
        about,
        tested,
        tuple(fits),
        tuple(dict.fromkeys(shlex.join(["handful", *words]) for words in typed if words)),
        _differing(runs),
        tuple(_short_paths([run.folder for run in runs])),
    )


def _differing(runs: Sequence[RunFolder]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Each setting that is not equal in all runs, with its value in each; – where it has none."""
    settings = [_flat_settings(run.record) for run in runs]
    keys = dict.fromkeys(key for one in settings for key in one)
    values = {key: tuple(one.get(key, "–") for one in settings) for key in keys}
    return tuple((key, row) for key, row in values.items() if len(set(row)) > 1)


def _flat_settings(record: dict[str, Any]) -> dict[str, str]:
    """The settings of a run by name."""
    method, network = dict(record["method"]), record["backbone"]
    found = {"method": method.pop("name"), **method}
    found |= {f"schedule.{key}": value for key, value in (record["schedule"] or {}).items()}
    found |= {"backbone": network["name"]}
    found |= {f"backbone.{key}": value for key, value in network.get("options", {}).items()}
    found |= {key: record["input"][key] for key in ("size", "aspect", "flips")}
    found |= {"budget": record["training"].get("budget"), "seed": record["seed"]}
    return {key: str(value) for key, value in found.items() if value is not None}


def _title(names: list[str]) -> str:
    return listed(names) if len(names) <= 4 else f"{len(names)} methods"


def _names(runs: Sequence[RunFolder]) -> list[str]:
    """A name for each run: its method, with its folder where settings or sources differ."""
    made = [_settings(run.record) for run in runs]
    names = [str(run.record["method"]["name"]) for run in runs]
    first = {settings: run.folder for run, settings in reversed(list(zip(runs, made, strict=True)))}
    folders = dict(zip(first, _short_paths(list(first.values())), strict=True))
    shown = []
    for settings, name in zip(made, names, strict=True):
        alike = {other for other, its in zip(made, names, strict=True) if its == name}
        shown.append(name if len(alike) == 1 else f"{name} ({folders[settings]})")
    return shown


def _short_paths(folders: list[Path]) -> list[str]:
    """The ends of the folders' paths, of as few parts as make them differ."""
    paths = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, paths))):
        ends = ["/".join(parts[-count:]) for parts in paths]
        if len(set(ends)) == len(ends):
            return ends
    return [str(folder) for folder in folders]


def _settings(record: dict[str, Any]) -> str:
    """A key of the settings and the source of a run, without seeds and outcomes.

    Learned weights are an outcome. So is the number of steps within a budget, if estimates and
    other methods shared the budget alike. A given pretrained backbone is a setting.
    """
    method, schedule = dict(record["method"]), dict(record["schedule"] or {})
    staged, budget = record.get("stage") is not None, record["training"].get("budget")
    shared = None
    if staged:
        method.pop("seed", None)
    if budget is not None:
        schedule.pop("steps", None)
        shared = (record["estimate"] is not None, bool(record["choice"]))
    backbone = {k: v for k, v in record["backbone"].items() if k not in ("weights", "parameters")}
    given = None if staged else record["init"]
    source = record["data"]["source"]
    return str((method, schedule, backbone, record["input"], budget, shared, given, source))


def _draws(runs: Sequence[RunFolder]) -> list[str]:
    """A name for the labels that each run saw."""
    hashes = [str(run.record["data"]["hash"]) for run in runs]
    seen = list(dict.fromkeys(hashes))
    return [
        f"{counted(run.record['data']['labeled'], 'label')}, set {seen.index(its) + 1}"
        for run, its in zip(runs, hashes, strict=True)
    ]


def _rows(runs: Sequence[RunFolder], names: Sequence[str], draws: list[str]) -> list[str]:
    """The draw of each run, with the seed where one method saw a draw several times."""
    if len(set(zip(names, draws, strict=True))) == len(runs):
        return draws
    return [f"{draw}, seed {run.record['seed']}" for run, draw in zip(runs, draws, strict=True)]


def page(study: Study) -> ComparisonPage:
    """Prepare the page; every method keeps its place and its colour throughout."""
    names = study.names
    found = {name: spread_of_shares(list(study.by_draw(name).values())) for name in names}
    ranked = sorted(names, key=lambda name: -found[name].mean)
    rows = [
        plots.Row(
            name, [fit.accuracy for fit in study.of(name)], found[name].mean,
            found[name].low, found[name].high, names.index(name),
        )
        for name in ranked
    ]  # fmt: skip
    what = "accuracy on test images, %" if study.tested else "estimated accuracy, %"
    groups = [
        (
            plots.Series(
                name,
                [max(fit.seconds, 0.1) for fit in study.of(name)],
                [fit.accuracy for fit in study.of(name)],
            ),
            names.index(name),
        )
        for name in ranked
    ]
    return ComparisonPage(
        study=study,
        verdict=_verdict(study, ranked, found),
        overall=plots.dots(
            "All results", rows, what,
            note="A dot is one fit; the diamond is the mean over draws of labels, the bar the "
            f"interval of that mean ({percent(LEVEL, 0)}, Student's t).",
        ),
        differences=_differences(study, ranked),
        cost=plots.scatter(
            "Accuracy against time", groups,
            note="Up and to the left is better. Time includes the estimate where one was made.",
        ),
        table=study.table(),
        standings=tuple(_standing(study, name, ranked, found) for name in names),
        level=LEVEL,
    )  # fmt: skip


def _differences(study: Study, ranked: list[str]) -> Plot | None:
    """The plot of the leader's accuracy minus each other method's, on the draws that both saw."""
    leader, *others = ranked
    rows = []
    for other in others:
        apart = study.differences(leader, other)
        if apart:
            mean, _, low, high, _ = spread(apart)
            colour = study.names.index(other)
            rows.append(plots.Row(f"{leader} − {other}", apart, mean, low, high, colour))
    if not rows:
        return None
    return plots.dots(
        f"{leader} minus the others", rows, "percentage points", zero=True,
        note="Differences within each draw, so that draws that are easy for all methods cancel. "
        "Right of the line the leader is ahead.",
    )  # fmt: skip


def _verdict(study: Study, ranked: list[str], found: dict[str, Spread]) -> tuple[str, ...]:
    """Sentences on which method leads, how clearly, and how often the estimates held."""
    leader = ranked[0]
    said = []
    if len(ranked) > 1:
        second = ranked[1]
        both = study.differences(leader, second)
        apart = spread(both or [0.0])
        mean = percent(found[leader].mean)
        if apart.low is None or apart.high is None:
            common = "one draw in common" if both else "no draw in common"
            said.append(
                f"{leader} has {mean}, {second} {percent(found[second].mean)}: {common}, which "
                f"says little. Compare on five or more."
            )
        elif apart.low > 0:
            said.append(
                f"{leader} leads with {mean} on average, ahead of {second} by "
                f"{100 * apart.mean:.1f} points ({_between(apart)})."
            )
        else:
            said.append(
                f"{leader} has the highest mean, {mean}, but is not clearly ahead of {second}: "
                f"the difference is {points(apart.mean)} points ({_between(apart)})."
            )
        if len(ranked) > 2:
            said.append(
                "The leader was picked by these figures, so its lead looks a little too large."
            )
    held, judged = _held(study, study.fits)
    if judged and study.tested:
        said.append(
            f"The interval of the estimate, made without the test part, held the test accuracy in "
            f"{held} of {judged} fits; nine in ten are expected."
        )
    return tuple(said)


def _between(apart: Spread) -> str:
    return f"{points(apart.low)} to {points(apart.high)}"


def _held(study: Study, fits: Sequence[Fit]) -> tuple[int, int]:
    """(Estimates whose interval holds the test accuracy, estimates); (0, 0) without tests."""
    judged = [
        (float(fit.estimate["low"]) <= fit.accuracy <= float(fit.estimate["high"]))
        for fit in fits
        if study.tested and fit.estimate is not None and fit.estimate["accuracy"] is not None
    ]
    return sum(judged), len(judged)


def _standing(study: Study, name: str, ranked: list[str], found: dict[str, Spread]) -> Standing:
    fits = study.of(name)
    seconds = sum(fit.seconds for fit in fits) / len(fits)
    return Standing(
        name=name,
        colour=plots.variable(study.names.index(name)),
        about=methods.about(fits[0].method),
        found=found[name],
        seconds=seconds,
        held=_held(study, fits),
        sentence=_sentence(study, name, ranked, found, seconds),
    )


def _sentence(
    study: Study, name: str, ranked: list[str], found: dict[str, Spread], seconds: float
) -> str:
    """A sentence on the method's results: mean, time, failures and the gap to the best other."""
    mean, std, low, high, n = found[name]
    fits = study.of(name)
    over = f"over {n} draws" if n > 1 else "on one draw"
    if len(fits) > n:
        over += f", {len(fits)} fits"
    said = f"Here {percent(mean)} {over}"
    if low is not None and high is not None:
        said += f" (mean within {span(low, high)})"
    said += f", in {time(seconds)} a fit"
    if wrong := sum(bool(fit.trouble) for fit in fits):
        said += f", of which training went wrong in {wrong}"
    rivals = [other for other in ranked if other != name]
    if not rivals:
        return said + "."
    rival = rivals[0]
    apart = study.differences(name, rival)
    if not apart:
        return said + "."
    lead = spread(apart)
    if lead.low is not None and lead.high is not None and lead.low <= 0 <= lead.high:
        apart_by = f"{points(lead.mean)} points, {_between(lead)}"
        return f"{said}; no clear difference to {rival} ({apart_by})."
    side = "ahead of" if lead.mean > 0 else "behind"
    return f"{said}; {100 * abs(lead.mean):.1f} points {side} {rival}."
