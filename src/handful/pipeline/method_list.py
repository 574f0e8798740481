"""Describe the methods for people who choose one: needs, strengths, measured accuracy."""

from collections.abc import Mapping
from typing import NamedTuple

from handful import methods
from handful.pipeline.auto.past_results import load_past_results

PER_CLASS = 10  # labels per class of the accuracies shown


class Described(NamedTuple):
    """A method in words."""

    name: str
    what: str
    needs: str
    strengths: str
    weaknesses: str
    accuracy: Mapping[str, float]  # data set → mean test accuracy with PER_CLASS labels per class


def described(name: str | None = None) -> list[Described]:
    """Describe all methods, or the one of this name.

    Raises:
        HandfulError: there is no such method; the message suggests a similar name.
    """
    names = list(methods.METHODS) if name is None else [methods.make(name).name]
    return [_described(name) for name in names]


def _described(name: str) -> Described:
    about = methods.about(name)
    needs = ["labels"]
    if about.uses_unlabeled:
        needs.append("unlabelled images")
    if about.learned_weights:
        needs.append("ImageNet weights (installed with handful)")
    accuracy = {
        row["source"]: float(row["accuracy"])
        for row in load_past_results()
        if row["method"] == name and row["per_class"] == PER_CLASS and not row["mixed"]
    }
    return Described(
        name, about.what, ", ".join(needs), about.strengths, about.weaknesses, accuracy
    )
