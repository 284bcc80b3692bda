"""A run in the middle: a trainer whose steps log nothing, on whichever device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from toy import settings

from vrbench.checks.short_run import parameters_of
from vrbench.checks.tasks import TaskPart
from vrbench.probes.optim import OptimProbe
from vrbench.randomness import Streams
from vrbench.training.schedules import constant
from vrbench.training.trainer import Trainer

STEPS = 10**6


def to_device(model: nn.Module, device: torch.device) -> nn.Module:
    return model.to(device)


def trainer_of(
    part: TaskPart,
    optimizer: Callable[[Any], torch.optim.Optimizer],
    device: torch.device,
    move: Callable[[nn.Module, torch.device], nn.Module] = to_device,
    probes: dict[str, Any] | None = None,
    **changes: Any,
) -> Trainer:
    """The trainer of a task and its model, ready to step: `trainer._train_step()` is a step that is not logged."""
    task = part.make()
    model = part.model(task)
    if changes.get("channels_last"):
        model = model.to(memory_format=torch.channels_last)
    task.to(device)
    model = move(model, device)
    optim = optimizer(parameters_of(task, model))
    lengths = {"epochs": None, "max_steps": STEPS, "log_every": STEPS, "eval_every": STEPS, "device": str(device)}
    probes = {"optim": OptimProbe(), **(probes or {})}
    parts = (task, model, optim, constant(optim, STEPS), probes, Streams(0, device))
    trainer = Trainer(settings(**{**lengths, **changes}), *parts)
    trainer._train_mode()
    return trainer
