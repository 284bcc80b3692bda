"""A test that may be looked at as often as one likes: an e-process for differences that are symmetric about zero.

Under symmetry the sign of a difference is a fair coin, whatever its size and whatever came before. So for any scale
that is known before the sign is, E[exp(λd) / cosh(λd)] = 1, and the product over the units is a martingale that begins
at one (Vovk & Wang 2022, arXiv 2208.08925; Ramdas et al. 2020, arXiv 2009.03167). By Ville's inequality it reaches 20
with probability 5 % at most, however often it is looked at and whenever one stops (arXiv 2210.01948).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vrbench.report.statistics import ALPHA, NONE, Interval

Array = NDArray[np.float64]

BETS = (0.5, 1.0, 2.0, 4.0)
"""The λ that are mixed in equal shares, in units of the running scale: effects of half to four s.d."""


def signed_sizes(differences: ArrayLike) -> Array:
    """Each difference over its scale, of the shape (n,) of `differences`: |d| ≤ √n, and no unit of measurement.

    The scale of the i-th is the root mean square of the first i, itself among them: all of it is known before the
    i-th sign. An infinite difference (a diverged run) counts as √i, which is the limit of a finite one that grows, and
    is in no later scale. 0 where all so far are 0. Raises ValueError for nan.
    """
    d = np.asarray(differences, dtype=np.float64)
    if np.isnan(d).any():
        raise ValueError("differences: must not be nan; a diverged run makes an infinite one, two make a zero")
    largest = np.abs(d[np.isfinite(d)]).max(initial=0.0)
    finite = np.where(np.isfinite(d), d, 0.0) / (largest or 1.0)
    count = np.maximum(np.cumsum(np.isfinite(d)), 1)
    scale = np.sqrt(np.cumsum(finite**2) / count)
    sizes = np.where(scale > 0, finite / np.where(scale > 0, scale, 1.0), 0.0)
    return np.where(np.isinf(d), np.sign(d) * np.sqrt(np.arange(1, d.size + 1)), sizes)


def e_process(differences: ArrayLike) -> Array:
    """The evidence against symmetry after each unit, of shape (n,), in the order given. Two-sided.

    The mean over `BETS` and both signs of Π exp(λz) / cosh(λz), with z of `signed_sizes`. One unit at most doubles it,
    so that fewer than six cannot reach 20. The order of the units must not depend on their values.
    """
    up, down = _sides(signed_sizes(differences))
    return np.asarray((up + down) / 2)


def _sides(sizes: Array) -> tuple[Array, Array]:
    """The evidence that the differences are positive, and that they are negative, after each."""
    bets = np.array(BETS)[:, None] * sizes
    cost = np.cumsum(np.logaddexp(bets, -bets) - math.log(2), axis=1)  # log cosh
    gain = np.cumsum(bets, axis=1)
    with np.errstate(over="ignore"):
        return np.exp(gain - cost).mean(axis=0), np.exp(-gain - cost).mean(axis=0)


def anytime_p(differences: ArrayLike) -> float:
    """1 / evidence, at most 1: a p value that stays valid however often it was looked at; nan for no units."""
    evidence = e_process(differences)
    return float(min(1.0, 1.0 / evidence[-1])) if evidence.size else math.nan


def leaning(differences: ArrayLike) -> int:
    """Which side the evidence favours: 1, -1, or 0 where neither."""
    up, down = _sides(signed_sizes(differences))
    return int(np.sign(up[-1] - down[-1])) if up.size else 0


def anytime_interval(differences: ArrayLike) -> Interval:
    """The centres m that the e-process of `differences - m` does not refuse: an interval that holds at every look.

    Finite `differences` of shape (n,), about whose centre symmetry is assumed. Between the outermost centres that are
    kept, found on a grid and by bisection. Infinite bounds for fewer than six units, nan for fewer than two, the point
    where all are equal.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.size < 2:
        return NONE
    if np.ptp(d) == 0:
        return Interval(float(d[0]), float(d[0]))
    if 2 ** (d.size - 1) < 1 / ALPHA:
        return Interval(-math.inf, math.inf)

    def kept(centre: float) -> bool:
        return anytime_p(d - centre) > ALPHA

    def bound(side: float) -> float:
        middle, reach = float(np.median(d)), float(np.ptp(d))
        steps = middle + side * reach * np.linspace(0.0, 4.0, 81)
        inside = [step for step in steps if kept(step)]
        if not inside:
            return middle
        low, high = inside[-1], inside[-1] + side * reach / 20
        if inside[-1] == steps[-1]:
            return side * math.inf
        for _ in range(20):
            half = (low + high) / 2
            low, high = (half, high) if kept(half) else (low, half)
        return float(low)

    return Interval(bound(-1.0), bound(1.0))


class Next(NamedTuple):
    """What one more unit can do to an anytime p value."""

    agrees: float
    """p if the next unit is like the mean of those so far."""
    opposes: float
    """p if it is the opposite of that."""
    least: int
    """The fewest further units after which p can be below the level, were they all as one could wish."""


def what_is_left(differences: Sequence[float], level: float = ALPHA) -> Next:
    """What further units can still change, by the rule that one at most doubles the evidence.

    With no finite difference, or a mean of 0, the next unit is like the largest size. nan for no units.
    """
    d = np.asarray(differences, dtype=np.float64)
    finite = d[np.isfinite(d)]
    if not d.size:
        return Next(math.nan, math.nan, max(1, math.ceil(math.log2(2 / level))))
    typical = float(finite.mean()) if finite.size and finite.mean() != 0 else float(np.abs(finite).max(initial=1.0))
    further = [anytime_p([*d, side * typical]) for side in (1.0, -1.0)]
    up, down = (float(side[-1]) for side in _sides(signed_sizes(d)))
    best = max(up, down)
    least = max(0, math.ceil(math.log2(2 / (level * best)))) if best > 0 else 0
    if (up + down) / 2 > 1 / level:
        least = 0
    return Next(further[0], further[1], least)
