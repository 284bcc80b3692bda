"""Muon: which parameters it takes, and at which rate."""

from __future__ import annotations

import pytest
from each_optimizer import build, quadratic
from torch import nn


def test_muon_splits_by_shape() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3))
    optimizer = build("muon", [{"params": list(model.parameters())[:2], "lr": 0.5}, {"params": model[3].weight},
                               {"params": [model[3].bias], "use_muon": False}])  # fmt: skip
    kinds = [(g["use_muon"], [p.ndim for p in g["params"]], g["lr"]) for g in optimizer.param_groups]
    assert kinds == [(True, [4], 0.5), (False, [1], 0.5), (True, [2], 0.02), (False, [1], 1e-3)]
    with pytest.raises(ValueError, match="params is empty"):
        build("muon", [])


def test_a_typo_is_refused() -> None:
    with pytest.raises(Exception, match="betta3"):
        build("vradam", quadratic()[0], betta3=2.0)
