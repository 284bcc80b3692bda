"""What may be said from a handful of seeds: intervals, exact tests, summaries over tasks. Pure functions of numbers.

Everything that draws, draws from a fixed seed: the same numbers give the same interval. A run that diverged is `nan`
in the arrays here, and each function says what it takes that for. docs/statistics.md has the measured coverage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

ALPHA = 0.05
RESAMPLES = 10_000
EXACT_UP_TO = 16
"""Sign-flip tests of at most so many pairs count every one of the 2^n sign patterns."""

Array = NDArray[np.float64]
Direction = Literal["min", "max"]


class Interval(NamedTuple):
    """A 95 % interval; both bounds are nan where the numbers allow none."""

    low: float
    high: float


NONE = Interval(math.nan, math.nan)


# ---- intervals of a mean --------------------------------------------------------------------------------------------


def bootstrap_t(values: ArrayLike) -> Interval:
    """The studentised bootstrap interval of the mean (Efron & Tibshirani 1993, 12.5); finite `values` of shape (n,).

    Each resample's mean is measured in its own standard error, so that the interval widens as Student's does and leans
    as the sample does. nan bounds for n < 2, the point where all values are equal; where so many resamples have no
    spread that a bound would be infinite (very few or heavily tied values), Student's interval.
    """
    x = _finite(values)
    if x.size < 2 or np.ptp(x) == 0:
        return _degenerate(x)
    centred = x - x.mean()
    counts = _counts(x.size)
    deviation = counts @ centred / x.size
    variance = (counts @ centred**2 / x.size - deviation**2) * x.size / (x.size - 1)
    error = np.sqrt(np.maximum(variance, 0.0) / x.size)
    flat = error <= 1e-7 * np.abs(centred).max()  # below that the variance is rounding
    ratio = np.where(flat, np.copysign(np.inf, deviation), deviation / np.where(flat, 1.0, error))
    low, high = _central(ratio)
    if not (math.isfinite(low) and math.isfinite(high)):
        return student(x)
    mean, own = float(x.mean()), float(x.std(ddof=1)) / math.sqrt(x.size)
    return Interval(mean - high * own, mean - low * own)


def bca(values: ArrayLike) -> Interval:
    """The bias-corrected and accelerated bootstrap interval of the mean (Efron 1987), by scipy.stats.bootstrap.

    nan bounds for n < 2, the point where all values are equal.
    """
    from scipy import stats

    x = _finite(values)
    if x.size < 2 or np.ptp(x) == 0:
        return _degenerate(x)
    found = stats.bootstrap(
        (x,),
        np.mean,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=1 - ALPHA,
        method="BCa",
        random_state=np.random.default_rng(0),
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def student(values: ArrayLike) -> Interval:
    """Student's t interval of the mean. nan bounds for n < 2, the point where all values are equal."""
    from scipy import stats

    x = _finite(values)
    if x.size < 2 or np.ptp(x) == 0:
        return _degenerate(x)
    half = float(stats.t.ppf(1 - ALPHA / 2, x.size - 1) * x.std(ddof=1)) / math.sqrt(x.size)
    return Interval(float(x.mean()) - half, float(x.mean()) + half)


INTERVALS: Mapping[str, Callable[[ArrayLike], Interval]] = {"bootstrap-t": bootstrap_t, "bca": bca, "t": student}


def _finite(values: ArrayLike) -> Array:
    x = np.asarray(values, dtype=np.float64)
    if not np.isfinite(x).all():
        raise ValueError("values: must be finite; leave diverged runs out and say how many there were")
    return x


def _degenerate(x: Array) -> Interval:
    return Interval(float(x[0]), float(x[0])) if x.size > 1 else NONE


def _resamples(n: int, stream: int = 0) -> NDArray[np.int64]:
    """Indices of shape (resamples, n), the same at each call; only those of everyday sizes are kept."""
    return _draw(n, stream) if n <= 256 else _draw.__wrapped__(n, stream)


@lru_cache(maxsize=16)
def _draw(n: int, stream: int) -> NDArray[np.int64]:
    return np.random.default_rng((stream, n)).integers(0, n, (_affordable(RESAMPLES, n), n))


def _counts(n: int) -> Array:
    """How often each of the n values is in each resample, shape (resamples, n): a mean is then a matrix product."""
    return _tally(n) if n <= 256 else _tally.__wrapped__(n)


@lru_cache(maxsize=16)
def _tally(n: int) -> Array:
    drawn = _resamples(n)
    places = drawn + n * np.arange(len(drawn))[:, None]
    return np.bincount(places.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)


