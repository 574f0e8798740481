"""What computes the features of a frozen network: ONNX Runtime or torch.

ONNX Runtime takes the networks that have a graph, on a processor, in int8 or in 32 bits. In 32 bits
it is 2 to 3 times as fast as torch, in int8 5 to 9 times (docs/how-to/backbone.md has a table).

Letters in shapes: N images, C channels, S the side in pixels, D features.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from handful import devices, onnx_runtime
from handful.data.thread_pool import in_order
from handful.errors import HandfulError

ONNX_RUNTIME, TORCH = "onnxruntime", "torch"
INT8 = "int8"  # a precision of features that ONNX Runtime computes


@runtime_checkable
class WithGraph(Protocol):
    """A network that ONNX Runtime may compute."""

    @property
    def has_graph(self) -> bool:
        """Whether it has a graph; False where one of several networks has none."""

    def runner(self, int8: bool = False) -> Callable[[Tensor], Tensor]:
        """Return a function: (N, C, S, S) uint8 → (N, D) float32, the same for any batch.

        It computes in 32 bits or in int8, in the thread that calls it; several threads may call it
        at a time.
        """


def resolved(precision: str, has_graph: bool = False) -> str:
    """int8, bf16 or fp32; the fastest one for "auto".

    Args:
        precision: auto, int8, bf16 or fp32.
        has_graph: whether the network has a graph; ONNX Runtime then computes it on a processor, in
            int8 where the processor is fast at that, else in 32 bits.

    Raises:
        HandfulError: `precision` is none of these.
    """
    if precision == "auto":
        if has_graph and devices.device().type == "cpu":
            return INT8 if devices.has_fast_int8() else "fp32"
        return "bf16" if devices.has_bf16() else "fp32"
    if precision not in (INT8, "bf16", "fp32"):
        raise HandfulError(f"precision is auto, int8, bf16 or fp32, got {precision!r}")
    if precision == INT8 and not has_graph:
        raise HandfulError(
            "precision int8 is for features of lite0, lite1 and lite2; choose auto, fp32 or bf16"
        )
    return precision


def has_graph(network: nn.Module) -> bool:
    return isinstance(network, WithGraph) and network.has_graph


def engine_of(network: nn.Module, precision: str) -> str:
    """`ONNX_RUNTIME` or `TORCH`; `precision` is int8, bf16 or fp32.

    Features in int8 come from ONNX Runtime everywhere, so that a run answers alike on any machine.
    """
    here = precision == INT8 or (precision == "fp32" and devices.device().type == "cpu")
    return ONNX_RUNTIME if here and has_graph(network) else TORCH


@dataclass(frozen=True)
class Forward:
    """A function: (N, C, S, S) uint8 → (N, D) float16 features on the processor."""

    compute: Callable[[Tensor], Tensor]
    threads: int  # that compute a batch each; 1 where one batch takes all threads of torch

    def __call__(self, pixels: Tensor) -> Tensor:
        return self.compute(pixels)

    def each(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """The features of every batch, in order.

        Threads with a batch each wait for nobody, where threads that share one wait for each other
        at every layer.
        """
        if self.threads == 1:
            return map(self.compute, batches)
        return in_order(self.compute, batches, self.threads)


def forward(network: nn.Module, precision: str, count: int) -> Forward:
    """Return the function that computes the features of a network.

    Args:
        network: in evaluation mode; maps images in [0, 1] to features.
        precision: int8, bf16 or fp32.
        count: images in a pass of torch, on which the last bits of its features depend.
    """
    if engine_of(network, precision) == ONNX_RUNTIME:
        assert isinstance(network, WithGraph)
        run = network.runner(precision == INT8)

        def by_onnx(pixels: Tensor) -> Tensor:
            parts = pixels.split(onnx_runtime.images_in_a_pass(pixels.shape[-1]))
            return torch.cat([run(part).half() for part in parts])

        return Forward(by_onnx, torch.get_num_threads())

    def by_torch(pixels: Tensor) -> Tensor:
        rows = []
        with torch.inference_mode(), devices.autocast(precision):
            for some in pixels.split(count):
                whole = filled(some, count).to(devices.device())
                images = whole.to(memory_format=torch.channels_last).float() / 255
                rows.append(network(images)[: len(some)].to("cpu", torch.float16))
        return torch.cat(rows)

    return Forward(by_torch, 1)


def filled(pixels: Tensor, count: int) -> Tensor:
    """Pixels (N, C, S, S) with black images after them, so that there are `count`."""
    missing = count - len(pixels)
    return torch.cat([pixels, pixels.new_zeros(missing, *pixels.shape[1:])]) if missing else pixels
