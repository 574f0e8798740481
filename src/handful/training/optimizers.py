"""Optimisers of a schedule, and LARS: SGD whose step is proportional to the norm of each tensor.

You et al. 2017, arXiv:1708.03888, in the form of SimCLR's authors (google-research/simclr,
lars_optimizer.py): the momentum buffer includes the learning rate, so each step keeps the rate it
was computed with, and the trust ratio applies with and without weight decay. Groups with
`adapt=False` (batch norms and biases) have no trust ratio.
"""

from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from handful import devices
from handful.methods.schedule import Schedule


class Lars(torch.optim.Optimizer):
    """SGD with momentum and a trust ratio; groups may set lr, weight_decay and adapt.

    Args:
        trust: eta, the norm of a step over the norm of the weights, at lr 1.
        adapt: whether the trust ratio scales the steps.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        adapt: bool = True,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults | {"trust": trust, "adapt": adapt})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None, "the loss is computed before the step"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                ratio = _trust_ratio(parameter, gradient, group["trust"]) if group["adapt"] else 1.0
                state["momentum_buffer"].mul_(group["momentum"]).add_(
                    gradient * ratio * group["lr"]
                )
                parameter.sub_(state["momentum_buffer"])


def _trust_ratio(weights: Tensor, gradient: Tensor, trust: float) -> Tensor:
    """() trust * |weights| / |gradient|; 1 where either norm is 0."""
    length, slope = weights.norm(), gradient.norm()
    ratio = trust * length / slope.clamp_min(1e-30)
    return torch.where((length > 0) & (slope > 0), ratio, 1.0)


def make_optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """The optimiser of a schedule.

    Weight decay and the trust ratio of LARS apply to weights with two or more dimensions, not to
    biases and norms. The backbone's rate is `backbone_rate` times the schedule's; each group has
    its factor in `rate`. On the CPU the optimiser is fused, which saves small networks a tenth of
    a step.
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
    fused = devices.device().type == "cpu" or None  # None: torch's default
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
