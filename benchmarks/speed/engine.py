"""Milliseconds of a frozen network an image: ONNX Runtime beside torch, in several precisions.

    python -m benchmarks run engine                       # 96, 160 and 224 pixels, one thread
    python -m benchmarks run engine 160 --network lite2 --threads 2 --kind final

The network has three stages and normalisation in front, as features are computed from. All take
turns on the same images, in the batches that features are computed in. With one thread processor
time is counted, not the clock: a busy machine changes it little. With more it is the clock, and the
machine must have nothing else to do. Medians over turns. `onnx` and `int8` are ONNX Runtime, the
others torch. Ratios are those of the fastest one. `cosine` is the least likeness of features of
ONNX Runtime to those of torch in 32 bits, on noise; with `int8_` and `bf16_` that of these, where
the processor is fast at them.
"""

import statistics
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.lib import arguments, record
from handful import devices, models
from handful.data.imageset import ImageSet
from handful.data.store import array_store
from handful.methods.linear_head import Features
from handful.models.classifier import Classifier, Normalize
from handful.models.engine import forward
from handful.models.feature_cache import images_in_a_batch, images_in_a_pass, in_evaluation_mode
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


def lite0() -> Classifier:
    """EfficientNet-Lite0, three stages, with normalisation in front and without a head."""
    network: Any = models.make("lite0", 3, 224, stages=3)
    made = Classifier(network, 1, Normalize(list(network.mean), list(network.std)))
    made.head = nn.Identity()
    return made.eval()


def measure(name: str, size: int, n: int, rounds: int) -> dict[str, Any]:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 3, size, size), dtype=np.uint8)
    store = array_store(pixels, [str(number) for number in range(n)])
    images = ImageSet(store, np.arange(n), np.zeros(n, np.int64), ("a", "b"))
    spec = default_backbone(Features(), name)
    network = in_evaluation_mode(feature_network(images, spec, size))
    count = images_in_a_pass(images, size)
    every = {
        "onnx": forward(network, "fp32", count),
        "fp32": forward(Plain(network), "fp32", count),
    }
    if devices.has_fast_int8():
        every["int8"] = forward(network, "int8", count)
    if devices.has_bf16():
        every["bf16"] = forward(Plain(network), "bf16", count)
    whole = torch.from_numpy(pixels)
    batches = {side: whole.split(images_in_a_batch(run, size)) for side, run in every.items()}
    found = {side: run(whole).float() for side, run in every.items()}
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    took: dict[str, list[float]] = {side: [] for side in every}
    for turn in range(rounds):
        sides, first = list(every), turn % len(every)
        for side in sides[first:] + sides[:first]:
            start = clock()
            for _ in every[side].each(batches[side]):
                pass
            took[side].append((clock() - start) / n)
    ms = {side: round(1000 * statistics.median(times), 2) for side, times in took.items()}
    best = "int8" if "int8" in ms else "onnx"
    return {
        **{f"{side}_ms": value for side, value in ms.items()},
        **{f"ratio_to_{side}": round(ms[side] / ms[best], 2) for side in ms if side != best},
        "cosine": least_likeness(found["onnx"], found["fp32"]),
        **{
            f"{side}_cosine": least_likeness(found[side], found["fp32"])
            for side in ("int8", "bf16")
            if side in found
        },
    }


def least_likeness(some: Tensor, others: Tensor) -> float:
    return round(float(F.cosine_similarity(some, others).min()), 7)


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
        many = "thread" if options.threads == 1 else "threads"
        name = f"{options.network} at {size} pixels, {options.threads} {many}"
        record.show("engine", name, options.kind, figures)


if __name__ == "__main__":
    main()
