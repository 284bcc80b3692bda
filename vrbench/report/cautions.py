"""What a reader of a table has to know of the runs in it: code that has changed, names that hide one thing, gaps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from vrbench.report.arms import Arm, seeds_text

if TYPE_CHECKING:
    from vrbench.report.compare import Comparison

MARK = "†"
"""Stands beside arms with runs whose code has changed since."""


def notes(arms: Sequence[Arm], split: str) -> list[str]:
    """All that is to be said of these arms, in a table of this split."""
    return [*_left_out(arms), *_unread(arms, split), *_one_under_two_names(arms), *_stale(arms), *_mixed(arms)]


def split_of(arms: Iterable[Arm], wanted: str) -> str:
    """The split that a table of these arms can show: validation where runs are over and none was to read the test."""
    over = [arm for arm in arms if arm.over]
    return "val" if wanted == "test" and over and all(map(is_blind, over)) else wanted


def is_blind(arm: Arm) -> bool:
    """Whether runs of the arm are over, and none was to read the test split."""
    if arm.parts:
        return all(map(is_blind, arm.parts.values()))
    return bool(arm.unread) and len(arm.unread) == len(arm.over)


def stale(arm: Arm) -> dict[tuple[str, ...], list[int]]:
    """What has changed since, and the seeds of the runs that ran it before."""
    found: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for seed, code in arm.codes.items():
        if code.changed:
            found[code.changed].append(seed)
    return dict(found)


def stale_text(arm: Arm) -> str:
    """`optimizers/vradam.py, torch 2.14.1 → 2.15.0`; empty where nothing has changed."""
    return ", ".join(dict.fromkeys(name for changed in stale(arm) for name in changed))


def mark(arm: Arm) -> str:
    """The mark of an arm with stale runs, else nothing."""
    return MARK if any(code.changed for code in arm.codes.values()) else ""


def _stale(arms: Sequence[Arm]) -> Iterator[str]:
    counts: dict[str, int] = defaultdict(int)
    some = []
    for arm in arms:
        found = stale(arm)
        for name in {name for changed in found for name in changed}:
            counts[name] += 1
        seeds = [seed for own in found.values() for seed in own]
        if seeds and len(seeds) < len(arm.over):
            some.append(f"{arm.name}, {seeds_text(seeds)} alone")
    if counts:
        told = ", ".join(f"{name} ({count} {_plural(count, 'row')})" for name, count in sorted(counts.items()))
        only = f" Of {'; '.join(some)}." if some else ""
        yield f"{MARK} The code of these runs has changed since: {told}.{only} force=changed trains them again."


def _mixed(arms: Iterable[Arm]) -> Iterator[str]:
    for arm in arms:
        over = [int(run.manifest["seed"]) for run in arm.over]
        parts = {id(code): code.parts for code in arm.codes.values()}
        names = {name for own in parts.values() for name in own}
        told = []
        for name in sorted(names) if len(parts) > 1 else ():
            seeds: dict[str, list[int]] = defaultdict(list)
            for seed, code in arm.codes.items():
                seeds[parts[id(code)].get(name, "absent")].append(seed)
            if len(seeds) > 1:
                told.append(f"{name}: {', '.join(f'{value[:8]} in {seeds_text(own)}' for value, own in seeds.items())}")
        silent = [seed for seed in over if seed not in arm.codes]
        if silent and arm.codes:
            told.append(f"{seeds_text(silent)} not recorded")
        for seed, changes in sorted(arm.went_on.items()):
            for change in changes:
                told.append(f"seed {seed} went on with other {', '.join(change['changed'])} from step {change['step']}")
        if told:
            yield f"{arm.name}: its runs are not of one code ({'; '.join(told)})."


def code_between(found: Iterable[Comparison]) -> Iterator[str]:
    """A note for each comparison whose arms ran the same files or libraries in different versions."""
    for one in found:
        told = []
        sides = [_versions(arm) for arm in (one.a, one.b)]
        for name in sorted(sides[0].keys() & sides[1].keys()):
            if sides[0][name] != sides[1][name]:
                told.append(name)
        if told:
            yield f"{one.a.task} {one.a.model}: {one.a.label} and {one.b.label} ran different code: {', '.join(told)}."


def _versions(arm: Arm) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for parts in {id(code): code.parts for code in arm.codes.values()}.values():
        for name, value in parts.items():
            found[name].add(value)
    return found


def _one_under_two_names(arms: Iterable[Arm]) -> Iterator[str]:
    same: dict[tuple[str, str | None], list[Arm]] = defaultdict(list)
    for arm in arms:
        same[arm.hash, arm.settings.get("runs")].append(arm)
    for twins in same.values():
        if len(twins) > 1:
            names = " and ".join(arm.label for arm in twins)
            yield f"{twins[0].task} {twins[0].model}: {names} are the same configuration under {len(twins)} names."


def _unread(arms: Sequence[Arm], split: str) -> Iterator[str]:
    if split != "test":
        return
    if any(is_blind(arm) for arm in arms):
        yield "Where test is empty, no run of the row was to read the test split."
    some = [f"{arm.name}, {seeds_text(arm.unread)}" for arm in arms if arm.unread and not is_blind(arm)]
    if some:
        yield f"Without a test value, because they were not to read the test split: {'; '.join(some)}."


def _left_out(arms: Iterable[Arm]) -> Iterator[str]:
    unfinished: dict[str, list[str]] = defaultdict(list)
    for arm in arms:
        seeds: dict[str, list[int]] = defaultdict(list)
        for run in arm.runs:
            if run.summary is None:
                seeds[run.status].append(int(run.manifest["seed"]))
        for status, own in seeds.items():
            unfinished[status].append(f"{arm.name}, {seeds_text(own)}")
    for status, told in unfinished.items():
        yield f"Left out, {status}: {'; '.join(told)}."


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"
