"""The rewards of a HyperGrid: what a cell is worth by its coordinates, and from which reward on it is a mode.

They are torchgfn's seven, with its names, parameters and defaults (documentation of `gfn.gym.HyperGrid`, version
2.4.1); the tests hold reward and mode of every cell to it. Each function takes

    x: (…, ndim) int64 coordinates, 0 … height - 1;
    height: cells along each axis;

and its parameters, and returns the rewards, (…,) in torch's default dtype, and the reward that makes a mode. Each
raises ValueError or TypeError for parameters that it cannot take. The first four place their features by
a = abs(x/(height - 1) - 1/2), how far a coordinate is from the middle. The last three add `tier_weights[t]` to R0
where the conditions of all tiers up to t hold.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Generator, Tensor

_EDGE = 1e-12
"""Margin of torchgfn's inequalities, in float64: what lies on an edge is outside."""
_PARITY = {"A", "c"}


def original(x: Tensor, height: int, R0: float = 0.1, R1: float = 0.5, R2: float = 2.0) -> tuple[Tensor, float]:
    """R0 + R1·1[every a > 0.25] + R2·1[every 0.3 < a < 0.4]: high corners, higher spots in them.

    Bengio et al. 2021, arXiv 2106.04399, section 4.1. A mode has all three.
    """
    a = _from_middle(x, height)
    return R0 + (a > 0.25 + _EDGE).prod(-1) * R1 + _in_band(a) * R2, float(R0) + float(R1) + float(R2)


def cosine(x: Tensor, height: int, R0: float = 0.1, R1: float = 0.5, mode_gamma: float = 0.8) -> tuple[Tensor, float]:
    """R0 + R1·Π (cos(50 a) + 1)·φ(5 a), φ the standard normal density: waves that fade away from the middle.

    A mode reaches, by the geometric mean over the axes, `mode_gamma` of the highest factor, 2 φ(0). Source: torchgfn.
    """
    a = _from_middle(x, height)
    density = 1 / math.sqrt(2 * math.pi)
    factors = (torch.cos(a * 50) + 1) * (density * torch.exp(-((a * 5) ** 2) / 2))
    return R0 + factors.prod(-1) * R1, R0 + (mode_gamma * 2 * density) ** x.shape[-1] * R1


def sparse(x: Tensor, height: int) -> tuple[Tensor, float]:
    """1 where every coordinate is 1 or height - 2, not all of them 1; 1e-12 elsewhere. A mode is worth 1.

    Pan et al. 2022, arXiv 2210.03308.
    """
    far = x == height - 2
    return ((far | (x == 1)).all(-1) & far.any(-1)) + 1e-12, 0.5


def deceptive(x: Tensor, height: int, R0: float = 1e-5, R1: float = 0.1, R2: float = 2.0) -> tuple[Tensor, float]:
    """R0 + R1 - R1·1[every a > 0.1] + R2·1[every 0.3 < a < 0.4]: a cross through the middle leads away from the spots.

    Kim et al. 2025 (Adaptive Teachers), as in their code and torchgfn. A mode is a spot: R0 + R2.
    """
    a = _from_middle(x, height)
    return R0 + R1 - (a > 0.1 + _EDGE).prod(-1) * R1 + _in_band(a) * R2, float(R0) + float(R2)


