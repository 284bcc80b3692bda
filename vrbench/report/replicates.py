"""Several tunings of one method: one observation a tuning, and how much of the spread is the tuning's.

A replicate is an independent search with its confirmation. Its mean over paired seeds is one observation, because its
seeds share one tuning: they repeat the seed, and not the search.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from vrbench.report.statistics import NONE, Interval, student

Key = tuple[int, int]
"""Replicate and seed."""


class Unit(NamedTuple):
    """One replicate's paired seeds as one observation."""

    replicate: int
    gain: float
    """Mean gain over the pairs in which both finished; infinite where one side lost more runs than the other."""
    difference: float
    """Mean of A - B over the pairs in which both finished; nan where there is none."""
    seeds: int


def unit_of(replicate: int, differences: ArrayLike, lost_a: int, lost_b: int, sign: float) -> Unit:
    """A replicate's observation from its finite paired `differences` A - B, shape (n,), and its diverged runs.

    `sign` is 1 where more is better, else -1. Who lost more runs is worse than any number; equal losses cancel (0 where
    no pair is left). Exchanging A and B changes the sign of the gain and nothing else.
    """
    d = np.asarray(differences, dtype=np.float64)
    mean = float(d.mean()) if d.size else math.nan
    gain = sign * mean if d.size else 0.0
    if lost_a != lost_b:
        gain = math.inf if lost_b > lost_a else -math.inf
    return Unit(replicate, gain, mean, d.size + max(lost_a, lost_b))


def t_test(gains: ArrayLike) -> float:
    """The two-sided p value of Student's test of mean zero, shape (n,): for replicate means that are about normal.

    nan for fewer than two, for infinite gains, and where all are 0; 0 where all are the same otherwise.
    """
    from scipy import stats

    g = np.asarray(gains, dtype=np.float64)
    if g.size < 2 or not np.isfinite(g).all():
        return math.nan
    spread = float(g.std(ddof=1))
    if spread == 0:
        return math.nan if g[0] == 0 else 0.0
    return float(2 * stats.t.sf(abs(g.mean()) / spread * math.sqrt(g.size), g.size - 1))


class Components(NamedTuple):
    """Standard deviations in the metric's unit; nan where they cannot be told."""

    tuning: float
    """Of the difference from replicate to replicate, the seeds' share taken away: 0 where that leaves nothing."""
    seed: float
    """Of the difference from seed to seed within a replicate."""
    shared: float
    """Of what both sides of a replicate have in common beyond their seeds, as a data split of its own."""


UNKNOWN = Components(math.nan, math.nan, math.nan)


def components(differences: Mapping[Key, float], sides: Sequence[Mapping[Key, float]] = ()) -> Components:
    """Variance components of finite paired differences by replicate and seed: the analysis of variance, one way.

    With mean squares between and within and n0 seeds a replicate (unequal numbers: Searle, Casella & McCulloch 1992,
    3.6), tuning² = max(0, (between - within) / n0). `sides` are both arms' values by the same keys: what they share is
    the covariance of their replicate means, less that of their seeds over n0.
    """
    groups = _by_replicate(differences)
    counts = np.array([len(group) for group in groups], dtype=float)
    total, many = counts.sum(), len(groups)
    within = _pooled([np.array(group) for group in groups])
    if many < 2 or total <= many:
        return Components(math.nan, math.sqrt(within) if within >= 0 else math.nan, math.nan)
    size = (total - (counts**2).sum() / total) / (many - 1)
    means = np.array([np.mean(group) for group in groups])
    overall = float(np.average(means, weights=counts))
    between = float((counts * (means - overall) ** 2).sum() / (many - 1))
    tuning = math.sqrt(max(0.0, (between - within) / size))
    shared = math.nan
    if len(sides) == 2:
        kept = [{key: side[key] for key in differences} for side in sides]
        a, b = ([np.array(group) for group in _by_replicate(side)] for side in kept)
        seeds = sum(float(((x - x.mean()) * (y - y.mean())).sum()) for x, y in zip(a, b, strict=True)) / (total - many)
        covariance = float(np.cov([x.mean() for x in a], [y.mean() for y in b])[0, 1])
        shared = math.sqrt(max(0.0, covariance - seeds / size))
    return Components(tuning, math.sqrt(within), shared)


