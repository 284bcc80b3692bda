"""Searches: ranking, equal budgets, workers, pruning, confirmation; and what kill -9 cannot do to them."""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import yaml

optuna = pytest.importorskip("optuna", reason="searches need Optuna (pip install 'vrbench[search]')")

import children  # noqa: E402

from vrbench.runs.index import read_index  # noqa: E402
from vrbench.runs.records import find_runs  # noqa: E402
from vrbench.tuning import confirmation, search  # noqa: E402

Call = Callable[..., int]
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
SHORT = ("logger=none", "trainer.max_steps=4", "trainer.eval_every=2", "trainer.log_every=2", "trainer.threads=1")
CONFIG = {"study": "s", "seed": 0, "force": False, "optimizer": {"lr": 1.0, "kind": "a"}, "trainer": {"threads": 1}}
CHOICES = {"task": "t", "model": "m", "optimizer": "o"}


def settings(**changes: Any) -> search.SearchSettings:
    values: dict[str, Any] = {
        "n_trials": 4, "sampler": "random", "pruner": "none", "seeds": [1000], "metric": None, "direction": None,
        "search_seed": 0, "startup_trials": 8, "grid_points": 3, "parallel": 1,
        "space": {"optimizer": {"lr": {"low": 1e-4, "high": 1.0, "log": True}}},
    }  # fmt: skip
    return search.SearchSettings(**{**values, **changes})


def begin(tmp_path: Path, **changes: Any) -> search.Search:
    return search.Search(tmp_path, CHOICES, settings(**changes), CONFIG, lambda choices: CONFIG)


# ---- trials --------------------------------------------------------------------------------------------------------


def test_a_claimed_trial_of_a_dead_worker_comes_back_as_it_was(tmp_path: Path) -> None:
    first = begin(tmp_path, parallel=2)
    mine = first.claim()
    second = begin(tmp_path, parallel=4)
    others = second.claim()
    assert [claim.number for claim in mine + others] == [0, 1, 2, 3]
    assert begin(tmp_path).claim() == []  # all four are in work
    first.tell(mine[0], search.Outcome(1.0))
    del first._claimed[1]  # dies: the system frees its locks
    (again,) = begin(tmp_path).claim()
    assert again == mine[1]


def test_a_journal_line_torn_by_a_crash_is_cut_off(tmp_path: Path) -> None:
    one = begin(tmp_path)
    (claim,) = one.claim()
    with open(one.folder / "journal.log", "ab") as file:
        file.write(b'{"op_code":5,"worker')
    one.tell(claim, search.Outcome(0.25))
    (trial,) = begin(tmp_path).ranking()
    assert trial.value == 0.25


def test_divergence_is_worst_and_not_lost(tmp_path: Path) -> None:
    one = begin(tmp_path, sampler="tpe")
    for cost in (3.0, math.inf, -1.0, math.inf):
        (claim,) = one.claim()
        one.tell(claim, search.Outcome(cost))
    assert one.claim() == []
    assert [trial.number for trial in begin(tmp_path, sampler="tpe").ranking()] == [2, 0, 1, 3]


def test_a_trial_that_breaks_is_tried_again_once(tmp_path: Path) -> None:
    for attempt in (1, 2):
        one = begin(tmp_path, n_trials=1)
        (claim,) = one.claim()
        assert one.leave(claim, broke=True) == (attempt == 2)
        assert one.claim() == []
    assert [trial.state.name for trial in one.finished] == ["FAIL"]


@pytest.mark.parametrize("sampler", ["tpe", "random", "quasi"])
def test_a_search_that_goes_on_draws_afresh(sampler: str, tmp_path: Path) -> None:
    drawn = []
    for _ in range(6):
        one = begin(tmp_path, sampler=sampler, n_trials=6)
        (claim,) = one.claim()
        one.tell(claim, search.Outcome(claim.params["optimizer.lr"]))
        drawn.append(claim.params["optimizer.lr"])
    assert len(set(drawn)) == 6


