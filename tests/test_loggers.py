"""The loggers: W&B gets the same rows, a resumed run is whole again, and a logger that fails never stops a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import QUICK

from vrbench.contracts import RunInfo
from vrbench.loggers import WandB
from vrbench.records import find_runs

Call = Callable[..., int]
WITH_WANDB = ("logger=default", *QUICK[1:])


class FakeRun:
    """Remembers what a W&B run was told."""

    def __init__(self, arguments: dict[str, Any], server_step: int) -> None:
        self.arguments = arguments
        self.rows: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {"step": server_step}
        self.metrics: list[tuple[str, str | None]] = []
        self.over = False

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.metrics.append((name, step_metric))

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def finish(self) -> None:
        self.over = True


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A wandb that keeps its runs in a list; `server_step` is what an online run is said to hold already."""
    import sys

    fake = SimpleNamespace(runs=[], server_step=0, Settings=lambda **settings: settings, Image=lambda path: path)

    def init(**arguments: Any) -> FakeRun:
        fake.runs.append(FakeRun(arguments, fake.server_step))
        return fake.runs[-1]

    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setattr(WandB, "_given_up", None)
    return fake


def info(folder: Path) -> RunInfo:
    choices = {"task": "digits", "model": "mlp", "optimizer": "vradam"}
    return RunInfo("1a2b3c4d", "5e6f7a8b", "digits-mlp-vradam-s0-1a2b3c4d", "lr/fine", folder, {"seed": 0}, choices, 0)


def test_a_run_is_opened_with_what_finds_it_again(wandb: SimpleNamespace, tmp_path: Path) -> None:
    logger = WandB("vrbench", tags=["mine"])
    logger.start(info(tmp_path), 10, [])
    logger.log({"step": 1, "train/loss": 2.0})
    logger.image(1, tmp_path / "samples.png")
    logger.finish({"status": "finished", "metrics": {"val/loss": 1.0}})
    (run,) = wandb.runs
    told = run.arguments
    assert (told["project"], told["group"], told["job_type"]) == ("vrbench", "lr/fine", "digits")
    assert told["name"] == "digits-mlp-vradam-s0-1a2b3c4d"
    assert told["tags"] == ["digits", "mlp", "vradam", "mine"]
    assert told["config"]["seed"] == 0
    assert (told["mode"], told["dir"]) == ("offline", tmp_path)
    assert ("*", "step") in run.metrics
    assert run.rows[0] == {"step": 1, "train/loss": 2.0}
    assert run.rows[1]["samples"] == str(tmp_path / "samples.png")
    assert run.summary == {"step": 0, "status": "finished", "val/loss": 1.0}
    assert run.over


def test_a_resumed_offline_run_is_written_afresh_and_whole(wandb: SimpleNamespace, tmp_path: Path) -> None:
    stale = tmp_path / "wandb" / "offline-run-old"
    stale.mkdir(parents=True)
    rows = [{"step": 5, "train/loss": 2.0}, {"step": 10, "train/loss": 1.0}]
    WandB("vrbench").start(info(tmp_path), 20, rows)
    assert wandb.runs[0].rows == rows
    assert not stale.exists()


def test_a_resumed_online_run_leaves_out_what_the_server_has(wandb: SimpleNamespace, tmp_path: Path) -> None:
    wandb.server_step = 5
    WandB("vrbench", mode="online").start(info(tmp_path), 20, [{"step": 5}, {"step": 10}])
    assert wandb.runs[0].arguments["resume"] == "allow"
    assert wandb.runs[0].rows == [{"step": 10}]


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="mode='ofline': must be online, offline or disabled"):
        WandB("vrbench", mode="ofline")  # type: ignore[arg-type]


def test_a_logger_that_fails_never_stops_a_run(
    wandb: SimpleNamespace, vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def no_network(**arguments: Any) -> None:
        raise OSError("no route to host")

    wandb.init = no_network
    assert vrbench(*WITH_WANDB) == 0
    captured = capfd.readouterr()
    assert "logger wandb failed and is left out (OSError: no route to host)" in captured.err
    assert "finished after 20 steps" in captured.out
    (run,) = find_runs(tmp_path)
    assert run.status == "finished"


def test_offline_wandb_gets_every_row(wandb: SimpleNamespace, vrbench: Call, tmp_path: Path) -> None:
    assert vrbench(*WITH_WANDB) == 0
    (run,) = find_runs(tmp_path)
    recorded = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert wandb.runs[0].rows == recorded


@pytest.mark.slow
def test_the_real_wandb_writes_an_offline_run(vrbench: Call, tmp_path: Path) -> None:
    assert vrbench(*WITH_WANDB) == 0
    (run,) = find_runs(tmp_path)
    (written,) = run.directory.glob("wandb/offline-run-*/run-*.wandb")
    assert written.stat().st_size > 1000
