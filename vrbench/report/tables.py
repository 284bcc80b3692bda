"""Tables as Markdown, LaTeX, CSV and JSON: the summary of arms, and the comparison of two."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import statistics as plain
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vrbench.report.arms import Arm
from vrbench.report.compare import Comparison, Overall, Smallest, compare, pick, values
from vrbench.report.statistics import ALPHA, INTERVALS, Estimate, Interval


@dataclass(frozen=True)
class Table:
    """One table: what is shown (text) and what it is made from (full precision)."""

    headings: list[str]
    cells: list[list[str]]
    records: list[dict[str, Any]]
    """One flat record a row."""
    notes: list[str]
    """What a reader has to know: intervals, tests, families, what is left out."""
    numeric: frozenset[str] = frozenset()
    """Headings of the columns that are set to the right."""


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
) -> Table:
    """One row an arm: its mean with interval, n, diverged, and, against a baseline, difference, p and verdict.

    Raises ValueError where `baseline` names no arm, or two of one task and model.
    """
    smallest = smallest or Smallest()
    versus: dict[int, Comparison] = {}
    if baseline is not None:
        base = pick(arms, baseline)
        rivals = [arm for arm in arms if (arm.task, arm.model) in base and base[arm.task, arm.model] is not arm]
        found = compare([(arm, base[arm.task, arm.model]) for arm in rivals], split, smallest, interval)
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
            "settings": settings(arm),
            "split": split,
            "metric": arm.metric,
            "direction": arm.direction,
            "mean": mean,
            "low": bounds.low,
            "high": bounds.high,
            "interval": interval,
            "n": len(by_seed),
            "diverged": lost,
            "unfinished": len(arm.runs) - len(by_seed),
            "train_seconds": seconds,
        }
        arrow = "↑" if arm.direction == "max" else "↓"
        shown = f"{arm.metric} {arrow} {with_interval(mean, bounds)}{'*' if lost and known else ''}"
        cell = [arm.task, arm.model, arm.optimizer, settings(arm), shown, str(len(by_seed)), str(lost), number(seconds)]
        if baseline is not None:
            comparison = versus.get(id(arm))
            record |= _verdict_record(comparison)
            cell += _verdict_cells(comparison) if comparison else ["", "", _why_none(arm, base)]
        cells.append(cell)
        records.append(record)
    headings = ["task", "model", "optimizer", "settings", split, "n", "diverged", "s / run"]
    numeric = {split, "n", "diverged", "s / run"}
    notes = [f"{_split_note(split)}: mean over seeds [95 % {interval} interval]; s / run: training alone."]
    if any(record["diverged"] and math.isfinite(record["mean"]) for record in records):
        notes.append("* over the runs that finished; n counts those that diverged too.")
    if unfinished := sum(record["unfinished"] for record in records):
        notes.append(f"{unfinished} unfinished runs are left out.")
    if baseline is not None:
        headings += [f"− {baseline}", "p (Holm)", "verdict"]
        numeric |= {f"− {baseline}", "p (Holm)"}
        notes += _test_notes(list(versus.values()), baseline, smallest, interval)
    return Table(headings, cells, records, notes, frozenset(numeric))


def settings(arm: Arm) -> str:
    """The settings that tell an arm from others, as the command line would say them."""
    return " ".join(f"{key}={value}" for key, value in arm.settings.items())


def _why_none(arm: Arm, base: Mapping[tuple[str, str], Arm]) -> str:
    return "baseline" if base.get((arm.task, arm.model)) is arm else "no baseline here"


def comparison(found: Sequence[Comparison], a: str, b: str, split: str, smallest: Smallest, interval: str) -> Table:
    """One row a task and model: both means, their difference, the probability of improvement, p and verdict."""
    cells, records = [], []
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
            }
        )
        difference, p, verdict = _verdict_cells(one)
        arrow = "↑" if one.a.direction == "max" else "↓"
        cells.append(
            [
                one.a.task,
                one.a.model,
                f"{one.a.metric} {arrow}",
                number(pairs.mean_a),
                number(pairs.mean_b),
                difference,
                estimate(improvement),
                str(pairs.seeds),
                f"{pairs.diverged_a} / {pairs.diverged_b}",
                p,
                verdict,
            ]
        )
    headings = ["task", "model", split, a, b, "difference", "P(improvement)", "n", "diverged", "p (Holm)", "verdict"]
    notes = [f"A = {a}, B = {b}. {_split_note(split)}, paired by seed; means over the pairs in which both finished."]
    notes += _test_notes(found, b, smallest, interval)
    return Table(headings, cells, records, notes, frozenset(headings[3:-1]))


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
    tests = sum(one.pairs.seeds > 0 for one in found)
    plural = "1 comparison" if tests == 1 else f"{tests} comparisons"
    of = f" of {baseline}'s mean" if smallest.relative else ""
    return [
        f"difference: mean over paired seeds [95 % {interval} interval]. p: two-sided sign-flip test, Holm-corrected "
        f"over the {plural} here; a diverged run counts as the worst. Better or worse: p < {ALPHA}. "
        f"Equivalent: the interval lies inside ±{smallest}{of}, the smallest effect that matters."
    ]


def _verdict_record(one: Comparison | None) -> dict[str, Any]:
    pairs, verdict = (one.pairs, one.verdict) if one else (None, None)
    return {
        "pairs": pairs.seeds if pairs else None,
        "difference": pairs.difference if pairs else math.nan,
        "difference_low": pairs.interval.low if pairs else math.nan,
        "difference_high": pairs.interval.high if pairs else math.nan,
        "smallest_effect": pairs.smallest if pairs else math.nan,
        "p": pairs.p if pairs else math.nan,
        "p_holm": verdict.p_holm if verdict else math.nan,
        "verdict": verdict.word if verdict else None,
        "seeds_needed": verdict.needed if verdict else None,
    }


def _verdict_cells(one: Comparison) -> list[str]:
    p = one.verdict.p_holm
    difference = with_interval(one.pairs.difference, one.pairs.interval)
    return [difference, "" if math.isnan(p) else f"{p:.2g}", str(one.verdict)]


# ---- formats --------------------------------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    """A GitHub-flavoured Markdown table, its notes below it."""
    rules = ["---:" if heading in table.numeric else "---" for heading in table.headings]
    lines = [table.headings, *table.cells]
    shown = [f"| {' | '.join(escape_markdown(cell) for cell in line)} |" for line in lines]
    shown.insert(1, f"|{'|'.join(rules)}|")
    return "\n".join([*shown, "", *(f"{escape_markdown(note)}\n" for note in table.notes)])


_MARKDOWN = re.compile(r"[\\`*|<>&~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=\])\(")


def escape_markdown(text: str) -> str:
    """The text so that Markdown shows it as it is; a line break becomes a space."""
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", re.sub(r"\s*\n\s*", " ", text))


def latex(table: Table) -> str:
    r"""A `tabular` with its notes as a paragraph below it; needs `\usepackage{booktabs}`."""
    columns = "".join("r" if heading in table.numeric else "l" for heading in table.headings)
    rows = [" & ".join(escape_latex(cell) for cell in line) + r" \\" for line in table.cells]
    heading = " & ".join(escape_latex(heading) for heading in table.headings) + r" \\"
    notes = [rf"\par\smallskip\noindent {escape_latex(note)}" for note in table.notes]
    lines = [r"% needs \usepackage{booktabs}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", heading, r"\midrule"]
    return "\n".join([*lines, *rows, r"\bottomrule", r"\end{tabular}", *notes, ""])


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "[": "{[}",
    "]": "{]}",
    "↑": r"\(\uparrow\)",
    "↓": r"\(\downarrow\)",
    "−": r"\(-\)",
    "±": r"\(\pm\)",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}


def escape_latex(text: str) -> str:
    """The text for any LaTeX engine; a character beyond ASCII that has no entry here is told by its code point."""
    kept = "".join(_LATEX.get(char, char if char.isascii() else f"U+{ord(char):04X}") for char in text)
    return re.sub(r"\s+", " ", kept)


def comma_separated(table: Table) -> str:
    """The records as CSV in full precision."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(table.records[0]) if table.records else table.headings, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table.records)
    return out.getvalue()


def as_json(table: Table, **more: Any) -> str:
    """`{"rows": […], "notes": […], …}`; numbers that JSON cannot say are null."""
    return json.dumps(_plain({"rows": table.records, "notes": table.notes, **more}), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


FORMATS: Mapping[str, Callable[[Table], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": comma_separated,
    "json": as_json,
}
