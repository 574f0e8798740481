"""The self-supervised methods: common tests, then tests of each method."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from handful.methods.autoencoder import Autoencoder, Decoder
from handful.methods.base import Batch
from handful.methods.cmc import CMC, draw_negatives, update_bank
from handful.methods.contrastive_losses import scores
from handful.methods.schedule import Schedule
from handful.methods.simclr import SimCLR
from handful.methods.vicreg import VICReg
from handful.models.classifier import BackboneSpec
from handful.models.published import SmallDecoder
from handful.models.split import Split
from handful.training.batches import Batches
from handful.training.loop import begin, train
from tiny import stripes, task

METHODS = [
    SimCLR(augment="none,+noise", projection_width=16, projection_size=8),
    VICReg(augment="none,+noise", expander_width=16),
    Autoencoder(augment="none", decoder_width=16),
    CMC(augment="none", negatives=8, projection=8),
    CMC(augment="none", negatives=8, projection=0, objective="nce"),
    CMC(augment="none", projection=8, objective="in-batch", space="ycbcr"),
]
each = pytest.mark.parametrize("method", METHODS, ids=lambda m: getattr(m, "objective", m.name))
SCHEDULE = Schedule(steps=8, batch=8, optimizer="adam", lr=3e-3, weight_decay=0.0, average=0.0)


def colored(labeled=0, **options):
    return task(stripes(channels=3, labeled=labeled, **options))


def run(method, on, schedule=SCHEDULE, seed=0):
    state = begin(method, on, schedule, seed)
    logs = [
        {k: v.item() for k, v in progress.logs.items()}
        for progress in train(
            state, method, Batches(on, method.views(on), schedule, seed), schedule
        )
    ]
    return state, logs


@each
def test_it_trains_without_any_label_and_every_tensor_moves(method):
    on = colored()
    before = copy.deepcopy(dict(begin(method, on, SCHEDULE, 0).model.named_parameters()))
    state, logs = run(method, on)
    assert all(math.isfinite(value) for line in logs for value in line.values())
    for name, now in state.model.named_parameters():
        assert not torch.equal(now, before[name]), f"{name} did not move"


@pytest.mark.slow
@each
def test_its_loss_falls(method):
    _, logs = run(method, colored(), replace(SCHEDULE, steps=60))
    losses = [line["loss"] for line in logs]
    assert np.mean(losses[-8:]) < np.mean(losses[:8])


@each
def test_labels_do_not_change_the_result(method):
    with_labels, without = run(method, colored(labeled=16))[0], run(method, colored())[0]
    a, b = with_labels.model.state_dict(), without.model.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


@each
def test_the_network_has_a_normalisation_and_the_backbone_of_spec(method):
    on = colored()
    model = begin(method, on, SCHEDULE, 0).model
    spec = method.spec(on)
    assert model.backbone.state_dict().keys() == spec.make(3, on.size).state_dict().keys()
    assert model.backbone(model.normalize(torch.rand(2, 3, 8, 8))).shape == (
        2,
        model.backbone.width,
    )


def test_both_views_of_simclr_come_from_the_named_pipeline():
    views = SimCLR(augment="simclr,-blur,+cut-out").views(colored())
    assert views.labeled is None
    assert views.unlabeled == ("simclr,-blur,+cut-out",) * 2


@pytest.mark.parametrize("depth, linear_layers", [(0, 0), (1, 1), (2, 2), (4, 4)])
def test_the_projection_has_the_depth_asked_for(depth, linear_layers):
    model = SimCLR(projection_depth=depth, projection_width=16, projection_size=8).build(colored())
    layers = [layer for layer in model.projection if isinstance(layer, torch.nn.Linear)]
    assert len(layers) == linear_layers
    width = model(torch.rand(2, 3, 8, 8)).shape[1]
    assert width == (8 if depth else model.backbone.width)


def test_the_small_encoder_gets_the_decoder_of_its_report():
    on = replace(colored(size=64), backbone=BackboneSpec("small-encoder"))
    model = Autoencoder().build(on)
    assert isinstance(model.decoder, SmallDecoder)
    assert sum(p.numel() for p in model.backbone.parameters()) == 42_156
    assert sum(p.numel() for p in model.decoder.parameters()) == 42_135


@pytest.mark.parametrize("channels, size", [(1, 28), (3, 64), (3, 33), (1, 8), (3, 3)])
def test_a_derived_decoder_gives_images_of_any_size(channels, size):
    images = Decoder(10, channels, size, 32)(torch.randn(2, 10))
    assert images.shape == (2, channels, size, size)
    assert images.min() >= 0 and images.max() <= 1


def test_the_target_of_the_autoencoder_is_its_augmented_input():
    class Same(torch.nn.Module):
        def forward(self, images):
            return images

    images = torch.rand(2, 3, 8, 8)
    batch = Batch(images[:0], torch.empty(0).long(), (images,))
    assert Autoencoder().loss(Same(), batch).loss == 0


def test_split_gives_lightness_to_one_network_and_colour_to_the_other():
    backbone = Split(3, 16, encoder="small-encoder").eval()
    grey = torch.rand(4, 1, 16, 16).expand(-1, 3, -1, -1)
    light, color = backbone.channels(grey)
    assert light.shape == (4, 1, 16, 16) and color.shape == (4, 2, 16, 16)
    assert color.abs().max() < 0.1  # grey has no colour
    assert light.max() > 50  # L is not standardised before `init_from_data`
    features = backbone(grey)
    assert features.shape == (4, backbone.width)


@pytest.mark.parametrize("space", ["lab", "ycbcr"])
def test_channels_are_standardised(space):
    on = colored()
    model = CMC(space=space).build(on)
    light, color = model.backbone.channels(on.pixels.float() / 255)
    channels = torch.cat([light, color], dim=1)
    std, mean = torch.std_mean(channels, dim=(0, 2, 3))
    torch.testing.assert_close(mean, torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(std, torch.ones(3), atol=1e-3, rtol=0)


def test_cmc_refuses_grey_images():
    with pytest.raises(ValueError, match="these are grey; try simclr"):
        CMC().build(task())


def test_an_image_is_never_among_its_own_negatives():
    torch.manual_seed(0)
    written = torch.tensor([True, False, True, True, False, True, True])
    ids = torch.tensor([0, 6, 3])
    drawn = draw_negatives(written, ids, 2_000)
    known = {0, 2, 3, 5, 6}
    for row, own in zip(drawn.tolist(), ids.tolist(), strict=True):
        assert set(row) == known - {own}
        counts = np.bincount(row, minlength=7)[sorted(known - {own})]
        assert counts.min() > 400  # of 500 expected each


def test_the_bank_is_updated_by_hand():
    bank = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    update_bank(bank, torch.tensor([2, 0]), torch.tensor([[0.8, 0.6], [0.0, 1.0]]), momentum=0.5)
    half = math.sqrt(0.5)
    torch.testing.assert_close(bank, torch.tensor([[half, half], [0.0, 1.0], [half, half]]))


def test_an_image_twice_in_a_batch_updates_the_bank_once():
    bank = torch.zeros(2, 2)
    update_bank(bank, torch.tensor([1, 1]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]), momentum=0.0)
    assert bank.tolist() == [[0, 0], [1, 0]]


def test_the_bank_has_entries_of_trained_images_only():
    method = CMC(augment="none", negatives=8, projection=8)
    state, _ = run(method, colored(), replace(SCHEDULE, steps=1))
    assert state.method_state["written"].sum() == 8
    lengths = state.method_state["bank"].norm(dim=2)  # (2, N)
    assert torch.allclose(lengths[:, state.method_state["written"]], torch.ones(2, 8))
    assert not lengths[:, ~state.method_state["written"]].any()


def test_negatives_come_from_written_entries_only():
    """Entries that were never written are zeros, with cosine 0 to any feature."""
    method = CMC(augment="none", negatives=64, projection=8, temperature=1.0)
    on = colored()
    state = begin(method, on, SCHEDULE, 0)
    constant = torch.ones(8, 8)
    batch = Batches(on, method.views(on), SCHEDULE, 0)[0]._replace(state=state.method_state)
    loss = method.loss(lambda images: (constant, constant), batch).loss
    assert loss.item() == pytest.approx(2 * math.log(65), rel=1e-5)


def test_a_new_image_is_its_own_positive():
    method = CMC(augment="none", negatives=16, projection=8)
    on = colored()
    state = begin(method, on, SCHEDULE, 0)
    apart = torch.eye(8)
    batch = Batches(on, method.views(on), SCHEDULE, 0)[0]._replace(state=state.method_state)
    assert method.loss(lambda images: (apart, apart), batch).loss < 0.01


def test_a_bank_that_is_nine_tenths_empty_makes_constant_features_a_solution():
    """The report's values are reproduced: loss 9.4275, probability 0.00897, without temperature.

    Of 256 negatives a tenth equal the constant, and the others are orthogonal noise. With a bank
    that is fully written, constant features have the loss of chance, log 257.
    """
    width = 4096
    constant = F.normalize(torch.ones(1, width), dim=1)
    noise = torch.randn(256, width, generator=torch.Generator().manual_seed(0))
    written = (torch.arange(256) < 26).unsqueeze(1)
    bank = torch.cat([constant, torch.where(written, constant, F.normalize(noise, dim=1))])
    rows, positive = torch.arange(257).unsqueeze(0), torch.tensor([0])
    found = scores(constant, bank, rows, temperature=1.0)
    assert 2 * F.cross_entropy(found, positive).item() == pytest.approx(9.4275, abs=0.02)
    assert found.softmax(dim=1)[0, 0].item() == pytest.approx(0.00897, rel=0.01)
    full = scores(constant, bank, torch.zeros_like(rows), temperature=1.0)
    assert F.cross_entropy(full, positive).item() == pytest.approx(math.log(257))


@pytest.mark.slow
def test_cmc_learns_what_lightness_and_colour_have_in_common():
    """The hue of the stripes depends on their direction: the loss falls below that of chance."""
    images = stripes(n=64, channels=3, size=16, labeled=0)
    on = task(images, backbone=BackboneSpec("small", {"base": 8}))
    method = CMC(augment="none", negatives=16, projection=8)
    schedule = replace(SCHEDULE, steps=80, batch=16)
    _, logs = run(method, on, schedule)
    assert np.mean([line["loss"] for line in logs[-10:]]) < 0.8 * 2 * math.log(17)
    assert np.mean([line["light_to_color"] for line in logs[-10:]]) > 2 / 17


def test_cmc_reports_matches_by_chance():
    at = {"light_to_color": 0.2, "color_to_light": 0.2}
    assert CMC().failure(at) is None
    assert "learned nothing" in CMC().failure(at | {"color_to_light": 1 / 257})


def test_the_running_normaliser_is_kept_in_the_method_state():
    method = CMC(augment="none", negatives=8, projection=8, objective="nce")
    state, _ = run(method, colored())
    assert (state.method_state["normalizer"] > 0).all()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: SimCLR(temperature=0), "temperature must be more than 0"),
        (lambda: SimCLR(projection_depth=-1), "projection_depth must be 0 or more"),
        (lambda: VICReg(expander_width=0), "expander_width must be more than 0"),
        (lambda: CMC(space="hsv"), "no space 'hsv'; choose one of lab, ycbcr"),
        (lambda: CMC(objective="nec"), "no objective 'nec'; choose one of softmax, nce, in-batch"),
        (lambda: Split(1, 16), "needs colour images, got channels=1"),
        (lambda: Split(3, 16, encoder="lite0"), "was trained on RGB"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
