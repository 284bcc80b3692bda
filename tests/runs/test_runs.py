"""Whole runs through the command line: what is written, skipped, redone, resumed, and what a sweep survives."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import QUICK, ROOT
from same_numbers import numbers_of_folder

from vrbench.runs.records import find_runs
from vrbench.training.trainer import Trainer

Call = Callable[..., int]


def only_run(folder: Path) -> Path:
    (run,) = find_runs(folder)
    return run.directory


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_run_leaves_its_records(vrbench: Call, tmp_path: Path) -> None:
    assert vrbench("optimizer=vradam", "seed=3", *QUICK) == 0
    folder = only_run(tmp_path)
    assert folder.parent.name == "default"
    assert folder.name.startswith("digits-mlp-vradam-max_steps20-eval_every10-s3-")
    assert {p.name for p in folder.iterdir()} == {"config.yaml", "manifest.json", "metrics.jsonl", "summary.json"}

    assert yaml.safe_load((folder / "config.yaml").read_text())["optimizer"]["beta3"] == 1.0
    manifest = read(folder / "manifest.json")
    assert (manifest["schema"], manifest["status"], manifest["seed"]) == (2, "finished", 3)
    assert folder.name.endswith(manifest["id"])
    assert manifest["choices"]["optimizer"] == "vradam"
    assert manifest["versions"]["torch"]
    assert manifest["peak_memory_bytes"] > 1e7

    summary = read(folder / "summary.json")
    assert (summary["status"], summary["steps"]) == ("finished", 20)
    assert {"val/loss", "val/accuracy", "test/loss", "test/accuracy"} <= summary["metrics"].keys()
    assert summary["best"]["step"] in (10, 20)
    assert set(summary["seconds"]) == {"train", "eval", "probe"}

    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [5, 10, 15, 20]
    every_row = {"train/loss", "optim/lr", "optim/effective_lr", "optim/gate", "optim/velocity_sq", "optim/grad_norm"}
    assert all(every_row | {"optim/update_norm", "optim/param_norm", "time/steps_per_s"} <= row.keys() for row in rows)
    assert [row["step"] for row in rows if "val/loss" in row] == [10, 20]


def test_a_finished_run_is_skipped_and_force_redoes_it(
    vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench(*QUICK) == 0
    folder = only_run(tmp_path)
    before = (folder / "summary.json").stat().st_mtime_ns
    capfd.readouterr()
    assert vrbench(*QUICK) == 0
    assert "finished already, skipped" in capfd.readouterr().out
    assert (folder / "summary.json").stat().st_mtime_ns == before
    metrics = read(folder / "summary.json")["metrics"]
    assert vrbench(*QUICK, "force=true") == 0
    assert only_run(tmp_path) == folder
    assert (folder / "summary.json").stat().st_mtime_ns > before
    assert read(folder / "summary.json")["metrics"] == metrics


def test_a_multirun_is_paired_and_its_table_comes_again(
    vrbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep = ("-m", "study=nine", "optimizer=vradam,adamw,sgd", "seed=0,1,2", *QUICK)
    assert vrbench(*sweep) == 0
    first = capfd.readouterr().out
    assert len(find_runs(tmp_path / "nine")) == 9
    monkeypatch.setattr(Trainer, "fit", lambda *_: pytest.fail("a finished run was trained again"))
    assert vrbench(*sweep) == 0
    second = capfd.readouterr().out
    assert second.startswith("9 runs: 9 over\n**study nine**")
    table = first[first.index("**study nine") :]
    assert second.endswith(table)
    for name in ("vradam", "adamw", "sgd"):
        (row,) = [line for line in table.splitlines() if f" {name} " in line]
        assert " 3 " in row


def test_divergence_is_a_result(vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert vrbench("-m", "optimizer=sgd", "optimizer.lr=1e30,0.05", *QUICK) == 0
    summaries = {run.status: run.summary for run in find_runs(tmp_path)}
    assert set(summaries) == {"diverged", "finished"}
    diverged = summaries["diverged"]
    assert diverged is not None
    assert diverged["steps"] <= 5
    table = capfd.readouterr().out
    assert " nan " in table
    assert "optimizer.lr=1e+30" in table


def test_one_bad_run_does_not_stop_the_sweep(vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert vrbench("-m", "model.hidden=[0],[8]", *QUICK) == 2
    assert "model.hidden=[0]: give a list" in capfd.readouterr().err
    assert [run.status for run in find_runs(tmp_path)] == ["finished"]


LONG = ("logger=none", "trainer.max_steps=600", "trainer.eval_every=50", "trainer.log_every=7", "trainer.threads=1")


def start(tmp_path: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vrbench", f"results_dir={tmp_path}", *LONG, *overrides]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str], rows: int = 0) -> None:
    """Until the file is there, with so many lines."""
    deadline = time.monotonic() + 120
    while not path.exists() or len(path.read_bytes().splitlines()) < rows:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["optimizer=vradam", "optimizer=sgd schedule=warmup_cosine trainer.ema_decay=0.99"])
def test_kill_9_and_the_command_again_equals_an_unbroken_run(choice: str, vrbench: Call, tmp_path: Path) -> None:
    choices = choice.split(" ")
    assert vrbench(*LONG, *choices, "study=unbroken") == 0
    unbroken = only_run(tmp_path / "unbroken")

    process = start(tmp_path, "study=broken", "trainer.checkpoint_seconds=0.2", *choices)
    folder = tmp_path / "broken" / unbroken.name
    wait_for(folder / "checkpoint" / "state.pt", process)
    wait_for(folder / "metrics.jsonl", process, rows=10)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "summary.json").exists()

    assert vrbench(*LONG, *choices, "study=broken") == 0
    assert read(folder / "manifest.json")["resumed_from_step"] > 0
    assert numbers_of_folder(folder) == numbers_of_folder(unbroken)
    assert {p.name for p in folder.iterdir()} == {"config.yaml", "manifest.json", "metrics.jsonl", "summary.json"}


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_second_process_leaves_a_run_to_the_first_and_a_stop_signal_saves_it(
    number: signal.Signals, code: int, vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    process = start(tmp_path, "trainer.max_steps=100000")
    folder = next(iter(_wait_folder(tmp_path, process)))
    wait_for(folder / "metrics.jsonl", process, rows=3)
    assert vrbench(*LONG, "trainer.max_steps=100000") == 0
    assert "another process is training this run; left to it" in capfd.readouterr().out
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    assert "the same command goes on from there" in error
    assert len(error.strip().splitlines()) == 1
    assert (folder / "checkpoint" / "state.pt").exists()


def _wait_folder(tmp_path: Path, process: subprocess.Popen[str]) -> list[Path]:
    deadline = time.monotonic() + 120
    while not (found := list(tmp_path.glob("default/*"))):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


@pytest.mark.slow
def test_the_wheel_runs_outside_the_checkout(tmp_path: Path) -> None:
    dist, site, empty = tmp_path / "dist", tmp_path / "venv", tmp_path / "empty"
    empty.mkdir()
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", str(site)], check=True)
    (wheel,) = dist.glob("*.whl")
    install = [str(site / "bin" / "pip"), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (packages,) = (site / "lib").glob("python*/site-packages")
    borrowed = next(p for p in map(Path, sys.path) if (p / "torch").is_dir())
    borrow = f"import sys; sys.path.append({str(borrowed)!r})\n"
    (packages / "borrowed.pth").write_text(borrow)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = [str(site / "bin" / "vrbench"), *QUICK]
    result = subprocess.run(run, cwd=empty, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert only_run(empty / "results" / "runs").name.startswith("digits-mlp-vradam-max_steps20-eval_every10-s0-")


def test_optimizers_start_from_the_same_weights_and_see_the_same_batches(tmp_path: Path) -> None:
    first, second = (fingerprint(f"optimizer={name}", "seed=5") for name in ("vradam", "sgd"))
    other_seed = fingerprint("optimizer=vradam", "seed=6")
    assert first == second
    assert first["weights"] != other_seed["weights"]
    assert first["batches"] != other_seed["batches"]


def fingerprint(*overrides: str) -> dict[str, str]:
    """Hashes of a run's initial weights and of its first epoch of batches, augmentation included."""
    import hashlib

    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from vrbench.app.assembly import build
    from vrbench.app.project import CONF
    from vrbench.contracts import RunInfo, TrainerSettings

    with initialize_config_dir(str(CONF), version_base="1.3"):
        options = ("task.crop_padding=1", "task.flip=true", "trainer.device=cpu")
        config = compose("config", ["task=digits", *options, *overrides])
    chosen = {"task": "digits"}
    info = RunInfo("", "", "", "", Path(), {}, chosen, int(config.seed))
    trainer = build(config, info, TrainerSettings(**OmegaConf.to_container(config.trainer)))  # type: ignore[arg-type]
    weights, batches = hashlib.sha256(), hashlib.sha256()
    for parameter in trainer.model.parameters():
        weights.update(parameter.detach().numpy().tobytes())
    for _ in range(trainer.task.batches_per_epoch):
        images, labels = trainer._take_batch()
        batches.update(images.contiguous().numpy().tobytes())
        batches.update(labels.numpy().tobytes())
    return {"weights": weights.hexdigest(), "batches": batches.hexdigest()}


