"""Is A better than B? Paired by seed, a verdict a task, the tests corrected together. Numbers in, verdicts out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vrbench.report import statistics
from vrbench.report.arms import Arm
from vrbench.report.comparable import Difference, let_differ, obstacles
from vrbench.report.statistics import Direction, Estimate, Interval

Word = Literal["better", "worse", "equivalent", "insufficient data", "not comparable"]


@dataclass(frozen=True)
class Smallest:
    """The smallest difference that matters: in the metric's unit, or as a share of B's mean."""

    amount: float = 0.01
    relative: bool = True

    @classmethod
    def parse(cls, text: str) -> Smallest:
        """`1%` or `0.002`. Raises ValueError for anything else, and for less than 0."""
        relative = text.endswith("%")
        try:
            amount = float(text.removesuffix("%")) / (100 if relative else 1)
        except ValueError:
            amount = math.nan
        if not 0 <= amount < math.inf:
            raise ValueError(f"smallest-effect={text}: must be a share of B's mean (1%) or a number of the metric")
        return cls(amount, relative)

    def of(self, mean: float) -> float:
        """The smallest difference, given B's mean."""
        return self.amount * abs(mean) if self.relative else self.amount

    def __str__(self) -> str:
        return f"{self.amount:.4g}" if not self.relative else f"{100 * self.amount:.4g} %"


@dataclass(frozen=True)
class Pairs:
    """What the pairs of two arms come to, before any other comparison is known. A − B is in the metric's unit."""

    seeds: int
    """Seeds that are over in both arms."""
    diverged_a: int
    diverged_b: int
    mean_a: float
    """Over the pairs in which both finished, as `mean_b`, `difference` and its interval."""
    mean_b: float
    difference: float
    interval: Interval
    deviation: float
    """Standard deviation of the differences."""
    smallest: float
    p: float
    gains: tuple[float, ...]
    """Differences with the sign of an improvement: infinite where one of the two diverged, 0 where both did."""

    @property
    def improvement(self) -> Estimate:
        """The probability that A improves on B at a seed."""
        return statistics.probability_of_improvement(self.gains)


def pair(
    a: Mapping[int, float],
    b: Mapping[int, float],
    direction: Direction,
    smallest: Smallest,
    interval: str = "bootstrap-t",
) -> Pairs:
    """Pair two arms' numbers by seed; nan is a diverged run, the worst that can be."""
    seeds = sorted(a.keys() & b.keys())
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
        interval=statistics.INTERVALS[interval](differences),
        deviation=float(differences.std(ddof=1)) if differences.size > 1 else math.nan,
        smallest=smallest.of(mean_b),
        p=statistics.sign_flip(gains),
        gains=tuple(gains.tolist()),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan


@dataclass(frozen=True)
class Verdict:
    """What is said of one comparison within its family."""

    word: Word
    p_holm: float
    needed: int | None = None
    """Seeds still to be run before more can be said (an estimate once the least number is there); None: not known."""
    keys: tuple[str, ...] = ()
    """What makes the two not comparable."""

    def __str__(self) -> str:
        if self.keys:
            return f"{self.word}: {', '.join(self.keys)}"
        if self.word != "insufficient data":
            return self.word
        if self.needed is None:
            return self.word
        return f"{self.word} ({self.needed} more seed{'s' if self.needed > 1 else ''})"


def judge(family: Sequence[Pairs]) -> list[Verdict]:
    """A verdict for each comparison of a family, whose sign-flip tests are corrected together by Holm's method.

    In this order: *insufficient data* with fewer seeds than the least that could clear Holm's first threshold;
    *equivalent* where the interval of the difference lies inside ± the smallest effect and no run diverged; *better* or
    *worse* where the corrected p is below 0.05; else *insufficient data*.
    """
    tests = sum(pairs.seeds > 0 for pairs in family)
    least = statistics.least_pairs(tests)
    adjusted = statistics.holm([pairs.p for pairs in family])
    return [_judge(pairs, p, least, tests) for pairs, p in zip(family, adjusted, strict=True)]


def _judge(pairs: Pairs, p: float, least: int, tests: int) -> Verdict:
    if pairs.seeds < least:
        return Verdict("insufficient data", p, least - pairs.seeds)
    low, high = pairs.interval
    if pairs.diverged_a + pairs.diverged_b == 0 and -pairs.smallest <= low and high <= pairs.smallest:
        return Verdict("equivalent", p)
    if p < statistics.ALPHA:
        return Verdict("better" if statistics.flippable(pairs.gains).sum() > 0 else "worse", p)
    if math.isnan(pairs.deviation):
        return Verdict("insufficient data", p)
    enough = statistics.pairs_for(pairs.difference, pairs.deviation, pairs.smallest, tests)
    return Verdict("insufficient data", p, max(1, math.ceil(enough) - pairs.seeds) if math.isfinite(enough) else None)


