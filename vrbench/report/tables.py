"""The tables: the summary of arms, and the comparison of two."""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vrbench.report import cautions, control, replicates, tuned, verdict_notes
from vrbench.report.across_tasks import Pooled
from vrbench.report.arms import Arm
from vrbench.report.compare import Comparison, Overall, compare, pick_by_schedule, values
from vrbench.report.formats import Table
from vrbench.report.looks import Looks
from vrbench.report.numerals import PLAIN, Numerals, number, with_interval
from vrbench.report.pairs import bad_runs
from vrbench.report.replicates import Key
from vrbench.report.smallest import Smallest
from vrbench.report.statistics import INTERVALS, Estimate, Interval


def summary(
    arms: Sequence[Arm],
    *,
    split: str = "test",
    baseline: str | None = None,
    smallest: Smallest | None = None,
    interval: str = "bootstrap-t",
    allow: Sequence[str] = (),
    looks: Looks | None = None,
    planned: int = 0,
    numerals: Numerals = PLAIN,
) -> Table:
    """One row an arm: its mean with interval, median, n, diverged, bad, and against a baseline difference, p, verdict.

    An arm of several tunings has the mean of their means, with Student's interval over them.

    A baseline that has an arm for each schedule is that of the rivals with the same schedule.

    Where no run was to read the test split, the table is of validation. An arm that may not be compared with the
    baseline says why in place of a verdict; `allow` names keys that may differ. Raises ValueError where `baseline`
    names no arm, or two of one task and model.
    """
    smallest, asked = smallest or Smallest(), split
    split = cautions.split_of(arms, asked)
    others = tuned.any_tuned(arms)
    versus: dict[int, Comparison] = {}
    bases: dict[int, Arm | None] = {}
    parted = [] if baseline is None else pick_by_schedule(arms, baseline)
    if baseline is not None:
        bases = {id(arm): base.get((arm.task, arm.model)) for own, base in parted for arm in own}
        couples = [(arm, base) for arm in arms if (base := bases[id(arm)]) and not _why_none(arm, base, split)]
        found = compare(couples, split, smallest, interval, allow, looks, planned)
        if looks is not None:
            looks.record(found, split, "table")
        versus = {id(comparison.a): comparison for comparison in found}
    cells: list[list[str]] = []
    records: list[dict[str, Any]] = []
    for arm in arms:
        by_run = values(arm, split)
        known = [value for value in by_run.values() if math.isfinite(value)]
        mean, bounds, deviation = _centre(arm, by_run, interval)
        seconds = plain.fmean(arm.seconds) if arm.seconds else math.nan
        lost = len(by_run) - len(known)
        bad, median = bad_runs(list(by_run.values()), arm.direction), plain.median(known) if known else math.nan
        record = {
            "task": arm.task,
            "model": arm.model,
            "optimizer": arm.optimizer,
            "settings": arm.settings_text,
            "split": split,
            "metric": arm.metric,
            "direction": arm.direction,
            "mean": mean,
            "low": bounds.low,
            "high": bounds.high,
            "deviation": deviation,
            "median": median,
            "interval": "t over replicates" if arm.parts else interval,
            "n": len(by_run),
            "replicates": len(arm.parts) or 1,
            "diverged": lost,
            "bad": bad,
            "unfinished": len(arm.runs) - len(arm.over),
            "train_seconds": seconds,
            "stale": cautions.stale_text(arm),
            **tuned.compact(arm, others),
        }
        shown = f"{numerals.measured(mean, bounds, deviation)}{'*' if lost and known else ''}"
        if split == "test" and cautions.is_blind(arm):
            shown = ""
        marked = f"{arm.settings_text} {cautions.mark(arm)}".strip()
        middle = numerals.number(median) if known else ""
        n = f"{len(by_run)} ({len(arm.parts)} tunings)" if arm.parts else str(len(by_run))
        start = [arm.task, arm.model, arm.optimizer, marked, _with_arrow(arm), shown, middle]
        cell = [*start, n, str(lost), str(bad), number(seconds)]
        if baseline is not None:
            comparison = versus.get(id(arm))
            record |= _verdict_record(comparison)
            cell += (
                _verdict_cells(comparison, numerals) if comparison else ["", "", _why_none(arm, bases[id(arm)], split)]
            )
        cells.append(cell)
        records.append(record)
    headings = ["task", "model", "optimizer", "settings", "metric", split, "median", "n", "diverged", "bad", "s / run"]
    numeric = {split, "median", "n", "diverged", "bad", "s / run"}
    beside = {"ci": f" [95 % {interval} interval]", "sd": " ± s.d.", "none": ""}[numerals.spread]
    notes = [
        f"{_split_note(split)}: mean over seeds{beside}; bad: diverged, or beyond three quartile "
        "ranges on the worse side; s / run: training alone."
    ]
    if any(arm.parts for arm in arms):
        beside = {"ci": " [95 % Student's t interval over them]", "sd": " ± s.d. over them", "none": ""}[
            numerals.spread
        ]
        notes.append(f"Of several tunings: the mean of their means{beside}.")
    if any(record["diverged"] and math.isfinite(record["mean"]) for record in records):
        notes.append("* over the runs that finished; n counts those that diverged too.")
    if baseline is not None:
        headings += [f"− {baseline}", "p (Holm)", "verdict"]
        numeric |= {f"− {baseline}", "p (Holm)"}
        notes += verdict_notes.notes(list(versus.values()), smallest, interval, numerals.spread)
        notes += [note for own, base in parted for note in control.notes(own, base, split)]
        notes += looks.notes if looks is not None else []
    if split != asked:
        notes.append("No run here was to read the test split: validation in its place.")
    notes += cautions.notes(arms, split)
    versus_columns = (f"− {baseline}", "p (Holm)", "verdict") if baseline is not None else ()
    return Table(
        headings, cells, records, notes, frozenset(numeric),
        caption=f"{_split_note(split)}: one row for each configuration, over its seeds.",
        print_columns=("task", "model", "optimizer", "settings", "metric", split, "n", *versus_columns),
        bold=frozenset((row, split) for row in _better(arms, versus, bases)),
        appendix=tuned.appendix(arms),
    )  # fmt: skip


