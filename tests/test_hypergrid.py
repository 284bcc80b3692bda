"""HyperGrid: torchgfn is the oracle of the losses, hand-worked flows and plain enumeration of the rest."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import tasks.hypergrid
from tasks.balance import OBJECTIVES, Walks
from tasks.hypergrid import HyperGrid
from vrbench.data.hypergrid import Grid, hypergrid, terminal_distribution, uniform_walks
from vrbench.models.gflownet_mlp import GFlowNetMLP

pytest.importorskip("gfn", reason="needs torchgfn: install vrbench[gflownet]")

ORIGINAL = {"R0": 0.1, "R1": 0.5, "R2": 2.0}
OPTIONS = {"decay": 0.8, "reward_weight": 0.7}


def make_task(loss: str = "trajectory_balance", **changes: object) -> HyperGrid:
    arguments = {
        "name": "hypergrid", "ndim": 2, "height": 8, "reward": "original", "reward_params": ORIGINAL, "loss": loss,
        "backward": "learned", **OPTIONS, "epsilon": 0.05, "log_z_lr": 0.1, "batch_size": 16, "batches_per_epoch": 100,
        "exact_states": 200_000, "eval_walks": 20_000,
    }  # fmt: skip
    return HyperGrid(**{**arguments, **changes})


def make_model(task: HyperGrid, **changes: object) -> GFlowNetMLP:
    torch.manual_seed(0)
    arguments = {"hidden": 32, "layers": 2, "activation": "tanh", "tabular": False, "log_z": True}
    return GFlowNetMLP(task.input_shape, task.output_dim, **{**arguments, **changes})


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# ---- the losses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole_grid", [4096, 0], ids=["whole grid", "visited states"])
@pytest.mark.parametrize("backward", ["learned", "uniform"])
@pytest.mark.parametrize("loss", OBJECTIVES)
def test_losses_and_gradients_are_torchgfns(loss, backward, whole_grid, monkeypatch, double):
    """On sampled walks of two grids, with a model whose every column is away from its start."""
    monkeypatch.setattr(tasks.hypergrid, "WHOLE_GRID", whole_grid)
    from torchgfn_oracle import torchgfn_loss

    for ndim, height in ((2, 8), (3, 5)):
        task = make_task(loss, ndim=ndim, height=height, backward=backward)
        model = make_model(task)
        with torch.no_grad():
            model.log_z.fill_(1.3)
        parameters = [p for group in task.param_groups(model) for p in group["params"]]
        walks, heads = task._sample(model, 64, seeded(), 0.3)
        ours = task._loss_on(walks, heads)
        theirs = torchgfn_loss(task, model, walks, loss, OPTIONS)
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)
        for mine, other in zip(
            torch.autograd.grad(ours, parameters), torch.autograd.grad(theirs, parameters), strict=True
        ):
            torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-12)


HAND_REWARDS = [1.0, 2.0, 3.0, 4.0]
"""Of the cells (0,0), (0,1), (1,0), (1,1) of a 2×2 grid. With a uniform backward policy each parent of (1,1) sends half
of its flow of 4: F(0,1) = 2 + 2, F(1,0) = 3 + 2, F(0,0) = 1 + 4 + 5 = 10 = Z."""
HAND_EDGES = [[5.0, 4.0, 1.0], [2.0, 0.0, 2.0], [0.0, 2.0, 3.0], [0.0, 0.0, 4.0]]
"""Flow of +x, +y, stop out of each cell; a forbidden move has none."""


def hand_worked(loss: str) -> tuple[HyperGrid, GFlowNetMLP]:
    """The grid of HAND_REWARDS and a table that holds its exact flow."""
    task = make_task(loss, height=2)
    task.grid = Grid(2, 2, torch.tensor(HAND_REWARDS, dtype=torch.float64), torch.zeros(4, dtype=torch.bool))
    model = make_model(task, tabular=True).double()
    edges = torch.tensor(HAND_EDGES, dtype=torch.float64)
    flow = edges.sum(1)
    with torch.no_grad():
        columns = model.net.weight
        columns[:, :3] = edges.clamp(min=1e-3).log()  # what stands at a forbidden move must not matter
        if task.objective.state_flow:
            columns[:, -1] = flow.log()
        model.log_z.fill_(torch.tensor(10.0).double().log())
    return task, model


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_exact_flow_has_no_loss(loss):
    task, model = hand_worked(loss)
    [(_, batch)] = task.probe_batches(200, 200)
    assert task.loss(model, batch, seeded())[0] < 1e-10
    with torch.no_grad():
        metrics = task.evaluate(model, "val")
    for key in ("loss", "l1", "jensen_shannon", "logz_error"):
        assert abs(metrics[key]) < 1e-10, key
    torch.testing.assert_close(
        task.distribution(model), torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_every_flow_that_is_off_costs(loss):
    """Every column of every cell that a walk can use, and log Z, moved by 0.1."""
    task, model = hand_worked(loss)
    [(_, batch)] = task.probe_batches(200, 200)
    weight = model.net.weight
    used = torch.zeros(4, task.output_dim, dtype=torch.bool)
    used[:, :3] = torch.tensor(HAND_EDGES) > 0
    used[3, 3:5] = task.learned_backward  # the one cell with two parents
    if loss != "flow_matching":
        used[3, :3] = False  # stopping is all that is left in (1,1): its logit has nothing to choose
    if task.objective.state_flow:
        used[:, -1] = True
    for cell, column in used.nonzero().tolist():
        with torch.no_grad():
            weight[cell, column] += 0.1
            assert task.loss(model, batch, seeded())[0] > 1e-5, (cell, column)
            weight[cell, column] -= 0.1
    if task.objective.log_z:
        with torch.no_grad():
            model.log_z += 0.1
            assert task.loss(model, batch, seeded())[0] == pytest.approx(0.01)


@pytest.mark.parametrize("loss", OBJECTIVES)
def test_probe_chunks_add_up_and_can_be_differentiated_twice(loss):
    task = make_task(loss, height=4)
    model = make_model(task, hidden=4).double()
    parameters = [p for group in task.param_groups(model) for p in group["params"]]
    [(weight, whole)] = task.probe_batches(50, 50)
    chunks = task.probe_batches(50, 16)
    assert weight == 1
    assert [len(chunk["states"]) for _, chunk in chunks] == [16, 16, 16, 2]
    together = sum(weight * task.loss(model, chunk, seeded())[0] for weight, chunk in chunks)
    value = task.loss(model, whole, seeded())[0]
    torch.testing.assert_close(together, value, rtol=1e-6, atol=0)

    direction = [torch.randn(p.shape, generator=seeded(i), dtype=p.dtype) for i, p in enumerate(parameters)]
    gradient = torch.autograd.grad(value, parameters, create_graph=True)
    slope = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))
    product = torch.autograd.grad(slope, parameters)

    def gradient_at(shift: float) -> list[torch.Tensor]:
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p += shift * d
        found = torch.autograd.grad(task.loss(model, whole, seeded())[0], parameters)
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p -= shift * d
        return list(found)

    for exact, after, before in zip(product, gradient_at(1e-5), gradient_at(-1e-5), strict=True):
        torch.testing.assert_close(exact, (after - before) / 2e-5, rtol=1e-5, atol=1e-7)


# ---- walks and distributions ----------------------------------------------------------------------------------------


def test_grid_is_torchgfns():
    from gfn.gym import HyperGrid as Environment

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
    # R = R0 + R1 [outer ring] + R2 [band], by hand in two dimensions: see the picture in torchgfn's source.
    small = hypergrid(2, 8, "original", ORIGINAL)
    assert small.rewards[0] == pytest.approx(0.6)  # (0,0): in the ring
    assert small.rewards[1 * 8 + 1] == pytest.approx(2.6)  # (1,1): |1/7 − 1/2| = 0.357 is in the band
    assert small.rewards[3 * 8 + 3] == pytest.approx(0.1)  # the middle


def test_importing_torchgfn_leaves_multiprocessing_alone():
    """In a process of its own: what ran before in this one may have chosen a method."""
    script = (
        "import multiprocessing\n"
        "from vrbench.data.hypergrid import hypergrid\n"
        f"hypergrid(2, 4, 'original', {ORIGINAL!r})\n"
        "print(multiprocessing.get_start_method(allow_none=True))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert result.stdout.strip() == "None", result.stderr


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


@pytest.mark.parametrize("whole_grid", [4096, 0], ids=["table", "step by step"])
def test_walks_follow_the_policy(whole_grid, monkeypatch):
    """Their last states have the exact distribution, to the noise of 50,000 draws over 16 cells."""
    monkeypatch.setattr(tasks.hypergrid, "WHOLE_GRID", whole_grid)
    task = make_task(height=4)
    model = make_model(task)
    with torch.no_grad():
        walks, _ = task._sample(model, 50_000, seeded(), 0.0)
        exact = task.distribution(model)
        explored, _ = task._sample(model, 50_000, seeded(), 1.0)
    counts = torch.bincount(walks.last(task.grid), minlength=16)
    assert (counts / 50_000 - exact).abs().sum() < 0.03
    uniform, _ = uniform_walks(task.grid, 50_000, seeded(1))
    wanted = torch.bincount(Walks(uniform, uniform).last(task.grid), minlength=16)
    counts = torch.bincount(explored.last(task.grid), minlength=16)
    assert (counts - wanted).abs().sum() / 50_000 < 0.04
    moved = walks.states[1:] != task.grid.sink
    steps = task.grid.strides[walks.actions[moved]]
    assert torch.equal(walks.states[:-1][moved] + steps, walks.states[1:][moved])
    assert task.grid.moves(walks.states[:-1][moved]).gather(1, walks.actions[moved].unsqueeze(1)).all()


def test_sampled_metrics_approach_the_exact_ones():
    exact, sampled = make_task(height=4), make_task(height=4, exact_states=0, eval_walks=200_000)
    model = make_model(exact)
    with torch.no_grad():
        a, b = exact.evaluate(model, "val"), sampled.evaluate(model, "val")
    assert b["l1"] == pytest.approx(a["l1"], abs=0.02)
    assert b["jensen_shannon"] == pytest.approx(a["jensen_shannon"], abs=0.01)


def test_metrics_by_hand():
    """A table of zeros on 2×2 walks uniformly: stops with 1/3 in (0,0), 1/3·1/2 in each neighbour, 1/3 in (1,1)."""
    task = make_task(height=2)
    task.grid = Grid(2, 2, torch.tensor(HAND_REWARDS, dtype=torch.float64), torch.tensor([False, False, True, True]))
    model = make_model(task, tabular=True)
    task.visited = torch.tensor([True, False, True, False])
    with torch.no_grad():
        metrics = task.evaluate(model, "test")
    assert metrics["l1"] == pytest.approx((1 / 3 - 0.1) + (0.2 - 1 / 6) + (0.3 - 1 / 6) + (0.4 - 1 / 3), abs=1e-6)
    learned, target = torch.tensor([1 / 3, 1 / 6, 1 / 6, 1 / 3]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    middle = (learned + target) / 2
    divergence = ((learned * (learned / middle).log()).sum() + (target * (target / middle).log()).sum()) / 2
    assert metrics["jensen_shannon"] == pytest.approx(float(divergence), abs=1e-6)
    assert metrics["logz_error"] == pytest.approx(2.302585, abs=1e-5)
    assert (metrics["modes"], metrics["modes_found"], metrics["states_visited"]) == (2.0, 1.0, 2.0)


# ---- training -------------------------------------------------------------------------------------------------------


def train(task: HyperGrid, model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    batch = next(task.train_batches(seeded(), seeded()))
    for step in steps:
        optimizer.zero_grad()
        task.loss(model, batch, seeded(step))[0].backward()
        optimizer.step()


def test_vradam_learns_the_default_grid_and_resumes_bit_for_bit():
    from optimizers.vradam import VRAdam

    def parts() -> tuple[HyperGrid, GFlowNetMLP, VRAdam]:
        task = make_task()
        model = make_model(task, hidden=64, activation="relu")
        return task, model, VRAdam(task.param_groups(model), lr=3e-3)

    task, model, optimizer = parts()
    train(task, model, optimizer, range(600))
    with torch.no_grad():
        metrics = task.evaluate(model, "val")
    assert metrics["l1"] < 0.1
    assert metrics["modes_found"] == metrics["modes"] == 4

    broken = parts()
    train(*broken, range(250))
    state = {"task": broken[0].state_dict(), "model": broken[1].state_dict(), "optimizer": broken[2].state_dict()}
    resumed = parts()
    for part, key in zip(resumed, state, strict=True):
        part.load_state_dict(state[key])
    train(*resumed, range(250, 600))
    for mine, other in zip(resumed[1].parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert torch.equal(resumed[0].visited, task.visited)


@pytest.mark.parametrize("whole_grid", [4096, 0], ids=["table", "step by step"])
@pytest.mark.parametrize("loss", OBJECTIVES)
def test_a_diverged_model_ends_in_a_loss_that_is_not_finite(loss, whole_grid, monkeypatch):
    monkeypatch.setattr(tasks.hypergrid, "WHOLE_GRID", whole_grid)
    task = make_task(loss, eval_walks=10)
    model = make_model(task)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
        assert task.loss(model, next(task.train_batches(seeded(), seeded())), seeded())[0].isnan()
        metrics = task.evaluate(model, "val")
    assert all(metrics[key] != metrics[key] for key in ("loss", "l1", "jensen_shannon", "logz_error"))


def test_double_precision_explores_too():
    task = make_task(epsilon=0.5)
    assert task.loss(make_model(task).double(), torch.zeros(4, dtype=torch.int64), seeded())[0].dtype == torch.float64


def test_log_z_has_a_group_of_its_own_and_vradams_norm_spans_both():
    from optimizers.vradam import VRAdam

    runs = {}
    for log_z_lr in (None, 1e-3):
        task = make_task(log_z_lr=log_z_lr)
        model = make_model(task)
        groups = task.param_groups(model)
        assert len(groups) == (1 if log_z_lr is None else 2)
        optimizer = VRAdam(groups, lr=1e-3, weight_decay=0.0)
        train(task, model, optimizer, range(5))
        assert len({float(group["gate"]) for group in optimizer.param_groups}) == 1
        runs[log_z_lr] = model
    for one, two in zip(runs[None].parameters(), runs[1e-3].parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


def test_log_z_is_frozen_where_the_loss_has_none():
    task = make_task("flow_matching")
    model = make_model(task)
    [group] = task.param_groups(model)
    assert not model.log_z.requires_grad
    assert sum(p.numel() for p in group["params"]) == sum(p.numel() for p in model.parameters()) - 1


def test_picture():
    task = make_task(ndim=3, height=4)
    picture = task.render(make_model(task))
    assert (picture.dtype, picture.shape) == (torch.uint8, (192, 392, 3))
    # The target, drawn left, is brightest where three coordinates sum out to the most reward: not in the middle.
    corner, middle = picture[24, 24].int().sum(), picture[72, 72].int().sum()
    assert corner > middle


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 1}, "height=1: must be 2 or more"),
        ({"ndim": 0}, "ndim=0: must be 1 or more"),
        ({"ndim": 9, "height": 8}, "states are too many"),
        ({"reward": "flat"}, "reward=flat: must be one of original"),
        ({"reward_params": {"R0": 0.0, "R1": 0.5, "R2": 2.0}}, "must be positive and is 0 at"),
        ({"reward": "conditional_multiscale"}, "reward_params=.* does not take them"),
        ({"loss": "vi"}, "loss=vi: must be one of flow_matching"),
        ({"backward": "none"}, "backward=none: must be learned or uniform"),
        ({"epsilon": 1.5}, "epsilon=1.5"),
        ({"decay": 0.0}, "decay=0.0"),
        ({"log_z_lr": 0.0}, "log_z_lr=0.0"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_task_is_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        make_task(**changes)
    assert "\n" not in str(error.value)


def test_loss_and_model_that_do_not_fit():
    task = make_task()
    with pytest.raises(ValueError, match=r"needs a model with log_z; take model=gflownet_mlp model.log_z=true"):
        task.loss(make_model(task, log_z=False), task.probe_batches(2, 2)[0][1], seeded())
    with pytest.raises(ValueError, match=r"needs outputs of shape \(64, 5\)"):
        task.loss(make_model(make_task("flow_matching")), task.probe_batches(2, 2)[0][1], seeded())


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ((2, 8), {"hidden": 0}, "hidden=0"),
        ((2, 8), {"layers": 0}, "layers=0"),
        ((2, 8), {"activation": "step"}, "activation=step: must be one of relu"),
        ((3, 8, 8), {"tabular": True}, "tabular=true: needs states"),
        ((8, 8), {"tabular": True, "output": 9}, "tabular=true: 8\\^8 states"),
    ],
)
def test_bad_model_is_refused(shape, changes, message):
    changes = dict(changes)
    arguments = {"hidden": 8, "layers": 1, "activation": "relu", "tabular": False, "log_z": True}
    with pytest.raises(ValueError, match=message):
        GFlowNetMLP(shape, changes.pop("output", 5), **{**arguments, **changes})
