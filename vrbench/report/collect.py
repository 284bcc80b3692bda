"""Runs gathered into arms, by configuration or by method, each told from the others by its settings."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vrbench.report.arms import Arm, Code, seeds_text
from vrbench.report.leaves import CHOICES, canonical, identity_of, plain
from vrbench.report.pools import Pool, Pools
from vrbench.runs.index import Row, read_index, read_row
from vrbench.runs.records import OVER, Run

Member = tuple[Run, Row]


@dataclass
class _Group:
    """The runs of one configuration while they are gathered."""

    first: Row
    trial: bool
    pool: Pool | None = None
    members: dict[int, Member] = field(default_factory=dict)
    twice: dict[str, list[int]] = field(default_factory=dict)
    """Seeds that are left out, by study."""

    def add(self, run: Run, row: Row) -> None:
        """Take a run; of two with one seed the first that is over and was to read the test split."""
        seed = int(row["seed"])
        there = self.members.get(seed)
        if there is None:
            self.members[seed] = run, row
            return
        better = _rank(row) > _rank(there[1])
        self.twice.setdefault((there[1] if better else row)["study"], []).append(seed)
        if better:
            self.members[seed] = run, row

    @property
    def over(self) -> Iterator[tuple[int, Run, Row]]:
        return ((seed, run, row) for seed, (run, row) in self.members.items() if row["status"] in OVER)


def collect(paths: Sequence[Path], *, tuning: bool = False, today: bool = True) -> list[Arm]:
    """The arms of any number of run folders, study folders and results roots, by task, model, optimizer and settings.

    A folder named twice counts once; of two runs with the same configuration and seed one counts (one that is over
    before another, then one that was to read the test split, then the first), and a line says which does not. One
    configuration under two names (two YAMLs that say the same) is two arms. The trials of a search (`<study>/tune`
    beside `<study>/search`) come only with `tuning`, or where a path names them, and are never pooled with other runs:
    their `settings` say `runs=tuning`. An arm without any run that is over takes its metric from others of its task;
    where there is none, it is left out, and a line says so. Code is held against today's files unless `today` is false.
    Raises FileNotFoundError for a missing path and ValueError for a run of an unknown schema version.
    """
    groups: dict[tuple[Any, ...], _Group] = {}
    rows = list(_rows(paths, tuning))
    pools = Pools((run, row) for run, row, trial in rows if not trial)
    for run, row, trial in rows:
        pool = None if trial else pools.of(row)
        key = row["arm"], trial, pool, *(row.get(choice) for choice in CHOICES)
        if key not in groups:
            groups[key] = _Group(row, trial, pool)
        groups[key].add(run, row)

    places: dict[tuple[str, str], list[list[_Group]]] = defaultdict(list)
    for together in _pooled(groups.values()):
        places[str(together[0].first["task"]), str(together[0].first["model"])].append(together)
    found, primary, shared = [], {}, _Shared(today)
    for (task, model), here in places.items():
        identities = [[identity_of(group.first) for group in together] for together in here]
        common = [_common(own, shared.searched(together)) for own, together in zip(identities, here, strict=True)]
        for together, own_of, identity, settings in zip(
            here, identities, common, _settings([together[0] for together in here], common), strict=True
        ):
            own = next((run.summary["primary"] for group in together for _, run, _ in group.over if run.summary), None)
            if own is not None:
                primary[task] = own
            found.append((_arm(task, model, together, own_of, identity, settings, shared), own))
    return sorted(_with_metric(found, primary), key=lambda arm: (arm.task, arm.model, arm.optimizer, arm.label))


def _arm(
    task: str,
    model: str,
    together: Sequence[_Group],
    identities: Sequence[dict[str, Any]],
    identity: dict[str, Any],
    settings: dict[str, str],
    shared: _Shared,
) -> Arm:
    """The arm of one group, or of the replicates of a pool with an arm for each."""
    first, parts = together[0], {}
    for group, own in zip(together, identities, strict=True):
        replicate = group.pool.replicate if group.pool else 0
        told = {**settings, "replicate": str(replicate)} if len(together) > 1 else settings
        parts[replicate] = Arm(
            task, model, str(first.first["optimizer"]), told, "", "min",
            runs=[group.members[seed][0] for seed in sorted(group.members)],
            identity=own,
            hash=group.first["arm"],
            control=bool(group.pool and group.pool.control),
            **shared.of(group),
        )  # fmt: skip
    for group, part in zip(together, parts.values(), strict=True):
        for study, seeds in group.twice.items():
            which = f"{seeds_text(seeds)} of study {study} left out"
            _say(f"{part.name}: {which}: another run has this configuration and seed")
    if len(together) == 1:
        return next(iter(parts.values()))
    assert first.pool is not None
    of = list(parts.values())
    return Arm(
        task, model, of[0].optimizer, settings, "", "min",
        runs=[run for part in of for run in part.runs],
        identity=identity,
        hash=first.pool.method,
        codes={seed: code for part in of for seed, code in part.codes.items()},
        went_on={seed: steps for part in of for seed, steps in part.went_on.items()},
        unread=frozenset(seed for part in of for seed in part.unread),
        tuned=[record for part in of for record in part.tuned],
        parts=parts,
        control=first.pool.control,
    )  # fmt: skip


def _pooled(groups: Iterable[_Group]) -> list[list[_Group]]:
    """The groups of one pool together, by replicate; of two configurations of one replicate that with most runs."""
    alone: list[list[_Group]] = []
    pools: dict[tuple[str, bool], dict[int, _Group]] = {}
    for group in groups:
        if group.pool is None or group.pool.alone:
            alone.append([group])
            continue
        own = pools.setdefault((group.pool.method, group.pool.control), {})
        there = own.get(group.pool.replicate)
        if there is not None:
            number = group.pool.replicate
            _say(f"{group.first['optimizer']}: replicate {number} has two configurations; that with most runs counts")
        if there is None or len(group.members) > len(there.members):
            own[group.pool.replicate] = group
    return alone + [[own[number] for number in sorted(own)] for own in pools.values()]


def _common(identities: Sequence[dict[str, Any]], searched: set[str]) -> dict[str, Any]:
    """What tells the method of several tunings: neither what they differ in, as a data split, nor what was searched,
    even where all searches chose one value. Of one configuration, all of it."""
    first, *others = identities
    if not others:
        return first
    return {
        key: value
        for key, value in first.items()
        if key not in searched and all(key in one and canonical(one[key]) == canonical(value) for one in others)
    }


def _with_metric(found: Iterable[tuple[Arm, Any]], primary: dict[str, Any]) -> Iterator[Arm]:
    for arm, own in found:
        told = own if own is not None else primary.get(arm.task)
        if told is None:
            seeds = seeds_text(int(run.manifest["seed"]) for run in arm.runs)
            _say(f"{arm.name}: left out with {seeds}: no run is over, and its metric is not known yet")
            continue
        metric, direction = told["metric"].split("/", 1)[1], told["direction"]
        parts = {number: replace(part, metric=metric, direction=direction) for number, part in arm.parts.items()}
        yield replace(arm, metric=metric, direction=direction, parts=parts)


def _say(line: str) -> None:
    print(f"vrbench: {line}", file=sys.stderr)


class _Shared:
    """What many manifests have in common, read from one of them."""

    def __init__(self, today: bool) -> None:
        self._today = today
        self._codes: dict[str, Code] = {}
        self._tuned: dict[str, dict[str, Any]] = {}

    def of(self, group: _Group) -> dict[str, Any]:
        """The part of an arm that its manifests say beside its configuration."""
        over = list(group.over)
        for _, run, row in over:
            if "code" in row and row["code"] not in self._codes:
                self._codes[row["code"]] = Code(run, self._today)
            if "tuned" in row and row["tuned"] not in self._tuned:
                self._tuned[row["tuned"]] = run.manifest["tuned"]
        return {
            "codes": {seed: self._codes[row["code"]] for seed, _, row in over if "code" in row},
            "went_on": {seed: row["code_changes"] for seed, _, row in over if "code_changes" in row},
            "unread": frozenset(seed for seed, _, row in over if _was_not_to_read_test(row)),
            "tuned": [self._tuned[one] for one in dict.fromkeys(row["tuned"] for _, _, row in over if "tuned" in row)],
        }

    def searched(self, groups: Iterable[_Group]) -> set[str]:
        """The keys whose values searches chose."""
        return {key for group in groups for record in self.of(group)["tuned"] for key in record["params"]}


def _rank(row: Row) -> tuple[bool, bool]:
    over = row["status"] in OVER
    return over, over and not _was_not_to_read_test(row)


def _was_not_to_read_test(row: Row) -> bool:
    if row["status"] == "finished":
        return not row["test_read"]
    return row.get("trainer.evaluate_test") is False


def _rows(paths: Sequence[Path], tuning: bool) -> Iterator[tuple[Run, Row, bool]]:
    """Each run once, with its row of the index and whether it is a trial of a search."""
    seen: set[Path] = set()
    for path in paths:
        top = path.resolve()
        rows = [{**read_row(top), "directory": "."}] if (top / "manifest.json").exists() else read_index(path)
        for row in rows:
            folder = top / row["directory"]
            trial = _is_trial(folder)
            if folder in seen or (trial and not tuning and not top.is_relative_to(folder.parent)):
                continue
            seen.add(folder)
            yield Run(path / row["directory"]), row, trial


def _is_trial(folder: Path) -> bool:
    return folder.parent.name == "tune" and (folder.parents[1] / "search").is_dir()


def _settings(groups: Sequence[_Group], identities: Sequence[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """For each arm of one task and model the keys that tell it from the others, sorted.

    Keys of the optimizer are told where arms of that optimizer differ, all others where any do. Where the choice of a
    group differs (`schedule`), its leaves are told only as far as arms of one choice differ. The hash of the arm is
    told only where nothing else tells.
    """
    shown = [
        {**identity, "runs": "tuning" if group.trial else "others", "schema": group.first["schema"]}
        for group, identity in zip(groups, identities, strict=True)
    ]
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    for key in {key for leaves in shown for key in leaves}:
        for leaves in shown:
            values[key, _among(key, leaves)].add(canonical(leaves.get(key)))
    told = [
        {
            key: plain(leaves[key])
            for key in sorted(leaves)
            if key != "optimizer" and len(values[key, _among(key, leaves)]) > 1
        }
        for leaves in shown
    ]
    times: dict[str, int] = defaultdict(int)
    for group, leaves, settings in zip(groups, shown, told, strict=True):
        times[repr((leaves["optimizer"], settings))] += group.pool is None or not group.pool.control
    for group, leaves, settings in zip(groups, shown, told, strict=True):
        if group.pool is not None and group.pool.control:
            yield {**settings, "runs": "control"}
            continue
        alone = times[repr((leaves["optimizer"], settings))] == 1
        yield settings if alone else {**settings, "arm": group.pool.method if group.pool else group.first["arm"]}


def _among(key: str, leaves: dict[str, Any]) -> str:
    """The choice within which a leaf is compared: arms of another choice are told from this one by that."""
    group = key.partition(".")[0]
    return str(leaves.get(group)) if key != group and group in CHOICES else ""
