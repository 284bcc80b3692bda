"""ActiveLR (arXiv 2301.10133): a gain on the rate of each coordinate, around any optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from .rule import require, take_state


class ActiveLR(Optimizer):
    r"""Another optimizer's step, stretched in each coordinate by a gain that its gradients' signs make over epochs.

        theta   <- theta + s (theta' - theta),      theta' where the base optimizer's step would lead
        G_e     = sum of the gradients of epoch e
        s       <- s + high where G_e G_{e-1} > 0, else low s,      at the end of each epoch from the second

    from s = 1. Step and decay of SGD, Adam and their kin are linear in the rate, so that both are taken at lr s.
    arXiv 2301.10133, whose (high, low) are (2, 0.5) for Adam, (0.05, 0.95) for RAdam and AdaBelief. With high 0 and
    low 1 it is the base optimizer, bit for bit. Deviations: none known; the rule is built from a description of the
    paper.

    Args:
        params: parameters or groups of them; dense gradients.
        base_optimizer: class of the base optimizer; it must add its step to the parameters in proportion to `lr`.
        high: added to the gain where epochs agree, at least 0.
        low: factor on the gain where they do not, in (0, 1].
        steps_per_epoch: filled in with those of the run.
        settings: those of the base optimizer.

    Each group reports `effective_lr`, lr times the mean gain of its elements.

    Raises:
        ValueError: a hyperparameter is out of range (the message names it), or the base optimizer's own.
    """

    def __init__(
        self,
        params: ParamsT,
        base_optimizer: type[Optimizer],
        high: float = 2.0,
        low: float = 0.5,
        steps_per_epoch: int | None = None,
        **settings: Any,
    ) -> None:
        require("high", high, "at least 0", high >= 0)
        require("low", low, "in (0, 1]", 0 < low <= 1)
        require("steps_per_epoch", steps_per_epoch, "above 0", (steps_per_epoch or 0) > 0)
        self.base = base_optimizer(params, **settings)
        own = {"high": high, "low": low, "steps_per_epoch": steps_per_epoch}
        super().__init__(self.base.param_groups, {**self.base.defaults, **own})
        self.base.param_groups, self.state = self.param_groups, self.base.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what `state_dict` gave: gains stand in the state beside what the base optimizer keeps there."""
        self.base.load_state_dict(state_dict)
        self.param_groups, self.state = self.base.param_groups, self.base.state
        take_state(self, ())

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step over all groups; `closure` re-evaluates the model with gradients enabled, its loss is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with_grad = [(group, p) for group in self.param_groups for p in group["params"] if p.grad is not None]
        moved = [(group, p, p.detach().clone()) for group, p in with_grad]
        self.base.step()
        for group, p, before in moved:
            state = self.state[p]
            if "gain" not in state:
                state |= {"gain": torch.ones_like(p), "epoch": 0, "epoch_step": 0}
                state |= {"epoch_sum": torch.zeros_like(p), "last_sum": torch.zeros_like(p)}
            p.copy_(torch.lerp(before, p, state["gain"]))
            state["epoch_sum"].add_(p.grad)
            state["epoch_step"] += 1
            if state["epoch_step"] == group["steps_per_epoch"]:
                self._end_epoch(group, state)
        for group in self.param_groups:
            gains = [self.state[p]["gain"] for p in group["params"] if "gain" in self.state.get(p, {})]
            if gains:
                mean = sum(gain.sum().to(gains[0].device) for gain in gains) / max(1, sum(g.numel() for g in gains))
                group["effective_lr"] = mean * group["lr"]
        return loss

    @staticmethod
    def _end_epoch(group: dict[str, Any], state: dict[str, Any]) -> None:
        state["epoch"] += 1
        if state["epoch"] > 1:
            adapt(state["gain"], state["epoch_sum"], state["last_sum"], group["high"], group["low"])
        state["last_sum"].copy_(state["epoch_sum"])
        state["epoch_sum"].zero_()
        state["epoch_step"] = 0


def adapt(gain: Tensor, summed: Tensor, last: Tensor, high: float, low: float) -> None:
    """s <- s + high where G_e G_{e-1} > 0, else low s; in place."""
    agree = summed.sign() * last.sign() > 0
    gain.copy_(torch.where(agree, gain + high, gain * low))
