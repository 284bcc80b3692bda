"""Cautious AdamW (arXiv 2411.16085): AdamW that leaves out the coordinates whose update opposes the gradient."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT

from .rule import Rule, adam_direction, decay, update_moments


class CautiousAdamW(Rule):
    r"""AdamW with a mask on its update.

        m, v, u     as AdamW: u = (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
        phi_i       = 1 where u_i g_i > 0, else 0
        theta       <- (1 - lr lambda) theta - lr u phi / max(mean(phi), 1e-3)

    The mean is over the tensor. arXiv 2411.16085, Algorithm 2. Where all signs agree it is AdamW.
    Deviation: weight decay comes first and is not masked, as in torch.optim.AdamW.

    Args:
        params: parameters or groups of them; dense, real gradients.
        lr: at least 0.
        betas: decay of the two moments, each in [0, 1).
        eps: added to the denominator, at least 0.
        weight_decay: lambda, decoupled, at least 0.
        maximize: climb instead of descending.

    Raises:
        ValueError: a hyperparameter is out of range; the message names it.
    """

    state_names = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    def update(self, group: dict[str, Any], param: Tensor, grad: Tensor, state: dict[str, Any]) -> None:
        decay(param, group["lr"], group["weight_decay"])
        update_moments(state["exp_avg"], state["exp_avg_sq"], grad, *group["betas"])
        direction = adam_direction(state["exp_avg"], state["exp_avg_sq"], group["betas"], state["step"], group["eps"])
        param.sub_(cautious(direction, grad).mul_(group["lr"]))


def cautious(direction: Tensor, grad: Tensor) -> Tensor:
    """u phi / max(mean(phi), 1e-3) with phi = 1[u g > 0]: shaped like u."""
    mask = (direction * grad > 0).to(direction.dtype)
    return direction * mask / mask.mean().clamp_(min=1e-3)
