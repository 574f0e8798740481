"""The one training loop, and what is needed to stop it anywhere and go on to the same last bit.

A step depends only on the state before it and on (seed, step): its labelled images, augmentations
and dropout are drawn from a generator seeded by those two numbers. A checkpoint therefore holds
tensors and a step count, and no random state.
"""

import copy
import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn

from handful import devices
from handful.backbones.gradients import quicken
from handful.data.augment import Pipeline, named
from handful.data.resample import Fill
from handful.lars import Lars
from handful.methods.base import Batch, Remembering, Step, Task, Trained, Views
from handful.schedule import Course, Schedule, Turn

_SHORT_STEP = 0.2  # seconds: so short ones are timed twice
_TIMED = 8  # steps that a timing takes, the first three to warm up


class Diverged(ValueError):
    """The loss stopped being a number; the message says at which step and what to change."""


def seeded(*numbers: int) -> int:
    """One 63-bit seed from several numbers, with no pattern between neighbours."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Batches:
    """`batches[step]` is the batch of that step, the same whenever it is asked for."""

    def __init__(self, task: Task, views: Views, schedule: Schedule, seed: int) -> None:
        device = devices.device()
        self.pixels, self.labels = task.pixels.to(device), task.labels.to(device)
        self.labeled, self.unlabeled = task.labeled, task.unlabeled
        self.of_labeled = None if views.labeled is None else _pipeline(views.labeled, task)
        self.of_unlabeled = tuple(_pipeline(view, task) for view in views.unlabeled)
        self.size = schedule.batch
        self.ratio = views.unlabeled_ratio
        self.seed = seed
        labeled_views = 0 if self.of_labeled is None else 1
        self.images_per_step = self.size * (labeled_views + self.ratio * len(self.of_unlabeled))

    def __getitem__(self, step: int) -> Batch:
        generator = torch.Generator().manual_seed(seeded(self.seed, step))
        ids, images = self._labeled(step, generator)
        unlabeled: tuple[Tensor, ...] = ()
        unlabeled_ids = None
        if self.of_unlabeled:
            count = self.size * self.ratio
            turn = _turn(len(self.unlabeled), count, step, seeded(self.seed, -2))
            unlabeled_ids = self.unlabeled[turn]
            pixels = self.pixels[unlabeled_ids]
            unlabeled = tuple(view(pixels, generator) for view in self.of_unlabeled)
        return Batch(
            images,
            self.labels[ids],
            unlabeled,
            ids,
            unlabeled_ids,
            step=step,
            pixels=self.pixels,
        )

    def _labeled(self, step: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Positions (N,) and views (N, C, S, S); N is 0 for a method that looks at no label."""
        if self.of_labeled is None:
            nobody = torch.empty(0, dtype=torch.int64)
            return nobody, self.pixels[nobody].float()
        ids = self.labeled[_turn(len(self.labeled), self.size, step, seeded(self.seed, -1))]
        return ids, self.of_labeled(self.pixels[ids], generator)


def _pipeline(view: str | Pipeline, task: Task) -> Pipeline:
    if view == "auto":
        view = "digits" if task.channels == 1 else "strong"
    # A mirrored border would put strokes around a symbol; photographs bear it.
    grey: Fill | None = "background" if task.channels == 1 else None
    return named(view, flips=task.flips, fill=grey)


def _turn(n: int, size: int, step: int, seed: int) -> Tensor:
    """Positions (size,) of one batch: shuffled pass after shuffled pass over n images."""
    places = torch.arange(step * size, (step + 1) * size)
    passes = places // n
    shuffles = [_shuffle(n, seed, k) for k in passes.unique().tolist()]
    return torch.cat(
        [
            shuffle[places[passes == k] % n]
            for k, shuffle in zip(passes.unique(), shuffles, strict=True)
        ]
    )


@lru_cache(maxsize=64)
def _shuffle(n: int, seed: int, number: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seeded(seed, number)))


class Average:
    """Exponential moving average of a network, batch-norm statistics included.

    Only parameters and batch norm's running mean and variance are averaged; every other buffer (a
    counter, a constant) is copied. The decay grows from 0.1 so that early averages follow the
    weights: min(decay, (1 + t) / (10 + t)), as in TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        moving = _moving_statistics(model)
        self._averaged: list[tuple[Tensor, Tensor]] = []  # (ours, the network's)
        self._copied: list[tuple[Tensor, Tensor]] = []
        for (name, ours), theirs in zip(_tensors(self.model), _tensors(model), strict=True):
            parameter = isinstance(theirs[1], nn.Parameter)
            pairs = self._averaged if parameter or name in moving else self._copied
            pairs.append((ours, theirs[1]))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the network as it is after `step` steps."""
        decay = min(self.decay, (1 + step) / (10 + step)) if self.decay else 0.0
        ours, theirs = zip(*self._averaged, strict=True)
        torch._foreach_lerp_(ours, theirs, 1 - decay)
        for mine, other in self._copied:
            mine.copy_(other)


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _moving_statistics(model: nn.Module) -> set[str]:
    """Names of the running means and variances of all batch norms."""
    return {
        f"{name}.{key}".removeprefix(".")
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for key in ("running_mean", "running_var")
    }


