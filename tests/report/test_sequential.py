"""The anytime-valid test: by hand, by all sign patterns, and what a further unit can still change."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from vrbench.report import sequential
from vrbench.report.sequential import BETS


def test_sizes_by_hand() -> None:
    """1 over 1; -2 over sqrt((1 + 4) / 2); 0; an infinite one is sqrt(4) and leaves the scale of the next alone."""
    found = sequential.signed_sizes([1.0, -2.0, 0.0, math.inf, 1.0])
    assert found.tolist() == pytest.approx([1.0, -2 / math.sqrt(2.5), 0.0, 2.0, 1 / math.sqrt(6 / 4)])
    assert sequential.signed_sizes([0.0, 0.0]).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="differences: must not be nan"):
        sequential.signed_sizes([math.nan])


def test_evidence_by_hand() -> None:
    """After two equal differences: the mean over λ and both signs of (e^λ / cosh λ)^2."""
    by_hand = np.mean([(math.exp(side * bet) / math.cosh(bet)) ** 2 for bet in BETS for side in (1, -1)])
    assert sequential.e_process([3.0, 3.0])[-1] == pytest.approx(by_hand)
    assert sequential.e_process([3.0])[-1] == pytest.approx(1.0)  # one sign says nothing of two sides
    assert math.isnan(sequential.anytime_p([]))


@pytest.mark.parametrize("sizes", [[1.0, 0.3, 2.0, 0.0, 5.0], [2.0, math.inf, 1.0, math.inf, 0.1]])
def test_it_is_a_martingale_over_all_signs(sizes: list[float]) -> None:
    """Given the sizes, the mean over the 2^n signs is 1 after every unit, and over the next sign what it was before."""
    paths = {
        signs: sequential.e_process(np.array(signs) * np.array(sizes)) for signs in itertools.product((1, -1), repeat=5)
    }
    assert np.mean(list(paths.values()), axis=0) == pytest.approx(np.ones(5))
    for signs, path in paths.items():
        other = paths[(*signs[:4], -signs[4])]
        assert (path[4] + other[4]) / 2 == pytest.approx(path[3])


def test_it_knows_no_unit_and_no_side() -> None:
    differences = np.array([0.3, 0.1, -0.05, 0.2, 0.4, 0.3, 0.25])
    assert sequential.anytime_p(1e-9 * differences) == pytest.approx(sequential.anytime_p(differences))
    assert sequential.anytime_p(-differences) == pytest.approx(sequential.anytime_p(differences))
    assert (sequential.leaning(differences), sequential.leaning(-differences), sequential.leaning([])) == (1, -1, 0)


def test_fewer_than_six_units_never_decide() -> None:
    assert sequential.anytime_p([1.0] * 5) > 0.05
    assert sequential.anytime_p([math.inf] * 5) > 0.05
    assert sequential.anytime_p([1.0] * 9) < 0.05


def test_unlimited_looking_keeps_the_level() -> None:
    """400 paths of 40 units: with a level of 5 % more than 31 would cross with probability 1 %."""
    g = np.random.default_rng(3)
    crossed = sum(sequential.e_process(g.standard_t(3, 40)).max() >= 20 for _ in range(400))
    assert crossed <= 31


def test_the_interval_is_the_centres_that_are_kept() -> None:
    differences = np.random.default_rng(0).normal(1.0, 0.5, 12)
    low, high = sequential.anytime_interval(differences)
    for bound, outside in ((low, -0.02), (high, 0.02)):
        assert sequential.anytime_p(differences - bound) > 0.05
        assert sequential.anytime_p(differences - bound - outside) <= 0.05
    assert low < differences.mean() < high
    assert sequential.anytime_interval([1.0, 2.0, 3.0]) == (-math.inf, math.inf)
    assert sequential.anytime_interval([2.0, 2.0]) == (2.0, 2.0)
    assert all(map(math.isnan, sequential.anytime_interval([1.0])))


def test_what_a_further_unit_can_change() -> None:
    differences = [0.1, 0.2, 0.15, 0.12, 0.2]
    left = sequential.what_is_left(differences)
    assert left.agrees == pytest.approx(sequential.anytime_p([*differences, 0.154]))
    assert left.opposes == pytest.approx(sequential.anytime_p([*differences, -0.154]))
    assert left.agrees < sequential.anytime_p(differences) < left.opposes
    assert left.least >= 1
    surely = [*differences, *[math.inf] * (left.least - 1)]
    assert sequential.anytime_p(surely) > 0.05  # fewer than the least cannot do it
    assert sequential.what_is_left([1.0] * 12).least == 0
    assert sequential.what_is_left([]).least == 6  # 2^6 / 2 is the first above 20
