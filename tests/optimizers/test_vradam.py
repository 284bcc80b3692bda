"""VRAdam's numbers: published trajectories, its three forms against one another, AdamW as its special case."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from vradam_forms import FORMS, LOUD, difference, forms, make, set_grads, train
from vrbench.optimizers import VRAdam

TRAJECTORIES = json.loads((Path(__file__).parents[1] / "reference/vradam_trajectories.json").read_text())


# ---- what must come out ---------------------------------------------------------------------------------------------


@forms
@pytest.mark.parametrize("trajectory", TRAJECTORIES, ids=lambda t: t["name"])
def test_published_trajectories(trajectory: dict[str, Any], form: str) -> None:
    hyper = trajectory["hyper"]
    params = [torch.tensor(p, dtype=torch.float64).requires_grad_() for p in trajectory["param_init"]]
    optimizer = VRAdam(
        params,
        lr=hyper["eta"],
        betas=(hyper["beta1"], hyper["beta2"]),
        beta3=hyper["beta3"],
        alpha1=hyper["lr_cutoff"],
        eps=hyper["eps"],
        weight_decay=hyper["weight_decay"],
        power=hyper["power"],
        gate_on="gradient" if hyper["normgrad"] else "velocity",
        **FORMS[form],
    )
    rows = zip(trajectory["grads"], trajectory["params"], trajectory["effective_lr"], strict=True)
    for grads, wanted, rate in rows:
        for p, g in zip(params, grads, strict=True):
            p.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
        assert float(optimizer.param_groups[0]["effective_lr"]) == pytest.approx(rate, rel=1e-12)
        for p, w in zip(params, wanted, strict=True):
            torch.testing.assert_close(p.detach(), torch.tensor(w, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@forms
def test_a_step_worked_by_hand(form: str) -> None:
    # v = 0.1 * (3, -4) = (0.3, -0.4), ||v||^2 = 0.25; eta = 0.5 / (1 + 2 * 0.25) = 1/3; v_hat = g, sqrt(m_hat) = |g|
    # theta = (1 - 0.3/3) * (1, 2) - 1/3 * sign(g)
    p = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    p.grad = torch.tensor([3.0, -4.0], dtype=torch.float64)
    optimizer = VRAdam([p], lr=0.5, betas=(0.9, 0.99), beta3=2.0, alpha1=9.0, eps=0.0, weight_decay=0.3, **FORMS[form])
    optimizer.step()
    assert p.tolist() == pytest.approx([0.9 - 1 / 3, 1.8 + 1 / 3], rel=1e-14)
    group = optimizer.param_groups[0]
    assert [float(group[k]) for k in ("velocity_sq", "gate", "effective_lr")] == pytest.approx([0.25, 2 / 3, 1 / 3])


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gradient": {"gate_on": "gradient"},
    "group": {"gate_scope": "group"},
    "tensor": {"gate_scope": "tensor"},
    "cubic": {"power": 3.0},
    "absolute": {"power": 1.0},
    "maximize": {"maximize": True},
}


@functools.cache
def run_variant(form: str, variant: str, dtype: torch.dtype) -> tuple[list[Tensor], list[float]]:
    """Parameters and gates of two groups after 200 steps of the plain variant, 50 of the others."""
    params = make(dtype)
    groups = [{"params": params[:2], "weight_decay": 0.0}, {"params": params[2:], "beta3": 0.01}]
    optimizer = VRAdam(groups, **(LOUD | VARIANTS[variant]), **FORMS[form])
    train(params, optimizer, 200 if variant == "plain" else 50)
    return params, [float(group["gate"]) for group in optimizer.param_groups]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("form", ["foreach", "fused"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=str)
def test_forms_agree_over_many_steps(form: str, variant: str, dtype: torch.dtype, tolerance: float) -> None:
    wanted, wanted_gates = run_variant("reference", variant, dtype)
    found, gates = run_variant(form, variant, dtype)
    assert difference(found, wanted) < tolerance
    assert gates == pytest.approx(wanted_gates, rel=max(tolerance, 1e-6) if dtype == torch.float32 else tolerance)
    assert difference(wanted, make(dtype)) > 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("form", ["foreach", "fused"])
def test_low_precision_follows_float32(form: str, dtype: torch.dtype) -> None:
    exact, low = make(torch.float32), [p.detach().to(dtype).requires_grad_() for p in make(torch.float32)]
    settings = {**LOUD, "lr": 0.05, "eps": 1e-4, "betas": (0.9, 0.9)}
    wide, narrow = VRAdam(exact, **settings), VRAdam(low, **settings, **FORMS[form])
    for step in range(20):
        set_grads(exact, step)
        for p, q in zip(low, exact, strict=True):
            p.grad = q.grad.to(dtype)
        wide.step()
        narrow.step()
    assert low[0].dtype == dtype
    assert narrow.param_groups[0]["velocity_sq"].dtype == torch.float64
    assert float(narrow.param_groups[0]["gate"]) == pytest.approx(float(wide.param_groups[0]["gate"]), rel=0.02)
    assert difference([p.float() for p in low], exact) < 0.03


def test_half_precision_norm_does_not_overflow() -> None:
    p = torch.zeros(4096, dtype=torch.float16, requires_grad=True)
    p.grad = torch.full((4096,), 100.0, dtype=torch.float16)
    optimizer = VRAdam([p], beta3=1e-6, alpha1=10.0, betas=(0.0, 0.999))
    optimizer.step()
    assert float(optimizer.param_groups[0]["velocity_sq"]) == pytest.approx(4096 * 1e4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("form", ["fused", "foreach", "reference"])
def test_beta3_zero_is_adamw(form: str, dtype: torch.dtype) -> None:
    ours, theirs = make(dtype), make(dtype)
    settings = {"lr": 3e-3, "betas": (0.85, 0.97), "eps": 1e-6, "weight_decay": 0.05}
    flags = {k: v for k, v in FORMS[form].items() if k != "capturable"}
    mine = train(ours, VRAdam(ours, beta3=0.0, **settings, **flags), 50)
    adamw = train(theirs, torch.optim.AdamW(theirs, **settings, **flags), 50)
    if form == "fused":
        assert all(torch.equal(a, b) for a, b in zip(mine, adamw, strict=True))
    else:
        bound = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
        assert difference(mine, adamw) < bound


def test_beta3_zero_survives_an_infinite_velocity() -> None:
    pairs = []
    for kind in (VRAdam, torch.optim.AdamW):
        p, q = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
        p.grad, q.grad = torch.tensor([torch.inf, 1.0]), torch.tensor([1.0, -1.0])
        extra = {"beta3": 0.0} if kind is VRAdam else {}
        kind([p, q], lr=0.1, weight_decay=0.0, fused=True, **extra).step()
        pairs.append((p, q))
    assert torch.equal(pairs[0][1], pairs[1][1])
    assert torch.isfinite(pairs[0][1]).all()


def test_velocity_is_read_before_it_is_corrected_and_the_floor_holds() -> None:
    p = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    p.grad = torch.full((1,), 1e6, dtype=torch.float64)
    optimizer = VRAdam([p], lr=1.0, alpha1=3.0)
    optimizer.step()
    assert float(optimizer.param_groups[0]["velocity_sq"]) == pytest.approx(1e10)
    assert float(optimizer.param_groups[0]["effective_lr"]) == 0.25


# ---- groups and scopes ----------------------------------------------------------------------------------------------


@forms
def test_splitting_into_groups_changes_nothing(form: str) -> None:
    whole, split = make(), make()
    one = train(whole, VRAdam(whole, **LOUD, **FORMS[form]), 30)
    two = train(split, VRAdam([{"params": split[:1]}, {"params": split[1:]}], **LOUD, **FORMS[form]), 30)
    assert difference(two, one) < 1e-14


@forms
def test_scopes(form: str) -> None:
    def run(scope: str, only: slice = slice(None)) -> tuple[list[Tensor], VRAdam]:
        params = make()
        groups = [{"params": params[:2]}, {"params": params[2:]}]
        optimizer = VRAdam(groups, gate_scope=scope, **LOUD, **FORMS[form])
        train(params, optimizer, 10)
        return params, optimizer

    def alone(index: list[int]) -> tuple[list[Tensor], VRAdam]:
        params = make()
        optimizer = VRAdam([params[i] for i in index], **LOUD, **FORMS[form])
        train(params, optimizer, 10)
        return [params[i] for i in index], optimizer

    by_group, grouped = run("group")
    expected, single = alone([0, 1])
    assert difference(by_group[:2], expected) < 1e-14
    assert float(grouped.param_groups[0]["gate"]) == pytest.approx(float(single.param_groups[0]["gate"]))
    by_tensor, each = run("tensor")
    gates, sums = [], []
    for i in (0, 1):
        expected, single = alone([i])
        assert difference([by_tensor[i]], expected) < 1e-14
        gates.append(float(single.param_groups[0]["gate"]) * by_tensor[i].numel())
        sums.append(float(single.param_groups[0]["velocity_sq"]))
    report = each.param_groups[0]
    assert float(report["gate"]) == pytest.approx(sum(gates) / (15 + 7))
    assert float(report["effective_lr"]) == pytest.approx(LOUD["lr"] * float(report["gate"]))
    assert float(report["velocity_sq"]) == pytest.approx(sum(sums))
    assert difference(run("global")[0], by_group) > 1e-4


def test_mixed_dtypes_share_one_norm() -> None:
    p = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    q = torch.zeros(2, dtype=torch.float32, requires_grad=True)
    optimizer = VRAdam([p, q], betas=(0.0, 0.9), lr=1.0, weight_decay=0.0)
    p.grad, q.grad = torch.ones_like(p), 2 * torch.ones_like(q)
    optimizer.step()
    assert float(optimizer.param_groups[0]["velocity_sq"]) == 10.0
    assert p.tolist() == pytest.approx([-1 / 11] * 2)
    assert q.tolist() == pytest.approx([-1 / 11] * 2)


@forms
def test_parameters_without_gradient_take_no_part(form: str) -> None:
    params, twin = make(), make()
    optimizer, other = VRAdam(params, **LOUD, **FORMS[form]), VRAdam(twin[:2], **LOUD, **FORMS[form])
    set_grads(params, 0)
    set_grads(twin, 0)
    for p in params[2:]:
        p.grad = None
    optimizer.step()
    other.step()
    assert difference(params, twin) == 0
    assert all(p not in optimizer.state for p in params[2:])
    for p in params:
        p.grad = None
    optimizer.step()
    assert difference(params, twin) == 0


@forms
def test_complex_parameters_count_as_pairs(form: str) -> None:
    z = torch.randn(6, dtype=torch.complex128, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pairs = torch.view_as_real(z.detach()).clone().requires_grad_()
    first, second = VRAdam([z], **LOUD, **FORMS[form]), VRAdam([pairs], **LOUD, **FORMS[form])
    for step in range(5):
        set_grads([pairs], step)
        z.grad = torch.view_as_complex(pairs.grad.clone())
        first.step()
        second.step()
    torch.testing.assert_close(torch.view_as_real(z.detach()), pairs.detach(), rtol=1e-14, atol=0)
    assert first.state[z]["exp_avg"].is_complex()


@forms
def test_any_memory_layout(form: str) -> None:
    plain, laid_out = make(shapes=[(4, 6, 5, 3)]), make(shapes=[(4, 6, 5, 3)])
    laid_out[0].data = laid_out[0].data.to(memory_format=torch.channels_last)
    first = train(plain, VRAdam(plain, **LOUD, **FORMS[form]), 5)  # grads are contiguous: strides differ
    optimizer = VRAdam(laid_out, **LOUD, **FORMS[form])
    assert difference(train(laid_out, optimizer, 5), first) < 1e-14
    assert optimizer.state[laid_out[0]]["exp_avg"].is_contiguous(memory_format=torch.channels_last)
    strided = [torch.empty(6, 4, 5, 6, dtype=torch.float64)[..., ::2].transpose(0, 1)]  # gaps between elements
    strided[0].copy_(make(shapes=[(4, 6, 5, 3)])[0].detach()).requires_grad_()
    assert difference(train(strided, VRAdam(strided, **LOUD, **FORMS[form]), 5), first) < 1e-14
