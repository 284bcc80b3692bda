"""Flow balance losses: torchgfn's own are the oracle, and hand-worked flows have none."""

from __future__ import annotations

import pytest
import torch
import vrbench.tasks.hypergrid
from hypergrid_parts import HAND_EDGES, OPTIONS, hand_worked, make_model, make_task, seeded

from vrbench.objectives.balance import OBJECTIVES


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("whole_grid", [4096, 0], ids=["whole grid", "visited states"])
@pytest.mark.parametrize("backward", ["learned", "uniform"])
@pytest.mark.parametrize("loss", OBJECTIVES)
def test_losses_and_gradients_are_torchgfns(loss, backward, whole_grid, monkeypatch, double):
    """On sampled walks of two grids, with a model whose every column is away from its start."""
    monkeypatch.setattr(vrbench.tasks.hypergrid, "WHOLE_GRID", whole_grid)
    pytest.importorskip("gfn", reason="needs torchgfn, which make test installs")
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
