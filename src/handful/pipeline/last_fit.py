"""Train on all labels, and complete the assessment with what is known without labels."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from handful.evaluation.accuracy_estimate import countable
from handful.evaluation.label_shift import UNLABELED, counted_shares
from handful.evaluation.novelty import POOL_SHIFT
from handful.evaluation.pool_confidence import FEWEST
from handful.methods import about
from handful.methods.base import Fitted, Method, Task, Trained
from handful.methods.class_shares import ClassShares
from handful.methods.consistency import Consistency, has_unlabeled
from handful.methods.ensemble import Ensemble, joined
from handful.models.classifier import Predictor
from handful.pipeline.assess import Assessment
from handful.pipeline.pool_check import shift_of_pool, some_unlabeled
from handful.pipeline.pool_shares import pool_shares
from handful.pipeline.record import Decision, FitRequest
from handful.progress import Say
from handful.training.trainer import TrainingResult, train_task

LABEL = "training on all labels"
_LOOKED_AT = 500  # of its own labels, to see whether a network learned them


def train_on_all_labels(
    decision: Decision, request: FitRequest, work: Path | None, say: Say
) -> tuple[Decision, TrainingResult]:
    """Train on all labels, and set the temperature that the assessment found."""
    settings, task, plan, assessment, *_ = decision
    folder = work / "fit" if work is not None else None
    if decision.selection is not None and decision.selection.selected.members:
        learned = _train_ensemble(decision, request.seed, folder, say)
    else:
        how = plan, LABEL, say, request.devices
        learned = train_task(settings, task, request.seed, folder, *how)
    if decision.selection is None and (why_unused := why_unlabeled_unused(settings.method, task)):
        learned = replace(learned, remark=why_unused)
    if assessment is None:
        return decision, learned
    assessment = _complete_assessment(decision, learned.predictor, request)
    assert assessment is not None
    calibrated = replace(learned.predictor, temperature=assessment.estimate.temperature)
    return decision._replace(assessment=assessment), replace(learned, predictor=calibrated)


def _train_ensemble(decision: Decision, seed: int, folder: Path | None, say: Say) -> TrainingResult:
    """Train all members of an ensemble; what is told of the training is that of the last one.

    It is cut short where the time that is left does not hold it, not below the time of a fold.
    """
    method: Any = decision.settings.method
    assert decision.selection is not None and isinstance(method, Ensemble)
    *others, last = decision.selection.selected.members
    fitted = []
    for one in others:
        own = None
        if folder is not None and isinstance(one.settings.method, Trained):
            own = folder / one.candidate.method
            own.mkdir(parents=True, exist_ok=True)
        fitted.append(train_task(one.settings, one.task, seed, own, one.candidate.plan, LABEL, say))
    plan = decision.plan
    planned = last.candidate.plan.allowed
    if plan is not None and planned is not None:
        left = decision.selection.remaining - sum(one.seconds for one in fitted)
        least = last.candidate.fold_seconds or 0.0
        plan = replace(plan, allowed=min(planned, max(least, left)))
    trained = train_task(last.settings, last.task, seed, folder, plan, LABEL, say)
    head, *networks = fitted = [*fitted, trained]
    images = others[0].task.images
    predictors = [one.predictor for one in networks]
    both = joined(method, head.predictor, predictors, images[images.labeled])
    seconds = sum(one.seconds for one in fitted)
    return replace(trained, predictor=both, seconds=seconds, members=tuple(fitted))


def _complete_assessment(
    decision: Decision, predictor: Predictor, request: FitRequest
) -> Assessment | None:
    """Return the assessment with what is known of the images without a label.

    With `prior` "unlabeled", class shares are those of `pool_shares`; where it has none, those that
    the saved model predicts. The model's mean confidence on a sample of the images enters the
    estimate where they are like the labelled ones.
    """
    task, assessment = decision.task, decision.assessment
    if assessment is None:
        return None
    images, pool = task.images, task.images.unlabeled
    if isinstance(decision.settings.method, (Trained, Ensemble)):
        assessment = assessment.with_learned(_learned(task, predictor, request))
    if request.prior == UNLABELED:
        found = pool_shares(decision.settings.method, task, predictor.precision)
        if found is None:
            predicted = predictor.predict_proba(images[pool], track=task.track).numpy()
            assessment = assessment.with_pool_shares(predicted)
        else:
            counted = counted_shares(found.mean, assessment.out.labels, request.origins)
            assessment = assessment.with_shares(counted.tolist(), _how_found(found, task))
    if _pool_is_a_sample(decision, request):
        some = images[some_unlabeled(task, request.seed)]
        predicted = predictor.predict_proba(some, track=task.track).numpy()
        assessment = assessment.with_confidence(predicted)
    if task.init is not None:
        assessment = assessment.with_remark(
            "the backbone learned without labels before, also from held-out images"
        )
    return assessment


def _learned(task: Task, predictor: Predictor, request: FitRequest) -> np.ndarray:
    """(n,) whether the saved model predicts its own labels, as `estimate` takes it.

    Of many labels that count, a random sample is looked at.
    """
    labeled = task.images[task.images.labeled]
    counted, _ = countable(len(labeled), request.origins)
    some = np.flatnonzero(counted)
    some = np.sort(np.random.default_rng(request.seed).permutation(some)[:_LOOKED_AT])
    learned = np.full(len(labeled), np.nan)
    if len(some):
        predicted = predictor.predict_proba(labeled[some], track=task.track).numpy()
        learned[some] = predicted.argmax(axis=1) == labeled.labels[some]
    return learned


def _pool_is_a_sample(decision: Decision, request: FitRequest) -> bool:
    """Return whether the confidence on unlabelled images says how good the saved model is.

    The method must not have learned from them, and they must look like the labelled images, of
    which none was chosen.
    """
    settings, task, plan, *_ = decision
    groups = task.images.groups
    if groups is not None:
        scenes = np.unique(groups[task.images.labeled])
        if len(scenes) < len(task.images.labeled):
            return False  # the unlabelled images may be of the scenes that the model learned
    if (
        any(about(name).uses_unlabeled is not False for name in _methods(settings.method))
        or task.init is not None
        or len(task.images.unlabeled) < FEWEST
        or "chosen" in request.origins
    ):
        return False
    if decision.selection is not None:
        return decision.selection.shifted is False
    if not isinstance(settings.method, Fitted):
        return False
    assert plan is not None
    return shift_of_pool(task, plan.precision, request.seed) <= POOL_SHIFT


def _methods(method: Method) -> list[Method | str]:
    """The method; of an ensemble the names of its members."""
    return [method.head, *method.trained] if isinstance(method, Ensemble) else [method]


def _how_found(found: ClassShares, task: Task) -> str:
    return (
        f"as predicted for {len(task.images.unlabeled):,} images without a label by a model that "
        f"learned from the labels alone, give or take up to {100 * found.sd.max():.0f} points"
    )


def why_unlabeled_unused(method: Method, task: Task) -> str:
    """Return why a method that uses unlabelled images learns from none; empty where it does."""
    known = about(method)
    if not known.uses_unlabeled:
        return ""
    if not has_unlabeled(task):
        why = f"every image has a label, so {method.name} has no unlabelled image to learn from"
    elif isinstance(method, Consistency) and not method.unlabeled_weight:
        why = f"unlabeled_weight is 0, so {method.name} does not learn from images without a label"
    else:
        return ""
    if known.counterpart == "supervised":
        why += ": it learns as supervised does, with its own network and schedule"
    return why
