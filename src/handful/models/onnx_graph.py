"""Convert a predictor to an ONNX model: uint8 images in, calibrated probabilities out.

Letters in shapes: N images, K classes, C channels, S the side in pixels, D features.
"""

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from handful.models.classifier import Predictor
from handful.models.fast_conv import use_plain_backward
from handful.onnx_runtime import DISTANCES, IMAGES, PROBABILITIES

_EXAMPLE = 2  # images that it is traced with: a batch of 1 would be taken for a constant


class Exported(nn.Module):
    """A predictor with all that comes before and after its network.

    Features of a frozen network are rounded to float16, as in the cache where its head was fitted.
    """

    def __init__(self, predictor: Predictor, distances: nn.Module | None) -> None:
        super().__init__()
        network = copy.deepcopy(predictor.model)
        use_plain_backward(network)
        # torch's stubs do not know this argument
        network.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        self.network, self.distances = network, distances
        self.temperature, self.frozen = predictor.temperature, predictor.frozen

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(N, C, S, S) uint8 → (N, K) probabilities, and (N,) distances where they are wanted."""
        features = self.network.features(images.float() / 255)
        if self.frozen:
            features = features.half().float()
        probabilities = (self.network.head(features) / self.temperature).softmax(dim=1)
        if self.distances is None:
            return probabilities
        return probabilities, self.distances(features)


def convert(
    predictor: Predictor, metadata: Mapping[str, str], distances: nn.Module | None = None
) -> bytes:
    """The ONNX model of a predictor, for batches of any size.

    Args:
        metadata: texts that the model carries.
        distances: maps (N, D) features to (N,) distances, a second output.
    """
    whole = Exported(predictor, distances).eval()
    shape = (_EXAMPLE, predictor.channels, predictor.size, predictor.size)
    own = torch.Generator().manual_seed(0)
    example = torch.randint(0, 256, shape, dtype=torch.uint8, generator=own)
    names = [PROBABILITIES] + ([] if distances is None else [DISTANCES])
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            whole,
            (example,),
            dynamo=True,
            input_names=[IMAGES],
            output_names=names,
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _forget_source(model)
    del model.metadata_props[:]
    for key, text in metadata.items():
        model.metadata_props.add(key=key, value=text)
    return model.SerializeToString(deterministic=True)


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
