"""Prepare the page of one run from the content of its folder.

Letters in shapes: n labelled images, K classes.
"""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from handful import methods, models
from handful.data import source_names
from handful.data.checks import spelling_problems
from handful.evaluation.active_learning import RANDOM
from handful.evaluation.calibration import HELD
from handful.evaluation.label_errors import CONTRADICTED
from handful.evaluation.metrics import equal_groups, evaluate
from handful.methods.base import About
from handful.methods.ensemble import Ensemble
from handful.output import next_folder
from handful.pipeline.artifacts import (
    ISSUES,
    LABEL_NEXT,
    LABELS,
    OUT_OF_FOLD,
    PREDICTIONS,
    RECORD,
    STAGE_HISTORY,
)
from handful.pipeline.summary import (
    earlier_in_words,
    first_learned,
    group_count,
    how_right,
    labels_by_folder,
)
from handful.pipeline.thumbnails import SHOWN, Augmented, answers, examples, mistakes
from handful.report import plots
from handful.report.plots import Plot
from handful.report.read import HeldOut, RunFolder
from handful.report.sentences import (
    Headline,
    Story,
    good_enough,
    headline,
    tell,
    why_no_forecast,
)
from handful.text import (
    GUESSES,
    NO_FIGURE,
    compared_with_chosen,
    counted,
    listed,
    may_guess,
    nearly_always,
    often,
    percent,
    promise_of,
    promises,
    sentence,
    time,
    withheld,
)
from handful.training.failure import recorded_failures

LARGEST = 25  # most classes for which a confusion matrix is shown
CONFUSED = 5  # pairs of classes listed as most confused
FEWEST = 10  # least test images in a group of the confidence plot
MOST_ROWS = 100  # rows of the table of classes, at most
SHOWN_TARGETS = (0.8, 0.85, 0.9, 0.95)
MOST_ANSWERED = 12  # classes whose answers are shown at once; those of the others are folded away

_LOSSES = ("labeled", "unlabeled", "supervised", "unsupervised", "total")
_CURVE_NAMES = {
    "loss": "total, augmented batches",
    "labeled": "supervised part",
    "supervised": "supervised part",
    "unlabeled": "unsupervised part",
    "unsupervised": "unsupervised part",
    "train_loss": "labelled images",
    "validation_loss": "validation images",
    "accuracy": "augmented batches",
    "train_accuracy": "labelled images",
    "validation_accuracy": "validation images",
    "kept": "unlabelled images used",
    "mask": "unlabelled images used",
    "agreement": "pseudo-labels that agree",
    "prior_distance": "distance from the label shares",
}

_STAGE_CURVES = {
    "loss": ("Loss", "The loss that pre-training minimises, without labels. Lower is better."),
    "light_to_color": (
        "Light to colour",
        "Mean probability of the right colours among the candidates. A constant network has 1 "
        "divided by the number of candidates.",
    ),
    "color_to_light": (
        "Colour to light",
        "Mean probability of the right lightness among the candidates.",
    ),
    "spread": ("Spread", "Spread of the features. At 0 they are equal for all images: a collapse."),
    "rank": (
        "Effective rank",
        "Number of directions that the features use. At 1 they lie on a line: a collapse.",
    ),
}

FILES = {
    PREDICTIONS: "the answers for the images without a label, with their probabilities",
    LABEL_NEXT: "images whose label would help most, to fill in",
    ISSUES: "labels that look wrong",
    OUT_OF_FOLD: "out-of-fold predictions for the labelled images",
    STAGE_HISTORY: "metrics of self-supervised pre-training, at every evaluation",
    LABELS: "the labels that were used, and how the images were picked",
    "model.safetensors": "the classifier",
    RECORD: "all settings and figures",
}


