"""The GridWorld task: the loss against flows worked out by enumeration and by hand, training, refusals."""

from __future__ import annotations

from collections import defaultdict

import pytest
import torch
from gridworld_parts import WEIGHTS, make_task, seeded, small_model
from gridworld_reference import MOVES
from torch import Tensor, nn

from vrbench.environments.gridworld import GridWorld, Walks
from vrbench.models.gflownet_mlp import GFlowNetMLP
from vrbench.models.gridworld_conv import GridWorldConv

# ---- the loss -------------------------------------------------------------------------------------------------------


class ExactFlow(nn.Module):
    """The flow of a small world, by enumerating all states; parents that exist share a state's flow equally.

    F(s) = R(s) + Σ over moves of F(s') / parents(s'), from the longest walks back: then P_F(a|s) = edge / F(s).
    """

    def __init__(self, world: GridWorld) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        size = world.size
        start = (tuple(int(cell == world.start) for cell in range(world.cells)), world.start)
        layers, parents, children = [{start}], defaultdict(list), defaultdict(list)
        for _ in range(world.max_moves):
            layers.append(set())
            for visits, cell in layers[-2]:
                for action, (down, right) in MOVES.items():
                    row, column = cell // size + down, cell % size + right
                    if 0 <= row < size and 0 <= column < size:
                        after = row * size + column
                        counts = tuple(count + (place == after) for place, count in enumerate(visits))
                        layers[-1].add((counts, after))
                        parents[counts, after].append(((visits, cell), action))
                        children[visits, cell].append(((counts, after), action))
        flow: dict = {}
        self.rows: dict = {}
        for state in (state for layer in reversed(layers) for state in layer):
            reward = float(world.rewards(torch.tensor([state[0]], dtype=torch.float64)))
            edges = [1e-300] * 4 + [reward]
            for child, action in children[state]:
                edges[action] = flow[child] / len(parents[child])
            flow[state] = sum(edges)
            backward = [1e-300] * 5
            for _, action in parents[state]:
                backward[action] = 1.0
            before_softplus = torch.tensor(flow[state], dtype=torch.float64).expm1().log()
            logs = torch.tensor(edges + backward, dtype=torch.float64).log()
            self.rows[state] = torch.cat([logs, before_softplus.unsqueeze(0)])
        self.total = flow[start]

    def forward(self, states: Tensor) -> Tensor:
        keys = zip(states[:, 2].flatten(1).tolist(), states[:, 1].flatten(1).argmax(1).tolist(), strict=True)
        return torch.stack([self.rows[tuple(map(int, visits)), cell] for visits, cell in keys]) + 0 * self.unused


@pytest.mark.parametrize(("size", "max_moves"), [(2, 3), (3, 2)])
def test_masked_loss_is_zero_at_the_exact_flow_and_positive_off_it(size, max_moves):
    task = make_task(size=size, max_moves=max_moves, mask_invalid=True, reward_weight=0.0, entropy_weight=0.0)
    model = ExactFlow(task.world)
    [(_, batch)] = task.probe_batches(300, 300)
    rewards = task.world.rewards(task.world.visits(Walks(batch["cells"].T, batch["actions"].T)).double())
    assert task.loss(model, batch, seeded())[0] < 1e-10 * model.total**2
    assert len(model.rows) > 5
    assert rewards.min() > 0
    for state, row in model.rows.items():
        model.rows[state] = row + torch.nn.functional.one_hot(torch.tensor(10), 11) * 0.1
        loss = float(task.loss(model, batch, seeded())[0].detach())
        model.rows[state] = row
        assert loss > 1e-6, state


def test_published_loss_by_hand():
    """One walk on 2×2, from (1,1) up to (0,1), a move that clamps, the stop; a model that always says the same."""
    task = make_task(
        size=2, max_moves=5, flow_weight=2.0, reward_weight=0.5, entropy_weight=0.25, reward_temperature=4.0
    )

    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.row = nn.Parameter(torch.tensor([0.4, 0.1, 0.2, 0.1, 0.2, 0.5, 0.1, 0.1, 0.1, 0.2, 3.0]).double())

        def forward(self, states: Tensor) -> Tensor:
            logs = torch.cat([self.row[:10].log(), self.row[10:].expm1().log()])
            return logs.expand(len(states), 11)

    cells = torch.tensor([[3, 1, 1, 1 + 4]])
    batch = {"cells": cells, "actions": torch.tensor([[0, 0, 4]]), "mean_moves": torch.tensor([2.0])}
    with torch.no_grad():
        value, metrics = task.loss(Constant(), batch, seeded())
    # Cells (1,1) and (0,1) are filled, in three visits: 2 of 4 cells, no runs; left-right both cells differ from their
    # mirrors, up-down they mirror each other.
    reward = 5 * 2 / 4 + 3 * 2 / 3 + 4 * (0 + 1) / 2
    matching = (3 - reward / 4) ** 2 + (3 * 0.4 - 3 * 0.5) ** 2
    entropy = -sum(p * torch.tensor(p).log() for p in (0.4, 0.1, 0.2, 0.1, 0.2))
    assert float(metrics["flow_matching"]) == pytest.approx(matching, abs=1e-5)
    assert float(metrics["reward_mean"]) == pytest.approx(reward, abs=1e-5)
    assert float(metrics["entropy"]) == pytest.approx(float(entropy), abs=1e-5)
    assert float(metrics["length"]) == 2
    assert float(value) == pytest.approx(2 * matching - 0.5 * reward - 0.25 * float(entropy), abs=1e-5)


