"""An ensemble of a head on features and a trained network, weighted by what the labels show.

Its predictions out of fold are made of theirs, so it costs no fit.

Letters in shapes: R repeats, n labelled images, K classes.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from handful.evaluation.calibration import calibrated, temperature_of
from handful.evaluation.cross_validation import OutOfFold
from handful.methods.ensemble import Ensemble, spec_of
from handful.pipeline.auto.evaluated import Evaluated, Stack

# Methods whose classifiers are a network and one linear layer.
HEADS = ("features", "gaussian_mixture", "self_training")
TRAINED = ("supervised", "fine_tuning")
# Weights of the trained network that are tried; with 0 or 1 one of the two answers alone. Few,
# since few labels tell little of it: see benchmarks/log/auto.md.
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)


def ensemble(head: Evaluated, trained: Evaluated, counted: np.ndarray) -> Evaluated | None:
    """The ensemble of two candidates, with the weight that makes their labels most probable.

    Args:
        counted: (n,) mask of the labelled images that count.

    Returns:
        None where one of the two alone makes the labels most probable.
    """
    members = (head, trained)
    temperatures = [round(temperature_of(one.out, counted), 3) for one in members]
    first, second = (
        np.log(np.maximum(calibrated(one.out.probabilities, temperature), 1e-12))
        for one, temperature in zip(members, temperatures, strict=True)
    )  # (R, n, K) each
    outs = [
        replace(trained.out, probabilities=calibrated(np.exp((1 - w) * first + w * second), 1.0))
        for w in WEIGHTS
    ]
    likely = np.stack([_log_likelihood(out, counted) for out in outs])
    stack = Stack(likely, np.stack([out.right for out in outs]))
    best = stack.best(np.arange(len(counted)))
    weight = WEIGHTS[best]
    if weight in (0.0, 1.0):
        return None
    method: Any = Ensemble(
        head.candidate.method,
        trained.candidate.method,
        head_temperature=temperatures[0],
        trained_temperature=temperatures[1],
        weight=weight,
    )
    settings = replace(  # for the record: the members are fitted with their own
        trained.settings,
        method=method,
        backbone=spec_of(head.settings.backbone, trained.settings.backbone, trained.task.size),
        precision=head.settings.precision,
    )
    candidate = replace(
        trained.candidate,
        method=Ensemble.name,
        backbone=f"{head.candidate.backbone} and {trained.candidate.backbone}",
        size=head.candidate.size,
        settings={},
        seconds=0.0,
    )
    return Evaluated(candidate, settings, head.task, outs[best], {}, 0.0, members, stack)


def _log_likelihood(out: OutOfFold, counted: np.ndarray) -> np.ndarray:
    """(n,) mean log-probability of the labels, by models that saw a label of their class.

    It is 0 where none did, or the label does not count.
    """
    of_label = out.probabilities[:, np.arange(len(out.labels)), out.labels]  # (R, n)
    used = np.full(of_label.shape, True) if out.class_seen is None else out.class_seen.copy()
    used[:, ~counted] = False
    logs = np.where(used, np.log(np.maximum(of_label, 1e-12)), 0.0)
    return np.asarray(logs.sum(axis=0) / np.maximum(used.sum(axis=0), 1))
