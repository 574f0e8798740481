"""A recipe: named settings with the published accuracy and the command that runs them."""

from dataclasses import dataclass
from math import ceil

from handful.errors import HandfulError
from handful.methods.base import Method
from handful.methods.schedule import Schedule
from handful.models.classifier import BackboneSpec


@dataclass(frozen=True)
class Data:
    """A source of images, and the labels that are used."""

    source: str  # a public data set by name, or a folder of images inside the data folder
    title: str  # what tables call it
    per_class: int = 0  # labels per class, drawn anew for every draw
    first: int = 0  # instead of per_class: the labels of this many first images; both 0: all labels
    unlabeled: int = 0  # number of unlabelled images that are used; 0: all


@dataclass(frozen=True)
class Recipe:
    """All that determines a result except the draw: data, network, method, training."""

    name: str
    report: str  # letter of the report; empty for what goes beyond them
    what: str  # one line for a reader
    data: tuple[Data, ...]  # the first that is in the data folder is used
    method: Method
    minutes: float  # per draw, on two cores
    schedule: Schedule | None = None  # None: the method's own, or none where a head is fitted
    backbone: BackboneSpec | None = None  # None: the method's own
    published: float | None = None  # test accuracy in the report
    correction: str = ""  # what was wrong with the report's number, and what is done here
    size: int | None = None  # side in pixels; None: the images' own
    copies: int = 0  # augmented copies of each labelled image made once, by each of five pipelines
    precision: str = "auto"  # fp32, bf16, or whichever is measured to be faster
    draws: int = 5  # number of draws in a mean
    on_devices: bool = False  # whether several devices may train a draw together

    def __post_init__(self) -> None:
        if not self.data:
            raise HandfulError(f"recipe {self.name!r} has no data; name one source or more")
        if self.published is not None and not 0 <= self.published <= 1:
            raise HandfulError(f"published is an accuracy in [0, 1], got {self.published}")

    @property
    def command(self) -> str:
        """The command that runs the recipe."""
        return f"handful reproduce {self.name}"


def epochs(number: int, images: int, batch: int) -> int:
    """Return the optimiser steps of `number` passes; the last, smaller batch is a step too."""
    return number * ceil(images / batch)
