"""Run an ONNX model on the processor; the only module that knows ONNX Runtime.

Letters in shapes: N images, K classes, C channels, S the side in pixels.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# From 1.29 on, ONNX Runtime sends records of its use to Microsoft, unless this is set before it is
# imported. Someone who wants to send them sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

from handful.cores import cores
from handful.errors import HandfulError

VERSION: str = onnxruntime.__version__
IMAGES, PROBABILITIES, DISTANCES = "images", "probabilities", "distances"  # names in the model
_TOLD = ("handful", "classes", "input", "abstentions", "none_of_these")  # a model tells these
_MOST = 64  # images in a pass: bounds the memory
# Pixels in a pass. With more, the values between two layers exceed a processor's cache; with fewer,
# each pass has its costs (`python -m benchmarks run engine_passes`).
_PASS = 4 * 160 * 160


class Answers(NamedTuple):
    """What a model says of N images."""

    probabilities: np.ndarray  # (N, K) float32
    distances: np.ndarray | None  # (N,) float32, to the images of the run; None if not in the model


class OnnxModel:
    """A model in memory, with its metadata."""

    def __init__(self, content: bytes | Path, threads: int = 0) -> None:
        """`threads` is the number for one pass; 0 is one for each core that the process may use.

        HandfulError if the content is no model that handful exported.
        """
        try:
            self.session = session_of(content, threads)
            texts = self.session.get_modelmeta().custom_metadata_map
            self.about: dict[str, Any] = {key: json.loads(text) for key, text in texts.items()}
            for key in _TOLD:
                self.about[key]
            self.classes = tuple(self.about["classes"])
            self.in_a_pass = images_in_a_pass(self.about["input"]["size"])
        except Exception as error:  # ONNX Runtime raises types of its own
            what = "the model" if isinstance(content, bytes) else str(content)
            reason = " ".join(str(error).split())[:200]
            raise HandfulError(
                f"{what} is no model that `handful export` wrote, or is damaged ({reason}); "
                f"export again"
            ) from error

    def answer(self, images: np.ndarray, batch: int | None = None) -> Answers:
        """Probabilities of images (N, C, S, S) uint8; `batch` is the number of images in a pass,
        by default the quickest."""
        batch = batch or self.in_a_pass
        parts = [
            self.session.run(None, {IMAGES: images[start : start + batch]})
            for start in range(0, len(images), batch)
        ]
        if not parts:
            return Answers(np.empty((0, len(self.classes)), np.float32), None)
        first, *rest = (np.concatenate(found) for found in zip(*parts, strict=True))
        return Answers(first, rest[0] if rest else None)


def session_of(content: bytes | Path, threads: int = 0) -> Any:
    """A session of ONNX Runtime on the processor, for a model in memory or in a file.

    Args:
        threads: for one pass; 0 is one for each core that the process may use.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cores()
    # Threads that spin while they wait take the time of those that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    source = content if isinstance(content, bytes) else str(content)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def images_in_a_pass(size: int) -> int:
    """How many images of `size` pixels a side are computed together: a power of two."""
    return min(_MOST, 1 << (max(1, _PASS // size**2).bit_length() - 1))
