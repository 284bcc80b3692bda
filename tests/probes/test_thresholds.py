"""Thresholds against the eigenvalues of the optimizers' own step matrices, and by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from vrbench.optimizers.vradam import VRAdam
from vrbench.optimizers.vrsgd import VRSGD

from vrbench.probes.thresholds import critical_curvature, edge_of


@pytest.mark.parametrize(
    ("make", "want"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.5), 4.0),
        (lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9), 7.6),
        (lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9, dampening=0.5), 15.2),
        (lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9, nesterov=True), 3.8 / 2.8 / 0.5),
        (lambda p: torch.optim.Adam(p, lr=1e-3), 38000.0),
        (lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1), 38000.0),
        (lambda p: torch.optim.Adam(p, lr=1e-3, amsgrad=True), 38000.0),
        (lambda p: torch.optim.RMSprop(p, lr=1e-3), 2000.0),
        (lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9, centered=True), 3800.0),
    ],
)
def test_thresholds(make: Callable[[list[Tensor]], torch.optim.Optimizer], want: float) -> None:
    edge = edge_of(*stepped(make, 12))
    assert edge is not None
    assert edge.threshold == pytest.approx(want, rel=1e-12)


def stepped(
    make: Callable[[list[Tensor]], torch.optim.Optimizer], steps: int, curvatures: tuple[float, ...] = (1.0, 2.0, 3.0)
) -> tuple[torch.optim.Optimizer, list[Tensor]]:
    """An optimizer after some steps on ½ Σ h_i x_i², and the parameters from before the last one."""
    h = torch.tensor(curvatures, dtype=torch.float64)
    x = nn.Parameter(torch.ones(len(h), dtype=torch.float64) * torch.tensor([1.0, -0.7, 0.4], dtype=torch.float64))
    optimizer = make([x])
    for _ in range(steps):
        before = x.detach().clone()
        x.grad = h * x.detach()
        optimizer.step()
    return optimizer, [before]


@pytest.mark.parametrize(
    ("beta", "direct", "via", "gain"),
    [(0.0, 1.0, 0.0, 1.0), (0.9, 0.0, 1.0, 1.0), (0.9, 1.0, 0.9, 1.0), (0.9, 0.0, 1.0, 0.1), (0.8, 0.3, 0.6, 0.2)],
)
def test_critical_curvature_is_where_the_step_matrix_leaves_the_unit_circle(
    beta: float, direct: float, via: float, gain: float
) -> None:
    def radius(s: float) -> float:
        """Spectral radius of (x, b) → (x - direct s x - via b', b'), b' = beta b + gain s x."""
        step = torch.tensor([[1 - direct * s - via * gain * s, -via * beta], [gain * s, beta]], dtype=torch.float64)
        return float(torch.linalg.eigvals(step).abs().max())

    edge = critical_curvature(beta, direct, via, gain)
    assert radius(edge * 0.999) < 1 < radius(edge * 1.001)


def test_adam_preconditioner_is_the_papers() -> None:
    optimizer, before = stepped(lambda p: torch.optim.Adam(p, lr=1e-3, betas=(0.9, 0.99), eps=1e-4), 7)
    edge = edge_of(optimizer, before)
    assert edge is not None
    assert edge.root is not None
    (state,) = optimizer.state.values()
    want = (1 - 0.9**7) * ((state["exp_avg_sq"] / (1 - 0.99**7)).sqrt() + 1e-4)
    torch.testing.assert_close(edge.root**-2, want, rtol=1e-12, atol=0)


def test_vradam_threshold_moves_with_its_gate() -> None:
    for scope in ("global", "group"):
        optimizer, before = stepped(lambda p, s=scope: VRAdam(p, lr=1e-3, beta3=5.0, alpha1=3.0, gate_scope=s), 4)
        edge = edge_of(optimizer, before)
        assert edge is not None
        velocity = next(iter(optimizer.state.values()))["exp_avg"]
        gate = 1 + min(5.0 * float(velocity.square().sum()), 3.0)
        assert gate > 1.5
        assert edge.threshold == pytest.approx(38000 * gate, rel=1e-9)
    optimizer, before = stepped(lambda p: VRSGD(p, lr=0.1, momentum=0.9, beta3=0.3), 3)
    edge = edge_of(optimizer, before)
    assert edge is not None
    assert edge.threshold == pytest.approx(3.8 / float(optimizer.param_groups[0]["effective_lr"]), rel=1e-9)


