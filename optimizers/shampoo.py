"""Shampoo (arXiv 1802.09568): a preconditioner for each dimension of a tensor, in float32 or better."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .rule import Rule, decay, require


class Shampoo(Rule):
    r"""Full-matrix AdaGrad's cheaper relative, for tensors of order k (a matrix: k = 2).

        H_i     <- H_i + G_(i) G_(i)^T                  from eps I, G_(i) the gradient unfolded along dimension i
        P       = G x_1 H_1^(-1/(2k)) x_2 ... x_k H_k^(-1/(2k))
        v       <- momentum v + P,      theta <- (1 - lr lambda) theta - lr v

    arXiv 1802.09568, Algorithm 2; scalars count as vectors of one element. Deviations: momentum as the paper's
    experiments have it; roots are taken anew every `root_every` steps, the first included; a dimension above `max_dim`
    has no preconditioner, as if H_i were the identity (k still counts it); weight decay, decoupled. Eigenvalues below
    eps, which only rounding makes, are eps. A dimension of d keeps 2 d^2 numbers and costs d^3 a root. Roots that
    are not of now blow up what has not been seen before by eps^(-1/(2k)): with `root_every` above 1 take a larger eps.

    Args:
        params: parameters or groups of them; dense, real gradients.
        lr: at least 0.
        momentum: in [0, 1).
        eps: above 0.
        root_every, max_dim: whole numbers above 0.
        weight_decay: lambda, decoupled, at least 0.
        maximize: climb instead of descending.

    Raises:
        ValueError: a hyperparameter is out of range; the message names it.
    """

    state_names = ("momentum_buffer",)

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,
        momentum: float = 0.9,
        eps: float = 1e-6,
        root_every: int = 1,
        max_dim: int = 2048,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        own = {"lr": lr, "momentum": momentum, "eps": eps, "root_every": root_every, "max_dim": max_dim}
        super().__init__(params, {**own, "weight_decay": weight_decay, "maximize": maximize})

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        require("momentum", group["momentum"], "in [0, 1)", 0 <= group["momentum"] < 1)
        for name in ("eps", "root_every", "max_dim"):
            require(name, group[name], "above 0", group[name] > 0)

    def update(self, group: dict[str, Any], param: Tensor, grad: Tensor, state: dict[str, Any]) -> None:
        shape = grad.shape or (1,)
        direction = grad.to(torch.promote_types(grad.dtype, torch.float32)).reshape(shape)
        raw = direction
        for i, size in enumerate(shape):
            if size > group["max_dim"]:
                continue
            if f"statistics_{i}" not in state:
                state[f"statistics_{i}"] = group["eps"] * torch.eye(size, dtype=raw.dtype, device=raw.device)
            statistics = state[f"statistics_{i}"]
            unfolded = raw.movedim(i, 0).reshape(size, -1)
            statistics.addmm_(unfolded.to(statistics.dtype), unfolded.to(statistics.dtype).T)
            if f"root_{i}" not in state or (state["step"] - 1) % group["root_every"] == 0:
                state[f"root_{i}"] = inverse_root(statistics, 2 * len(shape), group["eps"])
            direction = along(direction, state[f"root_{i}"].to(direction.dtype), i)
        velocity = state["momentum_buffer"]
        velocity.mul_(group["momentum"]).add_(direction.reshape(grad.shape).to(grad.dtype))
        decay(param, group["lr"], group["weight_decay"])
        param.sub_(velocity * group["lr"])


def inverse_root(matrix: Tensor, power: int, eps: float) -> Tensor:
    """H^(-1/power) of a symmetric positive definite (d, d) matrix whose eigenvalues are eps at least.

    NaN of a matrix that is not finite: the run has diverged, which its loss will say.
    """
    if not torch.isfinite(matrix).all():
        return torch.full_like(matrix, torch.nan)
    values, vectors = torch.linalg.eigh(matrix.to(torch.promote_types(matrix.dtype, torch.float32)))
    return ((vectors * values.clamp(min=eps).pow(-1 / power)) @ vectors.T).to(matrix.dtype)


def along(tensor: Tensor, matrix: Tensor, dimension: int) -> Tensor:
    """The tensor times a matrix along one of its dimensions; shaped like the tensor."""
    return torch.tensordot(matrix, tensor, dims=([1], [dimension])).movedim(0, dimension)
