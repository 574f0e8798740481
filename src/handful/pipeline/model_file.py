"""Read and write model.safetensors: weights, and a header from which the network is rebuilt."""

import json
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from handful import models
from handful._version import __version__
from handful.data.decoding.value_range import FULL, Scale, from_json
from handful.errors import HandfulError
from handful.files import is_finite, parse_json, read_tensors, write_tensors
from handful.methods.mlp_head import make_head
from handful.models.classifier import BackboneSpec, Classifier, Normalize, Predictor
from handful.models.engine import INT8
from handful.pipeline.record_schema import LARGEST_SIDE, PredictorHeader, checked

# Heads are rebuilt from these layers only: nothing that a file names is imported.
LAYERS: dict[str, type[nn.Module]] = {
    layer.__name__: layer
    for layer in (
        nn.Linear, nn.Identity, nn.Flatten, nn.Dropout, nn.LayerNorm, nn.BatchNorm1d,
        nn.ReLU, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.Softplus,
    )
}  # fmt: skip
# Constructor arguments of each layer; attributes of the layer have equal names.
_ARGUMENTS = {
    "Linear": ("in_features", "out_features"),
    "Flatten": ("start_dim", "end_dim"),
    "Dropout": ("p",),
    "LayerNorm": ("normalized_shape", "eps", "elementwise_affine"),
    "BatchNorm1d": ("num_features", "eps", "momentum", "affine", "track_running_stats"),
    "GELU": ("approximate",),
    "ELU": ("alpha",),
    "LeakyReLU": ("negative_slope",),
    "Softplus": ("beta", "threshold"),
}
_WIDEST = 1_000_000  # inputs or outputs of a layer in a head


def save_predictor(predictor: Predictor, path: Path) -> None:
    """Write the weights, and a header that describes the network."""
    described: dict[str, Any] = {
        "backbone": asdict(predictor.backbone),
        "classes": predictor.classes,
        "size": predictor.size,
        "channels": predictor.channels,
        "fit": predictor.aspect,
        "precision": predictor.precision,
        "temperature": predictor.temperature,
        "frozen": predictor.frozen,
        "value_range": predictor.value_range,
    }
    head = describe_head(predictor.model.head)
    if not _is_usual(head, predictor.model.backbone):
        described["head"] = head
    metadata = {"handful": __version__, "predictor": json.dumps(described)}
    write_tensors(path, predictor.model.state_dict(), metadata)


def load_predictor(path: Path) -> Predictor:
    """Return the predictor in a file written by `save_predictor`; HandfulError for other files.

    The network is first built without memory for weights: a tensor is read only where its shape
    is that of the network.
    """
    built: list[tuple[Classifier, dict[str, Any]]] = []

    def check(shapes: dict[str, tuple[int, ...]], metadata: dict[str, str]) -> None:
        if "predictor" not in metadata:
            raise HandfulError(
                f"{path} was not written by handful; give the folder that `handful fit` left"
            )
        header = checked(PredictorHeader, parse_json(metadata["predictor"], path), path)
        try:
            model = _build_on_meta(header, shapes)
        except (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError) as error:
            raise _not_as_described(path, str(error)) from None
        expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        if wrong := sorted(set(expected.items()) ^ set(shapes.items())):
            raise _not_as_described(path, f"the shape of {wrong[0][0]} is wrong")
        built.append((model, header))

    tensors, _ = read_tensors(path, check)
    ((model, header),) = built
    for name, tensor in tensors.items():
        if not is_finite(tensor):
            raise HandfulError(
                f"the weights in {path} hold values that are not finite ({name}); restore it or "
                f"fit again"
            )
    own = model.state_dict()
    if wrong_type := [k for k, v in tensors.items() if v.dtype != own[k].dtype]:
        raise _not_as_described(path, f"{wrong_type[0]} is of another type")
    model.load_state_dict(tensors, assign=True)
    _make_constants(model, header)
    spec = BackboneSpec(header["backbone"]["name"], header["backbone"].get("options", {}))
    if header.get("precision") == INT8 and not (header.get("frozen") and model.has_graph):
        raise _not_as_described(path, "its features cannot be computed in int8")
    keys = ("precision", "temperature", "frozen")
    rest = {key: header[key] for key in keys if key in header}
    if "fit" in header:
        rest["aspect"] = header["fit"]
    rest["value_range"] = _value_range(header)
    classes, size, channels = tuple(header["classes"]), header["size"], header["channels"]
    return Predictor(model.eval(), spec, classes, size, channels, **rest)


def _value_range(header: dict[str, Any]) -> Scale | None:
    """Return the range of pixel values; older files have none, and use that of the data type."""
    return from_json(header.get("value_range", FULL))


def _not_as_described(path: Path, why: str) -> HandfulError:
    first = (why.splitlines() or ["unknown"])[0][:300]
    return HandfulError(
        f"{path} does not hold the network it describes ({first}); restore it or fit again"
    )


def _make_constants(model: Classifier, header: dict[str, Any]) -> None:
    """Give the network the tensors that follow from its size, such as those of its positions.

    They are in no file. A network that has any is built once more, with memory for weights.
    """
    missing = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if missing:
        name, options = _network_of(header)
        with models.asked_for(()):
            made = models.make(name, header["channels"], header["size"], **options)
        for place in missing:
            of, _, buffer = place.rpartition(".")
            model.get_submodule(of)._buffers[buffer] = made.get_buffer(
                place.removeprefix("backbone.")
            )


