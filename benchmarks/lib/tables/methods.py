"""Of each method of docs/methods.md its settings and its figures."""

from collections.abc import Callable

from benchmarks.lib import fields, record
from benchmarks.lib.cells import split_name
from benchmarks.lib.measured import made_by
from benchmarks.lib.tables.headline import HEADLINE
from benchmarks.lib.tables.shown import Line, Lines, accuracy, markdown, minutes
from handful.methods import METHODS
from handful.pipeline.recipes import RECIPES

PER_CLASS = 10  # labels, of the curves that docs/methods.md repeats


def method_settings(name: str) -> str:
    """The fields of a method, from its source."""
    rows = [[f"`{f.name}`", f"`{f.default}`", f.comment] for f in fields.settings(METHODS[name])]
    return markdown(["setting", "default", "what it is"], rows)


def method_figures(name: str) -> str:
    """Every final row and every recipe that was run with a method, by itself or after a stage."""
    recipes = [x for x in record.final("recipes") if made_by(RECIPES[x["name"]], x)]
    recipes.sort(key=lambda line: list(RECIPES).index(line["name"]))
    curves = [x for x in record.final("curves") if x["settings"]["per_class"] == PER_CLASS]
    # `auto` takes this method in some draws only.
    named = [x for x in record.final("draws") if "-auto" not in x["name"]]
    files: tuple[tuple[Lines, Callable[[Line], str]], ...] = (
        (named, _row_title),
        (record.final("minutes", apart="hardware"), _timed_title),
        (curves, _curve_title),
        (recipes, _recipe_title),
    )
    rows = []
    for every, what in files:
        titled: dict[str, Lines] = {}
        for line in every:
            method = line["settings"]["method"]
            if name in (method["name"], method.get("then")):
                titled.setdefault(what(line), []).append(line)
        rows += [[title, accuracy(some), minutes(some)] for title, some in titled.items()]
    if rows:
        return markdown(["task", "test accuracy", "time a draw"], rows)
    if any(line["settings"]["method"]["name"] == name for line in record.read("minutes")):
        return "No final figures yet; [results.md](results.md) has some of development draws."
    return "No final figures yet."


def _row_title(line: Line) -> str:
    name: str = line["name"]
    return HEADLINE[name][0] if name in HEADLINE else name


def _timed_title(line: Line) -> str:
    source, method = split_name(line["name"])
    times = f"{line['per_class']} labels per class, `--budget {line['budget']}`"
    return f"{source}, {times}: `{method}` ({line['hardware'].split(', ')[2]})"


def _curve_title(line: Line) -> str:
    made = line["settings"]
    return f"{made['source']} at {made['size']} pixels, {made['per_class']} labels per class"


def _recipe_title(line: Line) -> str:
    return f"`{line['name']}`: {RECIPES[line['name']].what}"
