"""Make the ONNX model of a run, which says of itself what a user of it has to know."""

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from handful import models
from handful._version import __version__
from handful.data.decoding.value_range import Scale, of_kind
from handful.evaluation.novelty import Distances, InDistribution
from handful.models.classifier import Predictor
from handful.models.onnx_graph import convert
from handful.text import promises

_VERSIONS = ("torch", "onnx", "onnxscript", "onnxruntime", "pillow", "numpy")


def onnx_model(
    record: Mapping[str, Any],
    predictor: Predictor,
    known: InDistribution | None,
    *,
    elsewhere: bool = True,
) -> bytes:
    """The ONNX model of a run; with `known` its second output tells which images are unlike all.

    Its metadata are JSON texts: handful, classes, input (size, channels, aspect, ranges), estimate,
    test, abstentions, none_of_these (distance, flagged), network and versions.

    Args:
        elsewhere: see `convert`.
    """
    about = metadata(record, predictor, known)
    texts = {key: json.dumps(value) for key, value in about.items()}
    distances = None if known is None else Distances(known)
    return convert(predictor, texts, distances, elsewhere=elsewhere)


def metadata(
    record: Mapping[str, Any], predictor: Predictor, known: InDistribution | None
) -> dict[str, Any]:
    """What the model says of itself, as plain data for JSON."""
    estimate = record["estimate"]
    return {
        "handful": __version__,
        "classes": list(predictor.classes),
        "input": about_input(predictor),
        "estimate": _scored(estimate),
        "test": _scored(record["test"]),
        "abstentions": promises(estimate) if estimate else [],
        "none_of_these": None
        if known is None
        else {"distance": float(known.threshold), "flagged": float(known.flagged)},
        "network": {
            "name": models.full_name(predictor.backbone.name, predictor.backbone.options),
            "method": record["method"]["name"],
            "temperature": predictor.temperature,
        },
        "versions": {**record["versions"], "exported_with": _versions()},
    }


def about_input(predictor: Predictor) -> dict[str, Any]:
    """What the loading of a picture has to know; the keys are arguments of `pictures.load`."""
    return {
        "size": predictor.size,
        "channels": predictor.channels,
        "aspect": predictor.aspect,
        "ranges": _ranges(predictor.value_range),
    }


def _ranges(scale: Scale | None) -> dict[str, list[float]]:
    """The values that become black and white in images of more than 8 bits, by kind of file."""
    found = {"whole": of_kind(scale, False), "real": of_kind(scale, True)}
    return {kind: [one.low, one.high] for kind, one in found.items() if one is not None}


def _scored(scores: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if scores is None or scores["accuracy"] is None:
        return None
    return {key: scores[key] for key in ("accuracy", "low", "high", "level")}


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # pragma: no cover
            continue
    return found
