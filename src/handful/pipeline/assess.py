"""What the labelled images tell of a model: how good it is, which labels are doubtful, and more."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np

from handful.evaluation.accuracy_estimate import Estimate, estimate
from handful.evaluation.calibration import averaged
from handful.evaluation.cross_validation import THOROUGH, OutOfFold, Scheme
from handful.evaluation.label_errors import LabelIssue, label_issues
from handful.evaluation.label_shift import unlabeled_shares
from handful.evaluation.learning_curve import Forecast, forecast
from handful.methods.base import Task, Trained
from handful.pipeline.auto.select import Choice, thorough
from handful.pipeline.cross_validate import FOLDS, fold_predictor, predicted_out_of_fold
from handful.pipeline.run_folder import Finished
from handful.progress import Say
from handful.training.plan import Plan
from handful.training.settings import Settings


class Judged(NamedTuple):
    """What the labelled images tell of the model, and what its folds tell of them."""

    estimate: Estimate
    issues: list[LabelIssue]
    probabilities: np.ndarray  # (n, K) of the n labelled images, out of fold
    forecast: list[Forecast]
    out: OutOfFold
    origin: Sequence[str]  # of the n labels: random, chosen or unknown
    shares: Sequence[float] | None  # of the classes among new images; None: as labelled
    rivals: Sequence[OutOfFold] = ()  # of the methods that this one was preferred to
    remarks: tuple[str, ...] = ()  # on how the estimate was made

    def but(self, remark: str) -> "Judged":
        """The same, with a remark on how the estimate was made."""
        how = f"{self.estimate.how}; {remark}"
        remarks = (*self.remarks, remark)
        return self._replace(estimate=replace(self.estimate, how=how), remarks=remarks)

    def on_unlabeled(self, predicted: np.ndarray) -> "Judged":
        """The same for class shares as the saved model's (m, K) predictions for images without
        a label have them."""
        shares = unlabeled_shares(self.out, predicted, self.origin).tolist()
        how = f"as predicted for {len(predicted):,} images without a label"
        judged = judge(self.out, self.origin, shares, self.rivals, how)
        return reduce(Judged.but, self.remarks, judged)

    def of(self, rival: OutOfFold) -> Estimate:
        """The estimate of another method on the same labels, as if nothing had been chosen."""
        return estimate(rival, prior=self.shares, origins=self.origin)


def judge(
    out: OutOfFold,
    origin: Sequence[str],
    shares: Sequence[float] | None,
    rivals: Sequence[OutOfFold] = (),
    shares_how: str = "as given",
) -> Judged:
    """From predictions out of fold; see `estimate`."""
    found = estimate(out, prior=shares, origins=origin, rivals=rivals, prior_how=shares_how)
    return Judged(
        found,
        label_issues(out),
        averaged(out, found.temperature),
        forecast(found, out),
        out,
        origin,
        shares,
        rivals,
    )


def judge_asked(
    chosen: Settings,
    task: Task,
    seed: int,
    planned: Plan,
    origin: Sequence[str],
    shares: Sequence[float] | None,
    work: Path | None,
    say: Say,
) -> Judged:
    """Of a method that was asked for: it is fitted to folds. Finished ones are kept in `work`."""
    scheme = folds_of(chosen)
    predictor = fold_predictor(chosen, task, seed, planned, work, say)
    finished = Finished(work) if work is not None else None
    return judge(predicted_out_of_fold(task, predictor, scheme, seed, finished), origin, shares)


def judge_chosen(
    choice: Choice, seed: int, origin: Sequence[str], shares: Sequence[float] | None
) -> Judged:
    """Of a method that was chosen: less than of one asked for, as these labels chose it."""
    judged = judge(thorough(choice.winner, seed), origin, shares, choice.rivals)
    candidate = choice.winner.candidate
    if candidate.fold_steps == candidate.plan.steps or judged.estimate.accuracy is None:
        return judged
    return judged.but(f"its models took {candidate.fold_steps} of {candidate.plan.steps} steps")


def folds_of(chosen: Settings) -> Scheme:
    """The fits that an estimate of this method is made of: few where one is a training."""
    return FOLDS if isinstance(chosen.method, Trained) else THOROUGH
