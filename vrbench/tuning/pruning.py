"""Pruning: a trial's run shows its validation to Optuna's pruner, and stops when it is not worth going on."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage

from vrbench.contracts import RunInfo
from vrbench.tuning.journal import STUDY, open_storage, open_study

WORST = sys.float_info.max
"""The cost of an evaluation that is not finite. Infinity would not do: a percentile next to it is not a number."""


class Watch:
    """A logger that shows a trial's validation to the pruner: `pruned` becomes true when the trial is not worth it.

    The trainer then stops as at a signal, checkpoint included. Trials are compared at the same number of evaluations.
    An evaluation whose loss or metric is not finite costs `WORST`, and all of a run that ends diverged do, those that
    it never came to too: a wrecked model that guesses at chance must not look better than one that has begun to learn.
    """

    def __init__(
        self, folder: Path, number: int, pruner: str, metric: str, direction: str, evaluations: int | None = None
    ) -> None:
        """Watch trial `number` of the search in the folder; `evaluations` is how many its run is to have."""
        self._storage = open_storage(folder)
        study = open_study(folder, self._storage)
        study.pruner = _pruner(pruner)
        study_id = self._storage.get_study_id_from_name(STUDY)
        self._trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
        self._trial = optuna.trial.Trial(study, self._trial_id)
        self._metric = metric
        self._sign = 1.0 if direction == "min" else -1.0
        self._planned = evaluations or 0
        self._evaluations = 0
        self.pruned = False

    def start(self, run: RunInfo, total_steps: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Count the evaluations that a resumed run has behind it."""
        for row in rows:
            self._evaluations += self._metric in row

    def log(self, row: Mapping[str, Any]) -> None:
        """Report an evaluation, and hear the verdict; a run whose loss is not finite ends by itself, as diverged."""
        if self._metric not in row:
            return
        self._evaluations += 1
        cost, alive = self._sign * float(row[self._metric]), math.isfinite(row.get("val/loss", 0.0))
        self._trial.report(cost if alive and math.isfinite(cost) else WORST, self._evaluations)
        if alive and self._trial.should_prune():
            self._trial.set_user_attr("pruned_at", row["step"])
            self.pruned = True

    def image(self, step: int, path: Path) -> None:
        """Pictures say nothing to a pruner."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """The search reads the summary itself; the pruner is told that all of a diverged run was worst."""
        if summary["status"] == "diverged":
            spoil(self._storage, self._trial_id, max(self._planned, self._evaluations))


def spoil(storage: BaseStorage, trial_id: int, evaluations: int) -> None:
    """Make the first so many evaluations of a trial that is not told yet the worst there can be, for any pruner.

    The median is taken over intermediate values. Hyperband compares what trials had when they came to the end of a
    rung, which it keeps as their system attributes: those, and that of the rung that the trial was on.
    """
    for evaluation in range(1, evaluations + 1):
        storage.set_trial_intermediate_value(trial_id, evaluation, WORST)
    rungs = [key for key in storage.get_trial(trial_id).system_attrs if key.startswith("completed_rung_")]
    for key in {*rungs, f"completed_rung_{len(rungs)}"}:
        storage.set_trial_system_attr(trial_id, key, WORST)


def _pruner(name: str) -> optuna.pruners.BasePruner:
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, reduction_factor=3)
    return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
