"""The velocity gate: how large a step an optimizer may take, given how fast its parameters move.

    eta = lr / (1 + min(beta3 * S, alpha1)),    S = sum_i |v_i|^power

arXiv 2505.13196, Algorithm 1, where power = 2 and S is the squared norm of the velocity over all parameters. Nothing
in here knows Adam, momentum or parameter groups: these are functions of tensors. `gated.py` is the plumbing that lets
an optimizer sit on them.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import torch
from torch import Tensor

CHUNK = 1 << 18
"""Elements that a pass over the host's tensors blends at a time: 1 MB of float32, still in cache when summed."""
DEVICE_CHUNK = 1 << 23
"""The same on an accelerator, where launches cost more than traffic."""
SHARE = 25
"""A pass holds copies of at most 1/SHARE of the elements it runs over: 1 % of the parameters, gradients and moments."""
LEAST_CHUNK = 1 << 13
"""The least that a pass takes at a time, whatever SHARE says: 32 KB of float32. Smaller pieces cost time in calls."""
COMPILED_FROM = 1 << 16
"""Elements from which numba is used where it is installed: a short run of fewer is over before it has loaded."""


def gate(total: Tensor, beta3: float, alpha1: float) -> Tensor:
    """Share of the largest rate that is left: 1 / (1 + min(beta3 * total, alpha1)), in [1/(1+alpha1), 1].

    `total` is S, of any shape, and the result has the same. With `beta3` 0 the gate is open (exactly 1) whatever S is,
    infinite included. An S that is not a number gives a gate that is not a number: a diverged run must not look like a
    damped one.
    """
    return gated_rate(1.0, total, beta3, alpha1)


def gated_rate(lr: float | Tensor, total: Tensor, beta3: float, alpha1: float) -> Tensor:
    """The rate of the step, eta = lr / (1 + min(beta3 * total, alpha1)); the shape is that of `total` (S)."""
    if beta3 == 0:
        return lr * torch.ones_like(total)
    return lr / (1 + (beta3 * total).clamp(max=alpha1))


def power_sum(tensors: Sequence[Tensor], power: float, grad_scale: Tensor | None = None) -> Tensor:
    """S = sum |x_i / grad_scale|^power over real tensors of one device: a scalar, float64 (float32 on MPS).

    Terms are added up in float32 at least. Nothing larger than a chunk is allocated, nothing moves to the host.

    Raises:
        ValueError: `tensors` is empty.
    """
    parts: list[Tensor] = []
    for batch in _batches(tensors):
        xs = [x for (x,) in batch]
        if grad_scale is not None:
            xs = list(torch._foreach_div(xs, grad_scale))
        parts.extend(_sums(xs, power))
    return _total(parts)


def blended_power_sum(
    velocities: Sequence[Tensor],
    grads: Sequence[Tensor],
    weight: float,
    power: float,
    *,
    maximize: bool = False,
    grad_scale: Tensor | None = None,
) -> Tensor:
    """S of the velocity to come, sum |(v + weight (g - v))_i|^power, with `velocities` left as they are.

    What `power_sum` will say after `v.lerp_(g, weight)`. A fused kernel that does this lerp itself needs the rate
    beforehand, hence this second pass over v and g: two reads beside the kernel's four reads and three writes.
    `maximize` takes -g for g, `grad_scale` (a scalar tensor) g / grad_scale. Result and errors as in `power_sum`.
    """
    if power == 2 and grad_scale is None and not maximize and not torch.compiler.is_compiling():
        compiled = _in_one_pass(velocities, grads, weight)
        if compiled is not None:
            return compiled
    parts: list[Tensor] = []
    buffer = None
    for batch in _batches(velocities, grads):
        if len(batch) == 1 and grad_scale is None and not maximize and not torch.compiler.is_compiling():
            v, g = batch[0]
            if buffer is None or buffer.numel() < v.numel():
                buffer = torch.empty(v.numel(), dtype=v.dtype, device=v.device)
            blend = torch.lerp(v, g, weight, out=buffer[: v.numel()].view(v.shape))
            parts.extend(_sums([blend], power, may_write=True))
            continue
        vs = [v for v, _ in batch]
        gs = [g for _, g in batch]
        if grad_scale is not None:
            gs = list(torch._foreach_div(gs, grad_scale))
        if maximize:
            gs = list(torch._foreach_neg(gs))
        parts.extend(_sums(list(torch._foreach_lerp(vs, gs, weight)), power))
    return _total(parts)


