"""HyperGrid's environment: torchgfn is the oracle of the grid, all paths of the walks' distribution."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypergrid_parts import ORIGINAL, seeded

from vrbench.environments.hypergrid import hypergrid, terminal_distribution


def test_grid_is_torchgfns():
    Environment = pytest.importorskip("gfn.gym", reason="needs torchgfn, which make test installs").HyperGrid
    environment = Environment(3, 8, reward_fn_kwargs=ORIGINAL)
    grid = hypergrid(3, 8, "original", ORIGINAL)
    cells = torch.tensor(list(itertools.product(range(8), repeat=3)))
    states = environment.states_from_tensor(cells)
    assert torch.equal(grid.coordinates(torch.arange(512)), cells)
    assert torch.equal(environment.get_states_indices(states), torch.arange(512))
    assert torch.equal(grid.rewards.float(), environment.reward(states))
    assert torch.equal(grid.moves(torch.arange(512)), states.forward_masks)
    assert torch.equal(grid.parents(torch.arange(512)), states.backward_masks)
    assert int(grid.modes.sum()) == 8


def test_original_reward_by_hand():
    """R = R0 + R1 [outer ring] + R2 [band] in two dimensions."""
    small = hypergrid(2, 8, "original", ORIGINAL)
    assert small.rewards[0] == pytest.approx(0.6)  # (0,0): in the ring
    assert small.rewards[1 * 8 + 1] == pytest.approx(2.6)  # (1,1): |1/7 − 1/2| = 0.357 is in the band
    assert small.rewards[3 * 8 + 3] == pytest.approx(0.1)  # the middle


def test_terminal_distribution_is_the_sum_over_all_paths():
    grid = hypergrid(2, 4, "original", ORIGINAL)
    scores = torch.rand(16, 3, generator=seeded(), dtype=torch.float64).masked_fill(~grid.moves(torch.arange(16)), 0)
    policy = scores / scores.sum(1, keepdim=True)
    expected = torch.zeros(16, dtype=torch.float64)

    def follow(x: int, y: int, probability: float) -> None:
        cell = policy[4 * x + y].tolist()
        expected[4 * x + y] += probability * cell[2]
        if x < 3:
            follow(x + 1, y, probability * cell[0])
        if y < 3:
            follow(x, y + 1, probability * cell[1])

    follow(0, 0, 1.0)
    found = terminal_distribution(grid, policy)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-12)
