"""Do several devices that train together have the loss curve of one?

    python -m benchmarks run devices                       # two processes on the processor
    python -m benchmarks run devices --devices 4           # on a machine with four GPUs: there
    python -m benchmarks run devices simclr --steps 50 --dry

Each training is run in 32 bits by one process, by several that divide every batch, and by one whose
batches have their images in another order. The last one is the yardstick: in exact arithmetic it
is the first one, so its loss differs by what rounding grows to. CMC draws negatives for places in a
batch, and has no yardstick. `apart` is the difference of two losses, as a share of the first one's:
the largest of the first ten steps, the median of all, and that of the means of the last fifty.

Label-free methods on 5,000 images of Fashion-MNIST, CMC and the method, network and optimiser of
the recipe cifar10-fast (a narrower network, smaller batches, fewer steps) on 2,000 of CIFAR-10.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

import handful
from benchmarks.lib import arguments, record
from handful import devices
from handful.data.cache import data_folder
from handful.methods.autoencoder import Autoencoder
from handful.methods.base import Batch, Task, Trained
from handful.methods.cmc import CMC
from handful.methods.schedule import Schedule
from handful.methods.simclr import SimCLR
from handful.methods.vicreg import VICReg
from handful.models.classifier import BackboneSpec
from handful.pipeline.recipes.cifar10 import fast
from handful.pipeline.setup import make_task
from handful.progress import Reporter
from handful.training.batches import Batches
from handful.training.loop import begin, train
from handful.training.process_group import ALONE, ProcessGroup
from handful.training.processes import in_processes

FILE = "devices"
STEPS, BATCH, SEED = 300, 64, 0
FIRST, LAST = 10, 50  # steps at the beginning and at the end that are looked at apart


@dataclass(frozen=True)
class Training:
    """A method on images, with what it is trained by."""

    method: Trained
    colour: bool = False
    backbone: BackboneSpec = BackboneSpec("small")
    yardstick: bool = True


TRAININGS = {
    "simclr": Training(SimCLR()),
    "vicreg": Training(VICReg()),
    "autoencoder": Training(Autoencoder()),
    "cmc": Training(CMC(), True, BackboneSpec("small-encoder"), yardstick=False),
    "cifar10-fast": Training(
        fast.method,  # type: ignore[arg-type]
        True,
        BackboneSpec("fast", {"base": 32, "width": 96, "shifted": True}),
    ),
}


def main() -> None:
    options = parse()
    for name in options.trainings or TRAININGS:
        task, schedule = task_for(name), schedule_for(name, options.steps)
        one = losses(ALONE, name, task, schedule)
        with tempfile.TemporaryDirectory() as folder:
            said = Reporter(say=print)
            given = (name, task, schedule, Path(folder))
            in_processes(options.devices, leave, *given, reporter=said)
            several = json.loads((Path(folder) / "losses.json").read_text())
        figures: dict[str, Any] = {
            "devices": options.devices,
            "device": devices.device().type,
            "steps": options.steps,
            "batch": BATCH,
            "last_loss": {"one": fmean(one[-LAST:]), "several": fmean(several[-LAST:])},
            "apart": apart(one, several),
            "yardstick": None,
        }
        if TRAININGS[name].yardstick:
            other = losses(ALONE, name, task, schedule, Reordered)
            figures["last_loss"]["another order"] = fmean(other[-LAST:])
            figures["yardstick"] = apart(one, other)
        record.show(FILE, name, None if options.dry else "final", figures)


def task_for(name: str) -> Task:
    training = TRAININGS[name]
    source = str(data_folder() / "cifar10-jpeg" / "test") if training.colour else "fashion-mnist"
    images = handful.load(source)
    step = len(images) // (2_000 if training.colour else 5_000)
    return make_task(images[::step], training.backbone)


def schedule_for(name: str, steps: int) -> Schedule:
    if name == "cifar10-fast":
        assert fast.schedule is not None
        # The rate falls with the batch, as in the recipe.
        rate = fast.schedule.lr * BATCH / fast.schedule.batch
        return replace(fast.schedule, steps=steps, batch=BATCH, lr=rate)
    lightest = {"optimizer": "adam", "lr": 1e-3, "weight_decay": 0.0, "warmup": 0.02}
    return Schedule(steps=steps, batch=BATCH, **lightest)  # type: ignore[arg-type]


class Reordered(Batches):
    """Batches whose images are in another order."""

    def __getitem__(self, step: int) -> Batch:
        batch = super().__getitem__(step)
        order = torch.randperm(self.size, generator=torch.Generator().manual_seed(step))

        def moved(rows: Any) -> Any:
            return rows if rows is None or not len(rows) else rows[order]

        return batch._replace(
            images=moved(batch.images),
            labels=moved(batch.labels),
            ids=moved(batch.ids),
            unlabeled=tuple(map(moved, batch.unlabeled)),
            unlabeled_ids=moved(batch.unlabeled_ids),
        )


def losses(
    group: ProcessGroup,
    name: str,
    task: Task,
    schedule: Schedule,
    batches: type[Batches] = Batches,
) -> list[float]:
    """The loss of every step."""
    method = TRAININGS[name].method
    state = begin(method, task, schedule, SEED, group)
    drawn = batches(task, method.views(task), schedule, SEED, group)
    return [one.logs["loss"].item() for one in train(state, method, drawn, schedule)]


def leave(
    group: ProcessGroup,
    reporter: Reporter,
    name: str,
    task: Task,
    schedule: Schedule,
    folder: Path,
) -> None:
    """`losses` of several processes, in a file."""
    found = losses(group, name, task, schedule)
    if group.leads:
        (folder / "losses.json").write_text(json.dumps(found))


def apart(one: list[float], other: list[float]) -> dict[str, float]:
    """How far two curves are apart, as a share of the first."""
    shares = [abs(a - b) / abs(a) for a, b in zip(one, other, strict=True)]
    ends = fmean(one[-LAST:]), fmean(other[-LAST:])
    found = {
        "first_steps": max(shares[:FIRST]),
        "median": median(shares),
        "last_steps": abs(ends[0] - ends[1]) / abs(ends[0]),
    }
    return {key: float(f"{value:.2e}") for key, value in found.items()}


def parse() -> argparse.Namespace:
    parser = arguments.parser(__doc__)
    parser.add_argument("trainings", nargs="*", metavar="TRAINING", help=", ".join(TRAININGS))
    parser.add_argument("--devices", type=int, default=2, help="that train together")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--dry", action="store_true", help="print only, write no line")
    options = parser.parse_args()
    if unknown := set(options.trainings) - set(TRAININGS):
        parser.error(f"no training {', '.join(sorted(unknown))}; choose {', '.join(TRAININGS)}")
    return options


if __name__ == "__main__":
    main()
