"""Make an int8 form of an exported model, and keep it only if it is as accurate.

Letters in shapes: N images, K classes, C channels, S the side in pixels, D features.
"""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handful.data.folds import stratified_folds
from handful.data.imageset import ImageSet
from handful.errors import HandfulError
from handful.exporting.check_images import labels_of, named, unlabeled_names
from handful.methods.linear_head import Features
from handful.models.engine import INT8
from handful.onnx_runtime import IMAGES, OnnxModel
from handful.pipeline.run import Run

CALIBRATED_ON = 100  # images, without a label where there are such
MOST = 1_000  # labelled images that are asked
FEWEST = 20  # labelled images below which the accuracy of int8 is not known
_FOLDS = 5
_PARTS = ((0.0, "all convolutions"), (0.5, "the later half of the convolutions"))


@dataclass(frozen=True)
class Quantized:
    """An int8 model, or the reason why there is none."""

    content: bytes | None
    said: str  # what was found, in a sentence


def quantized(run: Run, content: bytes, given: ImageSet | None) -> Quantized:
    """The int8 form of a model, if its accuracy falls by less than the standard error of it.

    First all convolutions are made int8, then, if that costs too much, the later half of them.
    HandfulError where the images are not there, or the network has no convolutions.
    """
    if run.predictor.precision == INT8:
        return Quantized(None, "The convolutions of the model compute in int8 already.")
    number = {name: k for k, name in enumerate(run.classes)}
    rows = [(row.get("file", ""), row.get("label", "")) for row in labels_of(run)]
    label = {file: number[name] for file, name in rows if name in number}
    labeled, names = named(run, given, list(label), MOST)
    free, _ = named(run, given, unlabeled_names(run), CALIBRATED_ON)
    if len(names) < FEWEST:
        raise HandfulError(
            f"--int8 compares accuracies on {FEWEST} labelled images of the run or more, and found "
            f"{len(names)}; give the images of the run with --images, or leave --int8 out"
        )
    ranges = free.pixels if len(free.pixels) else labeled.pixels[:CALIBRATED_ON]
    labels = np.array([label[name] for name in names])
    said = ""
    for start, what in _PARTS:
        smaller = _int8(content, ranges, start)
        before, after, how = _accuracies(run, content, smaller, labeled.pixels, labels)
        fall, error = before - after, np.sqrt(max(before * (1 - before), 0.01) / len(labels))
        said = (
            f"int8 ({what}): {before:.1%} → {after:.1%} of {len(labels)} labelled images right "
            f"({how}), {len(smaller) / 1e6:.1f} MB instead of {len(content) / 1e6:.1f}. The fall "
            f"of {100 * fall:.1f} points is {{}} its standard error, {100 * error:.1f} points"
        )
        if fall < error:
            return Quantized(smaller, said.format("less than"))
    return Quantized(None, said.format("not less than") + ", so no int8 model is left.")


def _accuracies(
    run: Run, plain: bytes, smaller: bytes, images: np.ndarray, labels: np.ndarray
) -> tuple[float, float, str]:
    """Accuracy of the 32-bit and of the int8 model, and how it was found."""
    if not run.predictor.learned_from_images:
        both = [_features(content, images) for content in (plain, smaller)]
        right = _out_of_fold(both, labels, len(run.classes))
        return float(right[0].mean()), float(right[1].mean()), "out of fold, linear head"
    found = [OnnxModel(content).answer(images).probabilities for content in (plain, smaller)]
    right = [shares.argmax(1) == labels for shares in found]
    return float(right[0].mean()), float(right[1].mean()), "which the network has learned from"


def _out_of_fold(both: list[np.ndarray], labels: np.ndarray, classes: int) -> list[np.ndarray]:
    """Whether held-out images are right, by features in 32 bits and in int8.

    The head of each fold learned from features in 32 bits, as the head of the model did.
    """
    right = [np.zeros(len(labels), bool) for _ in both]
    fold = stratified_folds(labels, _FOLDS, 0)
    for held in np.unique(fold):
        inside, outside = fold != held, fold == held
        head = Features().fit_features(
            torch.from_numpy(both[0][inside]),
            torch.from_numpy(labels[inside]),
            torch.empty(0, both[0].shape[1]),
            classes,
            seed=0,
        )
        with torch.inference_mode():
            for found, features in zip(right, both, strict=True):
                logits = head(torch.from_numpy(features[outside]))
                found[outside] = logits.argmax(1).numpy() == labels[outside]
    return right


def _features(content: bytes, images: np.ndarray) -> np.ndarray:
    """(N, D) features of a frozen network: what its model rounds to float16."""
    import onnx

    model = onnx.load_from_string(content)
    half = onnx.TensorProto.FLOAT16
    (rounded,) = (
        node
        for node in model.graph.node
        if node.op_type == "Cast" and any(a.name == "to" and a.i == half for a in node.attribute)
    )
    del model.graph.output[:]
    name = rounded.input[0]
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    found = OnnxModel(model.SerializeToString())
    parts = [found.session.run(None, {IMAGES: part})[0] for part in _split(images)]
    return np.concatenate(parts)


def _split(images: np.ndarray) -> list[np.ndarray]:
    return np.array_split(images, max(1, len(images) // 16))


def _int8(content: bytes, images: np.ndarray, start: float) -> bytes:
    """The model with convolutions in int8, from the share `start` of them on.

    Activations have ranges that were seen on `images`, weights a scale for each channel.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.parts = iter(_split(images))

        def get_next(self) -> dict[str, Any] | None:
            part = next(self.parts, None)
            return None if part is None else {IMAGES: part}

    with tempfile.TemporaryDirectory() as place, _quiet():
        plain, ready, small = (Path(place) / f"{name}.onnx" for name in ("plain", "ready", "small"))
        plain.write_bytes(content)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        nodes = [node for node in onnx.load(ready).graph.node if node.op_type == "Conv"]
        if not nodes:
            raise HandfulError("--int8 is for networks with convolutions, and this one has none")
        quantization.quantize_static(
            ready,
            small,
            Reader(),
            per_channel=True,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=[node.name for node in nodes[: int(start * len(nodes))]],
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        model = onnx.load(small)
    kept = {one.key: one.value for one in onnx.load_from_string(content).metadata_props}
    del model.metadata_props[:]
    for key, text in kept.items():
        model.metadata_props.add(key=key, value=text)
    return bytes(model.SerializeToString(deterministic=True))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the remarks of the quantizer, which are for who writes networks."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
