"""Folders on which nothing was tuned: `auto`, its estimate, and every method alone."""

from benchmarks.lib.cells import UNSEEN
from benchmarks.lib.tables.regret import choices, of_auto
from benchmarks.lib.tables.shown import markdown, percent
from handful.methods import METHODS


def unseen() -> str:
    """A row for each cell: accuracies of its draws in the mean, and the estimates of `auto`."""
    made = sorted(choices("unseen"), key=lambda cell: (UNSEEN.index(cell.source), cell.per_class))
    methods = [name for name in METHODS if any(name in cell.alone for cell in made)]
    rows = []
    for cell in made:
        alone = [percent(cell.alone[name]) if name in cell.alone else "–" for name in methods]
        chosen = f"**{percent(cell.chosen)}**"
        said = ", ".join(_estimates(cell.source, cell.per_class, cell.draws))
        lost = f"{100 * cell.lost:+.1f}"
        rows.append([cell.source, cell.per_class, chosen, said, *alone, lost])
    return markdown(
        ["folder", "labels per class", "auto", "its estimate", *methods, "regret"], rows
    )


def _estimates(source: str, per_class: int, draws: list[int]) -> list[str]:
    """What `auto` said of itself in each draw, with the interval."""
    said = {}
    for line in of_auto("unseen"):
        if (line["name"], line["per_class"]) == (f"{source}-auto", per_class):
            one = line["figures"]["estimate"]
            around = f"{100 * one['low']:.0f} to {100 * one['high']:.0f}"
            said[line["draw"]] = f"{percent(one['accuracy'])} ({around})"
    return [said[draw] for draw in draws]
