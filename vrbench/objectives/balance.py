"""The balance losses of a GFlowNet on state numbers: what vrbench.tasks.hypergrid regresses.

They are torchgfn's, number for number (the tests compare values and gradients), as pure functions of two tables: what
the model says of some states, and the walks that were taken. All logarithms are natural.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vrbench.environments.hypergrid import Grid


@dataclass
class Heads:
    """What the model says of some states, ready for lookup: row r is of `states[r]`, the last row of the sink."""

    grid: Grid
    states: Tensor
    """(rows,) sorted state numbers."""
    log_pf: Tensor
    """(rows + 1, ndim + 1) log P_F(action | state), -inf where not allowed, 0 at the sink."""
    log_pb: Tensor
    """(rows + 1, ndim + 1) log P_B of the action that led here; 0 in the stop's column and at the sink."""
    log_flow: Tensor
    """(rows + 1,) log F(state), 0 at the sink; zeros where the loss has no state flow."""
    log_edges: Tensor
    """(rows, ndim + 1) log F(state, action), -inf where not allowed: the policy's logits before the softmax."""
    log_z: Tensor
    """() or (1,) log Z."""

    def row(self, states: Tensor) -> Tensor:
        """State numbers → rows; the sink goes to the last row."""
        if len(self.states) == self.grid.states:
            return states
        return torch.searchsorted(self.states, states)


@dataclass
class Walks:
    """A set of complete walks; see `vrbench.environments.hypergrid.walk` for the padding."""

    states: Tensor
    """(steps + 1, walks)."""
    actions: Tensor
    """(steps, walks)."""
    mean_length: Tensor | None = None
    """() actions of a walk, the stop among them, on average over the set that this is a part of."""

    def lengths(self, grid: Grid) -> Tensor:
        """(walks,) number of actions, the stop among them."""
        return (self.states != grid.sink).sum(0)

    def last(self, grid: Grid) -> Tensor:
        """(walks,) the states that the walks stopped in."""
        return self.states.gather(0, self.lengths(grid).unsqueeze(0) - 1).squeeze(0)

    def total(self, lengths: Tensor) -> Tensor:
        """() number of actions that means over steps are taken by."""
        return lengths.sum() if self.mean_length is None else self.mean_length * len(lengths)


def step_residuals(heads: Heads, walks: Walks) -> Tensor:
    """(steps, walks): log P_F(s'|s) − log P_B(s|s'), less log R(s) where the walk stops in s; 0 in the padding."""
    width = heads.grid.ndim + 1
    rows, actions = heads.row(walks.states) * width, walks.actions
    forward = heads.log_pf.flatten()[rows[:-1] + actions]
    backward = heads.log_pb.flatten()[rows[1:] + actions]
    rewards = heads.grid.log_rewards[walks.states[:-1]].to(forward.dtype)
    return forward - backward - torch.where(actions == heads.grid.stop, rewards, 0.0)


def trajectory_balance(heads: Heads, walks: Walks) -> Tensor:
    """Mean over walks of (log Z + Σ log P_F − log R − Σ log P_B)². Malkin et al. 2022, arXiv 2201.13259, eq. 14."""
    return (heads.log_z + step_residuals(heads, walks).sum(0)).square().mean()


def detailed_balance(heads: Heads, walks: Walks) -> Tensor:
    """Mean over steps of (log F(s) P_F(s'|s) − log F(s') P_B(s|s'))², with F = R behind a stop.

    Bengio et al. 2021, arXiv 2111.09266, section 3.2.
    """
    flow = heads.log_flow[heads.row(walks.states)]
    residuals = flow[:-1] + step_residuals(heads, walks) - flow[1:]
    return residuals.square().sum() / walks.total(walks.lengths(heads.grid))


def sub_trajectory_balance(heads: Heads, walks: Walks, decay: float) -> Tensor:
    """Detailed balance over every stretch of a walk, a stretch of k steps weighted by decay^(k-1) within its walk.

    With u_k = log F(s_k) − Σ_{t<k} step_residual_t, the residual from i to j is u_i − u_j: all pairs at once.
    Madan et al. 2022, arXiv 2209.12782, eq. 9 (torchgfn's `geometric_within`).
    """
    steps = step_residuals(heads, walks)
    flow = heads.log_flow[heads.row(walks.states)]
    level = flow - functional.pad(steps.cumsum(0), (0, 0, 1, 0))
    places = torch.arange(len(level), device=level.device)
    stretch = places - places.unsqueeze(1)  # [i, j]: steps from i to j
    weights = torch.where(stretch > 0, decay ** (stretch - 1).clamp(min=0).to(level.dtype), 0.0)
    reached = (places.unsqueeze(1) <= walks.lengths(heads.grid)).to(level.dtype)  # [j, walk]
    weights = weights.unsqueeze(-1) * reached
    squares = (level.unsqueeze(1) - level).square()
    return ((weights * squares).sum((0, 1)) / weights.sum((0, 1))).mean()


def flow_matching(heads: Heads, walks: Walks, reward_weight: float) -> Tensor:
    """Mean (log inflow − log outflow)² of visited states, and mean (log F(s → stop) − log R(s))² where walks stopped.

    Bengio et al. 2021, arXiv 2106.04399, eq. 12 with the reward matched apart, as in torchgfn; the start, which has no
    inflow, is left out of the first mean.
    """
    grid, edges = heads.grid, heads.log_edges
    visited, counts = torch.unique(walks.states, return_counts=True)
    inner = (visited > 0) & (visited < grid.sink)
    visited, counts = visited[inner], counts[inner]
    allowed = grid.parents(visited)
    parents = torch.where(allowed, visited.unsqueeze(-1) - grid.strides, 0)
    incoming = edges[heads.row(parents), torch.arange(grid.ndim, device=edges.device)]
    inflow = incoming.masked_fill(~allowed, -torch.inf).logsumexp(-1)
    outflow = edges[heads.row(visited)].logsumexp(-1)
    lengths = walks.lengths(grid)
    steps = (walks.total(lengths) - len(lengths)).clamp(min=1)
    last = walks.last(grid)
    stopping = edges[heads.row(last), grid.stop] - grid.log_rewards[last].to(edges.dtype)
    return ((inflow - outflow).square() * counts).sum() / steps + reward_weight * stopping.square().mean()


@dataclass(frozen=True)
class Objective:
    """A loss and what it needs of the model."""

    function: Callable[..., Tensor]
    backward: bool = True
    """Whether it has a backward policy."""
    state_flow: bool = False
    log_z: bool = False
    option: str | None = None
    """The task's option that the function takes after heads and walks."""


OBJECTIVES = {
    "flow_matching": Objective(flow_matching, backward=False, option="reward_weight"),
    "trajectory_balance": Objective(trajectory_balance, log_z=True),
    "detailed_balance": Objective(detailed_balance, state_flow=True),
    "sub_trajectory_balance": Objective(sub_trajectory_balance, state_flow=True, option="decay"),
}
