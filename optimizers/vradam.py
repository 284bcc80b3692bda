"""VRAdam: Adam whose rate falls as its velocity grows (arXiv 2505.13196, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .gate import blended_power_sum, in_memory_order, power_sum
from .gated import Columns, GatedOptimizer
from .rule import require

FUSED_DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Where torch has a fused AdamW kernel."""


class VRAdam(GatedOptimizer):
    r"""AdamW with the rate of each step divided by one plus the squared norm of the velocity.

    For parameters theta, gradient g, velocity v, second moment m, step t:

        v_t     = beta1 v_{t-1} + (1 - beta1) g_t
        m_t     = beta2 m_{t-1} + (1 - beta2) g_t^2
        eta_t   = lr / (1 + min(beta3 ||v_t||^2, alpha1))
        theta_t = (1 - eta_t lambda) theta_{t-1} - eta_t (v_t / (1 - beta1^t)) / (sqrt(m_t / (1 - beta2^t)) + eps)

    with the norm over all parameters and of the v_t that is not bias-corrected. arXiv 2505.13196, Algorithm 1.
    Deviations: none by default; `power`, `gate_on` and `gate_scope` open the ablations. docs/vradam.md has advice.

    Args:
        params: parameters or groups of them, as for torch.optim.AdamW; dense gradients, any floating or complex dtype.
            Complex parameters count as twice as many real ones.
        lr: largest rate, alpha0; a float or a tensor of one element.
        betas: decay of velocity and second moment, each in [0, 1).
        beta3: velocity penalty, at least 0; 0 is AdamW, bit for bit in the same form.
        alpha1: at least 0; the rate never falls below lr / (1 + alpha1).
        eps: added to the denominator, at least 0.
        weight_decay: lambda, decoupled, at least 0.
        power: the norm is sum |v_i|^power, above 0 (the paper's kinetic ablation, Table 4).
        gate_on: "velocity", or "gradient" for the norm of g_t in its place (the authors' `normgrad`).
        gate_scope: "global", one rate for all parameters, as in the paper; "group", one for each parameter group;
            "tensor", one for each parameter.
        maximize: climb instead of descending.
        foreach, fused: which form runs. `fused=True` is torch's fused AdamW kernel behind one extra pass over v and g;
            `foreach=True` torch's multi-tensor operations; both False the loop of the equations above. Both None, the
            default, takes the fused form where the kernel exists, the CPU included, and the loop where `differentiable`
            asks for it. Under torch.compile the foreach form stands in for the fused one: the compiler fuses it, and
            the kernel has no description that the compiler could read.
        capturable: safe to record in a CUDA graph (step counters on the device).
        differentiable: gradients flow through the step; the loop form only.

    The step reads no tensor back to the host. Each group reports `effective_lr`, `gate` and `velocity_sq` (see
    `GatedOptimizer`).

    Raises:
        ValueError: a hyperparameter is out of range, `foreach` and `fused` are both true, `fused` or `foreach` comes
            with `differentiable`, or `fused` with a device that has no kernel; the message names the argument.
        RuntimeError: a gradient is sparse.
    """

    state_names = ("exp_avg", "exp_avg_sq", "step")

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        beta3: float = 1.0,
        alpha1: float = 10.0,
        eps: float = 1e-8,
        weight_decay: float = 1e-5,
        *,
        power: float = 2.0,
        gate_on: Literal["velocity", "gradient"] = "velocity",
        gate_scope: Literal["global", "group", "tensor"] = "global",
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "beta3": beta3,
            "alpha1": alpha1,
            "eps": eps,
            "weight_decay": weight_decay,
            "power": power,
            "gate_on": gate_on,
            "gate_scope": gate_scope,
            "maximize": maximize,
            "foreach": foreach,
            "fused": fused,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def check(self, group: dict[str, Any]) -> None:
        super().check(group)
        betas = group["betas"]
        require("betas", betas, "two numbers in [0, 1)", len(betas) == 2 and all(0 <= b < 1 for b in betas))
        require("eps", group["eps"], "at least 0", group["eps"] >= 0)
        for name, other in (("fused", "foreach"), ("fused", "differentiable"), ("foreach", "differentiable")):
            require(name, group[name], f"false or null beside {other}=True", not (group[name] and group[other]))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        devices = {p.device.type for p in group["params"]} - set(FUSED_DEVICES)
        if group["fused"] and devices:
            self.param_groups.pop()
            require("fused", True, f"false or null on {', '.join(sorted(devices))}: no kernel there", False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for p in group["params"]:
                if "step" in self.state.get(p, {}):
                    steps = self.state[p]["step"]  # a plain number with some optimizers
                    self.state[p]["step"] = torch.as_tensor(
                        steps, dtype=torch.float32, device=_counter_device(group, p)
                    )

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Asked by GradScaler: the fused kernel unscales, and skips a step with infinities, without a host sync."""
        return all(_form(group, group["params"]) == "fused" for group in self.param_groups)

    def init_state(self, group: dict[str, Any], param: Tensor) -> dict[str, Tensor]:
        return {
            "step": torch.zeros((), dtype=torch.float32, device=_counter_device(group, param)),
            "exp_avg": torch.zeros_like(param, memory_format=torch.preserve_format),
            "exp_avg_sq": torch.zeros_like(param, memory_format=torch.preserve_format),
        }

    def power_sum(self, group: dict[str, Any], columns: Columns) -> Tensor:
        velocities, weight, power = columns.state["exp_avg"], 1 - group["betas"][0], group["power"]
        form, maximize = _form(group, columns.params), group["maximize"]
        grad_scale = self._on(columns.params[0].device, "grad_scale") if form == "fused" else None
        if form == "reference":
            for v, g in zip(velocities, columns.grads, strict=True):
                v.lerp_(-g if maximize else g, weight)
        elif form == "foreach":
            torch._foreach_lerp_(velocities, torch._foreach_neg(columns.grads) if maximize else columns.grads, weight)
        if group["gate_on"] == "gradient":
            return power_sum(columns.grads, power, grad_scale)
        if form == "fused":
            return blended_power_sum(velocities, columns.grads, weight, power, maximize=maximize, grad_scale=grad_scale)
        if group["differentiable"]:
            velocities = [v.clone() for v in velocities]
        return power_sum(velocities, power)

    def update(self, group: dict[str, Any], columns: Columns, rate: Tensor) -> None:
        (beta1, beta2), lists = group["betas"], (columns.params, columns.grads, *columns.state.values())
        constants = {"beta2": beta2, "weight_decay": group["weight_decay"], "eps": group["eps"]}
        form = _form(group, columns.params)
        if form == "reference":
            for p, g, v, m, t in zip(*lists, strict=True):
                t += 1
                counts = t.clone() if group["capturable"] or group["differentiable"] or _compiling() else t.item()
                reference_update(p, g, v, m, counts, rate, beta1=beta1, **constants)
            return
        if group["beta3"] == 0 and not isinstance(group["lr"], Tensor):
            rate = group["lr"]
        params, grads, velocities, moments, steps = lists
        if form == "foreach":
            foreach_update(params, grads, velocities, moments, steps, rate, beta1=beta1, **constants)
            return
        _count(steps)
        device = params[0].device
        found_inf = self._on(device, "found_inf")
        with _kernel_layout(params, grads, velocities, moments) as (params, grads, velocities, moments):
            torch._fused_adamw_(
                params,
                grads,
                velocities,
                moments,
                [],
                steps,
                amsgrad=False,
                lr=_kernel_rate(rate, device),
                beta1=beta1,
                maximize=group["maximize"],
                grad_scale=self._on(device, "grad_scale"),
                found_inf=found_inf,
                **constants,
            )
        if found_inf is not None:
            torch._foreach_sub_(steps, [found_inf] * len(steps))

    def _on(self, device: torch.device, name: str) -> Tensor | None:
        """What a GradScaler has hung on the optimizer for this step, if anything."""
        value = getattr(self, name, None)
        return None if value is None else value.to(device, non_blocking=True)


def reference_update(
    param: Tensor,
    grad: Tensor,
    velocity: Tensor,
    moment: Tensor,
    t: float | Tensor,
    rate: Tensor,
    *,
    beta1: float,
    beta2: float,
    weight_decay: float,
    eps: float,
) -> None:
    """Algorithm 1 below the rate, line by line: `velocity` is v_t already, `moment` and `param` are brought up to t."""
    t = t.to(torch.float64) if isinstance(t, Tensor) and t.device.type != "mps" else t
    moment.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    v_hat = velocity / (1 - beta1**t)
    m_hat = moment / (1 - beta2**t)
    theta = param.clone() if torch.is_grad_enabled() else param
    param.copy_(theta * (1 - rate * weight_decay) - rate * v_hat / (m_hat.sqrt() + eps))


def foreach_update(
    params: list[Tensor],
    grads: list[Tensor],
    velocities: list[Tensor],
    moments: list[Tensor],
    steps: list[Tensor],
    rate: Tensor | float,
    *,
    beta1: float,
    beta2: float,
    weight_decay: float,
    eps: float,
) -> None:
    """`reference_update` for many tensors of one device and dtype at once; `steps` are counted up here."""
    _count(steps)
    torch._foreach_mul_(moments, beta2)
    torch._foreach_addcmul_(moments, grads, grads, 1 - beta2)
    if weight_decay != 0:
        torch._foreach_mul_(params, 1 - rate * weight_decay)
    if steps[0].device.type == "cpu" and not _compiling():
        counts: list[Any] = [t.item() for t in steps]
    else:
        counts = list(torch.stack(steps).to(torch.float32 if steps[0].device.type == "mps" else torch.float64).unbind())
    roots = torch._foreach_sqrt(moments)
    torch._foreach_div_(roots, [(1 - beta2**t) ** 0.5 for t in counts])
    torch._foreach_add_(roots, eps)
    torch._foreach_mul_(roots, [beta1**t - 1 for t in counts])
    torch._foreach_div_(roots, rate)
    torch._foreach_addcdiv_(params, velocities, roots)


def _form(group: dict[str, Any], params: list[Tensor]) -> Literal["reference", "foreach", "fused"]:
    """Which form runs for this group; see the class's `foreach` and `fused`."""
    if group["differentiable"]:
        return "reference"
    if _compiling() and (group["fused"] or group["foreach"] is not False):
        return "foreach"
    if group["fused"]:
        return "fused"
    if group["foreach"]:
        return "foreach"
    if group["foreach"] is not None:
        return "reference"
    if group["fused"] is None and all(p.device.type in FUSED_DEVICES for p in params):
        return "fused"
    return "foreach" if all(p.device.type != "cpu" for p in params) else "reference"


def _counter_device(group: dict[str, Any], param: Tensor) -> torch.device:
    """Step counters live on the host, where reading them costs nothing, unless the form needs them beside the data."""
    return param.device if group["capturable"] or _form(group, [param]) == "fused" else torch.device("cpu")


def _count(steps: list[Tensor]) -> None:
    if steps[0].device.type == "cpu" and not _compiling():
        torch._foreach_add_(steps, torch.tensor(1.0), alpha=1.0)
    else:
        torch._foreach_add_(steps, 1)


@contextmanager
def _kernel_layout(*lists: list[Tensor]) -> Iterator[tuple[list[Tensor], ...]]:
    """Lists fit for a kernel that walks the memory of parameter, gradient and moments in step.

    Autograd lays a gradient out as its parameter, so this seldom has to copy; what the copies become is copied back.
    """
    odd: list[int] = []
    if not all(all(map(Tensor.is_contiguous, column)) for column in lists):
        rows = [in_memory_order(row) for row in zip(*lists, strict=True)]
        odd = [i for i, row in enumerate(rows) if not all(map(Tensor.is_contiguous, row))]
    if not odd:
        yield lists
        return
    copies = tuple(list(column) for column in lists)
    for column in copies:
        for i in odd:
            column[i] = column[i].clone(memory_format=torch.contiguous_format)
    yield copies
    for column, copied in zip(lists, copies, strict=True):
        for i in odd:
            column[i].copy_(copied[i])


def _kernel_rate(rate: Tensor | float, device: torch.device) -> Tensor | float:
    """The fused kernels read a tensor rate as float64 on the CPU and as float32 elsewhere."""
    if not isinstance(rate, Tensor):
        return rate
    return rate.to(device, torch.float64 if device.type == "cpu" else torch.float32, non_blocking=True)


def _compiling() -> bool:
    return torch.compiler.is_compiling()