# ---- arms -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Two arms of one task and model, and what is said of them."""

    a: Arm
    b: Arm
    pairs: Pairs
    verdict: Verdict
    obstacles: tuple[Difference, ...] = ()
    """What they differ in and must not; such a comparison has no test, and is not in the family."""
    let: tuple[Difference, ...] = ()
    """What they differ in because the user allows it."""

    @property
    def judged(self) -> bool:
        """Whether it is a test of the family."""
        return not self.obstacles


def pick(arms: Iterable[Arm], name: str) -> dict[tuple[str, str], Arm]:
    """The arm of each task and model that a label (`vradam lr=0.001`), some of it, or an optimizer (`vradam`) names.

    Raises ValueError where it names none, or more than one of a task and model.
    """
    places: dict[tuple[str, str], list[Arm]] = {}
    for arm in (arms := list(arms)):
        places.setdefault((arm.task, arm.model), []).append(arm)
    chosen: dict[tuple[str, str], Arm] = {}
    for place, here in places.items():
        found = [arm for arm in here if arm.label == name] or [arm for arm in here if _is_named(arm, name)]
        if len(found) > 1:
            labels = _some(sorted(arm.label for arm in found))
            raise ValueError(f"{name}: names {len(found)} arms of {' '.join(place)}; give the label of one: {labels}")
        if found:
            chosen[place] = found[0]
    if not chosen:
        raise ValueError(f"{name}: no such optimizer or label; there are {_some(sorted({a.optimizer for a in arms}))}")
    return chosen


def _is_named(arm: Arm, name: str) -> bool:
    """Whether a name is the optimizer and some of the arm's settings, in any order."""
    if name != arm.optimizer and not name.startswith(f"{arm.optimizer} "):
        return False
    rest = name.removeprefix(arm.optimizer)
    parts = {f" {key.removeprefix('optimizer.')}={value}" for key, value in arm.settings.items()}
    while rest:
        part = next((part for part in parts if rest == part or rest.startswith(f"{part} ")), None)
        if part is None:
            return False
        rest = rest.removeprefix(part)
    return True


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) if " " in name else name for name in names[:8])
    return f"{shown}, … ({len(names)})" if len(names) > 8 else shown or "none"


def values(arm: Arm, split: str) -> dict[int, float]:
    """The primary metric by seed: on the test split, or on validation at its best."""
    return arm.by_seed(f"test/{arm.metric}" if split == "test" else f"best/val/{arm.metric}")


def compare(
    couples: Iterable[tuple[Arm, Arm]],
    split: str,
    smallest: Smallest,
    interval: str = "bootstrap-t",
    allow: Sequence[str] = (),
) -> list[Comparison]:
    """Compare each couple of arms. Those that may be compared are one family; the others are called not comparable.

    `allow` names keys that may differ (`vrbench.report.comparable`).
    """
    couples = list(couples)
    hindered = [tuple(obstacles(a, b, allow)) for a, b in couples]
    paired = [pair(values(a, split), values(b, split), a.direction, smallest, interval) for a, b in couples]
    family = iter(judge([pairs for pairs, found in zip(paired, hindered, strict=True) if not found]))
    return [
        Comparison(
            a,
            b,
            pairs,
            Verdict("not comparable", math.nan, keys=tuple(one.key for one in found)) if found else next(family),
            found,
            tuple(let_differ(a, b, allow)),
        )
        for (a, b), pairs, found in zip(couples, paired, hindered, strict=True)
    ]


@dataclass(frozen=True)
class Overall:
    """All comparisons of A and B together."""

    counts: dict[str, int]
    """How many tasks have each verdict; those that are not comparable are in none of these numbers."""
    improvement: Estimate
    """Probability of improvement over the pooled pairs."""
    relative_gain: Estimate
    """Interquartile mean, over tasks and seeds, of the gain as a share of B's mean."""


def overall(comparisons: Sequence[Comparison]) -> Overall:
    """Verdicts counted, pairs pooled, gains made comparable by B's mean; a task where that is 0 or unknown is left out
    of the last."""
    comparisons = [one for one in comparisons if one.judged]
    words: list[Word] = ["better", "worse", "equivalent", "insufficient data"]
    gains = [np.array(c.pairs.gains) for c in comparisons]
    scaled = [gain / abs(c.pairs.mean_b) for gain, c in zip(gains, comparisons, strict=True) if abs(c.pairs.mean_b) > 0]
    return Overall(
        {word: sum(c.verdict.word == word for c in comparisons) for word in words},
        statistics.probability_of_improvement(np.concatenate([*gains, np.empty(0)])),
        statistics.interquartile_mean(scaled),
    )
