"""HyperGrid tasks and models for tests, and a grid whose exact flow is worked by hand."""

from __future__ import annotations

import torch
from vrbench.tasks.hypergrid import HyperGrid

from vrbench.environments.hypergrid import Grid
from vrbench.models.gflownet_mlp import GFlowNetMLP

ORIGINAL = {"R0": 0.1, "R1": 0.5, "R2": 2.0}

OPTIONS = {"decay": 0.8, "reward_weight": 0.7}


def make_task(loss: str = "trajectory_balance", **changes: object) -> HyperGrid:
    arguments = {
        "name": "hypergrid", "ndim": 2, "height": 8, "reward": "original", "reward_params": ORIGINAL, "loss": loss,
        "backward": "learned", **OPTIONS, "epsilon": 0.05, "log_z_lr": 0.1, "batch_size": 16, "batches_per_epoch": 100,
        "exact_states": 200_000, "eval_walks": 20_000,
    }  # fmt: skip
    return HyperGrid(**{**arguments, **changes})


def make_model(task: HyperGrid, **changes: object) -> GFlowNetMLP:
    torch.manual_seed(0)
    arguments = {"hidden": 32, "layers": 2, "activation": "tanh", "tabular": False, "log_z": True}
    return GFlowNetMLP(task.input_shape, task.output_dim, **{**arguments, **changes})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


HAND_REWARDS = [1.0, 2.0, 3.0, 4.0]
"""Of the cells (0,0), (0,1), (1,0), (1,1) of a 2×2 grid. With a uniform backward policy each parent of (1,1) sends half
of its flow of 4: F(0,1) = 2 + 2, F(1,0) = 3 + 2, F(0,0) = 1 + 4 + 5 = 10 = Z."""

HAND_EDGES = [[5.0, 4.0, 1.0], [2.0, 0.0, 2.0], [0.0, 2.0, 3.0], [0.0, 0.0, 4.0]]
"""Flow of +x, +y, stop out of each cell; a forbidden move has none."""


def hand_worked(loss: str) -> tuple[HyperGrid, GFlowNetMLP]:
    """The grid of HAND_REWARDS and a table that holds its exact flow."""
    task = make_task(loss, height=2)
    task.grid = Grid(2, 2, torch.tensor(HAND_REWARDS, dtype=torch.float64), torch.zeros(4, dtype=torch.bool))
    model = make_model(task, tabular=True).double()
    edges = torch.tensor(HAND_EDGES, dtype=torch.float64)
    flow = edges.sum(1)
    with torch.no_grad():
        columns = model.net.weight
        columns[:, :3] = edges.clamp(min=1e-3).log()  # what stands at a forbidden move must not matter
        if task.objective.state_flow:
            columns[:, -1] = flow.log()
        model.log_z.fill_(torch.tensor(10.0).double().log())
    return task, model
