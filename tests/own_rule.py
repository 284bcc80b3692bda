"""An optimizer of a user's own, edited between two runs; and a run that is stopped at a step."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

OWN = """
import torch

class Mine(torch.optim.SGD):
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.data.add_(p.grad, alpha=-SIGN * group["lr"])
"""


def edit(path: Path) -> None:
    """Flip the sign, as whoever develops an optimizer would, and be the next process."""
    path.write_text(path.read_text().replace("alpha=-1", "alpha=--1"))
    sys.modules.pop("my_rule", None)


def stop_at(step: int, call: Callable[..., int], monkeypatch: pytest.MonkeyPatch, *overrides: str) -> None:
    """Begin a run and stop it after a step, with its checkpoint."""
    from vrbench.training.trainer import Trainer

    with monkeypatch.context() as patch:
        really = Trainer.fit

        def fit(self: Trainer, writer: Any, should_stop: Any) -> Any:
            return really(self, writer, lambda: self.step == step)

        patch.setattr(Trainer, "fit", fit)
        assert call(*overrides) == 0