@pytest.mark.parametrize("sweep", ["study=a,b/c", "experiment=eos/gd,eos/adam"])
def test_a_multirun_prints_the_table_of_each_study_that_it_ran(
    sweep: str, vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench("study=default", *QUICK) == 0
    capfd.readouterr()
    cheap = ("++probe.eos.tier=cheap",) if sweep.startswith("experiment") else ()
    assert vrbench("-m", sweep, *cheap, *QUICK) == 0
    said = capfd.readouterr().out
    studies = [line.strip("*") for line in said.splitlines() if line.startswith("**study ")]
    assert studies == [f"study {name.split('/')[-1]}" for name in sweep.partition("=")[2].split(",")]
    assert not list(tmp_path.rglob("multirun.yaml"))


@pytest.mark.parametrize(("task", "code"), [("pydoc", 2), ("hypergrid", 2), ("gridworld", 0), ("diffusion_digits", 0)])
def test_a_memory_format_for_images_is_taken_or_refused(
    task: str, code: int, vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    short = ("trainer.max_steps=2", "trainer.eval_every=2", "logger=none", "trainer.evaluate_test=false")
    assert vrbench(f"task={task}", "trainer.channels_last=true", *short) == code
    if code:
        said = capfd.readouterr().err
        assert f"trainer.channels_last=true: is for images, which task={task} has not" in said
        assert "Traceback" not in said
