"""One run over two processes: the losses of one process, an equal gate in both, one writer."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from vrbench.distributed import Processes
from vrbench.records import find_runs

RUN = ("logger=none", "trainer.max_steps=12", "trainer.eval_every=6", "trainer.log_every=1", "trainer.threads=1")

SPY = """
import json, os, signal, sys
from pathlib import Path
from vrbench import cli, distributed
def log(self, row):
    with open(os.environ["SPY"], "a") as file:
        file.write(json.dumps(row) + "\\n")
    if row["step"] == int(os.environ.get("STOP_AT", "0")):
        os.kill(os.getpid(), signal.SIGTERM)
distributed._Silent.log = log
cli.main()
"""


def torchrun(tmp_path: Path, *overrides: str, stop_at: int = 0) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = tmp_path / "spy.py"
    script.write_text(SPY)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        f"--master-port={port}",
        str(script),
    ]
    spied = {"SPY": str(tmp_path / "spy.jsonl"), "STOP_AT": str(stop_at)}
    environment = {**os.environ, **spied, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    overrides = (f"results_dir={tmp_path}", *RUN, *overrides)
    return subprocess.run([*command, *overrides], cwd=tmp_path, env=environment, capture_output=True, text=True)


def test_shares_are_even_or_refused() -> None:
    batch = (torch.arange(6), {"x": torch.arange(12).view(6, 2)})
    first, second = (Processes(rank, 2).share(batch) for rank in (0, 1))
    assert torch.equal(torch.cat([first[0], second[0]]), batch[0])
    assert torch.equal(torch.cat([first[1]["x"], second[1]["x"]]), batch[1]["x"])
    assert [Processes(rank, 2).stream(5) for rank in (0, 1)] == [10, 11]
    assert Processes().share(batch) is batch
    assert Processes().stream(5) == 5
    with pytest.raises(ValueError, match="batch_size=6: cannot be shared evenly by 4 processes"):
        Processes(0, 4).share(batch)
    with pytest.raises(ValueError, match="a batch of str"):
        Processes(0, 2).share("abc")


@pytest.mark.slow
@pytest.mark.timeout(600)  # half a minute on two free cores
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_as_one(parallel: str, vrbench: Callable[..., int], tmp_path: Path) -> None:
    """The sharded run is stopped in the middle by a signal to one process, and goes on from its checkpoint."""
    assert vrbench(*RUN, "study=one") == 0
    overrides = ("study=two", f"trainer.parallel={parallel}")
    if parallel == "fsdp":
        assert torchrun(tmp_path, *overrides, stop_at=7).returncode != 0
        (stopped,) = find_runs(tmp_path / "two")
        assert [row["step"] for row in stopped.rows()] == list(range(1, 8))
    result = torchrun(tmp_path, *overrides)
    assert result.returncode == 0, result.stderr
    (one,), (two,) = find_runs(tmp_path / "one"), find_runs(tmp_path / "two")
    assert one.directory.name == two.directory.name  # the same run, however many processes
    assert two.manifest["resumed_from_step"] == (7 if parallel == "fsdp" else None)
    rows, other_rows = list(one.rows()), list(two.rows())
    assert len(rows) == len(other_rows) == 12
    for row, other in zip(rows, other_rows, strict=True):
        for key in ("train/loss", "train/accuracy", "val/loss", "optim/gate", "optim/grad_norm", "optim/update_norm"):
            if key in row:
                assert other[key] == pytest.approx(row[key], rel=1e-5, abs=1e-6)
        assert abs(other["train/loss"] - row["train/loss"]) <= 1e-6
    spied = [json.loads(line) for line in (tmp_path / "spy.jsonl").read_text().splitlines()]
    keys = ("step", "optim/gate", "optim/velocity_sq", "train/loss")
    assert [[row[key] for key in keys] for row in spied] == [[row[key] for key in keys] for row in other_rows]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trainer.compile=false", "trainer.parallel=fsdp: needs several processes (torchrun"),
        ("trainer.ema_decay=0.9", "parallel=fsdp goes with compile=false, ema_decay=null and zero_grad=true"),
    ],
)
def test_what_cannot_be_sharded_is_refused(
    override: str, says: str, vrbench: Callable[..., int], capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench(*RUN, "trainer.parallel=fsdp", override) == 2
    assert says in capfd.readouterr().err


@pytest.mark.slow
def test_what_two_processes_cannot_train_is_refused_at_once(tmp_path: Path) -> None:
    result = torchrun(tmp_path, "task.batch_size=63")
    assert result.returncode != 0
    assert "task: a batch of 63 images cannot be shared evenly by 2 processes" in result.stderr
    assert not (tmp_path / "default").exists()
