"""Every conf/optimizer/*.yaml built as it stands, and a loss to try it on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from vrbench.app.config import SEARCHED
from vrbench.checks.optimizers import quadratic
from vrbench.training.lengths import make_optimizer

__all__ = ["CONFIGS", "build", "quadratic"]

ROOT = Path(__file__).parents[1]
CONFIGS = {path.stem: path for path in sorted((ROOT / "conf/optimizer").glob("*.yaml"))}


def build(config: str, params: Any, **overrides: Any) -> torch.optim.Optimizer:
    node = OmegaConf.load(CONFIGS[config])
    assert isinstance(node, DictConfig)
    node.pop(SEARCHED, None)
    return make_optimizer(instantiate(node, **overrides), params, 400, 10)
