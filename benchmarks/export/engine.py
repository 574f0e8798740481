"""Images per second of a frozen network: ONNX Runtime beside PyTorch, in 32 bits and in bf16.

    python -m benchmarks run engine                       # 96, 160 and 224 pixels, one thread
    python -m benchmarks run engine 160 --threads 2 --kind final

The network is EfficientNet-Lite0 with three stages and normalisation in front, as features are
computed from. All take turns on the same images, in the batches that features are computed in, and
processor time is counted, not the clock: a busy machine changes it little. Medians over turns; the
ratio is of ONNX Runtime to the format that `auto` takes here. `cosine` is the least likeness of
features of ONNX Runtime to those of PyTorch in 32 bits, and `bf16_cosine` that of bf16.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.lib import arguments, record
from benchmarks.lib.made_runs import made_run
from handful import devices
from handful.models import onnx_graph
from handful.models.classifier import Classifier
from handful.models.feature_cache import _PASS, resolved
from handful.onnx_runtime import OnnxModel
from handful.pipeline.run import Run

SIZES = (96, 160, 224)


def sides(model: Classifier, content: bytes, threads: int) -> dict[str, Callable[[Tensor], Any]]:
    """A function (N, C, S, S) uint8 → features, for each engine."""
    engine = OnnxModel(content, threads)

    def of_torch(precision: str) -> Callable[[Tensor], Tensor]:
        def features(pixels: Tensor) -> Tensor:
            with torch.inference_mode(), devices.autocast(precision):
                images = pixels.to(memory_format=torch.channels_last).float() / 255
                return model.features(images).float()

        return features

    def of_onnx(pixels: Tensor) -> Tensor:
        return torch.from_numpy(engine.session.run(None, {"images": pixels.numpy()})[0])

    return {"onnx": of_onnx, "fp32": of_torch("fp32"), "bf16": of_torch("bf16")}


def measure(size: int, threads: int, images: int, rounds: int) -> dict[str, Any]:
    run = made_run("lite0", stages=3, size=size, classes=2)
    model = run.predictor.model.eval()
    content = features_model(run)
    batch = max(1, _PASS // size**2)
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (images, 3, size, size), dtype=np.uint8))
    every = sides(model, content, threads)
    found = {
        name: torch.cat([side(p) for p in pixels.split(batch)]) for name, side in every.items()
    }
    took: dict[str, list[float]] = {name: [] for name in every}
    for turn in range(rounds):
        names = list(every)
        for name in names[turn % 3 :] + names[: turn % 3]:
            start = time.process_time()
            for part in pixels.split(batch):
                every[name](part)
            took[name].append((time.process_time() - start) / images)
    ms = {name: round(1000 * statistics.median(times), 2) for name, times in took.items()}
    used = resolved("auto")
    likeness = {
        name: round(float(F.cosine_similarity(found[name], found["fp32"]).min()), 7)
        for name in ("onnx", "bf16")
    }
    return {
        **{f"{name}_ms": value for name, value in ms.items()},
        "auto": used,
        "ratio": round(ms[used] / ms["onnx"], 2),
        "ratio_to_fp32": round(ms["fp32"] / ms["onnx"], 2),
        "cosine": likeness["onnx"],
        "bf16_cosine": likeness["bf16"],
    }


def features_model(run: Run) -> bytes:
    """The ONNX model whose output is the features, for the measurement."""

    class Features(onnx_graph.Exported):
        def forward(self, images: Tensor) -> Tensor:
            return self.network.features(images.float() / 255)

    before = onnx_graph.Exported
    onnx_graph.Exported = Features  # type: ignore[misc]
    try:
        return run.to_onnx()
    finally:
        onnx_graph.Exported = before  # type: ignore[misc]


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, metavar="SIZE")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kind", choices=("dev", "final"), help="write lines of this kind")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for size in options.sizes:
        figures = measure(size, options.threads, options.images, options.rounds)
        name = f"lite0 at {size} pixels, {options.threads} threads"
        if options.kind:
            record.append("engine", name, options.kind, figures)
        print(name, figures, flush=True)


if __name__ == "__main__":
    main()
