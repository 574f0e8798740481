"""Networks of timm whose weights are on the Hugging Face hub.

The weights are downloaded once, and kept in the cache of the hub's own client. timm takes seconds
to import, so it is imported when a network of its own is made.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from handful.errors import HandfulError
from handful.models.imagenet import three_channels
from handful.text import did_you_mean

# Short names of networks that are good where labels are few, with the model of timm and its
# licence. What a name stands for never changes, since saved runs hold it.
ALIASES: dict[str, tuple[str, str]] = {
    "dinov2-s": ("vit_small_patch14_dinov2.lvd142m", "Apache-2.0"),
    "dinov3-s": ("vit_small_patch16_dinov3.lvd1689m", "DINOv3 License"),
    "siglip2-b": ("vit_base_patch16_siglip_224.v2_webli", "Apache-2.0"),
}
_FILE = "model.safetensors"  # the weights of a model in its repository
_OLD_FILE = "pytorch_model.bin"  # the same where it has no such file; timm reads it
_SHA256 = re.compile(r"[0-9a-f]{64}")
_downloads: ContextVar[bool] = ContextVar("downloads", default=True)


@contextmanager
def no_downloads() -> Iterator[None]:
    """Within it, weights that are not on this machine are an error."""
    before = _downloads.set(False)
    try:
        yield
    finally:
        _downloads.reset(before)


class Timm(nn.Module):
    """Any model of timm by name, without its head: (N, C, size, size) -> (N, D).

    Grey images are repeated to three channels.

    Args:
        model: timm's name, such as `resnet18` or `vit_small_patch16_224.augreg_in1k`.
        pretrained: True reads the weights from the cache of the hub's client, and downloads them
            where they are not there; False leaves random weights, where others are loaded
            afterwards.

    Attributes:
        origin: where the weights came from: `repository`, `revision` and `sha256` of the file;
            empty where that is not known.

    Raises:
        HandfulError: timm has no such model, its weights cannot be downloaded or must not be
            (`no_downloads`), or their file is not the one that was downloaded.
    """

    def __init__(self, channels: int, size: int, *, model: str, pretrained: bool = True) -> None:
        super().__init__()
        import timm

        if not timm.is_model(model):
            hint = did_you_mean(model.split(".")[0], timm.list_models(), most=3)
            raise HandfulError(f"timm {timm.__version__} has no model {model!r}.{hint}")
        self.origin: dict[str, str] = {}
        try:
            config = timm.get_pretrained_cfg(model)
            made: dict[str, Any] = {"img_size": size} if config and config.fixed_input_size else {}
            if pretrained and (file := _file(model, str((config and config.hf_hub_id) or ""))):
                self.origin = _checked(file)
                made["pretrained_cfg_overlay"] = {"file": str(file), "custom_load": False}
            self.network = timm.create_model(model, pretrained=pretrained, num_classes=0, **made)
        except HandfulError:
            raise
        except Exception as error:  # the hub's client, the network and the disk raise many types
            if not pretrained:
                raise
            raise HandfulError(
                f"the weights of timm:{model} could not be loaded ({type(error).__name__}: "
                f"{_first_line(error)}); connect to the hub once to cache them, or use backbone "
                f"'lite0', whose weights are installed with handful"
            ) from error
        expects: Any = self.network.pretrained_cfg
        self.mean, self.std = tuple(expects["mean"]), tuple(expects["std"])
        self.input_size: int = expects["input_size"][-1]
        self.interpolation: str = expects["interpolation"]
        self.width = _width(self.network, size)

    @property
    def layers_above(self) -> dict[str, int]:
        return layers_above(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(three_channels(images))


def layers_above(backbone: nn.Module) -> dict[str, int]:
    """By name of a parameter, how many layers lie above its own, the head among them.

    The layers are those by which timm's `param_groups_layer_decay` groups the model with a head.

    Args:
        backbone: has a model of timm without its head in `network`.

    Raises:
        HandfulError: timm does not say the layers of this model.
    """
    from timm.models import group_parameters

    network: Any = backbone.network
    if not hasattr(network, "group_matcher"):
        raise HandfulError(
            f"timm does not say the layers of its {type(network).__name__}; train it with "
            f"layer_decay=1"
        )
    # A head is named, too: what belongs to no layer, as some norms before it, is grouped with it.
    head = network.pretrained_cfg.get("classifier") or "head"
    named = [*network.named_parameters(), (head if isinstance(head, str) else head[0], None)]
    with_head: Any = SimpleNamespace(named_parameters=lambda: named)
    layers = group_parameters(with_head, network.group_matcher(coarse=False), reverse=True)
    highest = max(layers.values())
    return {f"network.{name}": highest - layers[name] for name, _ in network.named_parameters()}


def cached() -> list[str]:
    """Those of ALIASES whose weights are on this machine, in their order. Nothing is downloaded."""
    return [name for name, (model, _) in ALIASES.items() if _in_cache(f"timm/{model}", _FILE)]


def _in_cache(repository: str, file: str) -> Path | None:
    """A file of a repository in the cache of the hub's client, if it is there."""
    from huggingface_hub import constants  # the rest of the client takes longer to import

    folder = f"models--{repository.replace('/', '--')}"
    if not (Path(constants.HF_HUB_CACHE) / folder).is_dir():
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else None


def _file(model: str, repository: str) -> Path | None:
    """The file with the weights of a model, from the cache or else the hub.

    Returns:
        None where the repository has no such file, or timm knows no repository: timm is then left
        to find the weights.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    known = [_in_cache(repository, name) for name in (_FILE, _OLD_FILE)] if repository else [None]
    if not any(known) and not _downloads.get():
        raise HandfulError(
            f"the weights of timm:{model} would have to be downloaded, and nobody asked for that; "
            f"to allow it, give the network's name with --backbone"
        )
    if any(known) or not repository:
        return known[0]
    try:
        return Path(hf_hub_download(repository, _FILE))
    except LocalEntryNotFoundError:  # the hub is out of reach
        raise
    except EntryNotFoundError:
        return None


def _checked(file: Path) -> dict[str, str]:
    """Return `origin` of a file in the hub's cache.

    The cache names files by the SHA-256 that the hub gave, and links to them, where the disk can.

    Raises:
        HandfulError: the file has another one.
    """
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    said = file.resolve().name
    if _SHA256.fullmatch(said) and said != found:
        raise HandfulError(
            f"{file} is not the file that was downloaded (SHA-256 {found}); delete it, so that it "
            f"is downloaded again"
        )
    repository = file.parents[2].name.removeprefix("models--").replace("--", "/")
    return {"repository": repository, "revision": file.parent.name, "sha256": found}


def _width(network: nn.Module, size: int) -> int:
    """The number of features of `network`, found by a forward pass on zeros."""
    training = network.training
    with torch.inference_mode():
        width = network.eval()(torch.zeros(1, 3, size, size)).shape[1]
    network.train(training)
    return width


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]
