"""The fitted methods: common tests, then tests of each method."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from sklearn.semi_supervised import LabelSpreading

from handful.data.folds import stratified_folds
from handful.methods import heads
from handful.methods.base import Fitted, Init, classifier, feature_network
from handful.methods.heads import principal
from handful.methods.linear_head import STRENGTHS, TEMPERATURES, Features, choose_strength
from handful.methods.propagation import (
    Propagation,
    certainty,
    nearest,
    normalized_graph,
    soft_targets,
    spread,
)
from handful.methods.self_training import SelfTraining, most_confident
from handful.models import fingerprint
from handful.models.classifier import BackboneSpec
from handful.training.plan import Plan
from handful.training.settings import Settings
from handful.training.trainer import train_task
from tiny import stripes, task

METHODS = [Features(), SelfTraining(rounds=3, rank=16), Propagation(neighbors=5, rank=8)]
common = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


def blobs(n, width=40, classes=3, seed=0, apart=6.0):
    """Clusters along `classes` dimensions, with unit noise in all dimensions."""
    labels = torch.arange(n) % classes
    noise = torch.randn(n, width, generator=torch.Generator().manual_seed(seed))
    return noise + apart * F.one_hot(labels, width), labels


def accuracy(head, features, labels):
    return (head(features.float()).argmax(dim=1) == labels).float().mean().item()


@common
def test_a_fitted_method_learns_well_separated_classes(method):
    assert isinstance(method, Fitted)
    x, y = blobs(12)
    u, truth = blobs(120, seed=1)
    head = method.fit_features(x, y, u, 3, seed=0)
    assert (head.in_features, head.out_features) == (40, 3)
    assert head.weight.dtype == torch.float32
    assert accuracy(head, u, truth) > 0.95


@common
def test_the_same_seed_gives_the_same_bits(method):
    x, y = blobs(12)
    u, _ = blobs(60, seed=1)
    first, second = (method.fit_features(x, y, u, 3, seed=5) for _ in range(2))
    assert torch.equal(first.weight, second.weight) and torch.equal(first.bias, second.bias)


@common
def test_features_in_half_precision_are_accepted(method):
    x, y = blobs(12)
    u, truth = blobs(60, seed=1)
    assert accuracy(method.fit_features(x.half(), y, u.half(), 3, seed=0), u, truth) > 0.95


@common
def test_classes_with_one_label_and_with_none_are_possible(method):
    x, y = blobs(12)
    keep = torch.tensor([0, 3, 6, 1])  # three of class 0, one of class 1, none of class 2
    head = method.fit_features(x[keep], y[keep], blobs(60, seed=1)[0], 3, seed=0)
    assert torch.isfinite(head.weight).all()
    assert head(x[:2]).argmax(dim=1).tolist() == [0, 1]


@common
def test_no_unlabelled_image_is_needed(method):
    x, y = blobs(12)
    head = method.fit_features(x, y, x[:0], 3, seed=0)
    assert accuracy(head, x, y) == 1


@common
def test_one_class_is_refused(method):
    x, _ = blobs(4)
    with pytest.raises(ValueError, match="two classes or more"):
        method.fit_features(x, torch.zeros(4, dtype=torch.int64), x, 3, seed=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Features(strength=-1), "strength is 0 .* got -1"),
        (lambda: Features(folds=1), "folds must be 2 or more, got 1"),
        (lambda: SelfTraining(first_share=0.95), "got 0.95 and 0.9"),
        (lambda: SelfTraining(rounds=0), "rounds must be more than 0, got 0"),
        (lambda: Propagation(alpha=1.0), "alpha lies between 0 and 1, got 1.0"),
        (lambda: Propagation(neighbors=0), "neighbors must be more than 0, got 0"),
    ],
)
def test_impossible_settings_are_refused_when_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_given_strength_is_used_and_a_stronger_one_shrinks_the_head():
    x, y = blobs(12)
    heads = [Features(strength=s).fit_features(x, y, x, 3, seed=0) for s in (0.001, 1.0)]
    assert heads[1].weight.norm() < 0.5 * heads[0].weight.norm()


def test_classes_with_few_labels_are_predicted_too():
    generator = torch.Generator().manual_seed(0)
    centres = 1.5 * torch.randn(3, 40, generator=generator)
    y = torch.tensor([0] * 40 + [1] * 6 + [2] * 4)
    x = centres[y] + torch.randn(len(y), 40, generator=generator)
    truth = torch.arange(300) % 3
    new = centres[truth] + torch.randn(300, 40, generator=generator)
    fixed, strong = (
        Features(strength=strength).fit_features(x, y, x, 3, seed=0)
        for strength in (Features().strength, 0.1)
    )
    assert accuracy(fixed, new, truth) > accuracy(strong, new, truth) + 0.1


def test_tuned_features_have_the_strength_that_the_fit_chooses(monkeypatch):
    x, y = blobs(30, apart=2.0)
    method = Features(strength=0)
    tuned = method.tuned(x, y, 3, seed=4)
    assert tuned.strength in STRENGTHS
    chosen = method.fit_features(x, y, x, 3, seed=4)
    assert torch.equal(tuned.fit_features(x, y, x, 3, seed=9).weight, chosen.weight)
    monkeypatch.setattr("handful.methods.linear_head.choose_strength", None)  # not called again
    assert tuned.tuned(x[:9], y[:9], 3, seed=0) is tuned


def slow_losses(x, labels, seed, strengths):
    """The out-of-fold cross-entropy of each strength at its best temperature."""
    targets, fold = F.one_hot(labels, 3).double(), stratified_folds(labels.numpy(), 5, seed)
    found = []
    for strength in strengths:
        logits = torch.empty(len(x), 3, dtype=torch.float64)
        for held in range(5):
            inside = torch.from_numpy(fold != held)
            weight, bias = heads.fit_logistic(x[inside], targets[inside], strength)
            logits[~inside] = x[~inside] @ weight + bias
        best = minimize_scalar(
            lambda log_t, logits=logits: F.cross_entropy(logits / 4**log_t, labels).item(),
            bounds=(-2, 2), method="bounded",
        )  # fmt: skip
        found.append(best.fun)
    return np.array(found)


@pytest.mark.thorough
@pytest.mark.parametrize("apart", [1.0, 1.5, 2.0])
def test_the_strength_has_the_lowest_cross_entropy_at_its_best_temperature(apart):
    x, labels = blobs(60, width=80, apart=apart)
    z, targets = principal(x.double()).of(x), F.one_hot(labels, 3).double()
    losses = slow_losses(z, labels, 3, STRENGTHS)
    chosen = choose_strength(z, targets, 5, 3)
    assert losses[STRENGTHS.index(chosen)] <= losses.min() + 0.015


def test_uninformative_features_get_the_strongest_penalty():
    x = torch.randn(60, 20, generator=torch.Generator().manual_seed(0)).double()
    targets = F.one_hot(torch.arange(60) % 3, 3).double()
    assert choose_strength(principal(x).of(x), targets, 5, seed=0) == max(STRENGTHS)


@pytest.mark.slow
def test_a_strong_penalty_is_not_rejected_for_low_confidence(monkeypatch):
    chosen = {}
    for temperatures in (TEMPERATURES, torch.ones(1)):
        monkeypatch.setattr("handful.methods.linear_head.TEMPERATURES", temperatures)
        chosen[len(temperatures)] = found = []
        for seed in range(10):
            x, labels = blobs(60, width=200, seed=seed, apart=2.0)
            z, targets = principal(x.double()).of(x), F.one_hot(labels, 3).double()
            found.append(choose_strength(z, targets, 5, seed=0))
    pairs = list(zip(chosen[len(TEMPERATURES)], chosen[1], strict=True))
    assert all(at_best >= plain for at_best, plain in pairs)
    assert sum(at_best > plain for at_best, plain in pairs) >= 6
    assert all(at_best == 0.1 and plain < 0.01 for at_best, plain in pairs[1:3])


def test_many_labels_of_a_sharp_rule_get_a_weak_penalty():
    x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0)).double()
    labels = (x[:, 0] > 0).long()
    z = principal(x).of(x)
    assert choose_strength(z, F.one_hot(labels, 2).double(), 5, seed=0) == 0.001


def test_the_most_confident_of_each_class_are_used_up_to_its_quota():
    predictions = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.7, 0.3], [0.45, 0.55]])
    chosen = most_confident(predictions, torch.tensor([0.5, 0.5]), share=0.8)
    assert chosen.tolist() == [0, 2, 4]  # two of class 0, and all of class 1


def test_a_share_below_one_image_still_uses_one_of_each_class():
    predictions = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
    assert most_confident(predictions, torch.tensor([0.5, 0.5]), share=0.01).tolist() == [0, 2]


def test_the_share_rises_linearly_from_the_first_to_the_last():
    method = SelfTraining(rounds=3, first_share=0.2, last_share=0.6)
    assert method.shares() == pytest.approx([0.2, 0.4, 0.6])


def test_self_training_uses_the_shape_of_the_unlabelled_clusters():
    x = torch.tensor([[0.0, 0.0], [1.0, 4.0]])  # alone they give a tilted border
    generator = torch.Generator().manual_seed(0)
    truth = torch.arange(400) % 2
    u = torch.randn(400, 2, generator=generator) * torch.tensor([0.3, 3.0])
    u[:, 0] += truth
    alone = Features(strength=0.01).fit_features(x, torch.tensor([0, 1]), u, 2, seed=0)
    method = SelfTraining(rounds=20, last_share=1.0)
    together = method.fit_features(x, torch.tensor([0, 1]), u, 2, seed=0)
    assert accuracy(together, u, truth) > accuracy(alone, u, truth)


def test_nearest_neighbours_match_brute_force_across_blocks(monkeypatch):
    monkeypatch.setattr("handful.methods.propagation.SIMILARITIES_AT_ONCE", 7 * 30)
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    similarity, neighbors = nearest(x, 3)
    for row in range(30):
        cosines = F.cosine_similarity(x[row : row + 1], x)
        cosines[row] = -2
        values, positions = cosines.topk(3)
        assert neighbors[row].tolist() == positions.tolist()
        torch.testing.assert_close(similarity[row], values)


@pytest.mark.slow
def test_propagation_of_100_000_images_needs_4_gigabytes():
    code = """
