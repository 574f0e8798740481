"""Milliseconds of a frozen network an image: ONNX Runtime beside torch, in 32 bits and in bf16.

    python -m benchmarks run engine                       # 96, 160 and 224 pixels, one thread
    python -m benchmarks run engine 160 --network lite2 --threads 2 --kind final

The network has three stages and normalisation in front, as features are computed from. All take
turns on the same images, in the batches that features are computed in, and processor time is
counted, not the clock: a busy machine changes it little. Medians over turns. `cosine` is the least
likeness of features of ONNX Runtime to those of torch in 32 bits, and `bf16_cosine` that of bf16.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.lib import arguments, record
from handful.data.imageset import ImageSet
from handful.data.store import array_store
from handful.methods.linear_head import Features
from handful.models.engine import forward
from handful.models.feature_cache import images_in_a_pass, in_evaluation_mode
from handful.pipeline.embed import feature_network
from handful.pipeline.setup import default_backbone

SIZES = (96, 160, 224)


class Plain(nn.Module):
    """A network without a graph: torch computes it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


def measure(name: str, size: int, n: int, rounds: int) -> dict[str, Any]:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, size, size), dtype=np.uint8)
    store = array_store(pixels, [str(number) for number in range(n)])
    images = ImageSet(store, np.arange(n), np.zeros(n, np.int64), ("a", "b"))
    spec = default_backbone(Features(), name)
    network = in_evaluation_mode(feature_network(images, spec, size))
    count = images_in_a_pass(images, size)
    every: dict[str, Callable[[Tensor], Tensor]] = {
        "onnx": forward(network, "fp32", count),
        "fp32": forward(Plain(network), "fp32", count),
        "bf16": forward(Plain(network), "bf16", count),
    }
    whole = torch.from_numpy(pixels)
    found = {side: run(whole).float() for side, run in every.items()}
    took: dict[str, list[float]] = {side: [] for side in every}
    for turn in range(rounds):
        sides = list(every)
        for side in sides[turn % 3 :] + sides[: turn % 3]:
            start = time.process_time()
            every[side](whole)
            took[side].append((time.process_time() - start) / n)
    ms = {side: round(1000 * statistics.median(times), 2) for side, times in took.items()}
    likeness = {
        side: round(float(F.cosine_similarity(found[side], found["fp32"]).min()), 7)
        for side in ("onnx", "bf16")
    }
    return {
        **{f"{side}_ms": value for side, value in ms.items()},
        "ratio_to_fp32": round(ms["fp32"] / ms["onnx"], 2),
        "ratio_to_bf16": round(ms["bf16"] / ms["onnx"], 2),
        "cosine": likeness["onnx"],
        "bf16_cosine": likeness["bf16"],
    }


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, metavar="SIZE")
    parser.add_argument("--network", default="lite0", choices=("lite0", "lite1", "lite2"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kind", choices=("dev", "final"), help="write lines of this kind")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for size in options.sizes:
        figures = measure(options.network, size, options.images, options.rounds)
        name = f"{options.network} at {size} pixels, {options.threads} threads"
        record.show("engine", name, options.kind, figures)


if __name__ == "__main__":
    main()
