"""Pruning: a trial's run shows its validation to Optuna's pruner, and stops when it is not worth going on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna

from vrbench.contracts import RunInfo
from vrbench.journal import open_study


class Watch:
    """A logger that shows a trial's validation to the pruner: `pruned` becomes true when the trial is not worth it.

    The trainer then stops as at a signal, checkpoint included. Trials are compared at the same number of evaluations.
    """

    def __init__(self, folder: Path, number: int, pruner: str, metric: str, direction: str) -> None:
        study = open_study(folder)
        study.pruner = _pruner(pruner)
        trial_id = study.get_trials(deepcopy=False)[number]._trial_id
        self._trial = optuna.trial.Trial(study, trial_id)
        self._metric = metric
        self._sign = 1.0 if direction == "min" else -1.0
        self._evaluations = 0
        self.pruned = False

    def start(self, run: RunInfo, total_steps: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Count the evaluations that a resumed run has behind it."""
        for row in rows:
            self._evaluations += self._metric in row

    def log(self, row: Mapping[str, Any]) -> None:
        """Report an evaluation, and hear the verdict."""
        if self._metric not in row:
            return
        self._evaluations += 1
        cost = self._sign * float(row[self._metric])
        if not math.isfinite(cost):
            return
        self._trial.report(cost, self._evaluations)
        if self._trial.should_prune():
            self._trial.set_user_attr("pruned_at", row["step"])
            self.pruned = True

    def image(self, step: int, path: Path) -> None:
        """Pictures say nothing to a pruner."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """The search reads the summary itself."""


def _pruner(name: str) -> optuna.pruners.BasePruner:
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, reduction_factor=3)
    return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
