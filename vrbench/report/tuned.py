"""What was tuned for each arm of a confirmation, how, and with what result: the table that stands behind a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vrbench.report.arms import Arm, seeds_text
from vrbench.report.formats import Table
from vrbench.report.leaves import plain

NOT_TUNED = "not tuned"
TITLE = "What was tuned"


def appendix(arms: Sequence[Arm]) -> Table | None:
    """One row an arm and search; None where no arm was tuned."""
    others = any_tuned(arms)
    if not others:
        return None
    cells, records = [], []
    for arm in arms:
        for record in _records_of(arm, others):
            cells.append([arm.task, arm.model, arm.optimizer, arm.settings_text, *_cells(record)])
            records.append(_record(arm, record))
    headings = ["task", "model", "optimizer", "settings", "trials", "sampler", "tuning seeds", "ranked by",
                "chosen", "space", "on an edge"]  # fmt: skip
    return Table(headings, cells, records, [], frozenset({"trials"}), title=TITLE)


def any_tuned(arms: Sequence[Arm]) -> bool:
    """Whether an arm that was not tuned has to say so."""
    return any(arm.tuned for arm in arms)


def compact(arm: Arm, others: bool) -> dict[str, str]:
    """What was tuned for an arm, in columns of a record; `not tuned` where `others` in the table were."""
    names = ("trials", "sampler", "seeds", "metric", "params", "space", "edges")
    rows = [dict(zip(names, _cells(record), strict=True)) for record in _records_of(arm, others)]
    return {f"tuned_{name}": " | ".join(dict.fromkeys(row[name] for row in rows)) for name in names}


def in_one_line(arm: Arm, others: bool) -> str:
    """The same as one text: `16 trials, tpe, seeds 1000: lr=0.0128; of lr: 0.0001 to 0.1, log; on an edge: no`."""
    told = []
    for record in _records_of(arm, others):
        trials, sampler, seeds, metric, params, space, edges = _cells(record)
        found = f"{trials} trials, {sampler}, seeds {seeds}, by {metric}: {params}; of {space}; on an edge: {edges}"
        told.append(found if record else trials)
    return " | ".join(told)


def _records_of(arm: Arm, others: bool) -> list[dict[str, Any]]:
    """The arm's searches; an empty one says `not tuned`, which a search's own trials need not say."""
    return arm.tuned or ([{}] if others and arm.settings.get("runs") != "tuning" else [])


def _cells(record: Mapping[str, Any]) -> list[str]:
    if not record:
        return [NOT_TUNED, *[""] * 6]
    trials, budget = record["trials"], record["budget"]
    return [
        str(trials) if trials == budget else f"{trials} of {budget}",
        str(record["sampler"]),
        seeds_text(record["seeds"]).partition(" ")[2],
        record["metric"] or "the task's metric",
        " ".join(f"{_short(key)}={plain(value)}" for key, value in record["params"].items()),
        "; ".join(f"{_short(key)}: {_range(space)}" for key, space in record["space"].items()),
        "; ".join(record["edges"]) or "no",
    ]


def _record(arm: Arm, record: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("search", "trials", "budget", "sampler", "seeds", "metric", "params", "space", "edges")
    arms = {"task": arm.task, "model": arm.model, "optimizer": arm.optimizer, "settings": arm.settings_text}
    return {**arms, "tuned": True if record else NOT_TUNED, **{key: record.get(key) for key in keys}}


def _short(key: str) -> str:
    return key.removeprefix("optimizer.")


def _range(space: Any) -> str:
    """`0.0001 to 0.1, log`, `velocity, gradient`."""
    if not isinstance(space, Mapping):
        return ", ".join(map(plain, space)) if isinstance(space, (list, tuple)) else plain(space)
    kinds = [name for name in ("log", "int") if space.get(name) is True]
    return ", ".join([f"{plain(space['low'])} to {plain(space['high'])}", *kinds])
