"""torchgfn's own losses on our walks and our model: the oracle of vrbench.tasks.hypergrid."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from vrbench.tasks.hypergrid import HyperGrid

from vrbench.objectives.balance import Walks


class _Columns(nn.Module):
    """Some columns of the model's output as a torchgfn module on k-hot states."""

    def __init__(self, model: nn.Module, task: HyperGrid, begin: int, end: int) -> None:
        super().__init__()
        self.model, self.shape, self.columns = model, task.input_shape, slice(begin, end)
        self.input_dim, self.output_dim = task.grid.ndim * task.grid.height, end - begin

    def forward(self, states: Tensor) -> Tensor:
        output = self.model(states.reshape(-1, *self.shape))[:, self.columns]
        return output.reshape(*states.shape[:-1], -1)


def torchgfn_parts(task: HyperGrid, model: nn.Module, loss: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """torchgfn's environment and its GFlowNet for the loss, on the task's rewards and the model's columns."""
    from gfn.estimators import DiscretePolicyEstimator, ScalarEstimator
    from gfn.gflownet import DBGFlowNet, FMGFlowNet, SubTBGFlowNet, TBGFlowNet
    from gfn.gym import HyperGrid as Environment
    from gfn.preprocessors import KHotPreprocessor
    from gfn.utils.modules import DiscreteUniform

    ndim, height = task.grid.ndim, task.grid.height
    environment = Environment(ndim, height, "original", {"R0": 0.1, "R1": 0.5, "R2": 2.0}, validate_modes=False)
    khot = KHotPreprocessor(height, ndim)

    def policy(module: nn.Module, backward: bool = False) -> Any:
        return DiscretePolicyEstimator(module, ndim + 1, preprocessor=khot, is_backward=backward)

    forward = policy(_Columns(model, task, 0, ndim + 1))
    if loss == "flow_matching":
        return environment, FMGFlowNet(forward, alpha=options["reward_weight"])
    learned = _Columns(model, task, ndim + 1, 2 * ndim + 1)
    backward = policy(learned if task.learned_backward else DiscreteUniform(ndim), backward=True)
    if loss == "trajectory_balance":
        network = TBGFlowNet(forward, backward)
        network.logZ = model.log_z
        return environment, network
    flow = ScalarEstimator(_Columns(model, task, task.output_dim - 1, task.output_dim), preprocessor=khot)
    if loss == "detailed_balance":
        return environment, DBGFlowNet(forward, backward, flow)
    return environment, SubTBGFlowNet(forward, backward, flow, weighting="geometric_within", lamda=options["decay"])


def torchgfn_loss(task: HyperGrid, model: nn.Module, walks: Walks, loss: str, options: dict[str, Any]) -> Tensor:
    """The loss of the walks as torchgfn computes it."""
    from gfn.containers import Trajectories

    environment, network = torchgfn_parts(task, model, loss, options)
    grid = task.grid
    lengths = walks.lengths(grid)
    longest = int(lengths.max())
    states = walks.states[: longest + 1]
    coordinates = torch.where((states == grid.sink).unsqueeze(-1), -1, grid.coordinates(states))
    padding = torch.arange(longest).unsqueeze(1) >= lengths
    actions = walks.actions[:longest].masked_fill(padding, -1)
    trajectories = Trajectories(
        environment,
        environment.states_from_tensor(coordinates),
        environment.actions_from_tensor(actions.unsqueeze(-1)),
        lengths,
        log_rewards=grid.log_rewards[walks.last(grid)].to(torch.get_default_dtype()),
    )
    return network.loss_from_trajectories(environment, trajectories, recalculate_all_logprobs=True)
