"""Backbones: networks that turn images into features, without a head.

Every class takes `(channels, size, **options)`, has `width` (D, the number of features), and maps
normalised images (N, C, size, size) to (N, D). Options are keyword-only with defaults.

Optional attributes:
    mean, std: constants per channel that its images are normalised by.
    input_size, interpolation: of the images that a pre-trained backbone was trained on.
    head_bias: False for a head without bias.
    maps(images), of_maps(maps): the output of its first layers, and features of that; together
        they are the backbone. `after_maps` are the layers of the second one.
    layers_above: by name of a parameter, how many layers lie above its own, the head among them.
    init_from_data(images): initialises it before training from normalised (N, C, size, size).
"""

import hashlib
import inspect
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from handful import seeds
from handful.errors import HandfulError
from handful.models import packaged, timm_networks
from handful.models.ensemble import ENSEMBLE, Ensemble
from handful.models.fast import Fast
from handful.models.imagenet import Lite, Lite0, Lite1, Lite2
from handful.models.joined import SIGN, Joined
from handful.models.packaged import Packaged
from handful.models.published import (
    CNN,
    MLP,
    BasicEncoder,
    CifarCNN,
    ComplexEncoder,
    DeepCNN,
    ResNetEncoder,
    SimpleCNN,
    SmallDecoder,
    SmallEncoder,
)
from handful.models.resnet import ResNet18
from handful.models.small import Small
from handful.models.split import Split
from handful.models.timm_networks import ALIASES, Timm
from handful.text import did_you_mean

__all__ = [
    "ALIASES",
    "BACKBONES",
    "asked_for",
    "beside_ours",
    "ENSEMBLE",
    "SIGN",
    "SmallDecoder",
    "SmallEncoder",
    "check_name",
    "full_name",
    "fingerprint",
    "has_graph",
    "make",
    "of_packages",
    "of_timm",
    "origins",
    "may_download",
    "pretrained",
    "multi_stage",
]

BACKBONES: dict[str, type[nn.Module]] = {
    "small": Small,
    "fast": Fast,
    "lite0": Lite0,
    "lite1": Lite1,
    "lite2": Lite2,
    "mlp": MLP,
    "cnn": CNN,
    "simple-cnn": SimpleCNN,
    "deep-cnn": DeepCNN,
    "cifar-cnn": CifarCNN,
    "resnet18": ResNet18,
    "basic-encoder": BasicEncoder,
    "resnet-encoder": ResNetEncoder,
    "complex-encoder": ComplexEncoder,
    "small-encoder": SmallEncoder,
    "split": Split,
}
_TIMM = "timm:"


def full_name(name: str, options: Mapping[str, Any]) -> str:
    """The name of a backbone; of an ensemble the names of its networks, joined by "+"."""
    if name != ENSEMBLE:
        return name
    names = [options.get("networks", ""), options.get("trained", "")]
    if other := options.get("other"):
        names.append(other.get("trained", ""))
    return SIGN.join(map(str, names))


def pretrained(name: str) -> bool:
    """Whether backbone `name` has weights learned on other images; of several, whether all have."""
    return all(multi_stage(one) or of_timm(one) or _of_package(one) for one in name.split(SIGN))


def installed(name: str) -> bool:
    """Whether the weights of backbone `name` are on this machine, without a hub."""
    kinds = [BACKBONES.get(one) for one in name.split(SIGN)]
    return all(kind is not None and issubclass(kind, Lite) and kind.installed() for kind in kinds)


def of_packages() -> list[str]:
    """Names of the backbones that installed packages bring, sorted."""
    return [name for name in packaged.names() if _of_package(name)]


def of_timm(name: str) -> bool:
    """Whether the weights of backbone `name` are on the hub: a name of ALIASES, or timm:MODEL."""
    return name.startswith(_TIMM) or (name in ALIASES and not _of_package(name))


def beside_ours() -> list[str]:
    """Names of backbones whose weights others put on this machine.

    They are those of installed packages, and those of ALIASES that were downloaded before.
    """
    return [*of_packages(), *(name for name in timm_networks.cached() if of_timm(name))]


def may_download(name: str) -> bool:
    """Whether the weights of backbone `name`, or of one of several, may have to be downloaded."""
    return any(of_timm(one) and one not in timm_networks.cached() for one in name.split(SIGN))


