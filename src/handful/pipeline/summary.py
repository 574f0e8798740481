"""Sum up a run in short sentences, for people who have not read the documentation."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from handful.csv_files import read_csv
from handful.data.checks import spelling_problems
from handful.data.class_names import normalized
from handful.data.source_names import is_folder
from handful.evaluation.accuracy_estimate import NO_BETTER
from handful.output import next_folder
from handful.pipeline.artifacts import (
    ISSUES,
    LABEL_NEXT,
    LABELS,
    OUT_OF_FOLD,
    PREDICTIONS,
    REPORT,
)
from handful.pipeline.run import Run
from handful.text import (
    FEW,
    NO_FIGURE,
    about_right,
    counted,
    may_guess,
    name_in_text,
    nearly_always,
    promise_in_words,
    sentence,
    shell_command,
    some_names,
    sure_answers,
    times_of,
    withheld,
)

WEAK = 0.15  # recall below the accuracy at which a class counts as weak
SHOWN = 3  # weak classes that are named, at most
MOST_CAVEATS = 3  # that are shown; the report has all
FEWEST = 3  # labels of a class below which nothing is said of it
BY_CHANCE = 0.1  # most that so few right answers may be likely in a class as easy as the average
CLASSES = 5  # that are named
FEWER = 0.9  # groups for each labelled image below which they are worth a sentence


class Weak(NamedTuple):
    """A class that is recognised less often than the others."""

    name: str
    n: int  # labelled images of the class that count in the estimate
    right: int  # of these, out of fold
    taken_for: str  # the class that it is most often taken for
    times: int


def summary(run: Run, source: str) -> list[str]:
    """Return what a run gives, one sentence a line: data, accuracy, weak classes, then next steps.

    Args:
        run: saved to a folder.
        source: the images that it learned from, as typed.
    """
    spelling = spelling_problems(run.record["data"]["classes"])
    said = [*_data(run), *spelling, *_accuracy(run), *_answers(run)]
    return [*map(sentence, said), *_next(run, source)]


def _data(run: Run) -> list[str]:
    data = run.record["data"]
    classes = data["classes"]
    names = some_names(classes, CLASSES)
    test = f", {data['test']:,} to test" if data["test"] else ""
    if run.record["interim"] and not data["unlabeled"]:  # the others were not read yet
        return [f"{first_learned(data)}; {len(classes)} classes: {names}"]
    return [
        f"{counted(data['labeled'] + data['unlabeled'], 'image')}: {data['labeled']:,} with a "
        f"label, {data['unlabeled']:,} without{test}; {len(classes)} classes: {names}"
    ]


def first_learned(data: Mapping[str, Any]) -> str:
    """What the first classifier has learned from, and what it has not read.

    Args:
        data: of an interim run.
    """
    learned, whole = data["labeled"], data.get("whole")
    if whole is None:
        return f"{counted(learned, 'image')} with a label"
    labels, others = whole["labeled"], whole["images"] - whole["labeled"]
    all_images = f"{counted(whole['images'], 'image')}: {labels:,} with a label"
    if learned < labels:
        all_images += f", of which this first classifier has learned {learned:,}"
    if others > 0:
        all_images += f", {others:,} without, which were not read yet"
    return all_images


def _accuracy(run: Run) -> list[str]:
    estimate = run.estimate
    if estimate is None:
        return ["how often it is right was not estimated (--estimate none)", *_tested(run)]
    known = estimate["accuracy"] is not None  # `how_right` says whether it guesses
    others = [one for one in estimate["caveats"] if not one.startswith(NO_BETTER)] if known else []
    caveats = others[:MOST_CAVEATS]
    by_folder = (
        may_guess(estimate)
        and run.folder is not None
        and labels_by_folder(
            run.record, {row["file"]: row["label"] for row in read_csv(run.folder / LABELS)}
        )
    )
    said = [how_right(estimate, group_count(run.record), by_folder), *_grouped(run), *caveats]
    if before := earlier_in_words(run.record):
        said += [before, *_compared(estimate, run.record["after"]["estimate"])]
    said += _tested(run)
    if run.record["interim"]:
        said.append(
            "the fit ended early; the same command goes on and, with enough time, makes it better"
        )
    if withheld(estimate) in NO_FIGURE:
        return said
    said += [_weak_in_words(weak) for weak in weak_classes(run)]
    said += _sure(estimate)
    if estimate.get("rough") and not withheld(estimate) and not run.record["interim"]:
        said.append("the report says how to learn what more labels should bring")
    for row in run.record.get("forecast", [])[:1]:
        if not nearly_always(row["accuracy"], row["low"]):
            said.append(f"with {row['labels']:,} labels: {about_right(row)}")
    return said


def earlier_in_words(record: Mapping[str, Any]) -> str:
    """How often the run before this one was right; "" where there is none or it is not known."""
    after = record["after"] or {}
    before = after.get("estimate")
    if before is None or before["accuracy"] is None:
        return ""
    return f"the earlier run, from {counted(after['labeled'], 'label')}: {about_right(before)}"


def how_right(estimate: Mapping[str, Any], groups: int = 0, by_folder: bool = False) -> str:
    """Say how often a run is right, and what to do where the labels do not tell.

    Args:
        groups: number of groups that the labelled images are of; 0 where each is one.
        by_folder: whether the labels are the names of folders, which may be sites instead.
    """
    n = estimate.get("n", FEW)  # runs of earlier versions may lack it
    why = withheld(estimate)
    if why == "unknown":
        return f"how often it is right is not known: {estimate['how']}"
    if why == "few":
        return (
            f"{about_right(estimate)} on new images; {counted(n, 'label')} of random images "
            f"{'is' if n == 1 else 'are'} too few for a figure, which takes {FEW}"
        )
    if why == "guessing" and 0 < groups < FEW:
        return (
            f"how often it is right on new images cannot be told from {counted(groups, 'group')} "
            f"(sites, scenes or copies); label images of more of them"
        )
    if why == "guessing":
        sites = (
            ". The classes are the names of sub-folders: if these are sites, cameras or dates, "
            "label some images (handful label) and give --folders groups"
        )
        return (
            f"{NO_BETTER}, as far as {counted(n, 'label')} can tell; check a few "
            f"labels, or label more images{sites if by_folder else ''}"
        )
    if why == "all":
        few = (
            f"they are of {counted(groups, 'group')} (sites, scenes or copies) only: images of "
            f"more of them give a figure"
            if groups
            else "too few are wrong for a figure"
        )
        return (
            f"{about_right(estimate)} on new images. This is the lower end of what may be: nearly "
            f"all of {counted(n, 'label')} were predicted rightly, but {few}"
        )
    return about_right(estimate, " on new images", f", {times_of(estimate['level'])}")


def _grouped(run: Run) -> list[str]:
    """Say that the labels are of fewer groups, which are never split."""
    if (run.record.get("groups") or {}).get("signs"):
        return []  # a caveat says it of groups that were found
    scenes, why = group_count(run.record), withheld(run.estimate)
    if not scenes or (why == "guessing" and scenes < FEW):  # `how_right` says it then
        return []
    labels = run.record["groups"]["labels"]
    what = "" if why in NO_FIGURE else ": the figure is for images of new groups"
    return [
        f"the {labels:,} labelled images are of {counted(scenes, 'group')} (sites, scenes or "
        f"copies), which are kept together{what}"
    ]


def labels_by_folder(record: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a run took its labels from the names of folders.

    Args:
        labels: of the run, file → label. Where an earlier version did not record it, they tell: all
            are names of folders that the files are in.
    """
    recorded = record["data"].get("labels_by_folder")
    if recorded is not None:
        return bool(recorded)
    return bool(labels) and all(
        label in map(normalized, file.split("/")[:-1]) for file, label in labels.items()
    )


