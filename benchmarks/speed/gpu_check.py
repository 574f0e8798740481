"""handful on a CUDA device: does it compute what a processor computes, and how fast?

    python -m benchmarks run gpu_check                  # under eight minutes; writes one line
    python -m benchmarks run gpu_check --device cpu --quick --dry    # tries the script itself

It runs the default tests on the device; compares, for every method that trains a network, the loss
of the first step and of a later one with the processor's, and the predictions of trained and of
frozen networks; and measures images per second and memory of embedding (lite0 at 224 pixels),
SimCLR, FixMatch and the network of the recipe cifar10-fast, in 32 bits, in bf16, and in bf16 with
torch.compile. Images are made, so no data set is needed. Nobody has run it on a GPU yet: lines in
benchmarks/results/gpu_check.jsonl say where it was.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

import handful
from benchmarks.lib import arguments, record
from benchmarks.lib.paths import ROOT
from handful import devices, methods
from handful.data.imageset import ImageSet
from handful.data.store import array_store
from handful.methods import METHODS
from handful.methods.base import Task, Trained
from handful.models.classifier import BackboneSpec
from handful.models.engine import forward
from handful.models.feature_cache import in_evaluation_mode
from handful.pipeline.embed import feature_network
from handful.pipeline.recipes.cifar10 import fast
from handful.pipeline.setup import default_backbone, make_task
from handful.training.batches import Batches
from handful.training.loop import begin, train

FILE = "gpu_check"
STEPS = 5  # of the comparison of losses
FIRST, LATER = 1e-3, 5e-2  # relative differences of losses that are allowed
TESTS_SECONDS = 240
SEED = 0


def main() -> None:
    options = parse()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch sees no CUDA device; --device cpu --quick tries the script")
    figures: dict[str, Any] = {"device": options.device, "quick": options.quick}
    if not options.quick:
        figures["tests"] = tests()
    figures["losses"] = {name: losses(name, options.device) for name in trained()}
    figures["predictions"] = {
        method: predictions(method, options.device) for method in ("features", "supervised")
    }
    figures["speed"] = speeds(options.device, options.quick)
    wrong = [name for name, found in figures["losses"].items() if not found["equal"]]
    wrong += [name for name, found in figures["predictions"].items() if not found["equal"]]
    print("differs from the processor: " + (", ".join(wrong) or "nothing"), flush=True)
    if not options.dry:
        record.append(FILE, options.device, "final", figures)
    sys.exit(bool(wrong))


@contextmanager
def on(name: str) -> Iterator[None]:
    """Let handful compute on the device of this name."""
    with patch.object(devices, "device", lambda: torch.device(name)):
        yield


def tests() -> dict[str, Any]:
    """The default tests, which use the device where there is one."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow and not thorough", "-n", "8"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=TESTS_SECONDS, check=False
        )
        end = done.stdout.strip().splitlines()[-1:]
    except subprocess.TimeoutExpired:
        end = [f"stopped after {TESTS_SECONDS} s"]
    print("tests:", *end, flush=True)
    return {"end": end, "seconds": round(time.perf_counter() - begun, 1)}


def pictures(n: int, size: int, labeled: int = 40) -> ImageSet:
    """Colour images of four classes: noise, in which each class is bright in its own quarter."""
    generator = np.random.default_rng(SEED)
    labels = np.arange(n) % 4
    pixels = generator.integers(0, 160, (n, 3, size, size), np.uint8)
    half = size // 2
    for at, label in enumerate(labels.tolist()):
        row, column = divmod(label, 2)
        part = np.s_[at, :, row * half : (row + 1) * half, column * half : (column + 1) * half]
        pixels[part] += 90
    store = array_store(pixels, [f"{i:05}" for i in range(n)])
    images = ImageSet(store, np.arange(n), labels, ("a", "b", "c", "d"))
    return images.seen(np.arange(min(labeled, n)))


def trained() -> list[str]:
    return [name for name in METHODS if isinstance(methods.make(name), Trained)]


def task_for(name: str, images: ImageSet) -> tuple[Trained, Task]:
    method = methods.make(name)
    assert isinstance(method, Trained)
    return method, make_task(images, default_backbone(method, None, images.channels, 32))


