"""Momentum that follows the curvature along the path (arXiv 2110.09057), for SGD and for Adam."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .rule import Rule, decay, require, update_moments


class AdaptiveHeavyBall(Rule):
    r"""SGD with the momentum that is best for a quadratic whose curvature is what the last step has seen.

        L_k     = ||g_k - g_{k-1}|| / (||x_k - x_{k-1}|| + 1e-6)
        beta_k  = clip((1 - sqrt(lr L_k))^2, 0, 1 - delta)
        v       <- beta_k v + g_k,      x <- (1 - lr lambda) x - lr v

    with norms over all parameters, and beta_1 = 0. arXiv 2110.09057. At beta_k = beta it is torch.optim.SGD with
    momentum beta. delta = 0.01 and the 1e-6 are those of a third party's code: the paper's values are not among our
    sources. Deviation: weight decay is decoupled, so that it does not enter L_k. Groups with an `lr` of their own get a
    beta_k of their own. It stands in `group["beta"]` after each step, a scalar tensor.

    Args:
        params: parameters or groups of them; dense, real gradients.
        lr: at least 0.
        delta: in (0, 1): momentum stays at or below 1 - delta.
        weight_decay: lambda, decoupled, at least 0.
        maximize: climb instead of descending.

    Raises:
        ValueError: a hyperparameter is out of range; the message names it.
    """

    state_names: ClassVar[tuple[str, ...]] = ("momentum_buffer", "last_grad", "last_param")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.05,
        delta: float = 0.01,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "delta": delta, "weight_decay": weight_decay, "maximize": maximize})

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        require("delta", group["delta"], "in (0, 1)", 0 < group["delta"] < 1)

    def prepare(self, rows: list[tuple[dict[str, Any], Tensor, Tensor, dict[str, Any]]]) -> None:
        known = [(grad, state["last_grad"], p, state["last_param"]) for _, p, grad, state in rows if state["step"] > 0]
        if known:
            curvature = secant(known)
        for group in self.param_groups:
            if not known:
                group["beta"] = torch.zeros((), dtype=torch.float32)
            else:
                group["beta"] = momentum_for(curvature, group["lr"], group["delta"])
        for _, param, grad, state in rows:
            state["last_grad"].copy_(grad)
            state["last_param"].copy_(param)

    def update(self, group: dict[str, Any], param: Tensor, grad: Tensor, state: dict[str, Any]) -> None:
        velocity = state["momentum_buffer"]
        velocity.mul_(group["beta"].to(param.device, param.dtype)).add_(grad)
        decay(param, group["lr"], group["weight_decay"])
        param.sub_(velocity * group["lr"])


class AdaptiveHeavyBallAdam(AdaptiveHeavyBall):
    r"""AdamW whose beta1 is the beta_k of `AdaptiveHeavyBall`.

        m       <- beta_k m + (1 - beta_k) g_k,     v <- beta2 v + (1 - beta2) g_k^2
        x       <- (1 - lr lambda) x - lr m / (sqrt(v / (1 - beta2^t)) + eps)

    arXiv 2110.09057. As beta_1 = 0, m is a weighted mean of gradients from the first step on and needs no correction of
    its bias; at beta_k = 0 it is torch.optim.AdamW with beta1 0. Deviations as in `AdaptiveHeavyBall`.

    Args:
        params, lr, delta, weight_decay, maximize: as in `AdaptiveHeavyBall`.
        beta2: decay of the second moment, in [0, 1).
        eps: added to the denominator, at least 0.

    Raises:
        ValueError: a hyperparameter is out of range; the message names it.
    """

    state_names: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq", "last_grad", "last_param")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        beta2: float = 0.999,
        eps: float = 1e-8,
        delta: float = 0.01,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "beta2": beta2, "eps": eps, "delta": delta}
        Rule.__init__(self, params, {**defaults, "weight_decay": weight_decay, "maximize": maximize})

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        require("beta2", group["beta2"], "in [0, 1)", 0 <= group["beta2"] < 1)

    def update(self, group: dict[str, Any], param: Tensor, grad: Tensor, state: dict[str, Any]) -> None:
        beta, beta2 = group["beta"].to(param.device, param.dtype), group["beta2"]
        decay(param, group["lr"], group["weight_decay"])
        update_moments(state["exp_avg"], state["exp_avg_sq"], grad, beta, beta2)
        denominator = state["exp_avg_sq"].sqrt().div_((1 - beta2 ** state["step"]) ** 0.5).add_(group["eps"])
        param.sub_(state["exp_avg"] / denominator * group["lr"])


def secant(known: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> Tensor:
    """L = ||g - g'|| / (||x - x'|| + 1e-6) over all (g, g', x, x'), a scalar on the first one's device."""
    device = known[0][0].device
    turned = sum(_square(grad - last).to(device) for grad, last, _, _ in known)
    walked = sum(_square(param - last).to(device) for _, _, param, last in known)
    assert isinstance(turned, Tensor)
    assert isinstance(walked, Tensor)
    return turned.sqrt() / (walked.sqrt() + 1e-6)


def _square(x: Tensor) -> Tensor:
    """||x||^2 in float32 at least; over all ranks where it is a DTensor."""
    total: Any = x.to(torch.promote_types(x.dtype, torch.float32)).square().sum()
    return total.full_tensor() if hasattr(total, "full_tensor") else total


def momentum_for(curvature: Tensor, lr: float | Tensor, delta: float) -> Tensor:
    """beta = clip((1 - sqrt(lr L))^2, 0, 1 - delta), a scalar."""
    return (1 - (lr * curvature).sqrt()).square().clamp(max=1 - delta)
