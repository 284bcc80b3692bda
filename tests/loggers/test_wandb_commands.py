"""W&B runs rebuilt from run folders, read back record by record; and the dashboard, as far as it goes without W&B."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import QUICK, ROOT
from fake_wandb import info
from own_rule import stop_at

from vrbench.loggers import rebuild, workspace
from vrbench.loggers.wandb import WandB
from vrbench.runs.records import find_runs

Call = Callable[..., int]
BLOCK = 2**15


def offline_records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: after 7 bytes, LevelDB's log format (32 KiB blocks; crc, length, type, data)."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    at, parts = 7, []
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts.append(data[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            record = Record()
            record.ParseFromString(b"".join(parts))
            yield record
            parts = []


def uploaded(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any], Any]:
    """The rows, the summary and the run that an offline folder holds, once wandb has written all of it.

    `finish` of an offline run returns before its file is written (seen in one of four runs); leaving wandb does not.
    """
    import wandb

    wandb.teardown()
    (path,) = folder.glob("*.wandb")
    rows, summary, run = [], {}, None
    for record in offline_records(path):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            rows.append({key: value for key, value in items.items() if not key.startswith("_")})
        elif kind == "summary":
            summary |= {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in record.summary.update}
        elif kind == "run":
            run = record.run
    return rows, summary, run


@pytest.mark.slow
def test_a_killed_and_resumed_run_is_one_run_with_every_step_once(
    vrbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("logger=default", *QUICK[1:])
    stop_at(12, vrbench, monkeypatch, *command)
    (run,) = find_runs(tmp_path)
    (before,) = run.directory.glob("wandb/offline-run-*")
    assert vrbench(*command) == 0
    (folder,) = run.directory.glob("wandb/offline-run-*")  # the one that `wandb sync` is given
    rows, summary, resumed = uploaded(folder)
    assert [row["step"] for row in rows] == [5, 10, 15, 20]
    assert before.name.endswith(f"-{resumed.run_id}")
    assert summary["status"] == "finished"


@pytest.mark.slow
def test_an_offline_run_is_whole_whatever_the_patience_with_servers(tmp_path: Path) -> None:
    logger = WandB("vrbench", patience=1e-3)
    rows = [{"step": step} for step in range(1, 1001)]
    logger.start(info(tmp_path), 10, rows)
    logger.finish({"status": "finished", "metrics": {}})
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    assert uploaded(folder)[0] == rows


@pytest.mark.slow
def test_a_rebuilt_run_holds_every_row_picture_and_number(
    vrbench: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vrbench("study=s/one", "probe=eos", *QUICK) == 0
    (run,) = find_runs(tmp_path)
    from PIL import Image

    for name in ("samples-0000010.png", "samples.png"):
        Image.new("RGB", (4, 4)).save(run.directory / name)
    unfinished = tmp_path / "s" / "two"
    shutil.copytree(run.directory, unfinished)
    (unfinished / "summary.json").unlink()
    stale = run.directory / "wandb" / "offline-run-old"
    stale.mkdir(parents=True)

    rebuild.main([str(tmp_path), "--project", "other"])
    said = capsys.readouterr()
    assert f"{unfinished}: unfinished, left out" in said.err
    (folder,) = run.directory.glob("wandb/offline-run-*")
    assert f"wandb sync {folder}" in said.out
    rows, summary, header = uploaded(folder)
    recorded = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    pictures = [row for row in rows if "samples._type" in row]
    assert [row for row in rows if row not in pictures] == recorded
    assert [(row["step"], row["samples._type"]) for row in pictures] == [(10, "image-file"), (20, "image-file")]
    assert len(list(folder.glob("files/media/images/*.png"))) == 2
    assert run.summary is not None
    assert run.summary["metrics"].items() <= summary.items()
    assert summary["status"] == "finished"
    assert summary["best/val/loss"] == run.summary["best"]["metrics"]["val/loss"]
    assert not [key for key in summary if key.startswith(("best.", "primary"))]
    assert (header.project, header.run_group, header.display_name) == (
        "other",
        "s/one",
        "digits vradam trainer.max_steps=20 trainer.eval_every=10 seed 0",
    )
    assert {item.key for item in header.config.update} >= {"arm", "label", "optimizer", "lr", "config", "seed"}

    # the dashboard shows keys that runs have
    shown = {key for plots in workspace.LINES.values() for _, keys, _ in plots for key in keys}
    elsewhere = {"val/perplexity", "val/l1"}  # language models, GFlowNets
    assert shown - elsewhere <= {key for row in recorded for key in row}


def test_the_dashboard_is_what_wandb_workspaces_takes(capsys: pytest.CaptureFixture[str]) -> None:
    workspaces = pytest.importorskip("wandb_workspaces.workspaces", reason="pip install 'vrbench[workspace]'")
    made = workspace.workspace("me", "p", "n")
    read = workspaces.Workspace._from_model(made._to_model())
    assert [section.name for section in read.sections] == [*workspace.LINES, workspace.PICTURES]
    for section in read.sections[:-1]:
        plots = [(plot.title, tuple(line.name for line in plot.y), plot.log_y) for plot in section.panels]
        assert plots == list(workspace.LINES[section.name])
        assert {(plot.x.name, plot.groupby.name) for plot in section.panels} == {("step", "arm")}
    assert read.sections[-1].panels[0].media_keys == ["samples"]
    workspace.main([])
    assert "sharpness / threshold: eos/ratio" in capsys.readouterr().out


def test_a_dashboard_without_a_key_is_one_line(tmp_path: Path) -> None:
    """In a process of its own: wandb keeps a key that this one has once seen."""
    pytest.importorskip("wandb_workspaces", reason="pip install 'vrbench[workspace]'")
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_API_KEY"}
    environment |= {"NETRC": str(tmp_path / "none"), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "vrbench", "wandb", "workspace", "--entity", "me", "--save"]
    said = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 2
    (line,) = said.stderr.splitlines()
    assert line.startswith("vrbench: wandb workspace: not saved: No API key configured")