def _affordable(count: int, n: int) -> int:
    """Fewer draws of very large samples (10,000 up to n = 1,000), so that no table needs more than some 80 MB."""
    return max(1000, min(count, 10_000_000 // n))


def _central(draws: Array) -> Interval:
    """The order statistics that leave 2.5 % out on either side; infinite draws do no harm in between."""
    first = math.floor(len(draws) * ALPHA / 2)
    last = len(draws) - 1 - first
    ordered = np.partition(draws, (first, last))
    return Interval(float(ordered[first]), float(ordered[last]))


# ---- paired tests ---------------------------------------------------------------------------------------------------


def flippable(differences: ArrayLike) -> Array:
    """The differences as the sign-flip test adds them up: as they are, or as signed ranks where one is infinite.

    An infinite difference is that to a diverged run; a pair of two diverged runs has the difference 0. Where there is
    an infinite one, sizes become mid-ranks and zeros stay: Wilcoxon's statistic, in which a diverged run is the worst
    however bad the others are. Raises ValueError for nan.
    """
    from scipy import stats

    d = np.asarray(differences, dtype=np.float64)
    if np.isnan(d).any():
        raise ValueError("differences: must not be nan; a diverged run makes an infinite one, two make a zero")
    if not np.isinf(d).any():
        return d
    ranks = np.zeros_like(d)
    ranks[d != 0] = stats.rankdata(np.abs(d[d != 0]))
    return np.asarray(np.sign(d) * ranks)


def sign_flip(differences: ArrayLike) -> float:
    """The two-sided p value of paired differences, of shape (n,), under their 2^n sign patterns.

    The statistic is the sum of `flippable(differences)`, whose form depends on sizes alone and never on signs, so that
    the test is exact either way. All patterns are counted for n ≤ 16, else 20,000 seeded ones (fewer beyond 500 pairs)
    and the observed one. nan for no pairs.
    """
    d = flippable(differences)
    if d.size == 0:
        return math.nan
    observed = abs(d.sum()) - 1e-12 * np.abs(d).sum()
    if d.size <= EXACT_UP_TO:
        return float(np.mean(np.abs(_patterns(d.size) @ d) >= observed))
    signs = np.random.default_rng(0).integers(0, 2, (_affordable(20_000, d.size), d.size)) * 2.0 - 1.0
    return float((1 + np.sum(np.abs(signs @ d) >= observed)) / (1 + len(signs)))


@lru_cache(maxsize=EXACT_UP_TO)
def _patterns(n: int) -> Array:
    return np.asarray((np.arange(2**n)[:, None] >> np.arange(n) & 1) * 2.0 - 1.0, dtype=np.float64)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values (1979), in the order given; nan is no test: it stays, and does not count."""
    order = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted, so_far = [math.nan] * len(p_values), 0.0
    for rank, (p, place) in enumerate(order):
        so_far = max(so_far, min(1.0, p * (len(order) - rank)))
        adjusted[place] = so_far
    return adjusted


def least_pairs(tests: int) -> int:
    """The fewest pairs whose least possible p, 2/2^n, is below Holm's first threshold over so many tests."""
    n = 1
    while 2.0 ** (1 - n) * max(tests, 1) >= ALPHA:
        n += 1
    return n


def pairs_for(mean: float, deviation: float, smallest: float, tests: int) -> float:
    """About how many pairs would settle a difference of this mean and standard deviation: a planning figure.

    The lesser of two: to find the difference with 80 % power at Holm's first threshold, and to hold its interval inside
    ±`smallest`, both by the normal approximation and as if the mean seen were the true one. inf where neither can be.
    """
    from scipy import stats

    z = stats.norm.ppf
    found = math.inf
    if mean != 0:
        found = ((z(1 - ALPHA / (2 * max(tests, 1))) + z(0.8)) * deviation / abs(mean)) ** 2
    inside = (z(1 - ALPHA / 2) * deviation / (smallest - abs(mean))) ** 2 if abs(mean) < smallest else math.inf
    return float(min(found, inside))


# ---- probability of improvement -------------------------------------------------------------------------------------


class Estimate(NamedTuple):
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


def probability_of_improvement(gains: ArrayLike) -> Estimate:
    """How likely the first of a pair is to be the better one: the share of positive `gains`, ties counting half.

    With Wilson's interval (1927), which does not shrink to a point where all pairs agree. Pairs of several tasks may be
    pooled: Wilson's variance is then too large rather than too small. Infinite gains are those over a diverged run.
    """
    from scipy import stats

    g = np.asarray(gains, dtype=np.float64)
    if g.size == 0:
        return Estimate(math.nan, math.nan, math.nan)
    n, share = g.size, float(np.mean((g > 0) + 0.5 * (g == 0)))
    z = float(stats.norm.ppf(1 - ALPHA / 2))
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half))


# ---- over tasks -----------------------------------------------------------------------------------------------------


def interquartile_mean(strata: Sequence[ArrayLike]) -> Estimate:
    """The mean of the middle half of all scores (Agarwal et al. 2021, arXiv 2108.13264), tasks as strata.

    `strata` has one array of scores a task, more is better; a nan score (diverged) counts as -inf, which the trimming
    takes away until a quarter of all scores are such. Interval: percentiles of a bootstrap within each stratum.
    """
    from scipy import stats

    scores = _scores(strata)
    if not scores:
        return Estimate(math.nan, math.nan, math.nan)
    drawn = np.concatenate([s[_resamples(s.size, stream)] for stream, s in enumerate(scores)], axis=1)
    value = float(stats.trim_mean(np.concatenate(scores), 0.25))
    return Estimate(value, *_central(stats.trim_mean(drawn, 0.25, axis=1)))


