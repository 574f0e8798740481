"""Rounds of labelling: accuracy at each step, and the error of the estimate."""

import numpy as np

from benchmarks.lib import record
from benchmarks.lib.tables.shown import markdown, percent

OFFERED, RANDOM = "cover", "random"  # rules: what `label-next.csv` offers, and random images


def rounds() -> str:
    """Of every source and step: labels as offered beside random ones, and the estimate's error."""
    lines = {line["name"]: line for line in record.final("rounds")}
    rows = []
    for name, line in lines.items():
        source, rule, method = name.split()
        if rule != OFFERED or (plain := lines.get(f"{source} {RANDOM} {method}")) is None:
            continue
        ours, others = (np.array(one["figures"]["truth"]) for one in (line, plain))
        found, low, high = (
            np.array(line["figures"][key], float) for key in ("accuracy", "low", "high")
        )
        gain, error = 100 * (ours - others), 100 * (found - ours)
        for at, labels in enumerate(line["settings"]["labels"]):
            rows.append(
                [
                    source,
                    method,
                    len(ours),
                    labels,
                    percent(others[:, at].mean()),
                    percent(ours[:, at].mean()),
                    _with_error(gain[:, at]),
                    _with_error(error[:, at]),
                    percent(((low <= ours) & (ours <= high))[:, at].mean()),
                ]
            )
    header = "source method draws labels random offered difference error held".split()
    return markdown(header, rows)


def _with_error(values: np.ndarray) -> str:
    """The mean in points, and its standard error."""
    values = values[~np.isnan(values)]
    return f"{values.mean():+.1f} ± {values.std(ddof=1) / np.sqrt(len(values)):.1f}"
