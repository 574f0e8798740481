"""What `auto` loses to the best method of each cell."""

from statistics import mean
from typing import NamedTuple

from benchmarks.lib import record
from benchmarks.lib.cells import split_name
from benchmarks.lib.tables.shown import Lines, markdown, percent
from handful.methods import METHODS

BUDGET = "3m"
LABELS_ONLY = ("features", "supervised")


class Choice(NamedTuple):
    """What `auto` reached on a cell, and what every method did alone on the same draws."""

    source: str
    per_class: int
    draws: list[int]
    chosen: float
    alone: dict[str, float]

    @property
    def lost(self) -> float:
        return max(self.alone.values()) - self.chosen

    @property
    def over(self) -> float:
        """Against the best that uses no unlabelled images."""
        return self.chosen - max(self.alone.get(name, 0.0) for name in LABELS_ONLY)


def of_auto(file: str) -> Lines:
    """Final lines of `auto` with its default budget, by the code that made the last of a cell."""
    lines = [
        line
        for line in record.final(file)
        if line["budget"] == BUDGET and split_name(line["name"])[1] == "auto"
    ]
    last = {(line["name"], line["per_class"]): line["commit"] for line in lines}
    return [line for line in lines if line["commit"] == last[line["name"], line["per_class"]]]


def choices(file: str = "regret") -> list[Choice]:
    """Of each cell of a file the means over draws.

    Of `auto` only the draws made by the code that made the last of a cell, and of those the ones
    that every method has which has any.
    """
    others = [
        line
        for line in record.final(file)
        if line["budget"] == BUDGET and split_name(line["name"])[1] != "auto"
    ]
    found: dict[tuple[str, int], dict[str, dict[int, float]]] = {}
    for line in [*of_auto(file), *others]:
        source, method = split_name(line["name"])
        by_draw = found.setdefault((source, line["per_class"]), {}).setdefault(method, {})
        by_draw[line["draw"]] = line["figures"]["test_accuracy"]
    made = []
    for (source, n), cell in sorted(found.items()):
        draws = set(cell.get("auto", {}))
        cell = {name: by_draw for name, by_draw in cell.items() if draws & by_draw.keys()}
        draws = draws.intersection(*map(set, cell.values()))
        means = {
            name: mean(by_draw[draw] for draw in draws) for name, by_draw in cell.items() if draws
        }
        if len(means) < 2:
            continue
        made.append(Choice(source, n, sorted(draws), means.pop("auto"), means))
    return made


def regret() -> str:
    """Of `auto` and of every method alone, the mean accuracy of each cell; and what `auto` lost."""
    made = choices()
    methods = [name for name in METHODS if any(name in cell.alone for cell in made)]
    rows = []
    for cell in made:
        alone = [percent(cell.alone[name]) if name in cell.alone else "–" for name in methods]
        points = [f"{100 * cell.lost:+.1f}", f"{100 * cell.over:+.1f}"]
        first, last = cell.draws[0], cell.draws[-1]
        which = str(first) if first == last else f"{first} to {last}"
        chosen = f"**{percent(cell.chosen)}**"
        rows.append([cell.source, cell.per_class, which, chosen, *alone, *points])
    if made:
        means = [mean(cell.lost for cell in made), mean(cell.over for cell in made)]
        points = [f"**{100 * share:+.1f}**" for share in means]
        rows.append(["mean", "", "", "", *[""] * len(methods), *points])
    header = ["source", "labels per class", "draws", "auto", *methods, "regret"]
    return markdown([*header, "over the best without unlabelled images"], rows)
