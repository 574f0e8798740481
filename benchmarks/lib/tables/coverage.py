"""How often the interval of the estimate held the truth."""

from statistics import mean

from benchmarks.lib import record
from benchmarks.lib.tables.shown import markdown, percent


def coverage() -> str:
    """How often the 90 % interval of the estimate held the accuracy on all other images."""
    rows = []
    for line in record.final("coverage"):
        found = line["figures"]
        shares = [percent(found[key]) for key in ("covered", "lower_covered", "width", "narrower")]
        rows.append([line["name"], found["draws"], *shares, f"{found['seconds']:.2f}"])
    header = ["cell", "draws", "covered", "lower bound holds", "width", "narrower than hold-out"]
    return markdown([*header, "s an estimate"], rows)


def coverage_pooled() -> str:
    """The same over the cells of one number of labels per class, with the least of them."""
    rows = []
    lines = [line["figures"] | {"cell": line["name"].split()} for line in record.final("coverage")]
    for method, per_class in sorted({(x["cell"][3], int(x["cell"][2])) for x in lines}):
        some = [x for x in lines if x["cell"][2:] == [str(per_class), method]]
        keys = ("covered", "lower_covered", "width", "holdout_covered", "narrower")
        known = [[x[key] for x in some if key in x] for key in keys]
        means = [percent(mean(shares)) if shares else "–" for shares in known]
        least = percent(min(x["covered"] for x in some))
        rows.append([method, per_class, len(some), sum(x["draws"] for x in some), least, *means])
    header = ["method", "labels per class", "cells", "draws", "least covered", "covered"]
    header += ["lower bound holds", "width", "hold-out covered", "narrower than hold-out"]
    return markdown(header, rows)
