"""Images per second from files to features: handful beside itself with torch, and the plain way.

    python -m benchmarks run features_speed                  # 96, 160 and 224 pixels
    python -m benchmarks run features_speed 160 --cores 1 --rounds 7 --kind final

Ours: `handful.load` of a folder and `features` of the cache, by ONNX Runtime, in int8 where
the processor is fast at it, while threads decode files. Torch: the same, computed by torch in 32
bits, and in bf16 where the processor has it.
Plain: what a notebook does; torchvision's ImageFolder and Resize in a DataLoader of batches of 32,
fp32, without gradients; with no worker and with two, of which the faster counts. Same network
(EfficientNet-Lite0, three stages, normalisation in front) and same JPEG files: CIFAR-10 (JPEG).

Counted on all sides: finding the files, decoding, resizing, the network, and having the features
in memory; on ours also reading every file once more to know its content, and writing the features
to disk. Nothing is in handful's cache; the files are in the operating system's for all. Not
counted: making the network, and one small batch before each turn. All take turns in an order
that rotates.

The parts of our way are measured one after the other, too, in milliseconds by the clock an image:
opening the folder, decoding, and the network by each engine. Together they take longer than the
whole, in which decoding and the network overlap.
"""

import copy
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms as tv
from torchvision.datasets import ImageFolder

import handful
from benchmarks.lib import arguments, record
from benchmarks.speed.engine import Plain as OnTorch
from benchmarks.speed.engine import lite0
from handful import devices
from handful.cores import cores
from handful.data.cache import data_folder
from handful.data.imageset import ImageSet
from handful.models.engine import forward, resolved
from handful.models.feature_cache import (
    features,
    images_in_a_batch,
    images_in_a_pass,
    in_evaluation_mode,
)

SIZES = (96, 160, 224)
BATCH = 32  # of the plain way
GOAL = 2.0
GOALS = {"fp32": 2.2, "bf16": 1.5}  # over torch in this number format
LEAST_LIKENESS = {"ours": 0.8, "torch_bf16": 0.95}  # to the plain way; 0.999 of the others


class Ours:
    """handful; by torch where the network has no graph."""

    def __init__(self, made: nn.Module, size: int, precision: str = "auto") -> None:
        self.network, self.size, self.precision = made, size, precision

    def __call__(self, folder: Path) -> Tensor:
        with tempfile.TemporaryDirectory() as cache:
            os.environ["HANDFUL_CACHE"] = cache
            images = handful.load(folder)
            return features(images, self.network, self.size, precision=self.precision)


class Plain:
    def __init__(self, made: nn.Module, size: int, workers: int) -> None:
        self.network, self.workers = made, workers
        self.transform = tv.Compose(
            [tv.Resize((size, size), tv.InterpolationMode.BICUBIC), tv.ToTensor()]
        )

    def __call__(self, folder: Path) -> Tensor:
        images = ImageFolder(str(folder), self.transform)
        with torch.no_grad():
            batches = DataLoader(images, BATCH, num_workers=self.workers)
            return torch.cat([self.network(batch) for batch, _ in batches])


def timed(side: Callable[[Path], Tensor], warm_up: Path, folder: Path) -> tuple[float, Tensor]:
    """Seconds, and the features."""
    side(warm_up)
    begun = time.perf_counter()
    found = side(folder)
    return time.perf_counter() - begun, found


