"""Replicates as observations: numbers worked out by hand, and what exchanging the sides must do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from vrbench.report import replicates
from vrbench.report.replicates import Unit


def test_a_replicate_is_one_observation() -> None:
    assert replicates.unit_of(2, [1.0, 3.0], 0, 0, -1.0) == Unit(2, -2.0, 2.0, 2)
    assert replicates.unit_of(0, [1.0, 3.0], 1, 0, 1.0) == Unit(0, -math.inf, 2.0, 3)
    assert replicates.unit_of(0, [1.0, 3.0], 0, 2, 1.0) == Unit(0, math.inf, 2.0, 4)
    both = replicates.unit_of(0, [], 2, 2, 1.0)
    assert (both.gain, both.seeds) == (0.0, 2)
    assert math.isnan(both.difference)


def test_students_test_by_hand() -> None:
    """Means 1, 2, 3: t = 2 / (1 / sqrt(3)) with two degrees of freedom, p = 1 - t / sqrt(2 + t^2)."""
    t = 2 * math.sqrt(3)
    assert replicates.t_test([1.0, 2.0, 3.0]) == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert replicates.t_test([1.0, 2.0, 4.0]) == pytest.approx(stats.ttest_1samp([1.0, 2.0, 4.0], 0).pvalue)
    assert replicates.t_test([2.0, 2.0, 2.0]) == 0
    for none in ([1.0], [0.0, 0.0], [1.0, math.inf]):
        assert math.isnan(replicates.t_test(none))


def test_components_by_hand() -> None:
    """Replicates (0, 2) and (4, 6): within 2, between 2 · (2^2 + 2^2) = 16, so tuning^2 = (16 - 2) / 2 = 7."""
    differences = {(0, 10): 0.0, (0, 11): 2.0, (1, 20): 4.0, (1, 21): 6.0}
    found = replicates.components(differences)
    assert (found.seed, found.tuning) == pytest.approx((math.sqrt(2), math.sqrt(7)))
    assert math.isnan(found.shared)


def test_components_of_unequal_numbers_by_hand() -> None:
    """Replicates (0, 2) and (5,): n0 = 3 - 5/3 = 4/3; within 2; means 1 and 5 about 7/3: 32/9 + 64/9 = 32/3."""
    found = replicates.components({(0, 1): 0.0, (0, 2): 2.0, (1, 1): 5.0})
    assert found.seed == pytest.approx(math.sqrt(2))
    assert found.tuning == pytest.approx(math.sqrt((32 / 3 - 2) / (4 / 3)))


def test_components_where_there_are_none() -> None:
    assert replicates.components({(0, 1): 0.0, (0, 2): 2.0, (1, 1): 0.0, (1, 2): 2.0}).tuning == 0
    one = replicates.components({(0, 1): 0.0, (0, 2): 2.0})
    assert one.seed == pytest.approx(math.sqrt(2))
    assert math.isnan(one.tuning)
    assert math.isnan(replicates.components({}).seed)


def test_what_both_sides_share_is_the_splits() -> None:
    """Means (1, 11) and (2, 12): covariance 50; that of the seeds within is (2 + 2) / 2 = 2, and two seeds share it."""
    a = {(0, 1): 0.0, (0, 2): 2.0, (1, 3): 10.0, (1, 4): 12.0}
    b = {(0, 1): 1.0, (0, 2): 3.0, (1, 3): 11.0, (1, 4): 13.0}
    found = replicates.components({key: a[key] - b[key] for key in a}, [a, b])
    seeds = (2.0 + 2.0) / (4 - 2)
    assert found.shared == pytest.approx(math.sqrt(50 - seeds / 2))
    assert (found.tuning, found.seed) == (0.0, 0.0)


def test_components_find_what_was_put_in() -> None:
    g = np.random.default_rng(0)
    values = {
        (r, s): float(t + e) for r in range(400) for t in [g.normal(0, 3)] for s, e in enumerate(g.normal(0, 2, 8))
    }
    found = replicates.components(values)
    assert (found.tuning, found.seed) == pytest.approx((3, 2), rel=0.1)


def test_the_hierarchical_bootstrap() -> None:
    low, high = replicates.hierarchical_bootstrap([[0.0, 0.0], [1.0, 1.0]])
    assert (low, high) == (0.0, 1.0)  # a quarter of the draws are of one replicate alone
    assert all(map(math.isnan, replicates.hierarchical_bootstrap([[1.0, 2.0]])))
    assert replicates.interval_of_means([1.0, 2.0, 3.0]).low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-5)


def test_against_itself_by_hand() -> None:
    """Six tunings, three low and three high: 9 of 15 couples differ; of the 10 halvings the one that sorts them."""
    low, high = [[0.0, 0.01, 0.02]] * 3, [[1.0, 1.01, 1.02]] * 3
    found = replicates.against_itself([*low, *high])
    assert (found.single, found.couples, found.halves, found.ways) == (9, 15, 1, 10)
    same = replicates.against_itself([[0.0, 1.0, 2.0]] * 5)
    assert (same.single, same.couples, same.halves, same.ways) == (0, 10, 0, 0)
    seven = replicates.against_itself([[float(i), i + 1.0] for i in range(7)])
    assert seven.ways == 70  # 7 · 10
    many = replicates.against_itself([[float(i % 2), i % 2 + 0.01] for i in range(32)])
    assert (many.couples, many.single, many.ways) == (496, 256, 1000)
