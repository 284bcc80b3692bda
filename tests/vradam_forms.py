"""The forms of VRAdam's step, parameters and gradients to try them on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

FORMS: dict[str, dict[str, Any]] = {
    "reference": {"foreach": False, "fused": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "default": {},
    "reference-capturable": {"foreach": False, "fused": False, "capturable": True},
}

SHAPES = [(5, 3), (7,), (2, 2, 2), (), (64, 65), (0, 3)]
LOUD = {"lr": 0.01, "beta3": 0.5, "alpha1": 4.0, "weight_decay": 0.02}
"""Settings under which the gate moves between its ends on standard normal gradients of a few dozen numbers."""

forms = pytest.mark.parametrize("form", FORMS)


def make(dtype: torch.dtype = torch.float64, seed: int = 0, shapes: list[tuple[int, ...]] = SHAPES) -> list[Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=noise, dtype=dtype).requires_grad_() for s in shapes]


def set_grads(params: list[Tensor], step: int, scale: float = 1.0) -> None:
    noise = torch.Generator().manual_seed(1000 + step)
    for p in params:
        p.grad = (scale * torch.randn(p.shape, generator=noise, dtype=p.dtype)).to(p.device)


def train(params: list[Tensor], optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> list[Tensor]:
    for step in range(first, first + steps):
        set_grads(params, step, scale=0.05 + (step % 7) / 7)
        optimizer.step()
    return params


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    """Largest difference, relative to the largest number."""
    top = max(float(y.detach().abs().max()) for y in b if y.numel())
    return max(float((x - y).detach().abs().max()) for x, y in zip(a, b, strict=True) if y.numel()) / top
