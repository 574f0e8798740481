"""Whether the numbers in promises are true."""

from collections import defaultdict
from statistics import mean
from typing import Any

from benchmarks.lib import record
from benchmarks.lib.tables.shown import markdown, percent


def _lines(check: str) -> list[dict[str, Any]]:
    """The figures of every cell of a check, with the words of its name."""
    return [
        line["figures"] | {"cell": line["name"].split()[1:]}
        for line in record.final("promises")
        if line["name"].split()[0] == check
    ]


def abstention() -> str:
    """Thresholds of --abstain: how often given, and how often their answers were less right."""
    rows = []
    lines = _lines("labels")
    for labels in sorted({line["labels"] for line in lines}):
        some = [line for line in lines if line["labels"] == labels]
        draws = sum(line["draws"] for line in some)
        for target in some[0]["thresholds"]:
            found = [(line["thresholds"][target], line["draws"]) for line in some]
            given = sum(one["given"] for one, _ in found)
            missed = sum(one["missed"] for one, _ in found)
            most = max(one["missed"] / n for one, n in found)
            answered = sum(one["answered"] * one["given"] for one, _ in found) / max(given, 1)
            shares = [percent(given / draws), percent(missed / draws), percent(most)]
            shares += [percent(missed / given), percent(answered)] if given else ["–", "–"]
            rows.append([labels, f"{float(target):.0%}", draws, *shares])
    header = ["labels", "promised: at least", "label sets", "promise given", "given and broken"]
    return markdown([*header, "in the worst cell", "broken, of those given", "answered"], rows)


def none_of_these() -> str:
    """Images like the run's own that are flagged, beside the promise, by the images it has seen."""
    rows = []
    lines = _lines("none")
    for images in sorted({line["images"] for line in lines}):
        some = [line for line in lines if line["images"] == images]
        flagged = [line["flagged"] for line in some]
        error = sum(line["error"] ** 2 for line in some) ** 0.5 / len(some)
        found = f"{100 * mean(flagged):.1f} ± {100 * error:.1f} %"
        runs = sum(line["draws"] for line in some)
        rows.append([images, runs, percent(some[0]["promised"]), found, percent(max(flagged))])
    header = ["images seen", "runs", "promised: at most", "flagged ± its standard error"]
    header += ["in the worst of the data sets"]
    return markdown(header, rows)


def recall() -> str:
    """The interval of the recall of a class, by the number of its labels."""
    found: dict[int, list[dict[str, float]]] = defaultdict(list)
    for line in _lines("labels"):
        for least, one in line["recall"].items():
            found[int(least)].append(one)
    rows = []
    for least, more in zip(sorted(found), [*sorted(found)[1:], None], strict=True):
        classes = sum(one["classes"] for one in found[least])
        means = [
            percent(sum(one[key] * one["classes"] for one in found[least]) / classes)
            for key in ("covered", "lower_covered", "width")
        ]
        span = f"{least} to {more - 1}" if more else f"{least} and more"
        rows.append([span, int(classes), *means])
    return markdown(["labels of the class", "classes", "held", "lower bound holds", "width"], rows)


def scenes() -> str:
    """The interval where labels are frames of scenes, given as groups."""
    rows = []
    for kind in dict.fromkeys(" ".join(line["cell"][1:]) for line in _lines("groups")):
        some = [line for line in _lines("groups") if " ".join(line["cell"][1:]) == kind]
        draws = sum(line["draws"] for line in some)
        keys = ("covered", "lower_covered", "width")
        means = [percent(sum(line[key] * line["draws"] for line in some) / draws) for key in keys]
        rows.append([kind, draws, *means])
    return markdown(["scenes", "draws", "held", "lower bound holds", "width"], rows)


def guessing() -> str:
    """In words: what is said of a model whose labels are noise."""
    lines = _lines("guessing")
    if not lines:
        return "Not run yet."
    said = sum(line["said"] * line["draws"] for line in lines)
    draws = sum(line["draws"] for line in lines)
    held = sum(line["covered"] * line["draws"] for line in lines) / draws
    most = max(line["most_added"] for line in lines)
    others = f" (to the others at most {100 * most:.1f} points)" if said < draws else ""
    return (
        f"Labels dealt as noise over eleven classes: {said:.0f} of {draws} models are called no "
        f"better than guessing, and nothing is added to them{others}. The interval holds the "
        f"chance of one in eleven in {percent(held)}."
    )
