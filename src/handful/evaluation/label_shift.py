"""How common the classes are among images without labels, as far as a model can tell.

Where only the shares of the classes differ between labelled and other images (label shift), the
predictions for the others say how: a model that was trained where half are cats leans towards cats
by a known factor, which is taken out, and what is left is counted.

Letters in shapes: m images without a label, K classes.
"""

from collections.abc import Sequence

import numpy as np

from handful.evaluation.accuracy_estimate import countable
from handful.evaluation.calibration import calibrated, fit_temperature
from handful.evaluation.cross_validation import OutOfFold

LABELED, UNLABELED = "labels", "unlabeled"  # what a prior may be said to be, beside given shares
ROUNDS = 1000  # of EM, which mostly ends long before
SETTLED = 1e-6  # the largest change of a share at which it ends


def unlabeled_shares(
    out: OutOfFold, probabilities: np.ndarray, origins: Sequence[str] | None = None
) -> np.ndarray:
    """(K,) shares of the classes among m images, from what the saved model says of them.

    Args:
        out: its out-of-fold predictions for the labelled images, which calibrate it.
        probabilities: (m, K), not calibrated yet.
        origins: of the labels, as in `estimate`; a class of which no label counts gets no share.
    """
    counted, _ = countable(len(out.labels), origins)
    temperature = fit_temperature(out.probabilities[:, counted], out.labels[counted])
    seen = np.bincount(out.labels, minlength=probabilities.shape[1]) / len(out.labels)
    shares = expected_shares(calibrated(probabilities, temperature), seen)
    shares[np.bincount(out.labels[counted], minlength=len(shares)) == 0] = 0
    return np.asarray(shares / shares.sum())


def expected_shares(probabilities: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(K,) the most likely class shares, given calibrated (m, K) probabilities.

    Args:
        seen: (K,) shares of the classes in training.

    Source: Saerens, Latinne and Decaestecker 2002, "Adjusting the outputs of a classifier to new a
    priori probabilities", Neural Computation 14, equation 2.9; on calibrated probabilities, as
    Alexandari et al. 2020, arXiv:1901.06852, find it to be best.
    """
    factor = (seen > 0) / np.maximum(seen, 1e-12)
    likelihood = probabilities.astype(np.float64) * factor  # (m, K), up to a factor an image
    shares = seen
    for _ in range(ROUNDS):
        joint = likelihood * shares
        before, shares = shares, (joint / joint.sum(axis=1, keepdims=True)).mean(axis=0)
        if np.abs(shares - before).max() < SETTLED:
            break
    return np.asarray(shares)
