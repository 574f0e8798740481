"""An ensemble of a head on features and of trained networks, weighted by what the labels show.

Its predictions out of fold are made of theirs, so it costs no fit.

Letters in shapes: R repeats, n labelled images, K classes, M members.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from handful.evaluation.calibration import calibrated, temperature_of
from handful.evaluation.cross_validation import OutOfFold
from handful.methods.ensemble import Ensemble, spec_of
from handful.pipeline.auto.evaluated import Evaluated, Stack
from handful.text import listed

# Methods whose classifiers are a network and one linear layer.
HEADS = ("features", "gaussian_mixture", "self_training")
TRAINED = ("fine_tuning", "supervised")
_STEPS = 4  # of a weight from 0 to 1. Few, since few labels tell little: benchmarks/log/auto.md


def weights_of(members: int) -> list[tuple[float, ...]]:
    """The weights that are tried, of the head and of each network; they add up to 1.

    Each member answers alone in one of them, and the head has a part in all others.
    """
    parts = product(range(_STEPS + 1), repeat=members)
    shares = [part for part in parts if sum(part) == _STEPS and (part[0] or max(part) == _STEPS)]
    return sorted((tuple(one / _STEPS for one in part) for part in shares), reverse=True)


def ensemble(
    head: Evaluated, trained: Sequence[Evaluated], counted: np.ndarray
) -> Evaluated | None:
    """The ensemble of candidates, with the weights that make their labels most probable.

    Args:
        trained: one or two. A member whose weight is 0 is left out.
        counted: (n,) mask of the labelled images that count.

    Returns:
        None where one of them alone makes the labels most probable.
    """
    every = (head, *trained)
    temperatures = [round(temperature_of(one.out, counted), 3) for one in every]
    logits = np.stack(
        [
            np.log(np.maximum(calibrated(one.out.probabilities, temperature), 1e-12))
            for one, temperature in zip(every, temperatures, strict=True)
        ]
    )  # (M, R, n, K)
    tried = weights_of(len(every))
    outs = [
        replace(
            trained[0].out,
            probabilities=calibrated(np.exp(np.tensordot(weights, logits, axes=1)), 1.0),
            class_seen=_class_seen([one.out for one in every]),
        )
        for weights in tried
    ]
    likely = np.stack([_log_likelihood(out, counted) for out in outs])
    stack = Stack(likely, np.stack([out.right for out in outs]))
    best = stack.best(np.arange(len(counted)))
    if max(tried[best]) == 1:
        return None
    used = [at for at, weight in enumerate(tried[best]) if weight and at]
    networks = [every[at] for at in used]
    method: Any = Ensemble(
        head.candidate.method,
        tuple(one.candidate.method for one in networks),
        head_temperature=temperatures[0],
        trained_temperature=tuple(temperatures[at] for at in used),
        weight=tuple(tried[best][at] for at in used),
    )
    specs = [(one.settings.backbone, one.task.size) for one in networks]
    settings = replace(  # for the record: the members are fitted with their own
        networks[-1].settings,
        method=method,
        backbone=spec_of(head.settings.backbone, specs),
        precision=head.settings.precision,
    )
    members = (head, *networks)
    candidate = replace(
        networks[-1].candidate,
        method=Ensemble.name,
        backbone=listed([one.candidate.backbone for one in members]),
        size=head.candidate.size,
        settings={},
        seconds=0.0,
    )
    return Evaluated(candidate, settings, head.task, outs[best], {}, 0.0, members, stack)


def _class_seen(outs: Sequence[OutOfFold]) -> np.ndarray | None:
    """(R, n) whether all models of the folds saw a label of each image's class; None: they did."""
    known = [out.class_seen for out in outs if out.class_seen is not None]
    return np.logical_and.reduce(known) if known else None


def _log_likelihood(out: OutOfFold, counted: np.ndarray) -> np.ndarray:
    """(n,) mean log-probability of the labels, by models that saw a label of their class.

    It is 0 where none did, or the label does not count.
    """
    of_label = out.probabilities[:, np.arange(len(out.labels)), out.labels]  # (R, n)
    used = np.full(of_label.shape, True) if out.class_seen is None else out.class_seen.copy()
    used[:, ~counted] = False
    logs = np.where(used, np.log(np.maximum(of_label, 1e-12)), 0.0)
    return np.asarray(logs.sum(axis=0) / np.maximum(used.sum(axis=0), 1))
