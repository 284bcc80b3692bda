"""Plumbing for rules that look at one tensor at a time: groups, closures, state, ranges; and Adam's two moments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

_AT_LEAST_0 = ("lr", "weight_decay", "eps")


class Rule(Optimizer):
    """An optimizer whose subclass names its state in `state_names` and implements `update`.

    State begins as zeros like its parameter at the parameter's first gradient, with `step`, the number of its gradients
    so far. Gradients are dense and real; `p.grad` is only read.

    Raises:
        ValueError: a hyperparameter is out of its range (the message names it).
        RuntimeError: a gradient is sparse or complex.
    """

    state_names: ClassVar[tuple[str, ...]] = ()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own; errors as in the constructor."""
        self.check({**self.defaults, **param_group})
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state of before, or of a related optimizer; errors as in `take_state`."""
        super().__setstate__(state)
        take_state(self, ("step", *self.state_names))

    def check(self, group: dict[str, Any]) -> None:
        """Refuse hyperparameters out of range. Subclasses add their own and call this one."""
        for name in _AT_LEAST_0:
            require(name, group.get(name, 0.0), "at least 0", group.get(name, 0.0) >= 0)
        betas = group.get("betas", ())
        require("betas", betas, "each in [0, 1)", all(0 <= beta < 1 for beta in betas))

    def prepare(self, rows: list[tuple[dict[str, Any], Tensor, Tensor, dict[str, Any]]]) -> None:
        """What a step needs of all tensors together: `rows` of (group, parameter, gradient, state)."""

    def update(self, group: dict[str, Any], param: Tensor, grad: Tensor, state: dict[str, Any]) -> None:
        """Move one parameter, in place, by its gradient; `state["step"]` counts from 1."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step over all groups; `closure` re-evaluates the model with gradients enabled, its loss is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        rows = list(self._rows())
        self.prepare(rows)
        for group, param, grad, state in rows:
            state["step"] += 1
            self.update(group, param, grad, state)
        return loss

    def _rows(self) -> Iterator[tuple[dict[str, Any], Tensor, Tensor, dict[str, Any]]]:
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is None:
                    continue
                if param.grad.is_sparse or param.is_complex():
                    raise RuntimeError(f"{type(self).__name__} takes dense, real gradients alone")
                state = self.state[param]
                if not state:
                    state["step"] = 0
                    state.update({name: torch.zeros_like(param) for name in self.state_names})
                yield group, param, -param.grad if group["maximize"] else param.grad.detach(), state


def take_state(optimizer: Optimizer, names: Sequence[str]) -> None:
    """Make a state that was loaded the optimizer's own: settings that its groups lack are the optimizer's defaults.

    Raises:
        ValueError: the state of a parameter lacks one of `names`, which the optimizer keeps; it is another's.
    """
    for own in optimizer.state.values():
        if own and (missing := [name for name in names if name not in own]):
            raise ValueError(f"state: lacks {', '.join(missing)}, which {type(optimizer).__name__} keeps")
    for group in optimizer.param_groups:
        for name, value in optimizer.defaults.items():
            group.setdefault(name, value)


def require(name: str, value: object, wanted: str, good: bool | Tensor) -> None:
    """Raise ValueError, naming the argument, unless `good`."""
    if not good:
        raise ValueError(f"{name}={value!r}: must be {wanted}")


def decay(param: Tensor, lr: float | Tensor, weight_decay: float) -> None:
    """theta <- (1 - eta lambda) theta, in place."""
    if weight_decay != 0:
        param.mul_(1 - lr * weight_decay)


def update_moments(exp_avg: Tensor, exp_avg_sq: Tensor, grad: Tensor, beta1: float | Tensor, beta2: float) -> None:
    """m <- beta1 m + (1 - beta1) g and v <- beta2 v + (1 - beta2) g^2, in place."""
    exp_avg.lerp_(grad, 1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)


def adam_direction(exp_avg: Tensor, exp_avg_sq: Tensor, betas: tuple[float, float], step: int, eps: float) -> Tensor:
    """(m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps), shaped like m."""
    beta1, beta2 = betas
    denominator = exp_avg_sq.sqrt().div_((1 - beta2**step) ** 0.5).add_(eps)
    return exp_avg / (1 - beta1**step) / denominator
