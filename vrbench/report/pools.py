"""Which runs are replicates of one method: confirmed by searches that differ in their draws, and in nothing declared.

A manifest's `tuned.replicate` numbers the independent searches of a study. Runs of one study, task, model, optimizer
and search (space, budget, sampler, metric), equal in everything but the searched keys and the data split's seed, are
one method; `tuned.control` marks the baseline tuned once more, which is a method of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vrbench.report.leaves import CHOICES, canonical, covers, identity_of
from vrbench.runs.index import Row, digest
from vrbench.runs.records import Run

SPLIT = "task.data.split_seed"
"""What may differ from replicate to replicate beside what was searched."""


@dataclass(frozen=True)
class Pool:
    """Where a run belongs: a method, and which of its tunings."""

    method: str
    """16 hex digits of what the method's replicates have in common."""
    replicate: int
    control: bool
    alone: bool
    """Whether it is the method's only tuning: its configuration is then an arm like any other."""


class Pools:
    """The pools of many runs; each kind of tuning is read from one manifest."""

    def __init__(self, runs: Iterable[tuple[Run, Row]]) -> None:
        self._records: dict[str, dict[str, Any]] = {}
        self._methods: dict[tuple[str, str, str], str] = {}
        numbers: dict[tuple[str, bool], set[int]] = defaultdict(set)
        for run, row in runs:
            if "tuned" not in row:
                continue
            if row["tuned"] not in self._records:
                self._records[row["tuned"]] = run.manifest["tuned"]
            record = self._records[row["tuned"]]
            if "replicate" in record or record.get("control"):
                numbers[self._method(row), bool(record.get("control"))].add(int(record.get("replicate", 0)))
        self._many = {place for place, found in numbers.items() if len(found) > 1}

    def of(self, row: Row) -> Pool | None:
        """The pool of a run; None where it is one tuning, or none, as runs of one configuration are."""
        record = self._records.get(row.get("tuned", ""))
        if record is None or not ("replicate" in record or record.get("control")):
            return None
        method, control = self._method(row), bool(record.get("control"))
        alone = (method, control) not in self._many
        if alone and not control:
            return None
        return Pool(method, int(record.get("replicate", 0)), control, alone)

    def _method(self, row: Row) -> str:
        place = row["arm"], row["tuned"], str(row["study"])
        if place not in self._methods:
            record = self._records[row["tuned"]]
            open_keys = [*record["space"], SPLIT]
            kept = {
                key: canonical(value)
                for key, value in identity_of(row).items()
                if not any(covers(name, key) for name in open_keys)
            }
            search = {key: canonical(record.get(key)) for key in ("space", "budget", "sampler", "metric")}
            choices = {key: row.get(key) for key in CHOICES if not any(covers(name, key) for name in open_keys)}
            self._methods[place] = digest({"kept": kept, "search": search, "choices": choices, "study": row["study"]})
        return self._methods[place]
