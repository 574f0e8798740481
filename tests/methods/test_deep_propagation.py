"""Deep label propagation: the labels of a graph, when it is made, and the loss on its labels."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.semi_supervised import LabelSpreading

import handful
from handful import devices
from handful.data.store import array_store
from handful.methods.base import Batch, Init
from handful.methods.deep_propagation import DeepPropagation, default_alpha, seed_weights
from handful.methods.propagation import propagate
from handful.models import make
from handful.models.classifier import BackboneSpec, Classifier
from handful.progress import Reporter
from handful.training.batches import Batches
from handful.training.loop import begin, train
from handful.training.plan import Plan
from handful.training.settings import Settings
from tiny import SCHEDULE, stripes, task

PLAN = Plan("fp32", 1, 0.01)
METHOD = DeepPropagation(period=4, neighbors=3, rank=6, alpha=0.99, spread_steps=30)
SETTINGS = Settings(METHOD, SCHEDULE, BackboneSpec("small", {"base": 8}), precision="fp32")


def coordinates(features, rank):
    """(N, rank) principal coordinates of unit length, by singular values, in float64."""
    centred = features.double().numpy() - features.double().numpy().mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    kept = (left * values)[:, :rank]
    return kept / np.linalg.norm(kept, axis=1, keepdims=True)


def slow_scores(x, known, classes, method):
    """Iscen et al., equations 2 to 6 and 9, image by image, with power iteration as the solver."""
    n = len(x)
    affinity = np.zeros((n, n))
    for i in range(n):
        cosines = x[i] @ x.T / np.linalg.norm(x[i]) / np.linalg.norm(x, axis=1)
        cosines[i] = -np.inf
        for j in np.argsort(-cosines)[: method.neighbors]:
            affinity[i, j] = max(cosines[j], 0) ** method.sharpness
    w = affinity + affinity.T
    degree = np.maximum(w.sum(axis=1), 1e-12)
    s = w / np.sqrt(degree)[:, None] / np.sqrt(degree)[None, :]
    y = np.zeros((n, classes))
    for i, k in enumerate(known):
        if k >= 0:
            y[i, k] = 1
    z = y
    for _ in range(method.spread_steps):
        z = method.alpha * s @ z + (1 - method.alpha) * y
    return z


def blurred(images):
    return F.avg_pool2d(images.at(8).float() / 255, 2, 1, 0).flatten(1)


def hard():
    """Four noisy classes with three labels each, so that graphs make many mistakes."""
    images = stripes(60, classes=4, labeled=12)
    noise = np.random.default_rng(0).normal(0, 60, (60, 1, 8, 8))
    noisy = np.clip(images.at(8).numpy() + noise, 0, 255).astype(np.uint8)
    return task(replace(images, store=array_store(noisy, [f"{i}.png" for i in range(60)])))


def after(method, given, steps, schedule=SCHEDULE):
    state = begin(method, given, schedule, 0)
    for progress in train(
        state, method, Batches(given, method.views(given), schedule, 0), schedule
    ):
        if progress.step == steps:
            break
    return state


def test_the_first_graph_is_of_pixels():
    given = hard()
    known = np.where(np.arange(60) < 12, given.images.labels, -1)
    expected = slow_scores(coordinates(blurred(given.images), 6), known, 4, METHOD).argmax(axis=1)
    expected[:12] = known[:12]
    assert after(METHOD, given, 1).method_state["learned"].tolist() == expected.tolist()


def test_later_graphs_are_of_pixels_beside_features_of_the_averaged_network():
    given = hard()
    before = after(METHOD, given, 4)
    network = before.average.model.eval()
    with torch.no_grad():
        features = network.features(given.pixels.float() / 255)
    x = np.concatenate([coordinates(blurred(given.images), 6), coordinates(features, 6)], axis=1)
    known = np.where(np.arange(60) < 12, given.images.labels, -1)
    expected = slow_scores(x, known, 4, METHOD).argmax(axis=1)
    expected[:12] = known[:12]
    learned = after(METHOD, given, 5).method_state["learned"]
    assert learned.tolist() == expected.tolist()
    assert learned.tolist() != after(METHOD, given, 4).method_state["learned"].tolist()
    assert learned.tolist() == after(METHOD, given, 8).method_state["learned"].tolist()


def test_scores_are_those_of_scikit_learns_label_spreading():
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    known = np.where(np.arange(60) < 9, np.arange(60) % 3, -1)
    one_hot = (
        F.one_hot(torch.from_numpy(known).clamp_min(0), 3) * torch.from_numpy(known >= 0)[:, None]
    )
    ours = propagate(x, one_hot.float(), 4, 2.0, 0.9, 500)
    unit = F.normalize(x.double())
    cosine = (unit @ unit.T).fill_diagonal_(-2)
    value, place = cosine.topk(4, dim=1)
    edges = torch.zeros(60, 60, dtype=torch.float64).scatter_(1, place, value.clamp_min(0) ** 2)
    symmetric = (edges + edges.T).numpy()
    theirs = LabelSpreading(kernel=lambda *_: symmetric, alpha=0.9, max_iter=2000, tol=1e-9)
    distribution = theirs.fit(x.numpy(), known).label_distributions_
    shares = (ours / ours.sum(dim=1, keepdim=True)).numpy()
    np.testing.assert_allclose(shares, distribution, atol=1e-5)


def test_a_network_with_learned_weights_gives_the_first_coordinates(monkeypatch):
    monkeypatch.setattr(devices, "has_bf16", lambda: False)
    given = task()
    torch.manual_seed(3)
    backbone = make("small", 1, 8, base=8)
    weights = {k: v.clone() for k, v in backbone.state_dict().items()}
    started = replace(given, init=Init(weights, (0.4,), (0.3,), "0" * 8))
    first = METHOD.state(started)["first"]
    with torch.no_grad():
        features = backbone.eval()((given.pixels.float() / 255 - 0.4) / 0.3)
    ours = F.normalize(first.float())
    theirs = torch.from_numpy(coordinates(features.half().float(), 6)).float()
    torch.testing.assert_close(ours @ ours.T, theirs @ theirs.T, atol=3e-3, rtol=0)


def test_alpha_grows_with_the_number_of_images():
    ours = [default_alpha(n) for n in (10, 1000, 2000, 10_000, 60_000)]
    assert ours == pytest.approx([0.9, 0.9, 0.95, 0.99, 0.99])
    given, chosen = hard(), replace(METHOD, alpha=0.0)
    far = after(METHOD, given, 5).method_state["learned"].tolist()
    near = after(replace(METHOD, alpha=0.9), given, 5).method_state["learned"].tolist()
    assert after(chosen, given, 5).method_state["learned"].tolist() == near != far


def test_labels_of_a_class_spread_with_its_share_however_many_they_are():
    one_hot = F.one_hot(torch.tensor([0, 0, 0, 1]), 2).float()
    even, given = torch.tensor([0.5, 0.5]), torch.tensor([0.75, 0.25])
    assert (one_hot * seed_weights(one_hot, even)).sum(dim=0).tolist() == pytest.approx([2, 2])
    assert seed_weights(one_hot, given).tolist() == pytest.approx([1, 1])


def test_the_shares_of_a_task_are_those_that_the_graph_takes():
    given = replace(hard(), shares=(0.1, 0.2, 0.3, 0.4))
    assert METHOD.state(given)["prior"].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])


class Fixed(torch.nn.Module):
    """Returns its input as logits."""

    def forward(self, images):
        return images


def batch(learned, step=1):
    prior = torch.full((3,), 1 / 3)
    state = {"learned": torch.tensor(learned), "prior": prior, "used": prior.clone()}
    logits = torch.tensor([[2.0, 0, 0], [0, 1.0, 0], [0, 0, 3.0]])
    ids = torch.tensor([2, 0, 3])
    nobody = torch.empty(0, dtype=torch.int64)
    return Batch(logits[:0], nobody, (logits,), nobody, ids, step=step, state=state)


def test_images_with_a_label_have_equal_weights():
    step = METHOD.loss(Fixed(), batch([1, -1, 0, -1]))  # labels of the batch: 0, 1 and none
    wrong = math.log(math.exp(2) + 2) - 2, math.log(math.e + 2) - 1
    assert step.loss.item() == pytest.approx(sum(wrong) / 2, rel=1e-6)
    assert step.logs["kept"].item() == pytest.approx(2 / 3)
    assert step.logs["agreement"].item() == 1


def test_a_batch_without_labels_has_loss_0():
    given = batch([-1, -1, -1, -1])
    logits = given.unlabeled[0].requires_grad_()
    loss = METHOD.loss(Fixed(), given).loss
    loss.backward()
    assert loss.item() == 0 and logits.grad.abs().max() == 0
    assert METHOD.loss(Fixed(), given).logs["agreement"] == 0


def test_validation_images_are_not_in_the_graph():
    given = replace(hard(), validation=(0, 5))
    state = after(METHOD, given, 5).method_state
    assert state["learned"][[0, 5]].tolist() == [-1, -1]
    assert state["images"].tolist() == [i for i in range(60) if i not in (0, 5)]
    assert len(state["first"]) == 58


def test_an_image_that_no_label_reaches_is_not_learned():
    images = stripes(60, classes=2, labeled=2)
    lonely = replace(METHOD, neighbors=1)
    given = task(images)
    learned = after(lonely, given, 5).method_state["learned"]
    known = np.where(np.arange(60) < 2, images.labels, -1)
    assert (learned < 0).any() and learned[:2].tolist() == known[:2].tolist()


def test_the_state_of_training_is_reported():
    said = []
    handful.fit(
        stripes(),
        METHOD,
        settings={"steps": "4", "batch": "8", "looks": "1", "backbone.base": "8"},
        precision="fp32",
        estimate="none",
        reporter=Reporter(say=said.append),
    )
    assert any("on all images, 100% of them used; network and graph agree on" in x for x in said)


def test_graphs_are_computed_in_full_precision_also_in_bf16_trainings():
    given = task()
    state = begin(METHOD, given, SCHEDULE, 0)
    batches = Batches(given, METHOD.views(given), SCHEDULE, 0)
    for _ in train(state, METHOD, batches, SCHEDULE, "bf16"):
        break
    assert torch.equal(
        state.method_state["learned"], after(METHOD, given, 1).method_state["learned"]
    )


def test_features_for_later_graphs_have_the_precision_of_the_training(monkeypatch):
    asked = []
    features = Classifier.features

    def noted(self, images):
        if not self.training:
            asked.append(torch.is_autocast_enabled(devices.device().type))
        return features(self, images)

    monkeypatch.setattr(Classifier, "features", noted)
    given = task()
    batches = Batches(given, METHOD.views(given), SCHEDULE, 0)
    for _ in train(begin(METHOD, given, SCHEDULE, 0), METHOD, batches, SCHEDULE, "bf16"):
        pass
    assert asked == [True] * (SCHEDULE.steps // METHOD.period - 1)


@pytest.mark.parametrize(
    "wrong, text",
    [
        ({"alpha": 1.0}, r"alpha is 0 \(choose it\) or up to 1, got 1.0"),
        ({"period": 0}, "period must be more than 0, got 0"),
        ({"rank": -1}, "rank must be more than 0, got -1"),
    ],
)
def test_impossible_settings_are_refused_when_made(wrong, text):
    with pytest.raises(ValueError, match=text):
        DeepPropagation(**wrong)
