"""How large a difference is, beside whether there is one: probabilities of better, equivalent and worse."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

DRAWS = 20_000
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
    sums = z[:, None] + z
    above, below = (sums > 2 * smallest).astype(float), (sums < -2 * smallest).astype(float)
    draws = max(1000, min(DRAWS, 10_000_000 // z.size))
    weights = np.random.default_rng(0).dirichlet([PRIOR, *np.ones(g.size)], draws)
    up = np.einsum("ij,ij->i", weights @ above, weights)
    down = np.einsum("ij,ij->i", weights @ below, weights)
    largest = np.argmax([up, 1 - up - down, down], axis=0)
    shares = np.bincount(largest, minlength=3) / draws
    return Practical(*(float(share) for share in shares))
