"""The velocity gate: how large a step an optimizer may take, given how fast its parameters move.

    eta = lr / (1 + min(beta3 * S, alpha1)),    S = sum_i |v_i|^power

arXiv 2505.13196, Algorithm 1, where power = 2 and S is the squared norm of the velocity over all parameters. Nothing
in here knows Adam, momentum or parameter groups: these are functions of tensors. `optimizers.gated` is the plumbing
that lets an optimizer sit on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

CHUNK = 1 << 17
"""Elements that are blended at a time: a buffer of 512 kB in float32, small beside any model and warm in the cache."""


def gate(power_sum: Tensor, beta3: float, alpha1: float) -> Tensor:
    """Share of the largest rate that is left: 1 / (1 + min(beta3 * power_sum, alpha1)), in [1/(1+alpha1), 1].

    `power_sum` has any shape and the result has the same. With `beta3` 0 the gate is open (exactly 1) whatever the
    sum, infinite included. A sum that is not a number gives a gate that is not a number: a diverged run must not look
    like a damped one.
    """
    if beta3 == 0:
        return torch.ones_like(power_sum)
    return 1 / (1 + (beta3 * power_sum).clamp(max=alpha1))


def gated_rate(lr: float | Tensor, power_sum: Tensor, beta3: float, alpha1: float) -> Tensor:
    """The rate of the step, eta = lr / (1 + min(beta3 * power_sum, alpha1)); the shape is that of `power_sum`."""
    if beta3 == 0:
        return lr * torch.ones_like(power_sum)
    return lr / (1 + (beta3 * power_sum).clamp(max=alpha1))


def power_sum(tensors: Sequence[Tensor], power: float) -> list[Tensor]:
    """sum |x_i|^power of each real tensor: scalars, float64 for float64 tensors and float32 for all others.

    Nothing is allocated beyond one chunk, and nothing is moved to the host.
    """
    return [_total([_norm_power(piece, power) for piece in _pieces(x)]) for x in tensors]


def blended_power_sum(
    velocities: Sequence[Tensor],
    grads: Sequence[Tensor],
    weight: float,
    power: float,
    *,
    negate: bool = False,
    grad_scale: Tensor | None = None,
) -> list[Tensor]:
    """sum |lerp(v, g, weight)_i|^power of each pair: what `power_sum` will say of a velocity not yet updated.

    The update itself then belongs to a fused kernel, which needs the rate before it touches the velocity. `negate`
    takes -g for g, `grad_scale` (a scalar tensor) takes g / grad_scale. Shapes and dtypes as in `power_sum`.
    """
    sums = []
    for velocity, grad in zip(velocities, grads, strict=True):
        parts = []
        for v, g in zip(*_matching_pieces(velocity, grad), strict=True):
            if grad_scale is not None:
                g = g / grad_scale.to(g.dtype)
            parts.append(_norm_power(torch.lerp(v, -g if negate else g, weight), power))
        sums.append(_total(parts))
    return sums


def _norm_power(x: Tensor, power: float) -> Tensor:
    """sum |x_i|^power of one piece, in float32 at least."""
    x = x.reshape(-1)
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float()
    if power == 2:
        return torch.dot(x, x)
    return x.abs().pow_(power).sum()


def _total(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(parts).sum()


def _pieces(x: Tensor) -> Iterator[Tensor]:
    """The elements of `x` in order, at most CHUNK at a time."""
    yield from _split(x.reshape(-1) if x.is_contiguous() else x)


def _matching_pieces(a: Tensor, b: Tensor) -> tuple[Iterator[Tensor], Iterator[Tensor]]:
    """Pieces of two tensors of one shape such that each piece of `a` holds the same elements as that of `b`."""
    if a.is_contiguous() and b.is_contiguous():
        return _split(a.view(-1)), _split(b.view(-1))
    return _split(a), _split(b)


def _split(x: Tensor) -> Iterator[Tensor]:
    if x.numel() <= CHUNK:
        yield x
        return
    dim = max(range(x.ndim), key=x.size)
    for piece in x.split(max(1, CHUNK * x.size(dim) // x.numel()), dim):
        yield from _split(piece)
