"""What a trial of a search came to: the cost of its runs, and its record as plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from vrbench.runs import records


@dataclass(frozen=True)
class Outcome:
    """What the runs of a trial came to."""

    cost: float
    metrics: dict[str, float] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    seconds: float = 0.0


def outcome(directories: Sequence[Path], metric: str | None, direction: str | None) -> Outcome | None:
    """The mean cost over a trial's runs by their best validation; infinity if any diverged; None if any is unfinished.

    Raises ValueError where the runs have no such metric.
    """
    costs, seconds = [], 0.0
    gathered: dict[str, list[float]] = {}
    for directory in directories:
        summary = records.Run(directory).summary
        if summary is None:
            return None
        seconds += sum(summary["seconds"].values())
        best = summary["best"]["metrics"]
        key = metric if metric is not None else summary["primary"]["metric"]
        less_is_better = (direction or summary["primary"]["direction"]) == "min"
        if summary["status"] == "diverged" or (not best):
            costs.append(math.inf)
            continue
        if key not in best:
            raise ValueError(f"metric={key}: the runs have no such metric; they have {', '.join(sorted(best))}")
        for name, value in best.items():
            gathered.setdefault(name, []).append(math.nan if value is None else float(value))
        value = gathered[key][-1]
        cost = value if less_is_better else -value
        costs.append(cost if math.isfinite(cost) else math.inf)
    means = {name: sum(values) / len(values) for name, values in gathered.items()}
    return Outcome(sum(costs) / len(costs), means, [directory.name for directory in directories], seconds)


def plain(trial: FrozenTrial) -> dict[str, Any]:
    """Number, state, parameters, cost and runs of a trial, as `trials.json` has them."""
    states = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "broken"}
    state = states.get(trial.state, "running")
    diverged = state == "finished" and trial.value is not None and math.isinf(trial.value)
    known = {key: trial.user_attrs.get(key) for key in ("metrics", "runs", "seconds", "pruned_at")}
    cost = trial.value if state == "finished" else None
    return {
        "number": trial.number,
        "state": "diverged" if diverged else state,
        "params": trial.params,
        "cost": cost,
        **known,
    }