@pytest.mark.parametrize("mask_invalid", [False, True])
def test_probe_chunks_add_up_and_can_be_differentiated_twice(mask_invalid):
    task = make_task(size=4, max_moves=6, mask_invalid=mask_invalid, entropy_weight=0.3)
    model = small_model(task).double()
    parameters = list(model.parameters())
    [(weight, whole)] = task.probe_batches(40, 40)
    chunks = task.probe_batches(40, 15)
    assert weight == 1
    assert [len(chunk["cells"]) for _, chunk in chunks] == [15, 15, 10]
    value = task.loss(model, whole, seeded())[0]
    together = sum(weight * task.loss(model, chunk, seeded())[0] for weight, chunk in chunks)
    torch.testing.assert_close(together, value, rtol=1e-6, atol=0)

    direction = [torch.randn(p.shape, generator=seeded(i), dtype=p.dtype) for i, p in enumerate(parameters)]

    def gradient(shift: float, graph: bool = False) -> tuple[Tensor, ...]:
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p += shift * d
        return torch.autograd.grad(task.loss(model, whole, seeded())[0], parameters, create_graph=graph)

    slope = sum((g * d).sum() for g, d in zip(gradient(0.0, graph=True), direction, strict=True))
    product = torch.autograd.grad(slope, parameters)
    after, before = gradient(1e-6), gradient(-2e-6)
    exact = torch.cat([p.flatten() for p in product])
    secant = torch.cat([((a - b) / 2e-6).flatten() for a, b in zip(after, before, strict=True)])
    assert float((exact - secant).norm() / exact.norm()) < 1e-4


# ---- training -------------------------------------------------------------------------------------------------------


def test_training_lowers_the_error_and_resumes_bit_for_bit():
    def parts() -> tuple[GridWorldConv, torch.optim.Optimizer]:
        model = small_model(task)
        return model, torch.optim.Adam(model.parameters(), lr=3e-3)

    def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        batch = next(task.train_batches(seeded(), seeded()))
        for step in steps:
            optimizer.zero_grad()
            task.loss(model, batch, seeded(step))[0].backward()
            optimizer.step()

    task = make_task(size=4, max_moves=8)
    model, optimizer = parts()
    with torch.no_grad():
        before = task.evaluate(model, "val")
    train(model, optimizer, range(30))
    with torch.no_grad():
        after = task.evaluate(model, "val")
        assert task.evaluate(model, "val") == after
        assert task.evaluate(model, "test") != after
    assert after["flow_matching"] < before["flow_matching"] / 2
    assert before["reward_max"] >= before["reward_mean"] > 0

    broken, resumed = parts(), parts()
    train(*broken, range(12))
    for part, state in zip(resumed, broken, strict=True):
        part.load_state_dict(state.state_dict())
    train(*resumed, range(12, 30))
    for mine, other in zip(resumed[0].parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_the_mlp_fits_too_and_the_picture_shows_eight_walks():
    task = make_task(size=4)
    model = GFlowNetMLP(
        task.input_shape, task.output_dim, hidden=8, layers=1, activation="relu", tabular=False, log_z=False
    )
    assert torch.isfinite(task.loss(model, next(task.train_batches(seeded(), seeded())), seeded())[0])
    picture = task.render(model)
    assert (picture.dtype, picture.shape) == (torch.uint8, (96, 8 * 96 + 7 * 8, 3))


def test_a_diverged_model_ends_in_a_loss_that_is_not_finite():
    for mask_invalid in (False, True):
        task = make_task(size=4, mask_invalid=mask_invalid, eval_walks=4)
        model = small_model(task)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(torch.nan)
            assert task.loss(model, torch.zeros(4, dtype=torch.int64), seeded())[0].isnan()
            assert task.evaluate(model, "val")["flow_matching"] != task.evaluate(model, "val")["flow_matching"]


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 1}, "size=1: must be between 2 and 16"),
        ({"max_moves": 0}, "max_moves=0: must be 1 or more"),
        ({"reward_temperature": 0.0}, "reward_temperature=0.0"),
        ({"reward_weights": {**WEIGHTS, "lines": -1.0}}, "reward_weights=.*none may be negative"),
        ({"reward_weights": {**WEIGHTS, "coverage": 0.0, "novelty": 0.0}}, "reward_weights=.*positive reward"),
        ({"flow_weight": -1.0}, "flow_weight=-1.0"),
        ({"entropy_weight": float("nan")}, "entropy_weight=nan"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"eval_walks": 0}, "eval_walks=0"),
    ],
)
def test_bad_task_is_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        make_task(**changes)
    assert "\n" not in str(error.value)


def test_bad_model_is_refused():
    task = make_task()
    with pytest.raises(ValueError, match="gridworld_conv needs"):
        GridWorldConv((2, 8), 11, channels=[4], hidden=8)
    with pytest.raises(ValueError, match=r"channels=\[\]"):
        GridWorldConv((3, 8, 8), 11, channels=[], hidden=8)
    with pytest.raises(ValueError, match="hidden=0"):
        GridWorldConv((3, 8, 8), 11, channels=[4], hidden=0)
    with pytest.raises(ValueError, match=r"needs outputs of shape .*11\), the model gives .*take model=gridworld_conv"):
        task.loss(GridWorldConv((3, 8, 8), 5, channels=[4], hidden=8), task.probe_batches(2, 2)[0][1], seeded())