import resource
import torch
import torch.nn.functional as F
from handful.methods.propagation import Propagation

def blobs(n, generator=torch.Generator().manual_seed(0)):
    labels = torch.arange(n) % 10
    features = torch.empty(n, 1792, dtype=torch.half)
    for part, of in zip(features.split(10_000), labels.split(10_000)):
        noise = torch.randn(len(part), 1792, generator=generator)
        part.copy_(noise + 6 * F.one_hot(of, 1792))
    return features, labels

(x, y), (u, truth) = blobs(100), blobs(100_000)
head = Propagation(labels_only=0).fit_features(x, y, u, 10, seed=0)
with torch.inference_mode():
    predictions = torch.cat([head(part.float()).argmax(dim=1) for part in u.split(10_000)])
print((predictions == truth).float().mean().item())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    accurate, gigabytes = map(float, done.stdout.split())
    assert accurate > 0.99
    assert gigabytes < 4


def test_spreading_matches_scikit_learn_on_the_same_graph():
    x, labels = blobs(40, width=6, apart=2.0)
    similarity, neighbors = nearest(x, 5)
    graph = normalized_graph(similarity.clamp_min(0), neighbors)
    known = torch.zeros(40, 3)
    known[:6] = F.one_hot(labels[:6], 3).float()

    dense = np.zeros((40, 40))
    for row in range(40):
        dense[row, neighbors[row]] = similarity[row].clamp_min(0)
    dense = dense + dense.T
    given = np.where(np.arange(40) < 6, labels.numpy(), -1)
    theirs = LabelSpreading(kernel=lambda *_: dense, alpha=0.8, max_iter=500, tol=1e-9)
    theirs.fit(x.numpy(), given)

    ours = spread(graph, known, alpha=0.8, steps=500)
    ours = ours / ours.sum(dim=1, keepdim=True)
    expected = torch.from_numpy(theirs.label_distributions_).float()
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


