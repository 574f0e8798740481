"""Compare an exported model with its run: it may not differ in a class or by TOLERANCE.

Letters in shapes: N images, K classes, C channels, S the side in pixels.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from handful import devices
from handful.errors import HandfulError
from handful.evaluation.novelty import InDistribution
from handful.exporting.check_images import CheckImages, read_file
from handful.exporting.folder import pictures
from handful.models.classifier import Predictor
from handful.models.engine import INT8
from handful.onnx_runtime import Answers, OnnxModel
from handful.pipeline.onnx_model import about_input

TOLERANCE = 1e-3  # largest difference of a probability
_TIE = 1e-6  # probabilities that are nearer are equal up to rounding: either class is right
_NEAR = 1e-3  # share of a distance by which rounding may move it
_BATCHES = (1, 2, 5, 17)  # a batch that was frozen in the export shows
_PASS = 32


@dataclass(frozen=True)
class Agreement:
    """How well the answers of an exported model are those of its run."""

    images: int
    worst: float  # largest difference of a probability
    files: int = 0  # picture files that both load, to the same pixels
    refused: int = 0  # picture files that predict.py refuses to load


def run_answers(
    predictor: Predictor, images: np.ndarray, known: InDistribution | None = None
) -> Answers:
    """The answers of a run in fp32 or int8, computed by its own network, not what is exported."""
    network = copy.deepcopy(predictor.model).to("cpu").eval()
    in_int8 = network.runner(int8=True) if predictor.precision == INT8 else None
    shares, distances = [], []
    with torch.inference_mode():
        for part in torch.from_numpy(images).split(_PASS):
            features = in_int8(part) if in_int8 else network.features(part.float() / 255)
            features = features.half().float() if predictor.frozen else features
            shares.append((network.head(features) / predictor.temperature).softmax(dim=1))
            if known is not None:
                distances.append(known.distances(features))
    return Answers(
        torch.cat(shares).numpy(), None if known is None else torch.cat(distances).numpy()
    )


def answers_here(predictor: Predictor, images: np.ndarray) -> Answers:
    """The answers of a run as it gives them on this machine, perhaps in bf16."""
    predictor.model.eval()
    shares = []
    for part in torch.from_numpy(images).split(_PASS):
        with torch.inference_mode(), devices.autocast(predictor.precision_here()):
            features = predictor.model.features(part.to(devices.device()).float() / 255)
        features = features.half() if predictor.frozen else features
        shares.append(predictor.of_features(features.float()))
    return Answers(torch.cat(shares).numpy(), None)


def check_answers(
    model: OnnxModel, predictor: Predictor, images: np.ndarray, known: InDistribution | None
) -> Agreement:
    """Compare the answers for images (N, C, S, S) uint8; HandfulError where they differ."""
    expected = run_answers(predictor, images, known)
    found = _in_batches(model, images)
    worst = differences(found, expected)
    if known is not None:
        _check_distances(found, expected, float(known.threshold))
    return Agreement(len(images), worst)


def _in_batches(model: OnnxModel, images: np.ndarray) -> Answers:
    """The answers for images that come in batches of several sizes."""
    ends = np.cumsum(_BATCHES)
    parts = [model.answer(part) for part in np.split(images, ends[ends < len(images)])]
    shares, distances = zip(*parts, strict=True)
    told = None if distances[0] is None else np.concatenate(distances)
    return Answers(np.concatenate(shares), told)


def differences(found: Answers, expected: Answers) -> float:
    """The largest difference of a probability; HandfulError if it or a class is too different."""
    if found.probabilities.shape != expected.probabilities.shape:
        raise _refused(f"it gives {found.probabilities.shape[1]} probabilities an image")
    worst = float(np.abs(found.probabilities - expected.probabilities).max())
    if not worst <= TOLERANCE:
        raise _refused(f"probabilities differ by up to {worst:.2g}, and {TOLERANCE} is allowed")
    top = expected.probabilities.max(1)
    chosen = np.take_along_axis(
        expected.probabilities, found.probabilities.argmax(1)[:, None], axis=1
    )[:, 0]
    if wrong := int((top - chosen > _TIE).sum()):
        raise _refused(f"the class of {wrong} of {len(top)} images is another")
    return worst


def _check_distances(found: Answers, expected: Answers, threshold: float) -> None:
    assert expected.distances is not None
    if found.distances is None:
        raise _refused("it does not tell what is none of its classes")
    off = np.abs(found.distances - expected.distances)
    if not (off <= _NEAR * np.maximum(expected.distances, threshold)).all():
        raise _refused("it takes other images for none of its classes")


def check_files(images: CheckImages, predictor: Predictor) -> tuple[int, int]:
    """Load the files as predict.py does; HandfulError where a pixel differs.

    Returns:
        the number of files that were compared, and of those that predict.py refuses.
    """
    about = about_input(predictor)
    refused = 0
    for path, expected in zip(images.files, images.pixels, strict=False):  # or there are no files
        try:
            found = pictures.load(path, **about)
        except (OSError, ValueError):
            refused += 1
            continue
        if not np.array_equal(found, expected):
            raise _refused(f"predict.py reads other pixels from {path.name}")
    return len(images.files) - refused, refused


def read_files(folder: Path, contents: dict[str, bytes], predictor: Predictor) -> CheckImages:
    """Write picture files into a folder, and read them as handful does."""
    paths = []
    for name, content in contents.items():
        paths.append(folder / name)
        paths[-1].write_bytes(content)
    return CheckImages(np.stack([read_file(path, predictor) for path in paths]), tuple(paths))


def _refused(why: str) -> HandfulError:
    return HandfulError(
        f"the exported model does not answer as the run does: {why}. Nothing was written. This is "
        f"a fault of handful or of a library: please report it, with what `handful --version` and "
        f"`pip list` print"
    )
