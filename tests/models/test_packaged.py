"""Networks of installed packages: what scripts/make_backbone_package.py makes is found by name."""

import importlib
import runpy
import sys
import tomllib
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import handful
from handful.models import make, packaged, pretrained
from handful.pipeline.auto import race
from tiny import stripes

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_backbone_package.py"
GIVEN = ["--licence", "MIT", "--source", "a test"]


def package(monkeypatch, folder, model, name, *more):
    """Make a package, and install it as pip would; returns the folder of its module."""
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), model, name, str(folder), *GIVEN, *more])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    installed = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    installed.mkdir()
    head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (installed / "METADATA").write_text(head)
    points = project["entry-points"][packaged.GROUP]
    lines = "\n".join(f"{key} = {value}" for key, value in points.items())
    (installed / "entry_points.txt").write_text(f"[{packaged.GROUP}]\n{lines}\n")
    monkeypatch.syspath_prepend(str(folder))
    forget()
    (module,) = (value.split(":")[0] for value in points.values())
    return folder / module


def forget():
    importlib.invalidate_caches()
    for known in (packaged._found, packaged.weights, packaged._tensors):
        known.cache_clear()


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.setenv("HANDFUL_CACHE", str(tmp_path / "cache"))
    before = set(sys.modules)
    forget()
    yield
    for name in set(sys.modules) - before:
        if name.startswith("handful_backbone_"):
            del sys.modules[name]
    forget()


@pytest.fixture
def lite(tmp_path, monkeypatch):
    """A package of the weights of lite0."""
    weights = tmp_path / "lite0.safetensors"
    save_file(make("lite0", 3, 64).network.state_dict(), weights)
    return package(
        monkeypatch, tmp_path / "package", "tf_efficientnet_lite0", "light", "--weights",
        str(weights),
    )  # fmt: skip


def test_a_package_brings_its_network_by_name(lite):
    assert packaged.names() == ["light"]
    said = packaged.weights("light")
    assert (said.architecture, said.licence) == ("tf_efficientnet_lite0", "MIT")
    network, same = make("light", 1, 64).eval(), make("lite0", 1, 64).eval()
    pixels = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(network(pixels), same(pixels))
    assert pretrained("light")


def test_a_package_is_not_imported_before_its_network_is_asked_for(lite):
    assert packaged.names() == ["light"]
    make("lite0", 3, 64)
    assert lite.name not in sys.modules


def test_without_packages_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="no backbone 'light'"):
        make("light", 3, 64)


def test_a_package_never_takes_a_name_of_ours(tmp_path, monkeypatch):
    package(monkeypatch, tmp_path / "package", "resnet10t", "lite0", "--random")
    assert type(make("lite0", 3, 64)).__name__ == "Lite0"


@pytest.mark.parametrize("change", ["other bytes", "gone", "other tensors"])
def test_weights_that_are_not_as_described_are_refused(lite, change):
    file = lite / "weights.safetensors"
    if change == "gone":
        file.unlink()
        why = "cannot be read from .*No such file"
    elif change == "other bytes":
        file.write_bytes(file.read_bytes()[:-1] + b"?")
        why = "is not the weights of backbone 'light'"
    else:
        tensors = load_file(file)
        tensors.pop("bn2.bias")
        save_file(tensors, file)
        module, text = lite / "__init__.py", (lite / "__init__.py").read_text()
        before, after = packaged.weights("light").sha256, sha256(file.read_bytes()).hexdigest()
        module.write_text(text.replace(before, after))
        sys.modules.pop(lite.name)
        forget()
        why = "cannot be read from .*Error.* in loading state_dict"
    with pytest.raises(handful.HandfulError, match=why):
        make("light", 3, 64)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("input_size", "2"), "input_size: .*greater than or equal to 8"),
        (("architecture", '"no_such_net"'), "timm .* does not have"),
        (("std", "[0, 0, 0]"), "std.0: .*greater than 0"),
        (("file", "os.devnull"), "NameError"),
    ],
)
def test_a_package_that_says_what_cannot_be_is_named(lite, change, why):
    key, value = change
    module = lite / "__init__.py"
    module.write_text(module.read_text() + f"\nBACKBONE[{key!r}] = {value}\n")
    with pytest.raises(handful.HandfulError, match=why):
        make("light", 3, 64)


@pytest.mark.parametrize(("size", "side"), [(64, 64), (100, 96), (40, 48), (5, 16)])
def test_a_transformer_takes_images_of_any_size(tmp_path, monkeypatch, size, side):
    package(monkeypatch, tmp_path / "p", "vit_tiny_patch16_224", "vit", "--random")
    network = make("vit", 3, size).eval()
    pixels = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert network(pixels).shape == (2, 192) == (2, network.width)
    assert network.side == side
    assert network.network.pos_embed.shape[1] == (side // 16) ** 2 + 1


@pytest.mark.thorough
@pytest.mark.parametrize("backbone", ["vit", "vit+lite0"])
def test_a_run_with_a_transformer_of_a_package_is_saved_and_opened(tmp_path, monkeypatch, backbone):
    package(monkeypatch, tmp_path / "p", "vit_tiny_patch16_224", "vit", "--random")
    images = stripes()
    run = handful.fit(images, "features", backbone=backbone, size=40, out=tmp_path / "run")
    again = handful.open_run(tmp_path / "run")
    assert again.predict(images).labels == run.predict(images).labels


@pytest.mark.thorough
def test_a_run_whose_package_is_not_installed_says_so(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        package(patched, tmp_path / "p", "resnet10t", "small-net", "--random")
        handful.fit(stripes(), "features", backbone="small-net", size=32, out=tmp_path / "run")
    forget()
    with pytest.raises(handful.HandfulError, match="no backbone 'small-net'"):
        handful.open_run(tmp_path / "run").predict(stripes())


@pytest.mark.parametrize("name", ["../up", "UPPER", ""])
def test_the_script_refuses_names_that_no_package_can_have(tmp_path, monkeypatch, name):
    with pytest.raises(SystemExit, match="NAME has lower-case letters"):
        package(monkeypatch, tmp_path / "p", "resnet10t", name, "--random")


def test_the_script_replaces_no_folder(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="exists"):
        package(monkeypatch, tmp_path, "resnet10t", "net", "--random")


@pytest.mark.thorough
def test_auto_takes_the_network_of_an_installed_package_where_it_is_better(
    lite, tmp_path, monkeypatch
):
    monkeypatch.setattr(race, "_PACKAGE_SHARE", 1.0)
    run = handful.fit(stripes(60, labeled=30, channels=3, size=32), "auto", budget=60, size=32)
    rows = [(row["method"], row["backbone"]) for row in run.record["choice"]]
    assert rows[0][0] == rows[1][0] == "features" and rows[1][1] == packaged.names()[0]
