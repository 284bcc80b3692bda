"""Every statistic against numbers worked out by hand, by brute force, or by another library's exact code."""

from __future__ import annotations

import itertools
import math
import statistics as plain

import numpy as np
import pytest
from scipy import stats

from vrbench.report import statistics
from vrbench.report.statistics import Band, Reached

SAMPLE = [0.91, 0.93, 0.92, 0.99, 0.94, 0.90, 0.93, 0.92]


def test_students_interval_by_hand() -> None:
    # mean 2, s = 1, t(0.975; 2) = 4.302653, half = 4.302653 / sqrt(3)
    assert statistics.student([1, 2, 3]) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)


def test_the_studentised_bootstrap_resample_by_resample() -> None:
    """The same interval from the same resamples, one at a time, with the standard library alone."""
    mean, error = plain.fmean(SAMPLE), plain.stdev(SAMPLE) / math.sqrt(8)
    ratios = []
    for indices in statistics._resamples(8).tolist():
        drawn = [SAMPLE[index] for index in indices]
        spread = plain.stdev(drawn) / math.sqrt(8) if len(set(drawn)) > 1 else 0.0
        deviation = plain.fmean(drawn) - mean
        ratios.append(deviation / spread if spread else math.copysign(math.inf, deviation))
    ratios.sort()
    assert len(ratios) == 10_000
    expected = mean - ratios[9749] * error, mean - ratios[250] * error
    assert statistics.bootstrap_t(SAMPLE) == pytest.approx(expected)


def test_the_studentised_bootstrap_moves_with_the_sample() -> None:
    low, high = statistics.bootstrap_t(SAMPLE)
    assert high - plain.fmean(SAMPLE) > plain.fmean(SAMPLE) - low  # the sample leans to the right
    assert statistics.bootstrap_t([1 + 3 * x for x in SAMPLE]) == pytest.approx((1 + 3 * low, 1 + 3 * high))
    assert statistics.bootstrap_t([-x for x in SAMPLE]) == pytest.approx((-high, -low))
    normal = stats.norm.ppf((np.arange(100) + 0.5) / 100)
    assert statistics.bootstrap_t(normal) == pytest.approx(statistics.student(normal), rel=0.06)


def test_bca_by_its_formula() -> None:
    """Efron's interval from our own resamples: bias correction by hand, acceleration by the jackknife."""
    x = np.array(SAMPLE)
    means = np.sort(x[statistics._resamples(8)].mean(axis=1))
    z0 = stats.norm.ppf((np.mean(means < x.mean() - 1e-12) + np.mean(means <= x.mean() + 1e-12)) / 2)
    left_out = (x.sum() - x) / 7
    d = left_out.mean() - left_out
    a = (d**3).sum() / (6 * (d**2).sum() ** 1.5)
    z = z0 + stats.norm.ppf([0.025, 0.975])
    expected = np.quantile(means, stats.norm.cdf(z0 + z / (1 - a * z)))
    assert statistics.bca(SAMPLE) == pytest.approx(tuple(expected), abs=0.0015)


@pytest.mark.parametrize("name", statistics.INTERVALS)
def test_intervals_of_samples_that_allow_none(name: str) -> None:
    interval = statistics.INTERVALS[name]
    assert all(math.isnan(bound) for values in ([], [1.0]) for bound in interval(values))
    assert interval([0.1] * 5) == (0.1, 0.1)
    assert interval(SAMPLE) == interval(SAMPLE)
    with pytest.raises(ValueError, match="must be finite"):
        interval([1.0, math.nan])


def test_heavily_tied_values_fall_back_on_student() -> None:
    tied = [1.0] * 7 + [2.0]
    assert statistics.bootstrap_t(tied) == statistics.student(tied)
    assert statistics.bootstrap_t([1, 2]) == statistics.student([1, 2])
    assert math.isfinite(statistics.bootstrap_t(np.arange(5000.0)).low)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([], math.nan),
        ([1.0], 1.0),
        ([1, 2, 3], 0.25),  # 2 of 8 patterns reach 6
        ([4, 1, -2], 0.75),  # |4 ± 1 ± 2| is 7, 5, 3, 1: three of four reach 3
        ([0.1, 0.2, -0.3], 1.0),  # a sum of 0, but for rounding
        ([0.0, 0.0], 1.0),
        ([1] * 8, 2 / 256),
        ([math.inf, 1, 1, -1], 0.5),  # ranks 4, 2, 2, -2: |4 ± 2 ± 2 ± 2| reaches 6 in 4 of 8 patterns
        ([-math.inf] * 6, 2 / 64),
        ([math.inf, -math.inf, 0.0], 1.0),
    ],
)
def test_sign_flips_by_hand(differences: list[float], p: float) -> None:
    assert statistics.sign_flip(differences) == pytest.approx(p, nan_ok=True)


def test_sign_flips_beyond_enumeration() -> None:
    d = [0.3, -0.1, 0.5, 0.2, 0.4, -0.2, 0.1, 0.6, -0.3, 0.2, 0.1, 0.3, -0.1, 0.2, 0.4, -0.1, 0.3]
    patterns = np.array(list(itertools.product([-1, 1], repeat=17)))
    exact = np.mean(np.abs(patterns @ d) >= abs(sum(d)) - 1e-9)
    assert statistics.sign_flip(d) == pytest.approx(exact, abs=4 * math.sqrt(exact / 20_000))
    assert statistics.sign_flip(d) == statistics.sign_flip(d)
    assert 0 < statistics.sign_flip([1.0] * 30) == 1 / 20_001