def measure(size: int, images: int, rounds: int) -> dict[str, object]:
    made = lite0()
    formats = ["fp32", "bf16"] if devices.has_bf16() else ["fp32"]
    by_torch = {f"torch_{one}": Ours(OnTorch(copy.deepcopy(made)), size, one) for one in formats}
    sides = {
        "ours": Ours(copy.deepcopy(made), size),
        **by_torch,
        "plain": Plain(made, size, 0),
        "plain_2_workers": Plain(made, size, 2),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    parts: dict[str, list[float]] = {}
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as root:
            warm_up = some_files(Path(root) / "warm-up", 0, 10)
            folder = some_files(Path(root) / "timed", number, images)
            names = list(sides)
            first, found = number % len(names), {}
            for name in names[first:] + names[:first]:
                seconds, found[name] = timed(sides[name], warm_up, folder)
                rates[name].append(images / seconds)
            for name, ms in of_parts(folder, size, made, formats).items():
                parts.setdefault(name, []).append(ms)
        check(found)
    plain = max("plain", "plain_2_workers", key=lambda name: statistics.median(rates[name]))
    ratios = against(rates, plain)
    return {
        **{name: round(statistics.median(found), 1) for name, found in rates.items()},
        "ratio": round(statistics.median(ratios), 3),
        "ratio_low": round(ratios[0], 3),
        "ratio_high": round(ratios[-1], 3),
        "goal": GOAL,
        **{
            f"ratio_to_{one}": round(statistics.median(against(rates, f"torch_{one}")), 3)
            for one in formats
        },
        **{f"goal_{one}": GOALS[one] for one in formats},
        "parts_ms": {name: round(statistics.median(ms), 3) for name, ms in parts.items()},
        "cores": cores(),
        "images": images,
        "rounds": rounds,
    }


def against(rates: dict[str, list[float]], other: str) -> list[float]:
    """Our images per second over those of another side, of every round, the lowest first."""
    return sorted(ours / one for ours, one in zip(rates["ours"], rates[other], strict=True))


def of_parts(folder: Path, size: int, made: nn.Module, formats: list[str]) -> dict[str, float]:
    """Milliseconds by the clock an image, of what our way consists of."""
    took: dict[str, float] = {}

    def clocked(name: str, work: Callable[[], Any]) -> Any:
        begun = time.perf_counter()
        result = work()
        took[name] = time.perf_counter() - begun
        return result

    with tempfile.TemporaryDirectory() as cache:
        os.environ["HANDFUL_CACHE"] = cache
        images: ImageSet = clocked("opening", lambda: handful.load(folder))
        pixels = clocked("decoding", lambda: torch.cat(list(images.stream(size, batch=64))))
    engines = {
        "onnx": (made, resolved("auto", True)),
        **{f"torch_{one}": (OnTorch(made), one) for one in formats},
    }
    for name, (known, precision) in engines.items():
        run = forward(in_evaluation_mode(known), precision, images_in_a_pass(images, size))
        batches = pixels.split(images_in_a_batch(run, size))
        run(batches[0])
        clocked(name, lambda run=run, batches=batches: list(run.each(batches)))  # type: ignore[misc]
    return {name: 1000 * seconds / len(images) for name, seconds in took.items()}


def some_files(target: Path, number: int, images: int) -> Path:
    """A folder with other images for every number, as many of each of the ten classes."""
    for source in sorted((data_folder() / "cifar10-jpeg" / "test").iterdir()):
        (target / source.name).mkdir(parents=True)
        each = images // 10
        for file in sorted(source.iterdir())[number * each : (number + 1) * each]:
            shutil.copy(file, target / source.name)
    return target


def check(found: dict[str, Tensor]) -> None:
    """All sides read the same files in the same order and see about the same in them."""
    for name, rows in found.items():
        likeness = nn.functional.cosine_similarity(rows.float(), found["plain"]).min()
        least = LEAST_LIKENESS.get(name, 0.999)
        assert likeness > least, f"features of {name} differ: cosine {likeness:.3f}"


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, metavar="SIZE")
    parser.add_argument("--cores", type=int, default=0, help="that are used; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--images", type=int, default=500, help="in a turn, a multiple of 10")
    parser.add_argument("--kind", choices=("dev", "final"), default="dev")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    options = parser.parse_args()
    if options.images % 10 or options.images * options.rounds > 10_000:
        parser.error(
            "--images is a multiple of 10, and times --rounds at most the 10,000 there are"
        )
    if options.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    torch.set_num_threads(cores())
    for size in options.sizes:
        figures = measure(size, options.images, options.rounds)
        many = "core" if cores() == 1 else "cores"
        name = f"lite0 at {size} pixels, {cores()} {many}"
        record.show("features_speed", name, None if options.dry else options.kind, figures)


if __name__ == "__main__":
    main()
