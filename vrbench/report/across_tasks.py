"""One summary over several tasks: effects pooled, times to a target scored, and how much of a space is good."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vrbench.report.statistics import ALPHA, Direction, Estimate

LONGEST = 4.0
"""A profile is scored up to this multiple of the fastest time, as AlgoPerf's is."""


class Pooled(NamedTuple):
    """A random-effects summary: the mean effect over tasks like these."""

    mean: float
    low: float
    high: float
    tau: float
    """Standard deviation of the true effects from task to task."""
    p: float
    tasks: int


def random_effects(effects: ArrayLike, errors: ArrayLike) -> Pooled:
    """The mean of effects that differ from task to task, with its 95 % interval; both of shape (k,).

    `errors` are standard errors, above 0. τ² by DerSimonian & Laird (1986), the interval by Hartung & Knapp (2001): its
    variance is what the effects themselves spread, and Student's t with k - 1 degrees of freedom, which holds its level
    with few tasks where the normal one does not (IntHout et al. 2014); it is never made narrower than by the known
    errors alone. nan bounds for one task. Assumes that the tasks are a sample of those meant.
    """
    from scipy import stats

    y, s = np.asarray(effects, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    if y.size != s.size or not (np.isfinite(y).all() and np.isfinite(s).all() and (s > 0).all()):
        raise ValueError("errors: must be finite and above 0, one for each finite effect")
    k = y.size
    if k < 2:
        return Pooled(float(y[0]) if k else math.nan, math.nan, math.nan, math.nan, math.nan, k)
    w = 1 / s**2
    fixed = float((w * y).sum() / w.sum())
    q = float((w * (y - fixed) ** 2).sum())
    tau2 = max(0.0, (q - (k - 1)) / float(w.sum() - (w**2).sum() / w.sum()))
    v = 1 / (s**2 + tau2)
    mean = float((v * y).sum() / v.sum())
    spread = max(1.0, float((v * (y - mean) ** 2).sum()) / (k - 1))
    error = math.sqrt(spread / float(v.sum()))
    half = float(stats.t.ppf(1 - ALPHA / 2, k - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, k - 1))
    return Pooled(mean, mean - half, mean + half, math.sqrt(tau2), p, k)


class Profile(NamedTuple):
    """A step function: at each ratio of `at` the share of tasks that are done rises to `share`."""

    at: tuple[float, ...]
    share: tuple[float, ...]
    score: float
    """The mean height from 1 to `LONGEST`: 1 for the fastest everywhere, 0 for one that is never there in time."""


def time_profiles(times: Mapping[str, Mapping[str, float]]) -> dict[str, Profile]:
    """Time-to-target profiles as AlgoPerf scores them (Dahl et al. 2023, arXiv 2306.07179, section 4.3).

    `times` has, by task, each contestant's time to the task's target, inf where it was never met; a contestant that is
    absent from a task did not meet it. Its share at τ is that of the tasks in which its time is at most τ times the
    fastest's. A task that nobody met counts for all as not met.
    """
    names = sorted({name for own in times.values() for name in own})
    found = {}
    for name in names:
        ratios = []
        for own in times.values():
            fastest, mine = min(own.values(), default=math.inf), own.get(name, math.inf)
            ratios.append(mine / fastest if math.isfinite(mine) and fastest > 0 else math.inf)
        met = sorted(ratio for ratio in ratios if ratio <= LONGEST)
        at = tuple(dict.fromkeys(met))
        share = tuple(sum(ratio <= place for ratio in met) / len(times) for place in at)
        score = sum(LONGEST - ratio for ratio in met) / (LONGEST - 1) / len(times)
        found[name] = Profile(at, share, score)
    return found


def good_share(values: ArrayLike, direction: Direction, tolerance: float) -> Estimate:
    """The share of a search's trials within `tolerance` (0.05: 5 %) of the best's size, with Wilson's interval.

    `values` of shape (n,), one a trial, nan where it diverged (never good). For random or Sobol draws that is the share
    of the declared space; the best is that of these trials, so that the share can only shrink with more of them. All
    nan where no value is finite.
    """
    from scipy import stats

    x = np.asarray(values, dtype=np.float64)
    known = x[np.isfinite(x)]
    if not known.size:
        return Estimate(math.nan, math.nan, math.nan)
    best = float(known.max() if direction == "max" else known.min())
    near = int((np.abs(known - best) <= tolerance * abs(best)).sum())
    bounds = stats.binomtest(near, x.size).proportion_ci(1 - ALPHA, "wilson")
    return Estimate(near / x.size, float(bounds.low), float(bounds.high))


def one_for_all(costs: Mapping[str, NDArray[np.float64] | Sequence[float]], how: Literal["worst", "mean"]) -> int:
    """Which configuration is best on all tasks at once: by its worst, or mean, regret over them.

    `costs` has by task one number a configuration, in one order, less is better; the regret is the share by which it is
    above the task's best. nan (diverged) is infinite. Raises ValueError where lengths differ.
    """
    rows = [np.asarray(own, dtype=np.float64) for own in costs.values()]
    if len({row.size for row in rows}) != 1:
        raise ValueError("costs: every task must have the same configurations")
    regrets = []
    for row in rows:
        full = np.where(np.isfinite(row), row, np.inf)
        best = float(full.min())
        scale = abs(best) if best != 0 and math.isfinite(best) else 1.0
        regrets.append(np.where(np.isfinite(full), (full - best) / scale, np.inf))
    total = np.max(regrets, axis=0) if how == "worst" else np.mean(regrets, axis=0)
    return int(np.argmin(total))
