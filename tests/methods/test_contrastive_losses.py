import math

import pytest
import torch
import torch.nn.functional as F

from handful.methods.contrastive_losses import (
    in_batch,
    nce_loss,
    nt_xent,
    partition,
    scores,
    vicreg,
)


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_nt_xent(z_a, z_b, temperature):
    """Algorithm 1 of arXiv:2002.05709, one pair at a time."""
    z = [
        row for pair in zip(z_a, z_b, strict=True) for row in pair
    ]  # both views of each image in turn

    def similarity(i, j):
        return float(z[i] @ z[j] / (z[i].norm() * z[j].norm()))

    def cost(i, j):
        others = (math.exp(similarity(i, k) / temperature) for k in range(len(z)) if k != i)
        return -math.log(math.exp(similarity(i, j) / temperature) / sum(others))

    pairs = range(len(z) // 2)
    return sum(cost(2 * k, 2 * k + 1) + cost(2 * k + 1, 2 * k) for k in pairs) / len(z)


@pytest.mark.parametrize("temperature", [0.07, 0.5, 1.0])
def test_nt_xent_matches_the_papers_algorithm(temperature):
    a, b = normal(5, 8, seed=1), normal(5, 8, seed=2)
    expected = slow_nt_xent(a, b, temperature)
    assert nt_xent(a, b, temperature).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.filterwarnings("default")
def test_nt_xent_agrees_with_lightlys():
    loss = pytest.importorskip("lightly.loss")
    a, b = normal(6, 8, seed=1).float(), normal(6, 8, seed=2).float()
    theirs = loss.NTXentLoss(temperature=0.3)(a, b)
    torch.testing.assert_close(nt_xent(a, b, 0.3), theirs)


def test_nt_xent_of_equal_embeddings_is_that_of_chance():
    same = torch.ones(6, 3, dtype=torch.float64)
    assert nt_xent(same, same).item() == pytest.approx(math.log(2 * 6 - 1))


def test_nt_xent_ignores_scale_batch_order_and_which_view_is_first():
    a, b, order = normal(5, 8, seed=1), normal(5, 8, seed=2), torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(nt_xent(3 * b[order], a[order]), nt_xent(a, b))


def test_nt_xent_of_one_pair_is_zero_without_gradient():
    a, b = normal(1, 4, seed=1).requires_grad_(), normal(1, 4, seed=2).requires_grad_()
    loss = nt_xent(a, b)
    loss.backward()
    assert loss.item() == 0
    assert not a.grad.any() and not b.grad.any()


def test_the_self_pair_is_no_candidate():
    """At a low temperature a self-pair (similarity 1) would outweigh all others."""
    a, b = F.normalize(normal(4, 8, seed=1), dim=1), F.normalize(normal(4, 8, seed=2), dim=1)
    z = torch.cat([a, b])
    logits = z @ z.T / 0.01
    shares = logits.fill_diagonal_(-torch.inf).softmax(dim=1)
    assert shares.diagonal().max() == 0
    expected = -shares[torch.arange(8), torch.arange(8).roll(4)].log().mean()
    torch.testing.assert_close(nt_xent(a, b, 0.01), expected)


def test_nt_xent_under_bf16_autocast_at_temperature_007_keeps_its_precision():
    a, b = normal(64, 32, seed=1).float(), normal(64, 32, seed=2).float()
    b = a + 0.3 * b
    exact = nt_xent(a.double(), b.double(), 0.07)
    with torch.autocast("cpu", torch.bfloat16):
        assert (a @ b.T).dtype == torch.bfloat16
        loss = nt_xent(a, b, 0.07)
    assert loss.dtype == torch.float32
    # float32 is off by up to 1.1e-5, by the processor; with similarities in bf16 it is 2.3e-4.
    assert loss.item() == pytest.approx(exact.item(), rel=5e-5)
    rounded = nt_xent(a.bfloat16(), b.bfloat16(), 0.07)
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=0.02)


def test_very_low_temperatures_do_not_overflow():
    a = normal(4, 8, seed=1).float()
    assert torch.isfinite(nt_xent(a, a, 1e-4))


