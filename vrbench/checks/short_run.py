"""A few steps through vrbench's own loop, with everything that it writes kept in memory."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vrbench.contracts import Probe, Task, TrainerSettings
from vrbench.randomness import Streams
from vrbench.training.schedules import constant
from vrbench.training.trainer import Stopped, Trainer

SEED = 0


class Written:
    """What a run has written: rows, pictures, the last checkpoint as it comes out of a file, the summary."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.state = state
        self.rows: list[dict[str, Any]] = []
        self.pictures: list[Tensor] = []
        self.summary: dict[str, Any] = {}

    def resume(self, total_steps: int) -> dict[str, Any] | None:
        """The state that the run goes on from."""
        return self.state

    def log(self, row: Mapping[str, Any]) -> None:
        """One row of metrics."""
        self.rows.append(dict(row))

    def image(self, step: int, picture: Tensor, *, last: bool) -> None:
        """One picture."""
        self.pictures.append(picture)

    def checkpoint(self, state: dict[str, Any]) -> None:
        """The state, through a file that is read with weights_only=True."""
        self.state = through_file(state)

    def finish(self, summary: Mapping[str, Any], memory: Mapping[str, int]) -> None:
        """The end."""
        self.summary = dict(summary)


def through_file(state: Any) -> Any:
    """What `torch.load(…, weights_only=True)` gives of a saved state. Raises what torch raises."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def settings(steps: int) -> TrainerSettings:
    """A run on the CPU that logs every second step and evaluates at its end."""
    return TrainerSettings(
        epochs=None, max_steps=steps, fraction=1.0, accumulate=1, zero_grad=True, clip_norm=None, precision="float32",
        eval_precision=None, channels_last=False, compile=False, ema_decay=None, parallel="ddp", log_every=2,
        eval_every=steps, render_every=None, evaluate_test=True, checkpoint_seconds=1e9, device="cpu", threads=None,
    )  # fmt: skip


def train(
    task: Task,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int,
    probes: Mapping[str, Probe] | None = None,
    *,
    state: dict[str, Any] | None = None,
    stop_after: int | None = None,
) -> Written:
    """Train for so many steps at a constant rate; from a state on, or until a checkpoint after `stop_after` steps."""
    written = Written(state)
    schedule = constant(optimizer, steps)
    trainer = Trainer(settings(steps), task, model, optimizer, schedule, probes or {}, Streams(SEED))
    with contextlib.suppress(Stopped):
        trainer.fit(written, lambda: trainer.step == stop_after)  # type: ignore[arg-type]
    return written


def numbers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what the clock says."""
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


def parameters_of(task: Task, model: nn.Module) -> Any:
    """What an optimizer of this task is made from."""
    return task.param_groups(model) if hasattr(task, "param_groups") else model.parameters()
