"""Runs of any network and head without training, for parity: random weights, real statistics."""

from typing import Any

import torch
from torch import nn

from handful.data.decoding.value_range import Scale
from handful.methods.heads import mixed
from handful.methods.mlp_head import make_head
from handful.models import ENSEMBLE
from handful.models.classifier import BackboneSpec, Classifier, Normalize, Predictor
from handful.pipeline.run import Run

HEADS = ("linear", "mlp", "mixed", "norm", "deep")


def made_run(
    backbone: str,
    *,
    head: str = "linear",
    channels: int = 3,
    size: int = 32,
    classes: int = 5,
    aspect: str = "crop",
    frozen: bool = False,
    value_range: Scale | None = None,
    seed: int = 0,
    precision: str = "fp32",
    **options: Any,
) -> Run:
    """A run in memory whose BatchNorm statistics are those of random images."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = BackboneSpec(backbone, options).make(channels, size)
        fixed = ("mean", "std")
        mean, std = (list(getattr(network, key, (0.45, 0.4, 0.5)[:channels])) for key in fixed)
        std = std if hasattr(network, "std") else [0.25] * channels
        length = 3 if backbone.startswith(("lite", "timm", ENSEMBLE)) else channels
        model = Classifier(network, classes, Normalize(mean[:length], std[:length]))
        pixels = torch.rand(16, channels, size, size)
        model.head = _head(head, model, classes)
        _take_statistics(model, pixels)
    names = tuple(f"class {number}" for number in range(classes))
    spec = BackboneSpec(backbone, options)
    predictor = Predictor(
        model.eval(), spec, names, size, channels, aspect, precision, frozen=frozen,
        temperature=0.7, value_range=value_range,
    )  # fmt: skip
    return Run(_record(predictor), predictor)


def _head(kind: str, model: Classifier, classes: int) -> nn.Module:
    width = int(model.backbone.width)  # type: ignore[arg-type]
    if kind == "linear":
        return model.head
    if kind == "mlp":
        return make_head(width, 16, classes)
    if kind == "mixed":
        return mixed(
            nn.Linear(width, classes), nn.Linear(width, classes), torch.randn(9, width), 0.5
        )
    if kind == "norm":
        return nn.Sequential(nn.LayerNorm(width), nn.Dropout(0.5), nn.Linear(width, classes))
    layers = [nn.Linear(width, 8), nn.BatchNorm1d(8)]
    for layer in (nn.ReLU(), nn.GELU(), nn.SiLU(), nn.ELU(), nn.LeakyReLU(), nn.Softplus()):
        layers += [layer, nn.Linear(8, 8)]
    return nn.Sequential(*layers, nn.Tanh(), nn.Sigmoid(), nn.Identity(), nn.Linear(8, classes))


def _take_statistics(model: Classifier, images: torch.Tensor) -> None:
    """Set the statistics of each BatchNorm, and the last layer so that classes differ."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum, module.num_batches_tracked = None, torch.tensor(0)  # cumulative
    model.train()
    with torch.no_grad():
        model(images)
        model.eval()
        logits = model(images)
        last = [layer for layer in model.head.modules() if isinstance(layer, nn.Linear)][-1]
        scale = 2 / logits.std(dim=0).clamp_min(0.04)  # more would amplify rounding
        last.weight.mul_(scale[:, None])
        if last.bias is not None:
            last.bias.copy_((last.bias - logits.mean(dim=0)) * scale)


def _record(predictor: Predictor) -> dict[str, Any]:
    return {
        "handful": "0",
        "data": {"source": "made", "images": 0, "labeled": 0, "unlabeled": 0, "test": 0,
                 "classes": list(predictor.classes), "hash": ""},
        "method": {"name": "made"},
        "backbone": {"name": predictor.backbone.name, "options": {}},
        "estimate": None,
        "test": None,
        "versions": {"torch": torch.__version__},
    }  # fmt: skip
