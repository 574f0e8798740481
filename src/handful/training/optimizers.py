"""Optimisers of a schedule, and LARS: SGD whose step is proportional to the norm of each tensor.

You et al. 2017, arXiv:1708.03888, in the form of SimCLR's authors (google-research/simclr,
lars_optimizer.py): the momentum buffer includes the learning rate, so each step keeps the rate it
was computed with, and the trust ratio applies with and without weight decay. Groups with
`adapt=False` (batch norms and biases) have no trust ratio.
"""

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from handful import devices
from handful.errors import HandfulError
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
    biases and norms. The backbone's rate is `backbone_rate` times the schedule's, and times
    `layer_decay` for each layer above; each group has its factor in `rate`. On the CPU the
    optimiser is fused, which saves small networks a tenth of a step.

    Raises:
        HandfulError: there is a `layer_decay`, and the backbone does not say its layers.
    """
    above = {} if schedule.layer_decay == 1 else layers_above(getattr(model, "backbone", model))
    weights: dict[tuple[bool, int, bool], list[nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            inside, matrix = name.startswith("backbone."), weight.ndim > 1
            layers = above.get(name.removeprefix("backbone."), 0) if inside else 0
            weights.setdefault((inside, layers, matrix), []).append(weight)
    groups = []
    for (inside, layers, matrices), some in sorted(
        weights.items(), key=itemgetter(0), reverse=True
    ):
        decay = schedule.weight_decay if matrices else 0.0
        rate = schedule.backbone_rate * schedule.layer_decay**layers if inside else 1.0
        groups.append({"params": some, "weight_decay": decay, "adapt": matrices, "rate": rate})
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


def layers_above(backbone: nn.Module) -> dict[str, int]:
    """By name of a parameter of the backbone, how many layers lie above its own; see `models`.

    Raises:
        HandfulError: the backbone does not say.
    """
    found: dict[str, int] | None = getattr(backbone, "layers_above", None)
    if found is None:
        raise HandfulError(
            f"layer_decay needs a network that says its layers: lite0, lite1, lite2, or one of "
            f"timm; {type(backbone).__name__} does not. Use layer_decay=1, or backbone_rate for a "
            f"lower rate of the whole network"
        )
    return found
