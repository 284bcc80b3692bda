"""Probabilities of better, equivalent and worse: where they can be told by hand, and where they must lie."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from vrbench.report.equivalence import PRIOR, signed_rank


def test_one_unit_by_hand() -> None:
    """Weights (1 - w, w), w ~ Beta(1, 0.5): the pair of the unit with itself and both mixed ones are above 0 alone.

    `better` wins where 1 - (1 - w)^2 > (1 - w)^2: for w > 1 - 1/sqrt(2), with probability (1/sqrt(2))^0.5.
    """
    found = signed_rank([5.0], 1.0)
    assert found.better == pytest.approx((1 / math.sqrt(2)) ** PRIOR, abs=0.01)
    assert found.worse == 0
    assert sum(found) == pytest.approx(1.0)


def test_clear_cases() -> None:
    assert signed_rank([2.0] * 8, 0.5).better > 0.99
    assert signed_rank([-2.0] * 8, 0.5).worse > 0.99
    assert signed_rank([0.1, -0.1] * 4, 0.5).equivalent > 0.99
    mirrored = signed_rank([1.0, -0.2, 0.5, 0.9], 0.3), signed_rank([-1.0, 0.2, -0.5, -0.9], 0.3)
    assert mirrored[0].better == pytest.approx(mirrored[1].worse)


def test_the_draws_by_brute_force() -> None:
    gains, smallest = [0.5, -0.1, 0.9, 0.05], 0.2
    g = np.random.default_rng(7)
    z = [0.0, *gains]
    counts = np.zeros(3)
    for _ in range(4000):
        gammas = [g.gamma(PRIOR), *(g.gamma(1.0) for _ in gains)]
        w = [one / sum(gammas) for one in gammas]
        shares = [0.0, 0.0, 0.0]
        for i, x in enumerate(z):
            for j, y in enumerate(z):
                mean = (x + y) / 2
                shares[0 if mean > smallest else 2 if mean < -smallest else 1] += w[i] * w[j]
        counts[int(np.argmax(shares))] += 1
    assert list(signed_rank(gains, smallest)) == pytest.approx(list(counts / 4000), abs=0.03)


def test_diverged_runs_and_nothing() -> None:
    assert signed_rank([math.inf] * 8, 0.1).better > 0.99
    assert signed_rank([math.inf, -math.inf] * 4, 0.1) == pytest.approx(signed_rank([9.0, -9.0] * 4, 0.1))
    assert all(map(math.isnan, signed_rank([], 0.1)))
    with pytest.raises(ValueError, match="smallest=-1"):
        signed_rank([1.0], -1)


@pytest.mark.parametrize(("units", "smallest"), [(1, 0.0), (7, 0.02), (24, 0.01), (40, 0.0)])
def test_the_numbers_are_those_of_a_matrix_of_all_pairs(units: int, smallest: float) -> None:
    """Gains are rounded, so that many sums lie on the threshold."""
    gains = np.random.default_rng(units).normal(0.004, 0.02, units).round(2)
    sums = np.add.outer(*2 * [np.array([0.0, *gains])])
    weights = np.random.default_rng(0).dirichlet([PRIOR, *np.ones(units)], 20_000)
    up, down = (
        np.einsum("ij,ij->i", weights @ beyond.astype(float), weights)
        for beyond in (sums > 2 * smallest, sums < -2 * smallest)
    )
    counts = np.bincount(np.argmax([up, 1 - up - down, down], axis=0), minlength=3)
    assert signed_rank(gains, smallest) == tuple(counts / 20_000)


def test_many_units_need_no_matrix_of_their_pairs() -> None:
    tracemalloc.start()
    signed_rank(np.random.default_rng(0).normal(size=3000), 0.1)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 3000**2 * 8 / 4
