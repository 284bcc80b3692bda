"""Run folders as the trainer writes them, with made-up numbers: what the tests and measurements of reports read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from vrbench.runs.identity import identify
from vrbench.runs.records import write_json


def make_run(
    root: Path,
    value: float,
    *,
    task: str = "digits",
    model: str = "mlp",
    optimizer: str = "vradam",
    seed: int = 0,
    study: str = "made",
    metric: str = "accuracy",
    direction: str = "max",
    settings: Mapping[str, Any] | None = None,
    status: str = "finished",
    seconds: float = 2.0,
    rows: int = 3,
    overrides: Mapping[str, Any] | None = None,
    choices: Mapping[str, str] | None = None,
    data: Mapping[str, str] | None = None,
    follows_seed: Sequence[str] = (),
    code: Mapping[str, Mapping[str, str]] | None = None,
    code_changes: Sequence[Mapping[str, Any]] = (),
    tuned: Mapping[str, Any] | None = None,
    test_read: bool = True,
    schema: int = 2,
    **manifest_too: Any,
) -> Path:
    """Write one run folder whose validation and test metric are `value`; returns the folder.

    `settings` are keys of the optimizer, `overrides` any keys written with dots. `metrics.jsonl` has `rows` rows, the
    last one at `value`; `status` is `finished`, `diverged` or `unfinished`. `test_read=False` is a search's trial.
    Schema 1 leaves out what its manifests did not have; further keywords go into the manifest as they are.
    """
    config: dict[str, Any] = {
        "seed": seed,
        "study": study,
        "results_dir": str(root),
        "force": False,
        "trainer": {"epochs": 1, "evaluate_test": test_read, "device": "cpu", "threads": 1},
        "schedule": {"_target_": "vrbench.training.schedules.constant", "_partial_": True},
        "model": {"_target_": f"vrbench.models.{model}"},
        "optimizer": {"_target_": f"vrbench.optimizers.{optimizer}", "lr": 0.001, **(settings or {})},
        "probe": {},
        "logger": {},
        "task": {"_target_": f"vrbench.tasks.{task}", "name": task},
    }
    for key, setting in (overrides or {}).items():
        *above, last = key.split(".")
        node = config
        for part in above:
            node = node.setdefault(part, {})
        node[last] = setting
    if schema == 1:
        del config["trainer"]["evaluate_test"]
    identity = identify(config, follows_seed=follows_seed, data=data or {})
    run_id, arm = (identity.id[:8], identity.arm[:8]) if schema == 1 else (identity.id, identity.arm)
    name = f"{task}-{model}-{optimizer.replace('/', '_')}-s{seed}-{run_id}"
    folder = root / study / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    chosen = {"task": task, "model": model, "optimizer": optimizer, "schedule": "constant", "trainer": "default",
              "probe": "none", **(choices or {})}  # fmt: skip
    manifest: dict[str, Any] = {
        "id": run_id,
        "arm": arm,
        "name": name,
        "study": study,
        "seed": seed,
        "choices": chosen,
        "schema": schema,
        "status": "running" if status == "unfinished" else status,
        "started": "2026-01-01T00:00:00+00:00",
        "command": ["vrbench"],
        "git": {"sha": "0" * 40, "dirty": False},
        "versions": {"vrbench": "0"},
        "machine": {"device": "cpu", "threads": 1, "cpu": "x86_64", "system": "Linux"},
        "peak_memory_bytes": 10**9,
    }
    if schema > 1:
        manifest |= {
            "follows_seed": list(follows_seed),
            "data": dict(data or {}),
            "code": dict(code or {}),
            "code_changes": list(code_changes),
            "tuned": tuned,
            "vrbench_git": manifest["git"],
        }
    manifest |= manifest_too
    write_json(folder / "manifest.json", manifest)
    lines = []
    for row in range(1, rows + 1):
        measured = value * row / rows
        lines.append({"step": 10 * row, "epoch": row / rows, "train/loss": 1 / row, f"val/{metric}": measured})
    if status == "diverged":
        lines[-1]["train/loss"] = None
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    if status != "unfinished":
        ended = status == "finished" and math.isfinite(value)
        validation = {"val/loss": 1 / rows, f"val/{metric}": value}
        test = {"test/loss": 1 / rows, f"test/{metric}": value}
        summary: dict[str, Any] = {
            "status": status,
            "metrics": {**validation, **(test if ended and test_read else {})},
            "best": {"step": 10 * rows, "metrics": validation} if ended else {"step": None, "metrics": {}},
            "steps": 10 * rows,
            "primary": {"metric": f"val/{metric}", "direction": direction},
            "seconds": {"train": seconds, "eval": 0.5, "probe": 0.25},
        }
        if schema > 1:
            summary["test_read"] = ended and test_read
        write_json(folder / "summary.json", summary)
    return folder


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Give the run other rows than it has."""
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def eight(root: Path, value: float, optimizer: str, **options: Any) -> None:
    """An arm of eight seeds whose values differ a little, the same way in every arm."""
    for seed in range(8):
        make_run(root, value + seed / 1000, optimizer=optimizer, seed=seed, **options)


def report(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    """What `vrbench-report` prints: on stdout where it succeeds, else its one line on stderr."""
    from vrbench.report.main import main

    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    shown = capsys.readouterr()
    assert stop.value.code == code, shown.err
    if code == 0:
        return shown.out
    (line,) = shown.err.splitlines()
    return line
