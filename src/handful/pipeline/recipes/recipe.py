"""A recipe: a named setting, frozen, with what was published for it and how it is run."""

from dataclasses import dataclass
from math import ceil

from handful.errors import HandfulError
from handful.methods.base import Method
from handful.methods.schedule import Schedule
from handful.models.classifier import BackboneSpec


@dataclass(frozen=True)
class Data:
    """Images, and which of their labels are seen."""

    source: str  # a public data set by name, or a folder of images inside the data folder
    title: str  # what tables call it
    per_class: int = 0  # labels of each class that are seen, drawn anew for every draw
    first: int = 0  # instead: the labels of the first so many images. Neither: all labels
    unlabeled: int = 0  # images without a label that are used, of more; 0: all


@dataclass(frozen=True)
class Recipe:
    """All that a result depends on, but for the draw: data, network, method, training."""

    name: str
    report: str  # letter of the report; empty for what goes beyond them
    what: str  # one line for a reader
    data: tuple[Data, ...]  # the first that is at hand is used
    method: Method
    minutes: float  # a draw, on two cores
    schedule: Schedule | None = None  # None: the method's own, or none where a head is fitted
    backbone: BackboneSpec | None = None  # None: the method's own
    published: float | None = None  # test accuracy in the report
    correction: str = ""  # what was wrong with the report's number, and what is done here
    size: int | None = None  # side in pixels; None: the images' own
    copies: int = 0  # augmented copies of each labelled image made once, by each of five pipelines
    precision: str = "auto"  # fp32, bf16, or whichever is measured to be faster
    draws: int = 5  # how many a mean is taken over

    def __post_init__(self) -> None:
        if not self.data:
            raise HandfulError(f"recipe {self.name!r} has no data; name one source or more")
        if self.published is not None and not 0 <= self.published <= 1:
            raise HandfulError(f"published is an accuracy in [0, 1], got {self.published}")

    @property
    def command(self) -> str:
        """What a user types."""
        return f"handful reproduce {self.name}"


def epochs(number: int, images: int, batch: int) -> int:
    """Optimiser steps of `number` passes over `images`; what is left of a pass is a step too."""
    return number * ceil(images / batch)
