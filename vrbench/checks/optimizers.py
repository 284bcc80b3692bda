"""The contract of an optimizer: vrbench.contracts.Optimizer and vrbench.training.capabilities."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vrbench.checks.contract import check_arguments, require
from vrbench.training.capabilities import Capabilities, capabilities

Loss = Callable[[], Tensor]

RATES = (0.5, 0.1, 0.02, 0.01, 0.002)
"""Rates that are tried in turn where one that suits has to be found: an optimizer's own is meant for networks."""


@dataclass(frozen=True)
class OptimizerPart:
    """An optimizer as its YAML has it."""

    make: Callable[..., torch.optim.Optimizer]
    """`make(params, **settings)`: `settings` in place of the YAML's."""
    target: Callable[..., Any]
    settings: Mapping[str, Any]
    """The YAML's arguments."""

    @property
    def undecayed(self) -> dict[str, float]:
        """Settings without weight decay."""
        return {key: 0.0 for key in self.settings if key.endswith(("weight_decay", "_wd"))}

    def at(self, lr: float) -> dict[str, float]:
        """Settings with every learning rate at this value."""
        return {key: lr for key in self.settings if key == "lr" or key.endswith("_lr")}


# ---- what they are tried on -----------------------------------------------------------------------------------------


def quadratic(dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], Loss]:
    """A bowl with curvatures 1 … 10 over a matrix and a vector, minimum 0; it starts at 27.5 for ones everywhere."""
    matrix = torch.ones(3, 2, dtype=dtype, requires_grad=True)
    vector = torch.ones(4, dtype=dtype, requires_grad=True)
    curvatures = torch.linspace(1, 10, 10, dtype=dtype)
    return [matrix, vector], lambda: 0.5 * (curvatures * torch.cat([matrix.reshape(-1), vector]) ** 2).sum()


def rosenbrock() -> tuple[list[Tensor], Loss]:
    """A bent valley, in two dimensions, from (-1, 1.5); minimum 0 at (1, 1)."""
    point = torch.tensor([[-1.0], [1.5]], dtype=torch.float64, requires_grad=True)
    return [point], lambda: (1 - point[0, 0]) ** 2 + 10 * (point[1, 0] - point[0, 0] ** 2) ** 2


