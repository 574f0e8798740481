"""Linear heads on features: coordinates, logistic regression, alignment and class shares.

Letters in shapes: N images, K classes, D features, R coordinates.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful import seeds
from handful.devices import one_thread
from handful.errors import HandfulError

_LARGE = 1_400  # rows and columns of a Gram matrix that takes about a second to decompose
_ROWS = 4_096  # images of a randomised decomposition
_OVERSAMPLED = 32  # axes that it finds beyond those wanted, for precision
SMALL = 1_000_000  # elements: one thread multiplies smaller matrices faster


class Coordinates(NamedTuple):
    """A map to R coordinates: centred, in principal axes, with mean squared length 1."""

    mean: Tensor  # (D,)
    basis: Tensor  # (D, R): orthonormal columns divided by the root mean squared length

    def of(self, features: Tensor) -> Tensor:
        """(N, D) features → (N, R) coordinates."""
        return (features.to(self.mean.dtype) - self.mean) @ self.basis

    def head(self, weight: Tensor, bias: Tensor) -> nn.Linear:
        """The head on features that equals (R, K) `weight` and (K,) `bias` on coordinates."""
        on_features = self.basis @ weight  # (D, K)
        with seeds.own_turn():
            head = nn.Linear(len(self.mean), weight.shape[1])
        with torch.no_grad():
            head.weight.copy_(on_features.T)
            head.bias.copy_(bias - self.mean @ on_features)
        return head


def standardized(features: Tensor) -> Coordinates:
    """`principal` of standardised (N, D) features; constant features become 0."""
    std, mean = torch.std_mean(features, dim=0, correction=0)
    scale = torch.where(std > 1e-6 * std.max(), 1 / std.clamp_min(1e-30), 0.0)
    _, basis = principal((features - mean) * scale)
    return Coordinates(mean, scale.unsqueeze(1) * basis)


def principal(features: Tensor, rank: int | None = None) -> Coordinates:
    """The first `rank` principal axes of (N, D) features; by default all with variance.

    All axes together lose nothing for a ridge or logistic head, whose solution lies in the span of
    the features. The cost is one eigendecomposition of the smaller of the two Gram matrices. Where
    both are large and a `rank` is given, the axes come from a randomised decomposition (Halko et
    al. 2011, arXiv:0909.4061) of a sample of the images, which is many times as fast.
    """
    n, width = features.shape
    if rank is not None and min(n, width) > _LARGE:
        return _randomized(features, rank)
    mean = features.mean(dim=0)
    centred = features - mean
    # After a failed training squares may overflow float32. Scaling by a power of 2 is exact.
    scale = torch.ldexp(centred.new_ones(()), torch.frexp(centred.abs().max()).exponent)
    centred = centred / scale
    if n <= width:
        values, vectors = _eigh(centred @ centred.T)  # (N,), (N, N)
        basis = centred.T @ vectors  # (D, N), not yet of length 1
    else:
        values, basis = _eigh(centred.T @ centred)  # (D,), (D, D)
    largest_first = values.argsort(descending=True)
    chosen = largest_first[values[largest_first] > values.max() * 1e-6][:rank]
    basis = F.normalize(basis[:, chosen], dim=0)
    length = (values.clamp_min(0).sum() / n).sqrt().clamp_min(torch.finfo(values.dtype).tiny)
    return Coordinates(mean, basis / length / scale)


def _randomized(features: Tensor, rank: int) -> Coordinates:
    """`principal` of wide features, from at most _ROWS of the images.

    Of each run of images that stand together one is drawn: the order of the images may have a
    period, as where cameras or classes take turns.
    """
    step = -(-len(features) // _ROWS)
    starts = torch.arange(0, len(features), step)
    drawn = torch.randint(step, (len(starts),), generator=torch.Generator().manual_seed(0))
    some = features[(starts + drawn).clamp_max(len(features) - 1)]
    mean = some.mean(dim=0)
    centred = some - mean
    with seeds.seeded(0):
        _, values, axes = torch.svd_lowrank(centred, q=rank + _OVERSAMPLED, niter=2)
    kept = values[:rank] > values.max() * 1e-3
    length = (centred.square().sum() / len(some)).sqrt()
    length = length.clamp_min(torch.finfo(values.dtype).tiny)
    return Coordinates(mean, axes[:, :rank][:, kept] / length)


def _eigh(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors; in double precision where single does not converge.

    Single precision fails on matrices that are mostly rounding error, as from a network with nearly
    constant features.
    """
    try:
        values, vectors = torch.linalg.eigh(gram)
    except torch.linalg.LinAlgError:
        values, vectors = torch.linalg.eigh(gram.double())
    return values.to(gram), vectors.to(gram)