def bitwise_xor(
    x: Tensor,
    height: int,
    R0: float = 0.0,
    tier_weights: Sequence[float] = (1.0, 10.0, 100.0),
    dims_constrained: Sequence[int] | None = None,
    bits_per_tier: Sequence[tuple[int, int]] = ((0, 5), (0, 7), (0, 9)),
    parity_checks: Sequence[Mapping[str, Sequence[Sequence[int]]] | None] | None = None,
) -> tuple[Tensor, float]:
    """Tiers of parity: in each bit plane from the tier's first to its last bit, A b = c modulo 2.

    b, (m,), are the bits of the m coordinates of `dims_constrained` (all where none are named). `parity_checks` has a
    mapping with `A`, (checks, m), and `c`, (checks,), for each tier; a tier without asks for an even sum. A mode holds
    to all tiers. Source: torchgfn.
    """
    x = _chosen(x, "dims_constrained", dims_constrained)
    checks = [None] * len(tier_weights) if parity_checks is None else list(parity_checks)
    _one_for_each_tier(tier_weights, bits_per_tier=bits_per_tier, parity_checks=checks)
    for check in checks:
        if check is not None and set(check) != _PARITY:
            raise ValueError(f"parity_checks={parity_checks}: a tier has A and c, or is null")

    def even(bits: Tensor, check: Mapping[str, Sequence[Sequence[int]]] | None) -> Tensor:
        if check is None:
            return bits.sum(-1) % 2 == 0
        return (bits @ torch.as_tensor(check["A"]).T % 2 == torch.as_tensor(check["c"])).all(-1)

    def tiers() -> Iterable[Tensor]:
        for (first, last), check in zip(bits_per_tier, checks, strict=True):
            planes = [even(x >> bit & 1, check) for bit in range(first, last + 1)]
            yield functools.reduce(torch.logical_and, planes, torch.ones(x.shape[:-1], dtype=torch.bool))

    return _tiered(tiers(), R0, tier_weights), R0 + sum(tier_weights)