def test_no_two_searches_share_a_draw(tmp_path: Path) -> None:
    """Neither two replicates nor two arms; and a search that is stopped draws what an unbroken one does."""
    drawn: dict[tuple[int, str], list[float]] = {}
    for replicate, lr in itertools.product(range(3), (1.0, 2.0)):
        for steps in ("whole", "stopped"):
            config = CONFIG | {"optimizer": {"lr": lr, "kind": "a"}}
            folder = tmp_path / steps
            one = search.Search(folder, CHOICES, settings(replicate=replicate, n_trials=8), config, {})
            rates = []
            for _ in range(8):
                if steps == "stopped":
                    one = search.Search(folder, CHOICES, settings(replicate=replicate, n_trials=8), config, {})
                (claim,) = one.claim()
                one.tell(claim, search.Outcome(1.0))
                rates.append(claim.params["optimizer.lr"])
            drawn.setdefault((replicate, str(lr)), rates)
            assert rates == drawn[replicate, str(lr)]
    together = [rate for rates in drawn.values() for rate in rates]
    assert len(set(together)) == len(together) == 48


def test_a_confirmed_search_is_closed(tmp_path: Path) -> None:
    one = begin(tmp_path, n_trials=1)
    (claim,) = one.claim()
    one.tell(claim, search.Outcome(1.0))
    confirmation.close(one.folder, [2000])
    assert begin(tmp_path, n_trials=1).claim() == []
    with pytest.raises(ValueError, match="confirmed after 1 trials and is closed"):
        begin(tmp_path, n_trials=2)


def test_seeds_of_replicates_are_disjoint() -> None:
    assert [confirmation.spaced(range(2000, 2008), r)[0] for r in range(3)] == [2000, 2008, 2016]
    assert confirmation.spaced([1000, 1003], 1) == [1004, 1007]
    with pytest.raises(ValueError, match="are for confirmation"):
        settings(seeds=[2000])


def test_a_grid_is_gone_through_once(tmp_path: Path) -> None:
    space = {"optimizer": {"lr": {"low": 0.01, "high": 1.0, "log": True}, "kind": ["a", "b"]}}
    with pytest.raises(ValueError, match="n_trials=4: the grid has 6 points"):
        begin(tmp_path, sampler="grid", space=space)
    one = begin(tmp_path, sampler="grid", space=space, n_trials=20)
    points = []
    while claims := one.claim():
        points.append((claims[0].params["optimizer.lr"], claims[0].params["optimizer.kind"]))
        one.tell(claims[0], search.Outcome(0.0))
        one = begin(tmp_path, sampler="grid", space=space, n_trials=20)
    assert points == [(pytest.approx(lr), kind) for lr in (0.01, 0.1, 1.0) for kind in "ab"]


def test_another_space_is_another_search() -> None:
    one = search.fingerprint(settings(), "arm")
    assert search.fingerprint(settings(n_trials=9, pruner="median", parallel=2, grid_points=9), "arm") == one
    assert search.fingerprint(settings(seeds=[5]), "arm") != one
    assert search.fingerprint(settings(space={"optimizer": {"lr": [1.0]}}), "arm") != one
    assert search.fingerprint(settings(), "other arm") != one


# ---- through the command line --------------------------------------------------------------------------------------


