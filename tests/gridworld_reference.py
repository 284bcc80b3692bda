"""The paper's GridWorld one walk at a time, in plain Python: the oracle of vrbench.environments.gridworld."""

from __future__ import annotations

import torch
from torch import Tensor

MOVES = {0: (-1, 0), 1: (0, 1), 2: (1, 0), 3: (0, -1)}  # up, right, down, left
STOP = 4


class PlainGridWorld:
    """The state is the (3, size, size) tensor that a policy sees: path, position, visit counts."""

    def __init__(
        self, size: int, max_moves: int, lines: float, coverage: float, novelty: float, symmetry: float
    ) -> None:
        self.size, self.max_moves = size, max_moves
        self.lines, self.coverage, self.novelty, self.symmetry = lines, coverage, novelty, symmetry

    def reset(self) -> Tensor:
        self.row = self.column = self.size // 2
        self.moves = 0
        self.done = False
        self.state = torch.zeros(3, self.size, self.size)
        self.state[:, self.row, self.column] = 1
        return self.state.clone()

    def step(self, action: int) -> Tensor:
        assert not self.done
        if action == STOP:
            self.done = True
            return self.state.clone()
        down, right = MOVES[action]
        self.state[1, self.row, self.column] = 0
        self.row = min(max(self.row + down, 0), self.size - 1)
        self.column = min(max(self.column + right, 0), self.size - 1)
        self.state[0, self.row, self.column] = 1
        self.state[1, self.row, self.column] = 1
        self.state[2, self.row, self.column] += 1
        self.moves += 1
        self.done = self.moves == self.max_moves
        return self.state.clone()

    def reward(self) -> float:
        path = [[cell > 0 for cell in row] for row in self.state[0].tolist()]
        visits = sum(sum(row) for row in self.state[2].tolist())
        size, last = self.size, self.size - 1
        filled = sum(sum(row) for row in path)
        runs = same_across = same_along = 0
        for i in range(size):
            for j in range(size):
                if j + 2 < size and path[i][j] and path[i][j + 1] and path[i][j + 2]:
                    runs += 1
                if i + 2 < size and path[i][j] and path[i + 1][j] and path[i + 2][j]:
                    runs += 1
                same_across += path[i][j] == path[i][last - j]
                same_along += path[i][j] == path[last - i][j]
        cells = size * size
        symmetry = (same_across / cells + same_along / cells) / 2
        return (
            self.lines * runs / 10
            + self.coverage * filled / cells
            + self.novelty * filled / visits
            + self.symmetry * symmetry
        )