def _better(arms: Sequence[Arm], versus: Mapping[int, Comparison], bases: Mapping[int, Arm | None]) -> Iterator[int]:
    """The rows of arms that are better than their baseline by the verdict, or than which all its rivals are worse."""
    words: dict[int, list[str]] = {}
    for arm in arms:
        if (base := bases.get(id(arm))) is not None and base is not arm and not arm.control:
            words.setdefault(id(base), []).append(versus[id(arm)].verdict.word if id(arm) in versus else "")
    for row, arm in enumerate(arms):
        won = versus[id(arm)].verdict.word == "better" if id(arm) in versus else False
        if won or set(words.get(id(arm), ())) == {"worse"}:
            yield row


def _with_arrow(arm: Arm) -> str:
    return f"{arm.metric} {'↑' if arm.direction == 'max' else '↓'}"


def _centre(arm: Arm, by_run: Mapping[Key, float], interval: str) -> tuple[float, Interval, float]:
    """The mean of the runs that finished, or of the tunings' means, its interval, and their s.d."""
    by_replicate: dict[int, list[float]] = {}
    for (replicate, _), value in by_run.items():
        if math.isfinite(value):
            by_replicate.setdefault(replicate, []).append(value)
    if arm.parts:
        means = [plain.fmean(own) for own in by_replicate.values()]
        return _mean(means), replicates.interval_of_means(means), _deviation(means)
    known = [value for own in by_replicate.values() for value in own]
    return _mean(known), INTERVALS[interval](known), _deviation(known)


def _mean(values: Sequence[float]) -> float:
    return plain.fmean(values) if values else math.nan


def _deviation(values: Sequence[float]) -> float:
    return plain.stdev(values) if len(values) > 1 else math.nan


def _why_none(arm: Arm, there: Arm | None, split: str) -> str:
    """Why an arm is not compared with the baseline; empty where it is."""
    if there is None:
        return "no baseline here"
    if split == "test" and (cautions.is_blind(arm) or cautions.is_blind(there)):
        return "test not read"
    if arm.control:
        return "negative control"
    return "baseline" if there is arm else ""