def multiplicative_coprime(
    x: Tensor,
    height: int,
    R0: float = 0.0,
    tier_weights: Sequence[float] = (1.0, 10.0, 100.0),
    primes: Sequence[int] = (2, 3, 5),
    exponent_caps: Sequence[int] | None = None,
    active_dims: Sequence[int] | None = None,
    coprime_pairs: Sequence[tuple[int, int]] | None = None,
    target_lcms: Sequence[int | None] | None = None,
) -> tuple[Tensor, float]:
    """Tiers of factors: every coordinate is a product of `primes`, each at most `exponent_caps[t]` times; 0 is none.

    Two coordinates of a pair in `coprime_pairs` (counted in `active_dims`; a pair beyond them is passed over) share no
    prime, and the least common multiple of all is `target_lcms[t]` where one is given. Caps are 2 where none are
    given. A mode holds to all tiers. Source: torchgfn.
    """
    x = _chosen(x, "active_dims", active_dims)
    caps = [2] * len(tier_weights) if exponent_caps is None else exponent_caps
    targets = [None] * len(tier_weights) if target_lcms is None else target_lcms
    _one_for_each_tier(tier_weights, exponent_caps=caps, target_lcms=targets)
    if len(set(primes)) < len(primes) or any(p < 2 or any(p % d == 0 for d in range(2, p)) for p in primes):
        raise ValueError(f"primes={list(primes)}: must be prime numbers, each once")

    def only_primes(cap: int) -> Tensor:
        rest = x
        for prime in primes:
            for _ in range(min(cap, height.bit_length())):
                rest = torch.where(rest % prime == 0, rest // prime, rest)
        return (rest == 1).all(-1)

    coprime = torch.ones(x.shape[:-1], dtype=torch.bool)
    for one, other in coprime_pairs or ():
        if max(one, other) < x.shape[-1]:
            for prime in primes:
                coprime &= (x[..., one] % prime != 0) | (x[..., other] % prime != 0)
    least = functools.reduce(torch.lcm, x.unbind(-1))
    tiers = (
        only_primes(cap) & coprime & (True if target is None else least == target)
        for cap, target in zip(caps, targets, strict=True)
    )
    return _tiered(tiers, R0, tier_weights), R0 + sum(tier_weights)


def conditional_multiscale(
    x: Tensor,
    height: int,
    R0: float = 0.0,
    tier_weights: Sequence[float] = (1.0, 10.0, 100.0),
    base: int = 4,
    filter_width: int | None = None,
    seed: int = 42,
    cross_dim_mods: Sequence[int | None] | None = None,
    active_dims: Sequence[int] | None = None,
) -> tuple[Tensor, float]:
    """Tiers of digits in base B: digit t of every coordinate, shifted by a sum over its lower ones, is below a width.

    (d_t + Σ_{k<t} a_tk d_k) mod B < `filter_width` (half of B where none is given), the a_tk drawn with `seed`. Where
    `cross_dim_mods[t]` is given, it divides the sum of the coordinates' digits t. A mode holds to the first tier that
    less than a tenth of all cells are expected to reach, or to all. Source: torchgfn.
    """
    count = len(tier_weights)
    width = base // 2 if filter_width is None else filter_width
    mods = [None] * count if cross_dim_mods is None else cross_dim_mods
    _one_for_each_tier(tier_weights, cross_dim_mods=mods)
    if base < 2 or height != base ** round(math.log(height, base)):
        raise ValueError(f"base={base}: must be 2 or more, and height={height} a power of it")
    if height < base**count:
        raise ValueError(f"tier_weights={list(tier_weights)}: height={height} has fewer digits in base {base}")
    if not 1 <= width <= base:
        raise ValueError(f"filter_width={width}: must be between 1 and {base}")
    if any(mod is not None and (mod < 2 or width % mod) for mod in mods):
        raise ValueError(f"cross_dim_mods={list(mods)}: must be 2 or more and divide filter_width={width}")
    x = _chosen(x, "active_dims", active_dims)
    digits = [x // base**t % base for t in range(count)]
    generator = Generator().manual_seed(seed)

    def tiers() -> Iterable[Tensor]:
        for t, mod in enumerate(mods):
            factors = torch.randint(base, (t,), generator=generator).tolist() if t else []
            shifted = digits[t] + sum(a * digit for a, digit in zip(factors, digits[:t], strict=True))
            holds = (shifted % base < width).all(-1)
            yield holds if mod is None else holds & (digits[t].sum(-1) % mod == 0)

    rare = (t for t in range(1, count) if (width / base) ** (t * x.shape[-1]) < 0.1)
    return _tiered(tiers(), R0, tier_weights), R0 + sum(tier_weights[: next(rare, count)])


REWARDS: dict[str, Callable[..., tuple[Tensor, float]]] = {
    one.__name__: one
    for one in (original, cosine, sparse, deceptive, bitwise_xor, multiplicative_coprime, conditional_multiscale)
}


def _from_middle(x: Tensor, height: int) -> Tensor:
    return abs(x / (height - 1) - 0.5)


def _in_band(a: Tensor) -> Tensor:
    return ((a > 0.3 + _EDGE) & (a < 0.4 - _EDGE)).prod(-1)


def _tiered(tiers: Iterable[Tensor], base: float, weights: Sequence[float]) -> Tensor:
    """The rewards: the base, and each weight where its tier and all before it hold."""
    rewards: Tensor | float = base
    reached: Tensor | bool = True
    for holds, weight in zip(tiers, weights, strict=True):
        reached = holds & reached
        rewards = rewards + reached.to(torch.get_default_dtype()) * weight
    assert isinstance(rewards, Tensor)
    return rewards


def _chosen(x: Tensor, name: str, dims: Sequence[int] | None) -> Tensor:
    """The coordinates of the axes that are named; all where none are."""
    if dims is None:
        return x
    if not dims or not all(0 <= dim < x.shape[-1] for dim in dims):
        raise ValueError(f"{name}={list(dims)}: must be one or more of 0 … {x.shape[-1] - 1}")
    return x[..., list(dims)]


def _one_for_each_tier(weights: Sequence[float], **others: Sequence[object]) -> None:
    if not weights:
        raise ValueError("tier_weights=[]: must have one tier or more")
    for name, values in others.items():
        if len(values) != len(weights):
            raise ValueError(f"{name}={list(values)}: must have one for each of {len(weights)} tiers")
