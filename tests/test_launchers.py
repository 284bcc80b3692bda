"""Launchers run the nine-run multirun to the numbers of a serial one, bit for bit."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from vrbench.records import find_runs

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


def numbers(folder: Path) -> dict[str, Any]:
    found = {}
    for run in find_runs(folder):
        rows = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
        untimed = [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]
        assert run.summary is not None
        found[run.directory.name] = (untimed, run.summary["metrics"], run.summary["best"])
    return found


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The numbers of the nine runs, one after another in this process."""
    from vrbench.cli import main

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
    assert vrbench("-m", "optimizer.lr=-1,0.001", *NINE[3:], *options) == 2
    assert "optimizer.lr=-1: must be a finite number, 0 or more" in capfd.readouterr().err
    assert len(numbers(tmp_path)) == 1


def test_without_ray_its_launcher_is_refused_in_one_line(
    vrbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert vrbench(*NINE, "hydra/launcher=ray") == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith("vrbench: hydra/launcher=ray: needs Ray: pip install 'vrbench[ray]'")
