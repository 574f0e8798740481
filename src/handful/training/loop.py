"""The training loop and its state, which can be saved and resumed bit-identically at any step.

A step depends only on the state before it and on (seed, step): the generator that draws its images,
augmentations and dropout is seeded by these two numbers. A checkpoint therefore holds tensors and a
step count, and no random state. Trainings in several threads take turns step by step.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from handful import devices, seeds
from handful.errors import HandfulError
from handful.methods.base import Batch, Stateful, Step, Task, Trained, advice_of
from handful.methods.schedule import Reschedule, Schedule, ScheduleProgress
from handful.models.fast_conv import use_fast_backward
from handful.training.batches import Batches
from handful.training.optimizers import make_optimizer
from handful.training.process_group import ALONE, ProcessGroup
from handful.training.weight_average import Average


class Diverged(HandfulError):
    """The loss is no longer finite; the message names the step and the settings to change."""


class State:
    """Everything that changes during training.

    Args:
        model: the network; it is moved to the device.
        schedule: of the optimiser and the weight average.
        method_state: tensors by name that a `Stateful` method keeps beside the network.
        group: the processes that train together; each has a state, and all states are equal.
        start_share: of the first weights in the evaluated and saved ones; see `Average.mixed`.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        method_state: Mapping[str, Tensor] | None = None,
        group: ProcessGroup = ALONE,
        start_share: float = 0.0,
    ) -> None:
        self.model = model.to(devices.device(), memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(self.model, schedule)
        self.average = Average(self.model, schedule.average, start_share)
        self.method_state = {k: v.to(devices.device()) for k, v in (method_state or {}).items()}
        self.step = 0
        self.schedule_progress = ScheduleProgress(schedule.steps)
        self.group = group
        self.network = group.shared(self.model)  # what a loss calls, with the model's weights

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the state by name, for a safetensors file."""
        found = {f"model/{k}": v for k, v in self.model.state_dict().items()}
        found |= {f"average/{k}": v for k, v in self.average.model.state_dict().items()}
        if self.average.start is not None:
            found |= {f"start/{k}": v for k, v in self.average.start.state_dict().items()}
        found |= {f"memory/{k}": v for k, v in self.method_state.items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer/{i}/{k}": v for k, v in moments.items() if v is not None}
        turns = torch.tensor(self.schedule_progress.reschedules, dtype=torch.int64).view(-1, 3)
        return found | {"step": torch.tensor(self.step), "turns": turns}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Overwrite the state with the result of `tensors()` of an equal network and schedule."""

        def under(prefix: str) -> dict[str, Tensor]:
            start = prefix + "/"
            return {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}

        self.model.load_state_dict(under("model"))
        self.average.model.load_state_dict(under("average"))
        if self.average.start is not None:
            self.average.start.load_state_dict(under("start"))
        saved_state = under("memory")
        for key, tensor in self.method_state.items():
            tensor.copy_(saved_state[key])
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in under("optimizer").items():
            index, name = key.split("/", 1)
            moments.setdefault(int(index), {})[name] = value
        current = self.optimizer.state_dict()
        self.optimizer.load_state_dict({"state": moments, "param_groups": current["param_groups"]})
        for weight, restored in self.optimizer.state.items():
            for key, value in restored.items():
                if value.shape == weight.shape:  # fused steps need equal memory layouts
                    restored[key] = torch.empty_like(weight).copy_(value)
        self.step = int(tensors["step"])
        turns = tensors.get("turns", torch.empty(0, 3))  # older checkpoints have none
        self.schedule_progress = replace(
            self.schedule_progress, reschedules=tuple(Reschedule(*turn) for turn in turns.tolist())
        )


class Progress(NamedTuple):
    step: int  # steps taken so far, 1-based
    logs: dict[str, Tensor]  # left on the device: reading them is the caller's cost
    state: State  # after this step


def train(
    state: State, method: Trained, batches: Batches, schedule: Schedule, precision: str = "fp32"
) -> Iterator[Progress]:
    """Train until the last step, and yield after every step.

    The caller may evaluate, save or reschedule between steps, and stops by leaving the loop.

    Args:
        batches: `batches[step]` is the batch of a step.
        precision: fp32 or bf16.

    Raises:
        Diverged: the loss of a step is not finite.
    """
    while state.step < state.schedule_progress.last:
        rate = schedule.rate(state.schedule_progress.position(state.step))
        for group in state.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        with seeds.seeded(seeds.hashed(batches.seed, state.step, seeds.DROPOUT)):
            step = _gradients(state, method, batches[state.step], precision)
        loss, logs = state.group.mean(step)
        if not torch.isfinite(loss):
            lower = f"lower the learning rate, as in --set lr={schedule.lr / 10:.2g}"
            advice = advice_of(method, schedule)
            raise Diverged(
                f"the loss became {loss.item()} at step {state.step + 1} of "
                f"{state.schedule_progress.last} (learning rate {rate:.2g}, {precision}); "
                f"{f'try {advice}' if advice else lower}, or limit the gradient with --set clip=1"
            )
        if schedule.clip:
            nn.utils.clip_grad_norm_(state.model.parameters(), schedule.clip)
        state.optimizer.step()
        state.step += 1
        state.average.update(state.step)
        yield Progress(state.step, logs, state)


def _gradients(state: State, method: Trained, batch: Batch, precision: str) -> Step:
    state.model.train()
    batch = batch._replace(
        averaged=state.average.model,
        state=state.method_state,
        schedule_progress=state.schedule_progress,
    )
    with devices.autocast(precision):
        step = method.loss(state.network, batch)
    state.optimizer.zero_grad()
    state.group.backward(step.loss)
    return step


def fresh(method: Trained, task: Task, seed: int) -> nn.Module:
    """The method's untrained network, its weights drawn from `seed`.

    The global random state is left unchanged.
    """
    with seeds.seeded(seed):
        network = method.build(task)
    if devices.device().type == "cpu":
        use_fast_backward(network)
    return network


def begin(
    method: Trained, task: Task, schedule: Schedule, seed: int, group: ProcessGroup = ALONE
) -> State:
    """The state before the first step: untrained weights, and the method's state if it has one."""
    network = fresh(method, task, seed)
    start_share: float = getattr(method, "start_share", 0.0)
    if not isinstance(method, Stateful):
        return State(network, schedule, group=group, start_share=start_share)
    with seeds.seeded(seeds.hashed(seed, seeds.Purpose.METHOD_STATE)):
        return State(network, schedule, method.state(task), group, start_share)
