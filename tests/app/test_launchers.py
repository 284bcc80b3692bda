"""Launchers run the nine-run multirun to the numbers of a serial one, bit for bit, and stop it without losing a run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from same_numbers import numbers_of_folder

from vrbench.app.jobs import RunFailed
from vrbench.app.launchers import RayLauncher
from vrbench.app.main import job
from vrbench.app.signals import STOP_FILE, StopJobs, StopSignals
from vrbench.extras import needs
from vrbench.runs.records import find_runs

ROOT = Path(__file__).parents[2]
Call = Callable[..., int]
NINE = (
    "-m", "optimizer=vradam,adamw,sgd", "seed=0,1,2", "logger=none", "trainer.max_steps=20", "trainer.eval_every=10",
    "trainer.log_every=5", "trainer.threads=1",
)  # fmt: skip
LAUNCHERS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", ("hydra.launcher.n_jobs=2",)),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", ("hydra.launcher.timeout_min=10",)),
    "ray": ("ray", ("hydra.launcher.init.num_cpus=2",)),
}


def numbers(study: Path) -> dict[str, Any]:
    return {run.directory.name: numbers_of_folder(run.directory) for run in find_runs(study)}


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The numbers of the nine runs, one after another in this process."""
    from vrbench.app.main import main

    folder = tmp_path_factory.mktemp("serial")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["vrbench", *NINE, f"results_dir={folder}"])
        main()
    found = numbers(folder)
    assert len(found) == 9
    return found


@pytest.fixture(scope="module")
def _no_ray_left() -> Iterator[None]:
    yield
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()


def installed(module: str) -> bool:
    return find_spec(module.split(".")[0]) is not None and find_spec(module) is not None


@pytest.mark.slow
@pytest.mark.usefixtures("_no_ray_left")
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_changes_no_number(launcher: str, serial: dict[str, Any], vrbench: Call, tmp_path: Path) -> None:
    module, options = LAUNCHERS[launcher]
    if not installed(module):
        pytest.skip(f"{module} is not installed")
    assert vrbench(*NINE, f"hydra/launcher={launcher}", *options) == 0
    assert numbers(tmp_path) == serial


@pytest.mark.slow
@pytest.mark.usefixtures("_no_ray_left")
def test_a_run_that_fails_on_ray_ends_as_it_does_here(
    vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if not installed("ray"):
        pytest.skip("ray is not installed")
    options = ("hydra/launcher=ray", *LAUNCHERS["ray"][1])
    assert vrbench("-m", "model.hidden=[0],[8]", *NINE[3:], *options) == 2
    assert "vrbench: 1 of 2 broke: model.hidden=[0] (model.hidden=[0]: give a list" in capfd.readouterr().err
    assert len(numbers(tmp_path)) == 1


def test_without_ray_its_launcher_is_refused_in_one_line(
    vrbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert vrbench(*NINE, "hydra/launcher=ray") == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line == f"vrbench: hydra/launcher=ray: {needs('ray')}"


# ---- stopped by a signal --------------------------------------------------------------------------------------------

LONG = (
    "-m", "optimizer=sgd", "seed=0,1,2", "logger=none", "trainer.max_steps=1500", "trainer.eval_every=500",
    "trainer.log_every=25", "trainer.threads=1",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "send"), [("joblib", os.killpg), ("ray", os.kill)], ids=["joblib, to all", "ray, to the command alone"]
)
def test_ctrl_c_saves_the_runs_and_the_command_goes_on(
    launcher: str, send: Callable[[int, int], None], vrbench: Call, tmp_path: Path
) -> None:
    module, options = LAUNCHERS[launcher]
    if not installed(module):
        pytest.skip(f"{module} is not installed")
    assert vrbench(*LONG, "study=unbroken") == 0
    study = tmp_path / "broken"
    words = (*LONG, "study=broken", f"results_dir={tmp_path}", f"hydra/launcher={launcher}", *options)
    command = [sys.executable, "-m", "vrbench", *words]

    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not any(path.stat().st_size for path in study.glob("*/metrics.jsonl")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    send(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert re.search("vrbench: stopped by Ctrl-C: [012] of 3 runs are over, and the same command goes on", error)
    stopped = [path.parent for path in study.glob("*/manifest.json") if not (path.parent / "summary.json").exists()]
    assert any((folder / "checkpoint" / "state.pt").exists() for folder in stopped)
    assert not list(study.glob(".stop*"))

    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=240).returncode == 0
    assert numbers(study) == numbers(tmp_path / "unbroken")
    assert any(json.loads((folder / "manifest.json").read_bytes())["resumed_from_step"] > 0 for folder in stopped)


BLOCKED = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
"""Says whether this process gets SIGINT at all."""


def test_the_launching_process_passes_a_signal_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "study" / ".stop"
    monkeypatch.setenv(STOP_FILE, str(file))
    with StopJobs(file) as stop:
        assert StopSignals().received is None
        worker = subprocess.check_output([sys.executable, "-c", BLOCKED], text=True)
        os.kill(os.getpid(), signal.SIGINT)
        deadline = time.monotonic() + 10
        while stop.received is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert StopSignals().received == signal.SIGINT
        with pytest.raises(RunFailed) as queued:
            job(OmegaConf.create())
    assert worker.strip() == "True"
    assert queued.value.code == 130
    assert not file.exists()
    assert subprocess.check_output([sys.executable, "-c", BLOCKED], text=True).strip() == "False"


def is_interrupt_blocked() -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])


IN_JOBLIB = """
import sys
from pathlib import Path
from joblib import Parallel, delayed
from test_launchers import is_interrupt_blocked
from vrbench.app.signals import StopJobs, start_resource_trackers

start_resource_trackers()
with StopJobs(Path(sys.argv[1])):
    print(Parallel(n_jobs=2)(delayed(is_interrupt_blocked)() for _ in range(2)))
"""


def test_joblibs_workers_do_not_get_the_ctrl_c_of_the_terminal(tmp_path: Path) -> None:
    """In a process of its own: joblib's helper processes of this one run since the first test that used it."""
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent), str(ROOT / "tests")])
    command = [sys.executable, "-c", IN_JOBLIB, str(tmp_path / ".stop")]
    answer = subprocess.check_output(command, text=True, env={**os.environ, "PYTHONPATH": path})
    assert answer.strip() == "[True, True]"


def test_a_second_signal_ends_the_wait_and_what_is_queued_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / ".stop"

    def wait_for_jobs() -> None:
        with StopJobs(file) as stop:
            os.kill(os.getpid(), signal.SIGINT)
            while stop.received is None:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(3000):
                time.sleep(0.01)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            wait_for_jobs()
    finally:
        signal.signal(signal.SIGINT, before)
    assert file.read_text() == str(int(signal.SIGINT))


@pytest.mark.parametrize(("given", "address"), [(None, "local"), ("auto", "auto")])
def test_ray_is_joined_only_where_an_address_is_given(
    given: str | None, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ray.init without an address joins a cluster of this machine, and then refuses the number of cores."""
    asked: dict[str, Any] = {}
    ray = SimpleNamespace(
        is_initialized=lambda: False, init=lambda **init: asked.update(init), remote=lambda **_: lambda job: job,
        get=lambda pending: [],
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", ray)
    launcher = RayLauncher(init={"address": given, "num_cpus": 2, "include_dashboard": None}, remote={"num_cpus": 1})
    assert launcher.launch([], 0) == []
    assert asked == {"address": address, "num_cpus": 2}
