"""Is A better than B? A verdict a task, the tests of a study corrected together. Numbers in, verdicts out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from vrbench.report import replicates, sequential, statistics
from vrbench.report.arms import Arm
from vrbench.report.comparable import Difference, let_differ, obstacles
from vrbench.report.curves import best as cost
from vrbench.report.looks import Looks, Seen
from vrbench.report.pairs import Pairs, Test, pair, pair_replicates
from vrbench.report.replicates import Key
from vrbench.report.smallest import Smallest
from vrbench.report.statistics import ALPHA, Estimate

Word = Literal["better", "worse", "equivalent", "insufficient data", "not comparable"]
Size = Literal["", "by more than the smallest effect", "by how much is open"]


@dataclass(frozen=True)
class Verdict:
    """What is said of one comparison within its family, in two parts: direction, and size."""

    word: Word
    p_holm: float
    least: int | None = None
    """So many more units at least before the test can be significant at all; None: there are enough."""
    about: int | None = None
    """So many more units would settle a difference of the size and spread seen: an estimate; None: not known."""
    keys: tuple[str, ...] = ()
    """What makes the two not comparable."""
    size: Size = ""
    """Of a difference, whether its interval lies beyond the smallest effect altogether."""
    scope: str = ""
    """`for this tuning`, where one tuning of each side is all there is; `best of 7 against 1`, where arms were chosen
    by validation."""
    test: Test = "sign-flip"
    p: float = math.nan
    """Before the correction."""
    unit: str = "seed"
    tests: int = 1
    """How many tests the family has."""

    def __str__(self) -> str:
        if self.keys:
            return f"{self.word}: {', '.join(self.keys)}"
        if self.word != "insufficient data":
            return ", ".join(filter(None, [f"{self.word} {self.size}".strip(), self.scope]))
        return f"{self.word} ({self.left})" if self.left else self.word

    @property
    def left(self) -> str:
        """`at least 3 more seeds for any verdict, about 12 for this difference`; empty where neither is known."""
        told = []
        if self.least is not None:
            told.append(f"at least {_more(self.least, self.unit)} for any verdict")
        if self.about is not None and self.about > (self.least or 0):
            told.append(f"about {self.about if told else _more(self.about, self.unit)} for this difference")
        return ", ".join(told)


def _more(count: int, unit: str) -> str:
    return f"{count} more {unit}{'s' if count != 1 else ''}"


def judge(family: Sequence[Pairs], planned: int = 0) -> list[Verdict]:
    """A verdict for each comparison of a family, whose tests are corrected together by Holm's method.

    The family counts `planned` tests where that is more than are there. The test is, by what was looked at and by the
    number of units, never by their values: the e-process where there was a look at fewer; else the sign-flip test;
    else, of replicates fewer than could clear Holm's first threshold by it, Student's over their means.

    In this order: *insufficient data* with fewer units than could clear that threshold; *equivalent* where the interval
    of the difference lies inside ± the smallest effect and no run diverged; *better* or *worse* where the corrected p
    is below 0.05; else *insufficient data*.
    """
    tests = max(planned, sum(pairs.units > 0 for pairs in family))
    least = statistics.least_pairs(tests)
    tried = [_tried(pairs, least) for pairs in family]
    spare = [1.0] * (tests - sum(pairs.units > 0 for pairs in family))
    adjusted = statistics.holm([*(pairs.p for pairs in tried), *spare])
    return [_judge(pairs, p, least, tests) for pairs, p in zip(tried, adjusted, strict=False)]


def _tried(pairs: Pairs, least: int) -> Pairs:
    """The pairs with the test that decides."""
    if pairs.unit == "replicate" and pairs.test == "sign-flip" and pairs.units < least:
        p = replicates.t_test(pairs.gains)
        if not math.isnan(p):
            return replace(pairs, p=p, test="t")
    return pairs


def _judge(pairs: Pairs, p: float, least: int, tests: int) -> Verdict:
    verdict = Verdict("insufficient data", p, test=pairs.test, p=pairs.p, unit=pairs.unit, tests=tests)
    missing = least - pairs.units if pairs.test == "sign-flip" else 2 - pairs.units
    if pairs.test == "e-process":
        missing = least_for_evidence(tests) - pairs.units
    if missing > 0:
        return replace(verdict, least=missing, about=_about(pairs, tests))
    low, high = pairs.interval
    whole = pairs.diverged_a + pairs.diverged_b == 0
    if whole and -pairs.smallest <= low and high <= pairs.smallest:
        return replace(verdict, word="equivalent")
    if p < ALPHA:
        side = sequential.leaning(pairs.gains) if pairs.test == "e-process" else statistics.flippable(pairs.gains).sum()
        beyond = whole and (low > pairs.smallest or high < -pairs.smallest)
        size: Size = "by more than the smallest effect" if beyond else "by how much is open"
        return replace(verdict, word="better" if side > 0 else "worse", size=size)
    about, fewest = _about(pairs, tests), 1
    if pairs.test == "e-process":
        fewest = max(1, sequential.what_is_left(pairs.gains, ALPHA / tests).least)
    return replace(verdict, least=fewest if fewest > 1 else None, about=about and max(fewest, about))


def _about(pairs: Pairs, tests: int) -> int | None:
    """How many more units would settle the difference, were it as it looks (`statistics.pairs_for`): 1 at least."""
    if math.isnan(pairs.deviation):
        return None
    enough = statistics.pairs_for(pairs.difference, pairs.deviation, pairs.smallest, tests)
    return max(1, math.ceil(enough) - pairs.units) if math.isfinite(enough) else None


def least_for_evidence(tests: int) -> int:
    """The fewest units whose evidence, were all one could wish, clears Holm's first threshold: 2^n / 2 > tests / α."""
    return sequential.what_is_left((), ALPHA / max(tests, 1)).least


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
    keys: tuple[Key, ...] = ()
    """Replicates and seeds that are paired."""
    looks: int = 0
    """How often fewer units were looked at before."""
    among: tuple[int, int] = (1, 1)
    """Of how many arms of its side each was chosen, as the best by validation."""

    @property
    def judged(self) -> bool:
        """Whether it is a test of the family."""
        return not self.obstacles


