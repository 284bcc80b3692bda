"""VRLion: Lion under the velocity gate."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .gate import blended_power_sum, power_sum
from .gated import Columns, GatedOptimizer
from .rule import require


class VRLion(GatedOptimizer):
    r"""Lion (arXiv 2302.06675, Algorithm 2) with the gate of arXiv 2505.13196 on its momentum.

        c_t     = beta1 v_{t-1} + (1 - beta1) g_t
        v_t     = beta2 v_{t-1} + (1 - beta2) g_t
        eta_t   = lr / (1 + min(beta3 ||v_t||^2, alpha1))
        theta_t = (1 - eta_t lambda) theta_{t-1} - eta_t sign(c_t)

    The sign throws the gradient's size away; the gate brings some of it back, as one number. `beta3` 0 is Lion.

    Args:
        params: parameters or groups of them, dense gradients.
        lr: largest rate; a float or a tensor of one element.
        betas: weight of the momentum in the direction, and its decay; each in [0, 1).
        beta3, alpha1, power, gate_on, gate_scope: the gate, as in `vrbench.optimizers.vradam.VRAdam`.
        weight_decay: lambda, decoupled, at least 0.
        maximize: climb instead of descending.

    Each group reports `effective_lr`, `gate` and `velocity_sq`. Complex parameters move along the signs of their real
    and imaginary parts.

    Raises:
        ValueError: a hyperparameter is out of range; the message names it.
        RuntimeError: a gradient is sparse.
    """

    state_names = ("exp_avg",)

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        beta3: float = 1.0,
        alpha1: float = 10.0,
        weight_decay: float = 0.0,
        *,
        power: float = 2.0,
        gate_on: Literal["velocity", "gradient"] = "velocity",
        gate_scope: Literal["global", "group", "tensor"] = "global",
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "beta3": beta3,
            "alpha1": alpha1,
            "weight_decay": weight_decay,
            "power": power,
            "gate_on": gate_on,
            "gate_scope": gate_scope,
            "maximize": maximize,
            "differentiable": False,
        }
        super().__init__(params, defaults)

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        betas = group["betas"]
        require("betas", betas, "two numbers in [0, 1)", len(betas) == 2 and all(0 <= b < 1 for b in betas))

    def power_sum(self, group: dict[str, Any], columns: Columns) -> Tensor:
        if group["gate_on"] == "gradient":
            return power_sum(columns.grads, group["power"])
        weight = 1 - group["betas"][1]
        return blended_power_sum(
            columns.state["exp_avg"], columns.grads, weight, group["power"], maximize=group["maximize"]
        )

    def update(self, group: dict[str, Any], columns: Columns, rate: Tensor) -> None:
        beta1, beta2 = group["betas"]
        for p, g, v in zip(columns.params, columns.grads, columns.state["exp_avg"], strict=True):
            lion_update(p, -g if group["maximize"] else g, v, rate, beta1, beta2, group["weight_decay"])


def lion_update(
    param: Tensor, grad: Tensor, velocity: Tensor, rate: Tensor, beta1: float, beta2: float, weight_decay: float
) -> None:
    """One Lion step at the scalar tensor `rate`; `param` and `velocity` change in place."""
    direction = torch.lerp(velocity, grad, 1 - beta1).sign_()
    velocity.lerp_(grad, 1 - beta2)
    if weight_decay != 0:
        param.mul_(1 - rate * weight_decay)
    param.addcmul_(direction, rate, value=-1)
