"""Explain an estimate in sentences: its meaning, its assumptions and its limits."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from handful.evaluation.accuracy_estimate import BY_HAND, EVEN
from handful.evaluation.label_shift import LABELED, UNLABELED
from handful.text import counted, often, percent, sentence, span


@dataclass(frozen=True)
class Story:
    """An estimate in sentences."""

    means: str  # its meaning; "" if there is no estimate
    tested: str  # its comparison with the test accuracy; "" without a test part
    assumes: str
    doubts: tuple[str, ...]  # reasons to doubt it
    how: str  # how it was made


def tell(
    estimate: Mapping[str, Any] | None,
    test: Mapping[str, Any] | None,
    prior: Mapping[str, float] | None,
    origins: Iterable[str],
    prior_from: str = "given",
) -> Story:
    """Explain an estimate as docs/estimate.md does.

    Args:
        estimate: as in run.json.
        test: scores on the test part, as in run.json.
        prior: class → share among new images.
        origins: how each labelled image was picked: "random", "chosen" or "unknown".
        prior_from: the source of `prior`: "labels", "unlabeled" or "given".
    """
    if estimate is None or estimate["accuracy"] is None:
        return Story("", "", "", (), estimate["how"] if estimate else "No estimate was asked for.")
    accuracy, low, high = (float(estimate[key]) for key in ("accuracy", "low", "high"))
    means = (
        f"Of 100 new images drawn like the labelled ones, expect about {100 * accuracy:.0f} to be "
        f"classified rightly. Rely on the interval, {span(low, high)}: it is made so that it holds "
        f"the true accuracy of the saved model for {often(float(estimate['level']))} sets of "
        f"labels picked in this way."
    )
    hint = (
        "" if {BY_HAND, EVEN} & set(estimate["caveats"]) else " (where they are not, give --prior)"
    )
    shares = (
        f"classes are as common there as among the labels{hint}"
        if not prior or prior_from == LABELED
        else f"class shares there are as {_sources(prior_from)}: "
        + ", ".join(f"{name} {percent(share, 0)}" for name, share in prior.items())
    )
    assumes = (
        f"The labelled images are a random sample of the images that the model will meet, and "
        f"{shares}."
    )
    return Story(
        means, _tested(low, high, test), assumes, _doubts(estimate, origins), estimate["how"]
    )


def _sources(prior_from: str) -> str:
    return "the model sees them in the unlabelled ones" if prior_from == UNLABELED else "given"


def _tested(low: float, high: float, test: Mapping[str, Any] | None) -> str:
    if test is None:
        return ""
    accuracy = float(test["accuracy"])
    if low <= accuracy <= high:
        verdict = "inside the interval"
    elif accuracy > high:
        verdict = "above the interval, so the estimate was too careful here"
    else:
        verdict = "below the interval, so the estimate was too hopeful here"
    narrower = float(test["high"]) - float(test["low"]) < high - low
    surer = " The test score is the more precise figure." if narrower else ""
    return (
        f"The {counted(int(test['n']), 'test image')}, not used until the model was saved, gave "
        f"{percent(accuracy)}: {verdict}.{surer}"
    )


def _doubts(estimate: Mapping[str, Any], origins: Iterable[str]) -> tuple[str, ...]:
    said = [sentence(str(caveat)) for caveat in estimate["caveats"]]
    if estimate.get("rough"):
        said.append(
            "The labels were assigned to folds once. The gain of the saved model from seeing more "
            "labels than the models of the folds is extrapolated, not measured here."
        )
    if "unknown" in set(origins):
        said.append(
            "How the labelled images were picked is not recorded. If they were picked for being "
            "odd, typical or easy, the estimate is wrong."
        )
    said.append(
        "New images that are different (another camera, another season, classes without a label) "
        "are not covered: no method can tell that from the labelled images."
    )
    said.append(
        "Almost identical images among the labelled ones make the estimate too high; handful data "
        "finds them."
    )
    return tuple(said)
