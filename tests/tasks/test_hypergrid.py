"""The HyperGrid task: walks that follow the policy, metrics by enumeration and by hand, training, refusals."""

from __future__ import annotations

import copy

import pytest
import torch
import vrbench.tasks.hypergrid
from hypergrid_parts import HAND_REWARDS, make_model, make_task, seeded
from torch import nn
from vrbench.tasks.hypergrid import HyperGrid

from vrbench.environments.hypergrid import Grid, uniform_walks
from vrbench.models.gflownet_mlp import GFlowNetMLP
from vrbench.objectives.balance import OBJECTIVES, Walks


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


@pytest.mark.parametrize("whole_grid", [4096, 0], ids=["table", "step by step"])
def test_walks_follow_the_policy(whole_grid, monkeypatch):
    """Their last states have the exact distribution, to the noise of 50,000 draws over 16 cells."""
    monkeypatch.setattr(vrbench.tasks.hypergrid, "WHOLE_GRID", whole_grid)
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
    from vrbench.optimizers.vradam import VRAdam

    def parts() -> tuple[HyperGrid, GFlowNetMLP, VRAdam]:
        task = make_task()
        model = make_model(task, hidden=64, activation="relu")
        return task, model, VRAdam(task.param_groups(model), lr=3e-3)

    whole = task, model, _ = parts()
    train(*whole, range(380))
    states = copy.deepcopy([part.state_dict() for part in whole])
    train(*whole, range(380, 420))
    with torch.no_grad():
        metrics = task.evaluate(model, "val")
    assert metrics["l1"] < 0.1
    assert metrics["modes_found"] == metrics["modes"] == 4

    resumed = parts()
    for part, state in zip(resumed, states, strict=True):
        part.load_state_dict(state)
    train(*resumed, range(380, 420))
    for mine, other in zip(resumed[1].parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert torch.equal(resumed[0].visited, task.visited)


@pytest.mark.parametrize("whole_grid", [4096, 0], ids=["table", "step by step"])
@pytest.mark.parametrize("loss", OBJECTIVES)
def test_a_diverged_model_ends_in_a_loss_that_is_not_finite(loss, whole_grid, monkeypatch):
    monkeypatch.setattr(vrbench.tasks.hypergrid, "WHOLE_GRID", whole_grid)
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
    from vrbench.optimizers.vradam import VRAdam

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
