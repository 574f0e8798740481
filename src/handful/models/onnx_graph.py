"""Convert a predictor to an ONNX model: uint8 images in, calibrated probabilities out.

Features in int8 come from the graph that computes them for handful itself (`onnx_features`); torch
exports all else.

Letters in shapes: N images, K classes, C channels, S the side in pixels, D features.
"""

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from handful import devices
from handful.models.classifier import Predictor
from handful.models.engine import INT8
from handful.models.fast_conv import use_plain_backward
from handful.onnx_runtime import DISTANCES, IMAGES, PROBABILITIES

_EXAMPLE = 2  # images that it is traced with: a batch of 1 would be taken for a constant


class Answer(nn.Module):
    """What comes after the features of a predictor.

    Features of a frozen network are rounded to float16, as in the cache where its head was fitted.
    """

    def __init__(self, predictor: Predictor, distances: nn.Module | None) -> None:
        super().__init__()
        self.head, self.distances = copy.deepcopy(predictor.model.head).to("cpu"), distances
        self.temperature, self.frozen = predictor.temperature, predictor.frozen

    def forward(self, features: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(N, D) → (N, K) probabilities, and (N,) distances where they are wanted."""
        if self.frozen:
            features = features.half().float()
        probabilities = (self.head(features) / self.temperature).softmax(dim=1)
        if self.distances is None:
            return probabilities
        return probabilities, self.distances(features)


class Exported(nn.Module):
    """A predictor with all that comes before and after its network."""

    def __init__(self, predictor: Predictor, distances: nn.Module | None) -> None:
        super().__init__()
        network = copy.deepcopy(predictor.model)
        use_plain_backward(network)
        # torch's stubs do not know this argument
        network.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.network, self.answer = network, Answer(predictor, distances)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(N, C, S, S) uint8 → (N, K) probabilities, and (N,) distances where they are wanted."""
        return self.answer(self.network.features(images.float() / 255))


class OfMeans(nn.Module):
    """A predictor from the means over pixels that its Lite networks give on."""

    def __init__(self, predictor: Predictor, distances: nn.Module | None) -> None:
        super().__init__()
        network = copy.deepcopy(predictor.model).to("cpu")
        self.network, self.answer = network, Answer(predictor, distances)

    def forward(self, means: list[Tensor], images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(N, D_i) of these networks, and (N, C, S, S) uint8 → what `Exported` returns."""
        return self.answer(self.network.of_means(means, images))


def convert(
    predictor: Predictor,
    metadata: Mapping[str, str],
    distances: nn.Module | None = None,
    *,
    elsewhere: bool = True,
) -> bytes:
    """The ONNX model of a predictor, for batches of any size.

    Args:
        metadata: texts that the model carries.
        distances: maps (N, D) features to (N,) distances, a second output.
        elsewhere: the model has the same answers on any processor. Else, in int8, it is as fast as
            this one can be, and the sums of another may overflow.
    """
    names = [PROBABILITIES] + ([] if distances is None else [DISTANCES])
    if predictor.precision == INT8:
        signed = not elsewhere and devices.has_fast_int8()
        model = _in_int8(predictor, distances, names, signed)
    else:
        shape = (_EXAMPLE, predictor.channels, predictor.size, predictor.size)
        own = torch.Generator().manual_seed(0)
        example = torch.randint(0, 256, shape, dtype=torch.uint8, generator=own)
        dynamic = {"images": {0: torch.export.Dim("batch", min=1)}}
        model = _traced(Exported(predictor, distances), (example,), [IMAGES], names, dynamic)
    for key, text in metadata.items():
        model.metadata_props.add(key=key, value=text)
    return model.SerializeToString(deterministic=True)


def _traced(
    module: nn.Module, example: Any, inputs: Sequence[str], outputs: Sequence[str], dynamic: Any
) -> Any:
    """The ONNX model of a module, without notes on its source."""
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=dynamic,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _forget_source(model)
    del model.metadata_props[:]
    return model


def _in_int8(
    predictor: Predictor, distances: nn.Module | None, outputs: Sequence[str], signed: bool
) -> Any:
    """The model whose features are those in int8: the graphs of the networks, then the head."""
    from onnx import TensorProto, helper

    batch = torch.export.Dim("batch", min=1)
    example = [torch.rand(_EXAMPLE, width) for width in predictor.model.widths_of_means()]
    names = [f"mean{at}" for at in range(len(example))]
    side = predictor.size
    images = torch.zeros(_EXAMPLE, predictor.channels, side, side, dtype=torch.uint8)
    dynamic = {"means": [{0: batch} for _ in example], "images": {0: batch}}
    module, inputs = OfMeans(predictor, distances), [*names, IMAGES]
    model = _traced(module, (example, images), inputs, outputs, dynamic)
    graph = model.graph
    colour, nodes, constants = IMAGES, [], []
    if predictor.channels == 1:
        colour = "colour"
        nodes.append(helper.make_node("Concat", [IMAGES] * 3, [colour], axis=1))
    for made in predictor.model.layers_in_int8(names, colour, signed):
        nodes += made.nodes
        constants += made.constants
    nodes += graph.node
    for part in (graph.node, graph.input, graph.value_info):
        del part[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    shape: Sequence[str | int] = ["batch", predictor.channels, side, side]
    graph.input.append(helper.make_tensor_value_info(IMAGES, TensorProto.UINT8, shape))
    return model


def _forget_source(model: Any) -> None:
    """Remove what the exporter notes of the source: paths of this machine, and half the size."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    for function in model.functions:
        for part in (function, *function.node, *function.value_info):
            del part.metadata_props[:]
            part.doc_string = ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks, which are for who writes networks."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
