"""Networks of timm with weights from the hub, with a small server in its place."""

import io
import json
import threading
from dataclasses import replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from huggingface_hub import constants
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

import handful
from handful import models
from handful.models import make, timm_networks
from handful.models.classifier import BackboneSpec, Classifier, Normalize, Predictor
from handful.pipeline.auto import race
from handful.pipeline.model_file import load_predictor, save_predictor
from tiny import stripes

COMMIT = "0123456789abcdef0123456789abcdef01234567"
VIT = "vit_tiny_patch16_224.augreg_in21k"


class Hub(ThreadingHTTPServer):
    """Files by their path, and every request that was made."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files, self.requests = {}, []


class Answer(BaseHTTPRequestHandler):
    def do_HEAD(self):  # noqa: N802
        self.server.requests.append(f"{self.command} {self.path}")
        content = self.server.files.get(self.path)
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("ETag", f'"{sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        return content

    def do_GET(self):  # noqa: N802
        self.wfile.write(self.do_HEAD() or b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub of its own with an empty cache; `dinov2-s` stands for a smaller transformer there."""
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setitem(models.ALIASES, "dinov2-s", (VIT, "Apache-2.0"))
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()


def offer(hub, model=VIT, seed=0):
    """Put random weights of a model on the hub, as they are there; returns them."""
    import timm

    torch.manual_seed(seed)
    tensors = timm.create_model(model, pretrained=False, num_classes=7).state_dict()
    hub.files[f"/timm/{model}/resolve/main/model.safetensors"] = save(tensors)
    return tensors


def test_weights_that_are_no_safetensors_are_left_to_timm(hub):
    tensors = offer(hub)
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    hub.files = {f"/timm/{VIT}/resolve/main/pytorch_model.bin": buffer.getvalue()}
    network = make("dinov2-s", 3, 224)
    assert torch.equal(network.network.norm.weight, tensors["norm.weight"])
    assert torch.equal(network.network.cls_token, tensors["cls_token"])
    assert models.origins(network) == []


def file_in_cache(tmp_path):
    (file,) = (tmp_path / "hub").rglob("model.safetensors")
    return file


def test_a_short_name_downloads_its_weights_once(hub, tmp_path):
    tensors = offer(hub)
    assert timm_networks.cached() == [] and models.may_download("lite0+dinov2-s")
    first = make("dinov2-s", 3, 224).eval()
    asked = len(hub.requests)
    assert asked and timm_networks.cached() == ["dinov2-s"] and not models.may_download("dinov2-s")
    again = make("dinov2-s", 3, 224).eval()
    assert len(hub.requests) == asked  # nobody is asked where the weights are here
    for network in (first, again):
        own = network.network.state_dict()
        assert all(torch.equal(own[name], tensors[name]) for name in own)
    content = next(iter(hub.files.values()))
    expected = {"repository": f"timm/{VIT}", "revision": COMMIT}
    assert models.origins(first) == [expected | {"sha256": sha256(content).hexdigest()}]


def test_weights_that_have_changed_since_they_were_downloaded_are_refused(hub, tmp_path):
    offer(hub)
    make("dinov2-s", 3, 224)
    file = file_in_cache(tmp_path)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.resolve().write_bytes(content)
    with pytest.raises(
        handful.HandfulError, match="is not the file that was downloaded.* delete it"
    ):
        make("dinov2-s", 3, 224)


def test_a_hub_that_cannot_be_reached_is_said_with_a_remedy(hub):
    hub.server_close()
    with pytest.raises(handful.HandfulError, match="connect to the hub once to cache them"):
        make("dinov2-s", 3, 224)


@pytest.mark.parametrize("size", [20, 96, 160, 225])
def test_a_transformer_takes_images_of_any_size(size):
    network = make("timm:vit_tiny_patch16_224", 1, size, pretrained=False).eval()
    assert network.width == 192
    with torch.inference_mode():
        assert network(torch.zeros(2, 1, size, size)).shape == (2, 192)


def test_positions_of_a_transformer_are_brought_to_the_size(hub):
    offer(hub)
    native, larger = make("dinov2-s", 3, 224), make("dinov2-s", 3, 256)
    assert native.network.pos_embed.shape[1] == 1 + 14**2
    assert larger.network.pos_embed.shape[1] == 1 + 16**2
    own = native.network.pos_embed[:, 1:].mean(), larger.network.pos_embed[:, 1:].mean()
    assert torch.allclose(*own, atol=1e-3)


def test_a_cache_that_has_only_the_old_file_is_enough(hub, tmp_path):
    tensors = offer(hub)
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    hub.files = {f"/timm/{VIT}/resolve/main/pytorch_model.bin": buffer.getvalue()}
    make("dinov2-s", 3, 224)
    with models.asked_for(()):
        network = make("dinov2-s", 3, 224)
    assert torch.equal(network.network.cls_token, tensors["cls_token"])


