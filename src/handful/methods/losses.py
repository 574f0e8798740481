"""Losses: pure functions of tensors. No modules, no state, no devices, no logging.

Of two views of an image one is guessed and one learns. A guess is a target: no gradient goes back
into it. All losses are in nats and means over all images given, unless they say otherwise.

Letters in shapes: N images, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def pseudo_label_loss(
    guesses: Tensor, logits: Tensor, threshold: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross-entropy against the likeliest class, where that is likely enough.

    Args:
        guesses: (N, K) probabilities.
        logits: (N, K) on the view that learns.
        threshold: guesses whose largest probability is lower count for nothing.

    Returns:
        () loss, and (N,) bool: the images kept. The mean is over all N images, so a batch with few
        sure guesses takes a small step.

    Source: Sohn et al. 2020, arXiv:2001.07685, equation 4.
    """
    confidence, classes = guesses.detach().max(dim=1)  # (N,), (N,)
    kept = confidence >= threshold
    return weighted_cross_entropy(logits, classes, kept), kept


def weighted_cross_entropy(logits: Tensor, classes: Tensor, weight: Tensor) -> Tensor:
    """() mean over all N images of weight (N,) times the cross-entropy of (N, K) logits."""
    return (F.cross_entropy(logits, classes, reduction="none") * weight).mean()


def divergence_loss(
    guesses: Tensor, logits: Tensor, temperature: float = 1.0, threshold: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Divergence KL(guess ‖ prediction), the guess sharpened, where it was sure before that.

    Args:
        guesses: (N, K) probabilities.
        logits: (N, K) on the view that learns; the temperature does not touch them.
        temperature: below 1 sharpens the guesses.
        threshold: guesses whose largest probability is not above it count for nothing.

    Returns:
        () loss, and (N,) bool: the images kept. The mean is over all N images.

    Source: Xie et al. 2019, arXiv:1904.12848, equation 1 and section 3.2 ("confidence-based
    masking", "sharpening predictions").
    """
    guesses = guesses.detach()
    kept = guesses.amax(dim=1) > threshold
    target = sharpened(guesses, temperature)
    per_image = F.kl_div(logits.log_softmax(dim=1), target, reduction="none").sum(dim=1)  # (N,)
    return (per_image * kept).mean(), kept


def annealed_cross_entropy(logits: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """() cross-entropy on the labelled images not yet known better than `threshold`.

    An image is left out if the probability of its *own* class is above the threshold; one that is
    surely wrong stays. The mean is over the images that stay, of which there may be none.

    Source: Xie et al. 2019, arXiv:1904.12848, section 3.2 ("training signal annealing").
    """
    per_image = F.cross_entropy(logits, labels, reduction="none")  # (N,)
    kept = (-per_image.detach()).exp() <= threshold
    return (per_image * kept).sum() / kept.sum().clamp_min(1)


def squared_difference(guesses: Tensor, logits: Tensor) -> Tensor:
    """() mean over images and classes of the squared difference of two probabilities.

    Source: Tarvainen and Valpola 2017, arXiv:1703.01780, equation 1; the mean over classes is
    that of the authors' code.
    """
    return F.mse_loss(logits.softmax(dim=1), guesses.detach())


def sharpened(probabilities: Tensor, temperature: float) -> Tensor:
    """(N, K) probabilities to the power 1 / temperature, made to sum to 1 again."""
    tiny = torch.finfo(probabilities.dtype).tiny
    return (probabilities.clamp_min(tiny).log() / temperature).softmax(dim=1)


def aligned(probabilities: Tensor, seen: Tensor, wanted: Tensor) -> Tensor:
    """(N, K) probabilities times `wanted` over `seen`, made to sum to 1 again.

    Args:
        seen: (K,) class shares among the guesses of late.
        wanted: (K,) class shares as they should be.

    Source: Berthelot et al. 2020 (ReMixMatch), arXiv:1911.09785, section 3.1.
    """
    scaled = probabilities * (wanted / seen.clamp_min(1e-6))
    return scaled / scaled.sum(dim=1, keepdim=True)


def truncated_gaussian(confidence: Tensor, mean: Tensor, variance: Tensor, width: float) -> Tensor:
    """(N,) weights: 1 for confidences above the mean, falling off below it like a Gaussian.

    Args:
        confidence: (N,) largest probability of each guess.
        mean, variance: () of the confidences of late.
        width: standard deviations of the confidences that make one of the Gaussian, inverted: 2
            makes it half as wide.

    Source: Chen et al. 2023 (SoftMatch), arXiv:2301.10921, equation 7; `width` is the authors'
    code's n_sigma.
    """
    below = (confidence - mean).clamp_max(0)
    tiny = torch.finfo(variance.dtype).tiny  # all confidences alike: no variance, and all count
    return (-(below**2) * width**2 / (2 * variance.clamp_min(tiny))).exp()
