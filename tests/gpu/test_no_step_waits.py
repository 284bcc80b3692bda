"""No host waits for the device between logged steps: `torch.cuda.set_sync_debug_mode("error")` around a whole one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

    from vrbench.app.check import Kit

pytestmark = pytest.mark.gpu

TASKS = sorted(path.stem for path in (Path(__file__).parents[2] / "conf/task").glob("*.yaml"))
WAITING = {"gridworld", "question_answering"}
"""Tasks whose steps have to wait: tests/training/test_waits.py knows what for."""


@contextmanager
def no_waiting() -> Iterator[None]:
    """Within the block whatever makes the host wait raises RuntimeError."""
    import torch

    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def begun(kit: Kit, task: str, cuda: torch.device, **changes: Any) -> Any:
    """A trainer inside its first epoch: it has its optimizer's state, and the order of the epoch is on the device."""
    from unlogged import trainer_of
    from vrbench.optimizers import VRAdam

    from vrbench.checks.contract import Absent

    try:
        trainer = trainer_of(kit.part("task", task), VRAdam, cuda, **changes)
    except Absent as absent:
        pytest.skip(f"absent: {absent}")
    trainer._train_step()
    return trainer


@pytest.mark.parametrize("task", TASKS)
def test_no_step_of_a_task_waits(task: str, kit: Kit, cuda: torch.device) -> None:
    trainer = begun(kit, task, cuda)
    if task in WAITING:
        with pytest.raises(RuntimeError, match="synchronizing"), no_waiting():
            trainer._train_step()
        return
    with no_waiting():
        assert trainer._train_step() == {}


def test_no_option_of_the_trainer_waits(kit: Kit, cuda: torch.device) -> None:
    options = {"accumulate": 2, "clip_norm": 1.0, "ema_decay": 0.9, "precision": "bfloat16", "channels_last": True}
    trainer = begun(kit, "mnist", cuda, **options)
    with no_waiting():
        trainer._train_step()


def test_no_step_of_gpt2_waits(kit: Kit, cuda: torch.device) -> None:
    """It is built on transformers, which would read a value in each forward pass."""
    from unlogged import trainer_of
    from vrbench.optimizers import VRAdam

    trainer = trainer_of(kit.task_part("task=pydoc", "model=gpt2"), VRAdam, cuda, precision="bfloat16")
    trainer._train_step()
    with no_waiting():
        trainer._train_step()
