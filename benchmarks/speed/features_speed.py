"""Images per second from files to features: handful beside the plain way.

    python -m benchmarks run features_speed                  # 96, 160 and 224 pixels
    python -m benchmarks run features_speed 160 --rounds 7 --kind final

Ours: `handful.load` of a folder and `features` of the cache, computed by ONNX Runtime while threads
decode files. Plain: what a notebook does;
torchvision's ImageFolder and Resize in a DataLoader of batches of 32, fp32, without gradients; with
no worker and with two, of which the faster counts. Same network (EfficientNet-Lite0, three stages,
normalisation in front) and same JPEG files: CIFAR-10 (JPEG).

Counted on both sides: finding the files, decoding, resizing, the network, and having the features
in memory; on ours also reading every file once more to know its content, and writing the features
to disk. Nothing is in handful's cache; the files are in the operating system's for both. Not
counted: making the network, and one small batch before each turn. The three take turns in an order
that rotates.
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
from handful import models
from handful.data.cache import data_folder
from handful.models.classifier import Classifier, Normalize
from handful.models.feature_cache import features

SIZES = (96, 160, 224)
BATCH = 32  # of the plain way
GOAL = 2.0


def network() -> Classifier:
    lite: Any = models.make("lite0", 3, 224, stages=3)
    made = Classifier(lite, 1, Normalize(list(lite.mean), list(lite.std)))
    made.head = nn.Identity()
    return made.eval()


class Ours:
    def __init__(self, made: nn.Module, size: int) -> None:
        self.network, self.size = made, size

    def __call__(self, folder: Path) -> Tensor:
        with tempfile.TemporaryDirectory() as cache:
            os.environ["HANDFUL_CACHE"] = cache
            return features(handful.load(folder), self.network, self.size)


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
    made = network()
    sides = {
        "ours": Ours(copy.deepcopy(made), size),
        "plain": Plain(made, size, 0),
        "plain_2_workers": Plain(made, size, 2),
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as root:
            warm_up = some_files(Path(root) / "warm-up", 0, 10)
            folder = some_files(Path(root) / "timed", number, images)
            names = list(sides)
            found = {}
            for name in names[number % 3 :] + names[: number % 3]:
                seconds, found[name] = timed(sides[name], warm_up, folder)
                rates[name].append(images / seconds)
        check(found)
    plain = max("plain", "plain_2_workers", key=lambda name: statistics.median(rates[name]))
    ratios = sorted(ours / other for ours, other in zip(rates["ours"], rates[plain], strict=True))
    return {
        **{name: round(statistics.median(found), 1) for name, found in rates.items()},
        "ratio": round(statistics.median(ratios), 3),
        "ratio_low": round(ratios[0], 3),
        "ratio_high": round(ratios[-1], 3),
        "goal": GOAL,
        "images": images,
        "rounds": rounds,
    }


def some_files(target: Path, number: int, images: int) -> Path:
    """A folder with other images for every number, as many of each of the ten classes."""
    for source in sorted((data_folder() / "cifar10-jpeg" / "test").iterdir()):
        (target / source.name).mkdir(parents=True)
        each = images // 10
        for file in sorted(source.iterdir())[number * each : (number + 1) * each]:
            shutil.copy(file, target / source.name)
    return target


def check(found: dict[str, Tensor]) -> None:
    """Both sides read the same files in the same order and see about the same in them."""
    ours, plain = found["ours"].float(), found["plain"]
    likeness = nn.functional.cosine_similarity(ours, plain)
    assert likeness.min() > 0.999, f"features differ: cosine {likeness.min():.3f}"


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, metavar="SIZE")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--images", type=int, default=500, help="in a turn, a multiple of 10")
    parser.add_argument("--kind", choices=("dev", "final"), default="dev")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    options = parser.parse_args()
    if options.images % 10 or options.images * options.rounds > 10_000:
        parser.error(
            "--images is a multiple of 10, and times --rounds at most the 10,000 there are"
        )
    for size in options.sizes:
        figures = measure(size, options.images, options.rounds)
        if not options.dry:
            record.append("features_speed", f"lite0 at {size} pixels", options.kind, figures)
        print(
            f"{size} pixels: {figures['ours']} images/s, plain {figures['plain']}, with two "
            f"workers {figures['plain_2_workers']}; {figures['ratio']} times "
            f"({figures['ratio_low']} to {figures['ratio_high']}, goal {figures['goal']})",
            flush=True,
        )


if __name__ == "__main__":
    main()
