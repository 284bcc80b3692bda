"""One row a run: what it is, what it came to, and the settings in which runs differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vrbench.report.arms import Arm
from vrbench.report.formats import Table
from vrbench.report.leaves import canonical
from vrbench.report.numerals import number
from vrbench.runs.records import Run

HEAD = ("study", "task", "model", "optimizer", "label", "seed", "status", "steps", "seconds")
"""The first columns; `seconds` is of training."""


def runs(arms: Sequence[Arm]) -> Table:
    """All runs of the arms, unfinished ones too, by arm and seed; every row has every column.

    Then come the final metrics (`test/accuracy`), the best validation's (`best/val/accuracy`), and the keys of the
    configuration that differ between arms of one task and model. What a run has not is empty (null).
    """
    parts = [part for arm in arms for part in arm.tunings]
    rows = [_row(part, run) for part in parts for run in part.runs]
    keys = _varied(parts)
    metrics = sorted({key for _, found in rows for key in found}, key=lambda key: (key.startswith("best/"), key))
    settings = [[part.identity.get(key) for key in keys] for part in parts for _ in part.runs]
    columns = [*HEAD, *metrics, *keys]
    records = [
        dict(zip(columns, [*head.values(), *(found.get(key) for key in metrics), *own], strict=True))
        for (head, found), own in zip(rows, settings, strict=True)
    ]
    cells = [[_shown(record[column]) for column in columns] for record in records]
    return Table(columns, cells, records, [], frozenset(columns[5:6] + columns[7 : len(HEAD) + len(metrics)]))


def _row(arm: Arm, run: Run) -> tuple[dict[str, Any], dict[str, float]]:
    """Who the run is, and its metrics."""
    summary = run.summary or {}
    head = {
        "study": run.manifest["study"],
        "task": arm.task,
        "model": arm.model,
        "optimizer": arm.optimizer,
        "label": arm.label,
        "seed": int(run.manifest["seed"]),
        "status": run.status,
        "steps": summary.get("steps"),
        "seconds": summary["seconds"]["train"] if summary else None,
    }
    best = summary.get("best", {}).get("metrics", {})
    return head, {**summary.get("metrics", {}), **{f"best/{key}": value for key, value in best.items()}}


def _varied(arms: Sequence[Arm]) -> list[str]:
    """The keys in which arms of one task and model differ, those of the optimizer first."""
    values: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for arm in arms:
        for key, value in _settings(arm.identity):
            values[arm.task, arm.model, key].add(canonical(value))
    found = {key for (_, _, key), there in values.items() if len(there) > 1}
    return sorted(found, key=lambda key: (not key.startswith("optimizer."), key))


def _settings(identity: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The leaves that are numbers or words of a part; which part it is, the choice says."""
    for key, value in identity.items():
        if key not in ("task", "model", "optimizer") and not key.endswith("_target_") and key != "schema":
            yield key, value


def _shown(value: Any) -> str:
    return number(value) if isinstance(value, float) else "" if value is None else str(value)
