"""Cross-validate settings on a task: fit on the folds and predict the held-out images."""

from collections.abc import MutableMapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from handful.evaluation.cross_validation import (
    FitAndPredict,
    FoldFit,
    Key,
    OutOfFold,
    Scheme,
    balanced_by_hand,
    out_of_fold,
    plan_fits,
)
from handful.methods.base import Task, Trained, Tunable
from handful.methods.class_shares import fit_head
from handful.progress import Say, quiet, silent
from handful.training.plan import Plan
from handful.training.settings import Settings
from handful.training.trainer import extract_features, train_task

# For methods that train a network. `auto` uses the same folds for all candidates.
FOLDS = Scheme(folds=4, repeats=1, halves=0)


def fold_predictor(
    settings: Settings,
    task: Task,
    seed: int,
    planned: Plan,
    work: Path | None = None,
    say: Say = silent,
    among_unlabeled: bool = False,
) -> FitAndPredict:
    """Return a function that fits on one part of the labelled images and predicts another.

    It takes positions among the labelled images of the task, (n_train,) and (n_held,), and a
    seed, and returns (n_held, K) probabilities. Held-out images are removed from the unlabelled
    pool too. Images in neither part, dropped to keep the classes even, lose their label. Features
    are computed, and settings tuned on the labels, once for all folds.

    Args:
        work: folder in which fits of networks keep their checkpoints, or None.
        among_unlabeled: for a method on features: leave the held-out images in the unlabelled pool,
            where the saved model has the images without a label. Such predictions tell nothing of
            new images.
    """
    images, labeled = task.images, task.images.labeled
    planned = replace(planned, least=0)
    if isinstance(settings.method, Trained):

        def trained(train: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray:
            kept = np.ones(len(images), bool)
            kept[labeled[held]] = False
            seen = images.seen(labeled[train])[kept]
            part = replace(task, images=seen, validation=(), track=quiet)
            folder = work / f"fold-{seed}" if work is not None else None
            learned = train_task(settings, part, seed, folder, planned)
            if learned.collapse is not None:
                say(f"in a fit for the estimate {learned.collapse.text}")
            return learned.predictor.predict_proba(images[labeled[held]]).numpy()

        return trained

    method, labels, shares, counted = (
        settings.method,
        task.labels[labeled],
        task.shares,
        task.counted,
    )
    classes = len(task.classes)
    known, pool = extract_features(method, task, planned.precision, seed)
    if isinstance(method, Tunable):
        method = method.tuned(known, labels, classes, seed)

    def fitted(train: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray:
        if len(seen := labels[train].unique()) == 1:  # a class with one label is held out
            return np.tile(np.eye(classes, dtype=np.float32)[seen], (len(held), 1))
        unlabeled, used = pool, method
        if among_unlabeled:
            unlabeled = torch.cat([pool, known[held]])
            if (limit := getattr(method, "limit", None)) is not None:
                more = limit + len(held)  # with fewer, a sample leaves some of them out
                used = replace(method, limit=more)  # type: ignore[type-var]
        head = fit_head(
            used, known[train], labels[train], unlabeled, classes, seed, shares, counted[train]
        )
        with torch.inference_mode():
            return head(known[held].float()).softmax(dim=1).numpy()

    return fitted


def predicted_out_of_fold(
    task: Task,
    predictor: FitAndPredict,
    scheme: Scheme,
    seed: int,
    finished: MutableMapping[Key, np.ndarray] | None,
) -> OutOfFold:
    """Return out-of-fold predictions for the labelled images of the task.

    Args:
        predictor: fits and predicts one fold; see `fold_predictor`.
        finished: predictions of folds already done, which are read instead of computed again;
            new ones are added.
    """
    images, labeled = task.images, task.images.labeled
    return out_of_fold(
        images.labels[labeled],
        len(task.classes),
        predictor,
        scheme,
        seed,
        None if images.groups is None else images.groups[labeled],
        finished=finished,
        track=task.track,
        stratified=_stratified(task),
    )


def fits_planned(task: Task, scheme: Scheme, seed: int) -> list[FoldFit]:
    """Return the fits of `predicted_out_of_fold`, in their order."""
    images, labeled = task.images, task.images.labeled
    groups = None if images.groups is None else images.groups[labeled]
    return plan_fits(images.labels[labeled], scheme, seed, groups, _stratified(task))


def _stratified(task: Task) -> bool:
    """Return whether the classes of the labelled images look balanced by hand."""
    images, labeled = task.images, task.images.labeled
    origins = [images.origins.get(name, "unknown") for name in images[labeled].names]
    return balanced_by_hand(images.labels[labeled], origins)
