"""Scion (arXiv 2502.07529): steps of a fixed length in the operator norm of each layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .rule import Rule, require


class Scion(Rule):
    r"""Stochastic conditional gradient with a norm ball for each layer.

        d       <- (1 - alpha) d + alpha g
        theta   <- theta - lr s(d)                  or, constrained, (1 - lr) theta - lr s(d)
        s(d)    = scale sqrt(out / in) U V^T        of a matrix d = U S V^T (kernels as (out, in·k·k) matrices)
        s(d)    = scale d / rms(d)                  of a vector or scalar

    arXiv 2502.07529, Algorithms 1 and 2 with their spectral and RMS norms; U V^T comes from `ns_steps` of Muon's
    Newton-Schulz iteration, whose singular values end between 0.7 and 1.2. Constrained, weights stay in the ball of
    radius `scale`, which stands in the place of weight decay. Deviations: one scale for all layers, and output layers
    have the spectral norm too, as no optimizer knows which they are; a task can give a group a scale of its own.

    Args:
        params: parameters or groups of them; dense, real gradients.
        lr: at least 0; constrained, at most 1.
        alpha: weight of the new gradient, in (0, 1].
        scale: radius, above 0.
        constrained: whether weights are held in the ball.
        ns_steps: iterations, above 0.
        maximize: climb instead of descending.

    Raises:
        ValueError: a hyperparameter is out of range; the message names it.
    """

    state_names = ("momentum_buffer",)

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        alpha: float = 0.1,
        scale: float = 1.0,
        constrained: bool = False,
        ns_steps: int = 5,
        *,
        maximize: bool = False,
    ) -> None:
        own = {"lr": lr, "alpha": alpha, "scale": scale, "constrained": constrained, "ns_steps": ns_steps}
        super().__init__(params, {**own, "maximize": maximize})

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        require("alpha", group["alpha"], "in (0, 1]", 0 < group["alpha"] <= 1)
        for name in ("scale", "ns_steps"):
            require(name, group[name], "above 0", group[name] > 0)

    def update(self, group: dict[str, Any], param: Tensor, grad: Tensor, state: dict[str, Any]) -> None:
        momentum = state["momentum_buffer"].lerp_(grad, group["alpha"])
        if group["constrained"]:
            param.mul_(1 - group["lr"])
        param.sub_(sharp(momentum, group["ns_steps"]).mul_(group["lr"] * group["scale"]))


def sharp(direction: Tensor, ns_steps: int) -> Tensor:
    """s(d) at scale 1, shaped like d; 0 where d is 0."""
    tiny = torch.finfo(direction.dtype).tiny
    if direction.ndim < 2:
        return direction / direction.square().mean().sqrt().clamp(min=tiny)
    matrix = direction.reshape(len(direction), -1)
    return orthogonal(matrix, ns_steps).mul_((matrix.shape[0] / matrix.shape[1]) ** 0.5).reshape(direction.shape)


def orthogonal(matrix: Tensor, steps: int) -> Tensor:
    """Near U V^T of a matrix U S V^T, by the quintic x -> 3.4445 x - 4.775 x^3 + 2.0315 x^5 on its singular values."""
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / x.norm().clamp(min=torch.finfo(x.dtype).tiny)
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (2.0315 * gram @ gram - 4.775 * gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T