def network() -> tuple[nn.Module, Loss]:
    """A convolution and a linear layer on eight made-up examples: the same at every call."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3))
    inputs, targets = torch.randn(8, 1, 4, 4), torch.arange(8) % 3
    return model, lambda: nn.functional.cross_entropy(model(inputs), targets)


def advance(optimizer: torch.optim.Optimizer, loss: Loss, needs: Capabilities) -> float:
    """One step by the protocol of vrbench.training.capabilities; returns the loss before it."""

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Using backward.. with create_graph")
            value.backward(create_graph=needs.create_graph)
        return value

    value = closure()
    if needs.two_step:
        optimizer.first_step(zero_grad=True)  # type: ignore[attr-defined]
        closure()
        optimizer.second_step(zero_grad=False)  # type: ignore[attr-defined]
    else:
        optimizer.step()
    return float(value.detach())


def steps(optimizer: torch.optim.Optimizer, loss: Loss, count: int) -> torch.optim.Optimizer:
    """So many steps; returns the optimizer."""
    needs = capabilities(optimizer)
    for _ in range(count):
        advance(optimizer, loss, needs)
    return optimizer


def minimise(optimizer: torch.optim.Optimizer, loss: Loss, count: int, enough: float) -> float:
    """The loss after at most `count` steps at a rate that falls linearly to 0; NaN as soon as it is not finite.

    Ends early once the loss has been below `enough` for 20 steps in a row, but for an optimizer of averaged weights.
    """
    needs = capabilities(optimizer)
    if needs.train_eval:
        optimizer.train()  # type: ignore[attr-defined]
    peaks = [group["lr"] for group in optimizer.param_groups]
    below = 0
    for step in range(count):
        value = advance(optimizer, loss, needs)
        if not math.isfinite(value):
            return math.nan
        below = below + 1 if value < enough else 0
        if below == 20 and not needs.train_eval:
            return value
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * (1 - step / count)
    if needs.train_eval:
        optimizer.eval()  # type: ignore[attr-defined]
    with torch.no_grad():
        return float(loss())


# ---- the properties -------------------------------------------------------------------------------------------------


def states_every_argument(part: OptimizerPart) -> None:
    """The YAML leaves no default in the dark, and states nothing that the target does not take."""
    check_arguments(part.target, part.settings, ("params", "self"))


def converges_on_a_quadratic(part: OptimizerPart) -> None:
    """In 400 steps at one of the rates to a thousandth of the loss."""
    found = {}
    for lr in RATES:
        params, loss = quadratic()
        found[lr] = minimise(part.make(params, **part.at(lr)), loss, 400, enough=1e-3 * 27.5)
        if found[lr] < 1e-3 * 27.5:
            return
    require(False, f"from 27.5 the loss should fall below 0.0275 at some rate; it ends at {found}")


def converges_on_rosenbrock(part: OptimizerPart) -> None:
    """In 1000 steps at one of the rates to a twentieth of the loss."""
    found = {}
    for lr in RATES:
        params, loss = rosenbrock()
        start = float(loss().detach())
        found[lr] = minimise(part.make(params, **part.at(lr)), loss, 1000, enough=0.05 * start)
        if found[lr] < 0.05 * start:
            return
    require(False, f"from {start} the loss should fall to a twentieth at some rate; it ends at {found}")


def keeps_the_dtype(part: OptimizerPart) -> None:
    """Parameters stay float32, float64 or bfloat16, finite, and three steps at one of the rates lower the loss."""
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        lower = []
        for lr in RATES:
            params, loss = quadratic(dtype)
            start = float(loss().detach())
            steps(part.make(params, **part.at(lr)), loss, 3)
            require(all(p.dtype == dtype for p in params), f"parameters are no longer {dtype}")
            lower.append(all(bool(torch.isfinite(p).all()) for p in params) and float(loss().detach()) < start)
            if lower[-1]:
                break
        require(any(lower), f"three steps in {dtype} lower the loss at none of the rates {RATES}")


def groups_have_their_own_rate(part: OptimizerPart) -> None:
    """A group whose rate is 0 stays where it is, another moves."""
    params, loss = quadratic()
    steps(part.make([{"params": params[:1], "lr": 0.0}, {"params": params[1:]}], **part.undecayed), loss, 2)
    require(torch.equal(params[0], torch.ones_like(params[0])), "a group with lr 0 has moved")
    require(not torch.equal(params[1], torch.ones_like(params[1])), "a group with the optimizer's lr has not moved")


def a_tasks_group_keeps_its_own_rate_and_decay(part: OptimizerPart) -> None:
    """A task gives a scalar of its own (log Z, say) a rate beside the optimizer's, and no decay: both hold as given."""
    decays = dict.fromkeys(part.undecayed, 0.3)
    for shape in ((), (1,), (3,)):
        moved = []
        for lr in (1e-4, 3e-4):
            params, loss = quadratic()
            own = torch.ones(shape, dtype=torch.float64, requires_grad=True)
            optimizer = part.make(_with_own_group(params, own, lr), **decays)
            (group,) = [g for g in optimizer.param_groups if any(p is own for p in g["params"])]
            require(float(group["lr"]) == lr, f"a group with lr {lr} has got lr {group['lr']}")
            require([p.shape for p in group["params"]] == [own.shape], "parameters of others were put into the group")
            steps(optimizer, lambda: loss() + own.square().sum(), 3)  # noqa: B023
            moved.append(float((1 - own.detach()).abs().max()))
            still = own.detach().clone()
            optimizer = part.make(_with_own_group(quadratic()[0], own, lr), **decays)
            steps(optimizer, lambda: 0 * own.square().sum(), 3)  # noqa: B023
            require(torch.equal(own.detach(), still), "weight decay reached a group with weight_decay 0")
        require(moved[0] > 0, "a group with an lr of its own has not moved")
        require(
            abs(moved[1] / moved[0] / 3 - 1) < 0.02, f"at three times the rate it moved {moved[1] / moved[0]} times"
        )


