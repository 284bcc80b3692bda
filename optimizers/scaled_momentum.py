"""SGD whose momentum is scaled with its rate (arXiv 2210.16400)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import ParamsT

from .rule import require, take_state


class ScaledMomentumSGD(torch.optim.SGD):
    r"""Heavy-ball momentum beta that follows the rate: the memory of 1 / (1 - beta) steps grows as the rate falls.

        1 - beta = c lr^(2/3)
        v       <- beta v + g,      theta <- theta - lr v

    arXiv 2210.16400: at this exponent momentum speeds training up the most without losing the noise's preference for
    flat minima; c is tuned. beta is computed in every step from the group's `lr`, so it moves with a schedule, and is
    held at 0 and above; it stands in `group["momentum"]`. At a constant rate this is torch.optim.SGD with that
    momentum. Deviation: weight decay, torch.optim.SGD's L2 penalty, is not in the paper's rule.

    Args:
        params: parameters or groups of them.
        lr: at least 0.
        c: above 0; 0.74 gives momentum 0.9 at lr 0.05.
        weight_decay: L2 penalty, at least 0.
        maximize: climb instead of descending.
        foreach: which form runs, as in torch.optim.SGD.

    Raises:
        ValueError: a hyperparameter is out of range; the message names it.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.05,
        c: float = 0.74,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
    ) -> None:
        require("c", c, "above 0", c > 0)
        super().__init__(params, lr=lr, weight_decay=weight_decay, maximize=maximize, foreach=foreach)
        self.defaults["c"] = c
        for group in self.param_groups:
            group.setdefault("c", c)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state of before, or of another optimizer: its settings are filled up, momentum begins anew."""
        super().__setstate__(state)
        take_state(self, ())

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, as torch.optim.SGD takes it with the momentum of the rates of now."""
        for group in self.param_groups:
            group["momentum"] = momentum_at(float(group["lr"]), group["c"])
        return super().step(closure)


def momentum_at(lr: float, c: float) -> float:
    """beta = 1 - c lr^(2/3), at least 0."""
    return max(0.0, 1 - c * lr ** (2 / 3))
