"""VRAdam's numbers: published trajectories, its three forms against one another, AdamW as its special case."""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from optimizers import VRAdam

FORMS: dict[str, dict[str, Any]] = {
    "reference": {"foreach": False, "fused": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
    "default": {},
    "reference-capturable": {"foreach": False, "fused": False, "capturable": True},
}
SHAPES = [(5, 3), (7,), (2, 2, 2), (), (64, 65), (0, 3)]
TRAJECTORIES = json.loads((Path(__file__).parent / "reference/vradam_trajectories.json").read_text())
LOUD = {"lr": 0.01, "beta3": 0.5, "alpha1": 4.0, "weight_decay": 0.02}
"""Settings under which the gate moves between its ends on standard normal gradients of a few dozen numbers."""

forms = pytest.mark.parametrize("form", FORMS)


def make(dtype: torch.dtype = torch.float64, seed: int = 0, shapes: list[tuple[int, ...]] = SHAPES) -> list[Tensor]:
    noise = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=noise, dtype=dtype).requires_grad_() for s in shapes]


def set_grads(params: list[Tensor], step: int, scale: float = 1.0) -> None:
    noise = torch.Generator().manual_seed(1000 + step)
    for p in params:
        p.grad = (scale * torch.randn(p.shape, generator=noise, dtype=p.dtype)).to(p.device)


def train(params: list[Tensor], optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> list[Tensor]:
    for step in range(first, first + steps):
        set_grads(params, step, scale=0.05 + (step % 7) / 7)
        optimizer.step()
    return params


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    """Largest difference, relative to the largest number."""
    top = max(float(y.detach().abs().max()) for y in b if y.numel())
    return max(float((x - y).detach().abs().max()) for x, y in zip(a, b, strict=True) if y.numel()) / top


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


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("form", ["foreach", "fused"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=str)
def test_forms_agree_over_200_steps(form: str, variant: str, dtype: torch.dtype, tolerance: float) -> None:
    results, gates = [], []
    for choice in ("reference", form):
        params = make(dtype)
        groups = [{"params": params[:2], "weight_decay": 0.0}, {"params": params[2:], "beta3": 0.01}]
        optimizer = VRAdam(groups, **(LOUD | VARIANTS[variant]), **FORMS[choice])
        results.append(train(params, optimizer, 200))
        gates.append([float(group["gate"]) for group in optimizer.param_groups])
    assert difference(results[1], results[0]) < tolerance
    assert gates[1] == pytest.approx(gates[0], rel=max(tolerance, 1e-6) if dtype == torch.float32 else tolerance)
    assert difference(results[0], make(dtype)) > 0.01


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


# ---- the interface of torch.optim -----------------------------------------------------------------------------------


@forms
def test_step_leaves_gradients_alone_and_closures_see_grad(form: str) -> None:
    params = make()
    for maximize in (False, True):
        optimizer = VRAdam(params, maximize=maximize, **FORMS[form])
        set_grads(params, 0)
        before = [p.grad.clone() for p in params]
        optimizer.step()
        assert all(torch.equal(p.grad, g) for p, g in zip(params, before, strict=True))

    def closure() -> Tensor:
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        loss = sum((p**2).sum() for p in params)
        loss.backward()
        return loss

    first = optimizer.step(closure)
    assert first is not None
    assert first.requires_grad


@forms
def test_maximize_is_minus_minimize(form: str) -> None:
    up, down = make(), make()
    climber = VRAdam(up, maximize=True, **LOUD, **FORMS[form])
    sinker = VRAdam(down, **LOUD, **FORMS[form])
    for step in range(5):
        set_grads(up, step)
        set_grads(down, step, scale=-1.0)
        climber.step()
        sinker.step()
    assert difference(up, down) == 0


@forms
@pytest.mark.parametrize("scope", ["global", "tensor"])
def test_tensor_lr(form: str, scope: str) -> None:
    numbers, tensors = make(), make()
    rate = torch.tensor([LOUD["lr"]], dtype=torch.float64)
    plain = train(numbers, VRAdam(numbers, **LOUD, **FORMS[form], gate_scope=scope), 5)
    optimizer = VRAdam(tensors, **(LOUD | {"lr": rate}), **FORMS[form], gate_scope=scope)
    assert difference(train(tensors, optimizer, 5), plain) < 1e-14
    held = [t.detach().clone() for t in tensors]
    rate.zero_()
    assert difference(train(tensors, optimizer, 1, first=5), held) == 0


SCHEDULERS = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 4]),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 6),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, total_iters=4),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, total_iters=4),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 6),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.9),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 1e-3, 1e-2, step_size_up=2),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.01, total_steps=8),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, total_iters=2), lr_scheduler.CosineAnnealingLR(o, 4)], [2]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.LinearLR(o, total_iters=2), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, 0.001, anneal_epochs=3),
}