def _in_one_pass(velocities: Sequence[Tensor], grads: Sequence[Tensor], weight: float) -> Tensor | None:
    """The square sum by `compiled_gate`; None without numba, of few elements, or of a tensor that is not plain."""
    if not velocities or not velocities[0].is_cpu or sum(v.numel() for v in velocities) < COMPILED_FROM:
        return None
    rows = [in_memory_order(row) for row in zip(velocities, grads, strict=True)]
    dtype = velocities[0].dtype
    plain = all(type(x) is Tensor and x.is_cpu and x.dtype == dtype and x.is_contiguous() for row in rows for x in row)
    if not plain or dtype not in (torch.float32, torch.float64) or (square_sum := _compiled()) is None:
        return None
    return square_sum(rows, weight)


@cache
def _compiled() -> Callable[[Sequence[tuple[Tensor, ...]], float], Tensor] | None:
    """`compiled_gate.square_sum` where numba is installed and runs."""
    if importlib.util.find_spec("numba") is None:
        return None
    threads = torch.get_num_threads()
    try:
        from .compiled_gate import square_sum

        square_sum([(torch.zeros(1), torch.zeros(1))], 0.5)
    except (ImportError, ValueError) as error:
        warnings.warn(f"numba is installed but cannot be used for VRAdam's norm: {error}", stacklevel=2)
        return None
    finally:
        torch.set_num_threads(threads)  # where both use one OpenMP, numba's threads have set torch's number, too
    return square_sum


def _sums(xs: list[Tensor], power: float, *, may_write: bool = False) -> list[Tensor]:
    """Scalars that add up to the S of `xs`, in float32 at least; `may_write` says that nobody needs `xs` any more."""
    if xs[0].dtype not in (torch.float32, torch.float64):
        xs = [x.float() for x in xs]
    if torch.compiler.is_compiling():
        return [(x * x if power == 2 else x.abs().pow(power)).sum() for x in xs]
    if power != 2:
        return [x.abs().pow_(power).sum() for x in xs]
    if xs[0].device.type == "cpu" and len(xs) == 1:
        squares = xs[0].mul_(xs[0]) if may_write else xs[0] * xs[0]
        return [squares.sum()]  # pairwise; torch.dot of equal numbers is 1e-5 off at this size
    norms = torch.stack(torch._foreach_norm(xs, 2))
    return [torch.dot(norms, norms)]


def _total(parts: list[Tensor]) -> Tensor:
    if not parts:
        raise ValueError("the norm of no tensors at all")
    wide = torch.float32 if parts[0].device.type == "mps" else torch.float64
    return torch.stack(parts).to(wide).sum() if len(parts) > 1 else parts[0].to(wide)


def _batches(*columns: Sequence[Tensor]) -> Iterator[list[tuple[Tensor, ...]]]:
    """Rows of matching pieces, batched so that each column of a batch has about one chunk of elements.

    While a step is being compiled the compiler fuses the passes, and each tensor is a piece of its own.
    """
    if torch.compiler.is_compiling():
        yield list(zip(*columns, strict=True))
        return
    sizes = [x.numel() for x in columns[0]]
    if not sizes:
        return
    chunk = CHUNK if columns[0][0].device.type == "cpu" else DEVICE_CHUNK
    chunk = min(chunk, max(LEAST_CHUNK, sum(sizes) // SHARE))
    batch: list[tuple[Tensor, ...]] = []
    held = 0
    for size, *row in zip(sizes, *columns, strict=True):
        if size > chunk:
            for piece in _split(tuple(row), chunk):
                yield [piece]
            continue
        if held + size > chunk:
            yield batch
            batch, held = [], 0
        batch.append(tuple(row))
        held += size
    if batch:
        yield batch


def _split(row: tuple[Tensor, ...], chunk: int) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors of one shape into matching pieces of at most `chunk` elements."""
    row = in_memory_order(row)
    if all(x.is_contiguous() for x in row):
        yield from zip(*(x.view(-1).split(chunk) for x in row), strict=True)
        return
    if row[0].numel() <= chunk:
        yield row
        return
    dim = max(range(row[0].ndim), key=row[0].size)
    step = max(1, chunk * row[0].size(dim) // row[0].numel())
    for piece in zip(*(x.split(step, dim) for x in row), strict=True):
        yield from _split(piece, chunk)


def in_memory_order(row: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Tensors of one shape as views with the dimensions in the order of memory, where that is the same for all.

    Channels-last kernels become contiguous this way; what is laid out differently comes back as it is.
    """
    strides = row[0].stride()
    if all(x.is_contiguous() for x in row) or any(x.stride() != strides for x in row):
        return row
    order = sorted(range(len(strides)), key=strides.__getitem__, reverse=True)
    return tuple(x.permute(order) for x in row)