@dataclass(frozen=True)
class Cell:
    """A cell of a confusion matrix."""

    count: int
    share: float  # of the row's images
    right: bool  # whether it lies on the diagonal


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix with the most frequent confusions."""

    title: str
    n: int  # images
    rows: tuple[tuple[Cell, ...], ...]  # empty if there are more than LARGEST classes
    pairs: tuple[tuple[str, str, int, int], ...]  # label, guess, count (2 or more), images of label
    wrong: int  # images predicted wrongly
    said: str = ""  # what is counted, beside the figures of the estimate


@dataclass(frozen=True)
class Card:
    """An image of the run with its label and prediction."""

    file: str
    source: str  # a data: URL, or "" if the picture was not kept
    given: str = ""  # the label
    guess: str = ""  # the predicted class
    confidence: float | None = None  # probability of the predicted class
    text: str = ""  # why the image is listed


@dataclass(frozen=True)
class AnswerRow:
    """The answers of one class for the images without a label."""

    name: str
    count: int
    share: float  # of the images without a label
    surest: tuple[Card, ...]
    least_sure: tuple[Card, ...]


@dataclass(frozen=True)
class Page:
    """The data of run.html."""

    run: RunFolder
    title: str
    source: str  # name of the folder or data set
    links: bool  # whether the page lies in the run's folder, so that its files can be linked
    answers: tuple[AnswerRow, ...]  # the most frequent class first; empty if all images had labels
    at_once: int  # rows of `answers` that are not folded away
    no_answer: int  # images without an answer
    guesses: str  # that the answers may be guesses, and so are not shown; "" where they are
    right: str  # how often it is right, in a sentence
    spelling: tuple[str, ...]  # class names that may mean one class
    first_learned: str  # what an interim run has learned from, and what it has not read
    unforecast: str  # why it is not said what more labels would bring; "" where it is
    headline: Headline | None  # None without an estimate
    withheld: str  # why the accuracy is not said; "" where it is
    before: str  # how often the run before this one was right, in a sentence; ""
    enough: tuple[str, ...]  # is it good enough? in sentences
    forecast: tuple[Mapping[str, Any], ...]
    about: About
    story: Story
    trouble: str  # what went wrong in training, or ""
    remark: str  # another remark on training, or ""
    inside: tuple[float, float, float] | None  # low, estimate, high
    matrices: tuple[Matrix, ...]
    classes: tuple[dict[str, Any], ...]
    reliability: Plot | None
    abstentions: tuple[tuple[float, Mapping[str, Any] | None], ...]  # a target, what is promised
    tried: tuple[tuple[Mapping[str, Any], str], ...]  # rows of `choice`, compared with the chosen
    explained: tuple[tuple[str, str], ...]  # the methods in `tried`, and what each does
    mistakes: tuple[Card, ...]
    wrong: int  # labelled images predicted wrongly, out of fold
    of_chosen: int  # of these, images that were chosen and so are in no figure and no matrix
    issues: tuple[Card, ...]
    curves: tuple[Plot, ...]
    stage_curves: tuple[Plot, ...]
    examples: tuple[tuple[str, int, tuple[Card, ...]], ...]
    augmented: tuple[Augmented, ...]
    next: tuple[Card, ...]
    contradicted: float  # a label is listed where a class is this many times as probable
    promise_holds: str  # for how many sets of labels, in words; "" if an earlier version said more
    promised: float  # the highest of these that is promised; 0 if none is
    folder: str  # path of the run, quoted for a shell
    next_folder: str  # path of a run after it, quoted for a shell
    next_run_folder: str  # the same, not quoted
    source_quoted: str  # the source and its boxes as they were typed, quoted for a shell
    more_boxes: str  # what `predict` needs for more photos: their boxes, if the run is of crops
    files: tuple[tuple[str, str], ...]
    command: str
    facts: tuple[tuple[str, str], ...]


def page(run: RunFolder, links: bool = False) -> Page:
    """Prepare the page; parts without data are left out.

    Args:
        links: link the files of the run: the page lies beside them.
    """
    record, classes = run.record, [str(name) for name in run.record["data"]["classes"]]
    sample = _counted(run)
    held = (
        evaluate(sample.probabilities, sample.labels, tuple(classes)).as_json() if sample else None
    )
    estimate = record["estimate"]
    known = estimate is not None and estimate["accuracy"] is not None
    wrong = mistakes(run.held_out.labels, run.held_out.probabilities) if run.held_out else ()
    promised = _abstentions(estimate)
    parts = [("Labelled images, out of fold", held), ("Test images", run.test)]
    notes = (_beside_estimate(run, sample), "")
    folder, told = shlex.quote(str(run.folder)), headline(estimate) if known else None
    answered = _answers(run, classes)
    return Page(
        run=run,
        title=f"A classifier for {len(classes)} classes, from "
        f"{counted(record['data']['labeled'], 'label')}",
        source=source_name(record),
        links=links,
        answers=answered,
        at_once=len(answered) if len(answered) <= MOST_ANSWERED + 3 else MOST_ANSWERED,
        no_answer=0 if run.predicted is None else int((run.predicted.classes < 0).sum()),
        guesses=sentence(GUESSES) if may_guess(estimate) else "",
        right=sentence(
            how_right(estimate, group_count(record), labels_by_folder(record, run.labels))
        )
        if known
        else "How often it is right is not known.",
        spelling=tuple(sentence(text) for text in spelling_problems(classes)),
        first_learned=first_learned(record["data"]),
        unforecast=why_no_forecast(estimate) if known else "",
        headline=told,
        withheld=withheld(estimate) if known else "",
        before=sentence(earlier_in_words(record)),
        enough=_enough(run, folder) if known else (),
        forecast=() if told is None or told.bound else _forecast(record),
        about=methods.about(str(record["method"]["name"])),
        story=tell(
            estimate, record["test"], record["prior"], run.origins.values(), record["prior_from"]
        ),
        trouble=sentence(recorded_failures(record)),
        remark=sentence(str(record["training"].get("remark") or "")),
        inside=tuple(float(estimate[key]) for key in ("low", "accuracy", "high"))
        if known
        else None,  # type: ignore[arg-type]
        matrices=tuple(
            replace(_matrix(title, found, classes), said=note)
            for (title, found), note in zip(parts, notes, strict=True)
            if found
        ),
        classes=_class_rows(classes, held, run.test),
        reliability=_reliability(sample, run.test),
        abstentions=promised,
        tried=tuple(zip(record["choice"], compared_with_chosen(record["choice"]), strict=True)),
        explained=_explained(record["choice"]),
        mistakes=tuple(_mistake(run, classes, at) for at in wrong[:SHOWN]),
        wrong=len(wrong),
        of_chosen=sum(run.origins.get(run.held_out.names[at]) == "chosen" for at in wrong)
        if run.held_out
        else 0,
        issues=tuple(_issue(run, row) for row in run.issues[:SHOWN]),
        curves=tuple(curves(run.history, classes)),
        stage_curves=tuple(stage_curves(run.stage_history)),
        examples=_examples(run, classes),
        augmented=run.pictures.augmented,
        next=tuple(_next(run, row) for row in run.next[:SHOWN]),
        contradicted=CONTRADICTED,
        promise_holds=_promise_holds([row for _, row in promised if row]),
        promised=max((target for target, row in promised if row), default=0.0),
        folder=folder,
        next_folder=shlex.quote(str(next_folder(run.folder))),
        next_run_folder=str(next_folder(run.folder)),
        source_quoted=_source_quoted(record["data"]),
        more_boxes=" --boxes BOXES" if record["data"].get("boxes") else "",
        files=tuple((name, text) for name, text in FILES.items() if (run.folder / name).exists()),
        command=shlex.join(["handful", *map(str, record["command"] or ())]),
        facts=_facts(record),
    )


def _source_quoted(data: dict[str, Any]) -> str:
    words = [data["source"]]
    if boxes := data.get("boxes"):
        words += ["--boxes", boxes["file"]]
    return shlex.join(map(str, words))


def _answers(run: RunFolder, classes: Sequence[str]) -> tuple[AnswerRow, ...]:
    """Each class with the number of its answers, the surest and the least sure of them."""
    predicted = run.predicted
    if predicted is None:
        return ()

    def cards(positions: np.ndarray) -> tuple[Card, ...]:
        return tuple(_answer(run, int(at)) for at in positions)

    rows = [
        AnswerRow(
            name, found.total, found.total / len(predicted.names), cards(found.surest),
            cards(found.least_sure),
        )
        for name, found in zip(
            classes, answers(predicted.classes, predicted.confidence, len(classes)), strict=True
        )
    ]  # fmt: skip
    return (
        tuple(rows)
        if len(rows) <= MOST_ANSWERED + 3
        else tuple(sorted(rows, key=lambda row: -row.count))
    )


def _answer(run: RunFolder, at: int) -> Card:
    assert run.predicted is not None
    name = run.predicted.names[at]
    confidence = float(run.predicted.confidence[at])
    return Card(name, run.pictures.images.get(name, ""), confidence=confidence)


def _enough(run: RunFolder, folder: str) -> tuple[str, ...]:
    labels = Counter(run.labels.values())
    unlabeled = len(run.predicted.names) if run.predicted is not None else 0
    if not labels:
        return ()
    return good_enough(run.record["estimate"], unlabeled, labels, folder)


def _forecast(record: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The forecasts that say more than that nearly every image would be classified rightly."""
    rows = record["forecast"]
    return tuple(row for row in rows if not nearly_always(row["accuracy"], row["low"]))


