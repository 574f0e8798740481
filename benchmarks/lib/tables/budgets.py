"""What a fit took beside what it was given."""

from collections.abc import Sequence
from typing import Any

from benchmarks.lib import record
from benchmarks.lib.cells import split_name
from benchmarks.lib.tables.shown import Line, Lines, accuracy, markdown
from handful.pipeline.auto.select import AUTO
from handful.text import in_seconds


def budgets() -> str:
    """Of each method what a fit took, beside what it was given."""
    found: dict[tuple[str, ...], Lines] = {}
    for line in record.read("budgets"):
        if "turns" in line["figures"]:
            source, method = split_name(line["name"])
            key = (f"`{method}`", source, line["hardware"], line["budget"])
            found.setdefault(key, []).append(line)
    rows = []
    for key, lines in sorted(found.items(), key=_by_budget):
        over = ", ".join(f"{_over(line):+.1f} %" for line in lines)
        turns = ", ".join(str(line["figures"]["turns"]) for line in lines)
        rows.append([*key, f"**{over}**", turns, accuracy(lines)])
    header = ["method", "source", "on", "budget", "longer by", "turns", "development accuracy"]
    return markdown(header, rows)


def budgets_kept() -> str:
    """How many fits of one method met their budget, with steps fixed before and with a last step
    that moves on the way."""
    found: dict[tuple[str, ...], list[float]] = {}
    for line in record.read("budgets"):
        if split_name(line["name"])[1] != AUTO:
            way = "moved on the way" if "turns" in line["figures"] else "fixed before the first"
            found.setdefault((way, line["hardware"], line["budget"]), []).append(_over(line))
    rows = [
        [*key, str(len(over)), str(sum(abs(share) <= 5 for share in over)), _ends(over)]
        for key, over in sorted(found.items(), key=_by_budget)
    ]
    header = ["last step", "on", "budget", "fits", "within 5 %", "from, to"]
    return markdown(header, rows)


def _by_budget(row: tuple[tuple[str, ...], Any]) -> tuple[Any, ...]:
    """To sort rows by: what their key names, and the budget that is its last as a time."""
    *named, budget = row[0]
    return *named, in_seconds(budget)


def _over(line: Line) -> float:
    """By how many per cent a fit took longer than its budget."""
    return round(100 * (line["figures"]["seconds"] / in_seconds(line["budget"]) - 1), 3)


def _ends(shares: Sequence[float]) -> str:
    return f"{min(shares):+.1f} to {max(shares):+.1f} %"
