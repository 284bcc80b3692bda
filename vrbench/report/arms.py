"""Runs gathered into arms: one configuration, over its seeds. What every table, figure and page is made from."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from vrbench.index import Row, read_index, read_row
from vrbench.records import NOT_IDENTITY, OVER, Run

CHOSEN = ("task", "model", "optimizer")
STANDING = ("schedule", "trainer", "probe")
"""Groups whose choice stands for the leaves that come with it."""


@dataclass(frozen=True)
class Arm:
    """The runs of one configuration, which differ in the seed alone."""

    task: str
    model: str
    optimizer: str
    settings: dict[str, str]
    """What tells this arm from others of the same task, model and optimizer: `{"optimizer.lr": "0.001"}`."""
    metric: str
    """The task's primary metric without its split: `accuracy`."""
    direction: Literal["min", "max"]
    runs: list[Run] = field(repr=False)
    """One run a seed, sorted by seed; unfinished ones among them."""

    @property
    def label(self) -> str:
        """The optimizer and its settings: `vradam lr=0.001`."""
        parts = [f"{key.removeprefix('optimizer.')}={value}" for key, value in self.settings.items()]
        return " ".join([self.optimizer, *parts])

    @property
    def over(self) -> list[Run]:
        """Runs that are finished or diverged."""
        return [run for run in self.runs if run.summary is not None]

    @property
    def diverged(self) -> int:
        """How many runs ended with a loss that is not finite."""
        return sum(run.status == "diverged" for run in self.over)

    def by_seed(self, key: str) -> dict[int, float]:
        """Each seed's number, for the runs that are over; nan where the run diverged or has no such number.

        `test/accuracy` and the like are the final metrics; `best/val/accuracy` is read at the best validation.
        """
        found = {}
        for run in self.over:
            assert run.summary is not None
            metrics = run.summary["best"]["metrics"] if key.startswith("best/") else run.summary["metrics"]
            value = metrics.get(key.removeprefix("best/"))
            known = value is not None and run.status == "finished"
            found[int(run.manifest["seed"])] = float(value) if known else math.nan
        return found

    @property
    def seconds(self) -> list[float]:
        """Training seconds of the finished runs, by seed; evaluation and probes are off the clock."""
        return [float(run.summary["seconds"]["train"]) for run in self.over if run.summary and run.status == "finished"]


def collect(paths: Sequence[Path], *, tuning: bool = False) -> list[Arm]:
    """The arms of any number of run folders, study folders and results roots, by task, model, optimizer and settings.

    A folder named twice counts once; of two runs with the same configuration and seed the first that is over counts,
    and a line says so. The trials of a search (`<study>/tune` beside `<study>/search`) come only with `tuning`, or
    where a path names them, and are never pooled with other runs: their `settings` say `runs=tuning`. An arm without
    any run that is over takes its metric from others of its task; where there is none, it is left out, and a line says
    so. Raises FileNotFoundError for a missing path and ValueError for a run of an unknown schema version.
    """
    groups: dict[tuple[str, bool], dict[int, tuple[Run, Row]]] = defaultdict(dict)
    twice = 0
    for run, row, trial in _rows(paths, tuning):
        members = groups[row["arm"], trial]
        seed = int(row["seed"])
        if seed in members:
            twice += 1
            if members[seed][1]["status"] in OVER or row["status"] not in OVER:
                continue
        members[seed] = run, row
    if twice:
        _say(f"left out, with the configuration and seed of another run: {twice}")

    families: dict[tuple[str, ...], list[tuple[dict[str, Any], list[Run]]]] = defaultdict(list)
    for (arm, trial), members in groups.items():
        first = next(iter(members.values()))[1]
        leaves = {**_identity(first), "runs": "tuning" if trial else "others", "arm": arm}
        runs = [members[seed][0] for seed in sorted(members)]
        families[tuple(str(first[group]) for group in CHOSEN)].append((leaves, runs))

    found, primary = [], {}
    for (task, model, optimizer), twins in families.items():
        for settings, (_, runs) in zip(_settings([leaves for leaves, _ in twins]), twins, strict=True):
            own = next((run.summary["primary"] for run in runs if run.summary), None)
            if own is not None:
                primary[task] = own
            found.append((Arm(task, model, optimizer, settings, "", "min", runs), own))
    return sorted(_with_metric(found, primary), key=lambda arm: (arm.task, arm.model, arm.optimizer, arm.label))


def _with_metric(found: Iterable[tuple[Arm, Any]], primary: dict[str, Any]) -> Iterator[Arm]:
    for arm, own in found:
        told = own if own is not None else primary.get(arm.task)
        if told is None:
            _say(f"{arm.task} {arm.model} {arm.label}: no run is over, and its metric is not known yet; left out")
            continue
        yield replace(arm, metric=told["metric"].split("/", 1)[1], direction=told["direction"])


def _say(line: str) -> None:
    print(f"vrbench: {line}", file=sys.stderr)


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


def _identity(row: Row) -> dict[str, Any]:
    """What decides the run's numbers apart from its seed: the config's leaves, and the choices that stand for them."""
    outside = tuple(".".join(key) for key in NOT_IDENTITY)
    leaves = {
        key: Path(value).name if key.endswith(".path") and isinstance(value, str) else value
        for key, value in row.items()
        if "." in key and "/" not in key and not any(f"{key}.".startswith(f"{name}.") for name in outside)
    }
    return leaves | {group: row[group] for group in STANDING if group in row}


def _settings(twins: Sequence[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """For each of the twins, the keys that tell it from the others, sorted.

    Where the choice of a group differs (`schedule`), its leaves are told only as far as arms of one choice differ. The
    hash of the arm is told only where nothing else tells.
    """
    chosen = {key for twin in twins for key in twin if "." not in key}
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    for key in {key for twin in twins for key in twin}:
        group = key.split(".")[0]
        for twin in twins:
            choice = repr(twin.get(group)) if key != group and group in chosen else ""
            values[key, choice].add(repr(twin.get(key)))
    told = []
    for twin in twins:
        settings = {}
        for key in sorted(twin):
            group = key.split(".")[0]
            choice = repr(twin.get(group)) if key != group and group in chosen else ""
            if key != "arm" and len(values[key, choice]) > 1:
                settings[key] = f"{twin[key]:.6g}" if isinstance(twin[key], float) else str(twin[key])
        told.append(settings)
    times: dict[str, int] = defaultdict(int)
    for settings in told:
        times[repr(settings)] += 1
    for settings, twin in zip(told, twins, strict=True):
        yield settings if times[repr(settings)] == 1 else {**settings, "arm": twin["arm"]}
