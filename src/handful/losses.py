"""Losses: pure functions of tensors. No modules, no state, no devices, no logging.

Letters in shapes: N images, K classes.
"""

import torch.nn.functional as F
from torch import Tensor


def pseudo_label_loss(
    probabilities: Tensor, logits: Tensor, threshold: float
) -> tuple[Tensor, Tensor]:
    """Cross-entropy against the likeliest class, where that is likely enough.

    Args:
        probabilities: (N, K) the guess on one view of an image; no gradient goes back into it.
        logits: (N, K) on another view of the same image, which is trained.
        threshold: guesses whose largest probability is lower count for nothing.

    Returns:
        () loss in nats, and (N,) bool: the images kept. The mean is over all N images, so a batch
        with few sure guesses takes a small step.

    Source: Sohn et al. 2020, arXiv:2001.07685, equation 4.
    """
    confidence, guess = probabilities.detach().max(dim=1)  # (N,), (N,)
    kept = confidence >= threshold
    return weighted_cross_entropy(logits, guess, kept), kept


def weighted_cross_entropy(logits: Tensor, classes: Tensor, weight: Tensor) -> Tensor:
    """() mean over all N images of weight (N,) times the cross-entropy of (N, K) logits."""
    return (F.cross_entropy(logits, classes, reduction="none") * weight).mean()


def aligned(probabilities: Tensor, seen: Tensor, wanted: Tensor) -> Tensor:
    """(N, K) probabilities times `wanted` over `seen`, made to sum to 1 again.

    Args:
        seen: (K,) class shares among the guesses of late.
        wanted: (K,) class shares as they should be.

    Source: Berthelot et al. 2020 (ReMixMatch), arXiv:1911.09785, section 3.1.
    """
    scaled = probabilities * (wanted / seen.clamp_min(1e-6))
    return scaled / scaled.sum(dim=1, keepdim=True)
