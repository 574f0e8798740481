"""Confidence of the answers for unlabelled images that a head has learned from.

A head that learned from images without their labels is surer of them than of new images, and no
more often right. In a small pool each image weighs much, so the temperature of its answers is found
on labelled images in the same position: each is predicted by a head that learned from it without
its label. In a large pool the difference is smaller than what so few labels can tell
(benchmarks/log/estimates.md).
"""

from dataclasses import replace

from handful.evaluation.accuracy_estimate import countable
from handful.evaluation.calibration import temperature_of
from handful.methods import about
from handful.methods.base import Fitted
from handful.pipeline.cross_validate import FOLDS, fold_predictor, predicted_out_of_fold
from handful.pipeline.pool_check import has_own_temperature
from handful.pipeline.record import Decision, FitRequest
from handful.pipeline.run import Run


def for_pool(run: Run, decision: Decision, request: FitRequest) -> Run:
    """Return the run as it answers for its own unlabelled images; the record gets the temperature.

    It is the run itself where the head did not learn from these images, they are many, or nothing
    is known of its confidence.
    """
    temperature = pool_temperature(decision, request)
    if temperature is None:
        return run
    run.record["estimate"]["pool_temperature"] = temperature
    return replace(run, predictor=replace(run.predictor, temperature=temperature))


def pool_temperature(decision: Decision, request: FitRequest) -> float | None:
    """Return the temperature for images that the head learned from; None for that of the model."""
    settings, task, plan, assessment, *_ = decision
    method, images = settings.method, task.images
    labels, pool = len(images.labeled), len(images.unlabeled)
    if (
        assessment is None
        or assessment.estimate.accuracy is None
        or not isinstance(method, Fitted)
        or not about(method).uses_unlabeled
        or not has_own_temperature(labels, pool)
    ):
        return None
    assert plan is not None
    predictor = fold_predictor(settings, task, request.seed, plan, among_unlabeled=True)
    out = predicted_out_of_fold(task, predictor, FOLDS, request.seed, None)
    return temperature_of(out, countable(len(out.labels), request.origins)[0])
