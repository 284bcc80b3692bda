"""A run of W&B that keeps what it gets, and a run of ours to give it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vrbench.contracts import RunInfo


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


def info(folder: Path) -> RunInfo:
    choices = {"task": "digits", "model": "mlp", "optimizer": "vradam"}
    config = {
        "seed": 0,
        "force": False,
        "results_dir": "somewhere",
        "optimizer": {
            "_target_": "vrbench.optimizers.vradam.VRAdam",
            "_partial_": True,
            "_convert_": "all",
            "lr": 0.01,
        },
        "logger": {"wandb": {"project": "p"}},
    }
    return RunInfo(
        "1a2b3c4d5e6f7a8b", "5e6f7a8b1a2b3c4d", "digits-mlp-vradam-s0-1a2b3c4d5e6f7a8b", "lr/fine", folder, config,
        choices, 0, label="vradam lr=0.01", suffix="0a1b2c3d",
    )  # fmt: skip
