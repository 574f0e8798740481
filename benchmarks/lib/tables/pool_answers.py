"""Confidence against accuracy, on a run's own images and on new ones."""

from collections import defaultdict
from statistics import mean

from benchmarks.lib import record
from benchmarks.lib.tables.shown import Line, markdown

# Pools (0: all others) and labels per class, with at most POOL_OF_LABEL images for a label: `fit`
# gives their answers a temperature of their own.
SMALL = ((200, 4), (200, 10), (0, 10))
BEFORE = "likelihood"  # the temperature of earlier versions


def pool_answers() -> str:
    """Mean over sources and kinds of labels, a row for each method, pool and number of labels."""
    lines = {line["name"]: line for line in record.read("pool_answers") if line["kind"] == "dev"}
    groups: dict[tuple[str, int, int], list[Line]] = defaultdict(list)
    for line in lines.values():
        made = line["settings"]
        if made["method"] == "features" and made["pool"]:
            continue  # its heads do not learn from the pool
        groups[made["method"], made["pool"], made["per_class"]].append(line)
    rows = []
    for (method, pool, per_class), found in sorted(groups.items(), key=_order):
        own = "pool" if (pool, per_class) in SMALL else "folds"
        cells = [
            f"{100 * mean(_figure(line, where, key, what) for line in found):.1f}"
            for where, now, what in (
                ("own", own, "error"),
                ("own", own, "ece"),
                ("new", "folds", "error"),
                ("new", "folds", "ece"),
            )
            for key in (BEFORE, now)
        ]
        count = sum(line["figures"]["draws"] for line in found)
        rows.append([f"`{method}`", pool or "all others", per_class, count, *cells])
    header = ["method", "without a label", "labels per class", "draws"]
    header += [f"{where}: {what}" for where in ("own images", "new images") for what in _WHAT]
    return markdown(header, rows)


_WHAT = ("distance before", "now", "calibration error before", "now")


def _order(group: tuple[tuple[str, int, int], list[Line]]) -> tuple[int, str, int]:
    method, pool, per_class = group[0]
    return -(pool or 10**9), method, per_class


def _figure(line: Line, where: str, key: str, what: str) -> float:
    found: float = line["figures"][where][key][what]
    return found