def test_weights_are_downloaded_only_if_they_were_asked_for(hub):
    offer(hub)
    with (
        models.asked_for(["features", "lite0+lite2"]),
        pytest.raises(handful.HandfulError, match="nobody asked for that; to allow it"),
    ):
        make("dinov2-s", 3, 224)
    assert hub.requests == []
    with models.asked_for(["lite0+dinov2-s"]):
        make("dinov2-s", 3, 224)
    with models.asked_for(()):  # they are here now
        make("dinov2-s", 3, 224)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dinov2-s+small", {}),
        ("small+dinov2-s", {}),
        ("split", {"encoder": "dinov2-s+small"}),
        ("ensemble", {"networks": "lite0", "trained": "dinov2-s+small", "side": 8}),
    ],
)
def test_a_file_of_a_stranger_downloads_nothing(hub, tmp_path, name, options):
    offer(hub)
    run = handful.fit(stripes(), "features", backbone="lite0", size=32, estimate="none")
    path = tmp_path / "model.safetensors"
    save_predictor(run.predictor, path)
    tensors = load_file(path)
    with safe_open(path, "pt") as opened:
        metadata = dict(opened.metadata())
    header = json.loads(metadata["predictor"]) | {"backbone": {"name": name, "options": options}}
    save_file(tensors, path, metadata | {"predictor": json.dumps(header)})
    with pytest.raises(handful.HandfulError):
        load_predictor(path)
    assert hub.requests == []


def test_a_refit_downloads_nothing_that_only_the_earlier_run_names(hub, tmp_path, monkeypatch):
    offer(hub)
    images = stripes()
    handful.fit(
        images, "features", backbone="lite0", size=32, estimate="none", out=tmp_path / "run"
    )
    monkeypatch.setattr(
        "handful.pipeline.fit.with_earlier_options",
        lambda options, *_: replace(options, method="features", backbone="lite0+dinov2-s"),
    )
    with pytest.raises(handful.HandfulError, match="nobody asked for that"):
        handful.fit(images, after=tmp_path / "run", out=tmp_path / "next", size=32)
    assert hub.requests == []


@pytest.mark.parametrize("name", models.ALIASES)
def test_short_names_stand_for_models_that_timm_has(name):
    import timm

    model, licence = models.ALIASES[name]
    config = timm.get_pretrained_cfg(model)
    assert config.hf_hub_id == f"timm/{model}"
    assert config.license.split("-")[0].lower() == licence.replace("-", " ").split()[0].lower()
    assert models.pretrained(name) and not models.has_graph(name)


@pytest.mark.thorough
@pytest.mark.parametrize("model", [models.ALIASES["dinov3-s"][0], "swin_tiny_patch4_window7_224"])
def test_tensors_that_are_in_no_file_are_made_when_a_run_is_opened(tmp_path, monkeypatch, model):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    network = make(f"timm:{model}", 3, 224, pretrained=False)
    assert {*dict(network.named_buffers())} - {*network.state_dict()}
    classifier = Classifier(network, 2, Normalize([0.5] * 3, [0.5] * 3)).eval()
    spec = BackboneSpec(f"timm:{model}", {})
    predictor = Predictor(classifier, spec, ("a", "b"), 224, 3)
    save_predictor(predictor, tmp_path / "model.safetensors")
    pixels = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        again = load_predictor(tmp_path / "model.safetensors").model(pixels)
        assert torch.equal(again, classifier(pixels))


def test_a_package_wins_over_the_hub(monkeypatch):
    monkeypatch.setattr(models.packaged, "names", lambda: ["dinov2-s"])
    assert not models.of_timm("dinov2-s") and models.of_packages() == ["dinov2-s"]


@pytest.mark.thorough
def test_a_run_with_a_network_of_the_hub_is_saved_opened_and_fitted_again(hub, tmp_path):
    offer(hub)
    images = stripes(channels=3)
    run = handful.fit(images, "features", backbone="dinov2-s", size=40, out=tmp_path / "run")
    assert run.record["backbone"]["origins"][0]["revision"] == COMMIT
    asked = len(hub.requests)
    again = handful.open_run(tmp_path / "run")
    assert again.predict(images).labels == run.predict(images).labels
    handful.fit(images, after=tmp_path / "run", out=tmp_path / "next")
    assert len(hub.requests) == asked
    file_in_cache(tmp_path).unlink()
    assert again.predict(images).labels == run.predict(images).labels
    with pytest.raises(handful.HandfulError, match="to allow that, give --backbone dinov2-s"):
        handful.fit(images, after=tmp_path / "run", out=tmp_path / "third")


@pytest.mark.thorough
def test_auto_tries_a_network_whose_weights_were_downloaded_before(hub, tmp_path, monkeypatch):
    offer(hub)
    make("dinov2-s", 3, 224)
    asked = len(hub.requests)
    monkeypatch.setattr(race, "_PACKAGE_SHARE", 1.0)
    run = handful.fit(stripes(60, labeled=30, channels=3, size=32), "auto", budget=60, size=32)
    rows = [(row["method"], row["backbone"]) for row in run.record["choice"]]
    assert ("features", "dinov2-s") in rows[:2] and len(hub.requests) == asked
