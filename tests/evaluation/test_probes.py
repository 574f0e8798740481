import numpy as np
import pytest
import torch
from torch import nn

from handful.data.augmentation.pipelines import Pipeline
from handful.evaluation.probes import (
    PROBES,
    Neighbors,
    accuracy,
    frozen,
    frozen_features,
    linear,
    neighbor_accuracy,
)
from handful.evaluation.representation import Health, representation
from handful.methods.base import classifier
from handful.methods.heads import standardized
from handful.methods.linear_head import Features
from handful.methods.mlp_head import MLPHead
from handful.models import feature_cache, fingerprint
from tiny import stripes, task


def clouds(n=120, d=12, classes=3, scale=1.0, seed=0):
    """Gaussian clouds around corners; all but the first features are multiplied by `scale`."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    x = torch.randn(n, d, generator=rng) * 0.7
    x[torch.arange(n), labels] += 3.0
    x[:, classes:] *= scale
    return x, labels


@pytest.mark.parametrize("name", PROBES)
def test_every_probe_reads_clouds_that_lie_apart(name):
    x, labels = clouds()
    head = PROBES[name](x[:90], labels[:90], 3, 0)
    assert accuracy(head, x[90:], labels[90:]) > 0.9


def test_the_linear_probe_is_not_moved_by_the_scale_of_a_feature():
    x, labels = clouds()
    large = x * torch.logspace(-3, 3, 12)
    a, b = linear(x, labels, 3, 0)(x), linear(large, labels, 3, 0)(large)
    torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_a_constant_feature_does_no_harm():
    x, labels = clouds()
    x[:, 5] = 7.0
    head = linear(x, labels, 3, 0)
    assert head.weight[:, 5].abs().max() == 0
    assert torch.isfinite(head.bias).all()


def test_the_linear_probe_has_converged():
    """It agrees with scikit-learn's solver at a small tolerance."""
    sklearn = pytest.importorskip("sklearn.linear_model")
    x, labels = clouds(seed=3)
    coordinates = standardized(x.double())
    from handful.methods.heads import fit_logistic

    targets = nn.functional.one_hot(labels, 3).double()
    weight, bias = fit_logistic(coordinates.of(x), targets, 1e-3, iterations=5_000)
    theirs = sklearn.LogisticRegression(C=1 / (1e-3 * len(x)), tol=1e-8, max_iter=5_000)
    theirs.fit(coordinates.of(x).numpy(), labels.numpy())
    ours = (coordinates.of(x) @ weight + bias).softmax(dim=1).numpy()
    np.testing.assert_allclose(ours, theirs.predict_proba(coordinates.of(x).numpy()), atol=2e-4)


def test_standardised_features_are_a_setting_of_the_method_too():
    x, labels = clouds(scale=1e-3)
    head = Features(standardize=True).fit_features(x, labels, x[:0], 3, 0)
    assert accuracy(head, x, labels) > 0.95


def test_a_probe_leaves_the_network_as_it_was():
    model = classifier(task())
    network = nn.Sequential(model.normalize, model.backbone)
    before = fingerprint(network)
    found = frozen_features(network, stripes(), 8, precision="fp32")
    assert found.shape == (40, 32)
    assert fingerprint(network) == before


def test_a_probe_that_forgets_eval_is_caught(monkeypatch):
    monkeypatch.setattr(feature_cache, "in_evaluation_mode", lambda network: network.train())
    model = classifier(task())
    network = nn.Sequential(model.normalize, model.backbone)
    with pytest.raises(RuntimeError, match="the probe changed the network it was to judge"):
        frozen_features(network, stripes(seed=1), 8, precision="fp32")


def test_a_probe_that_trains_the_network_is_caught():
    network = nn.Linear(3, 2)
    with pytest.raises(RuntimeError, match="parameters or buffers"), frozen(network):
        network.bias.data += 1e-6


def test_the_head_of_two_layers_repeats_with_the_seed_and_leaves_the_random_state():
    x, labels = clouds()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    a, b, c = (MLPHead(epochs=2).fit_features(x, labels, x[:0], 3, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(a(x), b(x)) and not torch.equal(a(x), c(x))
    assert [layer.out_features for layer in a if isinstance(layer, nn.Linear)] == [64, 3]


def test_neighbours_vote_by_hand():
    known = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    targets = torch.eye(2)[[0, 1, 1]]
    shares = Neighbors(known, targets, k=1)(torch.tensor([[5.0, 0.0], [0.0, 0.2]]))
    torch.testing.assert_close(shares, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))


def test_an_image_is_not_its_own_neighbour():
    known = torch.tensor([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [0.01, 1.0]])
    assert neighbor_accuracy(known, torch.tensor([0, 1, 0, 1]), 2, k=1) == 0
    assert neighbor_accuracy(known, torch.tensor([0, 0, 1, 1]), 2, k=1) == 1


def test_health_counts_neighbours_only_where_two_classes_have_labels():
    on = task(stripes(labeled=1))
    model = classifier(on)
    assert "knn_accuracy" not in Health(on, Pipeline(), "fp32")(model)
    on = task()
    model = classifier(on)
    found = Health(on, Pipeline(), "fp32")(model)
    known = representation(model, "fp32")(on.pixels[on.labeled])
    by_hand = neighbor_accuracy(known, on.labels[on.labeled], len(on.classes))
    assert 0 < by_hand < 1
    assert found["knn_accuracy"] == pytest.approx(by_hand)
    assert found["alignment"] == 0  # both views are the image itself
