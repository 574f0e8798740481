"""All methods by name. A new method needs its own file and one line in METHODS."""

import inspect
from typing import Any

from handful.errors import HandfulError
from handful.methods.autoencoder import Autoencoder
from handful.methods.base import About, Method
from handful.methods.cmc import CMC
from handful.methods.deep_propagation import DeepPropagation
from handful.methods.ensemble import Ensemble
from handful.methods.fine_tuning import FineTuning
from handful.methods.fixmatch import FixMatch
from handful.methods.gaussian_mixture import GaussianMixture
from handful.methods.linear_head import Features
from handful.methods.mean_teacher import MeanTeacher
from handful.methods.mlp_head import MLPHead
from handful.methods.propagation import Propagation
from handful.methods.pseudo_label import PseudoLabel
from handful.methods.self_training import SelfTraining
from handful.methods.simclr import SimCLR
from handful.methods.softmatch import SoftMatch
from handful.methods.supervised import Supervised
from handful.methods.uda import UDA
from handful.methods.vicreg import VICReg
from handful.progress import Reporter
from handful.text import did_you_mean

METHODS: dict[str, type[Method]] = {
    "supervised": Supervised,
    "features": Features,
    "mlp_head": MLPHead,
    "self_training": SelfTraining,
    "propagation": Propagation,
    "gaussian_mixture": GaussianMixture,
    "fine_tuning": FineTuning,
    "deep_propagation": DeepPropagation,
    "pseudo_label": PseudoLabel,
    "mean_teacher": MeanTeacher,
    "uda": UDA,
    "fixmatch": FixMatch,
    "softmatch": SoftMatch,
    "autoencoder": Autoencoder,
    "simclr": SimCLR,
    "vicreg": VICReg,
    "cmc": CMC,
}


def make(name: str, **values: Any) -> Method:
    """The method `name` with the given fields.

    Raises:
        HandfulError: there is no such method; the message suggests a similar name.
    """
    if name not in METHODS:
        raise HandfulError(
            f"no method {name!r}.{did_you_mean(name, METHODS)} "
            f"Methods: {', '.join(sorted(METHODS))}"
        )
    return METHODS[name](**values)


def introduced(name: str, reporter: Reporter) -> str:
    """What a method does, in brackets, if a message names it for the first time; else ""."""
    what = in_brackets(name)
    return what if what and reporter.first(name) else ""


def in_brackets(name: str) -> str:
    """What a method does, in brackets; "" where nothing is known of it."""
    what = about(name).what
    return f" (it {what})" if what else ""


def about(method: str | Method) -> About:
    """The description of a method, by name or as an object; empty for an unknown name.

    A class without an `about` of its own is described by the first line of its file, after the
    colon; whether it uses unlabelled images, and its counterpart, it inherits.
    """
    known_methods = {**METHODS, Ensemble.name: Ensemble}
    made = known_methods.get(method) if isinstance(method, str) else type(method)
    if made is None:
        return About("")
    if isinstance(known := vars(made).get("about"), About):
        return known
    module = inspect.getmodule(made)
    first = ((module.__doc__ if module else "") or "").strip().split("\n")[0]
    inherited: About = getattr(made, "about", About(""))
    return inherited._replace(
        what=first.partition(": ")[2].rstrip("."), strengths="", weaknesses=""
    )