def asked_for(names: Iterable[str]) -> AbstractContextManager[None]:
    """A context in which weights are downloaded only if one of `names` is of a network of the hub.

    Args:
        names: what the user typed: names of backbones, and other words.
    """
    typed = any(of_timm(one) for name in names for one in name.split(SIGN))
    return nullcontext() if typed else timm_networks.no_downloads()


def origins(backbone: nn.Module) -> list[dict[str, str]]:
    """Where the downloaded weights in a backbone came from: see `Timm`; empty for others."""
    return [one.origin for one in backbone.modules() if isinstance(one, Timm) and one.origin]


def multi_stage(name: str) -> bool:
    """Whether backbone `name` has the option `stages`, for features of earlier stages too.

    Of several networks side by side, one that has it is enough.
    """
    return any(issubclass(BACKBONES.get(one, nn.Module), Lite) for one in name.split(SIGN))


def has_graph(name: str) -> bool:
    """Whether ONNX Runtime may compute backbone `name`; of several, whether it may compute all."""
    return all(issubclass(BACKBONES.get(one, nn.Module), Lite) for one in name.split(SIGN))


def has_maps(name: str) -> bool:
    """Whether backbone `name` has `maps`, so that its last layers can be trained alone."""
    return hasattr(BACKBONES.get(name, nn.Module), "of_maps")


def mirrors(name: str) -> bool:
    """Whether backbone `name` has the option `mirrored`, for features of the mirror image too."""
    return "mirrored" in _options(BACKBONES.get(name, nn.Module))


def make(name: str, channels: int, size: int, **options: Any) -> nn.Module:
    """The backbone `name` for images of `channels` x `size` x `size`.

    Args:
        name: a key of `BACKBONES`, a network of an installed package (see `packaged`), a key of
            `ALIASES`, or `timm:` and the name of any timm model; pre-trained networks side by side
            are joined by "+", as in lite0+lite1.
        channels: 1 for grey images, 3 for colour.
        options: the backbone's own, such as `dropout` of `cifar-cnn`.

    Raises:
        HandfulError: there is no such backbone, or it has no such option.
    """
    backbone: Any
    ensemble = name == ENSEMBLE and bool(options)  # made of classifiers; users do not name it
    if not ensemble:
        check_name(name)
    if ensemble:
        backbone = Ensemble
    elif SIGN in name:
        backbone, options = Joined, {"networks": tuple(name.split(SIGN)), **options}
    elif of_timm(name):
        model = ALIASES[name][0] if name in ALIASES else name.removeprefix(_TIMM)
        backbone, options = Timm, {"model": model, **options}
    else:
        backbone = BACKBONES.get(name, Packaged)
        if backbone is Packaged:
            options = {"package": name, **options}
    if channels not in (1, 2, 3):
        raise HandfulError(
            f"channels is 1 (grey), 3 (colour), or 2 for a pair of Lab channels; got {channels}"
        )
    if size < 1:
        raise HandfulError(f"size is the side of the images in pixels, 1 or more, got {size}")
    known = _options(backbone)
    unknown = [option for option in options if option not in known]
    if unknown:
        takes = ", ".join(known) if known else "none"
        raise HandfulError(
            f"backbone {name!r} has no option {unknown[0]!r}."
            f"{did_you_mean(unknown[0], known)} Its options: {takes}"
        )
    with seeds.own_turn():
        made: nn.Module = backbone(channels, size, **options)
    return made


def check_name(name: str) -> None:
    """Raise HandfulError if there is no backbone of this name."""
    for one in name.split(SIGN):
        if one not in BACKBONES and not of_timm(one) and not _of_package(one):
            known = [*BACKBONES, *packaged.names(), *ALIASES]
            raise HandfulError(
                f"no backbone {one!r}.{did_you_mean(one, known)} "
                f"Backbones: {', '.join(known)}, {_TIMM}MODEL for any model of timm, or one that a "
                f"package brings: install that package"
            )


def _of_package(name: str) -> bool:
    """Whether an installed package brings the network; a name of ours is never taken from one."""
    return name not in BACKBONES and name in packaged.names()


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over the names, shapes and values of all weights and buffers.

    Two modules of one class with equal fingerprints compute equal results.
    """
    return hash_of(module.state_dict().items())


def hash_of(tensors: Iterable[tuple[str, Tensor]], before: bytes = b"") -> str:
    """SHA-256 over `before` and the names, types, shapes and values of tensors, in order."""
    digest = hashlib.sha256(before)
    for name, tensor in tensors:
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def _options(backbone: Any) -> list[str]:
    parameters = inspect.signature(backbone).parameters.values()
    return [one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY]
