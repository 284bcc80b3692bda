"""ADOPT (arXiv 2411.02853) with the clipping of its authors, which a YAML cannot say: it is a function of the step."""

from __future__ import annotations

from typing import Any

from torch.optim.optimizer import Optimizer

from .rule import require


def adopt(params: Any, *, clip_power: float | None, **settings: Any) -> Optimizer:
    """pytorch_optimizer's ADOPT whose normalised gradients are held within ±t^clip_power in step t (null: not at all).

    arXiv 2411.02853, Algorithm 2 with clip_power 0.25. `settings` are the library's arguments, but for `clip_lambda`.

    Raises:
        ValueError: `clip_power` is below 0, or a setting of the library is out of range.
    """
    from pytorch_optimizer import ADOPT

    require("clip_power", clip_power, "at least 0, or null", clip_power is None or clip_power >= 0)
    clip: Any = None if clip_power is None else lambda step: step**clip_power
    return ADOPT(params, clip_lambda=clip, **settings)
