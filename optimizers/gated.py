"""Plumbing for optimizers whose rate is gated by their velocity; the maths is in `optimizers.gate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT, _use_grad_for_differentiable

from optimizers.gate import gate, gated_rate

GATE_ON = ("velocity", "gradient")
GATE_SCOPES = ("global", "group", "tensor")
SHARED = ("power", "gate_on", "gate_scope", "differentiable")
"""Settings of the optimizer as a whole: parameter groups cannot differ in them."""


@dataclass
class Columns:
    """The parameters of one group that have a gradient, with all that belongs to them, side by side.

    Tensors are real and local: complex ones appear as views of their real and imaginary parts, sharded ones as this
    rank's shard. `state[name][i]` belongs to `params[i]`; `wholes[i]` is the parameter as the user sees it.
    """

    params: list[Tensor]
    grads: list[Tensor]
    state: dict[str, list[Tensor]]
    wholes: list[Tensor]

    def select(self, index: int) -> Columns:
        """The columns of one parameter alone."""
        one = slice(index, index + 1)
        return Columns(
            self.params[one], self.grads[one], {name: s[one] for name, s in self.state.items()}, self.wholes[one]
        )


class GatedOptimizer(Optimizer):
    """An optimizer that moves by eta = lr / (1 + min(beta3 * S, alpha1)), S = sum |v_i|^power over its velocity v.

    A subclass names its state in `state_names` and implements

    - `power_sums(group, columns)`: the S of each parameter, scalar tensors (or `[]` where the group has no gradient);
      the velocity in question is the one this step will leave behind;
    - `update(group, columns, rate)`: the step itself, given its rate, a scalar tensor.

    It inherits parameter groups, scopes, closures, complex and sharded parameters, and the reports: after each step
    every group holds scalar tensors (float64; float32 where the device has none)

    - `effective_lr`: the rate eta of the step,
    - `gate`: eta / lr,
    - `velocity_sq`: S of the scope (all parameters, or this group).

    With scope "tensor" each parameter has a rate of its own. `velocity_sq` is then S of the group; `gate` and
    `effective_lr` are means over the group's elements: the rate that a parameter's element got on average.

    Parameters without a gradient take no part in a step, nor in the norm.

    Sums over DTensor shards are completed over their mesh, so that each rank takes the same rate. Under
    DistributedDataParallel every rank holds whole gradients and so the same sum.

    Raises:
        ValueError: a hyperparameter is out of its range (the message names it), or a group wants a `power`, `gate_on`
            or `gate_scope` of its own.
        RuntimeError: a gradient is sparse.
    """

    state_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, params: ParamsT, defaults: dict[str, Any]) -> None:
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        for name in SHARED:
            if name in param_group and name in self.defaults and param_group[name] != self.defaults[name]:
                raise ValueError(f"{name} is one for all parameter groups: {self.defaults[name]!r}")
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        self.check(group)
        zero = torch.zeros((), dtype=_report_dtype(group["params"][0].device), device=group["params"][0].device)
        group["effective_lr"] = zero + _detached(group["lr"])
        group["gate"] = zero + 1
        group["velocity_sq"] = zero

    def check(self, group: dict[str, Any]) -> None:
        """Refuse hyperparameters out of range. Subclasses add their own and call this one.

        Raises:
            ValueError: naming the argument, its value and what would do.
        """
        for name, wanted, good in (
            ("lr", "at least 0, one element", _one_element(group["lr"]) and group["lr"] >= 0),
            ("beta3", "at least 0", group["beta3"] >= 0),
            ("alpha1", "at least 0", group["alpha1"] >= 0),
            ("weight_decay", "at least 0", group["weight_decay"] >= 0),
            ("power", "above 0", group["power"] > 0),
            ("gate_on", f"one of {', '.join(GATE_ON)}", group["gate_on"] in GATE_ON),
            ("gate_scope", f"one of {', '.join(GATE_SCOPES)}", group["gate_scope"] in GATE_SCOPES),
        ):
            if not good:
                raise ValueError(f"{name}={group[name]!r}: must be {wanted}")

    def power_sums(self, group: dict[str, Any], columns: Columns) -> list[Tensor]:
        raise NotImplementedError

    def update(self, group: dict[str, Any], columns: Columns, rate: Tensor) -> None:
        raise NotImplementedError

    def init_state(self, group: dict[str, Any], param: Tensor) -> dict[str, Tensor]:
        """State of one parameter before its first step: zeros like the parameter under each name."""
        return {name: torch.zeros_like(param, memory_format=torch.preserve_format) for name in self.state_names}

    @_use_grad_for_differentiable
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; `closure` re-evaluates the model with gradients enabled, and its loss is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        found = [self._columns(group) for group in self.param_groups]
        sums = [
            [complete(s, whole) for s, whole in zip(self.power_sums(group, columns), columns.wholes, strict=True)]
            for group, columns in zip(self.param_groups, found, strict=True)
        ]
        everything = None
        if self.defaults["gate_scope"] == "global":
            everything = _add([s for group_sums in sums for s in group_sums])
        for group, columns, group_sums in zip(self.param_groups, found, sums, strict=True):
            if not columns.params:
                continue
            if group["gate_scope"] == "tensor":
                self._step_each(group, columns, group_sums)
                continue
            total = _add(group_sums) if everything is None else everything
            total = total.to(columns.params[0].device)
            rate = gated_rate(group["lr"], total, group["beta3"], group["alpha1"])
            self._report(group, rate, gate(total, group["beta3"], group["alpha1"]), total)
            self.update(group, columns, rate)
        return loss

    def _step_each(self, group: dict[str, Any], columns: Columns, sums: list[Tensor]) -> None:
        every = torch.stack([_wide(s) for s in sums])
        rates = gated_rate(group["lr"], every, group["beta3"], group["alpha1"])
        sizes = torch.tensor([float(p.numel()) for p in columns.wholes], dtype=every.dtype).to(every.device)
        share = sizes / sizes.sum()
        gates = gate(every, group["beta3"], group["alpha1"])
        self._report(group, (rates * share).sum(), (gates * share).sum(), every.sum())
        for i, rate in enumerate(rates.unbind()):
            self.update(group, columns.select(i), rate)

    def _report(self, group: dict[str, Any], rate: Tensor, opening: Tensor, total: Tensor) -> None:
        group["effective_lr"] = rate.detach()
        group["gate"] = opening.detach()
        group["velocity_sq"] = total.detach()

    def _columns(self, group: dict[str, Any]) -> Columns:
        wholes: list[Tensor] = []
        grads: list[Tensor] = []
        state: list[list[Tensor]] = [[] for _ in self.state_names]
        self._init_group(group, wholes, grads, *state)
        return Columns(
            [local(p) for p in wholes],
            [local(g) for g in grads],
            {name: [local(s) for s in column] for name, column in zip(self.state_names, state, strict=True)},
            wholes,
        )

    def _init_group(
        self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], *state: list[Tensor]
    ) -> None:
        for p in group["params"]:
            if p.grad is None:
                continue
            if p.grad.is_sparse:
                raise RuntimeError(f"{type(self).__name__} does not support sparse gradients: use torch.optim.SparseAdam")
            if not self.state[p]:
                self.state[p].update(self.init_state(group, p))
            params.append(p)
            grads.append(p.grad)
            for name, column in zip(self.state_names, state, strict=True):
                column.append(self.state[p][name])


def local(x: Tensor) -> Tensor:
    """What this rank holds of `x`, complex numbers as pairs of real ones; shares memory with `x`."""
    if hasattr(x, "to_local"):
        x = x.to_local()
    return torch.view_as_real(x) if x.is_complex() else x


def complete(part: Tensor, whole: Tensor) -> Tensor:
    """The sum over all of `whole`, given the sum over this rank's part of it."""
    if not hasattr(whole, "to_local"):
        return part
    from torch.distributed.tensor import DTensor, Partial, Replicate

    placements = [Replicate() if p.is_replicate() else Partial("sum") for p in whole.placements]
    return DTensor.from_local(part, whole.device_mesh, placements, run_check=False).full_tensor()


def _add(sums: list[Tensor]) -> Tensor | None:
    """Sum of scalars that may live on several devices, on the first one's."""
    if not sums:
        return None
    return torch.stack([_wide(s.to(sums[0].device, non_blocking=True)) for s in sums]).sum()


def _wide(x: Tensor) -> Tensor:
    return x.to(_report_dtype(x.device))


def _report_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _one_element(x: float | Tensor) -> bool:
    return not isinstance(x, Tensor) or x.numel() == 1


def _detached(x: float | Tensor) -> float | Tensor:
    return x.detach() if isinstance(x, Tensor) else x