def pick(arms: Iterable[Arm], name: str, *, best: bool = False) -> dict[tuple[str, str], Arm]:
    """The arm of each task and model that a label (`vradam lr=0.001`), some of it, or an optimizer (`vradam`) names.

    Of several, with `best`, that with the best mean validation of those with most runs. Raises ValueError where it
    names none, or, without `best`, more than one of a task and model.
    """
    return {place: own[0] for place, own in named(arms, name, best=best).items()}


def named(arms: Iterable[Arm], name: str, *, best: bool = False) -> dict[tuple[str, str], list[Arm]]:
    """All arms that `pick` chooses from, the chosen one first. Raises ValueError as `pick` does."""
    places: dict[tuple[str, str], list[Arm]] = {}
    for arm in (arms := list(arms)):
        places.setdefault((arm.task, arm.model), []).append(arm)
    chosen: dict[tuple[str, str], list[Arm]] = {}
    for place, here in places.items():
        meant = [arm for arm in here if _is_named(arm, name)]
        found = [arm for arm in here if arm.label == name] or [arm for arm in meant if not arm.control] or meant
        if len(found) > 1 and not best:
            labels = _some(sorted(arm.label for arm in found))
            raise ValueError(f"{name}: names {len(found)} arms of {' '.join(place)}; give the label of one: {labels}")
        if found:
            chosen[place] = sorted(found, key=lambda arm: (-len(arm.over), cost(arm)))
    if not chosen:
        raise ValueError(f"{name}: no such optimizer or label; there are {_some(sorted({a.optimizer for a in arms}))}")
    return chosen


