"""Tables with verdicts, as a study's plan declares them: what `vrbench report` prints, and `vrbench.compare`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrbench.report import cautions, comparable, control, formats, tables, verdict_notes
from vrbench.report import compare as comparing
from vrbench.report.arms import Arm
from vrbench.report.compare import Comparison
from vrbench.report.formats import Table
from vrbench.report.loading import Runs, load
from vrbench.report.looks import Looks, Mode
from vrbench.report.numerals import PLAIN, Numerals
from vrbench.report.registered import registered
from vrbench.report.smallest import Smallest

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Verdicts:
    """Comparisons of A with B, one for each task and model, corrected together."""

    comparisons: tuple[Comparison, ...]
    table: Table
    """A row for each, and what a reader has to know of them."""
    lead: tuple[str, ...]
    """What is said before: all of them together, and what the study's plan declares."""
    overall: dict[str, Any]
    """All of them together, as numbers."""

    def __iter__(self) -> Iterator[Comparison]:
        return iter(self.comparisons)

    def __len__(self) -> int:
        return len(self.comparisons)

    def __getitem__(self, task: str) -> Comparison:
        """The comparison of a task. Raises KeyError where there is none, or one for each of several models."""
        found = [one for one in self.comparisons if one.a.task == task]
        if len(found) != 1:
            there = ", ".join(f"{one.a.task} {one.a.model}" for one in self.comparisons)
            raise KeyError(f"{task}: {len(found)} comparisons; there are {there}")
        return found[0]

    @property
    def whole(self) -> Table:
        """The table with everything that is said of it."""
        return replace(self.table, notes=[*self.lead, *self.table.notes])

    def frame(self) -> DataFrame:
        """One row for each comparison, with all digits."""
        import pandas

        return pandas.DataFrame(self.table.records)

    def __str__(self) -> str:
        return formats.markdown(self.whole)

    def _repr_markdown_(self) -> str:
        return str(self)


def compare(
    runs: Runs | str | Path,
    a: str,
    b: str,
    *,
    split: str = "test",
    smallest_effect: str | None = None,
    interval: str = "bootstrap-t",
    family: int | None = None,
    test: Mode = "auto",
    allow: Sequence[str] = (),
    best: bool = False,
    numerals: Numerals = PLAIN,
) -> Verdicts:
    """Is A better than B? A verdict for each task and model that both have; as `vrbench report compare`.

        print(vrbench.compare(runs, "vradam", "adamw"))

    Args:
        runs: `vrbench.load(…)`, or a folder.
        a, b: an optimizer (`vradam`) or a label (`vradam lr=0.001`).
        split: `test`, or `val` at its best.
        smallest_effect: the smallest difference that matters, declared before looking: `1%` of B's mean, `0.002` in the
            metric's unit, `log:0.02`, `error:5%`, or `digits=error:5%,1%`; None: the plan's, else 1 %.
        interval: `bootstrap-t`, `bca` or `t`.
        family: how many tests the study has in all, for Holm's correction; None: the plan's, or those shown.
        test: `auto` takes an anytime-valid test as soon as fewer runs were looked at before; `fixed`, `anytime`.
        allow: keys of the config that may differ between the two.
        best: of several arms that A or B names, take the best by validation.

    This is a look at the data: the study's folder remembers it. Raises ValueError where A or B names no arm or several,
    and where the two may not be compared, with the keys. docs/statistics.md says what the words mean.
    """
    arms = list((runs if isinstance(runs, Runs) else load(runs)).arms)
    looks = Looks(test)
    smallest, tests, told = declared(arms, smallest_effect, family)
    every_a, every_b = comparing.named(arms, a, best=best), comparing.named(arms, b, best=best)
    first, second = ({place: own[0] for place, own in every.items()} for every in (every_a, every_b))
    shared = [key for key in first if key in second]
    if not shared:
        raise ValueError(f"{a} and {b} have no task and model in common")
    couples = [(first[key], second[key]) for key in shared]
    comparable.check_names(allow, arms)
    comparable.refuse(couples, allow)
    if split == "test" and (blind := [arm for couple in couples for arm in couple if cautions.is_blind(arm)]):
        names = " and ".join(arm.name for arm in blind)
        raise ValueError(f"{names}: no run was to read the test split; --split val compares validation")
    found = comparing.compare(couples, split, smallest, interval, allow, looks, tests)
    counts = [(len(every_a[key]), len(every_b[key])) for key in shared]
    found = [comparing.chosen_among(one, among) for one, among in zip(found, counts, strict=True)]
    made = tables.comparison(found, a, b, split, smallest, interval, numerals)
    made.notes.extend(control.notes(arms, {key: second[key] for key in shared}, split))
    looks.record(found, split, "compare")
    made.notes.extend(looks.notes)
    for key in sorted(first.keys() ^ second.keys()):
        made.notes.append(f"{' '.join(key)}: has only {a if key in first else b}; left out.")
    total, pooled = comparing.overall(found), verdict_notes.pooled_gain(found)
    lead = [tables.overall_note(total), *told, *([] if pooled is None else [verdict_notes.pooled_note(pooled)])]
    return Verdicts(tuple(found), made, tuple(lead), tables.overall_record(total, pooled))


def summary(
    arms: Sequence[Arm],
    *,
    split: str = "test",
    baseline: str | None = None,
    smallest_effect: str | None = None,
    interval: str = "bootstrap-t",
    family: int | None = None,
    test: Mode = "auto",
    allow: Sequence[str] = (),
    numerals: Numerals = PLAIN,
) -> Table:
    """One row for each arm, and against a baseline a verdict; arguments as in `compare`. Raises ValueError likewise."""
    if allow and baseline is None:
        raise ValueError(f"allow={','.join(allow)}: nothing is compared without --baseline")
    looks = Looks(test)
    smallest, tests, told = declared(arms, smallest_effect, family)
    comparable.check_names(allow, arms)
    made = tables.summary(
        arms,
        split=split,
        baseline=baseline,
        smallest=smallest,
        interval=interval,
        allow=allow,
        looks=looks,
        planned=tests,
        numerals=numerals,
    )
    made.notes[:0] = told
    return made


def declared(arms: Sequence[Arm], smallest_effect: str | None, family: int | None) -> tuple[Smallest, int, list[str]]:
    """The smallest effect, how many tests there are, and notes: as given, else as the study's plan declares them."""
    plan, given = registered(arms), None if smallest_effect is None else Smallest.parse(smallest_effect)
    if plan is None:
        return given or Smallest(), family or 1, []
    told = [plan.note]
    if given is not None and given != plan.smallest:
        told.append(f"Not as planned: smallest effect {given}, chosen for this report.")
    if family is not None and family < plan.tests:
        told.append(f"Not as planned: a family of {family} tests, chosen for this report.")
    return given or plan.smallest, family or plan.tests, told
