"""What the rules of `auto` select among heads on frozen features, for benchmarks without networks.

The folds, the order of the methods and the rule are those of `auto`; networks are left out, and so
are the plans: every head is tried.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from handful import methods
from handful.evaluation.cross_validation import OutOfFold, out_of_fold
from handful.evaluation.novelty import POOL_SHIFT, pool_shift
from handful.methods.class_shares import fit_head
from handful.pipeline.auto.evidence import Evidence, selected
from handful.pipeline.auto.past_results import prior
from handful.pipeline.cross_validate import FOLDS

RACED = ("features", "self_training", "gaussian_mixture")
GREY = ("digits", "mnist", "fashion-mnist")


class Raced(NamedTuple):
    """The selected method, its head on all labels, and its predictions out of fold."""

    method: str
    head: nn.Module
    out: OutOfFold


def raced(
    source: str,
    x: Tensor,
    labels: Tensor,
    pool: Tensor,
    classes: int,
    seed: int,
    counted: Tensor | None = None,
) -> Raced:
    """Cross-validate RACED on common folds, select by the rules of `auto`, fit to all labels.

    Args:
        source: name of the data set, whose own past results are left out.
        x: (n, D) features of the labelled images; labels: (n,).
        pool: (m, D) features of the unlabelled images.
        counted: (n,) whether an image was not chosen; None: none was.
    """
    shifted = pool_shift(x, pool) > POOL_SHIFT
    mask = torch.ones(len(x), dtype=torch.bool) if counted is None else counted

    def head_of(name: str, train: np.ndarray) -> nn.Module:
        made: Any = methods.make(name)
        return fit_head(made, x[train], labels[train], pool, classes, seed, None, mask[train])

    def folds(name: str) -> OutOfFold:
        def predicted(train: np.ndarray, held: np.ndarray, seed: int) -> np.ndarray:
            with torch.inference_mode():
                return head_of(name, train)(x[held]).softmax(dim=1).numpy()

        return out_of_fold(labels.numpy(), classes, predicted, FOLDS, seed)

    outs = [folds(name) for name in RACED]
    channels = 1 if source in GREY else 3
    best = selected(
        [Evidence(name, out.right) for name, out in zip(RACED, outs, strict=True)],
        lambda name, other: prior(
            name, other, channels, len(x) / classes, source, pool_shift=shifted
        ),
    )
    return Raced(RACED[best], head_of(RACED[best], np.arange(len(x))), outs[best])
