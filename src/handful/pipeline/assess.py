"""Assess a model by out-of-fold predictions: accuracy estimate, doubtful labels, forecast."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np

from handful.data.imageset import ImageSet
from handful.evaluation.accuracy_estimate import Estimate, Selected, estimate
from handful.evaluation.calibration import averaged, calibrated
from handful.evaluation.cross_validation import THOROUGH, OutOfFold, Scheme
from handful.evaluation.label_errors import LabelIssue, label_issues
from handful.evaluation.label_shift import unlabeled_shares
from handful.evaluation.learning_curve import Forecast, forecast
from handful.evaluation.pool_confidence import expected_accuracy
from handful.methods.base import Task, Trained
from handful.pipeline.auto.select import Selection, with_more_folds
from handful.pipeline.cross_validate import FOLDS, fold_predictor, predicted_out_of_fold
from handful.pipeline.run_folder import SavedFolds
from handful.progress import Say
from handful.training.plan import Plan
from handful.training.settings import Settings


class Assessment(NamedTuple):
    """The accuracy estimate of a model and what else its out-of-fold predictions show."""

    estimate: Estimate
    issues: list[LabelIssue] | None  # None: the labels cannot tell
    probabilities: np.ndarray  # (n, K) of the n labelled images, out of fold
    forecast: list[Forecast]
    out: OutOfFold
    origins: Sequence[str]  # of the n labels: random, chosen or unknown
    shares: Sequence[float] | None  # class shares among new images; None: those of the labels
    selected: Selected | None = None  # how `auto` selected the method
    remarks: tuple[str, ...] = ()  # appended to `estimate.how`
    shares_how: str = "as given"  # where `shares` come from
    learned: np.ndarray | None = None  # (n,) of the saved model, see `estimate`

    def doubted(self, images: ImageSet) -> list[LabelIssue] | None:
        """Return the issues without the labels that a person has looked at again and confirmed."""
        if self.issues is None:
            return None
        names = images[images.labeled].names
        return [issue for issue in self.issues if names[issue.position] not in images.confirmed]

    def with_remark(self, remark: str) -> "Assessment":
        """Return a copy with a remark appended to `estimate.how`."""
        how = f"{self.estimate.how}; {remark}"
        remarks = (*self.remarks, remark)
        return self._replace(estimate=replace(self.estimate, how=how), remarks=remarks)

    def with_pool_shares(self, predicted: np.ndarray) -> "Assessment":
        """Return the assessment for the class shares estimated on the unlabelled images.

        Args:
            predicted: (m, K) probabilities that the saved model gives to the unlabelled images.
        """
        shares = unlabeled_shares(self.out, predicted, self.origins).tolist()
        return self.with_shares(
            shares, f"as predicted for {len(predicted):,} images without a label"
        )

    def with_shares(self, shares: Sequence[float], how: str) -> "Assessment":
        """Return the assessment for other class shares; `how` says where they come from."""
        return self._again(shares, how, None)

    def with_confidence(self, predicted: np.ndarray) -> "Assessment":
        """Return the assessment with the model's confidence on unlabelled images in its estimate.

        Args:
            predicted: (m, K) probabilities that the saved model gives to unlabelled images, which
                are a sample of new images, and on which it was not trained.
        """
        if self.estimate.accuracy is None:
            return self
        seen = np.bincount(self.out.labels, minlength=predicted.shape[1]) / len(self.out.labels)
        # Labels balanced by hand do not say how common the classes are, and the estimate is for
        # their shares; else the images without a label are as common as new images.
        shares = np.asarray(self.shares) if self.shares is not None else seen
        wanted = shares if self.out.stratified or self.shares is not None else None
        sharp = calibrated(predicted, self.estimate.temperature)
        return self._again(self.shares, self.shares_how, expected_accuracy(sharp, seen, wanted))

    def with_learned(self, learned: np.ndarray) -> "Assessment":
        """Return the assessment with what a trained network predicts of its own labels.

        Args:
            learned: (n,) as in `estimate`.
        """
        return self._replace(learned=learned)._again(self.shares, self.shares_how, None)

    def _again(
        self, shares: Sequence[float] | None, how: str, confidence: float | None
    ) -> "Assessment":
        given = self.out, self.origins, shares, self.selected, how, confidence, self.learned
        found = assess(*given)
        return reduce(Assessment.with_remark, self.remarks, found)


def assess(
    out: OutOfFold,
    origins: Sequence[str],
    shares: Sequence[float] | None,
    selected: Selected | None = None,
    shares_how: str = "as given",
    confidence: float | None = None,
    learned: np.ndarray | None = None,
) -> Assessment:
    """Return the assessment of a model from its out-of-fold predictions; see `estimate`."""
    estimated = estimate(
        out,
        prior=shares,
        origins=origins,
        selected=selected,
        prior_how=shares_how,
        confidence=confidence,
        learned=learned,
    )
    return Assessment(
        estimated,
        label_issues(out),
        averaged(out, estimated.temperature),
        forecast(estimated, out),
        out,
        origins,
        shares,
        selected,
        shares_how=shares_how,
        learned=learned,
    )


def assess_given_method(
    settings: Settings,
    task: Task,
    seed: int,
    plan: Plan,
    origins: Sequence[str],
    shares: Sequence[float] | None,
    work: Path | None,
    say: Say,
) -> Assessment:
    """Cross-validate a method that the user named, and return its assessment.

    Args:
        work: folder in which finished folds are saved, so that an interrupted fit resumes; or
            None.
    """
    scheme = scheme_for(settings)
    predictor = fold_predictor(settings, task, seed, plan, work, say)
    saved_folds = SavedFolds(work) if work is not None else None
    return assess(
        predicted_out_of_fold(task, predictor, scheme, seed, saved_folds), origins, shares
    )


def assess_selected_method(
    selection: Selection, seed: int, origins: Sequence[str], shares: Sequence[float] | None
) -> Assessment:
    """Return the assessment of the method that `auto` selected.

    The estimate is corrected downwards, since the same labels selected the method.
    """
    out = with_more_folds(selection.selected, seed)
    assessment = assess(out, origins, shares, selection.for_correction)
    candidate = selection.selected.candidate
    if candidate.fold_steps == candidate.plan.steps or assessment.estimate.accuracy is None:
        return assessment
    return assessment.with_remark(
        f"its models were planned with {candidate.fold_steps} of {candidate.plan.steps} steps"
    )


def scheme_for(settings: Settings) -> Scheme:
    """Return the cross-validation scheme: fewer fits for methods that train a network."""
    return FOLDS if isinstance(settings.method, Trained) else THOROUGH
