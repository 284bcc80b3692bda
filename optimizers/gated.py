"""Plumbing for optimizers whose rate is gated by their velocity; the maths is in `vrbench.optimizers.gate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT, _use_grad_for_differentiable

from .gate import gate, gated_rate
from .rule import require, take_state

GATE_ON = ("velocity", "gradient")
GATE_SCOPES = ("global", "group", "tensor")
REPORTS = ("effective_lr", "gate", "velocity_sq")
SHARED = ("power", "gate_on", "gate_scope", "differentiable")
"""Settings of the optimizer as a whole: parameter groups cannot differ in them."""


@dataclass
class Columns:
    """Parameters of one group that have a gradient, with all that belongs to them, side by side.

    All of one device, dtype and sharding, and `state[name][i]` belongs to `params[i]`. Tensors are real and local:
    complex ones appear as views of their real and imaginary parts, sharded ones as this rank's shard.
    """

    params: list[Tensor]
    grads: list[Tensor]
    state: dict[str, list[Tensor]]
    elements: list[int]
    """Size of each parameter as a whole, over all ranks."""
    sharding: tuple[Any, Any] | None = None
    """Device mesh and placements, where the parameters are DTensors."""

    def single(self, i: int) -> Columns:
        """The columns of one parameter alone."""
        state = {name: [column[i]] for name, column in self.state.items()}
        return Columns([self.params[i]], [self.grads[i]], state, [self.elements[i]], self.sharding)


class GatedOptimizer(Optimizer):
    """An optimizer that moves by eta = lr / (1 + min(beta3 * S, alpha1)), S = sum |v_i|^power over its velocity v.

    A subclass names its state in `state_names` and implements

    - `power_sum(group, columns)`: S of this rank's columns, a scalar tensor; the velocity in question is the one that
      this step will leave behind (asked once for each parameter and step, before any update);
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
        if self.param_groups[-1]["params"]:
            _report_open(self.param_groups[-1])

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take a state of before, or of a related optimizer (AdamW's): settings that its groups lack are this one's.

        Raises:
            ValueError: the state of a parameter lacks what this optimizer keeps; it is another optimizer's.
        """
        super().__setstate__(state)
        take_state(self, self.state_names)
        for group in self.param_groups:
            if group["params"] and any(name not in group for name in REPORTS):
                _report_open(group)

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
        for name, choices in (("gate_on", GATE_ON), ("gate_scope", GATE_SCOPES)):
            require(name, group[name], f"one of {', '.join(choices)}", group[name] in choices)

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

        work = [(group, parts) for group in self.param_groups if (parts := self._columns(group))]
        if self.defaults["gate_scope"] == "tensor":
            for group, parts in work:
                self._step_each(group, [part.single(i) for part in parts for i in range(len(part.params))])
            return loss
        sums = [_add([self._complete_sum(group, part) for part in parts]) for group, parts in work]
        if self.defaults["gate_scope"] == "global" and len(sums) > 1:
            everything = _add(sums)
            sums = [everything.to(s.device, non_blocking=True) for s in sums]
        for (group, parts), total in zip(work, sums, strict=True):
            rate = gated_rate(_scalar(group["lr"]), total, group["beta3"], group["alpha1"])
            self._report(group, rate, gate(total, group["beta3"], group["alpha1"]), total)
            for part in parts:
                self.update(group, part, rate.to(part.params[0].device, non_blocking=True))
        return loss

    def _step_each(self, group: dict[str, Any], singles: list[Columns]) -> None:
        """A step in which each parameter has its own gate."""
        sums = [self._complete_sum(group, single) for single in singles]
        shares = [single.elements[0] / max(1, sum(s.elements[0] for s in singles)) for single in singles]
        rates = [gated_rate(_scalar(group["lr"]), s, group["beta3"], group["alpha1"]) for s in sums]
        gates = [gate(s, group["beta3"], group["alpha1"]) for s in sums]
        mean_rate = _add([share * rate for share, rate in zip(shares, rates, strict=True)])
        mean_gate = _add([share * opening for share, opening in zip(shares, gates, strict=True)])
        self._report(group, mean_rate, mean_gate, _add(sums))
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
        """S of the columns over all ranks."""
        part = self.power_sum(group, columns)
        return part if columns.sharding is None else _over_mesh(part, *columns.sharding)

    def _columns(self, group: dict[str, Any]) -> list[Columns]:
        lists: list[list[Tensor]] = [[] for _ in range(2 + len(self.state_names))]
        self._init_group(group, *lists)
        params = lists[0]
        sharded = any(hasattr(kind, "to_local") for kind in set(map(type, params)))
        kinds: dict[Any, list[int]] = {}
        for i, p in enumerate(params):
            kinds.setdefault((p.device, p.dtype, _sharding(p) if sharded else None), []).append(i)
        found = []
        for (_, dtype, sharding), index in kinds.items():
            own = lists if len(kinds) == 1 else [[column[i] for i in index] for column in lists]
            elements = [p.numel() for p in own[0]]
            if sharding is not None:
                own = [[_shard(x, sharding) for x in column] for column in own]
            if dtype.is_complex:
                own = [[torch.view_as_real(x) if x.is_complex() else x for x in column] for column in own]
            params, grads, *state = own
            found.append(Columns(params, grads, dict(zip(self.state_names, state, strict=True)), elements, sharding))
        return found

    def _init_group(
        self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], *state: list[Tensor]
    ) -> None:
        """Fill the lists with the parameters that have a gradient; state begins with a parameter's first gradient.

        (The name and the lists are those of torch's own optimizers: torch.compile runs this method as it is.)
        """
        columns = list(zip(self.state_names, state, strict=True))
        for p in group["params"]:
            grad = p.grad
            if grad is None:
                continue
            if grad.is_sparse:
                raise RuntimeError(f"{type(self).__name__} takes no sparse gradients: see torch.optim.SparseAdam")
            own = self.state[p]
            if not own:
                own.update(self.init_state(group, p))
            params.append(p)
            grads.append(grad)
            for name, column in columns:
                column.append(own[name])


def _report(group: dict[str, Any], rate: Tensor, opening: Tensor, total: Tensor) -> None:
    for name, value in zip(REPORTS, (rate, opening, total), strict=True):
        group[name] = value.detach()


def _report_open(group: dict[str, Any]) -> None:
    """Reports of a group that has made no step: the gate is open, nothing moves."""
    device = group["params"][0].device
    total = torch.zeros((), dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    _report(group, gated_rate(_scalar(group["lr"]), total, 0.0, 0.0), torch.ones_like(total), total)


def _scalar(lr: float | Tensor) -> float | Tensor:
    return lr.reshape(()) if isinstance(lr, Tensor) else lr


def _add(sums: list[Tensor]) -> Tensor:
    """Sum of scalars that may live on several devices, on the first one's."""
    if len(sums) == 1:
        return sums[0]
    return torch.stack([s.to(sums[0].device, non_blocking=True) for s in sums]).sum()


def _sharding(x: Any) -> tuple[Any, Any] | None:
    return (x.device_mesh, x.placements) if hasattr(x, "to_local") else None


def _shard(x: Any, sharding: tuple[Any, Any]) -> Tensor:
    """This rank's part of `x`, laid out as its parameter is; shares memory with `x` where it is so already."""
    if not hasattr(x, "to_local"):
        return x
    return (x if x.placements == sharding[1] else x.redistribute(*sharding)).to_local()


def _over_mesh(part: Tensor, mesh: Any, placements: Any) -> Tensor:
    """A sum over the whole of sharded tensors, given the sum over this rank's shards."""
    from torch.distributed.tensor import DTensor, Partial, Replicate

    kinds = [Replicate() if placement.is_replicate() else Partial("sum") for placement in placements]
    return DTensor.from_local(part, mesh, kinds, run_check=False).full_tensor()
