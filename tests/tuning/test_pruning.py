"""The pruner's view of diverged trials, in a real journal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

optuna = pytest.importorskip("optuna", reason="searches need Optuna (pip install 'vrbench[search]')")

from optuna.trial import FrozenTrial, TrialState  # noqa: E402

from vrbench.contracts import RunInfo  # noqa: E402
from vrbench.tuning.journal import open_study  # noqa: E402
from vrbench.tuning.pruning import WORST, Watch  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
PLANNED = 6
CHANCE = 0.1
RUN = RunInfo("", "", "", "s", Path(), {}, {}, 0)
NAN = math.nan


def start(folder: Path, pruner: str) -> Watch:
    """A trial, asked for and watched as a run of its own process does."""
    number = open_study(folder).ask().number
    watch = Watch(folder, number, pruner, "val/accuracy", "max", evaluations=PLANNED)
    watch.start(RUN, 60, [])
    return watch


def show(watch: Watch, accuracies: Sequence[float], losses: Sequence[float]) -> None:
    """Rows of a run until it is pruned, some without an evaluation."""
    for place, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True), 1):
        watch.log({"step": 10 * place - 5, "train/loss": 1.0})
        watch.log({"step": 10 * place, "train/loss": 1.0, "val/accuracy": accuracy, "val/loss": loss})
        if watch.pruned:
            return


def finish(folder: Path, watch: Watch, number: int, *, diverged: bool) -> FrozenTrial:
    """The run is over, and the search tells it."""
    watch.finish({"status": "diverged" if diverged else "finished"})
    study = open_study(folder)
    study.tell(number, math.inf if diverged else 0.0, state=TrialState.COMPLETE)
    return study.get_trials()[number]


def wreck(folder: Path, pruner: str, number: int, accuracies: Sequence[float], losses: Sequence[float]) -> FrozenTrial:
    watch = start(folder, pruner)
    show(watch, accuracies, losses)
    assert not watch.pruned
    return finish(folder, watch, number, diverged=True)


WRECKS: dict[str, tuple[list[float], list[float]]] = {
    "at its second evaluation": ([0.6, CHANCE], [1.0, NAN]),
    "between evaluations": ([0.6, 0.7], [1.0, 1.0]),
    "before its first": ([], []),
    "with an infinite loss": ([0.6, 0.7, CHANCE], [1.0, 0.9, math.inf]),
}


@pytest.mark.parametrize(("pruner", "count"), [("median", 5), ("hyperband", 2)])
@pytest.mark.parametrize("how", WRECKS)
def test_the_only_finite_trial_is_not_judged_against_wrecks(pruner: str, count: int, how: str, tmp_path: Path) -> None:
    """It begins below chance, where a wreck's early accuracy was .6. The median asks for five trials to judge by."""
    for number in range(count):
        trial = wreck(tmp_path, pruner, number, *WRECKS[how])
        assert trial.intermediate_values == dict.fromkeys(range(1, PLANNED + 1), WORST)
        rungs = {key: value for key, value in trial.system_attrs.items() if key.startswith("completed_rung_")}
        assert "completed_rung_0" in rungs
        assert set(rungs.values()) == {WORST}
    watch = start(tmp_path, pruner)
    show(watch, [CHANCE / 2, CHANCE, 0.2, 0.3, 0.3, 0.4], [2.3] * 6)
    assert not watch.pruned
    finish(tmp_path, watch, count, diverged=False)


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_bad_trial_is_still_pruned_where_good_ones_are_there(pruner: str, tmp_path: Path) -> None:
    """One wreck among five good ones: percentiles next to the worst stay numbers."""
    for number in range(6):
        if number == 2:
            wreck(tmp_path, pruner, number, [0.6, CHANCE], [1.0, NAN])
            continue
        watch = start(tmp_path, pruner)
        show(watch, [0.5 + 0.01 * number + 0.05 * i for i in range(PLANNED)], [1.0] * PLANNED)
        watch.pruned = False
        finish(tmp_path, watch, number, diverged=False)
    verdicts = []
    for number in range(6, 12):
        watch = start(tmp_path, pruner)
        show(watch, [CHANCE] * PLANNED, [2.3] * PLANNED)
        verdicts.append(watch.pruned)
        finish(tmp_path, watch, number, diverged=False)
    assert any(verdicts)
    assert pruner == "hyperband" or all(verdicts)  # a bracket that is new has nobody to compare with


def test_a_wreck_makes_up_for_half_of_the_trials_without_spoiling_the_median(tmp_path: Path) -> None:
    """Three of five are wrecks: the median is the worst, and nobody is pruned; with two of five it is a number."""
    for wrecks, pruned in ((3, False), (2, True)):
        folder = tmp_path / str(wrecks)
        for number in range(5):
            if number < wrecks:
                wreck(folder, "median", number, [0.6], [NAN])
            else:
                watch = start(folder, "median")
                show(watch, [0.5] * PLANNED, [1.0] * PLANNED)
                finish(folder, watch, number, diverged=False)
        watch = start(folder, "median")
        show(watch, [CHANCE] * 2, [2.3] * 2)
        assert watch.pruned is pruned


def test_an_evaluation_that_is_not_finite_is_worst_at_once(tmp_path: Path) -> None:
    watch = start(tmp_path, "median")
    show(watch, [0.6, 0.7, NAN, 0.8], [1.0, NAN, 1.0, 0.5])
    (trial,) = open_study(tmp_path).get_trials()
    assert trial.intermediate_values == {1: -0.6, 2: WORST, 3: WORST, 4: -0.8}
    assert "pruned_at" not in trial.user_attrs


def test_a_diverging_run_is_not_called_pruned(tmp_path: Path) -> None:
    """It ends as diverged, by itself: hyperband would give it up at this rung."""
    for number in range(3):
        watch = start(tmp_path, "hyperband")
        show(watch, [0.5] * PLANNED, [1.0] * PLANNED)
        watch.pruned = False
        finish(tmp_path, watch, number, diverged=False)
    wrecks = [wreck(tmp_path, "hyperband", number, [CHANCE], [NAN]) for number in range(3, 9)]
    assert all("pruned_at" not in trial.user_attrs for trial in wrecks)


def test_a_resumed_run_is_counted_on_from_its_rows(tmp_path: Path) -> None:
    number = open_study(tmp_path).ask().number
    rows: list[dict[str, Any]] = [{"step": 10, "val/accuracy": 0.2, "val/loss": 2.0}, {"step": 15}]
    watch = Watch(tmp_path, number, "median", "val/accuracy", "max")
    watch.start(RUN, 60, rows)
    show(watch, [0.3], [1.9])
    trial = finish(tmp_path, watch, number, diverged=True)
    assert trial.intermediate_values == {1: WORST, 2: WORST}, "two of which it knows, no number being planned"