def test_the_list_of_schedulers_is_whole() -> None:
    public = {n for n in lr_scheduler.__all__ if n not in {"LRScheduler"}}
    assert public <= set(SCHEDULERS)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_drive_the_rate(name: str) -> None:
    params = make()
    optimizer = VRAdam([{"params": params[:2]}, {"params": params[2:], "lr": 0.02}], lr=0.01)
    schedule = SCHEDULERS[name](optimizer)
    rates = set()
    for step in range(6):
        set_grads(params, step)
        optimizer.step()
        for group in optimizer.param_groups:
            rate = float(group["effective_lr"])
            assert rate == pytest.approx(float(group["lr"]) * float(group["gate"]))
            rates.add(round(float(group["lr"]), 12))
        schedule.step(*([1.0] if name == "ReduceLROnPlateau" else []))
    assert len(rates) > 2


def copies(optimizer: VRAdam, params: list[Tensor], how: str, tmp_path: Path) -> tuple[VRAdam, list[Tensor]]:
    if how == "deepcopy":
        return copy.deepcopy((optimizer, params))
    if how == "pickle":
        return pickle.loads(pickle.dumps((optimizer, params)))
    torch.save({"optimizer": optimizer.state_dict(), "params": params}, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    fresh = saved["params"]
    twin = VRAdam([{"params": fresh[:2]}, {"params": fresh[2:]}])
    twin.load_state_dict(saved["optimizer"])
    return twin, fresh


@forms
@pytest.mark.parametrize("how", ["state_dict", "deepcopy", "pickle"])
def test_a_copy_goes_on_bit_for_bit(form: str, how: str, tmp_path: Path) -> None:
    params = make(torch.float32)
    optimizer = VRAdam([{"params": params[:2]}, {"params": params[2:], "lr": 0.02}], **LOUD, **FORMS[form])
    train(params, optimizer, 5)
    twin, fresh = copies(optimizer, params, how, tmp_path)
    assert float(twin.param_groups[0]["gate"]) == float(optimizer.param_groups[0]["gate"]) < 1
    train(params, optimizer, 5, first=5)
    train(fresh, twin, 5, first=5)
    assert all(torch.equal(a, b) for a, b in zip(params, fresh, strict=True))
    assert torch.equal(twin.param_groups[1]["velocity_sq"], optimizer.param_groups[1]["velocity_sq"])


@pytest.mark.parametrize("form", ["reference", "foreach", "fused"])
def test_a_state_moves_between_forms(form: str) -> None:
    params, twin_params = make(), make()
    optimizer = VRAdam(params, **LOUD, fused=True)
    train(params, optimizer, 5)
    twin = VRAdam(twin_params, **LOUD)
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][0].update({"foreach": None, "fused": None} | FORMS[form])
    twin.load_state_dict(state)
    with torch.no_grad():
        for p, q in zip(twin_params, params, strict=True):
            p.copy_(q)
    train(params, optimizer, 5, first=5)
    assert difference(train(twin_params, twin, 5, first=5), params) < 1e-14


