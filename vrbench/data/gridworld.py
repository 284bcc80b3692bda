"""The GridWorld of the VRAdam paper's GFlowNet experiment, for whole batches of walks at once.

A walk starts in the centre of a square grid and takes up to `max_moves` moves; what it leaves behind, the visit counts,
is what is rewarded. A cell is a number, row · size + column. A walk that has stopped is *parked*: its cell number is
raised by the number of cells and stays so, which makes a move one table lookup, whatever the walk is doing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

ACTIONS = ("up", "right", "down", "left", "stop")
STOP = 4
_STEPS = ((-1, 0), (0, 1), (1, 0), (0, -1))
_BLOCK = 16
"""Moves drawn ahead for random walks, and between two looks at whether all walks have stopped."""


@dataclass(frozen=True)
class RewardWeights:
    """R = lines · runs/10 + coverage · share of cells filled + novelty · filled/visits + symmetry · mean symmetry.

    `runs` counts the horizontal and vertical windows of three filled cells; a symmetry is the share of cells that equal
    their mirror image, the mean is over left-right and up-down. Source: the authors' code to arXiv 2505.13196.
    """

    lines: float = 10.0
    coverage: float = 5.0
    novelty: float = 3.0
    symmetry: float = 4.0


@dataclass
class Walks:
    """Complete walks: padded with parked cells and stops."""

    cells: Tensor
    """(steps + 1, walks) int64: where each walk is before each action; `cells[0]` is the start."""
    actions: Tensor
    """(steps, walks) int64, numbered as ACTIONS. A walk that ran out of moves has no stop of its own."""


class GridWorld:
    """The rules: moves, masks, rewards and what a policy is shown.

    Raises ValueError for a size below 2, no moves, or a reward that may be 0 or less.
    """

    def __init__(self, size: int, max_moves: int, weights: RewardWeights, device: torch.device | str = "cpu") -> None:
        if size < 2:
            raise ValueError(f"size={size}: must be 2 or more")
        if max_moves < 1:
            raise ValueError(f"max_moves={max_moves}: must be 1 or more")
        if min(weights.lines, weights.coverage, weights.novelty, weights.symmetry) < 0:
            raise ValueError(f"reward_weights={weights}: none may be negative")
        if not weights.coverage + weights.novelty > 0:
            raise ValueError(f"reward_weights={weights}: must make a positive reward; raise coverage or novelty")
        self.size = size
        self.max_moves = max_moves
        self.weights = weights
        self.cells = size * size
        self.start = (size // 2) * size + size // 2
        row, column = torch.arange(self.cells).div(size, rounding_mode="floor"), torch.arange(self.cells) % size
        inside, onto, source = [], [], []
        for down, right in _STEPS:
            inside.append(_within(row + down, column + right, size))
            onto.append((row + down).clamp(0, size - 1) * size + (column + right).clamp(0, size - 1))
            before = (row - down) * size + column - right
            source.append(torch.where(_within(row - down, column - right, size), before, -1))
        parked = torch.arange(self.cells) + self.cells
        self._onto = torch.cat([torch.cat([cells, parked]) for cells in [*onto, parked]]).to(device)
        self._inside = torch.stack([*inside, torch.ones(self.cells, dtype=torch.bool)], -1).to(device)
        self._source = torch.stack(source, -1).to(device)

    # ---- moves ------------------------------------------------------------------------------------------------------

    def step(self, cells: Tensor, actions: Tensor) -> Tensor:
        """(walks,) cells and actions → cells after them: moves clamp at the border, a stop parks, the parked stay."""
        return self._onto.index_select(0, cells.add(actions, alpha=2 * self.cells))

    def random_walks(self, count: int, generator: Generator) -> Walks:
        """Walks of the policy that takes each of the five actions with probability 1/5."""
        device = self._onto.device
        cell = torch.full((count,), self.start, device=device)
        trail, taken = [cell], list[Tensor]()
        while len(taken) < self.max_moves:
            block = min(_BLOCK, self.max_moves - len(taken))
            draws = torch.randint(len(ACTIONS), (block, count), generator=generator, device=device)
            offsets = draws * (2 * self.cells)
            for offset in offsets.unbind():
                cell = self._onto.index_select(0, cell + offset)
                trail.append(cell)
            taken.extend(draws.unbind())
            if bool((cell >= self.cells).all()):
                break
        return Walks(torch.stack(trail), torch.stack(taken))

    def policy_walks(
        self, probabilities: Callable[[Tensor, Tensor, int], Tensor], count: int, generator: Generator
    ) -> Walks:
        """Walks of a policy: `probabilities(visits, cells, moves)` gives (walks, 5) for the walks that still move.

        It is shown (walks, cells) visit counts, the (walks,) cells and the number of moves made so far.
        """
        device = self._onto.device
        cell = torch.full((count,), self.start, device=device)
        visits = self._none(count).scatter_(1, cell.unsqueeze(1), 1.0)
        trail, taken = [cell], []
        for moves in range(self.max_moves):
            moving = (cell < self.cells).nonzero().squeeze(1)
            if len(moving) == 0:
                break
            cumulative = probabilities(visits[moving, : self.cells], cell[moving], moves).cumsum(-1)[:, :STOP]
            draw = torch.rand(count, 1, generator=generator, device=device)
            action = torch.full((count,), STOP, device=device)
            action[moving] = (cumulative <= draw[moving]).sum(-1)
            cell = self.step(cell, action)
            visits.scatter_add_(1, cell.unsqueeze(1), torch.ones_like(draw))
            trail.append(cell)
            taken.append(action)
        return Walks(torch.stack(trail), torch.stack(taken))

    def _none(self, *shape: int) -> Tensor:
        """Zero visits; the second half of the columns takes the visits of the parked and is cut off."""
        return torch.zeros(*shape, 2 * self.cells, device=self._onto.device)

    # ---- masks ------------------------------------------------------------------------------------------------------

    def allowed(self, cells: Tensor, moves: Tensor | int) -> Tensor:
        """(walks,) → (walks, 5) bool: the moves that stay inside, and the stop; the stop alone after `max_moves`."""
        inside = self._inside[cells]
        inside[..., :STOP] &= torch.as_tensor(moves < self.max_moves, device=cells.device).unsqueeze(-1)
        return inside

    def arrivals(self, visits: Tensor, cells: Tensor) -> Tensor:
        """(walks, cells), (walks,) → (walks, 5) bool: the moves that may have led here, from a visited cell."""
        source = self._source[cells]
        from_there = (source >= 0) & (visits.gather(1, source.clamp(min=0)) > 0)
        return functional.pad(from_there, (0, 1))

    # ---- what is seen and what it is worth --------------------------------------------------------------------------

    def visits(self, walks: Walks) -> Tensor:
        """(walks, cells) float32: how often each walk was in each cell, the start included."""
        trail = walks.cells.T
        counts = self._none(len(trail)).scatter_add_(1, trail, torch.ones(trail.shape, device=trail.device))
        return counts[:, : self.cells]

    def history(self, walks: Walks) -> Tensor:
        """(steps + 1, walks, cells) float32: the visit counts before each action."""
        steps = self._none(*walks.cells.shape).scatter_(2, walks.cells.unsqueeze(-1), 1.0)
        return steps[..., : self.cells].cumsum(0)

    def observe(self, visits: Tensor, cells: Tensor) -> Tensor:
        """(walks, cells), (walks,) → (walks, 3, size, size): path (0 or 1), position (one-hot), visit counts."""
        position = torch.zeros_like(visits).scatter_(1, cells.unsqueeze(1), 1.0)
        return torch.stack([(visits > 0).to(visits.dtype), position, visits], 1).unflatten(2, (self.size, self.size))

    def rewards(self, visits: Tensor) -> Tensor:
        """(walks, cells) visit counts → (walks,) rewards, above 0; see `RewardWeights`."""
        weights, size, half = self.weights, self.size, self.size // 2
        filled = visits > 0
        count = filled.sum(1)
        plane = filled.view(-1, size, size)
        runs = visits.new_zeros(())
        if size > 2:
            across = plane[:, :, :-2] & plane[:, :, 1:-1] & plane[:, :, 2:]
            along = plane[:, :-2] & plane[:, 1:-1] & plane[:, 2:]
            runs = across.flatten(1).sum(1) + along.flatten(1).sum(1)
        # A pair of mirror cells differs or not; the middle line of an odd grid is its own mirror image.
        left_right = plane[:, :, :half] ^ plane[:, :, size - half :].flip(2)
        up_down = plane[:, :half] ^ plane[:, size - half :].flip(1)
        unequal = left_right.flatten(1).sum(1) + up_down.flatten(1).sum(1)
        return (
            (weights.lines / 10) * runs
            + (weights.coverage / self.cells) * count
            + weights.novelty * count / visits.sum(1)
            + weights.symmetry * (1 - unequal / self.cells)
        )


def diversity(visits: Tensor) -> Tensor:
    """() mean share of cells in which the paths of two different walks differ (0 for a single walk)."""
    walks, cells = visits.shape
    filled = (visits > 0).sum(0).double()
    pairs = walks * (walks - 1) / 2
    return (filled * (walks - filled)).sum() / (max(pairs, 1) * cells)


def _within(rows: Tensor, columns: Tensor, size: int) -> Tensor:
    return (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
