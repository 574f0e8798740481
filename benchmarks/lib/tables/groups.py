"""Groups that are found among labelled images, and near-copies."""

from statistics import mean
from typing import Any

from benchmarks.lib import record
from benchmarks.lib.tables.shown import markdown, percent

SHOWN = {
    "doubled random": "every photograph twice",
    "burst random": "bursts, names of random letters",
    "burst numbers": "bursts, running numbers in names",
    "burst times": "bursts, times in EXIF",
    "track random": "tracks, names of random letters",
    "track numbers": "tracks, running numbers in names",
    "track tracks": "tracks, names such as 00012_00007",
    "plain random": "single photographs, names of random letters",
    "plain numbers": "single photographs, running numbers",
    "plain times": "single photographs, times in EXIF",
}


def groups() -> str:
    """One row a kind of images, over all sources: what is found and how often estimates hold."""
    lines = _lines()
    rows = []
    for cell, shown in SHOWN.items():
        found = [figures for name, figures in lines.items() if name.split(" ", 1)[1] == cell]
        if not found:
            continue
        draws = sum(figures["draws"] for figures in found)
        pairs = [figures["pairs"] for figures in found if figures["pairs"] is not None]
        rows.append(
            [
                shown,
                len(found),
                draws,
                percent(mean(pairs)) if pairs else "–",
                percent(_pooled(found, "wrong")),
                f"{100 * _pooled(found, 'gap_none'):+.1f}",
                percent(_pooled(found, "covered_none")),
                f"{100 * _pooled(found, 'gap_auto'):+.1f}",
                percent(_pooled(found, "covered_auto")),
                percent(_pooled(found, "covered_given")),
                f"{100 * (_pooled(found, 'width_auto') - _pooled(found, 'width_none')):+.1f}",
            ]
        )
    header = ["images", "sources", "draws", "frames of a scene together", "labels with a stranger",
              "error without groups", "held without", "error with auto", "held with auto",
              "held with true scenes", "wider than without"]  # fmt: skip
    return markdown(header, rows)


def near_copies() -> str:
    """What `handful data` finds of near-copies, a row a source."""
    rows: dict[str, list[str]] = {}
    for name, figures in _lines().items():
        source, cell = name.split(" ", 1)
        if cell.startswith("copies"):
            share = figures["found"]
            rows.setdefault(source, []).append("–" if share is None else percent(share))
            rows[source].append(percent(figures["false"]))
    header = ["source"]
    for share in ("no copy", "10 %", "50 %", "100 %"):
        header += [f"{share}: found", "false"]
    return markdown(header, [[source, *cells] for source, cells in sorted(rows.items())])


def _lines() -> dict[str, dict[str, Any]]:
    """The final line of every cell, of the code that made the last line."""
    lines = [line for line in record.read("groups") if line["kind"] == "final"]
    code = lines[-1]["settings"]["code"] if lines else ""
    return {x["name"]: x["figures"] for x in lines if x["settings"]["code"] == code}


def _pooled(found: list[dict[str, Any]], key: str) -> float:
    """The mean over all draws of all sources."""
    weights = [figures["draws"] for figures in found]
    return float(sum(n * figures[key] for n, figures in zip(weights, found, strict=True))) / sum(
        weights
    )