def _by_replicate(values: Mapping[Key, float]) -> list[list[float]]:
    found: dict[int, list[float]] = {}
    for (replicate, _), value in sorted(values.items()):
        found.setdefault(replicate, []).append(value)
    return list(found.values())


def _pooled(groups: Sequence[np.ndarray]) -> float:
    """Variance within groups; nan where no group has two values."""
    freedom = sum(group.size - 1 for group in groups)
    return sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / freedom if freedom else math.nan


def hierarchical_bootstrap(groups: Sequence[ArrayLike], resamples: int = 2000) -> Interval:
    """Percentiles of a bootstrap that draws replicates, and within each its seeds: measured, and not the default.

    With three replicates it is far too narrow (docs/statistics.md). nan bounds for fewer than two replicates.
    """
    if len(groups) < 2:
        return NONE
    g = np.random.default_rng(0)
    values = [np.asarray(group, dtype=np.float64) for group in groups]
    redrawn = np.stack(
        [own[g.integers(0, own.size, (resamples, len(values), own.size))].mean(axis=2) for own in values]
    )
    chosen = g.integers(0, len(values), (resamples, len(values)))
    rows, columns = np.arange(resamples)[:, None], np.arange(len(values))
    means = redrawn[chosen, rows, columns].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(low), float(high))


def interval_of_means(differences: Sequence[float]) -> Interval:
    """Student's interval over replicate means: few observations, each a mean over seeds already (measured coverage in
    docs/statistics.md). nan bounds for fewer than two."""
    return student(differences)


# ---- the negative control -------------------------------------------------------------------------------------------


class Control(NamedTuple):
    """How often a method differs from itself when it is tuned again."""

    single: int
    """Couples of tunings that differ by Welch's test over their seeds: what a verdict of one tuning would have said."""
    couples: int
    halves: int
    """Ways to split the replicates into halves that differ by Welch's test over replicate means."""
    ways: int
    """All of them, or 1,000 drawn from a fixed seed where there are more."""


def welch(a: ArrayLike, b: ArrayLike) -> float:
    """The two-sided p value of Welch's test of two samples' means; nan for fewer than two a side, or where none varies
    and both are equal; 0 where none varies and they differ."""
    from scipy import stats

    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if min(x.size, y.size) < 2:
        return math.nan
    if np.ptp(x) == 0 and np.ptp(y) == 0:
        return 0.0 if x[0] != y[0] else math.nan
    return float(stats.ttest_ind(x, y, equal_var=False).pvalue)


def against_itself(replicates: Sequence[ArrayLike], level: float = 0.05) -> Control:
    """Count, over all couples of tunings and all splits into halves, how often p < `level`.

    `replicates` has one array of finite numbers a tuning, each with its own seeds, so that the tests are of two
    samples (Welch). Halves need three a side; with an odd number one replicate is left out of each split in turn; of
    very many splits 1,000 are drawn. The
    tests share data: the shares describe this baseline, and are no error rate with an interval.
    """
    from itertools import combinations

    values = [np.asarray(own, dtype=np.float64) for own in replicates]

    def differ(x: np.ndarray, y: np.ndarray) -> bool:
        return welch(x, y) < level

    usable = [own for own in values if own.size > 1]
    couples = list(combinations(usable, 2))
    single = sum(differ(x, y) for x, y in couples)
    means = np.array([own.mean() for own in values if own.size])
    half, halves, ways = means.size // 2, 0, 0
    for chosen, other in _halvings(means.size) if half >= 3 else ():
        ways += 1
        halves += differ(means[chosen], means[other])
    return Control(single, len(couples), halves, ways)


def _halvings(count: int) -> Iterator[tuple[list[int], list[int]]]:
    """All ways to split so many into two equal halves, one left out where the number is odd; 1,000 seeded draws of
    them where there are more (from 13 on)."""
    from itertools import combinations

    half = count // 2
    if math.comb(count, half) * math.comb(count - half, half) > 2000:
        g = np.random.default_rng(0)
        for _ in range(1000):
            order = g.permutation(count).tolist()
            yield order[:half], order[half : 2 * half]
        return
    for chosen in combinations(range(count), half):
        rest = [place for place in range(count) if place not in chosen]
        for other in combinations(rest, half):
            if chosen < other:
                yield list(chosen), list(other)