def make_optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """Weight decay is for weights with two or more dimensions: not for biases and norms.

    Nor are those adapted by LARS. Weights of the backbone have a learning rate of their own. On
    the CPU one pass over the weights does it all, which saves small networks a tenth of a step.
    """
    groups = []
    for inside, matrices in product((True, False), (True, False)):
        some = [
            p
            for name, p in model.named_parameters()
            if p.requires_grad and name.startswith("backbone.") == inside
            if (p.ndim > 1) == matrices
        ]
        decay = schedule.weight_decay if matrices else 0.0
        rate = schedule.backbone_rate if inside else 1.0
        groups.append({"params": some, "weight_decay": decay, "adapt": matrices, "rate": rate})
    groups = [group for group in groups if group["params"]]
    betas = (schedule.momentum, 0.999)
    fused = devices.device().type == "cpu" or None  # None: as torch thinks best
    match schedule.optimizer:
        case "adam":
            return torch.optim.Adam(groups, schedule.lr, betas, fused=fused)
        case "adamw":
            return torch.optim.AdamW(groups, schedule.lr, betas, fused=fused)
        case "lars":
            return Lars(groups, schedule.lr, schedule.momentum)
        case _:
            nesterov = schedule.momentum > 0
            return torch.optim.SGD(
                groups, schedule.lr, schedule.momentum, nesterov=nesterov, fused=fused
            )


