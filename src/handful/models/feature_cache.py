"""Features of a frozen network for an image set, computed once and cached on disk by image.

Draws, folds and subsets of one set share the cached features, and interrupted work resumes with the
images that are not cached.

Letters in shapes: N images, C channels, S the side in pixels, D features.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from handful import devices, onnx_runtime
from handful.data.cache import about, cache_folder, explained, used
from handful.data.cache_entries import keep_within_limit
from handful.data.imageset import ImageSet
from handful.errors import HandfulError
from handful.files import write_tensors
from handful.models import fingerprint
from handful.models.engine import (
    INT8,
    ONNX_RUNTIME,
    Forward,
    engine_of,
    forward,
    has_graph,
    resolved,
)
from handful.progress import Track, quiet

VIEWS = ("plain", "flipped")
SIZES = (224, 160, 128, 96, 64)  # the sizes of `choose_size`, the most accurate first
SMALL_IMAGES_BEST = 160  # the most accurate size for images of 64 pixels or less
_SMALL = 64  # pixels a side up to which large batches are as fast: those of networks from scratch
_BATCH = 64  # images that are decoded together
_ALONE = 8  # the least of them where threads compute side by side: few wait for the last one
# Pixels in a forward pass. With more, the values between two layers exceed a processor's cache, and
# images of 224 pixels take twice as long.
_PASS = 16 * 160 * 160
_SOME = 8  # images in a forward pass of sources that have fewer than go into a whole one
_SAMPLE = 32  # images for a time measurement, at the least
PART = 4_096  # images whose features are held at a time where all of them are not needed
_SHARD = 16 * _BATCH  # images in one file; a killed process loses at most one file
_VERSION = 2  # increase when a key would give other features


@runtime_checkable
class SideBySide(Protocol):
    """A network that may be several networks, whose features are cached one by one."""

    def each(self) -> list[nn.Module]:
        """The networks, normalisation included; itself where it is one."""

    def join(self, rows: Sequence[Tensor]) -> Tensor:
        """(N, D) of the (N, D_i) features of each."""


class _How(NamedTuple):
    """How features are made, beside the network: what a cache folder is for."""

    size: int
    aspect: str
    view: str
    precision: str
    channels: int


def features(
    images: ImageSet,
    network: nn.Module,
    size: int,
    *,
    aspect: str = "crop",
    view: str = "plain",
    precision: str = "auto",
    channels: int | None = None,
    track: Track = quiet,
) -> Tensor:
    """(N, D) float16 features of all images; features that are not cached are computed.

    Images are read in batches, so that they need little memory. ONNX Runtime or torch computes the
    network in evaluation mode; see `engine`.

    Args:
        network: maps (N, C, S, S) float images in [0, 1] to (N, D), normalisation included.
        size: S, in pixels; see `choose_size`.
        aspect: crop, pad or stretch images to a square; see `ImageSet.at`.
        view: "plain", or "flipped" left to right.
        precision: "int8", "bf16", "fp32", or "auto", the fastest one; see `engine`.
        channels: 1 or 3: images are made grey or colour; None: as they are.
    """
    how: Any = {"aspect": aspect, "view": view, "precision": precision, "channels": channels}
    parts = feature_parts(images, network, size, **how, track=track, most=max(1, len(images)))
    (found,) = parts
    return found


def feature_parts(
    images: ImageSet,
    network: nn.Module,
    size: int,
    *,
    aspect: str = "crop",
    view: str = "plain",
    precision: str = "auto",
    channels: int | None = None,
    track: Track = quiet,
    most: int = PART,
) -> Iterator[Tensor]:
    """The rows of `features` in parts of at most `most` images, for sets of any number of images.

    All features are in the cache before the first part, so only the parts need memory.
    """
    precision = resolved(precision, has_graph(network))
    how = _How(size, aspect, view, precision, channels or images.channels)
    if isinstance(network, SideBySide) and len(networks := network.each()) > 1:
        each = [_parts(images, one, how, track, most) for one in networks]
        yield from map(network.join, zip(*each, strict=True))
    else:
        yield from _parts(images, network, how, track, most)


def _parts(
    images: ImageSet, network: nn.Module, how: _How, track: Track, most: int
) -> Iterator[Tensor]:
    """As `feature_parts`, of one network."""
    how = _how_of(network, how)
    folder = _folder(network, how, images)
    prints, known = _prints(images), None
    for start in range(0, max(1, len(prints)), most):
        part = prints[start : start + most]
        try:
            known = known or _all_known(images, network, how, folder, track)
            rows = _gathered(part, known)
        except (OSError, KeyError):  # another process clears the cache
            known = _all_known(images, network, how, folder, track)
            rows = _gathered(part, known)
        yield rows


def _how_of(network: nn.Module, how: _How) -> _How:
    """`how` for one of networks side by side: in 32 bits where it has no graph for int8."""
    return (
        how._replace(precision="fp32") if how.precision == INT8 and not has_graph(network) else how
    )


@devices.memory_kept()
def _all_known(
    images: ImageSet, network: nn.Module, how: _How, folder: Path, track: Track
) -> dict[bytes, tuple[Path, int]]:
    """As `_known`, once the features of all images are there."""
    known = _known(folder)
    new = _first_of_each(_prints(images), known)
    if len(new):
        compute_features(images[new], network, how, folder, track)
        known = _known(folder)
        about(folder, source=images.store.source or images.source, size=how.size)
        keep_within_limit()
    elif folder.exists():
        used(folder)
    return known


def not_yet_known(
    images: ImageSet,
    network: nn.Module,
    size: int,
    *,
    aspect: str = "crop",
    view: str = "plain",
    precision: str = "auto",
) -> ImageSet:
    """The images that `features` would run the network on, duplicates once.

    Of networks side by side, an image counts if it is new to one of them.
    """
    prints, new = _prints(images), np.zeros(len(images), bool)
    precision = resolved(precision, has_graph(network))
    how = _How(size, aspect, view, precision, images.channels)
    for one in each_of(network):
        folder = _folder(one, _how_of(one, how), images)
        new[_first_of_each(prints, _known(folder))] = True
    return images[new]


def each_of(network: nn.Module) -> list[nn.Module]:
    """The networks of which `network` consists; itself where it is one."""
    return network.each() if isinstance(network, SideBySide) else [network]


def choose_size(
    images: ImageSet,
    make: Callable[[int], nn.Module],
    seconds: float,
    *,
    aspect: str = "crop",
    precision: str = "auto",
) -> tuple[int, float]:
    """The side in pixels to embed images at, and the expected seconds.

    It is the largest of `SIZES` that fits in `seconds`, at most `SMALL_IMAGES_BEST` for small
    images, and the smallest of `SIZES` where none fits. Larger sizes are more accurate up to a
    limit, and the time grows with the square. On 32-pixel photographs (CIFAR-10 (JPEG) development
    draws, 10 labels a class, EfficientNet-Lite0) the accuracy of a linear head was 57.9 % at 96
    pixels, 59.8 % at 128, 60.4 % at 160 and 59.4 % at 192.

    Args:
        make: returns the network for a side in pixels.
        seconds: available time.
    """
    sizes = [size for size in SIZES if not small(images) or size <= SMALL_IMAGES_BEST]
    expected = 0.0
    for size in sizes:
        expected = len(images) * seconds_per_image(
            images, make(size), size, aspect=aspect, precision=precision
        )
        if expected <= seconds:
            break
    return size, expected


def small(images: ImageSet) -> bool:
    """Whether all images have one size, of 64 pixels or less."""
    return max(images.native_size or (65,)) <= 64


def seconds_per_image(
    images: ImageSet,
    network: nn.Module,
    size: int,
    *,
    aspect: str = "crop",
    precision: str = "auto",
) -> float:
    """Seconds per image, decoding included, measured on a sample of the images."""
    network, precision = in_evaluation_mode(network), resolved(precision, has_graph(network))
    run = forward(network, precision, images_in_a_pass(images, size))
    batch = images_in_a_batch(run, size)
    n = min(len(images), max(_SAMPLE, 2 * batch * run.threads) if run.threads > 1 else _SAMPLE)
    sample = images[np.linspace(0, len(images) - 1, n).astype(np.int64)]
    shape = (min(n, batch), images.channels, size, size)
    own = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, shape, dtype=torch.uint8, generator=own)
    run(noise)  # the first pass has one-time costs
    start = time.perf_counter()
    for _ in run.each(sample.stream(size, aspect, batch)):
        pass
    return (time.perf_counter() - start) / n


def compute_features(
    images: ImageSet, network: nn.Module, how: _How, folder: Path, track: Track
) -> None:
    """Compute the features of all images, and write files of `_SHARD` images each."""
    prints = _prints(images)
    network = in_evaluation_mode(network)
    rows: list[Tensor] = []
    done, run = 0, forward(network, how.precision, images_in_a_pass(images, how.size))
    batch = images_in_a_batch(run, how.size)
    batches = images.stream(how.size, how.aspect, batch, how.channels)
    if how.view == "flipped":
        batches = (pixels.flip(-1) for pixels in batches)
    for found in run.each(track(batches, -(-len(images) // batch), "embedding")):
        rows.append(found)
        count = sum(map(len, rows))
        if count == _SHARD or done + count == len(images):
            part = slice(done, done + count)
            read = np.array([row not in images.store.lost for row in images.rows[part].tolist()])
            if read.any():
                _write(folder, prints[part][read], torch.cat(rows)[torch.from_numpy(read)])
            rows, done = [], done + count


def in_evaluation_mode(network: nn.Module) -> nn.Module:
    network = network.to(devices.device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval()


def images_in_a_batch(run: Forward, size: int) -> int:
    """How many images are decoded and computed together: a part of `_SHARD`."""
    return _BATCH if run.threads == 1 else max(_ALONE, onnx_runtime.images_in_a_pass(size))


def images_in_a_pass(images: ImageSet, size: int) -> int:
    """How many images go through the network at once: a part of `_BATCH`; see `pass_of`."""
    return pass_of(images, at_once(size, _BATCH))


def at_once(size: int, most: int) -> int:
    """How many images of `size` pixels a processor computes fastest, a power of two; or `most`."""
    if devices.device().type != "cpu":
        return most
    return min(most, 1 << (max(1, _PASS // size**2).bit_length() - 1))


def trained_at_once(size: int, most: int) -> int:
    """`at_once` for networks trained on the task, which see small images in whole batches."""
    return at_once(size, most) if size > _SMALL else most


def pass_of(images: ImageSet, most: int) -> int:
    """How many images go through a network at once, of at most so many.

    The last bits of the output depend on this number. It depends on how many images the source has,
    and so neither on which of them are known already, nor on those in a shard. All passes are
    filled up to it; of one image alone `most` would take many times as long.
    """
    return next((n for n in (most, _SOME) if n <= most and images.in_source > n), 1)


def _folder(network: nn.Module, how: _How, images: ImageSet) -> Path:
    """The cache folder of features with exactly these settings.

    A network's `extra_repr` must name the settings that change its features, beside its layers and
    weights.
    """
    size, aspect, view, precision, channels = how
    if view not in VIEWS:
        raise HandfulError(f"no view {view!r}; views of cached features: {', '.join(VIEWS)}")
    made = repr((_VERSION, type(network).__name__, str(network), fingerprint(network)))
    # Features of ONNX Runtime do not depend on the images in a pass.
    if engine_of(network, precision) == ONNX_RUNTIME:
        computed: Any = INT8 if precision == INT8 else ONNX_RUNTIME
    else:
        computed = (precision, images_in_a_pass(images, size))
    made += repr((size, aspect, view, channels, computed))
    return cache_folder() / "features" / hashlib.sha256(made.encode()).hexdigest()[:32]


def _prints(images: ImageSet) -> np.ndarray:
    """(N,) 16-byte fingerprints of the pixels; equal images have equal fingerprints."""
    return np.ascontiguousarray(images.store.fingerprints[images.rows]).view("V16").reshape(-1)


def _first_of_each(prints: np.ndarray, known: dict[bytes, tuple[Path, int]]) -> np.ndarray:
    """Positions of images without cached features, duplicates once."""
    seen = set(known)
    positions = []
    for position, key in enumerate(map(bytes, prints)):
        if key not in seen:
            seen.add(key)
            positions.append(position)
    return np.array(positions, np.int64)


def _write(folder: Path, prints: np.ndarray, rows: Tensor) -> None:
    """Write one file, named by a hash of its images, so that two processes may write it."""
    if not torch.isfinite(rows).all():
        raise HandfulError(
            "the network gave features that are not finite in float16; "
            "check its weights, or, in bf16, pass precision='fp32'"
        )
    path = folder / f"{hashlib.sha256(prints.tobytes()).hexdigest()[:32]}.safetensors"
    keys = torch.from_numpy(prints.view(np.uint8).reshape(-1, 16).copy())
    with explained(path):
        write_tensors(path, {"images": keys, "features": rows})


def _known(folder: Path) -> dict[bytes, tuple[Path, int]]:
    """Fingerprint → (file, row) of all images whose features are in the folder."""
    found: dict[bytes, tuple[Path, int]] = {}
    for path in sorted(folder.glob("[!.]*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                keys = file.get_tensor("images").numpy()
        except (SafetensorError, OSError):
            continue  # the images of a damaged file are embedded again
        found |= {key.tobytes(): (path, row) for row, key in enumerate(keys)}
    return found


def _gathered(prints: np.ndarray, known: dict[bytes, tuple[Path, int]]) -> Tensor:
    """(N, D) features; each file is read once."""
    by_shard: dict[Path, tuple[list[int], list[int]]] = {}
    for position, key in enumerate(map(bytes, prints)):
        path, row = known[key]
        positions, rows = by_shard.setdefault(path, ([], []))
        positions.append(position)
        rows.append(row)
    result = torch.empty(0, 0, dtype=torch.float16)
    for path, (positions, rows) in by_shard.items():
        with safe_open(path, "pt") as file:
            shard = file.get_tensor("features")
        if not len(result):
            result = torch.empty(len(prints), shard.shape[1], dtype=torch.float16)
        result[positions] = shard[rows]
    return result
