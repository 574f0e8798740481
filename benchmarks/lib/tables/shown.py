"""How tables are written: Markdown, percent, mean and spread."""

import re
from collections.abc import Iterable, Sequence
from statistics import mean, stdev
from typing import Any

from benchmarks.lib.arguments import RUN
from handful.pipeline.compare import Spread

Line = dict[str, Any]
Lines = list[Line]
OLD_WAY = re.compile(r"^python benchmarks/(\w+)\.py")  # in lines from before there was a `run`


def markdown(header: list[str], rows: Iterable[list[Any]]) -> str:
    body = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in body)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def mean_spread(found: Sequence[float]) -> str:
    """Mean and standard deviation, in percent."""
    around = f" ± {100 * stdev(found):.1f}" if len(found) > 1 else ""
    return f"**{100 * mean(found):.1f}**{around} %"


def accuracy(lines: Lines) -> str:
    found = [line["figures"]["test_accuracy"] for line in lines]
    return f"{mean_spread(found)} (n = {len(found)})"


def published(report: float | None) -> str:
    return percent(report) if report is not None else "–"


def minutes(lines: Lines) -> str:
    seconds = mean(line["figures"]["seconds"] for line in lines)
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def command(lines: Lines) -> str:
    """That of the last line, as it is typed today."""
    typed = OLD_WAY.sub(rf"{RUN} \1", lines[-1]["command"])
    return f"`{typed}`"


def interval_of(gained: Spread, digits: int = 1) -> str:
    """Of a difference in points; a dash where one draw tells none."""
    if gained.low is None or gained.high is None:
        return "–"
    return f"{gained.low:+.{digits}f} to {gained.high:+.{digits}f}"


def accuracy_of(line: Line) -> float:
    found: float = line["figures"]["test_accuracy"]
    return found
