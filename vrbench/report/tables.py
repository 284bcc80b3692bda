"""The tables: the summary of arms, and the comparison of two."""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Mapping, Sequence
from typing import Any

from vrbench.report import cautions, tuned
from vrbench.report.arms import Arm
from vrbench.report.compare import Comparison, Overall, Smallest, compare, pick, values
from vrbench.report.formats import Table
from vrbench.report.statistics import ALPHA, INTERVALS, Estimate, Interval


def number(value: float) -> str:
    """Four significant digits; `nan` where there is none."""
    return f"{value:.4g}"


def with_interval(value: float, interval: Interval) -> str:
    """`0.93 [0.91, 0.95]`; without brackets where the interval is not known."""
    return (
        number(value)
        if math.isnan(interval.low)
        else f"{number(value)} [{number(interval.low)}, {number(interval.high)}]"
    )


def summary(
    arms: Sequence[Arm],
    *,
    split: str = "test",
    baseline: str | None = None,
    smallest: Smallest | None = None,
    interval: str = "bootstrap-t",
    allow: Sequence[str] = (),
) -> Table:
    """One row an arm: its mean with interval, n, diverged, and, against a baseline, difference, p and verdict.

    Where no run was to read the test split, the table is of validation. An arm that may not be compared with the
    baseline says why in place of a verdict; `allow` names keys that may differ. Raises ValueError where `baseline`
    names no arm, or two of one task and model.
    """
    smallest, asked = smallest or Smallest(), split
    split = cautions.split_of(arms, asked)
    others = tuned.any_tuned(arms)
    versus: dict[int, Comparison] = {}
    if baseline is not None:
        base = pick(arms, baseline)
        rivals = [arm for arm in arms if _why_none(arm, base, split) == ""]
        found = compare([(arm, base[arm.task, arm.model]) for arm in rivals], split, smallest, interval, allow)
        versus = {id(comparison.a): comparison for comparison in found}
    cells: list[list[str]] = []
    records: list[dict[str, Any]] = []
    for arm in arms:
        by_seed = values(arm, split)
        known = [value for value in by_seed.values() if math.isfinite(value)]
        mean = plain.fmean(known) if known else math.nan
        bounds = INTERVALS[interval](known)
        seconds = plain.fmean(arm.seconds) if arm.seconds else math.nan
        lost = len(by_seed) - len(known)
        record = {
            "task": arm.task,
            "model": arm.model,
            "optimizer": arm.optimizer,
            "settings": arm.settings_told,
            "split": split,
            "metric": arm.metric,
            "direction": arm.direction,
            "mean": mean,
            "low": bounds.low,
            "high": bounds.high,
            "interval": interval,
            "n": len(by_seed),
            "diverged": lost,
            "unfinished": len(arm.runs) - len(arm.over),
            "train_seconds": seconds,
            "stale": cautions.stale_told(arm),
            **tuned.compact(arm, others),
        }
        arrow = "↑" if arm.direction == "max" else "↓"
        shown = f"{arm.metric} {arrow} {with_interval(mean, bounds)}{'*' if lost and known else ''}"
        if split == "test" and cautions.is_blind(arm):
            shown = ""
        marked = f"{arm.settings_told} {cautions.mark(arm)}".strip()
        cell = [arm.task, arm.model, arm.optimizer, marked, shown, str(len(by_seed)), str(lost), number(seconds)]
        if baseline is not None:
            comparison = versus.get(id(arm))
            record |= _verdict_record(comparison)
            cell += _verdict_cells(comparison) if comparison else ["", "", _why_none(arm, base, split)]
        cells.append(cell)
        records.append(record)
    headings = ["task", "model", "optimizer", "settings", split, "n", "diverged", "s / run"]
    numeric = {split, "n", "diverged", "s / run"}
    notes = [f"{_split_note(split)}: mean over seeds [95 % {interval} interval]; s / run: training alone."]
    if any(record["diverged"] and math.isfinite(record["mean"]) for record in records):
        notes.append("* over the runs that finished; n counts those that diverged too.")
    if baseline is not None:
        headings += [f"− {baseline}", "p (Holm)", "verdict"]
        numeric |= {f"− {baseline}", "p (Holm)"}
        notes += _test_notes(list(versus.values()), baseline, smallest, interval)
    if split != asked:
        notes.append("No run here was to read the test split: validation in its place.")
    notes += cautions.notes(arms, split)
    return Table(headings, cells, records, notes, frozenset(numeric), appendix=tuned.appendix(arms))


def _why_none(arm: Arm, base: Mapping[tuple[str, str], Arm], split: str) -> str:
    """Why an arm is not compared with the baseline; empty where it is."""
    there = base.get((arm.task, arm.model))
    if there is None:
        return "no baseline here"
    if split == "test" and (cautions.is_blind(arm) or cautions.is_blind(there)):
        return "test not read"
    return "baseline" if there is arm else ""


