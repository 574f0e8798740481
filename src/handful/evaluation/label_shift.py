"""Estimate the class shares among images without labels, from a model's predictions.

Label shift means that labelled and unlabelled images differ only in the shares of the classes. A
model trained on labels half of which are cats then favours cats by a known factor. The estimate
divides the predictions by that factor and averages them.

Letters in shapes: m images without a label, K classes.
"""

from collections.abc import Sequence

import numpy as np

from handful.evaluation.accuracy_estimate import countable
from handful.evaluation.calibration import calibrated, temperature_of
from handful.evaluation.cross_validation import OutOfFold
from handful.methods.class_shares import combined_shares

LABELED, UNLABELED = "labels", "unlabeled"  # names of priors, beside explicit shares


def unlabeled_shares(
    out: OutOfFold, probabilities: np.ndarray, origins: Sequence[str] | None = None
) -> np.ndarray:
    """(K,) class shares among m unlabelled images, from the saved model's predictions for them.

    Args:
        out: out-of-fold predictions for the labelled images, to calibrate the model.
        probabilities: (m, K) predictions for the unlabelled images, not calibrated yet.
        origins: of the labels, as in `estimate`; a class of which no label counts gets share 0.
    """
    counted, _ = countable(len(out.labels), origins)
    temperature = temperature_of(out, counted)
    seen = np.bincount(out.labels, minlength=probabilities.shape[1]) / len(out.labels)
    shares = expected_shares(calibrated(probabilities, temperature), seen)
    return counted_shares(shares, out.labels, origins)


def expected_shares(probabilities: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(K,) the most likely class shares, given calibrated probabilities (m, K).

    Args:
        seen: (K,) class shares in training.

    Source: Saerens, Latinne and Decaestecker 2002, "Adjusting the outputs of a classifier to new a
    priori probabilities", Neural Computation 14, equation 2.9; on calibrated probabilities, as
    Alexandari et al. 2020, arXiv:1901.06852, recommend.
    """
    return combined_shares(probabilities, seen, np.zeros(len(seen)), 1.0).mean


def counted_shares(
    shares: np.ndarray, labels: np.ndarray, origins: Sequence[str] | None = None
) -> np.ndarray:
    """(K,) shares with 0 for every class of which no label (n,) counts in the estimate."""
    counted, _ = countable(len(labels), origins)
    seen = np.bincount(labels[counted], minlength=len(shares)) > 0
    shares = np.where(seen, shares, 0.0)
    return np.asarray(shares / shares.sum())