def trials(study: Path) -> dict[str, Any]:
    (path,) = study.glob("search/*/trials.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.mark.slow
def test_tune_then_confirm(vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tune = ("-m", "sweep=tune", "study=s", "optimizer=vradam,adamw", "hydra.sweeper.n_trials=2", *SHORT)
    assert vrbench(*tune) == 0
    assert len(find_runs(tmp_path / "s" / "tune")) == 4
    best = sorted((tmp_path / "s" / "best" / "experiment").glob("*.yaml"))
    assert [path.name.rsplit("-", 1)[0] for path in best] == ["digits-mlp-adamw", "digits-mlp-vradam"]
    values = yaml.safe_load(best[1].read_text())
    assert values["optimizer"].keys() >= {"lr", "beta3", "alpha1"}
    assert values["trainer"] == {"max_steps": 4, "eval_every": 2}  # the others decide no number
    capfd.readouterr()
    assert vrbench(*tune) == 0  # nothing left to do
    assert "2 of 2 trials are finished" in capfd.readouterr().out

    assert vrbench("-m", "experiment=confirm", "study=s", "seed=1000", *SHORT[:1]) == 2
    assert "seed=1000: search digits-mlp-adamw" in capfd.readouterr().err
    assert vrbench("-m", "experiment=confirm", "study=s", *SHORT[:1], "trainer.threads=1") == 0
    runs = find_runs(tmp_path / "s" / "confirm")
    pairs = sorted((run.manifest["choices"]["optimizer"], run.manifest["seed"]) for run in runs)
    assert pairs == [(name, seed) for name in ("adamw", "vradam") for seed in range(2000, 2008)]
    assert "study confirm" in capfd.readouterr().out

    # the YAML is an experiment of its own, and means the same run
    folder = f"--config-dir={tmp_path / 's' / 'best'}"
    assert vrbench(folder, f"experiment={best[0].stem}", "study=s/confirm", "seed=2003", "logger=none") == 0
    assert "finished already, skipped" in capfd.readouterr().out


def test_confirmation_asks_for_equal_budgets(vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for optimizer, budget in (("vradam", 1), ("adamw", 2)):
        tune = ("-m", "sweep=tune", "study=s", f"optimizer={optimizer}", f"hydra.sweeper.n_trials={budget}")
        assert vrbench(*tune, *SHORT) == 0
    found = confirmation.candidates(tmp_path / "s")
    said = confirmation.cautions(found, range(3))
    assert any("unequal budgets (adamw constant 2, vradam constant 1 trials)" in line for line in said)
    assert any(line.startswith("3 seeds: ") for line in said)
    with pytest.raises(ValueError, match="no search in"):
        confirmation.candidates(tmp_path / "elsewhere")


def test_replicates_have_draws_seeds_and_splits_of_their_own(vrbench: Call, tmp_path: Path) -> None:
    tune = ("-m", "sweep=tune", "study=s", "optimizer=adamw", "hydra.sweeper.n_trials=1", "hydra.sweeper.replicates=2")
    assert vrbench(*tune, "hydra.sweeper.vary_split=true", *SHORT) == 0
    control = ("-m", "sweep=tune", "study=s", "optimizer=adamw", "hydra.sweeper.n_trials=1")
    assert vrbench(*control, "hydra.sweeper.control=true", *SHORT) == 0
    confirm = ("-m", "experiment=confirm", "study=s", "logger=none", "trainer.threads=1", "seed=2000,2001")
    assert vrbench(*confirm) == 0
    found: dict[tuple[bool, int], set[int]] = {}
    rates, splits = set(), {}
    for run in find_runs(tmp_path / "s" / "confirm"):
        tuned = run.manifest["tuned"]
        key = (tuned["control"], tuned["replicate"])
        found.setdefault(key, set()).add(run.manifest["seed"])
        rates.add(tuned["params"]["optimizer.lr"])
        splits[key] = yaml.safe_load((run.directory / "config.yaml").read_text())["task"]["data"]["split_seed"]
    assert found == {(False, 0): {2000, 2001}, (False, 1): {2002, 2003}, (True, 0): {2000, 2001}}
    assert splits[False, 0] != splits[False, 1]
    assert len(rates) == 3
    more = (*tune[:-2], "hydra.sweeper.n_trials=2", "hydra.sweeper.replicates=2", "hydra.sweeper.vary_split=true")
    assert vrbench(*more, *SHORT) == 2, "a confirmed search is closed"
    assert vrbench(*tune[:-1], "hydra.sweeper.replicates=3", "hydra.sweeper.vary_split=true", *SHORT) == 0


def test_a_task_whose_split_is_fixed_keeps_it_and_says_so(
    vrbench: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tune = ("-m", "sweep=tune", "study=s", "task=gridworld", "optimizer=adamw", "hydra.sweeper.n_trials=1")
    short = ("trainer.max_steps=1", "task.batch_size=2", "task.eval_walks=2", *SHORT[-2:])
    assert vrbench(*tune, "hydra.sweeper.replicates=2", "hydra.sweeper.vary_split=true", *short) == 0
    assert capsys.readouterr().out.count("gridworld: its split is fixed (no task.data.split_seed)") == 1
    assert len(find_runs(tmp_path / "s" / "tune")) == 2


@pytest.mark.parametrize("pruner", [pytest.param("median", marks=pytest.mark.slow), "hyperband"])
def test_hopeless_trials_are_pruned(pruner: str, vrbench: Call, tmp_path: Path) -> None:
    rates = "{low:1.0e-8,high:1.0e-2,log:true}"
    assert vrbench(
        "-m", "sweep=tune", "optimizer=adamw", f"hydra.sweeper.space.optimizer.lr={rates}", "hydra.sweeper.n_trials=9",
        f"hydra.sweeper.pruner={pruner}", *SHORT, "trainer.max_steps=8",
    ) == 0  # fmt: skip
    states = [trial["state"] for trial in trials(tmp_path / "default")["trials"]]
    assert len(states) == 9
    runs = [row["status"] for row in read_index(tmp_path / "default" / "tune")]
    assert runs.count("pruned") == states.count("pruned")
    assert "unfinished" not in runs
    assert set(states) == {"finished", "pruned"}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("seed=1", "seed: a search has seeds of its own"),
        ("hydra.sweeper.n_trials=0", "hydra.sweeper.n_trials=0: should be greater"),
        ("hydra.sweeper.sampler=magic", "hydra.sweeper.sampler=magic: should be"),
        ("hydra.sweeper.space.optimizer.lr=3", "hydra.sweeper.space.optimizer.lr=3: must be a list of choices"),
        ("+hydra.sweeper.space.optimizer.lrr=[1]", "hydra.sweeper.space.optimizer.lrr=…: the config has no such key"),
        ("hydra.sweeper.metric=val/loss", "metric and direction go together"),
        ("sweep=tun", "sweep=tun: no such choice; did you mean tune?"),
    ],
)
def test_a_wrong_search_is_one_line(
    override: str, says: str, vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep = () if override.startswith("sweep=") else ("sweep=tune",)
    assert vrbench("-m", *sweep, "optimizer=adamw", *SHORT, override) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("vrbench: ")
    assert says in line
    assert list(tmp_path.glob("*/search/*")) == []


def over(study: Path) -> dict[Path, int]:
    """The trials' runs that are over, and when each was."""
    return {path: path.stat().st_mtime_ns for path in study.glob("tune/*/summary.json")}


@pytest.mark.slow
@pytest.mark.timeout(900)  # half a minute on two free cores
def test_kill_9_loses_no_trial_and_runs_none_twice(tmp_path: Path) -> None:
    """Two searches of 20 trials, killed three times at random moments; then two workers share what is left."""
    said = tmp_path / "said"
    study = tmp_path / "s"

    def start() -> ForkServerProcess:
        command = ["-m", "sweep=tune", "study=s", f"results_dir={tmp_path}", "optimizer=vradam,adamw", *SHORT]
        return children.start([command], said)

    choose = random.Random(int(os.environ.get("VRBENCH_KILL_SEED", "0")))
    ended: dict[Path, int] = {}
    for kill in range(3):
        worker = start()
        goal = len(ended) + choose.randint(1, 9)
        deadline = time.monotonic() + 240
        while len(over(study)) < goal:
            assert worker.is_alive(), said.read_text()
            assert time.monotonic() < deadline, f"kill {kill}: {len(over(study))} runs"
            time.sleep(0.02)
        time.sleep(choose.uniform(0, 0.2))
        worker.kill()
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
        now = over(study)
        assert {path: now[path] for path in ended} == ended  # none is run twice
        ended = now
    workers = [start() for _ in range(2)]
    for worker in workers:
        worker.join(400)
    assert [worker.exitcode for worker in workers] == [0, 0], said.read_text()
    now = over(study)
    assert {path: now[path] for path in ended} == ended
    found = confirmation.candidates(study)
    assert [candidate.summary["finished"] for candidate in found] == [20, 20]
    runs = [trial["runs"][0] for candidate in found for trial in candidate.summary["trials"]]
    assert len(runs) == len(set(runs)) == 40
    assert {trial["state"] for candidate in found for trial in candidate.summary["trials"]} <= {"finished", "diverged"}
    assert {run.directory.name for run in find_runs(study / "tune")} == set(runs)
