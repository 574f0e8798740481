"""The one training loop, and what is needed to stop it anywhere and go on to the same last bit.

A step depends only on the state before it and on (seed, step): its labelled images, augmentations
and dropout are drawn from a generator seeded by those two numbers. A checkpoint therefore holds
tensors and a step count, and no random state.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from handful import devices, seeds
from handful.methods.base import Batch, Stateful, Step, Task, Trained
from handful.methods.schedule import Reschedule, Schedule, ScheduleProgress
from handful.models.fast_conv import use_fast_backward
from handful.training.batches import Batches
from handful.training.optimizers import make_optimizer
from handful.training.weight_average import Average


class Diverged(ValueError):
    """The loss stopped being a number; the message says at which step and what to change."""


class State:
    """All that changes while training: network, average, optimiser, memory, steps taken, progress."""

    def __init__(
        self, model: nn.Module, schedule: Schedule, method_state: Mapping[str, Tensor] | None = None
    ) -> None:
        self.model = model.to(devices.device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(self.model, schedule)
        self.average = Average(self.model, schedule.average)
        self.method_state = {k: v.to(devices.device()) for k, v in (method_state or {}).items()}
        self.step = 0
        self.schedule_progress = ScheduleProgress(schedule.steps)

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name, ready for a safetensors file."""
        found = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        found |= {f"average/{k}": v for k, v in self.average.model.state_dict().items()}
        found |= {f"memory/{k}": v for k, v in self.method_state.items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer/{i}/{k}": v for k, v in moments.items() if v is not None}
        turns = torch.tensor(self.schedule_progress.reschedules, dtype=torch.int64).view(-1, 3)
        return found | {"step": torch.tensor(self.step), "turns": turns}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        def under(prefix: str) -> dict[str, Tensor]:
            start = prefix + "/"
            return {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}

        self.model.load_state_dict(under("model"))
        self.average.model.load_state_dict(under("average"))
        remembered = under("memory")
        for key, tensor in self.method_state.items():
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
        self.schedule_progress = replace(
            self.schedule_progress, reschedules=tuple(Reschedule(*turn) for turn in turns.tolist())
        )


class Progress(NamedTuple):
    step: int  # steps taken so far, 1-based
    logs: dict[str, Tensor]  # left on the device: reading them is the caller's cost
    state: State  # the network, its average, the optimiser


def train(
    state: State, method: Trained, batches: Batches, schedule: Schedule, precision: str = "fp32"
) -> Iterator[Progress]:
    """Yield after every step; the caller prints, evaluates, saves, turns or stops by leaving."""
    while state.step < state.schedule_progress.last:
        rate = schedule.rate(state.schedule_progress.position(state.step))
        for group in state.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.hashed(batches.seed, state.step, seeds.DROPOUT))
            loss, logs = _gradients(state, method, batches[state.step], precision)
        if not torch.isfinite(loss):
            raise Diverged(
                f"the loss became {loss.item()} at step {state.step + 1} of {state.schedule_progress.last} "
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
    batch = batch._replace(
        averaged=state.average.model,
        state=state.method_state,
        schedule_progress=state.schedule_progress,
    )
    with devices.autocast(precision):
        step = method.loss(state.model, batch)
    state.optimizer.zero_grad()
    step.loss.backward()
    return step


def fresh(method: Trained, task: Task, seed: int) -> nn.Module:
    """The method's network with weights drawn from `seed`; the global random state is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = method.build(task)
    if devices.device().type == "cpu":
        use_fast_backward(network)
    return network


def begin(method: Trained, task: Task, schedule: Schedule, seed: int) -> State:
    """The state before the first step: fresh weights, and the method's memory."""
    network = fresh(method, task, seed)
    if not isinstance(method, Stateful):
        return State(network, schedule)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeds.hashed(seed, seeds.Purpose.METHOD_STATE))
        return State(network, schedule, method.state(task))
