"""All comparisons of a study: each rival against the baseline, wherever both are, as one family of tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vrbench.report import cautions, control, tables, verdict_notes
from vrbench.report.arms import Arm
from vrbench.report.compare import Comparison, chosen_among, compare, overall, pick_by_schedule
from vrbench.report.curves import groups, ranked, representative
from vrbench.report.formats import Table
from vrbench.report.looks import Looks
from vrbench.report.registered import registered
from vrbench.report.smallest import Smallest

INTERVAL = "bootstrap-t"
Place = tuple[str, str, str]
"""Task, model, and schedule where a plan fixes several."""


@dataclass(frozen=True)
class Rival:
    """A contestant against the baseline over all the tasks that they share."""

    name: str
    baseline: str
    split: str
    found: list[Comparison]
    places: list[Place]
    """Where each comparison is."""
    table: Table

    @property
    def names(self) -> list[str]:
        """The places as text."""
        return [", ".join(filter(None, place)) for place in self.places]

    @property
    def overall(self) -> list[str]:
        """What is said of all tasks together, schedule by schedule: the same task twice is no sample of tasks."""
        told = []
        for schedule in dict.fromkeys(place[2] for place in self.places):
            own = [one for one, place in zip(self.found, self.places, strict=True) if place[2] == schedule]
            pooled = verdict_notes.pooled_gain(own)
            line = [tables.overall_note(overall(own)), *([verdict_notes.pooled_note(pooled)] if pooled else [])]
            told.append(" ".join([*([f"{schedule}:"] if schedule else []), *line]))
        return told


def rivals(arms: Sequence[Arm], most: int, looks: Looks | None = None, what: str = "page") -> list[Rival]:
    """Each contestant against the baseline, on test, or on validation where one of them was not to read test.

    The baseline and the smallest effect are the plan's; without a plan, the baseline is the contestant that meets most
    others in most tasks (the first by name among equals). `looks` knows earlier looks and notes this one, as `what`.
    A study of one optimizer has its `most` best configurations as contestants.
    """
    plan, contestants = registered(arms), _contestants(arms, most)
    if not contestants:
        return []
    smallest = plan.smallest if plan else Smallest()
    meetings = Counter(place for own in contestants.values() for place in own)
    base = min(contestants, key=lambda name: (-sum(meetings[place] - 1 for place in contestants[name]), name))
    if plan is not None and plan.baseline in contestants:
        base = plan.baseline
    couples: dict[str, list[tuple[str, Place]]] = {"test": [], "val": []}
    for name in sorted(contestants.keys() - {base}):
        shared = sorted(contestants[name].keys() & contestants[base].keys())
        here = [contestants[side][place][0] for side in (name, base) for place in shared]
        couples["val" if any(map(cautions.is_blind, here)) else "test"] += [(name, place) for place in shared]
    total = max(plan.tests if plan else 0, sum(map(len, couples.values())))
    met: dict[str, tuple[str, list[tuple[Place, Comparison]]]] = {}
    for split, named in couples.items():
        sides = [(contestants[name][place], contestants[base][place]) for name, place in named]
        judged = compare([(a[0], b[0]) for a, b in sides], split, smallest, INTERVAL, looks=looks, planned=total)
        if looks is not None:
            looks.record(judged, split, what)
        for (name, place), (a, b), one in zip(named, sides, judged, strict=True):
            met.setdefault(name, (split, []))[1].append((place, chosen_among(one, (len(a), len(b)))))
    made = []
    for name, (split, placed) in sorted(met.items()):
        found = [one for _, one in placed]
        table = tables.comparison(found, name, base, split, smallest, INTERVAL)
        table.notes.extend(_controls(arms, found, split))
        table.notes.extend(looks.notes if looks is not None else [])
        made.append(Rival(name, base, split, found, [place for place, _ in placed], table))
    return made


def _controls(arms: Sequence[Arm], found: Sequence[Comparison], split: str) -> list[str]:
    """The baseline against itself, schedule by schedule."""
    notes = []
    for schedule in dict.fromkeys(one.b.settings.get("schedule") for one in found):
        same = [arm for arm in arms if arm.settings.get("schedule") == schedule]
        bases = {(one.b.task, one.b.model): one.b for one in found if one.b in same}
        notes += control.notes(same, bases, split)
    return notes


def _contestants(arms: Sequence[Arm], most: int) -> dict[str, dict[Place, list[Arm]]]:
    """By name, the arms of each place, of which the first speaks for it.

    Contestants are the optimizers (`curves.ranked`); where there is one optimizer alone, they are its best
    configurations. The baseline tuned again is none.
    """
    arms = [arm for arm in arms if not arm.control]
    plan = registered(arms)
    by_optimizer = len({arm.optimizer for arm in arms}) > 1
    settings = [arms]
    if plan is not None and by_optimizer:
        settings = [own for own, _ in pick_by_schedule(arms, plan.baseline)]
    found: dict[str, dict[Place, list[Arm]]] = {}
    for own in settings:
        schedule = own[0].settings.get("schedule", "") if len(settings) > 1 else ""
        for (task, model), here in groups(own).items():
            best = {arm.label: [arm] for arm in representative(here, most)}
            for name, ordered in (ranked(here) if by_optimizer else best).items():
                found.setdefault(name, {})[task, model, schedule] = ordered
    return found
