"""Losses: pure functions of tensors. No modules, no state, no devices, no logging.

One view of an image gives the target, and the other is trained. Targets have no gradient. Losses
are in nats and are means over all images given, unless a docstring says otherwise.

Letters in shapes: N images, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def pseudo_label_loss(
    probabilities: Tensor, logits: Tensor, threshold: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross-entropy against the most probable class, where its probability is high enough.

    Args:
        probabilities: (N, K) of the view that gives the pseudo-labels.
        logits: (N, K) of the view that is trained.
        threshold: smallest probability of a pseudo-label that is used.

    Returns:
        () loss, and (N,) bool mask of the images used. The mean is over all N images, so a batch
        with few confident pseudo-labels takes a small step.

    Source: Sohn et al. 2020, arXiv:2001.07685, equation 4.
    """
    confidence, classes = probabilities.detach().max(dim=1)  # (N,), (N,)
    mask = confidence >= threshold
    return weighted_cross_entropy(logits, classes, mask), mask


def weighted_cross_entropy(logits: Tensor, classes: Tensor, weight: Tensor) -> Tensor:
    """() mean over N images of (N,) weight times cross-entropy of (N, K) logits, (N,) classes."""
    return (F.cross_entropy(logits, classes, reduction="none") * weight).mean()


def divergence_loss(
    probabilities: Tensor, logits: Tensor, temperature: float = 1.0, threshold: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Divergence KL(target ‖ prediction), with sharpened targets above a confidence threshold.

    Args:
        probabilities: (N, K) of the view that gives the targets.
        logits: (N, K) of the view that is trained; the temperature does not apply to them.
        temperature: of the targets; below 1 sharpens them.
        threshold: images whose largest probability, before sharpening, is not above it are masked.

    Returns:
        () loss, and (N,) bool mask of the images used. The mean is over all N images.

    Source: Xie et al. 2019, arXiv:1904.12848, equation 1 and section 3.2 ("confidence-based
    masking", "sharpening predictions").
    """
    probabilities = probabilities.detach()
    mask = probabilities.amax(dim=1) > threshold
    target = sharpened(probabilities, temperature)
    per_image = F.kl_div(logits.log_softmax(dim=1), target, reduction="none").sum(dim=1)  # (N,)
    return (per_image * mask).mean(), mask


def annealed_cross_entropy(logits: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """() cross-entropy on labelled images whose class has a probability up to `threshold`.

    An image whose own class is more probable is masked; a confident mistake is not. The mean is
    over the images used; without any it is 0.

    Source: Xie et al. 2019, arXiv:1904.12848, section 3.2 ("training signal annealing").
    """
    per_image = F.cross_entropy(logits, labels, reduction="none")  # (N,)
    mask = (-per_image.detach()).exp() <= threshold
    return (per_image * mask).sum() / mask.sum().clamp_min(1)


def squared_difference(probabilities: Tensor, logits: Tensor) -> Tensor:
    """() mean squared difference, over images and classes, of (N, K) targets and predictions.

    Source: Tarvainen and Valpola 2017, arXiv:1703.01780, equation 1; the mean over classes is
    that of the authors' code.
    """
    return F.mse_loss(logits.softmax(dim=1), probabilities.detach())


def sharpened(probabilities: Tensor, temperature: float) -> Tensor:
    """(N, K) probabilities to the power 1 / temperature, normalised."""
    tiny = torch.finfo(probabilities.dtype).tiny
    return (probabilities.clamp_min(tiny).log() / temperature).softmax(dim=1)


def aligned(probabilities: Tensor, current: Tensor, wanted: Tensor) -> Tensor:
    """Distribution alignment: (N, K) probabilities times `wanted` over `current`, normalised.

    Args:
        current: (K,) running class shares of the predictions.
        wanted: (K,) class shares to align to.

    Source: Berthelot et al. 2020 (ReMixMatch), arXiv:1911.09785, section 3.1.
    """
    scaled = probabilities * (wanted / current.clamp_min(1e-6))
    return scaled / scaled.sum(dim=1, keepdim=True)


def truncated_gaussian(confidence: Tensor, mean: Tensor, variance: Tensor, width: float) -> Tensor:
    """(N,) weights: 1 for confidences above the mean, and a Gaussian below it.

    Args:
        confidence: (N,) largest probability of each image.
        mean, variance: () running moments of the confidences.
        width: divides the standard deviation of the Gaussian: 2 makes it half as wide.

    Source: Chen et al. 2023 (SoftMatch), arXiv:2301.10921, equation 7; `width` is the authors'
    code's n_sigma.
    """
    below = (confidence - mean).clamp_max(0)
    tiny = torch.finfo(variance.dtype).tiny  # equal confidences have no variance, and weight 1
    return (-(below**2) * width**2 / (2 * variance.clamp_min(tiny))).exp()