def source_name(record: Mapping[str, Any]) -> str:
    """The name of a run's source, without its parent folders."""
    return source_names.source_name(str(record["data"]["source"]))


def curves(history: Sequence[Mapping[str, float]], classes: Sequence[str]) -> list[Plot]:
    """Plots of the history: losses, accuracies, shares and predicted classes."""
    kinds: dict[str, list[plots.Series]] = {"loss": [], "accuracy": [], "share": [], "guessed": []}
    keys = list(dict.fromkeys(key for line in history for key in line))
    order = list(_CURVE_NAMES)
    for key in sorted(keys, key=lambda key: order.index(key) if key in order else len(order)):
        points = [(line["step"], line[key]) for line in history if key in line and "step" in line]
        kind = _kind(key, [y for _, y in points])
        if kind is not None and len(points) > 1:
            steps, values = zip(*points, strict=True)
            kinds[kind].append(plots.Series(_named(key, kind, classes), steps, values))
    watched = any(key.startswith("validation") for key in keys)
    apart = " Validation images are not trained on." if watched else ""
    drawn = [
        ("loss", "Loss", False, "Lower is better. For augmented batches, the mean since the "
         "previous point. For unaugmented images, the loss of the weights that would be saved."),
        ("accuracy", "Accuracy", True, "High values on images that are trained on only show that "
         f"these were learned.{apart}"),
        ("share", "Unlabelled images", True, "The share of unlabelled images in the loss, and the "
         "agreement and class shares of the pseudo-labels."),
        ("guessed", "Classes guessed", True, "The share of each class among the pseudo-labels in "
         "the loss. One class far above all others is a collapse, unless most images are of it."),
    ]  # fmt: skip
    return [
        plots.lines(title, kinds[kind], share=share, note=said)
        for kind, title, share, said in drawn
        if kinds[kind]
    ]