def test_a_rate_that_is_not_declared_is_measured() -> None:
    """RAdam's rectification: sqrt of (ρ-4)(ρ-2)ρ∞ / ((ρ∞-4)(ρ∞-2)ρ), arXiv 1908.03265."""
    optimizer, before = stepped(lambda p: torch.optim.RAdam(p, lr=1e-3), 10)
    edge = edge_of(optimizer, before)
    limit = 2 / (1 - 0.999) - 1
    rho = limit - 2 * 10 * 0.999**10 / (1 - 0.999**10)
    rectified = ((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)) ** 0.5
    assert edge is not None
    assert edge.threshold == pytest.approx(38000 / rectified, rel=1e-5)
    assert edge_of(*stepped(lambda p: torch.optim.RAdam(p, lr=1e-3), 3)) is None, "plain momentum until rho > 5"
    per_tensor = VRAdam([nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))], gate_scope="tensor", beta3=2.0)
    before = [p.detach().clone() for p in per_tensor.param_groups[0]["params"]]
    for p, g in zip(per_tensor.param_groups[0]["params"], (0.1, 5.0), strict=True):
        p.grad = torch.full((2,), g)
    per_tensor.step()
    edge = edge_of(per_tensor, before)
    assert edge is not None
    assert edge.root is not None
    gates = [1 + 2 * 2 * (0.1 * g) ** 2 for g in (0.1, 5.0)]
    scale = edge.root**2 * torch.tensor([0.1 * g for g in (0.1, 0.1, 5.0, 5.0)])  # P = (1 - beta1) |g| at step 1
    assert edge.threshold == pytest.approx(38000 * gates[0], rel=1e-3)
    torch.testing.assert_close(scale[2] / scale[0], torch.tensor(gates[0] / gates[1]), rtol=1e-3, atol=0)


def test_groups_with_rates_of_their_own_reach_the_edge_together() -> None:
    """Two coordinates with rates 0.5 and 0.05: the second alone reaches its edge, 2/0.05, at curvature 40."""
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([{"params": [a], "lr": 0.5}, {"params": [b], "lr": 0.05}])
    before = [a.detach().clone(), b.detach().clone()]
    a.grad, b.grad = torch.ones(1), torch.full((1,), 40.0)
    optimizer.step()
    edge = edge_of(optimizer, before)
    assert edge is not None
    assert edge.root is not None
    assert float((edge.root**2 * torch.tensor([1.0, 40.0])).max()) / edge.threshold == pytest.approx(1.0)


class SignDescent(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:
        for p in self.param_groups[0]["params"]:
            p.data.sub_(self.param_groups[0]["lr"] * p.grad.sign())


def test_an_optimizer_that_climbs_has_no_threshold() -> None:
    for make in (torch.optim.Adam, lambda p, **o: torch.optim.SGD(p, momentum=0.9, **o)):
        assert edge_of(*stepped(lambda p, m=make: m(p, lr=1e-3), 3)) is not None
        assert edge_of(*stepped(lambda p, m=make: m(p, lr=1e-3, maximize=True), 3)) is None


class SaysItself(torch.optim.SGD):
    def stability(self) -> tuple[float, list[Tensor]]:
        return 7.0, [torch.full((3,), 4.0)]


def test_an_optimizer_that_lies_about_its_law_gets_no_threshold_and_one_may_offer_its_own() -> None:
    assert edge_of(*stepped(lambda p: SignDescent(p, lr=0.1), 3)) is None
    edge = edge_of(*stepped(lambda p: SaysItself(p, lr=0.1), 3))
    assert edge is not None
    assert edge.root is not None
    assert (edge.threshold, edge.root.tolist()) == (7.0, [0.5, 0.5, 0.5])
    nothing_moved = edge_of(*stepped(lambda p: torch.optim.SGD(p, lr=0.0), 3))
    assert nothing_moved is None
