"""From a folder of twelve-megapixel photographs to features: seconds and peak memory, each engine.

    python -m benchmarks run photo_folder                    # 2,000 photographs, 224 pixels
    python -m benchmarks run photo_folder --kind final --sides int8 torch_fp32

The photographs are those of `first_classifier`. Each side is a process of its own with an empty
cache: `handful.load` of the folder and `features` of the cache, in int8 (where the processor is
fast at it) or in 32 bits by ONNX Runtime, and by torch in 32 bits and in bf16 (where the processor
has it). The network is EfficientNet-Lite0 with three stages and normalisation in front. Not
counted: the imports and making the network. Files are in the system's page cache for all.

Seconds are by the clock, of all cores that the process may use, and of the processor, which a
busy machine changes less. The peak is that of the process, which starts no others; what its imports
take of it, most of them pages of torch's files, is told beside it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import handful
from benchmarks.lib import arguments, record
from benchmarks.lib.memory import peak_mb
from benchmarks.lib.paths import ROOT
from benchmarks.speed.engine import Plain as OnTorch
from benchmarks.speed.engine import lite0
from benchmarks.speed.first_classifier import make
from handful import devices
from handful.cores import cores
from handful.models.feature_cache import features


def sides() -> list[str]:
    """What this processor is fast at, and what all can do."""
    wanted = {"int8": devices.has_fast_int8(), "torch_bf16": devices.has_bf16()}
    every = ("int8", "onnx_fp32", "torch_fp32", "torch_bf16")
    return [side for side in every if wanted.get(side, True)]


def measure(side: str, folder: str, size: int) -> dict[str, float]:
    """Seconds from files to features in this process, and its peak memory in MB."""
    torch.set_num_threads(cores())
    made = lite0()
    engine, _, precision = side.rpartition("_")
    before, computed, begun = peak_mb(), time.process_time(), time.perf_counter()
    images = handful.load(folder, labeled=False)
    known = OnTorch(made) if engine == "torch" else made
    found = features(images, known, size, precision=precision)
    return {
        "seconds": round(time.perf_counter() - begun, 1),
        "processor_seconds": round(time.process_time() - computed, 1),
        "peak_mb": round(peak_mb()),
        "of_which_imports_mb": round(before),
        "images": len(found),
    }


def in_a_process(side: str, folder: Path, size: int) -> dict[str, float]:
    """`measure` in a new process, with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-m", __spec__.name, "--side", side, "--size", str(size), str(folder)],
            cwd=ROOT,
            env={**os.environ, "HANDFUL_CACHE": cache},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    return json.loads(done.stdout)


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("folder", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, default=2_000)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--sides", nargs="+", choices=sides(), default=sides())
    parser.add_argument("--kind", choices=("dev", "final"), help="write lines of this kind")
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, options.folder, options.size)))
        return
    with tempfile.TemporaryDirectory() as place:
        make(Path(place), options.images, labels=0)
        for side in options.sides:
            figures = in_a_process(side, Path(place) / "photos", options.size)
            many = "core" if cores() == 1 else "cores"
            name = f"{side}, lite0 at {options.size} pixels, {cores()} {many}"
            record.show("photo_folder", name, options.kind, figures)


if __name__ == "__main__":
    main()
