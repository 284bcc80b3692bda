"""Where an optimizer's edge of stability lies: its threshold and preconditioner, found by capability.

On a quadratic with curvature h, every optimizer known here takes the step (per coordinate, P frozen)

    b_t = beta b_{t-1} + gain · h x_t,    x_{t+1} = x_t - rate / P · (direct · h x_t + via · b_t),

and leaves stability where a root of its characteristic polynomial passes z = -1, that is at

    rate · h / P = 2 (1 + beta) / (direct (1 + beta) + via · gain).

Gradient descent (direct 1): 2/lr. Heavy ball (via 1, gain 1 - dampening): (2 + 2 beta)/lr. Nesterov (direct 1, via
beta): (2 + 2 beta)/((1 + 2 beta) lr). Cohen et al., arXiv 2103.00065, appendix B. Adam (via 1, gain 1 - beta1):
(2 + 2 beta1)/((1 - beta1) lr), arXiv 2207.14484. RMSprop is gradient descent or heavy ball behind its P, as in arXiv
2410.24206. VRAdam is Adam at the rate of the step just taken: its threshold moves.

What an optimizer is, is read from its state and groups, and then proved: the step that this predicts is compared with
the step that was taken. An optimizer may say it itself with a method

    stability() -> (threshold, preconditioner)

`threshold` a float, `preconditioner` a list of positive tensors like the parameters of all groups in order, or None:
the step is stable while the largest eigenvalue of P^{-1/2} H P^{-1/2} is below the threshold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

MISFIT = 0.05
"""Largest part of a step, in norm, that the model of the optimizer may leave unexplained."""
RATE_SLACK = 0.02
"""A measured rate this close to the declared one is taken to be it."""


@dataclass(frozen=True)
class Edge:
    """The sharpness that matters to an optimizer, and where it stops being stable."""

    threshold: float
    root: Tensor | None
    """sqrt(S), flat, shape (n,): the largest eigenvalue of S^{1/2} H S^{1/2} is to be compared with `threshold`.
    None is the identity. 0 for a parameter that does not move. With one group S is P⁻¹; groups with rates of their own
    are brought to the first group's."""


@dataclass(frozen=True)
class Law:
    """How the step of one parameter tensor follows from the gradient; symbols as in the module's docstring."""

    direction: Tensor
    """What the step should be parallel to (downhill)."""
    preconditioner: Tensor | None
    beta: float
    direct: float
    via: float
    gain: float

    @property
    def critical(self) -> float:
        """rate · h / P at the edge of stability."""
        return critical_curvature(self.beta, self.direct, self.via, self.gain)


def critical_curvature(beta: float, direct: float, via: float, gain: float) -> float:
    """2 (1 + beta) / (direct (1 + beta) + via · gain): preconditioned curvature times rate at the edge."""
    return 2 * (1 + beta) / (direct * (1 + beta) + via * gain)


def clipped(edge: Edge, factor: float) -> Edge | None:
    """The edge of a step that was taken with c·g in the gradient's place; None where c is 0 or not finite.

    All laws here are linear in the gradient, so that the step's curvature is c·h: rate · c · h / P is at its edge where
    h / P is at the old threshold over c. c = min(1, clip_norm/‖g‖) is held still as P is, though it too follows the
    gradient; and what momentum remembers was scaled by the factors of earlier steps: with β = 0.9 the edge is exact
    only where c has changed little over some ten steps.
    """
    if not 0 < factor < math.inf:
        return None
    return replace(edge, threshold=edge.threshold / factor)


def law_of(state: Mapping[str, Any], group: Mapping[str, Any], gradient: Tensor) -> Law | None:
    """The law of one tensor's last step, from the optimizer's `state` after it and its `group`; None when unknown.

    An optimizer that maximizes has none: the curvature of the loss is not that of what it descends.
    """
    if group.get("maximize"):
        return None
    if {"exp_avg", "exp_avg_sq", "step"} <= state.keys() and {"betas", "eps"} <= group.keys():
        return _adam(state, group, gradient)
    if "square_avg" in state and "alpha" in group:
        return _rmsprop(state, group, gradient)
    if "momentum" in group and not state.keys() - {"momentum_buffer"}:
        return _momentum(state, group, gradient, None)
    return None


def _adam(state: Mapping[str, Any], group: Mapping[str, Any], gradient: Tensor) -> Law:
    """P_t = (1 - beta1^t) [sqrt(m_t / (1 - beta2^t)) + eps]; NAdam adds a direct term with its own bias corrections."""
    (beta1, beta2), t = group["betas"], float(state["step"])
    second = state["max_exp_avg_sq" if group.get("amsgrad") else "exp_avg_sq"]
    denominator = (second / (1 - beta2**t)).sqrt() + group["eps"]
    velocity = state["exp_avg"]
    if "mu_product" not in state:
        preconditioner = denominator * (1 - beta1**t)
        return Law(velocity / preconditioner, preconditioner, beta1, 0.0, 1.0, 1 - beta1)
    now, later = (beta1 * (1 - 0.5 * 0.96 ** (s * group["momentum_decay"])) for s in (t, t + 1))
    product = float(state["mu_product"])
    direct, via = (1 - now) / (1 - product), later / (1 - product * later)
    return Law((direct * gradient + via * velocity) / denominator, denominator, beta1, direct, via, 1 - beta1)


