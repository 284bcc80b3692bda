"""GridWorld's environment: every state and reward against the plain one, and by hand."""

from __future__ import annotations

import pytest
import torch
from gridworld_parts import WEIGHTS, make_task, seeded, small_model
from gridworld_reference import STOP, PlainGridWorld

from vrbench.environments.gridworld import GridWorld, RewardWeights, diversity


@pytest.mark.parametrize(("size", "max_moves"), [(8, 64), (5, 7), (2, 9), (3, 64)])
def test_every_state_and_reward_is_the_plain_environments(size, max_moves):
    """300 random walks, half of them with a pull to the lower right and few stops, so that borders and ends are met."""
    world = GridWorld(size, max_moves, RewardWeights(**WEIGHTS))
    plain = PlainGridWorld(size, max_moves, **WEIGHTS)
    biased = torch.tensor([0.1, 0.4, 0.4, 0.07, 0.03])
    longest = 0
    for walks in (
        world.random_walks(150, seeded()),
        world.policy_walks(lambda visits, cells, moves: biased.expand(len(cells), 5), 150, seeded()),
    ):
        history, final = world.history(walks), world.visits(walks)
        rewards = world.rewards(final)
        lengths = (walks.cells < world.cells).sum(0)
        longest = max(longest, int(lengths.max()))
        for walk, length in enumerate(lengths.tolist()):
            states = [plain.reset()]
            for action in walks.actions[: length - 1, walk].tolist():
                states.append(plain.step(action))
            seen = world.observe(history[:length, walk], walks.cells[:length, walk])
            assert torch.equal(seen, torch.stack(states))
            if length <= max_moves:
                assert walks.actions[length - 1, walk] == STOP
                states.append(plain.step(STOP))
            assert plain.done
            assert torch.equal(states[-1][2].flatten(), final[walk])
            assert float(rewards[walk]) == pytest.approx(plain.reward(), abs=1e-5)
    assert longest == max_moves + 1, "no walk ran out of moves"


def test_reward_by_hand():
    """An L of the start (4,4), (4,5), (4,6), (3,6), visited once but for (4,5), twice."""
    world = GridWorld(8, 64, RewardWeights(**WEIGHTS))
    visits = torch.zeros(1, 8, 8)
    visits[0, 4, 4:7] = torch.tensor([1.0, 2.0, 1.0])
    visits[0, 3, 6] = 1
    # One run of three; 4 of 64 cells; 4 filled in 5 visits. Left-right: none of the 4 mirrors another, so 8 cells
    # differ. Up-down: (4,6) mirrors (3,6), the other two mirror empty cells, so 4 cells differ.
    expected = 10 * 1 / 10 + 5 * 4 / 64 + 3 * 4 / 5 + 4 * ((1 - 8 / 64) + (1 - 4 / 64)) / 2
    assert float(world.rewards(visits.flatten(1))) == pytest.approx(expected, abs=1e-6)


def test_diversity_by_hand():
    """Of three paths on four cells, the pairs differ in 1, 2 and 3 of 4 cells."""
    paths = torch.tensor([[1.0, 0, 0, 0], [2.0, 1, 0, 0], [1.0, 0, 1, 1]])
    assert float(diversity(paths)) == pytest.approx((1 + 2 + 3) / 3 / 4)
    assert float(diversity(paths[:1])) == 0


def test_masks():
    world = GridWorld(3, 2, RewardWeights())
    corner, middle = torch.tensor([0]), torch.tensor([4])
    assert world.allowed(corner, 0).tolist() == [[False, True, True, False, True]]
    assert world.allowed(middle, 2).tolist() == [[False, False, False, False, True]]
    visits = torch.zeros(1, 9)
    visits[0, [4, 3, 0]] = 1  # centre, left of it, up from there: only "up" leads from a visited cell to the corner
    assert world.arrivals(visits, corner).tolist() == [[True, False, False, False, False]]
    with torch.no_grad():
        task = make_task(size=3, max_moves=4, mask_invalid=True)
        walks = task.sample(small_model(task), 500, seeded())
    moved = walks.cells[1:] < 9
    assert (walks.cells[1:] != walks.cells[:-1])[moved].all(), "a move that stays has clamped"
