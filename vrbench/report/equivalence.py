"""How large a difference is, beside whether there is one: probabilities of better, equivalent and worse."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS = 20_000
BLOCK = 100_000
"""Weights that are held at a time: they stay in cache."""
PRIOR = 0.5
"""Weight of the prior, one made-up unit without any difference."""


class Practical(NamedTuple):
    """Posterior probabilities; they sum to one, and are nan where there are no units."""

    better: float
    equivalent: float
    worse: float


def signed_rank(gains: ArrayLike, smallest: float) -> Practical:
    """The Bayesian signed-rank test (Benavoli et al. 2017, arXiv 1606.04316, section 4) of `gains`, shape (n,).

    The units have Dirichlet weights (a prior of weight 0.5 on a gain of 0); in a draw, the shares of pairs of units,
    one with itself too, whose mean gain is above `smallest`, within ± it, and below: each draw goes to the largest.
    An infinite gain, that over a diverged run, outweighs every finite one. From a fixed seed. Raises ValueError for nan
    and for `smallest` below 0.
    """
    g = np.asarray(gains, dtype=np.float64)
    if np.isnan(g).any():
        raise ValueError("gains: must not be nan")
    if not smallest >= 0:
        raise ValueError(f"smallest={smallest}: must be 0 or more")
    if not g.size:
        return Practical(math.nan, math.nan, math.nan)
    beyond = 4 * (float(np.abs(g[np.isfinite(g)]).max(initial=0.0)) + smallest) + 1.0
    z = np.concatenate([[0.0], np.where(np.isinf(g), np.sign(g) * beyond, g)])
    order = np.argsort(z)
    first, last = _partners(z[order], 2 * smallest), _partners(-z[order][::-1], 2 * smallest)
    draws = max(1000, min(DRAWS, 10_000_000 // z.size))
    rows = max(1, BLOCK // z.size)
    generator, counts = np.random.default_rng(0), np.zeros(3, dtype=np.int64)
    for done in range(0, draws, rows):
        weights = generator.dirichlet([PRIOR, *np.ones(g.size)], min(rows, draws - done)).T[order]
        up, down = _weight(weights, first), _weight(weights[::-1], last)
        counts += np.bincount(np.argmax([up, 1 - up - down, down], axis=0), minlength=3)
    return Practical(*(float(count) / draws for count in counts))


def _partners(ordered: NDArray[np.float64], threshold: float) -> NDArray[np.int64]:
    """For each of some ascending numbers the place from which on its sums with them are above the threshold."""
    first, place = np.empty(ordered.size, dtype=np.int64), ordered.size
    for number, value in enumerate(ordered):
        while place and value + ordered[place - 1] > threshold:
            place -= 1
        first[number] = place
    return first


def _weight(weights: NDArray[np.float64], first: NDArray[np.int64]) -> NDArray[np.float64]:
    """By draw, the weight of all pairs of a unit and one of those from its `first` partner on; `weights` is (n, draws).

    Sums over n units, and not over their n² pairs.
    """
    tails = np.zeros((len(weights) + 1, weights.shape[1]))
    np.cumsum(weights[::-1], axis=0, out=tails[1:])
    return np.asarray(np.einsum("ij,ij->j", weights, tails[len(weights) - first]))