def group_count(record: Mapping[str, Any]) -> int:
    """The number of groups of the labelled images; 0 where nearly each image is one."""
    groups = record.get("groups") or {}
    labels, scenes = groups.get("labels", 0), groups.get("scenes", 0)
    return scenes if 0 < scenes < FEWER * labels else 0


def _tested(run: Run) -> list[str]:
    test = run.test
    return [f"on {counted(test['n'], 'test image')}: {about_right(test)}"] if test else []


def _compared(now: Mapping[str, Any], before: Mapping[str, Any]) -> list[str]:
    """Say what the figures of a run and of the earlier one tell together."""
    if now["accuracy"] is None or {withheld(now), withheld(before)} & {"few", "guessing"}:
        return []  # no figures to compare
    if now["high"] >= before["low"] and before["high"] >= now["low"]:
        return ["these labels cannot tell the two runs apart"]
    if now["accuracy"] > before["accuracy"]:
        return []
    return [
        "it is worse than before: the new labels may be of other images than the first ones, or "
        f"some may be wrong: see {ISSUES}"
    ]


def quote(path: Path) -> str:
    """A path as a shell takes it."""
    return shlex.quote(str(path))


def weak_classes(run: Run) -> list[Weak]:
    """Return the classes that are recognised clearly less often than others, the surest first.

    They are read from the out-of-fold predictions in the folder of the run, of the labels that
    count in the estimate: so they are in the matrix of the report.
    """
    if run.folder is None or not (run.folder / OUT_OF_FOLD).exists():
        return []
    of_labels = read_csv(run.folder / LABELS) if (run.folder / LABELS).exists() else []
    chosen = {row["file"] for row in of_labels if row.get("origin") == "chosen"}
    rows = read_csv(run.folder / OUT_OF_FOLD)
    return _weak(
        [
            (row.get("label", ""), row.get("guess", ""))
            for row in rows
            if row.get("file") not in chosen
        ]
    )


