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
REPORTS = ("effective_lr", "gate", "velocity_sq")
SHARED = ("power", "gate_on", "gate_scope", "differentiable")
"""Settings of the optimizer as a whole: parameter groups cannot differ in them."""


@dataclass
class Columns:
    """The parameters of one group that have a gradient, with all that belongs to them, side by side.

    `state[name][i]` belongs to `params[i]`. Tensors are real and local: complex ones appear as views of their real and
    imaginary parts, sharded ones as this rank's shard; `wholes[i]` is the parameter as the user sees it.
    """

    params: list[Tensor]
    grads: list[Tensor]
    state: dict[str, list[Tensor]]
    wholes: list[Tensor]

    def pick(self, index: list[int]) -> Columns:
        """The columns of some of the parameters."""
        return Columns(
            [self.params[i] for i in index],
            [self.grads[i] for i in index],
            {name: [column[i] for i in index] for name, column in self.state.items()},
            [self.wholes[i] for i in index],
        )


class GatedOptimizer(Optimizer):
    """An optimizer that moves by eta = lr / (1 + min(beta3 * S, alpha1)), S = sum |v_i|^power over its velocity v.

    A subclass names its state in `state_names` and implements

    - `power_sum(group, columns)`: S of these columns, a scalar tensor; the velocity in question is the one that this
      step will leave behind (asked once for each parameter and step);
    - `update(group, columns, rate)`: the step itself, given its rate, a scalar tensor.

    It inherits parameter groups, the three scopes, closures, complex and sharded parameters, and the reports. From
    construction on every group holds scalar tensors on its first parameter's device (float64; float32 on MPS):

    - `effective_lr`: the rate eta of the last step (lr before the first one),
    - `gate`: eta / lr (1 before the first step),
    - `velocity_sq`: S of the scope: of all parameters ("global") or of this group (0 before the first step).

    With scope "tensor" each parameter has a rate of its own. `velocity_sq` is then S of the group; `gate` and
    `effective_lr` are means over the group's elements: the rate that an element got on average. Reports are outputs
    only: no step reads them, save one that a GradScaler turns into a no-op and that leaves them as they were.

    Parameters without a gradient take no part in a step, nor in the norm. Sums over DTensor shards are completed over
    their mesh, so that every rank takes the same rate; under DistributedDataParallel every rank holds whole gradients.

    Raises:
        ValueError: a hyperparameter is out of its range (the message names it), or a group wants a `power`, `gate_on`,
            `gate_scope` or `differentiable` of its own.
        RuntimeError: a gradient is sparse.
    """

    state_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, params: ParamsT, defaults: dict[str, Any]) -> None:
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with settings of their own; errors as in the constructor."""
        for name in SHARED:
            if param_group.get(name, self.defaults[name]) != self.defaults[name]:
                raise ValueError(f"{name} is one for all parameter groups: {self.defaults[name]!r} here")
        self.check({**self.defaults, **param_group})
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if group["params"]:
            device = group["params"][0].device
            total = torch.zeros((), dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
            _report(group, gated_rate(_scalar(group["lr"]), total, 0.0, 0.0), torch.ones_like(total), total)

    def check(self, group: dict[str, Any]) -> None:
        """Refuse hyperparameters out of range. Subclasses add their own and call this one.

        Raises:
            ValueError: naming the argument, its value and what would do.
        """
        lr = group["lr"]
        require("lr", lr, "one number, at least 0", (not isinstance(lr, Tensor) or lr.numel() == 1) and lr >= 0)
        for name in ("beta3", "alpha1", "weight_decay"):
            require(name, group[name], "at least 0", group[name] >= 0)
        require("power", group["power"], "above 0", group["power"] > 0)
        require("gate_on", group["gate_on"], f"one of {', '.join(GATE_ON)}", group["gate_on"] in GATE_ON)
        require("gate_scope", group["gate_scope"], f"one of {', '.join(GATE_SCOPES)}", group["gate_scope"] in GATE_SCOPES)

    def init_state(self, group: dict[str, Any], param: Tensor) -> dict[str, Tensor]:
        """State of one parameter before its first step: zeros like the parameter under each name."""
        return {name: torch.zeros_like(param, memory_format=torch.preserve_format) for name in self.state_names}

    def power_sum(self, group: dict[str, Any], columns: Columns) -> Tensor:
        raise NotImplementedError

    def update(self, group: dict[str, Any], columns: Columns, rate: Tensor) -> None:
        raise NotImplementedError

    @_use_grad_for_differentiable
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step over all groups.

        `closure`, if given, re-evaluates the model with gradients enabled; its loss is returned. `p.grad` is only read
        (a GradScaler's fused step unscales it in place, as torch's own optimizers do).
        """
        self._accelerator_graph_capture_health_check()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        work = [(group, columns) for group in self.param_groups if (columns := self._columns(group)).params]
        if self.defaults["gate_scope"] == "tensor":
            for group, columns in work:
                self._step_each(group, columns)
            return loss
        sums = [self._complete_sum(group, columns) for group, columns in work]
        if self.defaults["gate_scope"] == "global" and len(sums) > 1:
            everything = torch.stack([s.to(sums[0].device, non_blocking=True) for s in sums]).sum()
            sums = [everything.to(s.device, non_blocking=True) for s in sums]
        for (group, columns), total in zip(work, sums, strict=True):
            rate = gated_rate(_scalar(group["lr"]), total, group["beta3"], group["alpha1"])
            self._report(group, rate, gate(total, group["beta3"], group["alpha1"]), total)
            self.update(group, columns, rate)
        return loss

    def _step_each(self, group: dict[str, Any], columns: Columns) -> None:
        """A step in which each parameter has its own gate."""
        singles = [columns.pick([i]) for i in range(len(columns.params))]
        sums = [self._complete_sum(group, single) for single in singles]
        rates = [gated_rate(_scalar(group["lr"]), s, group["beta3"], group["alpha1"]) for s in sums]
        total = torch.stack([s.to(sums[0].device, non_blocking=True) for s in sums]).sum()
        elements = sum(p.numel() for p in columns.wholes)
        mean_rate, mean_gate = torch.zeros_like(total), torch.zeros_like(total)
        for s, rate, p in zip(sums, rates, columns.wholes, strict=True):
            share = p.numel() / max(elements, 1)
            mean_rate = mean_rate + share * rate.to(total.device, non_blocking=True)
            mean_gate = mean_gate + share * gate(s, group["beta3"], group["alpha1"]).to(total.device, non_blocking=True)
        self._report(group, mean_rate, mean_gate, total)
        for single, rate in zip(singles, rates, strict=True):
            self.update(group, single, rate)

    def _report(self, group: dict[str, Any], rate: Tensor, opening: Tensor, total: Tensor) -> None:
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None:
            skipped = found_inf.to(total.device, non_blocking=True).bool()
            rate, opening, total = (
                torch.where(skipped, group[name].to(total.device, non_blocking=True), new)
                for name, new in zip(REPORTS, (rate, opening, total), strict=True)
            )
        _report(group, rate, opening, total)

    def _complete_sum(self, group: dict[str, Any], columns: Columns) -> Tensor:
        """S of the columns over all devices and ranks, on the first parameter's device."""
        kinds: dict[Any, list[int]] = {}
        for i, (p, whole) in enumerate(zip(columns.params, columns.wholes, strict=True)):
            mesh = (whole.device_mesh, whole.placements) if hasattr(whole, "to_local") else None
            kinds.setdefault((p.device, p.dtype, mesh), []).append(i)
        parts = []
        for (_, _, mesh), index in kinds.items():
            part = self.power_sum(group, columns if len(kinds) == 1 else columns.pick(index))
            parts.append(part if mesh is None else _over_mesh(part, *mesh))
        if len(parts) == 1:
            return parts[0]
        device = columns.params[0].device
        return torch.stack([part.to(device, non_blocking=True) for part in parts]).sum()

    def _columns(self, group: dict[str, Any]) -> Columns:
        wholes: list[Tensor] = []
        grads: list[Tensor] = []
        state: list[list[Tensor]] = [[] for _ in self.state_names]
        self._init_group(group, wholes, grads, *state)
        named = dict(zip(self.state_names, state, strict=True))
        if not any(hasattr(p, "to_local") or p.is_complex() for p in wholes):
            return Columns(wholes, grads, named, wholes)
        for p, i in zip(wholes, range(len(grads)), strict=True):
            if hasattr(p, "to_local") and grads[i].placements != p.placements:
                grads[i] = grads[i].redistribute(p.device_mesh, p.placements)
        local = {name: [_local(s) for s in column] for name, column in named.items()}
        return Columns([_local(p) for p in wholes], [_local(g) for g in grads], local, wholes)

    def _init_group(
        self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], *state: list[Tensor]
    ) -> None:
        """Fill the lists with the parameters that have a gradient; state begins with a parameter's first gradient.

        (The name and the lists are those of torch's own optimizers: torch.compile runs this method as it is.)
        """
        names = self.state_names
        for p in group["params"]:
            grad = p.grad
            if grad is None:
                continue
            if grad.is_sparse:
                raise RuntimeError(f"{type(self).__name__} does not support sparse gradients: see torch.optim.SparseAdam")
            own = self.state[p]
            if not own:
                own.update(self.init_state(group, p))
            params.append(p)
            grads.append(grad)
            for name, column in zip(names, state):
                column.append(own[name])


def require(name: str, value: object, wanted: str, good: bool | Tensor) -> None:
    """Raise ValueError, naming the argument, unless `good`."""
    if not good:
        raise ValueError(f"{name}={value!r}: must be {wanted}")


def _report(group: dict[str, Any], rate: Tensor, opening: Tensor, total: Tensor) -> None:
    for name, value in zip(REPORTS, (rate, opening, total), strict=True):
        group[name] = value.detach()


def _scalar(lr: float | Tensor) -> float | Tensor:
    return lr.reshape(()) if isinstance(lr, Tensor) else lr


def _local(x: Tensor) -> Tensor:
    """What this rank holds of `x`, complex numbers as pairs of real ones; shares memory with `x`."""
    if hasattr(x, "to_local"):
        x = x.to_local()
    return torch.view_as_real(x) if x.is_complex() else x


def _over_mesh(part: Tensor, mesh: Any, placements: Any) -> Tensor:
    """A sum over the whole of sharded tensors, given the sum over this rank's shards."""
    from torch.distributed.tensor import DTensor, Partial, Replicate

    kinds = [Replicate() if placement.is_replicate() else Partial("sum") for placement in placements]
    return DTensor.from_local(part, mesh, kinds, run_check=False).full_tensor()
