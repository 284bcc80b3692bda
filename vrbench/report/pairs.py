"""Two arms' numbers paired: by seed where each side has one tuning, else by replicate. Numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from vrbench.report import equivalence, replicates, sequential, statistics
from vrbench.report.equivalence import Practical
from vrbench.report.replicates import UNKNOWN, Components, Key
from vrbench.report.smallest import Smallest
from vrbench.report.statistics import Direction, Estimate, Interval

Test = Literal["sign-flip", "t", "e-process"]


@dataclass(frozen=True)
class Pairs:
    """What the pairs of two arms come to, before any other comparison is known. A - B is in the metric's unit."""

    seeds: int
    """Pairs of runs that are over in both arms."""
    diverged_a: int
    diverged_b: int
    mean_a: float
    """Over the pairs in which both finished, as `mean_b`, `difference` and its interval; over replicates, the mean of
    their means."""
    mean_b: float
    difference: float
    median: float
    """Of the units' differences."""
    interval: Interval
    deviation: float
    """Standard deviation of the units' differences."""
    smallest: float
    p: float
    gains: tuple[float, ...]
    """By unit, the difference with the sign of an improvement: infinite where one of the two diverged (more often), 0
    where both did."""
    unit: Literal["seed", "replicate"] = "seed"
    test: Test = "sign-flip"
    components: Components = UNKNOWN
    later: int = 0
    """Pairs that came to a replicate after it was looked at, and are not in an anytime-valid test."""

    @property
    def units(self) -> int:
        """How many observations the test has."""
        return len(self.gains)

    @property
    def improvement(self) -> Estimate:
        """The probability that A improves on B at a further unit."""
        return statistics.probability_of_improvement(self.gains)

    @property
    def practical(self) -> Practical:
        """The probabilities that A is better, equivalent, worse by the smallest effect."""
        if math.isnan(self.smallest):
            return Practical(math.nan, math.nan, math.nan)
        return equivalence.signed_rank(self.gains, self.smallest)


def pair(
    a: Mapping[int, float],
    b: Mapping[int, float],
    direction: Direction,
    smallest: Smallest,
    interval: str = "bootstrap-t",
    order: Sequence[int] | None = None,
) -> Pairs:
    """Pair two arms' numbers by seed; nan is a diverged run, the worst that can be.

    `order` has the seeds as they were first looked at: the test is then the anytime-valid one, and so is the interval.
    """
    seeds = sorted(a.keys() & b.keys()) if order is None else [seed for seed in order if seed in a and seed in b]
    x, y = np.array([a[seed] for seed in seeds], dtype=float), np.array([b[seed] for seed in seeds], dtype=float)
    sign = 1.0 if direction == "max" else -1.0
    gains = np.where(np.isnan(x), np.where(np.isnan(y), 0.0, -np.inf), np.where(np.isnan(y), np.inf, sign * (x - y)))
    both = np.isfinite(x) & np.isfinite(y)
    differences = (x - y)[both]
    mean_b = _mean(y[both])
    return Pairs(
        seeds=len(seeds),
        diverged_a=int(np.isnan(x).sum()),
        diverged_b=int(np.isnan(y).sum()),
        mean_a=_mean(x[both]),
        mean_b=mean_b,
        difference=_mean(differences),
        median=float(np.median(differences)) if differences.size else math.nan,
        interval=statistics.INTERVALS[interval](differences)
        if order is None
        else sequential.anytime_interval(differences),
        deviation=float(differences.std(ddof=1)) if differences.size > 1 else math.nan,
        smallest=smallest.of(mean_b),
        p=statistics.sign_flip(gains) if order is None else sequential.anytime_p(gains),
        gains=tuple(gains.tolist()),
        test="sign-flip" if order is None else "e-process",
    )


def pair_replicates(
    a: Mapping[Key, float],
    b: Mapping[Key, float],
    direction: Direction,
    smallest: Smallest,
    seen: Mapping[int, Collection[int]] | None = None,
) -> Pairs:
    """Pair by replicate and seed, and make one observation of each replicate (`replicates.unit_of`).

    The interval is Student's over the replicates' mean differences. `seen` has the replicates in the order in which
    they were first looked at, each with the seeds it then had: the test and interval are then the anytime-valid ones,
    and a replicate counts in them with those seeds alone, for adding seeds until one likes the mean is a look too.
    """
    keys = sorted(a.keys() & b.keys())
    sign = 1.0 if direction == "max" else -1.0
    if seen is not None:
        counted = [key for key in keys if key[1] in seen.get(key[0], ())]
        found = pair_replicates({k: a[k] for k in counted}, {k: b[k] for k in counted}, direction, smallest)
        order = {replicate: place for place, replicate in enumerate(seen)}
        numbers = sorted({replicate for replicate, _ in counted})
        ranks = np.argsort([order[number] for number in numbers])
        gains = [found.gains[place] for place in ranks]
        finite = [gain * sign for gain in gains if math.isfinite(gain)]
        return replace(
            pair_replicates(a, b, direction, smallest),
            gains=tuple(gains),
            p=sequential.anytime_p(gains),
            interval=sequential.anytime_interval(finite),
            test="e-process",
            later=len(keys) - len(counted),
        )
    units, means_a, means_b = [], [], []
    for replicate in sorted({key[0] for key in keys}):
        x = np.array([a[key] for key in keys if key[0] == replicate])
        y = np.array([b[key] for key in keys if key[0] == replicate])
        both = np.isfinite(x) & np.isfinite(y)
        lost = int(np.isnan(x).sum()), int(np.isnan(y).sum())
        units.append(replicates.unit_of(replicate, (x - y)[both], *lost, sign))
        if both.any():
            means_a.append(float(x[both].mean()))
            means_b.append(float(y[both].mean()))
    differences = np.array([unit.difference for unit in units if math.isfinite(unit.difference)])
    mean_b = _mean(np.array(means_b))
    gains = [unit.gain for unit in units]
    finished = {key: a[key] - b[key] for key in keys if math.isfinite(a[key]) and math.isfinite(b[key])}
    return Pairs(
        seeds=len(keys),
        diverged_a=sum(math.isnan(a[key]) for key in keys),
        diverged_b=sum(math.isnan(b[key]) for key in keys),
        mean_a=_mean(np.array(means_a)),
        mean_b=mean_b,
        difference=_mean(differences),
        median=float(np.median(differences)) if differences.size else math.nan,
        interval=replicates.interval_of_means(differences.tolist()),
        deviation=float(differences.std(ddof=1)) if differences.size > 1 else math.nan,
        smallest=smallest.of(mean_b),
        p=statistics.sign_flip(gains),
        gains=tuple(gains),
        unit="replicate",
        components=replicates.components(finished, [a, b]),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan


def bad_runs(values: Sequence[float], direction: Direction) -> int:
    """How many runs diverged, or ended beyond Tukey's outer fence on the worse side: three quartile ranges out."""
    x = np.array(values, dtype=np.float64)
    known = x[np.isfinite(x)]
    if known.size < 4:
        return int(x.size - known.size)
    low, high = np.quantile(known, [0.25, 0.75])
    reach = 3 * (high - low)
    far = known < low - reach if direction == "max" else known > high + reach
    return int(x.size - known.size + far.sum())
