"""What tests have several processes do; a file of its own, since the processes import it."""

import os
import signal
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from handful.errors import HandfulError
from handful.files import write_json, write_tensors
from handful.methods.autoencoder import Autoencoder
from handful.methods.cmc import CMC
from handful.methods.schedule import Schedule
from handful.methods.simclr import SimCLR
from handful.methods.supervised import Supervised
from handful.methods.vicreg import VICReg
from handful.models.classifier import BackboneSpec
from handful.models.shared_norm import SharedNorm
from handful.training.batches import Batches
from handful.training.loop import begin, train
from handful.training.plan import Plan
from handful.training.process_group import ALONE
from handful.training.trainer import Trainer
from tiny import stripes, task

PLAN = Plan("fp32", 1, 0.01)
STEPS, HALF = 20, 7
ADAM = Schedule(steps=STEPS, batch=16, optimizer="adam", lr=1e-3, weight_decay=0.0, warmup=0.1)
# cifar10-fast, but for the length and the width.
FAST = Schedule(
    steps=STEPS, batch=16, lr=0.02, momentum=0.85, weight_decay=1.3e-3, decay="linear", warmup=0.23
)
FAST_NETWORK = BackboneSpec("fast", {"base": 16, "width": 32, "shifted": True})


@dataclass(frozen=True)
class Measured(Supervised):
    """The method, which writes how many images of a batch each process is given."""

    seen: str = ""  # path of a file

    def loss(self, model, batch):
        with open(self.seen, "a") as file:
            file.write(f"{len(batch.images)} images\n")
        return super().loss(model, batch)


def doubled(method):
    """The method with a network in 64 bits, whose rounding is too small to grow in some steps."""
    kind = type(method)

    class Doubled(kind):
        def build(self, task):
            return kind.build(self, task).double()

    return Doubled(**vars(method))


def jobs():
    """Name → (method, task, schedule). In 32 bits where that is said, and where the loss is."""
    simclr, fast = SimCLR(projection_norm=True), Supervised("flip-crop-cut", label_smoothing=0.2)
    grey = task(stripes(64, size=16))
    color = task(stripes(64, size=32, channels=3, labeled=64), flips=True)
    encoder = replace(color, backbone=BackboneSpec("small-encoder"))
    return {
        "simclr": (doubled(simclr), grey, ADAM),
        "simclr, 32 bits": (simclr, grey, ADAM),
        "vicreg": (doubled(VICReg(expander_width=64)), grey, ADAM),
        "autoencoder": (Autoencoder(decoder_width=16), grey, ADAM),
        "cmc": (CMC(negatives=16), encoder, ADAM),
        "cmc, nce": (CMC(negatives=16, objective="nce"), encoder, ADAM),
        "cmc, in-batch": (doubled(CMC(objective="in-batch")), encoder, ADAM),
        "cifar10-fast": (doubled(fast), replace(color, backbone=FAST_NETWORK), FAST),
        "cifar10-fast, 32 bits": (fast, replace(color, backbone=FAST_NETWORK), FAST),
    }


def curve(group, method, on, schedule):
    """The loss of every step."""
    state = begin(method, on, schedule, 0, group)
    batches = Batches(on, method.views(on), schedule, 0, group)
    return [one.logs["loss"].item() for one in train(state, method, batches, schedule)]


def session(group, folder, until=None, name="simclr"):
    """Train a job with a checkpoint; after step `until` the user asks to stop."""
    method, on, schedule = jobs()[name]
    trainer = Trainer(method, on, schedule, 0, PLAN, folder, group=group)
    group.asked_to_stop = lambda: trainer.state.step == until
    try:
        trainer.run(lambda step: trainer.history.record(step, {}))
    except KeyboardInterrupt:
        assert trainer.state.step == until
    finally:
        del group.asked_to_stop
    return trainer


def everything(group, reporter, folder: Path):
    """All that can be seen of two processes that are well, so that they are started once."""
    # The unequal value is that of the process that follows.
    found = {"agreed": group.agreed(["lead" if group.leads else "follow", None])}
    if group.leads:
        reporter.say("a sentence")
    items = reporter.track(range(3), lambda: 3, "a bar")
    found["tracked"] = list(items)
    found["curves"] = {name: curve(group, *job) for name, job in jobs().items()}
    session(group, folder / "begun-alone")
    session(group, folder / "begun-together", HALF)
    found["dropped"] = dropped(group)
    if group.leads:
        write_json(folder / "found.json", found)
    write_tensors(folder / f"norm-{group.rank}.safetensors", normed(group, shared=True))


def normed(group, shared=False, size=12):
    """Batch norms of a batch whose means and variances differ between its halves."""
    torch.manual_seed(0)
    found = {}
    for name, affine, shape, kind in (
        ("affine", True, (size, 3, 4, 4), torch.float64),
        ("plain", False, (size, 3, 4, 4), torch.float64),
        ("vectors", True, (size, 3), torch.float64),
        ("bf16", True, (size, 3, 4, 4), torch.bfloat16),
    ):
        x = torch.randn(shape, dtype=torch.float64) * 3 + 5
        x[: size // 2] -= 7
        target = torch.randn(shape, dtype=torch.float64)
        wide = torch.promote_types(kind, torch.float32)
        weight, bias, mean, var = (torch.rand(3, dtype=wide) + 0.5 for _ in range(4))
        part = group.part(size)
        own = x[part].to(kind).requires_grad_()
        if affine:
            weight.requires_grad_(), bias.requires_grad_()
        given = (weight, bias) if affine else (None, None)
        with SharedNorm() if shared else nullcontext():
            y = F.batch_norm(own, mean, var, *given, training=True, momentum=0.3, eps=1e-3)
        (y * target[part]).sum().backward()
        tensors = {"y": y, "x": own.grad, "mean": mean, "var": var}
        if affine:
            tensors |= {"weight": weight.grad, "bias": bias.grad}
        found |= {f"{name}/{key}": value.detach().clone() for key, value in tensors.items()}
    return found


def dropped(group):
    """What each process drops, and a number that a loss draws after it."""
    network = group.shared(torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Dropout(0.5)))
    torch.manual_seed(0)
    out = network(torch.ones(1, 64))
    return [group.whole((out == 0).float()).tolist(), group.whole(torch.rand(1, 1)).tolist()]


def fails(group, reporter, how: str, folder: Path):
    """Train; at step `HALF` the process that does not lead (or the one that does) fails."""
    method, on, schedule = jobs()["simclr"]
    trainer = Trainer(
        method, replace(on, track=reporter.track), schedule, 0, PLAN, folder, group=group
    )
    loss = SimCLR.loss

    def failing(self, model, batch):
        if batch.step == HALF:
            trainer.history.save()
            if how == "killed" and not group.leads:
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "refused" and group.leads:
                raise HandfulError("the reason")
            if how == "broken" and not group.leads:
                raise RuntimeError("our own fault")
            if how == "diverged":
                step = loss(self, model, batch)
                return step._replace(loss=step.loss * torch.inf)
        return loss(self, model, batch)

    SimCLR.loss = failing
    trainer.run(lambda step: None, track=reporter.track)


def waits(group, reporter, folder: Path):
    """Train for ever."""
    method, on, schedule = jobs()["simclr"]
    schedule = replace(schedule, steps=10**6)
    trainer = Trainer(method, on, schedule, 0, PLAN, folder, group=group)
    trainer.run(lambda step: None, track=reporter.track)


def alone(function, *arguments):
    return function(ALONE, *arguments)