def _rmsprop(state: Mapping[str, Any], group: Mapping[str, Any], gradient: Tensor) -> Law:
    """P_t = sqrt(square_avg) + eps, the gradient's mean square (centred: its variance); momentum acts after P."""
    spread = state["square_avg"]
    if group.get("centered"):
        spread = spread - state["grad_avg"] ** 2
    preconditioner = spread.clamp(min=0).sqrt() + group["eps"]
    return _momentum(state, group, gradient, preconditioner)


def _momentum(
    state: Mapping[str, Any], group: Mapping[str, Any], gradient: Tensor, preconditioner: Tensor | None
) -> Law:
    """Gradient descent, heavy ball or Nesterov on the gradient, divided by P where there is one."""
    scaled = gradient if preconditioner is None else gradient / preconditioner
    beta, velocity = float(group.get("momentum", 0.0)), state.get("momentum_buffer")
    if beta == 0 or velocity is None:
        return Law(scaled, preconditioner, 0.0, 1.0, 0.0, 1.0)
    gain = 1.0 - float(group.get("dampening", 0.0))
    if group.get("nesterov"):
        return Law(scaled + beta * velocity, preconditioner, beta, 1.0, beta, gain)
    return Law(velocity, preconditioner, beta, 0.0, 1.0, gain)


def edge_of(optimizer: Optimizer, before: Sequence[Tensor]) -> Edge | None:
    """The edge for the step that `optimizer` has just taken, or None where its law is not known.

    `before` are copies of the parameters of all groups, in order, from before the step; `p.grad` must still hold the
    gradients that the step used. None too for a step of length zero. Momentum coefficients that differ between groups
    make the ratio a bound per group rather than an exact edge.
    """
    offered = getattr(optimizer, "stability", None)
    if callable(offered):
        threshold, preconditioner = offered()
        root = None if preconditioner is None else torch.cat([p.detach().reshape(-1).rsqrt() for p in preconditioner])
        return Edge(float(threshold), root)
    if callable(getattr(optimizer, "first_step", None)):
        return None  # the gradient of a two-step method belongs to another point than its parameters
    start = 0
    pieces: list[Tensor] = []
    reference: float | None = None
    plain = True
    for group in optimizer.param_groups:
        old = before[start : start + len(group["params"])]
        start += len(old)
        moved = [(p, b) for p, b in zip(group["params"], old, strict=True) if p.grad is not None]
        laws = [law_of(optimizer.state.get(p, {}), group, p.grad.detach()) for p, _ in moved]
        known = [law for law in laws if law is not None]
        if len(known) < len(laws):
            return None
        rates = step_rates(known, moved, float(group.get("effective_lr", group["lr"])))
        if rates is None:
            return None
        found = iter(zip(known, rates, strict=True))
        for p in group["params"]:
            if p.grad is None:
                pieces.append(torch.zeros_like(p).reshape(-1))
                plain = False
                continue
            law, rate = next(found)
            if reference is None and rate > 0:
                reference = law.critical / rate
            scale = rate / law.critical
            plain = plain and law.preconditioner is None and math.isclose(scale * (reference or 0.0), 1.0)
            inverse = torch.ones_like(p) if law.preconditioner is None else 1 / law.preconditioner
            pieces.append((scale * inverse).detach().reshape(-1))
    if reference is None:
        return None
    root = None if plain else torch.cat(pieces).mul_(reference).sqrt_()
    return Edge(reference, root)


def step_rates(laws: Sequence[Law], moved: Sequence[tuple[Tensor, Tensor]], declared: float) -> list[float] | None:
    """The rate that each tensor's step was taken at, or None where its law does not explain the step.

    `moved` are (parameter now, its copy from before). Fits -Δ = rate · direction + decay · before by least squares, to
    the group as a whole; where that does not fit, to each tensor alone (a gate per tensor). A rate within `RATE_SLACK`
    of the `declared` one is the declared one: others (RAdam's rectification) are as measured.
    """
    sums = [
        _moments(law.direction, before - now.detach(), before) for law, (now, before) in zip(laws, moved, strict=True)
    ]
    if not sums:
        return []
    table = torch.stack(sums).cpu()
    whole = _fit(table.sum(0))
    if whole is not None:
        return [_settle(whole, declared)] * len(sums)
    each = [_fit(row) for row in table]
    if any(rate is None for rate in each):
        return None
    return [_settle(rate, declared) for rate in each if rate is not None]


def _moments(direction: Tensor, step: Tensor, before: Tensor) -> Tensor:
    """What the fit needs: inner products of direction u, step d and parameters p, and p's rounding error, squared."""
    u, d, p = (tensor.detach().reshape(-1).double() for tensor in (direction, step, before))
    rounding = torch.finfo(before.dtype).eps ** 2 * (p @ p)
    return torch.stack([u @ u, u @ p, p @ p, d @ u, d @ p, d @ d, rounding])


def _fit(moments: Tensor) -> float | None:
    """Rate of the least-squares fit; 0 where nothing moved; None where too much of the step is left over."""
    uu, up, pp, du, dp, dd, rounding = moments.tolist()
    if dd <= rounding:
        return 0.0
    if uu == 0:
        return None
    determinant = uu * pp - up * up
    if determinant > 1e-10 * uu * pp:
        rate, decay = (du * pp - dp * up) / determinant, (dp * uu - du * up) / determinant
    else:
        rate, decay = du / uu, 0.0
    left = dd - rate * du - decay * dp
    return rate if rate > 0 and left <= MISFIT**2 * dd + 4 * rounding else None


def _settle(measured: float, declared: float) -> float:
    return declared if abs(measured - declared) <= RATE_SLACK * declared else measured
