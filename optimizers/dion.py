"""Dion (arXiv 2504.05295): orthonormal updates of low rank, by one power iteration a step with error feedback."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .rule import Rule, adam_direction, decay, require, update_moments


class Dion(Rule):
    r"""Momentum whose dominant part, of rank r, moves a matrix by a step of fixed length.

    For a matrix of m × n (kernels as (out, in·k·k)), gradient G, momentum M, and Q of n × r kept from step to step:

        B       = M + G
        P       = orthonormal columns of B Q  (QR),     R = B^T P
        M       <- B - (1 - mu) P R^T                   what the step leaves out stays in the momentum
        Q       <- R, each column at length 1
        theta   <- (1 - lr lambda) theta - lr sqrt(m / n) P Q^T

    arXiv 2504.05295, Algorithm 1; r = rank_fraction min(m, n), rounded up. At full rank P Q^T is near Muon's U V^T.
    Q begins as the first r columns of a fixed random orthogonal matrix. Vectors and scalars get AdamW at
    `lr · scalar_factor`, where the authors let their users choose Lion or AdamW. Deviation: one process holds all.

    Args:
        params: parameters or groups of them; dense, real gradients.
        lr: at least 0, for matrices.
        mu: momentum, in [0, 1).
        rank_fraction: in (0, 1].
        scalar_factor: rate of vectors over that of matrices, at least 0.
        betas, eps: AdamW's, for vectors.
        weight_decay: lambda, decoupled, at least 0.
        maximize: climb instead of descending.

    Raises:
        ValueError: a hyperparameter is out of range; the message names it.
    """

    state_names = ()

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.01,
        mu: float = 0.95,
        rank_fraction: float = 1.0,
        scalar_factor: float = 0.1,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        own = {"lr": lr, "mu": mu, "rank_fraction": rank_fraction, "scalar_factor": scalar_factor}
        adamw = {"betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**own, **adamw, "maximize": maximize})

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        require("mu", group["mu"], "in [0, 1)", 0 <= group["mu"] < 1)
        require("rank_fraction", group["rank_fraction"], "in (0, 1]", 0 < group["rank_fraction"] <= 1)
        require("scalar_factor", group["scalar_factor"], "at least 0", group["scalar_factor"] >= 0)

    def update(self, group: dict[str, Any], param: Tensor, grad: Tensor, state: dict[str, Any]) -> None:
        if param.ndim < 2:
            self._adamw(group, param, grad, state)
            return
        matrix = grad.reshape(len(grad), -1)
        matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
        if "right" not in state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
            state["right"] = start(matrix, group["rank_fraction"])
        momentum, right = state["momentum_buffer"].to(matrix.dtype), state["right"].to(matrix.dtype)
        step, momentum, right = dion(momentum + matrix, right, group["mu"])
        state["momentum_buffer"].copy_(momentum)
        state["right"].copy_(right)
        decay(param, group["lr"], group["weight_decay"])
        param.sub_(step.mul_(group["lr"]).reshape(param.shape).to(param.dtype))

    @staticmethod
    def _adamw(group: dict[str, Any], param: Tensor, grad: Tensor, state: dict[str, Any]) -> None:
        for name in ("exp_avg", "exp_avg_sq"):
            if name not in state:
                state[name] = torch.zeros_like(param)
        rate = group["lr"] * group["scalar_factor"]
        decay(param, rate, group["weight_decay"])
        update_moments(state["exp_avg"], state["exp_avg_sq"], grad, *group["betas"])
        direction = adam_direction(state["exp_avg"], state["exp_avg_sq"], group["betas"], state["step"], group["eps"])
        param.sub_(direction.mul_(rate))


def start(matrix: Tensor, rank_fraction: float) -> Tensor:
    """The first Q of a matrix of m × n: n × r, orthonormal columns, the same in every run."""
    rows, columns = matrix.shape
    rank = -int(-rank_fraction * min(rows, columns) // 1)
    noise = torch.randn(columns, rank, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.linalg.qr(noise)[0].to(matrix.device, matrix.dtype)


def dion(total: Tensor, right: Tensor, mu: float) -> tuple[Tensor, Tensor, Tensor]:
    """Step sqrt(m/n) P Q^T, new momentum and new Q of B = M + G (m × n) and Q (n × r).

    Where B is 0 the step is 0 and Q as it was; of a B that is not finite all are NaN.
    """
    sketch = total @ right
    left = torch.linalg.qr(sketch.nan_to_num(0.0, 0.0, 0.0))[0].where(torch.isfinite(sketch).all(), torch.nan)
    reflected = total.T @ left
    lengths = reflected.norm(dim=0, keepdim=True)
    tiny = torch.finfo(total.dtype).tiny
    unit = reflected / lengths.clamp(min=tiny)
    step = (total.shape[0] / total.shape[1]) ** 0.5 * left @ unit.T
    return step, total - (1 - mu) * left @ reflected.T, torch.where(lengths > tiny, unit, right)
