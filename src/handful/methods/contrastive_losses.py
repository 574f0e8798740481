"""Losses on embeddings of two views: pure functions, in fp32 also within autocast.

Letters in shapes: N images, D embedding dimensions, K negatives.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

_AT_ONCE = 8  # anchors whose candidates are gathered together


def nt_xent(z_a: Tensor, z_b: Tensor, temperature: float = 0.5) -> Tensor:
    """SimCLR's contrastive loss: identify the other view of an image among 2N - 1 candidates.

    Args:
        z_a, z_b: (N, D) each. Row i of both embeds the same image, seen through two
            augmentations. Only directions matter; rows need not be unit length.
        temperature: divides the cosine similarities. Lower puts more weight on the candidates
            that look most like the image.

    Returns:
        () mean over the 2N rows, in nats; log(2N - 1) for equal similarities.

    Source: Chen et al. 2020, arXiv:2002.05709, algorithm 1.
    """
    _check_views("nt_xent", z_a, z_b)
    with _exact(z_a):
        n = len(z_a)
        z = F.normalize(torch.cat([_wide(z_a), _wide(z_b)]), dim=1)  # (2N, D)
        itself = torch.eye(2 * n, dtype=torch.bool, device=z.device)
        logits = (z @ z.T / temperature).masked_fill(itself, -torch.inf)  # (2N, 2N)
        partner = torch.arange(2 * n, device=z.device).roll(n)  # i <-> i + N
        return F.cross_entropy(logits, partner)


def scores(anchors: Tensor, bank: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """(N, 1 + K) cosine similarities over the temperature, the positive first.

    Args:
        anchors: (N, D); only their directions matter.
        bank: (M, D) features of length 1, of the anchors' type or fp32, without gradient.
        rows: (N, 1 + K) positions in the bank: the positive of each anchor, then its negatives.
        temperature: divides the similarities.
    """
    with _exact(anchors):
        found: Tensor = _Similarities.apply(F.normalize(_wide(anchors), dim=1), bank, rows)
        return found / temperature


class _Similarities(torch.autograd.Function):
    """(N, D) anchors times the (N, C) rows of a bank that belong to them → (N, C).

    A few anchors are computed at a time: gathering the rows of all takes several times as long (128
    anchors of 384 features and 257 candidates are 50 MB).
    """

    @staticmethod
    def forward(ctx: FunctionCtx, anchors: Tensor, bank: Tensor, rows: Tensor) -> Tensor:
        used, where = rows.unique(return_inverse=True)
        # A copy, since the bank is updated before the backward pass.
        ctx.save_for_backward(bank.index_select(0, used), where)
        found = []
        for part, few in zip(rows.split(_AT_ONCE), anchors.split(_AT_ONCE), strict=True):
            candidates = bank.index_select(0, part.flatten()).view(*part.shape, -1)
            found.append(torch.bmm(few.unsqueeze(1), candidates.mT).squeeze(1))
        return torch.cat(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        used, where = ctx.saved_tensors
        return F.embedding_bag(where, used, per_sample_weights=grad, mode="sum"), None, None


def nce_loss(scores: Tensor, normalizer: Tensor, images: int) -> Tensor:
    """Noise-contrastive estimation: classify each candidate as positive or noise.

    Args:
        scores: (N, 1 + K), the positive first.
        normalizer: () Z, the running mean of `partition`.
        images: number of images that the noise is drawn from.

    Returns:
        () mean over N of 1 + K binary cross-entropies, in nats.

    Source: Tian et al. 2019, arXiv:1906.05849, section 3.2, after Wu et al. 2018,
    arXiv:1805.01978, equations 5 to 7.
    """
    with _exact(scores):
        noise = (scores.shape[1] - 1) / images  # K times the probability of each image
        # The log odds of exp(score) / Z against `noise`; softplus does not overflow.
        odds = _wide(scores) - normalizer.log() - torch.tensor(noise).log()
        own, others = odds[:, 0], odds[:, 1:]
        return (F.softplus(-own) + F.softplus(others).sum(dim=1)).mean()


def partition(scores: Tensor, images: int) -> Tensor:
    """() estimate of Z from (N, 1 + K) scores: the mean of exp(score) times `images`."""
    return _wide(scores.detach()).exp().mean() * images


def in_batch(z_a: Tensor, z_b: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(N, N) scores of each view against the other, with the positives on the diagonal.

    The second result is the transpose of the first.

    Source: the form of Radford et al. 2021, arXiv:2103.00020, figure 3.
    """
    _check_views("in_batch", z_a, z_b)
    with _exact(z_a):
        logits = F.normalize(_wide(z_a), dim=1) @ F.normalize(_wide(z_b), dim=1).T / temperature
    return logits, logits.T


def vicreg(z_a: Tensor, z_b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Invariance, variance and covariance terms of VICReg, each () and unweighted.

    Invariance is the mean squared difference of the views; variance is the mean shortfall of each
    dimension's standard deviation below 1; covariance is the sum of squared covariances between
    dimensions, over D.

    Args:
        z_a, z_b: (N, D) each; row i of both embeds one image. N is at least 2.

    Source: Bardes et al. 2021, arXiv:2105.04906, section 4.1 and algorithm 1.
    """
    _check_views("vicreg", z_a, z_b)
    if len(z_a) < 2:
        raise ValueError(
            "vicreg computes variances, so it needs two images or more, got a batch of 1"
        )
    with _exact(z_a):
        z_a, z_b = _wide(z_a), _wide(z_b)
        invariance = F.mse_loss(z_a, z_b)
        variance = (_variance_shortfall(z_a) + _variance_shortfall(z_b)) / 2
        covariance = _off_diagonal(z_a) + _off_diagonal(z_b)
        return invariance, variance, covariance


def _variance_shortfall(z: Tensor) -> Tensor:
    return F.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean()


def _off_diagonal(z: Tensor) -> Tensor:
    covariance = torch.cov(z.T)  # (D, D)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]


def _wide(x: Tensor) -> Tensor:
    """x as fp32; fp64 stays."""
    return x if x.dtype == torch.float64 else x.float()


def _exact(like: Tensor) -> torch.autocast:
    """A context without autocast: bf16 similarities over 0.07 are off by a tenth of a nat."""
    return torch.autocast(like.device.type, enabled=False)


def _check_views(name: str, z_a: Tensor, z_b: Tensor) -> None:
    if z_a.shape != z_b.shape:
        raise ValueError(
            f"{name} needs one row per image in both views, got {tuple(z_a.shape)} and "
            f"{tuple(z_b.shape)}; pass two views of the same batch"
        )