def _with_own_group(params: list[Tensor], own: Tensor, lr: float) -> list[dict[str, Any]]:
    return [{"params": params}, {"params": [own], "lr": lr, "weight_decay": 0.0}]


def obeys_a_scheduler(part: OptimizerPart) -> None:
    """At rate 0 nothing moves (but for averaged weights, which follow the steps already made)."""
    params, loss = quadratic()
    optimizer = part.make(params, **part.undecayed)
    needs = capabilities(optimizer)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*lr_scheduler", category=UserWarning)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step < 2 else 0.0)
        for _ in range(2):
            advance(optimizer, loss, needs)
            schedule.step()
    require(capabilities(optimizer) == needs, "its capabilities are others once a scheduler has wrapped its step")
    require(all(group["lr"] == 0 for group in optimizer.param_groups), "a scheduler does not reach every group's lr")
    if needs.train_eval:
        return
    held = [p.detach().clone() for p in params]
    advance(optimizer, loss, needs)
    still = all(torch.allclose(p.detach(), h, rtol=0, atol=1e-15) for p, h in zip(params, held, strict=True))
    require(still, "it moves parameters at lr 0")


def runs_a_closure_with_gradients(part: OptimizerPart) -> None:
    """`step(closure)` enables gradients, returns the closure's loss, and lowers it."""
    params, loss = quadratic()
    optimizer = part.make(params)
    needs = capabilities(optimizer)
    enabled = []

    def closure() -> Tensor:
        enabled.append(torch.is_grad_enabled())
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Using backward.. with create_graph")
            value.backward(create_graph=needs.create_graph)
        return value

    start = float(closure().detach())
    returned: Any = optimizer.step(closure)  # type: ignore[arg-type]
    require(enabled == [True, True], "step(closure) has to call the closure once, with gradients enabled")
    require(needs.two_step or float(returned.detach()) == start, "step(closure) has to return the closure's loss")
    closure()
    optimizer.step(closure)  # type: ignore[arg-type]  # a first step may only build a preconditioner
    require(float(loss().detach()) < start, "two steps with a closure do not lower the loss")