@pytest.mark.parametrize("loss", [nt_xent, vicreg, lambda a, b: in_batch(a, b, 0.1)])
def test_an_error_names_both_shapes_when_views_do_not_match(loss):
    with pytest.raises(ValueError, match=r"got \(5, 8\) and \(4, 8\); pass two views"):
        loss(normal(5, 8, seed=1), normal(4, 8, seed=2))


def test_scores_are_cosines_over_the_temperature_with_the_positive_first():
    anchors, half = torch.tensor([[2.0, 0.0]]), math.sqrt(0.5)
    bank = torch.tensor([[0.0, 1.0], [half, half], [-1.0, 0.0]])
    found = scores(anchors, bank, torch.tensor([[1, 0, 2]]), 0.1)
    torch.testing.assert_close(found, torch.tensor([[10 * half, 0.0, -10.0]]))


def test_scores_and_their_gradient_match_a_slow_reference():
    anchors = normal(19, 5, seed=1).requires_grad_()
    bank = F.normalize(normal(30, 5, seed=2), dim=1)
    rows = torch.randint(30, (19, 4), generator=torch.Generator().manual_seed(0))
    weights = normal(19, 4, seed=3)

    def slow(x):
        return torch.einsum("nd,nkd->nk", F.normalize(x, dim=1), bank[rows]) / 0.1

    found = scores(anchors, bank, rows, 0.1)
    torch.testing.assert_close(found, slow(anchors))
    (gradient,) = torch.autograd.grad((found * weights).sum(), anchors)
    (wanted,) = torch.autograd.grad((slow(anchors) * weights).sum(), anchors)
    torch.testing.assert_close(gradient, wanted)


def test_nce_matches_the_papers_formula():
    s, z, images = normal(3, 6, seed=1), torch.tensor(40.0, dtype=torch.float64), 50
    p = s.exp() / z
    noise = 5 / images
    own = (p[:, 0] / (p[:, 0] + noise)).log()
    others = (noise / (p[:, 1:] + noise)).log().sum(dim=1)
    torch.testing.assert_close(nce_loss(s, z, images), -(own + others).mean(), rtol=1e-6, atol=0)


def test_the_partition_is_the_mean_exponential_times_the_images_without_gradient():
    s = torch.zeros(2, 3, requires_grad=True)
    found = partition(s, 50)
    assert found.item() == 50
    assert not found.requires_grad


def test_in_batch_scores_have_the_positives_on_the_diagonal():
    a, b = normal(4, 8, seed=1), normal(4, 8, seed=2)
    there, back = in_batch(a, b, 0.5)
    assert there[1, 2].item() == pytest.approx(F.cosine_similarity(a[1], b[2], dim=0).item() / 0.5)
    torch.testing.assert_close(back, there.T)


def test_vicreg_matches_a_slow_reference():
    a, b = normal(7, 4, seed=1), 0.2 * normal(7, 4, seed=2)

    def terms(z):
        n, d = z.shape
        centred = z - z.mean(dim=0)
        lacking = sum(max(0.0, 1 - math.sqrt(float(z[:, j].var()) + 1e-4)) for j in range(d)) / d
        c = centred.T @ centred / (n - 1)
        off = sum(float(c[i, j]) ** 2 for i in range(d) for j in range(d) if i != j) / d
        return lacking, off

    invariance, variance, covariance = vicreg(a, b)
    assert invariance.item() == pytest.approx(((a - b) ** 2).mean().item())
    assert variance.item() == pytest.approx((terms(a)[0] + terms(b)[0]) / 2)
    assert covariance.item() == pytest.approx(terms(a)[1] + terms(b)[1])


def test_vicreg_penalises_constant_embeddings():
    same = torch.ones(6, 3)
    invariance, variance, covariance = vicreg(same, same)
    assert invariance == 0 and covariance == 0
    assert variance.item() == pytest.approx(0.99)


def test_vicreg_refuses_a_single_image():
    with pytest.raises(ValueError, match="two images or more"):
        vicreg(torch.ones(1, 3), torch.ones(1, 3))
