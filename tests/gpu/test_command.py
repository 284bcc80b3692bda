"""Whole commands on CUDA: bfloat16, channels_last and compile, an interrupted run, and what their records say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from conftest import QUICK

if TYPE_CHECKING:
    import torch

pytestmark = pytest.mark.gpu

FAST = ("trainer.precision=bfloat16", "trainer.channels_last=true", "trainer.compile=true")
IMAGES = ("task=digits", "model=deeper_cnn", "model.channels=[8,16]", "model.hidden=16")


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """Manifest and summary of each run, by its study."""
    runs = [path.parent for path in folder.rglob("summary.json")]
    return {
        run.parent.name: {name: json.loads((run / f"{name}.json").read_bytes()) for name in ("manifest", "summary")}
        for run in runs
    }


@pytest.mark.timeout(600)
def test_bfloat16_channels_last_compile(vrbench: Callable[..., int], tmp_path: Path, cuda: torch.device) -> None:
    """The losses of the fast run are those of the plain one to a few per cent."""
    assert vrbench(*IMAGES, *QUICK, "trainer.device=cuda", "study=plain") == 0
    assert vrbench(*IMAGES, *QUICK, "trainer.device=cuda", "study=fast", *FAST) == 0
    found = records(tmp_path)
    for run in found.values():
        assert run["summary"]["status"] == "finished"
        assert run["manifest"]["machine"]["device"] == "cuda"
        assert run["manifest"]["machine"]["gpu"]
        assert run["manifest"]["peak_device_memory_bytes"] > 0
    losses = [found[study]["summary"]["metrics"]["val/loss"] for study in ("plain", "fast")]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("task", ["digits", "pydoc", "hypergrid", "gridworld", "diffusion_digits"])
def test_every_embedded_task_runs(task: str, vrbench: Callable[..., int], tmp_path: Path, cuda: torch.device) -> None:
    assert vrbench(f"task={task}", "optimizer=vradam", "trainer.device=cuda", *QUICK) == 0
    (run,) = records(tmp_path).values()
    assert run["summary"]["status"] == "finished"
    assert run["manifest"]["machine"]["device"] == "cuda"