def stage_curves(history: Sequence[Mapping[str, float]]) -> list[Plot]:
    """Plots of the metrics of self-supervised pre-training that are in _STAGE_CURVES."""
    drawn = []
    for key, (title, said) in _STAGE_CURVES.items():
        points = [(line["step"], line[key]) for line in history if key in line and "step" in line]
        if len(points) > 1:
            steps, values = zip(*points, strict=True)
            drawn.append(plots.lines(title, [plots.Series(title, steps, values)], note=said))
    return drawn


def _kind(key: str, values: Sequence[float]) -> str | None:
    if key in ("step", "seconds", "lr", "rate"):
        return None
    if key.startswith("pseudo_"):
        return "guessed"
    if "accuracy" in key:
        return "accuracy"
    if "loss" in key or key in _LOSSES or not all(0 <= value <= 1 for value in values):
        return "loss"
    return "share"


def _named(key: str, kind: str, classes: Sequence[str]) -> str:
    if kind == "guessed":
        number = key.removeprefix("pseudo_")
        return classes[int(number)] if number.isdecimal() and int(number) < len(classes) else number
    return _CURVE_NAMES.get(key, key.replace("_", " "))


def _counted(run: RunFolder) -> HeldOut | None:
    """Predictions for the labelled images without the chosen ones, which are no sample."""
    held = run.held_out
    if held is None:
        return None
    kept = np.array([run.origins.get(name) != "chosen" for name in held.names])
    if not kept.any():
        return None
    names = [name for name, keep in zip(held.names, kept, strict=True) if keep]
    return HeldOut(names, held.labels[kept], held.probabilities[kept])