def test_hooks_run() -> None:
    params, seen = make(), []
    optimizer = VRAdam(params)
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("state_dict pre"))
    optimizer.register_state_dict_post_hook(lambda o, s: seen.append("state_dict post"))
    optimizer.register_load_state_dict_pre_hook(lambda o, s: seen.append("load pre"))
    optimizer.register_load_state_dict_post_hook(lambda o: seen.append("load post"))
    optimizer.register_step_pre_hook(lambda o, a, k: seen.append("step pre"))
    optimizer.register_step_post_hook(lambda o, a, k: seen.append("step post"))
    train(params, optimizer, 1)
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["step pre", "step post", "state_dict pre", "state_dict post", "load pre", "load post"]


def test_add_param_group_and_repr() -> None:
    params = make()
    optimizer = VRAdam(params[:2], **LOUD)
    train(params, optimizer, 2)
    optimizer.add_param_group({"params": params[2:], "lr": 0.5, "beta3": 0.1})
    assert float(optimizer.param_groups[1]["effective_lr"]) == 0.5
    assert float(optimizer.param_groups[1]["gate"]) == 1
    assert float(optimizer.param_groups[1]["velocity_sq"]) == 0
    train(params, optimizer, 2, first=2)
    assert 0 < float(optimizer.param_groups[1]["gate"]) < 1
    assert "beta3" in repr(optimizer)


def test_reports_are_fresh_scalars_without_history() -> None:
    params = make()
    optimizer = VRAdam(params, **LOUD)
    train(params, optimizer, 1)
    held = [optimizer.param_groups[0][k] for k in ("effective_lr", "gate", "velocity_sq")]
    values = [float(x) for x in held]
    train(params, optimizer, 1, first=1)
    assert [float(x) for x in held] == values
    assert all(x.shape == () and not x.requires_grad for x in held)
    assert values[1] == pytest.approx(1 / (1 + min(LOUD["beta3"] * values[2], LOUD["alpha1"])))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", -1.0), ("lr", torch.tensor([0.1, 0.2])), ("betas", (1.0, 0.9)), ("betas", (0.9, 1.0)),
        ("betas", (-0.1, 0.9)), ("betas", (0.9,)), ("beta3", -1e-9), ("alpha1", -1.0), ("eps", -1e-8),
        ("weight_decay", -0.1), ("power", 0.0), ("power", -2.0), ("gate_on", "speed"), ("gate_scope", "layer"),
        ("lr", float("nan")), ("beta3", float("nan")),
    ],
    ids=str,
)  # fmt: skip
def test_bad_values_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name}="):
        VRAdam(make(), **{name: value})
    optimizer = VRAdam(make())
    with pytest.raises(ValueError, match=rf"^{name}"):
        optimizer.add_param_group({"params": make(), name: value})
    assert len(optimizer.param_groups) == 1


def test_flags_that_exclude_each_other() -> None:
    for flags in ({"foreach": True, "fused": True}, {"fused": True, "differentiable": True},
                  {"foreach": True, "differentiable": True}):  # fmt: skip
        with pytest.raises(ValueError, match=r"^(fused|foreach)=True"):
            VRAdam(make(), **flags)
    with pytest.raises(ValueError, match=r"^power"):
        VRAdam([{"params": make(), "power": 3.0}])
    with pytest.raises(ValueError, match=r"^fused=True"):
        VRAdam([torch.zeros(1, device="meta", requires_grad=True)], fused=True)


@forms
def test_sparse_gradients_are_refused(form: str) -> None:
    table = nn.Embedding(5, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        VRAdam(table.parameters(), **FORMS[form]).step()


def test_default_form_is_fused_on_the_cpu() -> None:
    default, fused = make(torch.float32), make(torch.float32)
    first, second = VRAdam(default, **LOUD), VRAdam(fused, **LOUD, fused=True)
    train(default, first, 5)
    train(fused, second, 5)
    assert all(torch.equal(a, b) for a, b in zip(default, fused, strict=True))
    assert first._step_supports_amp_scaling
    assert not VRAdam(make(), foreach=True)._step_supports_amp_scaling


def test_no_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        params = make()
        train(params, VRAdam(params), 2)
