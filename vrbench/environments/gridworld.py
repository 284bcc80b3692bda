"""The GridWorld of the VRAdam paper's GFlowNet experiment, for whole batches of walks at once.

A walk starts in the centre of a square grid and takes up to `max_moves` moves; what it leaves behind, the visit counts,
is what is rewarded. A cell is a number, row · size + column. A walk that has stopped is *parked*: its cell number is
raised by the number of cells and stays so, which makes a move one table lookup, whatever the walk is doing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

ACTIONS = ("up", "right", "down", "left", "stop")
STOP = 4
_STEPS = ((-1, 0), (0, 1), (1, 0), (0, -1))
_FIRST_BLOCK, _BLOCK = 32, 8
"""Moves of random walks that are drawn at once, multiples of four: few walks are longer than the first block."""
LARGEST = 16


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

    Raises ValueError for a size below 2 or above 16, no moves, or a reward that may be 0 or less.
    """

    def __init__(self, size: int, max_moves: int, weights: RewardWeights, device: torch.device | str = "cpu") -> None:
        if not 2 <= size <= LARGEST:
            raise ValueError(f"size={size}: must be between 2 and {LARGEST}")
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
        four = torch.arange(2 * self.cells)
        for _ in range(4):  # four[abcd, cell]: the moves a, b, c, d one after the other
            four = self._onto.cpu().view(len(ACTIONS), -1)[:, four].transpose(0, -2).flatten(0, -2)
        self._four = four.flatten().to(device)
        self._moves_of_four = torch.cartesian_prod(*[torch.arange(len(ACTIONS))] * 4).T.contiguous().to(device)
        powers = 2.0 ** torch.arange(size)
        in_row = functional.one_hot(row, size) * powers[column].unsqueeze(1)
        in_column = functional.one_hot(column, size) * powers[row].unsqueeze(1)
        self._line_codes = torch.cat([in_row, in_column], 1).to(device)
        self._line_worth = self._worth_of_lines().to(device)

    # ---- moves ------------------------------------------------------------------------------------------------------

    def step(self, cells: Tensor, actions: Tensor) -> Tensor:
        """(walks,) cells and actions → cells after them: moves clamp at the border, a stop parks, the parked stay."""
        return self._onto.index_select(0, cells.add(actions, alpha=2 * self.cells))

    def random_walks(self, count: int, generator: Generator) -> Walks:
        """Walks of the policy that takes each of the five actions with probability 1/5.

        What is drawn does not depend on where a walk is, so four moves are one lookup in a table of their composition,
        and the cells between are filled in for all times at once.
        """
        device, width = self._onto.device, 2 * self.cells
        cell = torch.full((count,), self.start, device=device)
        trail, taken = [cell.unsqueeze(0)], list[Tensor]()
        for block in _blocks(self.max_moves):
            quads = torch.randint(len(ACTIONS) ** 4, (block // 4, count), generator=generator, device=device)
            moves = self._moves_of_four.index_select(1, quads.flatten())
            ends = [cell]
            for quad in (quads * width).unbind():
                ends.append(self._four.index_select(0, ends[-1] + quad))
            cell = ends[-1]
            after = [torch.cat(ends[:-1])]
            for offset in (moves[:3] * width).unbind():
                after.append(self._onto.index_select(0, after[-1] + offset))
            after.append(torch.cat(ends[1:]))
            trail.append(torch.stack(after[1:]).view(4, -1, count).transpose(0, 1).flatten(0, 1))
            taken.append(moves.view(4, -1, count).transpose(0, 1).flatten(0, 1))
            if bool((cell >= self.cells).all()):
                break
        cells, actions = torch.cat(trail), torch.cat(taken)
        return Walks(cells[: self.max_moves + 1], actions[: self.max_moves])

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
        filled = (visits > 0).to(visits.dtype)
        lines = self._line_worth.to(visits.dtype)[(filled @ self._line_codes.to(visits.dtype)).long()].sum(1)
        share = filled.sum(1) * (self.weights.novelty / visits.sum(1))
        return self.weights.symmetry + lines + share

    def _worth_of_lines(self) -> Tensor:
        """(2^size,): what a row or a column adds to the reward, by its filled cells read as a binary number.

        Every cell is in one row and one column; a pair of cells that are not each other's mirror image costs symmetry.
        """
        size, half = self.size, self.size // 2
        filled = torch.arange(2**size).unsqueeze(1) >> torch.arange(size) & 1
        runs = (filled[:, :-2] & filled[:, 1:-1] & filled[:, 2:]).sum(1)
        unequal = (filled[:, :half] ^ filled[:, size - half :].flip(1)).sum(1)
        weights = self.weights
        coverage, symmetry = weights.coverage / (2 * self.cells), weights.symmetry / self.cells
        return weights.lines / 10 * runs.double() + coverage * filled.sum(1) - symmetry * unequal


def diversity(visits: Tensor) -> Tensor:
    """() mean share of cells in which the paths of two different walks differ (0 for a single walk)."""
    walks, cells = visits.shape
    filled = (visits > 0).sum(0).double()
    pairs = walks * (walks - 1) / 2
    return (filled * (walks - filled)).sum() / (max(pairs, 1) * cells)


def _blocks(moves: int) -> Iterator[int]:
    """How many moves to draw at a time, until there are enough."""
    yield _FIRST_BLOCK
    for _ in range(_FIRST_BLOCK, moves, _BLOCK):
        yield _BLOCK


def _within(rows: Tensor, columns: Tensor, size: int) -> Tensor:
    return (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
