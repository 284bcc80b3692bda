"""An arm: one configuration, or one method tuned several times, over its seeds.

What every table, figure and page is made from; `collect` gathers runs into arms.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from vrbench.runs.records import Run
from vrbench.runs.source import changed_since


@dataclass(frozen=True)
class Code:
    """The source files and libraries that some runs ran; one object for all runs that ran the same."""

    run: Run
    """One of them, whose manifest has it in full."""
    today: bool = True
    """Whether it is held against the files as they are now."""

    @cached_property
    def parts(self) -> dict[str, str]:
        """Hash or version by file or library: `{"optimizers/vradam.py": "1a2b…", "torch": "2.14.1"}`."""
        code = self.run.manifest["code"]
        return {**code.get("files", {}), **code.get("libraries", {})}

    @cached_property
    def changed(self) -> tuple[str, ...]:
        """What of it is not so any more: `("optimizers/vradam.py",)`."""
        return tuple(changed_since(self.run.manifest["code"])) if self.today else ()


@dataclass(frozen=True)
class Arm:
    """The runs of one configuration, which differ in the seed alone and in what follows it; or of one method that was
    tuned several times (`parts`), which differ in what each search chose too."""

    task: str
    model: str
    optimizer: str
    settings: dict[str, str]
    """What tells this arm from others of the same task and model: `{"optimizer.lr": "0.001"}`."""
    metric: str
    """The task's primary metric without its split: `accuracy`."""
    direction: Literal["min", "max"]
    runs: list[Run] = field(repr=False)
    """One run a seed, sorted by seed; unfinished ones among them."""
    identity: dict[str, Any] = field(default_factory=dict, repr=False)
    """The leaves and choices that decide its numbers (`leaves.identity_of`)."""
    hash: str = ""
    """The arm's hash in the manifests."""
    codes: dict[int, Code] = field(default_factory=dict, repr=False)
    """By seed, the code of the runs that are over; without those whose manifest does not say."""
    went_on: dict[int, list[dict[str, Any]]] = field(default_factory=dict, repr=False)
    """By seed, the steps at which a run was knowingly gone on with, with other code."""
    unread: frozenset[int] = frozenset()
    """Seeds whose runs are over and were not to read the test split, as a search's trials: they have no test value."""
    tuned: list[dict[str, Any]] = field(default_factory=list, repr=False)
    """How a confirmation's configuration was found, as its manifests say it; empty where it was not tuned."""
    parts: dict[int, Arm] = field(default_factory=dict, repr=False)
    """By replicate, the arm of each tuning, where a method was tuned several times; else empty."""
    control: bool = False
    """Whether it is the baseline tuned again, to be compared with itself."""

    @property
    def label(self) -> str:
        """The optimizer and its settings: `vradam lr=0.001`."""
        parts = [f"{key.removeprefix('optimizer.')}={value}" for key, value in self.settings.items()]
        return " ".join([self.optimizer, *parts])

    @property
    def settings_text(self) -> str:
        """The settings as the command line would say them: `optimizer.lr=0.001 schedule=constant`."""
        return " ".join(f"{key}={value}" for key, value in self.settings.items())

    @property
    def tunings(self) -> list[Arm]:
        """The arm of each tuning by replicate; itself alone where there was one, or none."""
        return list(self.parts.values()) or [self]

    @property
    def unsearched(self) -> dict[str, str]:
        """The settings without those that its searches chose."""
        searched = {key for record in self.tuned for key in record["params"]}
        return {key: value for key, value in self.settings.items() if key not in searched}

    @property
    def name(self) -> str:
        """Task, model and label: `digits mlp vradam lr=0.001`."""
        return f"{self.task} {self.model} {self.label}"

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

        `test/accuracy` and the like are the final metrics; `best/val/accuracy` is read at the best validation. Runs
        that were not to read the test split have no test value, and are not in the answer.
        """
        found = {}
        for run in self.over:
            assert run.summary is not None
            seed = int(run.manifest["seed"])
            if key.startswith("test/") and seed in self.unread:
                continue
            metrics = run.summary["best"]["metrics"] if key.startswith("best/") else run.summary["metrics"]
            value = metrics.get(key.removeprefix("best/"))
            known = value is not None and run.status == "finished"
            found[seed] = float(value) if known else math.nan
        return found

    def by_run(self, key: str) -> dict[tuple[int, int], float]:
        """The same by replicate and seed; where there was one tuning, or none, its replicate is 0."""
        if not self.parts:
            return {(0, seed): value for seed, value in self.by_seed(key).items()}
        return {(r, seed): value for r, part in self.parts.items() for seed, value in part.by_seed(key).items()}

    @property
    def seconds(self) -> list[float]:
        """Training seconds of the finished runs, by seed; evaluation and probes are off the clock."""
        return [float(run.summary["seconds"]["train"]) for run in self.over if run.summary and run.status == "finished"]


def seeds_text(seeds: Iterable[int]) -> str:
    """`seed 3`, `seeds 0-7, 12`."""
    ordered = sorted(seeds)
    stretches: list[list[int]] = []
    for seed in ordered:
        if stretches and seed == stretches[-1][-1] + 1:
            stretches[-1].append(seed)
        else:
            stretches.append([seed])
    shown = [f"{one[0]}-{one[-1]}" if len(one) > 2 else ", ".join(map(str, one)) for one in stretches]
    return f"seed{'s' if len(ordered) > 1 else ''} {', '.join(shown)}"
