"""Estimate accuracy without labels: the mean confidence of a calibrated model.

A calibrated model is right as often as its confidence says. Its mean confidence on images without a
label is then an estimate of its accuracy on such images, nearly independent of the share of
labelled images that are right out of fold. It holds where the images are like the labelled ones,
and for a model that was not trained on them.

Source: the baseline "average confidence" of Guillory et al. 2021, arXiv:2107.03315.

Letters in shapes: M images without a label, K classes.
"""

import numpy as np

from handful.evaluation.label_shift import expected_shares

FEWEST = 100  # images below which the mean is not used


def expected_accuracy(
    probabilities: np.ndarray, seen: np.ndarray, shares: np.ndarray | None = None
) -> float | None:
    """Expected accuracy on images with class shares `shares`.

    Args:
        probabilities: (M, K), calibrated. The guess is the most likely class.
        seen: (K,) class shares in training.
        shares: (K,) class shares that the accuracy is for; None: those of the M images.

    Returns:
        None where there are fewer than FEWEST images, or where a class that has a share is expected
        to be missing among the images.
    """
    if len(probabilities) < FEWEST:
        return None
    guesses = probabilities.argmax(axis=1)
    if shares is None:
        return float(probabilities.max(axis=1).mean())
    factor = expected_shares(probabilities, seen) / np.maximum(seen, 1e-12)
    joint = probabilities * factor
    posterior = joint / joint.sum(axis=1, keepdims=True)  # (M, K), for the images as they are
    expected = posterior.sum(axis=0)  # (K,) number of images of each class
    right = np.bincount(guesses, posterior[np.arange(len(guesses)), guesses], len(shares))
    wanted = shares > 0
    if (expected[wanted] < 1).any():
        return None
    return float((shares[wanted] * right[wanted] / expected[wanted]).sum() / shares[wanted].sum())
