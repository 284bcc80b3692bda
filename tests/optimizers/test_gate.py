"""The gate and its sums as functions of tensors, and the optimizers that sit on it beside VRAdam."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from vrbench.optimizers import gate as gate_module
from vrbench.optimizers.gate import blended_power_sum, gate, gated_rate, power_sum
from vrbench.optimizers.vrlion import VRLion
from vrbench.optimizers.vrsgd import VRSGD


@pytest.fixture(autouse=True, params=["numba", "torch alone"])
def _both_passes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The norm of a velocity to come, in one compiled pass where numba is installed, and by torch alone."""
    if request.param == "torch alone":
        monkeypatch.setattr(gate_module, "_compiled", lambda: None)
    monkeypatch.setattr(gate_module, "COMPILED_FROM", 1)


def scalar(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def test_rate_by_hand() -> None:
    assert float(gated_rate(0.5, scalar(0.5), 2.0, 10.0)) == 0.25
    assert float(gated_rate(0.5, scalar(100.0), 2.0, 4.0)) == 0.1
    assert float(gate(scalar(0.0), 2.0, 10.0)) == 1
    assert gate(torch.tensor([0.0, 1.0, 1e9]), 1.0, 3.0).tolist() == [1.0, 0.5, 0.25]


def test_rate_at_the_edges() -> None:
    assert float(gated_rate(1e-3, scalar(math.inf), 0.0, 10.0)) == 1e-3
    assert float(gated_rate(1.0, scalar(math.inf), 1.0, 10.0)) == 1 / 11
    assert float(gated_rate(1.0, scalar(5.0), 1.0, 0.0)) == 1
    assert math.isnan(float(gated_rate(1.0, scalar(math.nan), 1.0, 10.0)))


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 17])
def test_sums_do_not_depend_on_the_chunk(power: float, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "CHUNK", chunk)
    monkeypatch.setattr(gate_module, "SHARE", 1)
    noise = torch.Generator().manual_seed(0)
    shapes = [(3, 5), (), (64,), (2, 3, 4, 5), (0,), (40, 2)]
    vs = [torch.randn(s, generator=noise, dtype=torch.float64) for s in shapes]
    gs = [torch.randn(s, generator=noise, dtype=torch.float64) for s in shapes]
    vs[3], gs[5] = vs[3].to(memory_format=torch.channels_last), gs[5].t().contiguous().t()
    kept = [v.clone() for v in vs]
    expected = sum(float((v.abs() ** power).sum()) for v in vs)
    assert float(power_sum(vs, power)) == pytest.approx(expected, rel=1e-13)
    assert float(power_sum(vs, power, grad_scale=torch.tensor(4.0))) == pytest.approx(expected / 4**power, rel=1e-13)
    for sign in (1, -1):
        blend = sum(float((torch.lerp(v, sign * g, 0.3).abs() ** power).sum()) for v, g in zip(vs, gs, strict=True))
        assert float(blended_power_sum(vs, gs, 0.3, power, maximize=sign < 0)) == pytest.approx(blend, rel=1e-13)
        scaled = [8 * g for g in gs]
        found = blended_power_sum(vs, scaled, 0.3, power, maximize=sign < 0, grad_scale=torch.tensor(8.0))
        assert float(found) == pytest.approx(blend, rel=1e-13)
    assert all(torch.equal(v, k) for v, k in zip(vs, kept, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_sums_are_kept_in_float32_at_least(dtype: torch.dtype) -> None:
    ones = torch.full((300_000,), 1.0, dtype=dtype)
    assert float(power_sum([ones], 2.0)) == 300_000
    assert float(power_sum([ones], 3.0)) == 300_000
    assert power_sum([ones], 2.0).dtype == torch.float64


def test_a_blend_that_cancels_is_exact() -> None:
    v = torch.full((1000,), 1.0)
    g = torch.full((1000,), -9.0)
    found = float(blended_power_sum([v], [g], 0.1, 2.0))
    assert found == float(torch.lerp(v, g, 0.1).double().square().sum()) < 1e-9


def test_an_empty_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="no tensors"):
        power_sum([], 2.0)


# ---- VRSGD and VRLion -----------------------------------------------------------------------------------------------


def test_vrsgd_by_hand() -> None:
    # step 1: v = 2, S = 4, eta = 0.3 / (1 + 0.5 * 4) = 0.1; p = 1 - 0.1 * 2 = 0.8
    # step 2: v = 0.5 * 2 - 1 = 0, S = 0, eta = 0.3: nothing moves
    p = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    optimizer = VRSGD([p], lr=0.3, momentum=0.5, beta3=0.5, alpha1=10.0)
    for g, place, rate in ((2.0, 0.8, 0.1), (-1.0, 0.8, 0.3)):
        p.grad = torch.tensor([g], dtype=torch.float64)
        optimizer.step()
        assert p.item() == pytest.approx(place, rel=1e-15)
        assert float(optimizer.param_groups[0]["effective_lr"]) == pytest.approx(rate, rel=1e-15)


def test_vrlion_by_hand() -> None:
    # v = 0.1 * (3, -4) = (0.3, -0.4), S = 0.25, eta = 0.5 / (1 + 4 * 0.25) = 0.25; decay (1 - 0.25 * 0.4) = 0.9
    p = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    p.grad = torch.tensor([3.0, -4.0], dtype=torch.float64)
    optimizer = VRLion([p], lr=0.5, betas=(0.9, 0.9), beta3=4.0, alpha1=10.0, weight_decay=0.4)
    optimizer.step()
    assert p.tolist() == pytest.approx([0.9 - 0.25, 1.8 + 0.25], rel=1e-14)
    assert float(optimizer.param_groups[0]["velocity_sq"]) == pytest.approx(0.25)


def descend(kind: Any, dtype: torch.dtype = torch.float64, steps: int = 20, **settings: Any) -> Tensor:
    p = torch.linspace(-1, 1, 12, dtype=dtype).reshape(3, 4).requires_grad_()
    optimizer = kind([p], **settings)
    for step in range(steps):
        p.grad = torch.sin(3 * p.detach() + step)
        optimizer.step()
    return p.detach()


def test_an_open_gate_is_sgd_and_lion() -> None:
    ours = descend(VRSGD, lr=0.05, momentum=0.9, beta3=0.0)
    torch.testing.assert_close(ours, descend(torch.optim.SGD, lr=0.05, momentum=0.9), rtol=1e-13, atol=1e-15)
    from pytorch_optimizer import Lion

    for decay in (0.0, 0.1):
        ours = descend(VRLion, lr=0.01, betas=(0.9, 0.99), beta3=0.0, weight_decay=decay)
        theirs = descend(Lion, lr=0.01, betas=(0.9, 0.99), weight_decay=decay)
        torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("kind", [VRSGD, VRLion])
@pytest.mark.parametrize("scope", ["global", "group", "tensor"])
@pytest.mark.parametrize("gate_on", ["velocity", "gradient"])
def test_one_parameter_has_one_gate(kind: Any, scope: str, gate_on: str) -> None:
    first = descend(kind, lr=0.05, gate_scope="global", gate_on=gate_on)
    assert torch.equal(descend(kind, lr=0.05, gate_scope=scope, gate_on=gate_on), first)
    assert not torch.equal(descend(kind, lr=0.05, beta3=0.0), first)


def test_no_step_is_longer_than_the_paper_says() -> None:
    """||eta v|| <= lr / (2 sqrt(beta3)) while the gate is off its floor (arXiv 2505.13196)."""
    noise = torch.Generator().manual_seed(0)
    p = torch.zeros(50, dtype=torch.float64, requires_grad=True)
    optimizer = VRSGD([p], lr=0.1, momentum=0.9, beta3=0.7, alpha1=1e12)
    longest = 0.0
    for step in range(300):
        before = p.detach().clone()
        p.grad = torch.randn(50, generator=noise, dtype=torch.float64) * 10 ** (step % 5 - 2)
        optimizer.step()
        longest = max(longest, float((p.detach() - before).norm()))
    bound = 0.1 / (2 * math.sqrt(0.7))
    assert 0.8 * bound < longest <= bound * (1 + 1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("kind", [VRSGD, VRLion])
def test_dtypes(kind: Any, dtype: torch.dtype) -> None:
    low = descend(kind, dtype, lr=0.02)
    assert low.dtype == dtype
    torch.testing.assert_close(low.double(), descend(kind, lr=0.02), rtol=0, atol=0.1)


@pytest.mark.parametrize("kind", [VRSGD, VRLion])
def test_maximize(kind: Any) -> None:
    ends = []
    for sign in (1, -1):
        p = torch.ones(3, dtype=torch.float64, requires_grad=True)
        optimizer = kind([p], lr=0.05, maximize=sign < 0)
        for step in range(4):
            p.grad = sign * torch.tensor([1.0, -2.0, 0.5 + step], dtype=torch.float64)
            optimizer.step()
        ends.append(p.detach())
    assert torch.equal(*ends)


@pytest.mark.parametrize("kind", [VRSGD, VRLion])
@pytest.mark.parametrize(
    ("name", "value"), [("lr", -1.0), ("beta3", -1.0), ("alpha1", -1.0), ("weight_decay", -1.0), ("power", 0.0)]
)
def test_bad_values(kind: Any, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name}="):
        kind([torch.zeros(1, requires_grad=True)], **{name: value})


def test_bad_values_of_their_own() -> None:
    with pytest.raises(ValueError, match=r"^momentum="):
        VRSGD([torch.zeros(1, requires_grad=True)], momentum=1.0)
    with pytest.raises(ValueError, match=r"^betas="):
        VRLion([torch.zeros(1, requires_grad=True)], betas=(0.9, 1.0))


def test_vrsgd_is_differentiable() -> None:
    def end(start: Tensor) -> Tensor:
        p = start.clone()
        optimizer = VRSGD([p], lr=0.1, beta3=0.5, weight_decay=0.1, differentiable=True)
        for factor in (1.0, 2.0, 3.0):
            p.grad = torch.sin(factor * start)
            optimizer.step()
        return p

    assert torch.autograd.gradcheck(end, torch.linspace(0.2, 1, 4, dtype=torch.float64).requires_grad_())
