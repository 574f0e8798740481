"""Images per second of a SimCLR step: handful, the notebook's way and lightly, in turns in one run.

    python -m benchmarks run simclr_throughput                  # a few minutes
    python -m benchmarks run simclr_throughput --rounds 7 --kind final

The complex encoder of the report on MNIST, batch 128 (256 views), views by resized crop and flip,
projection 128 and 64, temperature 0.5, Adam.

Ours: the project's loop; views of the whole batch at once, one pass over both, channels-last, bf16
where the processor has it, the weight average included. Notebook: PIL images changed one by one
with torchvision's transforms, two passes, fp32. Lightly: its transform, projection head and loss,
one pass, fp32. Both of the others load with two workers.

Each side's turn starts with steps that are not timed; the sides take turns so that a slow minute
of the machine hits all three.
"""

import statistics
import time
import warnings
from collections.abc import Callable, Iterator

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as tv

import handful
from benchmarks.lib import arguments, record
from handful import devices
from handful.methods.base import Task
from handful.methods.schedule import Schedule
from handful.methods.self_supervised import projection
from handful.methods.simclr import SimCLR
from handful.models.classifier import BackboneSpec
from handful.training.batches import Batches
from handful.training.loop import begin, train

WARM_UP = 2  # steps at the start of every turn that are not timed
IMAGES = 10_000
BATCH = 128
WIDTHS = (128, 64)
GOALS = {"notebook": 1.9, "lightly": 2.0}  # times as many images per second


class Pairs(Dataset[tuple[Tensor, Tensor]]):
    """Two views of a PIL image, made when they are asked for."""

    def __init__(self, pixels: Tensor, views: Callable[[Image.Image], list[Tensor]]) -> None:
        self.images = [Image.fromarray(image[0].numpy()) for image in pixels]
        self.views = views

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        a, b = self.views(self.images[index])
        return a, b


class Ours:
    """The project's loop; a turn is some steps of one long run."""

    def __init__(self, task: Task) -> None:
        method = SimCLR(augment="simclr-flip")
        schedule = Schedule(steps=1_000_000, batch=BATCH, optimizer="adam", lr=1e-3)
        batches = Batches(task, method.views(task), schedule, seed=0)
        state = begin(method, task, schedule, seed=0)
        self.precision = "bf16" if devices.has_bf16() else "fp32"
        self.steps = train(state, method, batches, schedule, self.precision)

    def turn(self, steps: int) -> float:
        return timed(lambda: next(self.steps), steps)


class Loaded:
    """A loop over a DataLoader; a turn starts its two workers and stops them."""

    def __init__(
        self,
        task: Task,
        views: Callable[[Image.Image], list[Tensor]],
        head: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        passes: int,
    ) -> None:
        self.loader = DataLoader(
            Pairs(task.pixels, views), BATCH, shuffle=True, drop_last=True, num_workers=2
        )
        torch.manual_seed(0)
        self.model = nn.Sequential(task.make_backbone(), head)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3)
        self.loss, self.passes = loss, passes

    def turn(self, steps: int) -> float:
        batches = iter(self.loader)
        return timed(lambda: self.step(batches), steps)

    def step(self, batches: Iterator[list[Tensor]]) -> None:
        a, b = next(batches)
        if self.passes == 2:
            z_a, z_b = self.model(a), self.model(b)
        else:
            z_a, z_b = self.model(torch.cat([a, b])).chunk(2)
        loss = self.loss(z_a, z_b)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def timed(step: Callable[[], object], steps: int) -> float:
    """Images (not views) per second."""
    for _ in range(WARM_UP):
        step()
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    return steps * BATCH / (time.perf_counter() - begun)


def notebook(task: Task) -> Loaded:
    mean, std = task.statistics()
    transform = tv.Compose(
        [
            tv.RandomResizedCrop(task.size, (0.2, 1.0)),
            tv.RandomHorizontalFlip(),
            tv.ToTensor(),
            tv.Normalize(mean, std),
        ]
    )
    head = projection(width(task), WIDTHS)
    return Loaded(task, lambda image: [transform(image), transform(image)], head, across, passes=2)


def across(z_a: Tensor, z_b: Tensor) -> Tensor:
    """The notebook's loss: one direction, negatives of the other view only."""
    z_a, z_b = nn.functional.normalize(z_a), nn.functional.normalize(z_b)
    return nn.functional.cross_entropy(z_a @ z_b.T / 0.5, torch.arange(len(z_a)))


def lightly(task: Task) -> Loaded:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightly.loss import NTXentLoss
        from lightly.models.modules.heads import SimCLRProjectionHead
        from lightly.transforms import SimCLRTransform

        mean, std = task.statistics()
        views = SimCLRTransform(
            input_size=task.size,
            cj_prob=0.0,
            random_gray_scale=0.0,
            gaussian_blur=0.0,
            min_scale=0.2,
            hf_prob=0.5,
            normalize={"mean": mean, "std": std},
        )
        head = SimCLRProjectionHead(width(task), *WIDTHS)
        return Loaded(task, views, head, NTXentLoss(temperature=0.5), passes=1)


def width(task: Task) -> int:
    return int(task.make_backbone().width)


def main() -> None:
    parser = arguments.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--steps", type=int, default=6, help="timed steps of a turn")
    parser.add_argument("--kind", choices=("dev", "final"), default="dev")
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    options = parser.parse_args()
    images = handful.load("mnist")[range(IMAGES)]
    task = Task(images, BackboneSpec("complex-encoder"), images.native_size[0], flips=True)
    sides = {"ours": Ours(task), "notebook": notebook(task), "lightly": lightly(task)}
    rounds = [
        {name: side.turn(options.steps) for name, side in sides.items()}
        for _ in range(options.rounds)
    ]
    figures = {name: round(statistics.median(row[name] for row in rounds), 1) for name in sides}
    figures |= {"precision": sides["ours"].precision, "batch": BATCH}
    figures |= {"rounds": options.rounds, "steps": options.steps}
    for name, goal in GOALS.items():
        ratios = sorted(row["ours"] / row[name] for row in rounds)
        middle = statistics.median(ratios)
        figures[f"over_{name}"] = {
            "ratio": round(middle, 3),
            "low": round(ratios[0], 3),
            "high": round(ratios[-1], 3),
            "goal": goal,
        }
        print(
            f"ours {figures['ours']} images/s, {name} {figures[name]}: {middle:.2f} times "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f}, goal {goal})",
            flush=True,
        )
    if not options.dry:
        record.append("simclr_throughput", "simclr-complex-encoder", options.kind, figures)


if __name__ == "__main__":
    main()
