"""Summaries over tasks: numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vrbench.report import across_tasks


def test_random_effects_by_hand() -> None:
    """Effects 0, 2, 4 with error 1: Q = 8, τ² = (8 - 2) / (3 - 1) = 3; mean 2, error sqrt(4 / 3), t with 2 degrees."""
    found = across_tasks.random_effects([0.0, 2.0, 4.0], [1.0, 1.0, 1.0])
    assert (found.mean, found.tau, found.tasks) == (pytest.approx(2.0), pytest.approx(math.sqrt(3)), 3)
    half = 4.302653 * math.sqrt(4 / 3)  # the spread of the effects, (4 + 0 + 4) / 4 / 2 = 1, over 3 / 4
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), abs=1e-5)
    t = 2 / math.sqrt(4 / 3)
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t * t))


def test_equal_effects_are_not_more_certain_than_their_errors() -> None:
    found = across_tasks.random_effects([1.0, 1.0], [0.5, 0.5])
    assert found.tau == 0
    assert found.high - found.mean == pytest.approx(12.7062 * 0.5 / math.sqrt(2), rel=1e-4)
    one = across_tasks.random_effects([1.0], [0.5])
    assert (one.mean, one.tasks) == (1.0, 1)
    assert math.isnan(one.low)
    with pytest.raises(ValueError, match="errors: must be finite and above 0"):
        across_tasks.random_effects([1.0, 2.0], [0.5, 0.0])


def test_random_effects_cover() -> None:
    g = np.random.default_rng(0)
    covered = 0
    for _ in range(500):
        errors = g.uniform(0.5, 1.5, 4)
        found = across_tasks.random_effects(1 + g.normal(0, 1, 4) + errors * g.normal(size=4), errors)
        covered += found.low <= 1 <= found.high
    assert covered >= 460


def test_time_profiles_by_hand() -> None:
    """a is the fastest of both tasks; b needs twice as long in one and never arrives in the other."""
    found = across_tasks.time_profiles({"x": {"a": 10.0, "b": 20.0}, "y": {"a": 5.0, "b": math.inf}})
    assert (found["a"].at, found["a"].share, found["a"].score) == ((1.0,), (1.0,), 1.0)
    assert (found["b"].at, found["b"].share) == ((2.0,), (0.5,))
    assert found["b"].score == pytest.approx((4 - 2) / 3 / 2)
    none = across_tasks.time_profiles({"x": {"a": math.inf}, "y": {"b": 1.0}})
    assert (none["a"].score, none["b"].score) == (0.0, 0.5)
    late = across_tasks.time_profiles({"x": {"a": 1.0, "b": 5.0}})
    assert (late["b"].at, late["b"].score) == ((), 0.0)


def test_the_good_share_of_a_space() -> None:
    found = across_tasks.good_share([1.0, 1.04, 1.2, math.nan], "min", 0.05)
    assert found.value == 0.5
    assert found.low < 0.5 < found.high
    assert across_tasks.good_share([0.9, 0.5], "max", 0.5).value == 1.0
    assert math.isnan(across_tasks.good_share([math.nan], "max", 0.5).value)


def test_one_configuration_for_all_tasks() -> None:
    """Regrets 0, 0.1, 1 and 1, 0.1, 0: the middle one has the least regret where it is largest."""
    costs = {"x": [1.0, 1.1, 2.0], "y": [2.0, 1.1, 1.0]}
    assert across_tasks.one_for_all(costs, "worst") == 1
    assert across_tasks.one_for_all({"x": [1.0, 2.0], "y": [math.nan, 1.0]}, "mean") == 1
    with pytest.raises(ValueError, match="costs: every task"):
        across_tasks.one_for_all({"x": [1.0], "y": [1.0, 2.0]}, "mean")
