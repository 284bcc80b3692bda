"""A multirun: all is checked before the first run, what will be done is said, and what broke once it is over."""

from __future__ import annotations

import pickle
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from own_rule import stop_at

from vrbench.app import study, sweepers
from vrbench.app.config import seeded
from vrbench.app.jobs import RunFailed
from vrbench.app.run import can_have_another_seed, with_seed
from vrbench.app.sweepers import with_own
from vrbench.runs import standing
from vrbench.runs.records import find_runs

Call = Callable[..., int]
SHORT = ("logger=none", "trainer.max_steps=10", "trainer.eval_every=5", "trainer.log_every=5", "trainer.threads=1")
WRONG = [
    ("optimizer=adamw,nope", "optimizer=nope: no such choice"),
    ("trainer.max_steps=10,ten", "trainer.max_steps"),
    ("optimizer.lr=0.1,-1", "optimizer.lr=-1"),
    ("study=a,../b", "study"),
]


@pytest.mark.parametrize(("wrong", "says"), WRONG)
def test_a_wrong_combination_is_refused_before_the_first_run(
    wrong: str, says: str, vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench("-m", *SHORT, wrong) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert says in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", ["optimizer=adamw,nope", "optimizer=adamw optimizer.lr=-1 hydra.sweeper.space.x=1"])
def test_a_wrong_search_is_refused_before_the_first_trial(
    wrong: str, vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench("-m", "sweep=tune", "hydra.sweeper.n_trials=1", *SHORT, *wrong.split()) == 2
    assert len(capfd.readouterr().err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_plan_is_checked_before_it_is_registered(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its second task is the wrong one."""
    plan: dict[str, Any] = {
        "study": "s", "tasks": ["digits", {"task": "hypergrid", "overrides": ["task.nothing=1"]}],
        "optimizers": ["sgd"], "baseline": "adamw", "trials": 1,
        "replicates": 1, "seeds": 1, "smallest_effect": "1%", "overrides": [*SHORT],
    }  # fmt: skip
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    assert study.main([str(tmp_path / "plan.yaml"), "--go", "--results-dir", str(tmp_path / "runs")]) == 2
    assert "task.nothing: no such key" in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_sweep_says_what_it_will_do_and_what_broke(
    vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert vrbench("optimizer=adamw", *SHORT) == 0
    stop_at(7, vrbench, monkeypatch, "optimizer=sgd", *SHORT)
    capfd.readouterr()
    assert vrbench("-m", "optimizer=adamw,sgd", "model.hidden=[128,128],[0]", *SHORT) == 2
    said = capfd.readouterr()
    assert said.out.startswith("4 runs: 2 to train, 1 to go on with, 1 over\n")
    broke = "optimizer=adamw model.hidden=[0], optimizer=sgd model.hidden=[0] (model.hidden=[0]: "
    assert said.err.strip().splitlines()[-1].startswith(f"vrbench: 2 of 4 broke: {broke}")
    assert "study default" in said.out
    assert {run.status for run in find_runs(tmp_path)} == {"finished"}
    assert not list(tmp_path.rglob("multirun.yaml"))


def test_a_sweep_that_is_over_composes_an_arm_once_and_launches_nothing(
    vrbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But what a crash after the end of a run has left to mend."""
    composed: list[object] = []
    launched: list[object] = []
    compose, launch = sweepers.Grid.compose, sweepers.Grid.launch
    monkeypatch.setattr(sweepers.Grid, "compose", lambda self, job: [composed.append(job), compose(self, job)][1])
    monkeypatch.setattr(sweepers.Grid, "launch", lambda self, jobs: [launched.extend(jobs), launch(self, jobs)][1])
    words = ["-m", "optimizer=adamw,sgd", "seed=range(3)", *SHORT]

    def counts() -> tuple[int, int]:
        composed.clear()
        launched.clear()
        assert vrbench(*words) == 0
        return len(composed), len(launched)

    assert counts() == (2, 6)
    with monkeypatch.context() as patch:
        patch.setattr(standing, "changed_since", lambda code: pytest.fail("code that is today's was looked for"))
        assert counts() == (2, 0)
    (left,) = tmp_path.glob("default/*-sgd-*-s1-*")
    (left / "checkpoint").mkdir()
    assert counts() == (2, 1)
    assert not (left / "checkpoint").exists()
    (tmp_path / "default" / left.name / "summary.json").unlink()
    assert counts() == (2, 1)
    assert {run.status for run in find_runs(tmp_path)} == {"finished"}


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (["model=lstm", "task=pydoc"], True),
        (["optimizer=mars"], True),
        (["task.data.split_seed=${seed}"], True),
        (["study=s${seed}"], False),
        (["trainer.max_steps=${seed}"], False),
        (["task.data.train_size=${task.data.split_seed}", "task.data.split_seed=${seed}"], False),
        (["task.data.train_size=${oc.select:seed}"], False),
    ],
)
def test_another_seed_in_a_config_is_the_config_of_another_seed(
    words: list[str], allowed: bool, vrbench: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[bool] = []

    def instead(self: sweepers.Grid, jobs: list[list[str]], at_a_time: None) -> tuple[list[Path], int]:
        composed = [self.compose(job) for job in jobs]
        found.append(seeded(composed[0]))
        runs = [self._prepared(one) for one in composed]
        if allowed:
            assert can_have_another_seed(runs[0])
            assert [with_seed(runs[0], run.info.seed) for run in runs] == runs
        assert [(one.directory, one.seed) for one in self.check(jobs)] == [
            (run.info.directory, run.info.seed) for run in runs
        ]
        return [], 0

    monkeypatch.setattr(sweepers.Grid, "run_all", instead)
    assert vrbench("-m", "seed=77,123,1000", "logger=none", *words) == 0
    assert found == [allowed]


def test_a_stopped_sweep_says_how_far_it_came(tmp_path: Path) -> None:
    words = ["-m", "seed=0,1,2", *SHORT[:1], "trainer.epochs=100000", f"results_dir={tmp_path}"]
    child = subprocess.Popen(
        [sys.executable, "-m", "vrbench", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while child.poll() is None and not list(tmp_path.glob("*/*/metrics.jsonl")):
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 128 + signal.SIGINT
    assert out.splitlines() == [
        "3 runs: 3 to train",
        "stopped: 0 of 3 over, 1 saved, 2 to go; the same command goes on",
    ]


def test_the_commands_that_are_offered_next_run_as_they_stand(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an optimizer of a config folder of one's own, and a blank in the place of results."""
    (tmp_path / "my conf/optimizer").mkdir(parents=True)
    (tmp_path / "my conf/optimizer/mine.yaml").write_text("_target_: torch.optim.SGD\n_partial_: true\nlr: 0.01\n")
    where = [f"--config-dir={tmp_path / 'my conf'}", f"results_dir={tmp_path / 'my runs'}"]
    search = ["vrbench", "-m", *where, "sweep=tune", "optimizer=mine,adamw", "hydra.sweeper.n_trials=1", *SHORT]
    said = ended(monkeypatch, capfd, search)
    confirm = offered("confirm on fresh seeds: ", said)
    said = ended(monkeypatch, capfd, [*confirm, "seed=2000,2001", *SHORT[:1]])
    ended(monkeypatch, capfd, offered("a page of it: ", said))
    assert (tmp_path / "my runs/default/report/report.html").exists()
    assert "mine" in ended(monkeypatch, capfd, offered("a verdict: ", said))


def offered(what: str, said: str) -> list[str]:
    """The words of the one command that was offered so."""
    (line,) = [line for line in said.splitlines() if line.startswith(what)]
    return shlex.split(line.removeprefix(what))


def ended(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words: list[str]) -> str:
    """Run a command in this process and return what it printed; it has to end well."""
    from vrbench.app.main import main

    monkeypatch.setattr(sys, "argv", words)
    code = None
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    said = capfd.readouterr()
    assert not code, said.err
    return said.out


def test_a_failure_comes_whole_from_another_process() -> None:
    there: RunFailed = pickle.loads(pickle.dumps(RunFailed(2, "optimizer.lr=-1: must be …")))
    assert (there.code, there.line) == (2, "optimizer.lr=-1: must be …")


def test_a_combination_can_have_values_of_its_own() -> None:
    each = {"task=digits optimizer=sgd": "optimizer.lr=0.1 schedule=wsd", "optimizer=adamw": "optimizer.lr=0.01"}
    assert with_own(["task=digits", "optimizer=sgd", "seed=0"], each)[3:] == ["optimizer.lr=0.1", "schedule=wsd"]
    assert with_own(["task=pydoc", "optimizer=sgd"], each)[2:] == []
    assert with_own(["optimizer=adamw", "optimizer.lr=3"], each)[2:] == []  # the command line comes first


def test_a_grid_runs_them(vrbench: Call, tmp_path: Path) -> None:
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params: {optimizer: 'sgd,adamw'}\n"
        "    each: {optimizer=sgd: optimizer.lr=0.5}\n"
    )
    assert vrbench(f"--config-dir={tmp_path / 'conf'}", "experiment=mine", *SHORT) == 0
    rates = {}
    for run in find_runs(tmp_path / "default"):
        config = yaml.safe_load((run.directory / "config.yaml").read_bytes())
        rates[run.manifest["choices"]["optimizer"]] = config["optimizer"]["lr"]
    assert rates == {"sgd": 0.5, "adamw": 1e-3}


def test_an_experiment_can_be_a_search_without_a_sweep_of_its_own(
    vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /hydra/sweeper: search\nhydra:\n  mode: MULTIRUN\n  sweeper:\n"
        "    n_trials: 2\n    sampler: grid\n    grid_points: 2\n    space: {optimizer.lr: {low: 0.01, high: 0.1}}\n"
    )
    assert vrbench(f"--config-dir={tmp_path / 'conf'}", "experiment=mine", *SHORT) == 0
    assert "2 of 2 trials are over" in capfd.readouterr().out
    assert list((tmp_path / "default/best/experiment").glob("*.yaml"))
