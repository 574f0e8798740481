"""Resolve the options of a fit for its images, and check that they fit together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from handful.data.imageset import ImageSet
from handful.data.sources import check_labels
from handful.errors import HandfulError
from handful.evaluation.accuracy_estimate import check_prior
from handful.evaluation.label_shift import UNLABELED
from handful.methods.base import Task
from handful.pipeline.auto.candidates import prepared
from handful.pipeline.auto.race import BUDGET, first_candidate
from handful.pipeline.auto.select import AUTO
from handful.pipeline.options import FitOptions
from handful.pipeline.record import FitRequest
from handful.pipeline.run import Run
from handful.pipeline.setup import class_shares
from handful.progress import Reporter
from handful.training.settings import Settings, make_fingerprint
from handful.training.time_budget import check_budget


class ResolvedOptions(NamedTuple):
    """Options resolved for the images, and checked before any file is written."""

    settings: Settings  # with `auto`: of the first candidate
    task: Task
    request: FitRequest
    options: FitOptions
    auto: bool
    fingerprint: str  # equal for runs with equal images, settings and seed

    @property
    def asked(self) -> dict[str, Any]:
        """What the fingerprint is made of that a message can name; see `write_command`."""
        request = self.request
        return {
            "images": self.task.images.hash, "budget": request.budget, "seed": request.seed
        }  # fmt: skip


def resolve(
    images: ImageSet,
    options: FitOptions,
    after: Run | None,
    command: Sequence[str],
    reporter: Reporter,
) -> ResolvedOptions:
    """Resolve the options for these images; HandfulError if they do not fit together."""
    check_labels(images)
    origins = [images.origins.get(name, "unknown") for name in images[images.labeled].names]
    confirmed = sorted(images.confirmed & set(images[images.labeled].names))
    shares = checked_shares(images, options.prior, options.estimate, origins)
    inputs = replace(options.inputs, shares=None if shares is None else tuple(shares))
    options = replace(options, inputs=inputs)
    auto = options.method in (None, AUTO)
    budget = BUDGET if auto and options.budget is None else options.budget
    settings, task = prepare_first(images, options, reporter)
    if budget is not None:
        budget = float(budget)
        given = options.budget is not None and settings.schedule is not None
        check_budget(budget, options.settings if given else {})
    fingerprint = make_fingerprint(
        task.images.hash,
        settings.identity(task),
        task.size,
        options.inputs.aspect or "crop",
        task.flips,
        options.seed,
        options.estimate,
        origins,
        UNLABELED if options.prior == UNLABELED else shares,
        *([] if budget is None else [budget]),
        *([] if task.init is None else [task.init.hash]),
        *([AUTO, options.inputs.size] if auto else []),
        *([options.fixed] if auto and options.fixed else []),
        *([{"confirmed": confirmed}] if confirmed else []),
    )
    wanted = options.estimate == "folds"
    request = FitRequest(
        options.seed,
        origins,
        wanted,
        options.prior,
        shares,
        budget,
        after,
        command,
        options.fixed,
        options.devices,
    )
    return ResolvedOptions(settings, task, request, options, auto, fingerprint)


def prepare_first(
    images: ImageSet, options: FitOptions, reporter: Reporter
) -> tuple[Settings, Task]:
    """Resolve the given method; with `auto` the first candidate that takes what the user fixed."""
    method = options.method
    if method is None or method == AUTO:
        method = first_candidate(images, options, reporter)
    return prepared(images, method, options, reporter)


def checked_shares(
    images: ImageSet, prior: Mapping[str, float] | str | None, estimate: str, origins: Sequence[str]
) -> list[float] | None:
    """Return the class shares given as `prior`; HandfulError if they cannot be right."""
    shares = class_shares(prior, images.classes)
    if prior == UNLABELED and estimate == "none":
        raise HandfulError(
            "prior unlabeled is for the estimate, and estimate is none; leave out one of them"
        )
    if shares is not None:
        check_prior(images.labels[images.labeled], shares, origins)
    elif prior == UNLABELED and not len(images.unlabeled):
        raise HandfulError(
            "prior unlabeled takes class shares from images without a label, and every image has "
            "one; give the shares as CLASS=SHARE,... or leave prior out"
        )
    return shares
