"""Print to the terminal: progress bars and messages on stderr, results on stdout."""

import logging
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from handful.cli.verbosity import quiet
from handful.data.skipped import left_out_files
from handful.text import (
    about_right,
    as_json_line,
    compared_with_chosen,
    for_terminal,
    name_in_text,
    sentence,
    time,
    withheld,
)

if TYPE_CHECKING:
    from collections import Counter

    from handful.data.imageset import ImageSet
    from handful.evaluation.metrics import Evaluation, Foreign
    from handful.pipeline.compare import Comparison
    from handful.pipeline.method_list import Described
    from handful.pipeline.recipes.measured import Measured
    from handful.pipeline.recipes.recipe import Recipe
    from handful.pipeline.run import Run
    from handful.pipeline.sorting import Sorted
    from handful.progress import Reporter

T = TypeVar("T")


class SafeConsole(Console):
    """A console that prints strings literally: no markup, no control characters, no line breaks."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(for_terminal(text), **options)

    def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            # These line ends belong to the layout: those of strings are escaped already.
            shown = "\n".join(map(for_terminal, segment.text.split("\n")))
            yield segment if segment.control else segment._replace(text=shown)


screen = SafeConsole(stderr=True, highlight=False, markup=False, emoji=False)  # messages
answer = SafeConsole(highlight=False, markup=False, emoji=False)  # results, on stdout


@contextmanager
def reporting() -> "Iterator[Reporter]":
    """Context manager: yield a Reporter that shows progress bars and messages on stderr.

    A message that was shown before is not repeated.
    """
    from handful.progress import Reporter, shown

    said: set[str] = set()
    with shown(not quiet(), screen) as reporter:

        def say(text: str) -> None:
            if text not in said:
                said.add(text)
                reporter.say(text)

        with _forward_log("handful.cache", say):
            yield Reporter(reporter.track, say)


@contextmanager
def _forward_log(logger: str, say: Callable[[str], None]) -> Iterator[None]:
    """Context manager: pass the messages of a logger to `say`."""
    handler = logging.Handler()
    handler.emit = lambda record: say(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger(logger).addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger(logger).removeHandler(handler)


def print_json(value: Any) -> None:
    print(as_json_line(value))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _interval(found: dict[str, Any]) -> str:
    level = f"{100 * found['level']:.0f} %"
    low, high = 100 * found["low"], 100 * found["high"]
    return f"{_percent(found['accuracy'])} ({level} interval {low:.1f}–{high:.1f})"


def print_run(run: "Run", out: Path, source: str, explain: bool = False) -> None:
    """Print the result of a fit in sentences.

    Args:
        source: the images, as typed.
        explain: also how the figures came about.
    """
    from handful.pipeline.summary import summary

    for line in summary(run, source):
        # Commands and paths stay on one line, so that they can be copied.
        for part in wrapped(line) if line.endswith(".") else [line]:
            answer.print(part, soft_wrap=True)
    if explain:
        print_explained(run)
    else:
        answer.print("How the figures came about: --explain, and the report.")


def wrapped(text: str) -> list[str]:
    """Return the lines of a text, of 80 columns at most; words, such as paths, stay whole."""
    lines: list[str] = textwrap.wrap(text, 80, break_long_words=False, break_on_hyphens=False)
    return lines


def print_explained(run: "Run") -> None:
    """Print how the method was chosen, and how the estimate was made."""
    from handful.methods import in_brackets

    training, record = run.record["training"], run.record
    steps = (
        f"{training['steps']} steps in {training['seconds']:.0f} s, " if training["steps"] else ""
    )
    name = record["method"]["name"]
    answer.print(f"method: {name}{in_brackets(name)}, {steps}{record['seconds']:.0f} s in all")
    if candidates := record.get("choice"):
        print_selection(candidates)
        answer.print("handful methods says what each method does.")
    if run.estimate is not None:
        print_estimate(run.estimate)


def print_selection(rows: list[dict[str, Any]]) -> None:
    """Print a row for each candidate: its distance to the chosen one, time and result."""
    table = Table("method", "compared with the chosen one", "tried for", "result")
    named = [row["method"] for row in rows]
    for row, apart in zip(rows, compared_with_chosen(rows), strict=True):
        several = named.count(row["method"]) > 1
        table.add_row(
            f"{row['method']} with {row['backbone']}" if several else row["method"],
            apart,
            time(row["seconds"]),
            row["verdict"],
        )
    answer.print(table)


def print_skipped(images: "ImageSet") -> None:
    """Print a line on the files that were left out, if there are any."""
    from handful.data.findings import skipped_summary

    if skipped := left_out_files(images.store.skipped):
        left_out = skipped_summary(skipped)
        text = f"{left_out}; handful data with the same source and labels, and --out, lists them"
        answer.print(text, soft_wrap=True)


def say_skipped(images: "ImageSet", say: Callable[[str], None]) -> None:
    """Report in one line the files that were left out, if there are any."""
    from handful.data.findings import skipped_summary

    if skipped := left_out_files(images.store.skipped):
        first = skipped[0]
        text = f"{skipped_summary(skipped)}; the first is {first.name}: {first.reason}"
        say(for_terminal(text))


def print_estimate(estimate: dict[str, Any]) -> None:
    """Print accuracy, interval, balanced accuracy and caveats of an estimate."""
    if estimate["accuracy"] is None:
        answer.print(estimate["how"])
        return
    if withheld(estimate):
        answer.print(f"{about_right(estimate)} on new images")
    else:
        answer.print(f"estimated accuracy on new images: {_interval(estimate)}")
    rough = "approximate; " if estimate.get("rough") else ""
    answer.print(f"  {rough}{estimate['how']}")
    if estimate["balanced_accuracy"] is not None:
        low, high = 100 * estimate["balanced_low"], 100 * estimate["balanced_high"]
        balanced = _percent(estimate["balanced_accuracy"])
        answer.print(f"  with all classes equally common: {balanced} ({low:.1f}–{high:.1f})")
    for caveat in estimate["caveats"]:
        answer.print(f"  {caveat}")


def print_forecast(rows: list[dict[str, Any]]) -> None:
    """Print the expected accuracy with more labels, if it is known."""
    said = [
        f"with {row['labels']} labels about {100 * row['accuracy']:.0f} % "
        f"({100 * row['low']:.0f}–{100 * row['high']:.0f})"
        for row in rows
    ]
    if said:
        answer.print(", ".join(said), soft_wrap=True)


def print_evaluation(found: "Evaluation") -> None:
    interval = _interval(
        {"accuracy": found.accuracy, "low": found.low, "high": found.high, "level": found.level}
    )
    answer.print(f"accuracy on {found.n} images: {interval}")
    answer.print(
        f"balanced accuracy {_percent(found.balanced_accuracy)}, macro-F1 {found.macro_f1:.3f}"
    )
    answer.print(
        f"calibration error {_percent(found.calibration_error)} (confidence against accuracy)"
    )
    if found.foreign is not None:
        print_foreign(found.foreign, found.level)
    table = Table("class", "images", "predicted", "precision", "recall", "F1")
    for row in found.per_class:
        shares = ["–" if x is None else f"{x:.3f}" for x in (row.precision, row.recall, row.f1)]
        table.add_row(row.name, str(row.n), str(row.predicted), *shares)
    answer.print(table)


def print_foreign(foreign: "Foreign", level: float) -> None:
    """Print the images of unknown classes, and the accuracy that counts them as wrong."""
    some = sorted(foreign.classes.items(), key=lambda item: (-item[1], item[0]))
    names = ", ".join(f"{name_in_text(name)}: {n}" for name, n in some[:5])
    more = f" and {len(some) - 5} more" if len(some) > 5 else ""
    interval = _interval(
        {
            "accuracy": foreign.accuracy_counting_as_wrong,
            "low": foreign.low,
            "high": foreign.high,
            "level": level,
        }
    )
    answer.print(
        f"left out of all figures: {foreign.n} images of classes that the run does not know "
        f"({names}{more}); counting them as wrong, the accuracy is {interval}",
        soft_wrap=True,
    )


def print_comparison(comparison: "Comparison") -> None:
    """Print a column for each method: accuracy on each draw, mean, difference to the first method.

    Failures of trainings are listed below.
    """
    from handful.pipeline.compare import LEVEL, spread, spread_of_shares

    first, *others = comparison.methods
    columns = [comparison.accuracies(name) for name in comparison.methods]
    table = Table("draw", *comparison.methods, title="accuracy on test images, %")
    for draw, row in zip(comparison.draws, zip(*columns, strict=True), strict=True):
        table.add_row(str(draw), *(f"{100 * share:.1f}" for share in row))
    table.add_section()
    means = [spread_of_shares(column) for column in columns]
    table.add_row("mean", *(f"{100 * found.mean:.1f}" for found in means))
    table.add_row(f"{LEVEL:.0%} interval", *(_ends(found.low, found.high) for found in means))
    if others:
        table.add_section()
        apart = [spread(comparison.differences(name, first)) for name in others]
        table.add_row(f"minus {first}", "", *(f"{100 * found.mean:+.1f}" for found in apart))
        intervals = (_ends(found.low, found.high, "+") for found in apart)
        table.add_row(f"{LEVEL:.0%} interval", "", *intervals)
    answer.print(table)
    for cell in comparison.cells:
        if cell.trouble:
            which = f"{cell.method}, draw {cell.draw}"
            answer.print(f"{which}: training went wrong: {cell.trouble}", soft_wrap=True)


def _ends(low: float | None, high: float | None, sign: str = "-") -> str:
    """Return an interval in percent; a dash where there is none."""
    if low is None or high is None:
        return "–"
    return f"{100 * low:{sign}.1f} to {100 * high:{sign}.1f}"


def print_methods(rows: "Sequence[Described]") -> None:
    """Print a paragraph for each method: what it does and needs, and when to use it."""
    from handful.pipeline.method_list import PER_CLASS

    for row in rows:
        answer.print(row.name)
        accuracy = ", ".join(f"{name} {100 * x:.0f} %" for name, x in row.accuracy.items())
        figures = f"accuracy with {PER_CLASS} labels per class: {accuracy}" if accuracy else ""
        for text in (row.what, f"needs {row.needs}", row.strengths, row.weaknesses, figures):
            if text:
                answer.print(Padding(sentence(text), (0, 0, 0, 2)))


def print_recipes(recipes: "list[Recipe]", measured: "dict[str, Measured]") -> None:
    """Print a row for each recipe: report, published and measured accuracy, command."""
    table = Table("report", "published", "ours", "on", "minutes", "command", title="test accuracy")
    for recipe in recipes:
        found = measured.get(recipe.name)
        published = "–" if recipe.published is None else _percent(recipe.published)
        minutes = found.minutes if found else None
        table.add_row(
            recipe.report or "–",
            published,
            _spread(found) if found else "–",
            found.on if found else recipe.data[-1].title,
            f"about {recipe.minutes:g}" if minutes is None else f"{minutes:.1f}",
            recipe.command,
        )
    answer.print(table)


def _spread(found: "Measured") -> str:
    spread = f" ± {100 * found.std:.1f}" if found.std is not None else ""
    return f"{100 * found.mean:.1f}{spread} % (n = {found.n})"


def print_reproduced(recipe: "Recipe", accuracies: list[float], folder: Path) -> None:
    """Print the mean of our accuracies beside the published one."""
    from handful.pipeline.compare import spread

    mean, std, _, _, n = spread(accuracies)
    ours = f"{_percent(mean)} ± {100 * std:.1f}" if std is not None else _percent(mean)
    answer.print(f"{recipe.name}: {ours} on test images, over {n} draws")
    if recipe.published is not None:
        answer.print(
            f"  the report published {_percent(recipe.published)}: "
            f"{100 * (mean - recipe.published):+.1f} points"
        )
    if recipe.correction:
        answer.print(f"  {recipe.correction}", soft_wrap=True)
    curves = " and curves.svg" if (folder / "curves.svg").exists() else ""
    answer.print(f"the runs{curves} are in {folder}", soft_wrap=True)


def print_counts(labels: list[str], places: list[str]) -> None:
    from collections import Counter

    common = Counter(labels).most_common(20)
    counts = ", ".join(f"{name_in_text(name)}: {n}" for name, n in common)
    answer.print(f"{len(labels)} images → {', '.join(places)}; {counts}", soft_wrap=True)


LISTED = 10  # files of one kind that are named on the screen; --json names all


def print_sorted(found: "Sorted") -> None:
    """Print what `--into` did, or would do: totals, each class, and changed names."""
    would = "would be " if found.dry_run else ""
    answer.print(f"{would}{_sorted_counts(found.counts())}", soft_wrap=True)
    for kind, folder in found.folders.items():
        called = f" ({kind.name})" if folder != kind.name else ""
        counts = _sorted_counts(found.counts(kind))
        answer.print(for_terminal(f"  {folder}/{called}: {counts}"), soft_wrap=True)
    for steps, why in (
        (found.numbered, f"{would}numbered, as another file has the name"),
        (found.shortened, f"{would}shortened or changed, as the target cannot hold the name"),
    ):
        if steps:
            places = ", ".join(step.place for step in steps[:LISTED])
            more = ", …" if len(steps) > LISTED else ""
            answer.print(f"  {len(steps)} {why}: {places}{more}", soft_wrap=True)


def _sorted_counts(counts: "Counter[str]") -> str:
    return (
        f"{counts['copied']} copied, {counts['moved']} moved, "
        f"{counts['already_there']} already there"
    )


def left_out_of(found: "Sorted") -> list[str]:
    """Return lines on the images that were not sorted, with the reasons."""
    lines = [f"not sorted: {name}: {reason}" for name, reason in found.left_out[:LISTED]]
    more = len(found.left_out) - LISTED
    return [*lines, *([f"and {more} more are not sorted; --json names all"] if more > 0 else [])]
