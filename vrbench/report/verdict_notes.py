"""What stands below a table with verdicts: which test decided, of what null, how much tuning weighs, what is left."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from vrbench.report import cautions, sequential
from vrbench.report.across_tasks import Pooled, random_effects
from vrbench.report.compare import Comparison
from vrbench.report.numerals import Spread
from vrbench.report.smallest import Smallest
from vrbench.report.statistics import ALPHA

TESTS = {
    "sign-flip": "sign-flip test",
    "t": "Student's t over the means of replicates, which takes them for normal: too few for a test without that",
    "e-process": "anytime-valid e-process, because fewer runs were looked at before",
}


def notes(found: Sequence[Comparison], smallest: Smallest, interval: str, spread: Spread = "ci") -> list[str]:
    """The notes of some comparisons, all of one family; `spread` is what stands beside their differences."""
    judged = [one for one in found if one.judged]
    units = {one.pairs.unit for one in judged}
    tests = max((one.verdict.tests for one in judged), default=0)
    used = list(dict.fromkeys(one.verdict.test for one in judged))
    plural = "1 comparison" if tests == 1 else f"{tests} comparisons"
    kinds = [f"95 % {interval} interval" if any(_plainly(one) for one in judged) or not judged else ""]
    kinds.append("95 % Student's t interval over replicate means" if any(_by_means(one) for one in judged) else "")
    kinds.append("interval that holds at every look" if "e-process" in used else "")
    intervals = " or ".join(filter(None, kinds))
    beside = {"ci": f" [{intervals}]", "sd": f" ± s.d. ({intervals}: not shown)", "none": f" ({intervals}: not shown)"}
    told = [
        f"difference: mean over paired {' or '.join(f'{unit}s' for unit in sorted(units)) or 'seeds'}"
        f"{beside[spread]}. p: two-sided, "
        f"{'; '.join(TESTS[test] for test in used) or TESTS['sign-flip']}; Holm-corrected over the {plural} of the "
        f"family; a diverged run counts as the worst. Null: a unit's difference is as likely to be d as -d (symmetry). "
        f"Better or worse: p < {ALPHA}. Smallest effect that matters: {smallest.told}; "
        f"equivalent: the interval lies inside ± that, by more than it: wholly beyond."
    ]
    for one in found:
        if one.obstacles:
            told.append(f"Not comparable: {_place(one)}: {'; '.join(map(str, one.obstacles))}.")
        elif one.let:
            told.append(f"Let differ by --allow: {_place(one)}: {'; '.join(map(str, one.let))}.")
    if any("for this tuning" in one.verdict.scope.split(", ") for one in judged):
        told.append(
            "for this tuning: each side was tuned once; a verdict on the method needs several tunings (replicates=R)."
        )
    for one in judged:
        told += [*_components(one), *_looked(one), *_left(one)]
    return [*told, *cautions.code_between(found)]


def chosen(found: Sequence[Comparison], split: str) -> list[str]:
    """Which arms were chosen by validation, and among how many."""
    told = []
    for one in found:
        if one.among != (1, 1):
            sides = [f"{arm.label}, of {count}" for arm, count in zip((one.a, one.b), one.among, strict=True)]
            uneven = "; of more arms a better best is to be expected" if len(set(one.among)) > 1 else ""
            told.append(f"{one.a.task} {one.a.model}: the best by validation: {'; '.join(sides)}{uneven}.")
    if told and split != "test":
        told.append("Chosen by the same validation that is compared: optimistic.")
    return told


def _plainly(one: Comparison) -> bool:
    return one.pairs.unit == "seed" and one.pairs.test != "e-process"


def _by_means(one: Comparison) -> bool:
    return one.pairs.unit == "replicate" and one.pairs.test != "e-process"


def _place(one: Comparison) -> str:
    return f"{one.a.task} {one.a.model}, {one.a.label} against {one.b.label}"


def _components(one: Comparison) -> Iterator[str]:
    if one.pairs.unit != "replicate":
        return
    tuning, seed, shared = one.pairs.components
    parts = [f"from tuning to tuning {tuning:.3g}", f"from seed to seed {seed:.3g}"]
    if math.isfinite(shared) and _splits_vary(one):
        parts.append(f"shared by both sides, the data split's, {shared:.3g}")
    yield (
        f"{_place(one)}: {one.pairs.units} replicates, {one.pairs.seeds} pairs of runs; "
        f"s.d. of the difference {', '.join(parts)}."
    )


def _splits_vary(one: Comparison) -> bool:
    splits = {str(part.identity.get("task.data.split_seed")) for part in one.a.parts.values()}
    return len(splits) > 1


def _looked(one: Comparison) -> Iterator[str]:
    if one.verdict.test == "e-process":
        times = f"{one.looks} time{'s' if one.looks != 1 else ''}"
        later = f"; {one.pairs.later} pairs came to replicates seen before and are not in the test"
        first = " (the ordinary test at the first look and this one together err in about 6 %: docs/statistics.md)"
        told = f"looked at {times} with fewer runs{first if one.looks else ''}"
        yield f"{_place(one)}: {told}{later if one.pairs.later else ''}."
    elif one.looks:
        yield f"{_place(one)}: looked at {one.looks} times with fewer runs, and tested as if it had not been."


def _left(one: Comparison) -> Iterator[str]:
    """What a further unit can still change, where nothing was claimed."""
    if one.verdict.word != "insufficient data" or not one.pairs.units:
        return
    level = ALPHA / max(one.verdict.tests, 1)
    left = sequential.what_is_left(one.pairs.gains, level)
    unit = one.pairs.unit
    now = sequential.anytime_p(one.pairs.gains)
    yield (
        f"{_place(one)}: a further {unit} makes the anytime-valid test decide: its p is {now:.2g} now, "
        f"{left.agrees:.2g} if the next is like the mean so far, {left.opposes:.2g} if it is the opposite; "
        f"at least {max(left.least, 1)} more before it can be below {level:.2g}."
    )


# ---- over tasks -----------------------------------------------------------------------------------------------------


def pooled_gain(found: Sequence[Comparison]) -> Pooled | None:
    """The random-effects summary of the gains over tasks, as shares of B's mean; None for fewer than two tasks.

    A task counts once, with the standard error of its units' mean; one in which runs diverged, with fewer than two
    units, without any spread, or whose mean is 0, is left out.
    """
    effects, errors = [], []
    for one in found:
        pairs = one.pairs
        if not one.judged or pairs.units < 2 or not pairs.deviation > 0 or not abs(pairs.mean_b) > 0:
            continue
        if not all(map(math.isfinite, pairs.gains)):
            continue
        effects.append(sum(pairs.gains) / pairs.units / abs(pairs.mean_b))
        errors.append(pairs.deviation / math.sqrt(pairs.units) / abs(pairs.mean_b))
    return random_effects(effects, errors) if len(effects) > 1 else None


def pooled_note(pooled: Pooled) -> str:
    """One line on it."""
    mean, low, high, tau = (f"{100 * value:.3g}" for value in (pooled.mean, pooled.low, pooled.high, pooled.tau))
    return (
        f"Over {pooled.tasks} tasks as a sample of such tasks (random effects, Hartung-Knapp): mean gain "
        f"{mean} [{low}, {high}] % of B's mean, s.d. from task to task {tau} %, p {pooled.p:.2g}."
    )