class State:
    """All that changes while training: network, average, optimiser, memory, steps taken, course."""

    def __init__(
        self, model: nn.Module, schedule: Schedule, memory: Mapping[str, Tensor] | None = None
    ) -> None:
        self.model = model.to(devices.device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(self.model, schedule)
        self.average = Average(self.model, schedule.average)
        self.memory = {k: v.to(devices.device()) for k, v in (memory or {}).items()}
        self.step = 0
        self.course = Course(schedule.steps)

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name, ready for a safetensors file."""
        found = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        found |= {f"average/{k}": v for k, v in self.average.model.state_dict().items()}
        found |= {f"memory/{k}": v for k, v in self.memory.items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer/{i}/{k}": v for k, v in moments.items() if v is not None}
        turns = torch.tensor(self.course.turns, dtype=torch.int64).view(-1, 3)
        return found | {"step": torch.tensor(self.step), "turns": turns}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        def under(prefix: str) -> dict[str, Tensor]:
            start = prefix + "/"
            return {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}

        self.model.load_state_dict(under("model"))
        self.average.model.load_state_dict(under("average"))
        remembered = under("memory")
        for key, tensor in self.memory.items():
            tensor.copy_(remembered[key])
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in under("optimizer").items():
            index, name = key.split("/", 1)
            moments.setdefault(int(index), {})[name] = value
        saved = self.optimizer.state_dict()
        self.optimizer.load_state_dict({"state": moments, "param_groups": saved["param_groups"]})
        for weight, kept in self.optimizer.state.items():
            for key, value in kept.items():
                if value.shape == weight.shape:  # fused steps want both laid out alike in memory
                    kept[key] = torch.empty_like(weight).copy_(value)
        self.step = int(tensors["step"])
        turns = tensors.get("turns", torch.empty(0, 3))  # not in a checkpoint of an older version
        self.course = replace(self.course, turns=tuple(Turn(*turn) for turn in turns.tolist()))


class Progress(NamedTuple):
    step: int  # steps taken so far, 1-based
    logs: dict[str, Tensor]  # left on the device: reading them is the caller's cost
    state: State  # the network, its average, the optimiser


def train(
    state: State, method: Trained, batches: Batches, schedule: Schedule, precision: str = "fp32"
) -> Iterator[Progress]:
    """Yield after every step; the caller prints, evaluates, saves, turns or stops by leaving."""
    while state.step < state.course.last:
        rate = schedule.rate(state.course.position(state.step))
        for group in state.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeded(batches.seed, state.step, 1))  # dropout
            loss, logs = _gradients(state, method, batches[state.step], precision)
        if not torch.isfinite(loss):
            raise Diverged(
                f"the loss became {loss.item()} at step {state.step + 1} of {state.course.last} "
                f"(learning rate {rate:.2g}, {precision}); lower the learning rate, as in "
                f"--set lr={schedule.lr / 10:.2g}, or limit the gradient with --set clip=1"
            )
        if schedule.clip:
            nn.utils.clip_grad_norm_(state.model.parameters(), schedule.clip)
        state.optimizer.step()
        state.step += 1
        state.average.update(state.step)
        yield Progress(state.step, {k: v.detach() for k, v in logs.items()}, state)


def _gradients(state: State, method: Trained, batch: Batch, precision: str) -> Step:
    state.model.train()
    batch = batch._replace(averaged=state.average.model, memory=state.memory, course=state.course)
    with devices.autocast(precision):
        step = method.loss(state.model, batch)
    state.optimizer.zero_grad()
    step.loss.backward()
    return step


@dataclass(frozen=True)
class Plan:
    """What is measured once before training and then kept: a resumed run reads it back."""

    precision: str  # fp32 or bf16
    threads: int  # of the processor; another number may change the last bits
    seconds_per_step: float
    steps: int | None = None  # of the schedule, where a budget of time has fixed them
    pause: float = 0.0  # seconds more that a step takes which is the first of a period...
    period: int = 1  # ...of so many steps, see `methods.base.Trained`
    first: float = 0.0  # the same of the very first, which may be another
    taken: int | None = None  # how many steps that schedule is done in, if not in its own number
    look: float = 0.0  # seconds that a look takes
    allowed: float | None = None  # seconds a training may take from its first look on, all in all

    @property
    def whole(self) -> float:
        """Seconds of a period after the first, its pause included."""
        return self.period * self.seconds_per_step + self.pause

    def seconds(self, steps: int) -> float:
        """What so many steps, one or more, take, pauses included."""
        later = -(-steps // self.period) - 1
        return steps * self.seconds_per_step + self.first + later * self.pause

    def expected(self, steps: int) -> float:
        """Seconds that a training with a schedule of so many steps takes; looks too, if known."""
        return self.seconds(steps) if self.allowed is None else self.allowed

    def within(self, seconds: float) -> "Plan":
        """With the steps that take so long: as many as fit.

        Where there are periods, it is a schedule of whole ones, one at least, and all the seconds
        go into its steps: it is done in a few more of them, so that a pause which does not fit any
        more leaves no gap, or in fewer where not even one period fits.
        """
        if self.period == 1:
            return replace(self, steps=max(0, int(seconds / self.seconds_per_step)))
        periods = max(1, int((seconds + self.pause - self.first) / self.whole))
        rest = seconds - self.first - (periods - 1) * self.pause
        taken = max(0, int(rest / self.seconds_per_step))
        return replace(self, steps=periods * self.period if taken else 0, taken=taken)

    def course(self, schedule: Schedule) -> Course:
        """Of a training under this plan."""
        straight = Course(schedule.steps)
        taken = self.taken or straight.last
        return straight if taken == straight.last else straight.turned(0, taken)


def plan(
    method: Trained, task: Task, schedule: Schedule, seed: int, precision: str = "auto"
) -> Plan:
    """Time a few steps, in bf16 too where the processor has it; bf16 must win by a tenth.

    Where either is short both are timed twice, in turn, and the faster time of each counts: other
    work comes in bursts.
    """
    choices = [precision]
    if precision == "auto":
        choices = ["fp32", "bf16"] if devices.has_bf16() else ["fp32"]

    def timed() -> dict[str, float]:
        return {x: _seconds_per_step(method, task, schedule, seed, x) for x in choices}

    seconds = timed()
    if len(choices) > 1 and min(seconds.values()) < _SHORT_STEP:
        again = timed()
        seconds = {x: min(seconds[x], again[x]) for x in choices}
    best = choices[0]
    if len(choices) > 1 and seconds["bf16"] < 0.9 * seconds["fp32"]:
        best = "bf16"
    period: int = getattr(method, "period", 1)
    pauses = [0.0, 0.0]
    if period > 1:
        step = seconds[best]
        pauses = [_pause(method, task, schedule, seed, best, step, at) for at in (0, period)]
    first, later = pauses
    return Plan(best, torch.get_num_threads(), seconds[best], None, later, period, first)


def _seconds_per_step(
    method: Trained, task: Task, schedule: Schedule, seed: int, precision: str
) -> float:
    """Median over up to five steps or about two seconds, after two steps to warm up.

    The very first step is left out: what a method does once, it does there.
    """
    schedule = replace(schedule, steps=max(_TIMED, schedule.steps))
    state = begin(method, task, schedule, seed)
    state.step = 1
    batches = Batches(task, method.views(task), schedule, seed)
    seconds: list[float] = []
    start = begun = time.perf_counter()
    for progress in train(state, method, batches, schedule, precision):
        devices.synchronize()
        now = time.perf_counter()
        if progress.step > 3:
            seconds.append(now - start)
        if progress.step == _TIMED or seconds and now - begun > 2:
            break
        start = now
    return median(seconds)


def _pause(
    method: Trained, task: Task, schedule: Schedule, seed: int, precision: str, step: float, at: int
) -> float:
    """Seconds that step `at`, the first of a period, takes more than `step`."""
    schedule = replace(schedule, steps=at + 1)
    state = begin(method, task, schedule, seed)
    state.step = at
    batches = Batches(task, method.views(task), schedule, seed)
    begun = time.perf_counter()
    next(train(state, method, batches, schedule, precision))
    devices.synchronize()
    return max(0.0, time.perf_counter() - begun - step)


def fresh(method: Trained, task: Task, seed: int) -> nn.Module:
    """The method's network with weights drawn from `seed`; the global random state is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = method.build(task)
    if devices.device().type == "cpu":
        quicken(network)
    return network


def begin(method: Trained, task: Task, schedule: Schedule, seed: int) -> State:
    """The state before the first step: fresh weights, and the method's memory."""
    network = fresh(method, task, seed)
    if not isinstance(method, Remembering):
        return State(network, schedule)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeded(seed, -3))
        return State(network, schedule, method.memory(task))
