"""The loggers: W&B gets the same rows, a resumed run is whole again, and a logger that fails never stops a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import QUICK
from fake_wandb import FakeRun, info
from own_rule import stop_at

from vrbench.loggers.wandb import WandB
from vrbench.runs.records import find_runs

Call = Callable[..., int]
WITH_WANDB = ("logger=default", *QUICK[1:])


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


def test_a_run_is_opened_with_what_finds_it_again(wandb: SimpleNamespace, tmp_path: Path) -> None:
    logger = WandB("vrbench", tags=["mine"])
    logger.start(info(tmp_path), 10, [])
    logger.log({"step": 1, "train/loss": 2.0})
    logger.image(1, tmp_path / "samples.png")
    best = {"step": 1, "metrics": {"val/loss": 0.5}}
    logger.finish({"status": "finished", "metrics": {"val/loss": 1.0}, "best": best, "seconds": {"train": 2.0}})
    (run,) = wandb.runs
    told = run.arguments
    assert (told["project"], told["group"], told["job_type"]) == ("vrbench", "lr/fine", "digits")
    assert told["name"] == "digits vradam lr=0.01 seed 0"
    assert told["id"] == "1a2b3c4d5e6f7a8b-0a1b2c3d"
    assert told["tags"] == ["digits", "mlp", "vradam", "mine"]
    legend = {key: told["config"][key] for key in ("seed", "optimizer", "task", "lr", "label", "arm", "study")}
    assert legend == {"seed": 0, "optimizer": "vradam", "task": "digits", "lr": 0.01, "label": "vradam lr=0.01",
                      "arm": "5e6f7a8b1a2b3c4d", "study": "lr/fine"}  # fmt: skip
    assert {"versions", "git", "command"} <= told["config"].keys()
    assert told["config"]["config"] == {"optimizer": {"_target_": "vrbench.optimizers.vradam.VRAdam", "lr": 0.01}}
    assert (told["mode"], told["dir"]) == ("offline", tmp_path)
    assert ("*", "step") in run.metrics
    assert run.rows[0] == {"step": 1, "train/loss": 2.0}
    assert run.rows[1]["samples"] == str(tmp_path / "samples.png")
    assert run.summary == {"step": 0, "status": "finished", "val/loss": 1.0, "best/val/loss": 0.5, "best/step": 1,
                           "seconds/train": 2.0}  # fmt: skip
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


def test_no_two_runs_share_an_id(wandb: SimpleNamespace, vrbench: Call, tmp_path: Path) -> None:
    """Not in studies whose names differ in a stroke, and not those of two people who run the same command."""
    for study in ("n/inner", "n-inner", "person/one", "person/two"):
        assert vrbench(*WITH_WANDB, f"study={study}") == 0
    ids = [run.arguments["id"] for run in wandb.runs]
    assert len(set(ids)) == 4
    assert len({one.split("-")[0] for one in ids}) == 1
    assert all(one.isascii() and len(one) <= 64 for one in ids)


def test_a_resumed_run_keeps_its_id_and_force_gives_a_new_one(
    wandb: SimpleNamespace, vrbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(12, vrbench, monkeypatch, *WITH_WANDB)
    assert vrbench(*WITH_WANDB) == 0
    assert vrbench(*WITH_WANDB, "force=true") == 0
    first, resumed, forced = [run.arguments["id"] for run in wandb.runs]
    assert first == resumed != forced
    assert [row["step"] for row in wandb.runs[1].rows] == [5, 10, 15, 20]


class Killed(BaseException):
    """What ends a process without leave."""


@pytest.mark.parametrize("harm", ["killed after the summary", "disk full in the middle", "killed while it is mended"])
def test_a_copy_that_was_cut_short_is_made_anew(
    harm: str,
    wandb: SimpleNamespace,
    vrbench: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def dies(self: FakeRun) -> None:
        raise Killed

    def no_space(self: FakeRun, row: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if harm == "disk full in the middle":
            patch.setattr(FakeRun, "log", no_space)
            assert vrbench(*WITH_WANDB) == 0
        else:
            patch.setattr(FakeRun, "finish", dies)
            for _ in range(2 if harm == "killed while it is mended" else 1):
                with pytest.raises(Killed):
                    vrbench(*WITH_WANDB)
    (run,) = find_runs(tmp_path)
    assert run.status == "finished"
    capfd.readouterr()
    assert vrbench(*WITH_WANDB) == 0
    said = capfd.readouterr().out
    assert "finished already, skipped" in said
    assert "its copy of wandb was cut short, and is made anew from the records" in said
    assert wandb.runs[-1].rows == list(run.rows())
    assert wandb.runs[-1].over
    assert wandb.runs[-1].summary["status"] == "finished"
    assert len({one.arguments["id"] for one in wandb.runs}) == 1
    known = len(wandb.runs)
    assert vrbench(*WITH_WANDB) == 0
    assert vrbench(*QUICK) == 0
    assert len(wandb.runs) == known
    assert not (run.directory / "checkpoint").exists()


def test_pictures_of_a_resumed_run_are_sent_again(wandb: SimpleNamespace, tmp_path: Path) -> None:
    for name in ("samples-0000005.png", "samples-0000015.png"):
        (tmp_path / name).write_bytes(b"")
    WandB("vrbench").start(info(tmp_path), 20, [{"step": 5}, {"step": 10}])
    assert [row["step"] for row in wandb.runs[0].rows] == [5, 5, 10]
    assert wandb.runs[0].rows[1]["samples"].endswith("samples-0000005.png")


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
    assert "best at step 20" in captured.out
    (run,) = find_runs(tmp_path)
    assert run.status == "finished"


def test_offline_wandb_gets_every_row(wandb: SimpleNamespace, vrbench: Call, tmp_path: Path) -> None:
    assert vrbench(*WITH_WANDB) == 0
    (run,) = find_runs(tmp_path)
    recorded = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert wandb.runs[0].rows == recorded


@pytest.mark.slow
def test_the_real_wandb_writes_an_offline_run(vrbench: Call, tmp_path: Path) -> None:
    import wandb

    assert vrbench(*WITH_WANDB) == 0
    wandb.teardown()  # only then is the file sure to be written
    (run,) = find_runs(tmp_path)
    (written,) = run.directory.glob("wandb/offline-run-*/run-*.wandb")
    assert written.stat().st_size > 1000
