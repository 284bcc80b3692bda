"""GridWorld tasks and a small model for tests."""

from __future__ import annotations

import torch
from vrbench.tasks.gridworld import GridWorldFlow

from vrbench.models.gridworld_conv import GridWorldConv

WEIGHTS = {"lines": 10.0, "coverage": 5.0, "novelty": 3.0, "symmetry": 4.0}


def make_task(**changes: object) -> GridWorldFlow:
    arguments = {
        "name": "gridworld", "size": 8, "max_moves": 64, "reward_weights": WEIGHTS, "reward_temperature": 1.0,
        "mask_invalid": False, "flow_weight": 1.0, "reward_weight": 1.0, "entropy_weight": 0.01, "batch_size": 64,
        "batches_per_epoch": 10, "eval_walks": 64,
    }  # fmt: skip
    return GridWorldFlow(**{**arguments, **changes})


def small_model(task: GridWorldFlow) -> GridWorldConv:
    torch.manual_seed(0)
    return GridWorldConv(task.input_shape, task.output_dim, channels=[4, 8], hidden=16)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
