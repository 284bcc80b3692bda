"""How evaluation computes: in training's precision unless another is asked for, compiled where training is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import ToyTask, fit, trainer


class Seeing(ToyTask):
    """Keeps the type of what the model gives in training, evaluation and pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.types: dict[str, set[torch.dtype]] = {"loss": set(), "evaluate": set(), "render": set()}

    def loss(self, model: nn.Module, batch: Any, generator: Any) -> Any:
        self.types["loss"].add(model(batch[0]).dtype)
        return super().loss(model, batch, generator)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        self.types["evaluate"].add(model(self.x).dtype)
        return super().evaluate(model, split)

    def render(self, model: nn.Module) -> Tensor:
        self.types["render"].add(model(self.x).dtype)
        return torch.zeros(1, 1, 3, dtype=torch.uint8)


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "batch norm"])
@pytest.mark.parametrize("ema_decay", [None, 0.5])
@pytest.mark.parametrize(
    ("precision", "eval_precision", "seen"),
    [
        ("float32", None, torch.float32),
        ("bfloat16", None, torch.bfloat16),
        ("bfloat16", "float32", torch.float32),
        ("float32", "bfloat16", torch.bfloat16),
    ],
)
def test_evaluation_has_trainings_precision_or_its_own(
    precision: str, eval_precision: str | None, seen: torch.dtype, ema_decay: float | None, norm: bool
) -> None:
    task = Seeing()
    fit(trainer(task, precision=precision, eval_precision=eval_precision, ema_decay=ema_decay, norm=norm))
    assert getattr(torch, precision) in task.types["loss"], "batch norm is recalculated in float32"
    assert task.types["evaluate"] == task.types["render"] == {seen}


@pytest.mark.parametrize("ema_decay", [None, 0.5])
@pytest.mark.parametrize("compile_", [False, True])
def test_what_is_measured_is_compiled_where_training_is(
    compile_: bool, ema_decay: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: compiled.append(self))
    run = trainer(compile=compile_, ema_decay=ema_decay)
    assert (run.measured_model in compiled) == (run.model in compiled) == compile_
