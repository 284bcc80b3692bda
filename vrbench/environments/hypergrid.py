"""torchgfn's HyperGrid as index arithmetic: states are integers, so that a whole batch of walks is a few tensor ops.

States are numbered as in torchgfn: index = Σ_d x_d · height^(ndim-1-d), the start is 0. The sink, where every walk
ends, gets the number after the last state. Actions 0 … ndim-1 add 1 to a coordinate, action ndim stops.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional

from vrbench.environments.rewards import REWARDS

LARGEST_GRID = 2**24
_OF_EVERY_REWARD = {"R0", "R1", "R2"}
_CHUNK = 2**16


@dataclass(frozen=True)
class StateFacts:
    """What is known of some states beforehand."""

    encoded: Tensor
    """(rows, ndim, height) one-hot coordinates, the input of a model."""
    moves: Tensor
    """(rows, ndim + 1) bool: the actions that may be taken; stopping always may."""
    parents: Tensor
    """(rows, ndim) bool: the actions that may have led here; none at the start."""


@dataclass
class Grid:
    """A HyperGrid of `height`^`ndim` states with its rewards and modes; see `hypergrid`."""

    ndim: int
    height: int
    rewards: Tensor
    """(states,) float64, all positive."""
    modes: Tensor
    """(states,) bool: the cells whose reward is that of a mode."""

    def __post_init__(self) -> None:
        device = self.rewards.device
        self.strides = self.height ** torch.arange(self.ndim - 1, -1, -1, device=device)
        self.log_rewards = torch.cat([self.rewards.log(), self.rewards.new_zeros(1)])
        """(states + 1,) float64; 0 at the sink."""

    @property
    def states(self) -> int:
        return self.rewards.numel()

    @property
    def sink(self) -> int:
        return self.states

    @property
    def stop(self) -> int:
        """The action that ends a walk."""
        return self.ndim

    @property
    def longest(self) -> int:
        """Actions of the longest walk, the stop among them."""
        return self.ndim * (self.height - 1) + 1

    @property
    def log_z(self) -> float:
        """log Σ_x R(x)."""
        return float(self.rewards.sum().log())

    @cached_property
    def children(self) -> Tensor:
        """(states + 1, ndim + 1): where an action leads; the sink where it stops, may not be taken, or starts there."""
        states = torch.arange(self.states, device=self.rewards.device)
        moved = functional.pad(states.unsqueeze(-1) + self.strides, (0, 1))
        allowed = self.moves(states)
        allowed[:, self.stop] = False
        return functional.pad(torch.where(allowed, moved, self.sink), (0, 0, 0, 1), value=self.sink)

    def to(self, device: torch.device) -> Grid:
        return Grid(self.ndim, self.height, self.rewards.to(device), self.modes.to(device))

    def coordinates(self, states: Tensor) -> Tensor:
        """(…,) state numbers → (…, ndim) coordinates; the sink gives coordinates of no meaning."""
        return states.unsqueeze(-1).div(self.strides, rounding_mode="floor") % self.height

    def moves(self, states: Tensor) -> Tensor:
        """(…,) → (…, ndim + 1) bool; see `StateFacts`."""
        return functional.pad(self.coordinates(states) < self.height - 1, (0, 1), value=True)

    def parents(self, states: Tensor) -> Tensor:
        """(…,) → (…, ndim) bool; see `StateFacts`."""
        return self.coordinates(states) > 0

    def look_up(self, states: Tensor) -> StateFacts:
        encoded = functional.one_hot(self.coordinates(states), self.height)
        return StateFacts(encoded, self.moves(states), self.parents(states))

    @cached_property
    def facts(self) -> StateFacts:
        """Of all states."""
        return self.look_up(torch.arange(self.states, device=self.rewards.device))


def hypergrid(ndim: int, height: int, reward: str, reward_params: dict[str, Any]) -> Grid:
    """The grid with one of `REWARDS` and its modes, in float64 of what the reward gives in torch's default dtype.

    R0, R1 and R2, which the task's YAML states, may be given to every reward; one without them passes them over.
    Raises ValueError for sizes out of range, an unknown reward or parameter, and a reward that is not positive
    everywhere (its logarithm is a target).
    """
    if ndim < 1:
        raise ValueError(f"ndim={ndim}: must be 1 or more")
    if height < 2:
        raise ValueError(f"height={height}: must be 2 or more")
    if height**ndim > LARGEST_GRID:
        raise ValueError(f"height={height}: {height}^{ndim} states are too many, at most {LARGEST_GRID} will do")
    if reward not in REWARDS:
        raise ValueError(f"reward={reward}: must be one of {', '.join(REWARDS)}")
    takes = [name for name in inspect.signature(REWARDS[reward]).parameters if name not in ("x", "height")]
    for name in sorted(reward_params.keys() - takes - _OF_EVERY_REWARD):
        offer = f"takes {', '.join(takes)}" if takes else "has none"
        raise ValueError(f"reward_params.{name}={reward_params[name]}: no such parameter; reward={reward} {offer}")
    given = {name: value for name, value in reward_params.items() if name in takes}
    rewards = torch.empty(height**ndim, dtype=torch.float64)
    modes = torch.empty(height**ndim, dtype=torch.bool)
    axes = Grid(ndim, height, rewards[:1], modes[:1])
    for chunk in torch.arange(height**ndim).split(_CHUNK):
        try:
            values, lowest_mode = REWARDS[reward](axes.coordinates(chunk), height, **given)
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"reward_params={reward_params}: reward={reward} does not take them: {error}") from error
        rewards[chunk] = values.double()
        modes[chunk] = values >= lowest_mode
    lowest = float(rewards.min())
    if not lowest > 0:
        count = int((~(rewards > 0)).sum())
        raise ValueError(
            f"reward_params={reward_params}: the reward must be positive and is {lowest:g} at {count} of "
            f"{len(rewards)} states; raise R0"
        )
    return Grid(ndim, height, rewards, modes)


def walk(grid: Grid, cumulative: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Walks from the start by inverse-CDF sampling, all at once.

    Args:
        grid: on the device of the tensors.
        cumulative: (states + 1, ndim) running sums of the probabilities of the moves; what is left over is the stop,
            and the last row, the sink's, is 0.
        uniform: (longest, walks) numbers in [0, 1).

    Returns: states (longest + 1, walks) filled up with the sink, and actions (longest, walks) filled up with the stop.
    """
    steps, walks = uniform.shape
    children = grid.children.flatten()
    states = uniform.new_empty((steps + 1, walks), dtype=torch.int64)
    actions = torch.empty_like(states[1:])
    state = states[0].zero_()
    for step, draw in enumerate(uniform.unsqueeze(-1).unbind()):
        action = torch.sum(cumulative.index_select(0, state) <= draw, -1, out=actions[step])
        edge = action.add(state, alpha=grid.ndim + 1)
        state = torch.index_select(children, 0, edge, out=states[step + 1])
    return states, actions


