"""Rows as they are and with one thing changed."""

from benchmarks.lib import record
from benchmarks.lib.tables.shown import (
    Lines,
    accuracy,
    accuracy_of,
    interval_of,
    markdown,
    mean_spread,
)
from handful.pipeline.compare import spread


def gap() -> str:
    """Of rows as they are and with one thing changed, seed by seed, what the change does."""
    found: dict[str, Lines] = {}
    for line in record.final("gap"):
        found.setdefault(line["name"], []).append(line)
    rows = []
    for name, lines in found.items():
        recipe, variant = name.split(", ")
        as_is = {line["draw"]: accuracy_of(line) for line in record.final("recipes", recipe)}
        both = [line for line in lines if line["draw"] in as_is]
        gained = spread([100 * (accuracy_of(line) - as_is[line["draw"]]) for line in both])
        change = both[0]["figures"].get("pixel_change")
        cells = [f"`{recipe}`", variant, f"{change:.1f}" if change else "–", len(both)]
        means = [mean_spread([as_is[line["draw"]] for line in both]), accuracy(both)]
        rows.append([*cells, *means, f"**{gained.mean:+.1f}**", interval_of(gained)])
    header = ["recipe", "changed", "a pixel by, of 255", "seeds", "as it is", "changed so"]
    return markdown([*header, "difference", "90 % interval"], rows)