def comparison(
    found: Sequence[Comparison],
    a: str,
    b: str,
    split: str,
    smallest: Smallest,
    interval: str,
    numerals: Numerals = PLAIN,
) -> Table:
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
                **{f"practically_{word}": share for word, share in pairs.practical._asdict().items()},
                **{f"deviation_{name}": value for name, value in pairs.components._asdict().items()},
                **_verdict_record(one),
                **{f"stale_{side}": cautions.stale_text(arm) for side, arm in (("a", one.a), ("b", one.b))},
                **{f"tuned_{side}": tuned.in_one_line(arm, others) for side, arm in (("a", one.a), ("b", one.b))},
            }
        )
        difference, p, verdict = _verdict_cells(one, numerals)
        cells.append(
            [
                one.a.task,
                one.a.model,
                _with_arrow(one.a),
                numerals.number(pairs.mean_a) + cautions.mark(one.a),
                numerals.number(pairs.mean_b) + cautions.mark(one.b),
                difference,
                numerals.number(pairs.median) if one.judged else "",
                estimate(improvement) if one.judged else "",
                _practical(one),
                str(pairs.seeds) if pairs.unit == "seed" else f"{pairs.seeds} ({pairs.units} tunings)",
                f"{pairs.diverged_a} / {pairs.diverged_b}",
                p,
                verdict,
            ]
        )
    headings = ["task", "model", "metric", a, b, "difference", "median", "P(improvement)",
                "better / equivalent / worse", "n", "diverged", "p (Holm)", "verdict"]  # fmt: skip
    numeric = frozenset(headings[3:-1])
    if len({(one.a.task, one.a.model) for one in found}) < len(found):
        headings.insert(2, "schedule")
        for cell, one in zip(cells, found, strict=True):
            cell.insert(2, one.a.settings.get("schedule", ""))
    notes = [
        *verdict_notes.chosen(found, split),
        f"A = {a}, B = {b}. {_split_note(split)}, paired by seed; means over the pairs in which both finished.",
        "median: of the differences. better / equivalent / worse: posterior probabilities by the smallest effect "
        "(Bayesian signed-rank test), beside the test and not in its place.",
        *verdict_notes.notes(found, smallest, interval, numerals.spread),
        *cautions.notes(arms, split),
    ]
    winners = {"better": a, "worse": b}
    return Table(
        headings, cells, records, notes, numeric,
        caption=f"{a} against {b}. {_split_note(split)}.",
        print_columns=("task", "model", "schedule", "metric", a, b, "difference", "n", "p (Holm)", "verdict"),
        bold=frozenset(
            (row, winners[one.verdict.word]) for row, one in enumerate(found) if one.verdict.word in winners
        ),
        appendix=tuned.appendix(arms),
    )  # fmt: skip


def overall_note(all_of_it: Overall) -> str:
    """The overall line of a comparison."""
    counts = ", ".join(f"{word} {count}" for word, count in all_of_it.counts.items() if count)
    gain = Estimate(*(100 * value for value in all_of_it.relative_gain))
    return (
        f"Overall: {counts or 'nothing to compare'}; P(improvement) {estimate(all_of_it.improvement)} over all pairs; "
        f"interquartile mean gain {estimate(gain)} % of B's mean."
    )


def overall_record(all_of_it: Overall, pooled: Pooled | None) -> dict[str, Any]:
    """The overall numbers of a comparison, for JSON."""
    return {
        "random_effects": pooled._asdict() if pooled else None,
        "verdicts": all_of_it.counts,
        "improvement": all_of_it.improvement._asdict(),
        "relative_gain": all_of_it.relative_gain._asdict(),
    }


def estimate(found: Estimate) -> str:
    """A number with its interval."""
    return with_interval(found.value, Interval(found.low, found.high))


def _split_note(split: str) -> str:
    return "Test split" if split == "test" else "Validation at its best step (tuned on: optimistic)"


def _practical(one: Comparison) -> str:
    shares = one.pairs.practical
    return "" if not one.judged or math.isnan(shares.better) else " / ".join(f"{share:.2f}" for share in shares)


def _verdict_record(one: Comparison | None) -> dict[str, Any]:
    pairs, verdict = (one.pairs, one.verdict) if one else (None, None)
    tested = pairs if one and one.judged else None
    return {
        "pairs": pairs.seeds if pairs else None,
        "difference": tested.difference if tested else math.nan,
        "difference_low": tested.interval.low if tested else math.nan,
        "difference_high": tested.interval.high if tested else math.nan,
        "smallest_effect": tested.smallest if tested else math.nan,
        "median_difference": tested.median if tested else math.nan,
        "p": verdict.p if verdict and tested else math.nan,
        "p_holm": verdict.p_holm if verdict else math.nan,
        "verdict": verdict.word if verdict else None,
        "size": verdict.size if verdict else None,
        "scope": verdict.scope if verdict else None,
        "test": verdict.test if verdict and tested else None,
        "unit": pairs.unit if pairs else None,
        "units": pairs.units if pairs else None,
        "family": verdict.tests if verdict and tested else None,
        "seeds_least": verdict.least if verdict else None,
        "seeds_about": verdict.about if verdict else None,
        "not_comparable": "; ".join(map(str, one.obstacles)) if one else "",
        "let_differ": "; ".join(map(str, one.let)) if one else "",
    }


def _verdict_cells(one: Comparison, numerals: Numerals) -> list[str]:
    if not one.judged:
        return ["", "", str(one.verdict)]
    p = one.verdict.p_holm
    difference = numerals.measured(one.pairs.difference, one.pairs.interval, one.pairs.deviation)
    return [difference, "" if math.isnan(p) else f"{p:.2g}", str(one.verdict)]
