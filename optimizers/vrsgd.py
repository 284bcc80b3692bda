"""VRSGD: heavy-ball momentum under the velocity gate (the setting of arXiv 2505.13196, Theorem 4.1)."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor
from torch.optim.optimizer import ParamsT

from .gate import power_sum
from .gated import Columns, GatedOptimizer
from .rule import require


class VRSGD(GatedOptimizer):
    r"""Gradient descent with momentum, its rate divided by one plus the squared norm of the velocity.

        v_t     = momentum v_{t-1} + g_t
        eta_t   = lr / (1 + min(beta3 ||v_t||^2, alpha1))
        theta_t = (1 - eta_t lambda) theta_{t-1} - eta_t v_t

    Whatever the gradients do, while the gate is not at its floor (beta3 ||v||^2 < alpha1) no step is longer than
    lr / (2 sqrt(beta3)), weight decay aside. `beta3` 0 and no weight decay is torch.optim.SGD with momentum.

    Args:
        params: parameters or groups of them, dense gradients.
        lr: largest rate; a float or a tensor of one element.
        momentum: in [0, 1).
        beta3, alpha1, power, gate_on, gate_scope: the gate, as in `vrbench.optimizers.vradam.VRAdam`.
        weight_decay: lambda, decoupled (torch.optim.SGD adds it to the gradient), at least 0.
        maximize: climb instead of descending.
        differentiable: gradients flow through the step.

    Each group reports `effective_lr`, `gate` and `velocity_sq`.

    Raises:
        ValueError: a hyperparameter is out of range; the message names it.
        RuntimeError: a gradient is sparse.
    """

    state_names = ("momentum_buffer",)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.05,
        momentum: float = 0.9,
        beta3: float = 1.0,
        alpha1: float = 10.0,
        weight_decay: float = 0.0,
        *,
        power: float = 2.0,
        gate_on: Literal["velocity", "gradient"] = "velocity",
        gate_scope: Literal["global", "group", "tensor"] = "global",
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "beta3": beta3,
            "alpha1": alpha1,
            "weight_decay": weight_decay,
            "power": power,
            "gate_on": gate_on,
            "gate_scope": gate_scope,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        require("momentum", group["momentum"], "in [0, 1)", 0 <= group["momentum"] < 1)

    def power_sum(self, group: dict[str, Any], columns: Columns) -> Tensor:
        velocities = columns.state["momentum_buffer"]
        for v, g in zip(velocities, columns.grads, strict=True):
            v.mul_(group["momentum"]).add_(g, alpha=-1 if group["maximize"] else 1)
        if group["differentiable"]:
            velocities = [v.clone() for v in velocities]
        return power_sum(columns.grads if group["gate_on"] == "gradient" else velocities, group["power"])

    def update(self, group: dict[str, Any], columns: Columns, rate: Tensor) -> None:
        for p, v in zip(columns.params, columns.state["momentum_buffer"], strict=True):
            gated_momentum_update(p, v.clone() if group["differentiable"] else v, rate, group["weight_decay"])


def gated_momentum_update(param: Tensor, direction: Tensor, rate: Tensor, weight_decay: float) -> None:
    """theta <- (1 - eta lambda) theta - eta d, in place, for a scalar tensor eta and a direction d like theta."""
    if weight_decay != 0:
        param.mul_(1 - rate * weight_decay)
    param.addcmul_(direction, rate, value=-1)