def _weak(pairs: Sequence[tuple[str, str]]) -> list[Weak]:
    """The classes in which so few right answers are no chance, the least likely by chance first."""
    from scipy.special import bdtr  # faster to import than scipy.stats

    everything = sum(label == guess for label, guess in pairs) / max(len(pairs), 1)
    found = []
    for name in dict.fromkeys(label for label, _ in pairs):
        guesses = Counter(guess for label, guess in pairs if label == name)
        n, right = guesses.total(), guesses.pop(name, 0)
        if n < FEWEST or not guesses or right / n >= everything - WEAK:
            continue
        # The probability of so few right answers if each were right as often as all are.
        if (chance := bdtr(right, n, everything)) <= BY_CHANCE:
            other, times = guesses.most_common(1)[0]
            found.append((chance, Weak(name, n, right, other, times)))
    return [weak for _, weak in sorted(found)[:SHOWN]]


def _weak_in_words(weak: Weak) -> str:
    return (
        f"weak: {name_in_text(weak.name)}, right for {weak.right} of {weak.n}, most often taken "
        f"for {name_in_text(weak.taken_for)}"
    )


def _sure(estimate: Mapping[str, Any]) -> list[str]:
    """Say which share of new images is answered where only sure answers count."""
    return [
        f"sure answers only (--abstain {row['sure']:g}): {promise_in_words(row)}"
        for row in sure_answers(estimate)[-1:]
    ]


def _answers(run: Run) -> list[str]:
    if run.folder is None or (run.folder / PREDICTIONS).exists():
        return []
    data = run.record["data"]
    if run.record["interim"] and data.get("whole") is None:
        return ["this classifier has seen the images with a label only"]
    return []


def _label_next(folder: Path, source: str, boxes: Mapping[str, Any] | None) -> list[str]:
    """Say how to fill in the list of images to label, and the command that learns from it."""
    table = folder / LABEL_NEXT
    words = ["fit", source, "--labels", table, "--after", folder, "--out", next_folder(folder)]
    words += ["--boxes", boxes["file"]] if boxes else []
    start = "improve" if boxes else "        or"
    return [f"{start} fill in {quote(table)}, then", f"        {shell_command(*words)}"]


def _next(run: Run, source: str) -> list[str]:
    folder = run.folder
    if folder is None:
        return []
    steps = []
    if (folder / PREDICTIONS).exists():
        pool = counted(run.record["data"]["unlabeled"], "other image")
        guesses = "; any of these answers may be a guess" if may_guess(run.estimate) else ""
        steps.append(f"answers {quote(folder / PREDICTIONS)}: the {pool}, classified{guesses}")
    issues = run.record["label_issues"]
    if issues:
        steps.append(f"check   {quote(folder / ISSUES)}: {counted(issues, 'label')} may be wrong")
    steps.append(f"look    {quote(folder / REPORT)}")
    boxes = run.record["data"].get("boxes")
    if run.record.get("label_next") and (boxes or is_folder(source)):
        if not boxes:
            steps.append(f"improve {shell_command('label', source, '--after', folder)}")
        steps += _label_next(folder, source, boxes)
    new = ("MORE-PHOTOS", "--boxes", "THEIR-BOXES", "--by-photo", "by-photo.csv")
    more = new if boxes else ("MORE-IMAGES", "--into", "sorted")
    steps.append(f"use     {shell_command('predict', folder, *more)}")
    return steps
