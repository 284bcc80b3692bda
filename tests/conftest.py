"""What all tests share: an offline world, one torch thread, and `vrbench` called in this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vrbench.app.check import Kit

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.update({"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true"})

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

QUICK = ("logger=none", "trainer.max_steps=20", "trainer.eval_every=10", "trainer.log_every=5")
"""Overrides for a run of well under a second."""


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def vrbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Call the command line in this process with `results_dir` in a temporary folder; returns the exit code."""

    def call(*overrides: str) -> int:
        from vrbench.app.main import main

        monkeypatch.setattr(sys, "argv", ["vrbench", *overrides, f"results_dir={tmp_path}"])
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0)
        return 0

    return call


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kit]:
    """Every part of conf/, with made-up data where it needs a path; what is cached is cached in a temporary folder."""
    import datasets
    from contracts.made_up import Supplies

    from vrbench.app.check import Kit

    folder: Path = tmp_path_factory.mktemp("kit")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets")
        yield Kit(supply=Supplies(folder / "data"))
