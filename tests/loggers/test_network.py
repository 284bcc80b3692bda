"""W&B with no server, a refused key, a server lost midway; and the id that an agent sets."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_wandb import FakeRun, info

from vrbench.loggers.wandb import WandB


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A wandb whose server is away when `fake.away` is an error, and lost when `fake.lost`."""
    fake = SimpleNamespace(runs=[], away=None, lost=False, asked=0, teardowns=[], Settings=lambda **settings: settings)

    class Run(FakeRun):
        dir = "runs/wandb/run-1/files"

        def finish(self) -> None:
            super().finish()
            if fake.lost and self.arguments["mode"] == "online":
                raise TimeoutError

    def init(**arguments: Any) -> FakeRun:
        if arguments["mode"] == "online":
            fake.asked += 1
            if fake.away is not None:
                raise fake.away
        fake.runs.append(Run(arguments, 0))
        return fake.runs[-1]

    fake.init = init
    fake.teardown = lambda: fake.teardowns.append(len(fake.runs))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(WandB, "_given_up", None)
    return fake


def train(logger: WandB, folder: Path) -> None:
    logger.start(info(folder), 10, [{"step": 5}])
    logger.log({"step": 10})
    logger.finish({"status": "finished", "metrics": {}})


def test_without_a_server_runs_are_kept_offline_and_it_is_asked_once(
    wandb: SimpleNamespace, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wandb.away = OSError("no route to host")
    train(WandB("vrbench", mode="online"), tmp_path)
    train(WandB("vrbench", mode="online"), tmp_path)
    assert wandb.asked == 1
    assert wandb.teardowns == [0]
    kept = ["1a2b3c4d5e6f7a8b-0a1b2c3d-kept"] * 2  # not one that wandb may hold
    assert [run.arguments["id"] for run in wandb.runs] == kept
    assert [run.arguments["mode"] for run in wandb.runs] == ["offline", "offline"]
    assert wandb.runs[0].rows == [{"step": 5}, {"step": 10}]
    lines = capfd.readouterr().err.strip().splitlines()
    assert "no W&B server (OSError: no route to host); the run is kept offline" in lines[0]
    assert lines[1].endswith("wandb sync runs/wandb/run-1")


def test_a_server_lost_midway_is_said_with_the_way_to_sync(
    wandb: SimpleNamespace, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wandb.lost = True
    train(WandB("vrbench", mode="online"), tmp_path)
    assert capfd.readouterr().err.strip().endswith("wandb sync runs/wandb/run-1")
    assert wandb.runs[0].over


def test_waiting_has_an_end(wandb: SimpleNamespace, tmp_path: Path) -> None:
    WandB("vrbench", mode="online", patience=3).start(info(tmp_path), 10, [])
    limits = wandb.runs[0].arguments["settings"]
    assert (limits["init_timeout"], limits["finish_timeout"], limits["finish_timeout_raises"]) == (3, 3, True)
    with pytest.raises(ValueError, match="patience=0"):
        WandB("vrbench", patience=0)


def test_an_offline_run_is_written_to_its_end_however_long_that_takes(wandb: SimpleNamespace, tmp_path: Path) -> None:
    WandB("vrbench", patience=3).start(info(tmp_path), 10, [])
    assert not [key for key in wandb.runs[0].arguments["settings"] if "timeout" in key]


def test_under_an_agent_the_run_is_the_agents(
    wandb: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    WandB("vrbench", mode="online").start(info(tmp_path), 10, [])
    assert wandb.runs[0].arguments["id"] == "1a2b3c4d5e6f7a8b-0a1b2c3d"
    monkeypatch.setenv("WANDB_RUN_ID", "agents-id")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    WandB("vrbench", mode="online").start(info(tmp_path), 10, [])
    assert {"id", "project", "entity"} & wandb.runs[1].arguments.keys() == set()
    assert wandb.runs[1].arguments["resume"] is None
