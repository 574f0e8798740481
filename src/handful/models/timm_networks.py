"""Networks of timm: what they have in common, and those whose weights are on the hub.

The weights of the Hugging Face hub are downloaded once, and kept in the cache of the hub's own
client. timm takes seconds to import, so it is imported when a network of its own is made.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
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
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Resized(nn.Module):
    """A network of timm without its head, for images of any size: (N, C, S, S) -> (N, D).

    Grey images are repeated to three channels. A transformer takes images whose side is a multiple
    of its patches. Others are brought to the nearest one, and its position embeddings to that size.

    Args:
        network: made for images of `side` pixels, with its weights.
        name: of the backbone, for messages.
        side: in pixels, of the images that it was made for.
        fixed: whether it takes images of one size only, which may be changed.
        size: in pixels, of the images to come.

    Raises:
        HandfulError: its size is fixed and cannot be changed.
    """

    def __init__(self, network: Any, name: str, side: int, fixed: bool, size: int) -> None:
        super().__init__()
        patch = network.patch_embed.patch_size[0] if fixed and _has_patches(network) else 1
        self.side = max(1, int(size / patch + 0.5)) * patch
        if fixed and self.side != side:
            if not hasattr(network, "set_input_size"):
                raise HandfulError(
                    f"backbone {name!r} takes images of {side} pixels only; give --size {side}, "
                    f"or take another network of timm"
                )
            network.set_input_size(img_size=(self.side, self.side))
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        images = three_channels(images)
        if images.shape[-1] != self.side:
            images = F.interpolate(images, (self.side, self.side), mode="bilinear")
        return self.network(images)

    def extra_repr(self) -> str:
        return f"side={self.side}"


class Timm(Resized):
    """Any model of timm by name, with weights from the hub: (N, C, S, S) -> (N, D).

    Args:
        model: timm's name, such as `resnet18` or `vit_small_patch16_224.augreg_in1k`.
        pretrained: True reads the weights from the cache of the hub's client, and downloads them
            where they are not there; False leaves random weights, where others are loaded
            afterwards.

    Attributes:
        origin: where the weights came from: `repository`, `revision` and `sha256` of the file, as
            far as they are known; empty without pre-trained weights.

    Raises:
        HandfulError: timm has no such model, its weights cannot be downloaded, or their file is not
            the one that was downloaded.
    """

    def __init__(self, channels: int, size: int, *, model: str, pretrained: bool = True) -> None:
        import timm

        if not timm.is_model(model):
            hint = did_you_mean(model.split(".")[0], timm.list_models(), most=3)
            raise HandfulError(f"timm {timm.__version__} has no model {model!r}.{hint}")
        origin: dict[str, str] = {}
        try:
            made: dict[str, Any] = {"num_classes": 0}
            config = timm.get_pretrained_cfg(model)
            repository = str((config and config.hf_hub_id) or "")
            if pretrained and repository and (file := _file(repository)):
                origin = _checked(file, repository)
                made["pretrained_cfg_overlay"] = {"file": str(file)}
            network: Any = timm.create_model(model, pretrained=pretrained, **made)
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
        expects: Any = network.pretrained_cfg
        side: int = expects["input_size"][-1]
        super().__init__(
            network, f"timm:{model}", side, bool(expects.get("fixed_input_size")), size
        )
        self.origin = origin
        self.mean, self.std = tuple(expects["mean"]), tuple(expects["std"])
        self.input_size, self.interpolation = side, str(expects["interpolation"])
        self.width = _width(self, size)


def cached() -> list[str]:
    """Those of ALIASES whose weights are on this machine, in their order. Nothing is downloaded."""
    return [name for name, (model, _) in ALIASES.items() if _in_cache(f"timm/{model}") is not None]


def _in_cache(repository: str) -> Path | None:
    """The file with the weights in the cache of the hub's client, if it is there."""
    from huggingface_hub import constants  # the rest of the client takes longer to import

    folder = f"models--{repository.replace('/', '--')}"
    if not (Path(constants.HF_HUB_CACHE) / folder).is_dir():
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, _FILE)
    return Path(found) if isinstance(found, str) else None


def _file(repository: str) -> Path | None:
    """The file with the weights, from the cache or else the hub; None if it has no such file."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return _in_cache(repository) or Path(hf_hub_download(repository, _FILE))
    except LocalEntryNotFoundError:  # the hub is out of reach
        raise
    except EntryNotFoundError:
        return None


def _checked(file: Path, repository: str) -> dict[str, str]:
    """Return `origin` of a file in the hub's cache.

    The hub names large files by their SHA-256.

    Raises:
        HandfulError: the file has another one.
    """
    with file.open("rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    said = file.resolve().name
    if _SHA256.fullmatch(said) and said != found:
        raise HandfulError(
            f"{file} is not the file of {repository} that was downloaded (SHA-256 {found}); delete "
            f"it, so that it is downloaded again"
        )
    return {"repository": repository, "revision": file.parent.name, "sha256": found}


def _has_patches(network: Any) -> bool:
    return hasattr(network, "patch_embed") and hasattr(network.patch_embed, "patch_size")


def _width(network: nn.Module, size: int) -> int:
    """The number of features of `network`, found by a forward pass on zeros."""
    training = network.training
    with torch.inference_mode():
        width = network.eval()(torch.zeros(1, 3, size, size)).shape[1]
    network.train(training)
    return width


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]
