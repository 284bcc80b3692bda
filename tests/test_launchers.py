"""Launchers run the nine-run multirun to the numbers of a serial one, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from vrbench.records import find_runs

NINE = (
    "-m", "optimizer=vradam,adamw,sgd", "seed=0,1,2", "logger=none", "trainer.max_steps=20", "trainer.eval_every=10",
    "trainer.log_every=5", "trainer.threads=1",
)  # fmt: skip
LAUNCHERS = {
    "joblib": ("hydra_joblib_launcher", ("hydra.launcher.n_jobs=2",)),
    "submitit_local": ("hydra_submitit_launcher", ("hydra.launcher.timeout_min=10",)),
    "ray": ("hydra_ray_launcher", ("hydra.launcher.ray.init.num_cpus=2",)),
}


def numbers(folder: Path) -> dict[str, Any]:
    found = {}
    for run in find_runs(folder):
        rows = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
        untimed = [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]
        assert run.summary is not None
        found[run.directory.name] = (untimed, run.summary["metrics"], run.summary["best"])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_changes_no_number(launcher: str, vrbench: Callable[..., int], tmp_path: Path) -> None:
    plugin, options = LAUNCHERS[launcher]
    if find_spec("hydra_plugins") is None or find_spec(f"hydra_plugins.{plugin}") is None:
        pytest.skip(f"{plugin.replace('_', '-')} is not installed")
    assert vrbench(*NINE, "study=serial") == 0
    assert vrbench(*NINE, "study=other", f"hydra/launcher={launcher}", *options) == 0
    serial = numbers(tmp_path / "serial")
    assert len(serial) == 9
    assert numbers(tmp_path / "other") == serial
