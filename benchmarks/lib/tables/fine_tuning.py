"""Networks trained further from different starts, beside the frozen head on the same draws."""

from benchmarks.accuracy import backbones
from benchmarks.accuracy.fine_tuning import FILE, PER_CLASS
from benchmarks.lib import record
from benchmarks.lib.tables.shown import Line, markdown, minutes, percent

_FROZEN = "lite0+lite2"


def fine_tuning_starts() -> str:
    """A row a source and start, and before them the mixture on frozen networks."""
    found: dict[str, list[Line]] = {}
    for line in record.read(FILE):
        if line["kind"] == "dev":
            found.setdefault(line["name"], []).append(line)
    rows: dict[str, list[str]] = {}
    for name, lines in found.items():
        source, _, start = name.partition(" ")
        frozen = {
            line["draw"]: line["figures"][f"gaussian_mixture {PER_CLASS}"]
            for line in record.read(backbones.FILE)
            if line["name"] == f"{source} {_FROZEN}"
        }
        right = {line["draw"]: line["figures"]["test_accuracy"] for line in lines}
        title = f"`gaussian_mixture` on frozen {_FROZEN}"
        shown = {draw: frozen[draw] for draw in right if draw in frozen}
        before = rows.setdefault(f"{source} ", [source, title, "", _by_draw(shown), ""])
        if len(shown) > before[3].count("/") + 1:
            before[3] = _by_draw(shown)
        steps, time = lines[0]["settings"]["steps"], minutes([_busy(line) for line in lines])
        rows[name] = [source, start, steps, _by_draw(right), time]
    return markdown(["source", "start", "steps", "accuracy", "time"], list(rows.values()))


def _by_draw(right: dict[int, float]) -> str:
    """Accuracy on each draw, in their order."""
    return " / ".join(percent(right[draw]) for draw in sorted(right))


def _busy(line: Line) -> Line:
    """The line with the processor's seconds as its time, where it has them."""
    figures = line["figures"]
    return {"figures": {"seconds": figures.get("processor_seconds", figures["seconds"])}}