def _beside_estimate(run: RunFolder, sample: HeldOut | None) -> str:
    """Which labels the matrix of labelled images counts, and why its share differs."""
    if sample is None or run.held_out is None:
        return ""
    right, n = int((sample.probabilities.argmax(axis=1) == sample.labels).sum()), len(sample.labels)
    said = []
    if chosen := len(run.held_out.labels) - n:
        were = "one was" if chosen == 1 else f"{chosen:,} were"
        said.append(
            f"Of {counted(n + chosen, 'label')}, {were} chosen and not drawn at random, and "
            f"{'does' if chosen == 1 else 'do'} not count here."
        )
    said.append(
        f"{right:,} of {n:,} are right here ({percent(right / n)}): one answer for each image, the "
        f"mean of the models that had not seen it."
    )
    estimate = run.record["estimate"] or {}
    single = estimate.get("out_of_fold")
    if single is not None and abs(single - right / n) > 5e-4:
        prior = "" if not run.record["prior"] else ", with every class weighted by its share,"
        said.append(
            f"The figure of the estimate starts from the answers of the single models, of which "
            f"{percent(single)}{prior} are right."
        )
    return " ".join(said)


def _matrix(title: str, found: Mapping[str, Any], classes: Sequence[str]) -> Matrix:
    counts = np.array(found["confusion"], np.int64).reshape(len(classes), len(classes))
    totals = counts.sum(axis=1)
    rows: tuple[tuple[Cell, ...], ...] = ()
    if len(classes) <= LARGEST:
        rows = tuple(
            tuple(Cell(int(c), float(c / max(totals[i], 1)), i == j) for j, c in enumerate(row))
            for i, row in enumerate(counts)
        )
    off = counts * (1 - np.eye(len(classes), dtype=np.int64))
    order = np.argsort(-off, axis=None, kind="stable")[:CONFUSED]
    places = [divmod(int(place), len(classes)) for place in order]
    pairs = tuple(
        (classes[i], classes[j], int(off[i, j]), int(totals[i])) for i, j in places if off[i, j] > 1
    )
    return Matrix(title, int(totals.sum()), rows, pairs, int(off.sum()))


def _class_rows(
    classes: Sequence[str], held: Mapping[str, Any] | None, test: Mapping[str, Any] | None
) -> tuple[dict[str, Any], ...]:
    """Rows of the table of classes; with more than MOST_ROWS classes, those of least recall."""
    parts = [found["per_class"] if found else [None] * len(classes) for found in (held, test)]
    rows = [
        {"name": name, "held": of_held, "test": of_test}
        for name, of_held, of_test in zip(classes, *parts, strict=True)
    ]
    if len(rows) > MOST_ROWS:
        rows.sort(key=lambda row: (row["test"] or row["held"] or {}).get("recall") or 0.0)
    return tuple(rows[:MOST_ROWS]) if held or test else ()