def comparison(found: Sequence[Comparison], a: str, b: str, split: str, smallest: Smallest, interval: str) -> Table:
    """One row a task and model: both means, their difference, the probability of improvement, p and verdict."""
    cells, records = [], []
    arms = list({id(arm): arm for one in found for arm in (one.a, one.b)}.values())
    others = tuned.any_tuned(arms)
    for one in found:
        pairs, improvement = one.pairs, one.pairs.improvement
        records.append(
            {
                "task": one.a.task,
                "model": one.a.model,
                "a": one.a.label,
                "b": one.b.label,
                "split": split,
                "metric": one.a.metric,
                "direction": one.a.direction,
                "mean_a": pairs.mean_a,
                "mean_b": pairs.mean_b,
                "diverged_a": pairs.diverged_a,
                "diverged_b": pairs.diverged_b,
                "interval": interval,
                "improvement": improvement.value,
                "improvement_low": improvement.low,
                "improvement_high": improvement.high,
                **_verdict_record(one),
                **{f"stale_{side}": cautions.stale_told(arm) for side, arm in (("a", one.a), ("b", one.b))},
                **{f"tuned_{side}": tuned.in_one_line(arm, others) for side, arm in (("a", one.a), ("b", one.b))},
            }
        )
        difference, p, verdict = _verdict_cells(one)
        arrow = "↑" if one.a.direction == "max" else "↓"
        cells.append(
            [
                one.a.task,
                one.a.model,
                f"{one.a.metric} {arrow}",
                number(pairs.mean_a) + cautions.mark(one.a),
                number(pairs.mean_b) + cautions.mark(one.b),
                difference,
                estimate(improvement) if one.judged else "",
                str(pairs.seeds),
                f"{pairs.diverged_a} / {pairs.diverged_b}",
                p,
                verdict,
            ]
        )
    headings = ["task", "model", split, a, b, "difference", "P(improvement)", "n", "diverged", "p (Holm)", "verdict"]
    notes = [f"A = {a}, B = {b}. {_split_note(split)}, paired by seed; means over the pairs in which both finished."]
    notes += _test_notes(found, b, smallest, interval)
    notes += cautions.notes(arms, split)
    return Table(headings, cells, records, notes, frozenset(headings[3:-1]), appendix=tuned.appendix(arms))


def overall_note(all_of_it: Overall) -> str:
    """The overall line of a comparison."""
    counts = ", ".join(f"{word} {count}" for word, count in all_of_it.counts.items() if count)
    gain = Estimate(*(100 * value for value in all_of_it.relative_gain))
    return (
        f"Overall: {counts or 'nothing to compare'}; P(improvement) {estimate(all_of_it.improvement)} over all pairs; "
        f"interquartile mean gain {estimate(gain)} % of B's mean."
    )


def overall_record(all_of_it: Overall) -> dict[str, Any]:
    """The overall numbers of a comparison, for JSON."""
    return {
        "verdicts": all_of_it.counts,
        "improvement": all_of_it.improvement._asdict(),
        "relative_gain": all_of_it.relative_gain._asdict(),
    }


def estimate(found: Estimate) -> str:
    """A number with its interval."""
    return with_interval(found.value, Interval(found.low, found.high))


def _split_note(split: str) -> str:
    return "Test split" if split == "test" else "Validation at its best step (tuned on: optimistic)"


def _test_notes(found: Sequence[Comparison], baseline: str, smallest: Smallest, interval: str) -> list[str]:
    tests = sum(one.judged and one.pairs.seeds > 0 for one in found)
    plural = "1 comparison" if tests == 1 else f"{tests} comparisons"
    of = f" of {baseline}'s mean" if smallest.relative else ""
    notes = [
        f"difference: mean over paired seeds [95 % {interval} interval]. p: two-sided sign-flip test, Holm-corrected "
        f"over the {plural} here; a diverged run counts as the worst. Better or worse: p < {ALPHA}. "
        f"Equivalent: the interval lies inside ±{smallest}{of}, the smallest effect that matters."
    ]
    for one in found:
        place = f"{one.a.task} {one.a.model}, {one.a.label} against {one.b.label}"
        if one.obstacles:
            notes.append(f"Not comparable: {place}: {'; '.join(map(str, one.obstacles))}.")
        elif one.let:
            notes.append(f"Let differ by --allow: {place}: {'; '.join(map(str, one.let))}.")
    return [*notes, *cautions.code_between(found)]


def _verdict_record(one: Comparison | None) -> dict[str, Any]:
    pairs, verdict = (one.pairs, one.verdict) if one else (None, None)
    tested = pairs if one and one.judged else None
    return {
        "pairs": pairs.seeds if pairs else None,
        "difference": tested.difference if tested else math.nan,
        "difference_low": tested.interval.low if tested else math.nan,
        "difference_high": tested.interval.high if tested else math.nan,
        "smallest_effect": tested.smallest if tested else math.nan,
        "p": tested.p if tested else math.nan,
        "p_holm": verdict.p_holm if verdict else math.nan,
        "verdict": verdict.word if verdict else None,
        "seeds_needed": verdict.needed if verdict else None,
        "not_comparable": "; ".join(map(str, one.obstacles)) if one else "",
        "let_differ": "; ".join(map(str, one.let)) if one else "",
    }


def _verdict_cells(one: Comparison) -> list[str]:
    if not one.judged:
        return ["", "", str(one.verdict)]
    p = one.verdict.p_holm
    difference = with_interval(one.pairs.difference, one.pairs.interval)
    return [difference, "" if math.isnan(p) else f"{p:.2g}", str(one.verdict)]