def pick_by_schedule(arms: Sequence[Arm], name: str) -> list[tuple[list[Arm], dict[tuple[str, str], Arm]]]:
    """Arms with what `pick` finds among them: all together, or by schedule where the name has an arm for each.

    Raises ValueError as `pick` does.
    """
    try:
        return [(list(arms), pick(arms, name))]
    except ValueError as several:
        by_schedule: dict[str, list[Arm]] = {}
        for arm in arms:
            by_schedule.setdefault(arm.settings.get("schedule", ""), []).append(arm)
        try:
            return [(own, pick(own, name)) for own in by_schedule.values()]
        except ValueError:
            raise several from None


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


def values(arm: Arm, split: str) -> dict[Key, float]:
    """The primary metric by replicate and seed: on the test split, or on validation at its best."""
    return arm.by_run(f"test/{arm.metric}" if split == "test" else f"best/val/{arm.metric}")


def sides(a: Arm, b: Arm, split: str) -> tuple[dict[Key, float], dict[Key, float]]:
    """Both arms' numbers by the replicate and seed in which they are paired.

    Where one side alone has several tunings, the other's run of the same seed stands beside each of them.
    """
    x, y = values(a, split), values(b, split)
    if a.parts and not b.parts:
        y = {key: y[0, key[1]] for key in x if (0, key[1]) in y}
    elif b.parts and not a.parts:
        x = {key: x[0, key[1]] for key in y if (0, key[1]) in x}
    shared = sorted(x.keys() & y.keys())
    return {key: x[key] for key in shared}, {key: y[key] for key in shared}


def compare(
    couples: Iterable[tuple[Arm, Arm]],
    split: str,
    smallest: Smallest,
    interval: str = "bootstrap-t",
    allow: Sequence[str] = (),
    looks: Looks | None = None,
    planned: int = 0,
) -> list[Comparison]:
    """Compare each couple of arms. Those that may be compared are one family; the others are called not comparable.

    `allow` names keys that may differ (`vrbench.report.comparable`); `looks` knows what was looked at before, and
    `planned` how many tests the study has at least.
    """
    made = []
    for a, b in couples:
        found, let = obstacles(a, b, allow), let_differ(a, b, allow)
        x, y = sides(a, b, split)
        seen = looks.before(a, b, split, x) if looks is not None else None
        pairs = _paired(x, y, a, smallest.on(a.task), interval, seen if seen and seen.decides else None)
        verdict = Verdict("not comparable", math.nan, keys=tuple(dict.fromkeys(one.key for one in found)))
        made.append(Comparison(a, b, pairs, verdict, tuple(found), tuple(let), tuple(x), seen.count if seen else 0))
    family = iter(judge([one.pairs for one in made if one.judged], planned))
    return [replace(one, verdict=replace(next(family), scope=_scope(one))) if one.judged else one for one in made]


def chosen_among(one: Comparison, among: tuple[int, int]) -> Comparison:
    """The comparison of two arms that were chosen among so many, by validation; its verdict says so."""
    if among == (1, 1):
        return one
    scope = ", ".join(filter(None, [one.verdict.scope, f"best of {among[0]} against {among[1]}"]))
    return replace(one, among=among, verdict=replace(one.verdict, scope=scope))


def _paired(
    x: Mapping[Key, float],
    y: Mapping[Key, float],
    of: Arm,
    smallest: Smallest,
    interval: str,
    seen: Seen | None,
) -> Pairs:
    if len({replicate for replicate, _ in x}) > 1:
        return pair_replicates(x, y, of.direction, smallest, seen.first if seen else None)
    a, b = ({seed: value for (_, seed), value in side.items()} for side in (x, y))
    return pair(a, b, of.direction, smallest, interval, [seed for _, seed in seen.order] if seen else None)


def _scope(one: Comparison) -> str:
    if one.pairs.unit == "replicate":
        single = [arm for arm in (one.a, one.b) if not arm.parts]
        return f"for this tuning of {single[0].optimizer}" if single and single[0].tuned else ""
    return "for this tuning" if one.a.tuned or one.b.tuned else "for these settings"


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