def test_certainty_is_0_for_equal_probabilities_and_1_for_one_class():
    p = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0, 0, 0], [0.5, 0.5, 0, 0]])
    assert certainty(p).tolist() == pytest.approx([0, 1, 1 - math.log(2) / math.log(4)], abs=1e-6)


def test_an_image_that_no_label_reaches_has_importance_0():
    scores = torch.tensor([[0.3, 0.1], [0.0, 0.0], [0.2, 0.0]])
    targets, importance = soft_targets(scores, torch.tensor([0.9, 0.1]))
    assert importance[1] == 0 and importance[2] > importance[0] > 0
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(3))


def test_the_network_for_features_is_made_once_and_never_the_one_that_a_head_is_put_on():
    images = stripes(size=32, channels=3)
    lite = task(images, backbone=BackboneSpec("lite0", {"stages": 2}))
    shared = feature_network(lite)
    assert feature_network(replace(lite, images=images[:20])) is shared
    other = feature_network(replace(lite, backbone=BackboneSpec("lite0", {"stages": 3})))
    assert other is not shared and other.backbone.width > shared.backbone.width
    own = classifier(lite)
    assert own.backbone is not shared.backbone
    assert fingerprint(own.backbone) == fingerprint(shared.backbone)

    before = fingerprint(shared)
    settings = Settings(Features(), None, lite.backbone)
    model = train_task(settings, lite, seed=0, planned=Plan("fp32", 1, 0.0)).predictor.model
    assert model.backbone is not shared.backbone and isinstance(shared.head, torch.nn.Identity)
    with torch.no_grad():
        next(model.backbone.parameters()).add_(1)
    assert fingerprint(feature_network(lite)) == before


def test_networks_without_learned_weights_and_with_other_ones_are_made_anew():
    small = task()
    assert feature_network(small) is not feature_network(small)
    lite = task(stripes(size=32, channels=3), backbone=BackboneSpec("lite0"))
    weights = {key: value + 1 for key, value in lite.make_backbone().state_dict().items()}
    init = Init(weights, (0.5,) * 3, (0.5,) * 3, "other")
    found = feature_network(replace(lite, init=init))
    assert found is not feature_network(lite)
    assert fingerprint(found.backbone) != fingerprint(feature_network(lite).backbone)
    assert found is feature_network(replace(lite, init=init))