def _reliability(sample: HeldOut | None, test: Mapping[str, Any] | None) -> Plot | None:
    parts = []
    if sample is not None:
        confidence = sample.probabilities.max(axis=1)
        right = sample.probabilities.argmax(axis=1) == sample.labels
        found = [row._asdict() for row in equal_groups(confidence, right)]
        parts.append(_bins("labelled images, out of fold", found))
    if test is not None:
        parts.append(_bins("test images", _pooled(test["reliability"])))
    if not parts:
        return None
    said = (
        "On the dashed line, accuracy equals confidence; below it, the model is too confident. A "
        "dot is a group of images of similar confidence, larger for more images. The line through "
        "it is a 90 % interval: dots with long lines say little."
    )
    return plots.reliability("Confidence", parts, said)


def _pooled(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Merge neighbouring bins, from the highest confidence down, until each has FEWEST images."""
    groups: list[list[Mapping[str, Any]]] = [[]]
    for row in reversed([row for row in rows if row["n"]]):
        if sum(one["n"] for one in groups[-1]) >= FEWEST:
            groups.append([])
        groups[-1].append(row)
    if len(groups) > 1 and sum(one["n"] for one in groups[-1]) < FEWEST:
        least = groups.pop()
        groups[-1] += least
    pooled: list[Mapping[str, Any]] = []
    for group in filter(None, groups):
        weights = [one["n"] for one in group]
        means = {
            key: np.average([one[key] for one in group], weights=weights)
            for key in ("confidence", "accuracy")
        }
        pooled.append({**means, "n": sum(weights)})
    return pooled


def _bins(name: str, rows: Sequence[Mapping[str, Any]]) -> plots.Bins:
    return plots.Bins(
        name,
        [float(row["confidence"]) for row in rows],
        [float(row["accuracy"]) for row in rows],
        [int(row["n"]) for row in rows],
    )


def _abstentions(
    estimate: Mapping[str, Any] | None,
) -> tuple[tuple[float, Mapping[str, Any] | None], ...]:
    """What is promised for each of SHOWN_TARGETS, or None.

    Nothing where no promise is possible at all.
    """
    if estimate is None or withheld(estimate) in NO_FIGURE:
        return ()
    known = promises(estimate)
    return tuple((target, promise_of(known, target)) for target in SHOWN_TARGETS)


def _explained(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    """Each method in rows of `choice`, with what it does."""
    names = dict.fromkeys(str(row["method"]) for row in rows)
    return tuple((name, what) for name in names if (what := methods.about(name).what))


def _promise_holds(rows: Sequence[Mapping[str, float]]) -> str:
    held = [row.get("held") for row in rows] or [HELD]
    return "" if None in held else often(min(float(share) for share in held if share))


def _mistake(run: RunFolder, classes: Sequence[str], at: int) -> Card:
    assert run.held_out is not None
    name, shares = run.held_out.names[at], run.held_out.probabilities[at]
    return Card(
        name,
        run.pictures.images.get(name, ""),
        given=classes[run.held_out.labels[at]],
        guess=classes[int(shares.argmax())],
        confidence=float(shares.max()),
    )


def _issue(run: RunFolder, row: Mapping[str, str]) -> Card:
    return Card(
        row["file"],
        run.pictures.images.get(row["file"], ""),
        given=row["label"],
        guess=row["guess"],
        confidence=float(row["p(guess)"]) if row["p(guess)"] else None,
    )


def _next(run: RunFolder, row: Mapping[str, str]) -> Card:
    """An image to label next: the reason, and the saved model's prediction unless it is random."""
    picture, why = run.pictures.images.get(row["file"], ""), row.get("why") or ""
    if why == RANDOM:  # lists of earlier versions have a prediction, too
        return Card(row["file"], picture, text=why)
    return Card(
        row["file"],
        picture,
        guess=row.get("prediction") or "",
        confidence=float(row["confidence"]) if row.get("confidence") else None,
        text=why,
    )


def _examples(
    run: RunFolder, classes: Sequence[str]
) -> tuple[tuple[str, int, tuple[Card, ...]], ...]:
    """Each class with its number of labels and the first of its kept pictures."""
    if not run.pictures.images:
        return ()
    names, index = list(run.labels), {name: k for k, name in enumerate(classes)}
    labels = np.array([index[label] for label in run.labels.values()], np.int64)
    rows = []
    for k, positions in enumerate(examples(labels, len(classes))):
        kept = [names[at] for at in positions if names[at] in run.pictures.images]
        cards = tuple(Card(name, run.pictures.images[name]) for name in kept)
        rows.append((classes[k], int((labels == k).sum()), cards))
    return tuple(rows)


def _precision(record: Mapping[str, Any]) -> str:
    """The number format, and what computes it; of an ensemble for each of its members."""
    training = record["training"]
    parts = [(one["method"]["name"], one) for one in record.get("members", [])]
    if not parts:
        return f"{training['precision']}, computed by {training.get('engine', 'torch')}"
    told = [f"{name} {one['precision']}, computed by {one['engine']}" for name, one in parts]
    return f"{'; '.join(told)}; trained in {training['precision']}"


def _settings(method: Mapping[str, Any]) -> str:
    """The settings of a method in a row; of an ensemble how much each of its members counts."""
    match method:  # in runs of earlier versions, `trained` and `weight` are no lists
        case {"name": Ensemble.name, "head": head, "trained": [*trained], "weight": [*weights]} if (
            all(isinstance(one, float) for one in weights)
        ):
            shares = zip([head, *trained], [1 - sum(weights), *weights], strict=False)
            return f"weights: {', '.join(f'{name} {share:.3g}' for name, share in shares)}"
    return ", ".join(
        f"{key} {listed([*map(str, value)]) if isinstance(value, list) else value}"
        for key, value in method.items()
        if key != "name"
    )


def _facts(record: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Settings, times and versions that are needed to repeat the run, beside the command."""
    data, training, backbone = record["data"], record["training"], record["backbone"]
    looked, method = record["input"], record["method"]
    schedule = record["schedule"] or {}
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    settings = _settings(method)
    colours = "grey" if looked["channels"] == 1 else "colour"
    pixels = (
        f"{looked['size']} × {looked['size']} pixels, {colours}, made square by {looked['aspect']}"
    )
    network = models.full_name(backbone["name"], backbone["options"])
    mirrored = "mirrored images keep their class" if looked["flips"] else "never mirrored"
    facts = [
        ("Method", f"{method['name']}" + (f" ({settings})" if settings else "")),
        ("Network", f"{network}, {backbone['parameters']:,} weights"),
        ("Input images", f"{pixels}; {mirrored}"),
    ]
    how = f"{schedule.get('optimizer', '?')}, peak rate {schedule.get('lr', '?')}"
    batch, stage = schedule.get("batch", "?"), record.get("stage")
    if stage:
        steps = f"{stage['steps']:,} steps of {batch} images, {how}"
        facts.append(("Self-supervised pre-training", f"{steps}; {time(stage['seconds'])}"))
    if training["steps"]:
        of = "" if stage else f" of {batch} labelled images, {how}"
        seen = f"{training['images_seen']:,} images seen"
        facts.append(("Training", f"{training['steps']:,} steps{of}; {seen}"))
    return (
        *facts,
        ("Time", f"{time(training['seconds'])} of training, {time(record['seconds'])} with the "
         f"estimate, on {counted(training['threads'], 'thread')} of a {training['device']}"),
        ("Precision", _precision(record)),
        ("Seed", str(record["seed"])),
        ("Versions", f"handful {record['handful']}, {versions}"),
        ("Source", str(data["source"])),
        ("Images and labels", str(data["hash"])),
    )  # fmt: skip
