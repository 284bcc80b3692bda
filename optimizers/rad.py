"""RAD (arXiv 2412.02291): Adam with a relativistic kinetic energy, so that no coordinate outruns a speed of light."""

from __future__ import annotations

import math
from typing import Any, Literal

from torch import Tensor
from torch.optim.optimizer import ParamsT

from .rule import Rule, decay, require, update_moments


class RAD(Rule):
    r"""Relativistic adaptive gradient descent.

        m, v    as Adam
        theta   <- (1 - lr lambda) theta - lr sqrt(1 - beta2^t) / (1 - beta1^t) m / sqrt(delta^2 v + zeta)

    arXiv 2412.02291. zeta is a number or "annealed": in step k of N it is exp(40 (k/N - 1)), held between 1e-16 and 1,
    so that the rule is Adam's for most of the run and momentum's at its end. `order` 2 puts the mean of
    1/sqrt(delta^2 v + zeta) and 1/sqrt(delta^2 v + zeta/beta1^2) in the place of the reciprocal root. With delta 1 and
    a small zeta it is Adam (eps 0).
    Deviations: none known; the rule is built from a description of the paper, and k counts a parameter's own gradients.

    Args:
        params: parameters or groups of them; dense, real gradients.
        lr: at least 0.
        betas: decay of the two moments, each in [0, 1); beta1 above 0 with order 2.
        delta: scale of the velocity, at least 0.
        zeta: "annealed" or a number above 0.
        order: 1 or 2.
        total_steps: N, filled in with the steps of the run; needed where zeta is annealed.
        weight_decay: lambda, decoupled, at least 0.
        maximize: climb instead of descending.

    Raises:
        ValueError: a hyperparameter is out of range, or zeta is annealed without `total_steps`; the message names it.
    """

    state_names = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        delta: float = 1.0,
        zeta: float | Literal["annealed"] = "annealed",
        order: int = 1,
        total_steps: int | None = None,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "delta": delta,
            "zeta": zeta,
            "order": order,
            "total_steps": total_steps,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        zeta, order, total = group["zeta"], group["order"], group["total_steps"]
        require("delta", group["delta"], "at least 0", group["delta"] >= 0)
        require("zeta", zeta, "annealed or above 0", zeta == "annealed" or (not isinstance(zeta, str) and zeta > 0))
        require("order", order, "1 or 2", order in (1, 2))
        require("betas", group["betas"], "above 0 first where order is 2", order == 1 or group["betas"][0] > 0)
        require("total_steps", total, "above 0 where zeta is annealed", zeta != "annealed" or (total or 0) > 0)

    def update(self, group: dict[str, Any], param: Tensor, grad: Tensor, state: dict[str, Any]) -> None:
        (beta1, beta2), step, zeta = group["betas"], state["step"], group["zeta"]
        if zeta == "annealed":
            zeta = annealed(step, group["total_steps"])
        decay(param, group["lr"], group["weight_decay"])
        update_moments(state["exp_avg"], state["exp_avg_sq"], grad, beta1, beta2)
        rate = group["lr"] * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
        scale = reciprocal_root(state["exp_avg_sq"], group["delta"], zeta, beta1 if group["order"] == 2 else None)
        param.sub_(scale.mul_(state["exp_avg"]).mul_(rate))


def annealed(step: int, total_steps: int) -> float:
    """zeta in step k of N: exp(40 (k/N - 1)), between 1e-16 and 1."""
    return min(max(math.exp(min(0.0, 40 * (step / total_steps - 1))), 1e-16), 1.0)


def reciprocal_root(exp_avg_sq: Tensor, delta: float, zeta: float, beta1: float | None = None) -> Tensor:
    """1 / sqrt(delta^2 v + zeta); with beta1 its mean with 1 / sqrt(delta^2 v + zeta / beta1^2). Shaped like v."""
    scaled = exp_avg_sq * delta**2
    first = (scaled + zeta).rsqrt_()
    return first if beta1 is None else first.add_((scaled + zeta / beta1**2).rsqrt_()).div_(2)