def fit_logistic(
    x: Tensor,
    targets: Tensor,
    strength: float,
    *,
    importance: Tensor | None = None,
    start: tuple[Tensor, Tensor] | None = None,
    iterations: int = 200,
) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression: (R, K) weight and (K,) bias.

    Minimises the mean cross-entropy, in nats, plus strength / 2 times the sum of squared
    weights; the bias is not penalised.

    Args:
        x: (N, R) coordinates. In float64 the optimum is exact to about 1e-6; float32 is faster,
            for many images.
        targets: (N, K) probabilities.
        importance: (N,) weights of the images in the mean; equal by default.
        start: initial weight and bias, such as those of a neighbouring strength.
    """
    rank, classes = x.shape[1], targets.shape[1]
    share = torch.ones(len(x)) if importance is None else importance
    share = (share / share.sum()).to(x.dtype).unsqueeze(1)  # (N, 1)
    targets = targets.to(x.dtype)

    def cost(flat: np.ndarray) -> tuple[float, np.ndarray]:
        both = torch.from_numpy(flat).to(x.dtype).view(rank + 1, classes)
        weight, bias = both[:-1], both[-1]
        log_p = (x @ weight + bias).log_softmax(dim=1)  # (N, K)
        value = -(share * targets * log_p).sum() + strength / 2 * weight.square().sum()
        error = share * (log_p.exp() * targets.sum(1, keepdim=True) - targets)
        gradient = torch.cat([x.T @ error + strength * weight, error.sum(0, keepdim=True)])
        return value.item(), gradient.double().numpy().ravel()

    first = np.zeros((rank + 1) * classes)
    if start is not None:
        first = torch.cat([start[0], start[1].unsqueeze(0)]).double().numpy().ravel()
    tolerances = {"maxiter": iterations, "ftol": 1e-9, "gtol": 1e-5}
    with one_thread(x.numel() < SMALL):
        from scipy.optimize import minimize  # slow to import, and not needed to predict

        found = minimize(cost, first, jac=True, method="L-BFGS-B", options=tolerances).x
    both = torch.from_numpy(found).to(x.dtype).view(rank + 1, classes)
    return both[:-1], both[-1]


def align(probabilities: Tensor, prior: Tensor, rounds: int = 20) -> Tensor:
    """(N, K) probabilities whose columns are rescaled until their mean is (K,) `prior`.

    The last step normalises the rows, so that they sum to 1.

    Source: Sinkhorn and Knopp 1967, as a batch form of distribution alignment (Berthelot et al.
    2020, arXiv:1911.09785).
    """
    aligned = probabilities.clamp_min(1e-12)
    for _ in range(rounds):
        aligned = aligned * (prior / aligned.mean(dim=0))
        aligned = aligned / aligned.sum(dim=1, keepdim=True)
    return aligned


def prior_of(labels: Tensor, num_classes: int) -> Tensor:
    """(K,) class shares of (N,) labels with add-one smoothing, so that no share is 0."""
    counts = torch.bincount(labels, minlength=num_classes) + 1.0
    return counts / counts.sum()


def check_fit(labeled: Tensor, labels: Tensor, num_classes: int) -> None:
    """Raise HandfulError if the labels do not match the features or are of one class."""
    if len(labeled) != len(labels):
        raise HandfulError(
            f"labels must have one entry per row of labeled, got {len(labels)} for {len(labeled)}"
        )
    seen = len(labels.unique())
    if seen < 2:
        raise HandfulError(
            f"a classifier needs labels of two classes or more, got {len(labels)} labels of "
            f"{seen} of the {num_classes} classes; label at least one image of another class"
        )


def subsample(features: Tensor, limit: int, seed: int) -> Tensor:
    """`limit` rows drawn at random, in their order; all rows where there are no more."""
    if len(features) <= limit:
        return features
    generator = torch.Generator().manual_seed(seed)
    return features[torch.randperm(len(features), generator=generator)[:limit].sort().values]


def mixed(own: nn.Linear, plain: nn.Linear, features: Tensor, share: float) -> nn.Linear:
    """A head with `share` of `plain` in its logits; both at the same spread on (m, D) features.

    The spread is the root mean squared difference of a logit to the mean of its image. The mixture
    has the spread of `plain`, so that its confidence is comparable.
    """
    with torch.no_grad():
        spreads = [_spread(head(features)) for head in (own, plain)]
        scale = spreads[1] / spreads[0].clamp_min(1e-12)
        with seeds.own_turn():
            head = nn.Linear(own.in_features, own.out_features)
        head.weight.copy_((1 - share) * scale * own.weight + share * plain.weight)
        head.bias.copy_((1 - share) * scale * own.bias + share * plain.bias)
    return head


def _spread(logits: Tensor) -> Tensor:
    return (logits - logits.mean(dim=1, keepdim=True)).square().mean().sqrt()
