"""Images per second in training, augmentation included: handful beside the plain way.

    python -m benchmarks run throughput            # both networks, about two minutes
    python -m benchmarks run throughput deep-cnn --rounds 9 --kind final

Ours: the project's own loop, batches augmented whole, channels-last, bf16 where the processor has
it. Plain: what a notebook does; PIL images augmented one by one with torchvision's transforms in a
DataLoader with two workers, fp32, Adam. Same network, batch size, images and kind of augmentation.

The two take turns within one run, so that a slow minute of the machine hits both; each turn starts
with steps that are not timed. The share of peak is the arithmetic of the network's forward and
backward pass, per second of training, over what a 2048x2048x2048 bf16 matrix product reaches in the
same run.
"""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms as tv

import handful
from benchmarks.lib import arguments, record
from handful import devices
from handful.methods.base import Task
from handful.methods.schedule import Schedule
from handful.methods.supervised import Supervised
from handful.models.classifier import BackboneSpec
from handful.training.batches import Batches
from handful.training.loop import State, fresh, train

WARM_UP = 3  # steps at the start of every turn that are not timed
IMAGES = 10_000


@dataclass(frozen=True)
class Case:
    """A network of the reports, with the augmentation its report trains it under."""

    backbone: str
    batch: int
    augment: str  # ours, by name
    plain: tuple[object, ...]  # the same, image by image
    goal: float  # times as many images per second as the plain way


CASES = {
    "deep-cnn": Case("deep-cnn", 256, "randaugment", (tv.RandAugment(2, 9),), goal=2.2),
    "complex-encoder": Case(
        "complex-encoder",
        128,
        "affine",
        (
            tv.RandomRotation(45, tv.InterpolationMode.BILINEAR),
            tv.RandomResizedCrop(28, (0.8, 1.0), (1.0, 1.0)),
            tv.RandomAffine(0, translate=(0.1, 0.1), interpolation=tv.InterpolationMode.BILINEAR),
            tv.RandomAffine(0, shear=30, interpolation=tv.InterpolationMode.BILINEAR),
        ),
        goal=1.9,
    ),
}


class Pictures(Dataset[tuple[Tensor, int]]):
    """PIL images, transformed one at a time whenever they are asked for."""

    def __init__(self, pixels: Tensor, labels: Tensor, transform: object) -> None:
        self.images = [Image.fromarray(image[0].numpy()) for image in pixels]
        self.labels = labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


class Ours:
    """The project's loop; a turn is some steps of one long run."""

    def __init__(self, case: Case, task: Task, precision: str) -> None:
        method = Supervised(augment=case.augment)
        schedule = Schedule(steps=1_000_000, batch=case.batch)
        self.batches = Batches(task, method.views(task), schedule, seed=0)
        state = State(fresh(method, task, seed=0), schedule)
        self.steps = train(state, method, self.batches, schedule, precision)
        self.batch = case.batch

    def turn(self, steps: int) -> float:
        """Images per second."""
        for _ in range(WARM_UP):
            next(self.steps)
        begun = time.perf_counter()
        for _ in range(steps):
            next(self.steps)
        return steps * self.batch / (time.perf_counter() - begun)

    def augmenting(self, steps: int) -> float:
        """Seconds per batch to choose, augment and hand over the images."""
        begun = time.perf_counter()
        for step in range(steps):
            self.batches[step]
        return (time.perf_counter() - begun) / steps


class Plain:
    """The notebook's loop; a turn starts its two workers and stops them."""

    def __init__(self, case: Case, task: Task) -> None:
        mean, std = task.statistics()
        transform = tv.Compose([*case.plain, tv.ToTensor(), tv.Normalize(mean, std)])
        dataset = Pictures(task.pixels, task.labels, transform)
        self.loader = DataLoader(dataset, case.batch, shuffle=True, drop_last=True, num_workers=2)
        torch.manual_seed(0)
        backbone = task.make_backbone()
        self.model = nn.Sequential(backbone, nn.Linear(int(backbone.width), len(task.classes)))
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3)
        self.batch = case.batch

    def turn(self, steps: int) -> float:
        """Images per second."""
        batches = iter(self.loader)
        for _ in range(WARM_UP):
            self.step(batches)
        begun = time.perf_counter()
        for _ in range(steps):
            self.step(batches)
        return steps * self.batch / (time.perf_counter() - begun)

    def step(self, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        images, labels = next(batches)
        loss = nn.functional.cross_entropy(self.model(images), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def matrix_peak(side: int = 2048, repeats: int = 5) -> float:
    """Floating-point operations per second of a bf16 product of two square matrices; the best."""
    a, b = (torch.randn(side, side).bfloat16() for _ in range(2))
    best = float("inf")
    for _ in range(repeats):
        begun = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - begun)
    return 2 * side**3 / best


def operations_per_image(task: Task) -> float:
    """Floating-point operations of one forward and backward pass, per image."""
    model = fresh(Supervised(), task, seed=0)
    images, labels = torch.rand(8, task.channels, task.size, task.size), torch.zeros(8).long()
    with FlopCounterMode(display=False) as counter:
        nn.functional.cross_entropy(model(images), labels).backward()
    return counter.get_total_flops() / 8


def measure(case: Case, images: handful.ImageSet, rounds: int, steps: int) -> dict[str, object]:
    size = images.native_size[0]
    task = Task(images, BackboneSpec(case.backbone), size, flips=False)
    precision = "bf16" if devices.has_bf16() else "fp32"
    ours, plain = Ours(case, task, precision), Plain(case, task)
    rows = [
        (ours.turn(steps), plain.turn(steps), ours.augmenting(steps), matrix_peak())
        for _ in range(rounds)
    ]
    our_rate, plain_rate, augmenting, _ = map(statistics.median, zip(*rows, strict=True))
    peak = max(row[3] for row in rows)
    ratios = sorted(row[0] / row[1] for row in rows)
    operations = operations_per_image(task)
    return {
        "ours": round(our_rate, 1),
        "plain": round(plain_rate, 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_low": round(ratios[0], 3),
        "ratio_high": round(ratios[-1], 3),
        "goal": case.goal,
        "precision": precision,
        "batch": case.batch,
        "augment": case.augment,
        "augment_share": round(augmenting * our_rate / case.batch, 4),
        "mflop_per_image": round(operations / 1e6, 2),
        "peak_gflops": round(peak / 1e9, 1),
        "share_of_peak": round(operations * our_rate / peak, 4),
        "rounds": rounds,
        "steps": steps,
    }


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("cases", nargs="*", metavar="NETWORK", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of a turn")
    parser.add_argument("--kind", choices=("dev", "final"), default="dev")
    options = parser.parse_args()
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no network {', '.join(sorted(unknown))}; choose from {', '.join(CASES)}")
    images = handful.load("mnist")
    images = images[range(IMAGES)]
    for name in options.cases or CASES:
        figures = measure(CASES[name], images, options.rounds, options.steps)
        record.append("throughput", name, options.kind, figures)
        print(
            f"{name}: {figures['ours']} images/s, plain {figures['plain']}, "
            f"{figures['ratio']} times ({figures['ratio_low']} to {figures['ratio_high']}, "
            f"goal {figures['goal']}), {figures['share_of_peak']:.1%} of the bf16 peak, "
            f"augmentation {figures['augment_share']:.1%} of the time",
            flush=True,
        )


if __name__ == "__main__":
    main()
