"""Heads on the features of one backbone, or of several side by side."""

from statistics import mean

from benchmarks.accuracy.backbones import COST, FILE, METHODS, PER_CLASS
from benchmarks.lib import record
from benchmarks.lib.tables.shown import markdown, percent

_COLUMNS = [f"{method} {per_class}" for per_class in PER_CLASS for method in METHODS]


def figures_by() -> dict[str, dict[str, list[dict[str, float]]]]:
    """Backbone → source → figures of each draw, of development draws."""
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for line in record.read(FILE):
        if line["kind"] == "dev" and line["name"] != COST:
            source, backbone = line["name"].split()
            found.setdefault(backbone, {}).setdefault(source, []).append(line["figures"])
    return found


def everywhere() -> list[str]:
    """The backbones that were run on all sources, the fastest first; others have no mean."""
    by = figures_by()
    most = max(map(len, by.values()))
    return sorted((name for name, found in by.items() if len(found) == most), key=relative_cost)


def relative_cost(backbone: str) -> float:
    """The time of an image, relative to lite0 in the same run."""
    last = [line for line in record.read(FILE) if line["name"] == COST][-1]["figures"]
    return float(last[backbone] / last["lite0"])


def mean_accuracy(backbone: str, column: str) -> float:
    """Mean over sources of the mean over draws."""
    return mean(mean(one[column] for one in draws) for draws in figures_by()[backbone].values())


def mean_rank(backbone: str) -> float:
    """Mean over sources and columns of the backbone's rank by accuracy, 1 the best."""
    by, ranks = figures_by(), []
    for source in by[backbone]:
        for column in _COLUMNS:
            means = {
                name: mean(one[column] for one in sources[source])
                for name, sources in by.items()
                if name in everywhere()
            }
            own = means[backbone]
            better = sum(other > own for other in means.values())
            equal = sum(other == own for other in means.values()) - 1
            ranks.append(1 + better + equal / 2)
    return mean(ranks)


def backbones() -> str:
    """A row a backbone: its cost, accuracies in the mean over sources, and its mean rank."""
    rows = [
        [
            backbone,
            f"{relative_cost(backbone):.1f}",
            *(percent(mean_accuracy(backbone, column)) for column in _COLUMNS),
            f"{mean_rank(backbone):.1f}",
        ]
        for backbone in everywhere()
    ]
    heads = [f"{name}, {per_class} per class" for name, per_class in map(str.split, _COLUMNS)]
    return markdown(["network", "time", *heads, "mean rank"], rows)


def backbones_by_source() -> str:
    """A row a source and backbone, 10 labels per class."""
    columns = [column for column in _COLUMNS if column.endswith(" 10")]
    rows = [
        [source, backbone, *(percent(mean(one[x] for one in draws)) for x in columns)]
        for backbone, sources in figures_by().items()
        for source, draws in sources.items()
    ]
    heads = [column.split()[0] for column in columns]
    return markdown(["source", "network", *heads], sorted(rows))