def test_with_a_diverged_run_the_test_is_wilcoxons() -> None:
    d = [math.inf, 3.0, -1.0, 2.0, 5.0, 4.0, -6.0]
    large = [1e9 if math.isinf(x) else x for x in d]
    assert statistics.sign_flip(d) == pytest.approx(stats.wilcoxon(large, method="exact").pvalue)
    with pytest.raises(ValueError, match="must not be nan"):
        statistics.sign_flip([math.nan])


def test_holm_by_hand() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, math.nan, 0.02]) == pytest.approx([0.9, math.nan, 0.04], nan_ok=True)
    assert statistics.holm([]) == []


def test_the_least_number_of_seeds() -> None:
    # 2/2^5 = 0.0625 and 2/2^6 = 0.031; times 4, 2/2^7 = 0.0625 and 2/2^8 = 0.031
    assert [statistics.least_pairs(tests) for tests in (0, 1, 4, 8, 20)] == [6, 6, 8, 9, 10]
    assert statistics.sign_flip([1.0] * 8) * 4 < statistics.ALPHA <= statistics.sign_flip([1.0] * 7) * 4


def test_seeds_for_a_difference_by_hand() -> None:
    # ((1.959964 + 0.841621) · 1 / 0.5)^2 = 31.395; (1.959964 · 1 / 0.5)^2 = 15.366
    assert statistics.pairs_for(0.5, 1.0, 0.2, 1) == pytest.approx(31.395, abs=1e-3)
    assert statistics.pairs_for(0.0, 1.0, 0.5, 1) == pytest.approx(15.366, abs=1e-3)
    assert statistics.pairs_for(-0.1, 1.0, 0.6, 1) == pytest.approx(15.366, abs=1e-3)
    assert statistics.pairs_for(0.0, 1.0, 0.0, 1) == math.inf


def test_probability_of_improvement() -> None:
    wilson = stats.binomtest(6, 8).proportion_ci(method="wilson")
    assert statistics.probability_of_improvement([1, 2, 3, 1, 1, 1, -1, -9]) == pytest.approx(
        (0.75, wilson.low, wilson.high)
    )
    assert statistics.probability_of_improvement([1, math.inf, 0, -math.inf]).value == 0.625
    assert statistics.probability_of_improvement([1] * 8) == pytest.approx((1, 8 / (8 + 1.959964**2), 1))
    assert all(math.isnan(x) for x in statistics.probability_of_improvement([]))


def test_interquartile_mean() -> None:
    found = statistics.interquartile_mean([[8, 1, 2, 7], [3, 4, 5, 6]])
    assert found.value == 4.5  # of 3, 4, 5, 6
    assert found.low < 4.5 < found.high
    assert statistics.interquartile_mean([[math.nan, 1, 2, 3]]).value == 1.5
    assert statistics.interquartile_mean([[1, 1], [2, 2], []]) == (1.5, 1.5, 1.5)  # strata are never mixed
    assert math.isnan(statistics.interquartile_mean([]).value)


def test_performance_profile() -> None:
    share, low, high = statistics.performance_profile([[1, 2], [3, math.nan]], [0, 1, 2.5, 5])
    assert share.tolist() == [0.75, 0.5, 0.25, 0]  # the mean of the two tasks' shares
    assert low.tolist() == [0.5, 0, 0, 0]
    assert high.tolist() == [1, 1, 0.5, 0]
    with pytest.raises(ValueError, match="no scores"):
        statistics.performance_profile([[]], [0])


@pytest.mark.parametrize("replacement", [True, False])
def test_expected_best_by_counting_all_draws(replacement: bool) -> None:
    values = [0.3, 0.9, 0.5, 0.4]
    for direction, best in (("max", max), ("min", min)):
        curve = statistics.expected_best(values, direction, replacement=replacement)  # type: ignore[arg-type]
        for k in range(1, 5):
            draws = itertools.product(values, repeat=k) if replacement else itertools.combinations(values, k)
            assert curve[k - 1] == pytest.approx(plain.fmean(best(draw) for draw in draws))


def test_expected_best_with_diverged_trials() -> None:
    assert statistics.expected_best([1, 3, math.nan], "max")[0] == pytest.approx((1 + 3 + 1) / 3)
    assert statistics.expected_best([1, 3, math.nan], "min", worst=11)[0] == pytest.approx(5)
    assert np.isnan(statistics.expected_best([math.nan] * 2, "max")).all()


def test_the_band_of_good_rates() -> None:
    rates = [1.0, 1e-3, 1e-2, 1e-1, 1e-4]
    assert statistics.rate_band(rates, [math.nan, 0.90, 0.92, 0.89, 0.2], "max") == Band(
        1e-2, 1e-3, 1e-1, pytest.approx(2), False
    )
    # a good rate beyond a bad one is not in the band, and one that ends where the rates end is open
    assert statistics.rate_band([1, 2, 4, 8], [1.0, 9.0, 1.01, 1.02], "min") == Band(1, 1, 1, 0, True)
    with pytest.raises(ValueError, match="no rate"):
        statistics.rate_band([1, 2], [math.nan, math.nan], "min")


def test_time_to_target() -> None:
    rows = [
        {"step": 10, "time/steps_per_s": 5.0, "train/loss": 1.0},
        {"step": 20, "time/steps_per_s": 2.0, "val/accuracy": 0.5},
        {"step": 30, "time/steps_per_s": 10.0, "val/accuracy": math.nan},
        {"step": 40, "time/steps_per_s": 10.0, "val/accuracy": 0.9},
    ]
    assert statistics.time_to_target(rows, "val/accuracy", 0.5, "max") == Reached(20, 2 + 5)
    assert statistics.time_to_target(rows, "val/accuracy", 0.8, "max") == Reached(40, pytest.approx(9))
    assert statistics.time_to_target(rows, "val/accuracy", 0.95, "max") == Reached(math.inf, math.inf)
    assert statistics.time_to_target(rows, "train/loss", 1.0, "min") == Reached(10, 2)