def leaves_gradients_alone(part: OptimizerPart) -> None:
    """`p.grad` after a step is what it was before."""
    params, loss = quadratic()
    optimizer = part.make(params)
    needs = capabilities(optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Using backward.. with create_graph")
            loss().backward(create_graph=needs.create_graph)
        before = [p.grad.detach().clone() for p in params if p.grad is not None]
        if needs.two_step:
            optimizer.first_step(zero_grad=False)  # type: ignore[attr-defined]
            optimizer.second_step(zero_grad=False)  # type: ignore[attr-defined]
        else:
            optimizer.step()
        kept = all(p.grad is not None and torch.equal(p.grad, g) for p, g in zip(params, before, strict=True))
        require(kept, "step changes p.grad, which probes read after it")


def resumes_bit_for_bit(part: OptimizerPart) -> None:
    """The state goes through a file that is read with weights_only=True; the next steps are as if unbroken."""
    model, loss = network()
    optimizer = steps(part.make(model.parameters()), loss, 4)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    twin, twin_loss = network()
    twin.load_state_dict(saved["model"])
    other = part.make(twin.parameters())
    other.load_state_dict(saved["optimizer"])
    for own_loss, one in ((loss, optimizer), (twin_loss, other)):
        torch.manual_seed(7)
        steps(one, own_loss, 4)
    equal = all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    require(equal, "after state_dict and load_state_dict the next steps are other steps")


def zero_gradients_move_nothing(part: OptimizerPart) -> None:
    """Without weight decay."""
    params, loss = quadratic()
    steps(part.make(params, **part.undecayed), lambda: 0 * loss(), 2)
    require(all(torch.equal(p, torch.ones_like(p)) for p in params), "it moves parameters whose gradient is 0")


def skips_parameters_without_gradient(part: OptimizerPart) -> None:
    """`p.grad` is None where the loss does not depend on a parameter."""
    params, loss = quadratic()
    idle = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    steps(part.make([params[0], idle, params[1]]), loss, 2)
    require(torch.equal(idle, torch.ones_like(idle)), "it moves a parameter without gradient")
    require(not torch.equal(params[1], torch.ones_like(params[1])), "it does not move those after one without gradient")


def maximizes(part: OptimizerPart) -> None:
    """With `maximize: true`, where the optimizer has it."""
    if "maximize" not in part.settings:
        return
    params, loss = quadratic()
    start = float(loss().detach())
    optimizer = steps(part.make(params, maximize=True, **part.undecayed), loss, 3)
    if capabilities(optimizer).train_eval:
        optimizer.eval()  # type: ignore[attr-defined]
    require(float(loss().detach()) > start, "with maximize=True the loss does not rise")


def reports_a_rate_of_its_own(part: OptimizerPart) -> None:
    """`effective_lr`, `gate` and `velocity_sq`, each where there is one, are finite scalar tensors in their range."""
    params, loss = quadratic()
    optimizer = steps(part.make(params), loss, 1)
    for group in optimizer.param_groups:
        require(isinstance(group["lr"], (float, Tensor)), f"lr is a {type(group['lr']).__name__} and no number")
        told = {name: group[name] for name in ("effective_lr", "gate", "velocity_sq") if name in group}
        for name, value in told.items():
            scalar = isinstance(value, Tensor) and value.shape == () and bool(value.isfinite())
            require(scalar, f"{name} has to be a finite scalar tensor, and is {value!r}")
            require(float(value) > 0, f"{name}={float(value)} after a step that has moved the parameters")
        if "gate" in told:
            require(float(told["gate"]) <= 1, f"gate={float(told['gate'])}: a factor on lr of more than 1")
        if "gate" in told and "effective_lr" in told:
            product = float(group["lr"]) * float(told["gate"])
            require(math.isclose(float(told["effective_lr"]), product, rel_tol=1e-6), "effective_lr is not lr · gate")


def both_forms_of_two_steps_are_one(part: OptimizerPart) -> None:
    """`first_step` and `second_step` come to the same as `step(closure)`, where an optimizer takes two gradients."""
    if not capabilities(part.make(quadratic()[0])).two_step:
        return
    results = []
    for with_closure in (False, True):
        params, loss = quadratic()
        optimizer = part.make(params, **part.at(0.01))
        for _ in range(3):
            if not with_closure:
                advance(optimizer, loss, capabilities(optimizer))
                continue
            loss().backward()
            optimizer.step(lambda: loss().backward())  # noqa: B023
            optimizer.zero_grad()
        results.append(torch.cat([p.detach().reshape(-1) for p in params]))
    equal = torch.allclose(results[0], results[1], rtol=1e-14, atol=0)
    require(equal, "first_step and second_step move parameters otherwise than step(closure)")


def warns_of_nothing(part: OptimizerPart) -> None:
    """A step in its ordinary form is silent."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        params, loss = quadratic()
        steps(part.make(params), loss, 1)
    require(not said, f"it warns: {said[0].message if said else ''}")


PROPERTIES = (
    states_every_argument,
    converges_on_a_quadratic,
    converges_on_rosenbrock,
    keeps_the_dtype,
    groups_have_their_own_rate,
    a_tasks_group_keeps_its_own_rate_and_decay,
    obeys_a_scheduler,
    runs_a_closure_with_gradients,
    leaves_gradients_alone,
    resumes_bit_for_bit,
    zero_gradients_move_nothing,
    skips_parameters_without_gradient,
    maximizes,
    reports_a_rate_of_its_own,
    both_forms_of_two_steps_are_one,
    warns_of_nothing,
)