def losses(name: str, device: str) -> dict[str, Any]:
    """Losses of the first and of a later step on the processor and on the device, in 32 bits."""
    found: dict[str, list[float]] = {}
    for where in ("cpu", device):
        with on(where):
            method, task = task_for(name, pictures(256, 32))
            schedule = method.schedule(task)
            batches = Batches(task, method.views(task), schedule, SEED)
            state = begin(method, task, schedule, SEED)
            steps = islice(train(state, method, batches, schedule), STEPS)
            found[where] = [float(step.logs[next(iter(step.logs))]) for step in steps]
    apart = [
        abs(a - b) / max(abs(a), 1e-6) for a, b in zip(found["cpu"], found[device], strict=True)
    ]
    equal = apart[0] <= FIRST and apart[-1] <= LATER
    print(f"{name}: first step {apart[0]:.1e} apart, step {STEPS} {apart[-1]:.1e}", flush=True)
    return {"first": apart[0], "later": apart[-1], "equal": equal}


def predictions(method: str, device: str) -> dict[str, Any]:
    """Probabilities of one model, fitted on the processor, on both."""
    images = pictures(256, 32)
    settings = {"steps": "60"} if method == "supervised" else {}
    with on("cpu"):
        run = handful.fit(images, method, size=32, settings=settings, estimate="none")
        here = run.predict(images).probabilities
    with on(device):
        model = run.predictor.model
        model.to(devices.device())
        there = run.predict(images).probabilities
    worst = float(np.abs(np.asarray(here) - np.asarray(there)).max())
    print(f"{method}: probabilities {worst:.1e} apart", flush=True)
    return {"worst": worst, "equal": worst <= 2e-2}


def speeds(device: str, quick: bool) -> dict[str, Any]:
    """Images per second and peak memory of embedding and of training, by number format."""
    found: dict[str, Any] = {}
    formats = [("fp32", False), ("bf16", False)] + ([] if quick else [("bf16", True)])
    seconds = 0.5 if quick else 8.0
    for precision, compiled in formats:
        how = precision + (" compiled" if compiled else "")
        for what, measure in (
            ("embedding lite0 224", embedding),
            ("simclr", lambda *rest: training("simclr", *rest)),
            ("fixmatch", lambda *rest: training("fixmatch", *rest)),
            ("cifar10-fast", lambda *rest: training("cifar10-fast", *rest)),
        ):
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            with on(device):
                rate = measure(precision, compiled, seconds)
            row = {"images_per_second": round(rate, 1)}
            if device == "cuda":
                row["megabytes"] = round(torch.cuda.max_memory_allocated() / 1e6)
            found[f"{what} {how}"] = row
            print(what, how, row, flush=True)
    return found


def embedding(precision: str, compiled: bool, seconds: float) -> float:
    images = pictures(4, 32)
    network: Any = in_evaluation_mode(feature_network(images, BackboneSpec("lite0"), 224))
    if compiled:
        network = torch.compile(network)
    pixels = torch.zeros(64, 3, 224, 224, dtype=torch.uint8)
    run = forward(network, precision, len(pixels))
    return rate_of(lambda: run(pixels), len(pixels), seconds)


def training(name: str, precision: str, compiled: bool, seconds: float) -> float:
    images = pictures(2_048, 32)
    if name == "cifar10-fast":
        assert fast.backbone is not None and fast.schedule is not None
        method, schedule = fast.method, fast.schedule
        task = make_task(images, fast.backbone)
    else:
        method, task = task_for(name, images)
        schedule = method.schedule(task)
    assert isinstance(method, Trained)
    batches = Batches(task, method.views(task), schedule, SEED)
    state = begin(method, task, schedule, SEED)
    if compiled:
        state.model.compile()
    steps = train(state, method, batches, schedule, precision)
    return rate_of(lambda: next(steps), batches.images_per_step, seconds)


def rate_of(once: Any, images: int, seconds: float) -> float:
    """Images per second of a call, after two calls that are not timed."""
    for _ in range(2):
        once()
    devices.synchronize()
    begun, calls = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds or not calls:
        once()
        devices.synchronize()
        calls += 1
    return calls * images / (time.perf_counter() - begun)


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="no tests, no compiling, short")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    return parser.parse_args()


if __name__ == "__main__":
    main()
