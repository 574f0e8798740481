"""Explain an estimate in sentences: its meaning, its assumptions and its limits."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from handful.evaluation.accuracy_estimate import BY_HAND, DRAWN_EVEN, EVEN
from handful.evaluation.label_shift import LABELED, UNLABELED
from handful.text import (
    FEW,
    NBSP,
    NOT_SHOWN,
    counted,
    gains,
    may_guess,
    name_in_text,
    often,
    percent,
    promise_in_words,
    promises,
    sentence,
    sure_answers,
    times_of,
    why_no_promise,
    withheld,
)


@dataclass(frozen=True)
class Story:
    """An estimate in sentences."""

    means: str  # its meaning; "" if there is no estimate
    tested: str  # its comparison with the test accuracy; "" without a test part
    assumes: str
    doubts: tuple[str, ...]  # reasons to doubt it
    how: str  # how it was made


@dataclass(frozen=True)
class Headline:
    """An accuracy as it may be said in large letters."""

    value: str  # "about 72 %"; "above about 42 %" where few labels count
    range: str  # its interval in words; "" for a bound
    bound: bool  # whether only the lower end is known well enough to be said


def headline(estimate: Mapping[str, Any]) -> Headline:
    """Say an accuracy as exactly as it is known, and no more exactly.

    With fewer than FEW labels that count, only the lower end of the interval is said, and only the
    interval where it is not shown to be better than guessing.

    Args:
        estimate: as in run.json, with an accuracy.
    """
    accuracy, low, high = (100 * float(estimate[key]) for key in ("accuracy", "low", "high"))
    why = withheld(estimate)
    if why == "few":
        return Headline(f"above about {low:.0f}{NBSP}%", "", True)
    if why == "guessing":
        return Headline(f"{low:.0f} to {high:.0f}{NBSP}%", NOT_SHOWN, False)
    if why == "all":
        almost = "nearly all labelled images were predicted rightly"
        return Headline(f"above about {low:.0f}{NBSP}%", almost, False)
    digits = 0 if high - low > 2 else 1
    at, least, most = (f"{share:.{digits}f}" for share in (accuracy, low, high))
    times = times_of(float(estimate["level"]))
    return Headline(f"about {at}{NBSP}%", f"{least} to {most}{NBSP}%, {times}", False)


def good_enough(
    estimate: Mapping[str, Any], unlabeled: int, labels: Mapping[str, int], folder: str
) -> tuple[str, ...]:
    """Sentences that help to judge whether a classifier is good enough for a task.

    Args:
        estimate: as in run.json, with an accuracy.
        unlabeled: images that it classified.
        labels: class → number of its labels.
        folder: the run, quoted for a shell.
    """
    low, high, few = float(estimate["low"]), float(estimate["high"]), headline(estimate).bound
    said, n = [], int(estimate.get("n", FEW))
    if few:
        said.append(
            f"{counted(n, 'label')} of images that were picked at random "
            f"{'counts' if n == 1 else 'count'} in this figure, too few for more than a bound. "
            f"Label {FEW} or more random images to learn how often it is right."
        )
    elif unlabeled:
        least, most = _rounded((1 - high) * unlabeled), _rounded((1 - low) * unlabeled)
        wrong = f"about {least:,} to {most:,}" if most > least else f"about {least:,}"
        said.append(
            f"Of the {unlabeled:,} images that it classified, expect {wrong} to be wrong, if they "
            f"are like the labelled ones."
        )
    commonest = max(labels, key=lambda name: labels[name])
    share = labels[commonest] / max(1, sum(labels.values()))
    if may_guess(estimate):
        said.append("It is not shown to be better than guessing: label more images.")
    elif not few:
        said.append(
            f"Answering “{commonest}” every time would be right for about {percent(share, 0)}."
        )
    return (*said, _only_sure(estimate, folder))


def why_no_forecast(estimate: Mapping[str, Any]) -> str:
    """Why it is not known what more labels would bring; "" where it is.

    Args:
        estimate: as in run.json, with an accuracy.
    """
    why = withheld(estimate)
    if why == "few":
        return f"What more labels should bring is said from {FEW} labels of random images on."
    if why == "guessing":
        return "What more labels should bring cannot be told of a model that is not shown to learn."
    if estimate.get("rough") and not why:
        return (
            "What more labels should bring is not known of this classifier. It takes fits on half "
            "of the labels, which are made of quick methods only. The command below tells it of a "
            "linear head on the features of a frozen network, which may be right less often."
        )
    return ""


def _rounded(count: float) -> int:
    """A count with two digits that are not 0: 358 as 360."""
    whole = round(count)
    return round(whole, 2 - len(str(whole))) if whole >= 100 else whole


def _only_sure(estimate: Mapping[str, Any], folder: str) -> str:
    """What is promised where only sure answers count."""
    if not (promised := promises(estimate)):
        return f"Nothing is promised of its sure answers (--abstain): {why_no_promise(estimate)}."
    best = (sure_answers(estimate) or promised)[-1]
    more = (
        ""
        if gains(best, estimate)
        else " All answers together are already expected to be right as often."
    )
    return (
        f"If it may answer only where it is sure (handful predict {folder} PHOTOS --abstain "
        f"{best['sure']:g}): {promise_in_words(best)}.{more}"
    )


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
    least, most, told = round(100 * low), round(100 * high), headline(estimate)
    expected = f"expect about {100 * accuracy:.0f} to be classified rightly; it may be"
    if withheld(estimate) == "guessing":
        expected = f"the share that is classified rightly is {NOT_SHOWN}; it may be"
    if withheld(estimate) == "all":
        expected = "expect nearly all to be classified rightly; it may be"
    means = (
        f"The {counted(int(estimate['n']), 'label')} that count show no more than a bound."
        if told.bound
        else f"Of 100 new images like the labelled ones, {expected} {least} to {most}. The "
        f"interval is made so that it holds the true accuracy of the saved model for "
        f"{often(float(estimate['level']))} sets of labels picked in this way."
    )
    hint = (
        ""
        if {BY_HAND, EVEN, DRAWN_EVEN} & set(estimate["caveats"])
        else " (where they are not, give --prior)"
    )
    shares = (
        f"classes are as common there as among the labels{hint}"
        if not prior or prior_from == LABELED
        else f"class shares there are as {_sources(prior_from)}: "
        + ", ".join(f"{name_in_text(name)} {percent(share, 0)}" for name, share in prior.items())
    )
    origins = set(origins)
    those = " that count" if "chosen" in origins else ""
    assumes = (
        f"The labelled images{those} were picked at random from the images that it will meet, and "
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
            "The gain of the saved model from seeing all labels is a typical one, not measured "
            "here."
        )
    kinds = set(origins)
    if "unknown" in kinds:
        some, other = "some of " * ("random" in kinds), "other " * ("chosen" in kinds)
        said.append(
            f"How {some}the {other}labelled images were picked is not recorded. If they were "
            f"picked for being odd, typical or easy, the estimate is wrong."
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
