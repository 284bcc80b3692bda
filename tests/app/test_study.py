"""`vrbench study`: a plan is described, tuned, confirmed and reported, and nothing is run twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from vrbench.app import study
from vrbench.runs import archive
from vrbench.runs.locks import Lock

PLAN: dict[str, Any] = {
    "study": "s",
    "tasks": ["digits"],
    "optimizers": ["sgd"],
    "baseline": "adamw",
    "trials": 1,
    "replicates": 2,
    "seeds": 1,
    "smallest_effect": "error:5%",
    "overrides": ["trainer.max_steps=40", "trainer.eval_every=20", "trainer.threads=1", "logger=none"],
}


NOTED = '''
class Noted:
    """Notes every run that is trained to its end."""

    def __init__(self, path):
        self.path = path

    def start(self, run, total_steps, rows):
        self.name = run.name

    def log(self, row):
        pass

    def image(self, step, path):
        pass

    def finish(self, summary):
        with open(self.path, "a") as file:
            file.write(self.name + "\\n")
'''


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(PLAN))
    return path


def test_a_status_says_what_is_left(plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study.main([str(plan), "--status", "--results-dir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "1 settings (digits), sgd, adamw: 6 searches of 1 trials, 1 confirmation seeds each: 12 runs" in said
    assert "done: 0 of 6 trials' runs, 0 of 6 confirmation runs" in said
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(("text", "says"), [("[", "is no YAML"), ("- a", "must be a mapping"), ("study: 3", "study: ")])
def test_a_wrong_plan_is_one_line(text: str, says: str, plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan.write_text(text)
    assert study.main([str(plan)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


@pytest.mark.slow
def test_the_cost_is_measured_on_slivers(plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan.write_text(yaml.safe_dump(PLAN | {"budget_hours": 1e-9}))
    assert study.main([str(plan), "--results-dir", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "task=digits optimizer=sgd: about " in said.out
    assert "budget_hours=1e-09: the plan takes about " in said.err
    assert study.main([str(plan), "--go", "--results-dir", str(tmp_path)]) == 2
    assert not (tmp_path / "s").exists()
    plan.write_text(yaml.safe_dump(PLAN | {"overrides": ["optimizer.lr=-1"]}))
    assert study.main([str(plan)]) == 2
    assert "optimizer.lr=-1: must be" in capsys.readouterr().err


@pytest.mark.slow
def test_a_study_from_one_command_to_its_page(plan: Path, tmp_path: Path) -> None:
    """Killed in its searches and its confirmation; no run is trained twice."""
    command = [sys.executable, "-m", "vrbench", "study", str(plan), "--go", "--results-dir", str(tmp_path)]
    over: dict[Path, int] = {}
    for part, least in (("tune", 2), ("confirm", 1), ("", 0)):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
            if part:
                while len(list((tmp_path / "s" / part).glob("*/summary.json"))) < least:
                    assert process.poll() is None
                    time.sleep(0.05)
                subprocess.run(["pkill", "-KILL", "-s", str(process.pid)], check=True)
            said, _ = process.communicate()
            assert process.returncode == (-signal.SIGKILL if part else 0)
        now = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").glob("*/*/summary.json")}
        assert over.items() <= now.items()
        assert part == "" or len(now) < 12
        over = now
    assert len(over) == 12
    assert "What was tuned" in said
    assert (tmp_path / "s/report/report.html").exists()
    assert json.loads((tmp_path / "s/plan.json").read_text())["plan"]["seeds"] == 1


@pytest.mark.slow
def test_two_shells_share_a_study(plan: Path, tmp_path: Path) -> None:
    """They spend the trials together, and train no run twice; who comes to the confirmation early waits."""
    (tmp_path / "noted.py").write_text(NOTED)
    noted = f"+logger.noted={{_target_: noted.Noted, path: {tmp_path / 'trained.txt'}}}"
    plan.write_text(yaml.safe_dump(PLAN | {"trials": 2, "overrides": [*PLAN["overrides"], noted]}))
    command = [sys.executable, "-m", "vrbench", "study", str(plan), "--go", "--results-dir", str(tmp_path)]
    around = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    both = [subprocess.Popen(command, env=around) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    last = subprocess.run(command, capture_output=True, text=True, env=around)
    assert last.returncode == 0, last.stderr
    trained = (tmp_path / "trained.txt").read_text().splitlines()
    assert len(trained) == len(set(trained)) == 12 + 6
    searches = [json.loads(path.read_bytes()) for path in (tmp_path / "s").glob("search/*/trials.json")]
    assert [len(search["trials"]) for search in searches] == [2] * 6
    assert len(list((tmp_path / "s/tune").glob("*/summary.json"))) == 12


def test_a_confirmation_waits_for_the_trials_of_other_processes(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content, digest = study.read_plan(plan)
    study.register(tmp_path / "s", digest, content)
    search = tmp_path / "s/search/digits-mlp-sgd"
    search.mkdir(parents=True)
    (search / "trial-0.lock").touch()  # of a process that died
    begun, over = threading.Event(), threading.Event()

    def other() -> None:
        with Lock(search / "trial-1.lock"):
            begun.set()
            time.sleep(0.5)
            over.set()

    done: list[tuple[str, bool]] = []

    def run(words: list[str]) -> subprocess.CompletedProcess[str]:
        done.append((words[4], over.is_set()))
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(subprocess, "run", run)
    thread = threading.Thread(target=other)
    thread.start()
    assert begun.wait(10)
    assert study.main([str(plan), "--go", "--results-dir", str(tmp_path)]) == 0
    thread.join()
    assert done == [("sweep=tune", False), ("sweep=tune", False), ("experiment=confirm", True)]
    assert capsys.readouterr().out.count("digits-mlp-sgd: waiting for a trial in another process") == 1


def test_a_report_waits_for_the_last_confirmation(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where another process has it, a report would be a look with fewer runs than were planned."""
    content, digest = study.read_plan(plan)
    study.register(tmp_path / "s", digest, content)
    called: list[str] = []

    def run(words: list[str]) -> subprocess.CompletedProcess[str]:
        called.append(words[2] if words[2] == "vrbench" else words[3])
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(subprocess, "run", run)
    for number in range(1, 7):
        done = tmp_path / "s/confirm" / str(number)
        done.mkdir(parents=True)
        (done / "summary.json").write_text("{}")
        called.clear()
        assert study.main([str(plan), "--go", "--results-dir", str(tmp_path)]) == 0
        said = capsys.readouterr().out
        if number < 6:
            assert set(called) == {"vrbench"}
            assert f"study=s: {6 - number} confirmation runs are in other processes: the last to end reports" in said
    assert called[-2:] == ["table", "html"]
    assert "other processes" not in said


def test_a_published_study_goes_on_elsewhere(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content, digest = study.read_plan(plan)
    study.register(tmp_path / "first/s", digest, content)
    archive.pack(tmp_path / "first/s", plan.parent / archive.FILE)
    monkeypatch.setattr(study, "_go", lambda *arguments: 0)
    assert study.main([str(plan), "--go", "--results-dir", str(tmp_path / "second")]) == 0
    assert "goes on from the records in" in capsys.readouterr().out
    for name in ("first", "second"):
        assert json.loads((tmp_path / name / "s/plan.json").read_text())["runs"] == {"tune": 6, "confirm": 6}
    assert study.main([str(plan), "--go", "--results-dir", str(tmp_path / "second")]) == 0
    assert "goes on from" not in capsys.readouterr().out
