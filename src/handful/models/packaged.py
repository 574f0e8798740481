"""Pre-trained networks that installed packages bring, found by entry points.

A package names them in the group `handful.backbones`; the entry point is a mapping that `Weights`
describes. Nothing of handful is imported by the package, and nothing of the package is imported
before its network is asked for. scripts/make_backbone_package.py makes such a package of a timm
model.
"""

import hashlib
import os
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from handful.errors import HandfulError
from handful.models.imagenet import three_channels
from handful.models.timm_networks import layers_above

GROUP = "handful.backbones"

_Share = Annotated[float, Field(ge=0, le=1)]
_Deviation = Annotated[float, Field(gt=0, le=1)]


class Weights(BaseModel):
    """What a package says of a network.

    Attributes:
        architecture: timm's name of the network, without its weights.
        file: absolute path of a safetensors file with timm's names of tensors, without a head.
        sha256: of the file.
        input_size: side in pixels of the images it was trained on.
        mean, std: constants per channel that its images are normalised by.
        licence, source: of the weights, in words.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    architecture: Annotated[str, Field(pattern=r"^[\w.]{1,100}$")]
    file: Path
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    input_size: Annotated[int, Field(ge=8, le=1024)]
    mean: tuple[_Share, _Share, _Share]
    std: tuple[_Deviation, _Deviation, _Deviation]
    interpolation: str = "bicubic"
    licence: str
    source: str


def names() -> list[str]:
    """Names of the networks that installed packages bring, sorted."""
    return sorted(_found())


@cache
def _found() -> dict[str, EntryPoint]:
    return {one.name: one for one in entry_points(group=GROUP)}


@cache
def weights(name: str) -> Weights:
    """What the package says of its network `name`.

    Raises:
        HandfulError: the package cannot be imported, or says something else.
    """
    entry = _found()[name]
    package = entry.dist.name if entry.dist is not None else entry.value
    try:
        said: Mapping[str, Any] = entry.load()
        return Weights.model_validate(dict(said))
    except ValidationError as error:
        first = error.errors()[0]
        what = ".".join(map(str, first["loc"]))
        why = f"{what}: {first['msg']}"
    except Exception as error:  # code of another package
        why = f"{type(error).__name__}: {error}"
    raise HandfulError(
        f"backbone {name!r} of the installed package {package} cannot be used ({why}); install "
        f"another version of it, or use backbone 'lite0'"
    )


class Packaged(nn.Module):
    """A network of timm with the weights of an installed package: (N, C, size, size) -> (N, D).

    A transformer takes images whose side is a multiple of its patches. Others are brought to the
    nearest one, and its position embeddings to that size.

    Args:
        package: the network's name among the entry points.
        pretrained: False for random weights, where others are loaded afterwards.

    Raises:
        HandfulError: the file is missing or is not the one that the package describes.
    """

    def __init__(self, channels: int, size: int, *, package: str, pretrained: bool = True) -> None:
        super().__init__()
        import timm

        said = weights(package)
        if not timm.is_model(said.architecture):
            raise HandfulError(
                f"backbone {package!r} is timm's {said.architecture!r}, which timm "
                f"{timm.__version__} does not have; install another version of timm"
            )
        config = timm.get_pretrained_cfg(said.architecture)
        fixed = bool(config and config.fixed_input_size)
        self.side = size
        made: dict[str, Any] = {}
        if fixed:
            made["img_size"] = said.input_size
        network: Any = timm.create_model(said.architecture, pretrained=False, num_classes=0, **made)
        if pretrained:
            _load(network, package, said)
        if fixed:
            if not hasattr(network, "patch_embed") or not hasattr(network, "set_input_size"):
                raise HandfulError(
                    f"backbone {package!r} takes images of {said.input_size} pixels only, and "
                    f"cannot be used; take another network of timm"
                )
            patch = network.patch_embed.patch_size[0]
            self.side = max(1, int(size / patch + 0.5)) * patch
            network.set_input_size(img_size=(self.side, self.side))
        self.network = network
        self.mean, self.std = said.mean, said.std
        self.input_size, self.interpolation = said.input_size, said.interpolation
        self.width = int(network.num_features)

    @property
    def layers_above(self) -> dict[str, int]:
        return layers_above(self)

    def forward(self, images: Tensor) -> Tensor:
        images = three_channels(images)
        if images.shape[-1] != self.side:
            images = F.interpolate(images, (self.side, self.side), mode="bilinear")
        return self.network(images)

    def extra_repr(self) -> str:
        return f"side={self.side}"


def _load(network: nn.Module, name: str, said: Weights) -> None:
    """Load the tensors of the package's file into the network."""
    try:
        at = os.stat(said.file)
        tensors = _tensors(said.file, at.st_size, at.st_mtime_ns, said.sha256, name)
        network.load_state_dict(tensors)
    except OSError as error:
        why = error.strerror or str(error)
    except (SafetensorError, RuntimeError) as error:
        why = str(error).strip().splitlines()[0]
    else:
        return
    raise HandfulError(
        f"the weights of backbone {name!r} cannot be read from {said.file} ({why}); install its "
        f"package again"
    )


@cache
def _tensors(file: Path, size: int, changed: int, expected: str, name: str) -> dict[str, Tensor]:
    """The tensors of a file, cached for each size and time of change (nanoseconds)."""
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise HandfulError(
            f"{file} is not the weights of backbone {name!r} (SHA-256 {found}, expected "
            f"{expected}); install its package again"
        )
    tensors: dict[str, Tensor] = load(content)
    return tensors