def performance_profile(strata: Sequence[ArrayLike], thresholds: ArrayLike) -> tuple[Array, Array, Array]:
    """The share of runs whose score is above each threshold, averaged over tasks, and its 95 % band.

    Returns `(share, low, high)`, each of the shape of `thresholds` (arXiv 2108.13264, section 4.2). A nan score is
    above no threshold. Band: pointwise percentiles of a bootstrap within each stratum.
    """
    t = np.asarray(thresholds, dtype=np.float64)
    scores = _scores(strata)
    if not scores:
        raise ValueError("strata: there are no scores")
    share = np.mean([np.mean(s[:, None] > t, axis=0) for s in scores], axis=0)
    low, high = np.empty_like(t), np.empty_like(t)
    for place, threshold in enumerate(t):
        above = [(s > threshold)[_resamples(s.size, stream)].mean(axis=1) for stream, s in enumerate(scores)]
        low[place], high[place] = _central(np.mean(above, axis=0))
    return share, low, high


def _scores(strata: Sequence[ArrayLike]) -> list[Array]:
    found = [np.asarray(stratum, dtype=np.float64) for stratum in strata]
    return [np.where(np.isnan(scores), -np.inf, scores) for scores in found if scores.size]


# ---- tuning ---------------------------------------------------------------------------------------------------------


def expected_best(
    values: ArrayLike, direction: Direction, *, replacement: bool = True, worst: float | None = None
) -> Array:
    """The expected best validation after k = 1 … n trials, of shape (n,), from the n trials of a random search.

    With replacement (the default): Dodge et al. 2019 (arXiv 1909.03004, eq. 7-9), the k-fold maximum of the empirical
    distribution; biased towards worse at large k. Without: the average over all subsets of k trials, which is
    unbiased (Tang et al. 2020, arXiv 2004.13705). A diverged trial (nan) is worth `worst`, or the worst finite value;
    all nan where no trial is finite. Trials of an adaptive sampler are not exchangeable: its curve is a description.
    """
    x = np.asarray(values, dtype=np.float64)
    known = x[np.isfinite(x)]
    if known.size == 0:
        return np.full(x.size, np.nan)
    if worst is None:
        worst = float(known.min() if direction == "max" else known.max())
    ordered = np.sort(np.where(np.isfinite(x), x, worst))
    if direction == "min":
        ordered = ordered[::-1]
    n = x.size
    place = np.arange(1, n + 1)
    k = place[:, None]
    if replacement:
        weights = (place / n) ** k - ((place - 1) / n) ** k
    else:
        weights = np.array([[math.comb(i - 1, j - 1) / math.comb(n, j) for i in place] for j in place])
    return np.asarray(weights @ ordered, dtype=np.float64)


class Band(NamedTuple):
    """The rates around the best one that come within the tolerance of it."""

    best: float
    low: float
    high: float
    decades: float
    """Width of the band, log10(high / low)."""
    open: bool
    """Whether the band ends at the edge of the rates that were tried: it may be wider."""


def rate_band(rates: ArrayLike, values: ArrayLike, direction: Direction, tolerance: float = 0.05) -> Band:
    """The unbroken band of tried rates around the best whose value is within `tolerance` of the best's size.

    `rates` and `values` have shape (n,), one value a rate (the mean over seeds); nan (diverged) is outside. Raises
    ValueError where no value is finite.
    """
    order = np.argsort(np.asarray(rates, dtype=np.float64))
    lr, score = np.asarray(rates, dtype=np.float64)[order], np.asarray(values, dtype=np.float64)[order]
    if not np.isfinite(score).any():
        raise ValueError("values: no rate has a finite one")
    best = int(np.nanargmax(score) if direction == "max" else np.nanargmin(score))
    near = np.abs(score - score[best]) <= tolerance * abs(score[best])
    first = last = best
    while first > 0 and near[first - 1]:
        first -= 1
    while last < len(lr) - 1 and near[last + 1]:
        last += 1
    low, high = float(lr[first]), float(lr[last])
    return Band(float(lr[best]), low, high, math.log10(high / low), first == 0 or last == len(lr) - 1)


# ---- time to a target -----------------------------------------------------------------------------------------------


class Reached(NamedTuple):
    """When a run first met its target; both are inf where it never did."""

    step: float
    seconds: float


def time_to_target(rows: Sequence[Mapping[str, Any]], key: str, target: float, direction: Direction) -> Reached:
    """The first row of metrics.jsonl whose `key` is at the target or better: its step, and the training seconds so far.

    Seconds are added up from `time/steps_per_s`, which the trainer takes from its training clock: evaluation, probes
    and records are off it.
    """
    seconds, before = 0.0, 0
    for row in rows:
        if (rate := row.get("time/steps_per_s", math.nan)) > 0:
            seconds += (row["step"] - before) / rate
            before = row["step"]
        value = row.get(key, math.nan)
        if value >= target if direction == "max" else value <= target:
            return Reached(float(row["step"]), seconds)
    return Reached(math.inf, math.inf)
