import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from handful.methods import heads
from handful.methods.heads import align, check_fit, fit_logistic, principal, prior_of, subsample


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blobs(n=30, width=5, classes=3, seed=0):
    labels = torch.arange(n) % classes
    return normal(n, width, seed=seed) + 2 * F.one_hot(labels, width).double(), labels


@pytest.mark.parametrize("shape", [(30, 5), (5, 30)])
def test_axes_are_computed_in_double_precision_where_single_fails(monkeypatch, shape):
    """Nearly constant features, for which eigh does not converge in float32."""
    x = normal(*shape, seed=0).float()
    plain = principal(x).of(x)
    eigh, asked = torch.linalg.eigh, []

    def giving_up(gram):
        asked.append(gram.dtype)
        if gram.dtype == torch.float32:
            raise torch.linalg.LinAlgError("failed to converge")
        return eigh(gram)

    monkeypatch.setattr(torch.linalg, "eigh", giving_up)
    found = principal(x).of(x)
    assert asked == [torch.float32, torch.float64]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.abs(), plain.abs(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("strength", [1.0, 0.01])
def test_fit_logistic_matches_scikit_learn(strength):
    x, labels = blobs()
    weight, bias = fit_logistic(x, F.one_hot(labels, 3), strength)
    theirs = LogisticRegression(C=1 / (strength * len(x)), tol=1e-8, max_iter=5000).fit(x, labels)
    ours = (x @ weight + bias).softmax(dim=1)
    torch.testing.assert_close(ours, torch.from_numpy(theirs.predict_proba(x)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("rows", [400, 64])
def test_wide_features_have_nearly_the_same_axes_from_a_randomized_decomposition(monkeypatch, rows):
    own = torch.Generator().manual_seed(0)
    scales = torch.logspace(0, -2, 50)
    x = torch.randn(400, 50, generator=own) * scales + 3.0
    exact = principal(x, 8)
    monkeypatch.setattr(heads, "_LARGE", 40)
    monkeypatch.setattr(heads, "_ROWS", rows)
    before = torch.get_rng_state()
    found = principal(x, 8)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(principal(x, 8).basis, found.basis)
    assert found.basis.shape == exact.basis.shape
    a, b = exact.of(x), found.of(x)
    difference = torch.linalg.matrix_norm(a @ a.T - b @ b.T) / torch.linalg.matrix_norm(a @ a.T)
    assert difference < (1e-3 if rows == 400 else 0.4)  # 64 images tell less of the axes


def test_the_sample_of_a_decomposition_has_all_classes_that_take_turns(monkeypatch):
    labels = torch.arange(4000) % 10
    x = torch.randn(4000, 50, generator=torch.Generator().manual_seed(0))
    x += 6 * F.one_hot(labels, 50)

    def apart():
        axes = principal(x, 9)
        return torch.pdist(torch.stack([axes.of(x[labels == k]).mean(0) for k in range(10)]))

    exact = apart()
    monkeypatch.setattr(heads, "_LARGE", 40)
    monkeypatch.setattr(heads, "_ROWS", 400)
    assert apart().min() > 0.9 * exact.min()


def test_an_image_of_importance_two_equals_two_images():
    x, labels = blobs(12)
    targets = F.one_hot(labels, 3)
    importance = torch.ones(12)
    importance[:4] = 2
    once = fit_logistic(x, targets, 0.1, importance=importance)
    twice = fit_logistic(torch.cat([x, x[:4]]), torch.cat([targets, targets[:4]]), 0.1)
    torch.testing.assert_close(once[0], twice[0], atol=1e-4, rtol=0)


def test_the_start_of_the_fit_does_not_change_its_result():
    x, labels = blobs()
    targets = F.one_hot(labels, 3)
    cold = fit_logistic(x, targets, 0.1)
    warm = fit_logistic(x, targets, 0.1, start=(normal(5, 3, seed=3), normal(3, seed=4)))
    torch.testing.assert_close((x @ cold[0]).argmax(1), (x @ warm[0]).argmax(1))
    torch.testing.assert_close(cold[0], warm[0], atol=1e-3, rtol=0)


@pytest.mark.parametrize(("n", "width"), [(8, 20), (40, 6)])
def test_all_coordinates_keep_every_distance_and_have_length_1(n, width):
    x = normal(n, width, seed=1) + 5
    z = principal(x).of(x)
    assert z.shape[1] == min(n - 1, width)
    assert z.mean(dim=0).abs().max() < 1e-9
    assert z.square().sum(dim=1).mean().item() == pytest.approx(1)
    scale = torch.pdist(x) / torch.pdist(z)
    torch.testing.assert_close(scale, scale[:1].expand_as(scale))


def test_few_coordinates_are_the_directions_of_largest_variance():
    x = normal(50, 4, seed=1) * torch.tensor([0.1, 5.0, 0.2, 1.0], dtype=torch.float64)
    basis = F.normalize(principal(x, rank=2).basis, dim=0).abs()
    assert basis[1, 0] > 0.99 and basis[3, 1] > 0.99
    assert basis.shape == (4, 2)


@pytest.mark.parametrize("n", [8, 60])
def test_a_head_on_features_equals_the_head_on_coordinates(n):
    x = normal(n, 10, seed=1).float()
    coordinates = principal(x)
    rank = coordinates.basis.shape[1]
    weight, bias = normal(rank, 3, seed=2).float(), normal(3, seed=3).float()
    head = coordinates.head(weight, bias)
    expected = coordinates.of(x) @ weight + bias
    torch.testing.assert_close(head(x), expected, atol=1e-4, rtol=1e-4)
    assert head.weight.dtype == torch.float32 and head.weight.requires_grad


def test_equal_features_have_finite_coordinates():
    z = principal(torch.ones(4, 3)).of(torch.ones(2, 3))
    assert torch.isfinite(z).all()


def test_aligned_probabilities_have_the_prior_as_mean_and_rows_of_sum_1():
    prior = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    aligned = align(normal(200, 3, seed=0).softmax(dim=1), prior, rounds=50)
    torch.testing.assert_close(aligned.mean(dim=0), prior, atol=1e-4, rtol=0)
    torch.testing.assert_close(aligned.sum(dim=1), torch.ones(200, dtype=torch.float64))


def test_probabilities_with_the_prior_as_mean_do_not_change():
    probabilities = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
    torch.testing.assert_close(align(probabilities, torch.tensor([0.5, 0.5])), probabilities)


def test_a_class_of_probability_0_can_be_aligned():
    certain = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert torch.isfinite(align(certain, torch.tensor([0.5, 0.5]))).all()


def test_the_prior_has_add_one_smoothing():
    assert prior_of(torch.tensor([0, 0, 0, 2]), 3).tolist() == pytest.approx([4 / 7, 1 / 7, 2 / 7])


def test_a_subsample_depends_on_the_seed_only_and_keeps_the_order():
    rows = torch.arange(100.0).unsqueeze(1)
    some = subsample(rows, 10, seed=1).squeeze(1)
    assert len(some) == 10 and (some.diff() > 0).all()
    assert torch.equal(some, subsample(rows, 10, seed=1).squeeze(1))
    assert not torch.equal(some, subsample(rows, 10, seed=2).squeeze(1))
    assert subsample(rows, 100, seed=1) is rows


def test_labels_of_one_class_or_of_another_length_are_refused():
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="two classes or more, got 3 labels of 1 of the 4"):
        check_fit(x, torch.tensor([1, 1, 1]), 4)
    with pytest.raises(ValueError, match="got 2 for 3"):
        check_fit(x, torch.tensor([0, 1]), 2)


def test_the_unpenalised_bias_equals_the_class_shares():
    labels = torch.tensor([0] * 9 + [1])
    x = normal(10, 2, seed=0)
    weight, bias = fit_logistic(x, F.one_hot(labels, 2), 1e6)
    assert (bias[0] - bias[1]).item() == pytest.approx(math.log(9), abs=1e-2)
    assert weight.abs().max() < 1e-4


def test_fitting_a_head_leaves_the_number_of_threads_as_it_was():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        x, labels = blobs()
        fit_logistic(x, F.one_hot(labels, 3), 0.1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("n", [8, 60])
def test_features_whose_squares_overflow_have_equal_coordinates(n):
    x = normal(n, 10, seed=1).float()
    large = x * 2.0**80
    assert torch.equal(principal(large).of(large), principal(x).of(x))
