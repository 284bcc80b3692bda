"""The VRAdam paper's GFlowNet experiment: a policy that draws a rewarding path on a grid.

Environment, loss and metrics follow arXiv 2505.13196 and its code; where those leave a choice open, the docstrings here
say which was taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from vrbench.contracts import Batch
from vrbench.environments.gridworld import ACTIONS, STOP, GridWorld, RewardWeights, Walks, diversity
from vrbench.environments.heatmaps import heatmaps

_PROBE_SEED = 7_101
_EVAL_SEEDS = {"val": 7_102, "test": 7_103}
_CHUNK = 4096


@dataclass
class Visited:
    """Every state of a set of walks as one batch, walk by walk in the order of time."""

    visits: Tensor
    """(rows, cells) visit counts."""
    cells: Tensor
    """(rows,) position."""
    moves: Tensor
    """(rows,) moves made before."""
    actions: Tensor
    """(rows,) the action taken here; a stop where the walk ended, by itself or for want of moves."""
    last: Tensor
    """(rows,) bool: where the walk ended."""


@dataclass
class Heads:
    """What the model says of the states of `Visited`."""

    log_pf: Tensor
    """(rows, 5) log P_F(action | state), -inf where masked."""
    log_pb: Tensor
    """(rows, 5) log P_B of the action that led here, -inf where masked."""
    flow: Tensor
    """(rows,) F(state), above 0."""


def flow_errors(heads: Heads, visited: Visited, rewards: Tensor, at_stop: bool) -> tuple[Tensor, Tensor]:
    """Squared flow-matching errors: (walks,) where the walks ended, (moves,) along the paths.

    Along a path (F(s) P_F(a|s) − F(s') P_B(a|s'))²; at its end (F(s) − R)², or with `at_stop` (F(s) P_F(stop|s) − R)²,
    which is what a flow has to match where a path may also go on from s.
    """
    taken = heads.log_pf.gather(1, visited.actions.unsqueeze(1)).squeeze(1).exp()
    leaving = heads.flow * taken
    moving = (~visited.last).nonzero().squeeze(1)
    came_by = heads.log_pb[moving + 1].gather(1, visited.actions[moving].unsqueeze(1)).squeeze(1).exp()
    along = leaving[moving] - heads.flow[moving + 1] * came_by
    ending = (leaving if at_stop else heads.flow)[visited.last] - rewards
    return ending.square(), along.square()


class GridWorldFlow:
    """Flow matching on the paper's GridWorld; see `vrbench.environments.gridworld` for the environment.

    The model takes (3, size, size) states and gives 11 columns: forward logits (5), backward logits (5), and the state
    flow before its softplus. The loss is

        flow_weight · flow_matching − reward_weight · mean reward − entropy_weight · entropy,

    flow_matching = mean over walks of the end's squared error + mean over moves of the path's, see `flow_errors`, with
    R / reward_temperature as the reward; entropy = mean over visited states of the entropy of P_F. As published, the
    mean reward is a number to the optimizer: the walks are sampled, so no gradient flows through it.

    `mask_invalid=false` is as published: moves clamp at the border, every action has a parent, and a path's end is
    matched by F(s) itself. `mask_invalid=true` masks moves off the grid and parents that cannot be, allows the stop
    alone after `max_moves`, and matches the reward at the stop's edge: then a flow with zero error exists.

    Val and test are walks of the current policy, each with a fixed seed of its own; there is no data to hold out.
    The host waits for the device in each step: after a move it has to know which walks still move, and then how many
    states the walks have, since the model is asked about as many.
    Metrics: `loss`, `flow_matching` (unweighted), `reward_mean`, `reward_max`, `diversity` (mean share of cells in
    which two paths differ), `entropy` (nats), `length` (moves).
    """

    metric = "val/flow_matching"
    direction: Literal["min", "max"] = "min"
    output_dim = 2 * len(ACTIONS) + 1

    def __init__(
        self,
        name: str,
        size: int,
        max_moves: int,
        reward_weights: dict[str, float],
        reward_temperature: float,
        mask_invalid: bool,
        flow_weight: float,
        reward_weight: float,
        entropy_weight: float,
        batch_size: int,
        batches_per_epoch: int,
        eval_walks: int,
    ) -> None:
        if not 0 < reward_temperature < float("inf"):
            raise ValueError(f"reward_temperature={reward_temperature}: must be a finite number above 0")
        weights = {"flow_weight": flow_weight, "reward_weight": reward_weight, "entropy_weight": entropy_weight}
        for key, value in weights.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{key}={value}: must be a finite number, 0 or more")
        counts = {"batch_size": batch_size, "batches_per_epoch": batches_per_epoch, "eval_walks": eval_walks}
        for key, value in counts.items():
            if value < 1:
                raise ValueError(f"{key}={value}: must be 1 or more")
        self.name = name
        self.size, self.max_moves = size, max_moves
        self.reward_weights = RewardWeights(**reward_weights)
        self.world = GridWorld(size, max_moves, self.reward_weights)
        self.reward_temperature = reward_temperature
        self.mask_invalid = mask_invalid
        self.flow_weight, self.reward_weight, self.entropy_weight = flow_weight, reward_weight, entropy_weight
        self.batch_size = batch_size
        self.batches_per_epoch = batches_per_epoch
        self.eval_walks = eval_walks
        self.units_per_batch = {"walks": batch_size}
        self.input_shape: tuple[int, ...] = (3, size, size)
        self.device = torch.device("cpu")

    # ---- the contract -----------------------------------------------------------------------------------------------

    def to(self, device: torch.device) -> None:
        self.world = GridWorld(self.size, self.max_moves, self.reward_weights, device)
        self.device = device

    def train_batches(self, order: Generator, augment: Generator, start: int = 0) -> Iterator[Batch]:
        """The cells that the walks of a step begin in: always the centre."""
        batch = torch.full((self.batch_size,), self.world.start, device=self.device)
        for _ in range(start, self.batches_per_epoch):
            yield batch

    def loss(self, model: nn.Module, batch: Batch, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss on fresh walks of the model's policy.

        A batch of `probe_batches` holds walks, and the loss on them is a deterministic function of the parameters.
        Raises ValueError where the model has not the 11 outputs.
        """
        if isinstance(batch, dict):
            walks, moves = Walks(batch["cells"].T, batch["actions"].T), batch["mean_moves"][0] * len(batch["cells"])
        else:
            walks, moves = self.sample(model, len(batch), generator), None
        return self._loss_on(model, walks, moves)

    def evaluate(self, model: nn.Module, split: Literal["val", "test"]) -> dict[str, float]:
        generator = torch.Generator(self.device).manual_seed(_EVAL_SEEDS[split])
        walks = self.sample(model, self.eval_walks, generator)
        loss, metrics = self._loss_on(model, walks, None)
        visits = self.world.visits(walks)
        return {
            "loss": float(loss),
            **{key: float(value) for key, value in metrics.items()},
            "reward_max": float(self.world.rewards(visits).max()),
            "diversity": float(diversity(visits)),
        }

    def probe_batches(self, size: int, microbatch: int) -> list[tuple[float, Batch]]:
        """`size` fixed walks of a uniform policy, in chunks; see `loss`."""
        walks = self._uniform_walks(size, torch.Generator(self.device).manual_seed(_PROBE_SEED))
        mean = (walks.cells < self.world.cells).float().sum() / size - 1
        columns = {"cells": walks.cells.T, "actions": walks.actions.T, "mean_moves": mean.expand(size)}
        return [
            (
                len(range(begin, min(begin + microbatch, size))) / size,
                {key: value[begin : begin + microbatch].contiguous() for key, value in columns.items()},
            )
            for begin in range(0, size, microbatch)
        ]

    def render(self, model: nn.Module) -> Tensor:
        """The visit counts of eight walks of the policy, on one colour scale."""
        walks = self.sample(model, 8, torch.Generator(self.device).manual_seed(_EVAL_SEEDS["val"]))
        return heatmaps(self.world.visits(walks).view(-1, self.size, self.size).cpu(), side=96)

    # ---- the parts --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sample(self, model: nn.Module, count: int, generator: Generator) -> Walks:
        """Walks of the model's forward policy."""

        def probabilities(visits: Tensor, cells: Tensor, moves: int) -> Tensor:
            logits = self._output(model, visits, cells)[:, : len(ACTIONS)]
            if self.mask_invalid:
                logits = logits.masked_fill(~self.world.allowed(cells, moves), -torch.inf)
            return logits.softmax(-1)

        return self.world.policy_walks(probabilities, count, generator)

    def _uniform_walks(self, count: int, generator: Generator) -> Walks:
        if not self.mask_invalid:
            return self.world.random_walks(count, generator)

        def probabilities(visits: Tensor, cells: Tensor, moves: int) -> Tensor:
            allowed = self.world.allowed(cells, moves)
            return allowed / allowed.sum(-1, keepdim=True)

        return self.world.policy_walks(probabilities, count, generator)

    def visited(self, walks: Walks) -> Visited:
        """Lay the states of the walks out as one batch."""
        world = self.world
        cells = walks.cells.T  # walk by walk
        there = cells < world.cells
        lengths = there.sum(1)
        actions = functional.pad(walks.actions.T, (0, 1), value=STOP)
        steps = torch.arange(cells.shape[1], device=cells.device)
        last = steps == (lengths - 1).unsqueeze(1)
        return Visited(
            visits=world.history(walks).transpose(0, 1)[there],
            cells=cells[there],
            moves=steps.expand_as(cells)[there],
            actions=torch.where(last, STOP, actions)[there],
            last=last[there],
        )

    def heads(self, model: nn.Module, visited: Visited) -> Heads:
        """Evaluate the model on every visited state and read its columns."""
        output = torch.cat(
            [
                self._output(model, visits, cells)
                for visits, cells in zip(visited.visits.split(_CHUNK), visited.cells.split(_CHUNK), strict=True)
            ]
        )
        width = len(ACTIONS)
        forward, backward, flow = output[:, :width], output[:, width : 2 * width], output[:, 2 * width]
        if self.mask_invalid:
            forward = forward.masked_fill(~self.world.allowed(visited.cells, visited.moves), -torch.inf)
            arrivals = self.world.arrivals(visited.visits, visited.cells)
            backward = backward.masked_fill(~arrivals & (visited.moves > 0).unsqueeze(1), -torch.inf)
        return Heads(forward.log_softmax(-1), backward.log_softmax(-1), functional.softplus(flow))

    def _output(self, model: nn.Module, visits: Tensor, cells: Tensor) -> Tensor:
        dtype = next(model.parameters()).dtype
        output = model(self.world.observe(visits, cells).to(dtype))
        if output.shape != (len(cells), self.output_dim):
            raise ValueError(
                f"the loss needs outputs of shape {(len(cells), self.output_dim)}, the model gives "
                f"{tuple(output.shape)}; take model=gridworld_conv"
            )
        return output.to(torch.promote_types(output.dtype, torch.float32))

    def _loss_on(self, model: nn.Module, walks: Walks, moves: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """`moves` is what means over moves are taken by, where the walks are a part of a larger set."""
        visited = self.visited(walks)
        heads = self.heads(model, visited)
        rewards = self.world.rewards(visited.visits[visited.last]).to(heads.flow.dtype)
        ending, along = flow_errors(heads, visited, rewards / self.reward_temperature, self.mask_invalid)
        count = torch.as_tensor(len(along), device=self.device) if moves is None else moves
        matching = ending.mean() + along.sum() / count.clamp(min=1)
        entropy = -(heads.log_pf.exp() * heads.log_pf.clamp(min=torch.finfo(heads.log_pf.dtype).min)).sum(1)
        entropy_mean = entropy.sum() / (count + len(ending))
        reward = rewards.mean()
        loss = self.flow_weight * matching - self.reward_weight * reward - self.entropy_weight * entropy_mean
        return loss, {
            "flow_matching": matching.detach(),
            "reward_mean": reward,
            "entropy": entropy_mean.detach(),
            "length": torch.as_tensor(len(along) / len(ending)),
        }
