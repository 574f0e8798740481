"""Select a method by cross-validation and past results, within a time budget."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from handful.data.imageset import ImageSet
from handful.evaluation.accuracy_estimate import Selected
from handful.evaluation.cross_validation import THOROUGH, OutOfFold
from handful.files import read_json, write_json
from handful.methods.base import Fitted
from handful.pipeline.auto.candidates import HEADS_WITH_POOL, MORE_FOLDS
from handful.pipeline.auto.evaluated import Evaluated, Left
from handful.pipeline.auto.evidence import select_by_evidence, selected
from handful.pipeline.auto.past_results import prior_for
from handful.pipeline.auto.race import Race
from handful.pipeline.cross_validate import fold_predictor, predicted_out_of_fold
from handful.pipeline.options import FitOptions
from handful.progress import Reporter
from handful.training.plan import Plan
from handful.training.settings import Settings
from handful.training.time_budget import Deadline

AUTO = "auto"
LAST_POOL = 20_000  # unlabelled images at most that the last fit of a head uses
_MORE_FOLDS_UP_TO = 1_000  # labelled images up to which more folds of a head cost little


class Selection(NamedTuple):
    """The selected method, all evaluated candidates with a verdict on each, and the rule."""

    selected: Evaluated
    evaluated: list[Evaluated]
    verdicts: list[str]  # one for each of `evaluated`
    left: list[Left]  # candidates that were not evaluated to their end
    shifted: bool | None  # whether the unlabelled images are unlike the labelled ones, if known
    rule: Callable[[np.ndarray], int]  # positions (m,) of images → that of the selected method
    remaining: float = math.inf  # seconds of the budget

    @property
    def plan(self) -> Plan:
        """The plan of the last fit, which ends in time where the evaluations took longer.

        It gets the time of the fit of a fold in any case: with fewer steps than these it would be
        worse than what they showed.
        """
        plan, least = self.selected.candidate.plan, self.selected.candidate.fold_seconds
        if plan.allowed is None or least is None or plan.allowed <= self.remaining:
            return plan
        return replace(plan, allowed=max(least, self.remaining))

    @property
    def for_correction(self) -> Selected:
        """What the estimate needs to correct itself for the selection."""
        rows = [this.out.right for this in self.evaluated]
        stack, at = self.selected.stack, self.evaluated.index(self.selected)
        if stack is None:
            return Selected(np.stack(rows), at, self.rule)
        # Other images might have chosen another weight.
        every = np.concatenate([np.stack(rows), stack.right])

        def rule(some: np.ndarray) -> int:
            found = self.rule(some)
            return len(rows) + stack.best(some) if found == at else found

        return Selected(every, at, rule)


def select_method(
    images: ImageSet,
    deadline: Deadline,
    options: FitOptions,
    origins: Sequence[str],
    work: Path | None,
    reporter: Reporter,
    watch: Callable[[Selection], None] | None = None,
) -> Selection:
    """Evaluate all candidates that fit into the budget on common folds, and select one.

    Args:
        as for `Race`.
        watch: gets the selection so far after each candidate that was evaluated.
    """
    race = Race(images, deadline, options, origins, work, reporter)
    for _ in race.run():
        if watch is not None:
            watch(_selection(race, images))
    return _selection(race, images)


def _selection(race: Race, images: ImageSet) -> Selection:
    """Select among the candidates that were evaluated so far."""
    priors = cache(prior_for(images, bool(race.shifted)))
    evidence = race.evidence()
    best, verdicts = select_by_evidence(evidence, priors)
    every = race.evidence_of(np.arange(len(images.labeled)))
    return Selection(
        race.evaluated[best],
        race.evaluated,
        verdicts,
        race.left,
        race.shifted,
        lambda some: selected([one.at(some) for one in every], priors),
        race.remaining,
    )


def with_more_images(selection: Selection, options: FitOptions, work: Path | None) -> Settings:
    """Return the selected settings; of a head, with as many unlabelled images as time is left for.

    The folds learn from a sample, because they take its time again and again. An interrupted fit
    reads what was decided.
    """
    selected = selection.selected
    settings, candidate = selected.settings, selected.candidate
    planned = candidate.settings.get("limit")
    fixed = {"limit", "method.limit"} & options.settings.keys()
    if planned is None or candidate.method not in HEADS_WITH_POOL or fixed:
        return settings  # the method uses none, or the user fixed the number
    path = work / "last-limit.json" if work is not None else None
    if path is not None and path.exists():
        limit = int(read_json(path))
    else:
        used, fit = int(planned), HEADS_WITH_POOL[candidate.method]
        left = max(0.0, selection.remaining - (MORE_FOLDS.fits + 1) * used * fit)
        more = left / (candidate.image_seconds + fit)
        limit = int(min(len(selected.task.images.unlabeled), LAST_POOL, used + more))
        if path is not None:
            write_json(path, limit)
    return replace(settings, method=replace(settings.method, limit=limit))  # type: ignore[type-var]


def with_more_folds(selected: Evaluated, seed: int) -> OutOfFold:
    """Return predictions of more folds of the selected method, if they cost little.

    The estimate becomes more precise. Else its own predictions are returned.
    """
    method, candidate = selected.settings.method, selected.candidate
    if not isinstance(method, Fitted) or len(selected.out.labels) > _MORE_FOLDS_UP_TO:
        return selected.out
    scheme = MORE_FOLDS if candidate.method in HEADS_WITH_POOL else THOROUGH
    predictor = fold_predictor(selected.settings, selected.task, seed, candidate.plan)
    return predicted_out_of_fold(selected.task, predictor, scheme, seed, selected.saved_folds)