class _NoInitialWeights(TorchFunctionMode):
    """Within it, functions of `nn.init` do nothing: on the meta device they would import compilers.

    That took longer than the import of torch.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if getattr(function, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **(kwargs or {}))


def _network_of(header: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name of the backbone and its options, for random weights; HandfulError for a hub's."""
    name, options = header["backbone"]["name"], dict(header["backbone"].get("options", {}))
    ensemble = name == models.ENSEMBLE
    if ensemble or models.pretrained(name):
        options["pretrained"] = False
        every = models.full_name(name, options).split(models.SIGN)
        inner = [one.partition(":")[2] for one in every]
        trained = [one for one in (options, options.get("other")) if one] if ensemble else []
        inner_options = [one.get("options", {}) for one in trained] if ensemble else [options]
        named = {"model", "networks"} & set(chain.from_iterable(inner_options))
        for one in trained:
            if not 1 <= one["side"] <= LARGEST_SIDE:
                raise ValueError(f"side is 1 to {LARGEST_SIDE}, got {one['side']}")
        if any(":" in one or "/" in one for one in inner) or named:
            raise HandfulError(
                f"backbone {name!r} is described on a hub, which is not accessed for a saved run"
            )
    return name, options


def _build_on_meta(header: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Classifier:
    """Build the network on PyTorch's meta device, which takes no memory for weights."""
    name, options = _network_of(header)
    classes = len(header["classes"])
    with torch.device("meta"), _NoInitialWeights(), models.asked_for(()):
        backbone = models.make(name, header["channels"], header["size"], **options)
        constants = [0.0] * int(torch.Size(shapes["normalize.mean"]).numel())
        if len(constants) > 3:
            raise ValueError("normalize.mean has more than three channels")
        model = Classifier(backbone, classes, Normalize(constants, constants))
        if header.get("head"):
            model.head = rebuild_head(header["head"])
        elif "head.0.weight" in shapes:  # of two layers, as versions before 0.2 wrote them
            hidden, width = shapes["head.0.weight"]
            model.head = make_head(width, hidden, classes)
    return model


def _is_usual(head: list[list[Any]], backbone: nn.Module) -> bool:
    """Return whether the head is the one that `Classifier` makes for the backbone."""
    bias = bool(getattr(backbone, "head_bias", True))
    return len(head) == 1 and head[0][0] == "Linear" and head[0][1]["bias"] is bias


def describe_head(head: nn.Module) -> list[list[Any]]:
    """Return [name, arguments] of each layer; HandfulError for layers not in LAYERS."""
    if type(head) is nn.Sequential:
        parts = [describe_head(layer) for layer in head]
        if any(len(part) != 1 for part in parts) or not parts:
            raise _unsupported_head(head)
        return [part[0] for part in parts]
    name = type(head).__name__
    if LAYERS.get(name) is not type(head):
        raise _unsupported_head(head)
    arguments: dict[str, Any] = {key: getattr(head, key) for key in _ARGUMENTS.get(name, ())}
    if "normalized_shape" in arguments:
        arguments["normalized_shape"] = list(arguments["normalized_shape"])
    if name in ("Linear", "LayerNorm"):
        arguments["bias"] = head.bias is not None
    return [[name, arguments]]


def _unsupported_head(head: nn.Module) -> HandfulError:
    return HandfulError(
        f"a head of {type(head).__name__} cannot be saved so that it can be opened again; make it "
        f"one layer, or an nn.Sequential, of {', '.join(LAYERS)}"
    )


def rebuild_head(described: list[Any]) -> nn.Module:
    """Return the head that `describe_head` describes, with new weights; ValueError for others."""
    layers: list[nn.Module] = []
    for name, arguments in described:
        if name not in LAYERS or set(arguments) - {*_ARGUMENTS.get(name, ()), "bias"}:
            raise ValueError(f"no layer {name!r} with {sorted(arguments)}")
        numbers = [n for v in arguments.values() for n in (v if isinstance(v, list) else [v])]
        if any(not isinstance(n, str) and n is not None and abs(n) > _WIDEST for n in numbers):
            raise ValueError(f"a layer {name!r} of that size")
        layers.append(LAYERS[name](**arguments))
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def check_saves(model: nn.Module, backbone: BackboneSpec, size: int, channels: int) -> None:
    """Raise HandfulError unless the network can be rebuilt from its description."""
    if not isinstance(model, Classifier) or type(model).forward is not Classifier.forward:
        raise HandfulError(
            f"the method builds a {type(model).__name__}, which cannot be saved so that it can be "
            f"opened again; return handful.methods.base.classifier(task), which may have a head of "
            f"your own"
        )
    state = model.state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    outputs = 1
    header = {
        "backbone": asdict(backbone),
        "size": size,
        "channels": channels,
        "classes": [""] * outputs,
        "head": describe_head(model.head),
    }
    try:
        again = _build_on_meta(header, shapes).state_dict()
    except (TypeError, ValueError, RuntimeError) as error:
        raise HandfulError(f"the network cannot be rebuilt from its description: {error}") from None
    found = {key: tuple(value.shape) for key, value in again.items()}
    if differing := sorted(set(found.items()) ^ set(shapes.items())):
        raise HandfulError(
            f"the network cannot be rebuilt from its description: {differing[0][0]} is not what "
            f"backbone {backbone.name!r} and the head have; return classifier(task) with a head of "
            f"its own"
        )
