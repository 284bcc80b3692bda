"""VRAdam as a torch.optim.Optimizer: closures, schedules, copies, states, hooks, refusals."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler
from vradam_forms import FORMS, LOUD, difference, forms, make, set_grads, train
from vrbench.optimizers import VRAdam


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
