"""The processes that train one network together, as one of them sees them.

`ProcessGroup` is a process alone. `FabricGroup` is one of several, each with a device of its own
and with its part of every batch; Lightning Fabric's DDP averages their gradients. The training loop
is the same for both, and a checkpoint does not tell which one wrote it.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from handful import devices, seeds
from handful.methods.base import Step
from handful.models.shared_norm import SharedNorm

T = TypeVar("T")


class ProcessGroup:
    """A process that trains alone."""

    rank = 0  # the number of this process...
    size = 1  # ...of so many

    @property
    def leads(self) -> bool:
        """Whether this process evaluates, decides and saves; the others follow."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """The rows of a batch of `count` that this process takes; `size` divides `count`."""
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def shared(self, network: nn.Module) -> nn.Module:
        """The network as a loss calls it: with one batch norm and averaged gradients for all."""
        return network

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def whole(self, rows: Tensor) -> Tensor:
        """All rows of a batch, of which each process has a part, in their order.

        Gradients flow back to the process that has the row.
        """
        return rows

    def mean(self, step: Step) -> Step:
        """The step with the means of its figures over all processes, without gradients."""
        return Step(step.loss.detach(), {key: value.detach() for key, value in step.logs.items()})

    def agreed(self, value: T) -> T:
        """What the process that leads has in place of `value`; plain data."""
        return value

    def asked_to_stop(self) -> bool:
        """Whether the user asked all processes to stop."""
        return False


ALONE = ProcessGroup()


class FabricGroup(ProcessGroup):
    """One process of several on this machine.

    Args:
        rank: 0 and up.
        size: number of processes, each with a GPU of its own; or all on the processor, without any.
        meeting: path of a file that is not there yet, by which the processes find each other.
        asked_to_stop: whether the user asked all processes to stop.
    """

    def __init__(
        self, rank: int, size: int, meeting: str, asked_to_stop: Callable[[], bool]
    ) -> None:
        import torch.distributed as dist
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments import LightningEnvironment
        from lightning_fabric.strategies import DDPStrategy

        self.rank, self.size = rank, size
        self._asked = asked_to_stop
        kind = devices.device().type
        more: dict[str, Any] = {}
        if kind == "cuda":
            torch.cuda.set_device(rank)
            more = {"device_id": torch.device("cuda", rank)}
        # A file, not Fabric's port: no port can be taken, and none is open to other machines.
        store = dist.FileStore(meeting, size)
        backend = "nccl" if kind == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, **more)
        # Plain data go from processor to processor, so that no GPU waits for them.
        self._plain: Any = dist.group.WORLD if kind == "cpu" else dist.new_group(backend="gloo")
        # What Fabric reads, in place of what a scheduler may have set for the command.
        for name in ("GROUP_RANK", "NODE_RANK"):
            os.environ.pop(name, None)
        os.environ["LOCAL_RANK"] = str(rank)
        ddp = DDPStrategy(cluster_environment=LightningEnvironment())
        self._fabric = Fabric(accelerator=kind, devices=size, strategy=ddp, precision="32-true")
        self._fabric.launch()

    def shared(self, network: nn.Module) -> nn.Module:
        return _Shared(self._fabric.setup_module(network, move_to_device=False), self.rank)

    def backward(self, loss: Tensor) -> None:
        self._fabric.backward(loss)

    def whole(self, rows: Tensor) -> Tensor:
        found: Tensor = _Gathered.apply(rows, self.part(len(rows) * self.size))
        return found

    def mean(self, step: Step) -> Step:
        figures = torch.stack([x.detach().float() for x in (step.loss, *step.logs.values())])
        torch.distributed.all_reduce(figures)
        loss, *logs = figures / self.size
        return Step(loss, dict(zip(step.logs, logs, strict=True)))

    def agreed(self, value: T) -> T:
        found = [value]
        torch.distributed.broadcast_object_list(found, 0, group=self._plain)
        return found[0]

    def asked_to_stop(self) -> bool:
        return self._asked()

    def leave(self) -> None:
        """End the connection to the other processes."""
        torch.distributed.destroy_process_group()


class _Gathered(torch.autograd.Function):
    """The rows of all processes, in order. A gradient is that of the sum of their losses."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, own: slice) -> Tensor:
        ctx.own = own
        parts = [torch.empty_like(rows) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(gradient)
        return gradient[ctx.own], None


class _Shared(nn.Module):
    """A network under DDP: one batch norm for all processes, random numbers for each its own."""

    def __init__(self, network: nn.Module, rank: int) -> None:
        super().__init__()
        self.network = network
        self.rank = rank

    def forward(self, images: Tensor) -> Any:
        # Dropout must differ between the processes' images. What a loss draws after this must not
        # differ, so the generator is put back.
        own = [torch.cuda.current_device()] if images.is_cuda else []
        with torch.random.fork_rng(own), SharedNorm():
            torch.manual_seed(seeds.hashed(torch.initial_seed(), self.rank))
            return self.network(images)
