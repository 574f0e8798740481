"""experience.json, what `auto` knows beforehand, from benchmarks/results/.

A row is the mean test accuracy of a method on a data set, over all draws, in its best settings.
Lines of curves.jsonl fill in where there are no draws; of coverage.jsonl, whose labels are natural
draws, where there is neither; of regret.jsonl, where there is nothing else. Heads on
features are all taken from pool_shares.jsonl where it has them: it compares them on the same draws.
"""

import json
from statistics import mean
from typing import Any, NamedTuple

from benchmarks.lib import record
from benchmarks.lib.paths import PIPELINE

TARGET = PIPELINE / "auto" / "experience.json"
CHANNELS = {
    "digits": 1,
    "mnist": 1,
    "fashion-mnist": 1,
    "cifar10-jpeg": 3,
    "sign-digits": 3,
    "tin10": 3,
    "steel": 3,
}
HEADS = ("features", "self_training", "propagation", "gaussian_mixture")
MIXED = ("tin10",)  # whose unlabelled images are of other classes


class Row(NamedTuple):
    source: str
    per_class: int
    method: str


def drawn(file: str) -> dict[Row, float]:
    """Of draws.jsonl or regret.jsonl, whose lines name the source and the labels per class."""
    found: dict[Row, dict[str, list[float]]] = {}
    for line in record.final(file):
        source, method = _source(line), line["settings"]["method"]["name"]
        if source is not None and "-auto" not in line["name"]:
            per_class = line.get("per_class", _option(line["command"], "--per-class", 10))
            by_name = found.setdefault(Row(source, per_class, method), {})
            by_name.setdefault(line["name"], []).append(line["figures"]["test_accuracy"])
    return {row: max(map(mean, by_name.values())) for row, by_name in found.items()}


def _source(line: dict[str, Any]) -> str | None:
    named = [name for name in CHANNELS if line["name"].startswith(f"{name}-")]
    return max(named, key=len) if named else None


def _option(command: str, name: str, default: int) -> int:
    words = command.split()
    return int(words[words.index(name) + 1]) if name in words else default


def covered() -> dict[Row, float]:
    """Of natural draws in coverage.jsonl, named "mnist natural 10 features"."""
    found = {}
    for line in record.final("coverage"):
        source, kind, per_class, method = line["name"].split()[:4]
        if kind == "natural" and source in CHANNELS and method == "features":
            found[Row(source, int(per_class), method)] = line["figures"]["truth"]
    return found


def curved() -> dict[Row, float]:
    """Of curves.jsonl, over all draws of a cell."""
    found: dict[Row, list[float]] = {}
    for line in record.final("curves"):
        cell = line["settings"]
        row = Row(cell["source"], cell["per_class"], cell["method"]["name"])
        found.setdefault(row, []).append(line["figures"]["test_accuracy"])
    return {row: mean(accuracies) for row, accuracies in found.items()}


def pooled() -> dict[Row, float]:
    """Of pool_shares.jsonl, named "tin10 all outside balanced 4"; labels balanced by hand.

    Of tin10, whose unlabelled images are of other classes, those lines count.
    """
    found: dict[Row, list[float]] = {}
    for line in record.final("pool_shares"):
        source, *pool, kind, per_class = line["name"].split()
        wanted = ["all", "outside"] if source in MIXED else ["1:1"]
        if source in CHANNELS and pool == wanted and kind == "balanced":
            for method in HEADS:
                row = Row(source, int(per_class), method)
                found.setdefault(row, []).append(line["figures"][method])
    return {row: mean(accuracies) for row, accuracies in found.items()}


def compared() -> dict[Row, float]:
    """All rows, without other figures of heads where `pooled` has the source."""
    heads = pooled()
    sources = {row.source for row in heads}
    others = drawn("regret") | covered() | curved() | drawn("draws")
    kept = {
        row: accuracy
        for row, accuracy in others.items()
        if row.method not in HEADS or row.source not in sources or row.per_class > 10
    }
    return kept | heads


def text() -> str:
    rows = [
        {
            **row._asdict(),
            "channels": CHANNELS[row.source],
            "mixed": row.source in MIXED,
            "accuracy": round(accuracy, 4),
        }
        for row, accuracy in sorted(compared().items())
    ]
    return json.dumps(rows, indent=1) + "\n"