def uniform_walks(grid: Grid, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """`count` walks of the policy that takes every allowed action with the same probability; shapes as in `walk`."""
    state = torch.zeros(count, dtype=torch.int64, device=grid.rewards.device)
    states, actions = [state], []
    offsets = functional.pad(grid.strides, (0, 1))
    for _ in range(grid.longest):
        allowed = grid.moves(state)
        draw = torch.rand(allowed.shape, generator=generator, device=generator.device).to(state.device)
        action = torch.where(allowed, draw, -1.0).argmax(-1)
        action = torch.where(state == grid.sink, grid.stop, action)
        state = torch.where(action == grid.stop, grid.sink, state + offsets[action])
        states.append(state)
        actions.append(action)
    return torch.stack(states), torch.stack(actions)


def terminal_distribution(grid: Grid, policy: Tensor) -> Tensor:
    """The exact distribution of the last state of a walk, by forward dynamic programming over the levels Σ_d x_d.

    Args:
        policy: (states, ndim + 1) probabilities, 0 for actions that may not be taken.

    Returns: (states,) float64 that sums to 1, on the CPU.
    """
    policy = policy.double().cpu()
    strides = grid.strides.cpu()
    everything = torch.arange(grid.states)
    level = (everything.unsqueeze(-1).div(strides, rounding_mode="floor") % grid.height).sum(-1)
    reach = torch.zeros(grid.states, dtype=torch.float64)
    reach[0] = 1.0
    order = level.argsort(stable=True)
    for here in order.split(torch.bincount(level).tolist()):
        leaving = reach[here, None] * policy[here]
        for dimension, stride in enumerate(strides.tolist()):
            allowed = leaving[:, dimension] > 0
            reach.index_add_(0, here[allowed] + stride, leaving[allowed, dimension])
    return reach * policy[:, grid.stop]
