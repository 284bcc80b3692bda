"""The probe that every run carries: gradient, update and parameter norms, and the optimizer's own rates."""

from __future__ import annotations

from typing import Any

import torch

from vrbench.contracts import Moment, Training
from vrbench.norms import global_norm

REPORTED = ("effective_lr", "gate", "velocity_sq")
"""Group entries that an optimizer may write (DESIGN: the optimizer contract); logged as `optim/<name>`."""


class OptimProbe:
    """At every logged step `optim/` lr, effective_lr, gate, velocity_sq, and the norms of gradient, update, parameters.

    `grad_norm` is taken before clipping; where the run clips, `clip_factor` is what the step's gradient was then
    multiplied by. Rates are those of the first parameter group; what an optimizer does not report is left out, except
    `effective_lr`, which then is `lr`. Between logged steps the probe does nothing.
    """

    def attach(self, training: Training) -> None:
        """Remember the parameters that are trained."""
        self._optimizer = training.optimizer
        self._parameters = [p for group in training.optimizer.param_groups for p in group["params"]]

    def before_step(self, moment: Moment) -> None:
        """Take the gradient norm and a copy of the parameters."""
        if not moment.logged:
            return
        self._grad_norm = global_norm(p.grad for p in self._parameters if p.grad is not None)
        self._before = [p.detach().clone() for p in self._parameters]

    def after_step(self, moment: Moment) -> dict[str, float]:
        """Compare with the copy, and read the optimizer's rates."""
        if not moment.logged:
            return {}
        after = [p.detach() for p in self._parameters]
        torch._foreach_sub_(self._before, after)  # in the copy's place: it is the update but for its sign
        update_norm = global_norm(self._before)
        del self._before
        group = self._optimizer.param_groups[0]
        rates = {"lr": group["lr"], "effective_lr": group["lr"]}
        rates |= {name: group[name] for name in REPORTED if name in group}
        norms = {"grad_norm": self._grad_norm, "update_norm": update_norm, "param_norm": global_norm(after)}
        if moment.clip is not None:
            norms["clip_factor"] = moment.clip
        return {f"optim/{name}": float(value) for name, value in {**rates, **norms}.items()}

    def state_dict(self) -> dict[str, Any]:
        """Nothing lives from one step to the next."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to take back."""
