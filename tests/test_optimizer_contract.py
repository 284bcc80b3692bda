"""Every conf/optimizer/*.yaml against the contract. What one cannot do is listed, with its reason, in one file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from vrbench.capabilities import Capabilities, capabilities

ROOT = Path(__file__).parents[1]
CONFIGS = {path.stem: path for path in sorted((ROOT / "conf/optimizer").glob("*.yaml"))}
WAIVERS: dict[str, dict[str, str]] = OmegaConf.to_container(  # type: ignore[assignment]
    OmegaConf.load(Path(__file__).with_name("optimizer_waivers.yaml"))
)
PROPERTIES: list[str] = []
pytestmark = [
    pytest.mark.filterwarnings("ignore:Using backward.. with create_graph"),
    pytest.mark.filterwarnings("ignore:lr_scheduler"),
]


def each(test: Callable[..., None]) -> Callable[..., None]:
    """Run a property over all configurations; a waived one must fail, so that no waiver outlives its reason."""
    name = test.__name__.removeprefix("test_")
    PROPERTIES.append(name)
    cases = []
    for config in CONFIGS:
        reason = WAIVERS.get(config, {}).get(name)
        marks = [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]
        cases.append(pytest.param(config, marks=marks))
    return pytest.mark.parametrize("config", cases)(test)


def build(config: str, params: Any, **overrides: Any) -> torch.optim.Optimizer:
    return instantiate(OmegaConf.load(CONFIGS[config]), **overrides)(params)


def without_decay(config: str) -> dict[str, float]:
    return {str(k): 0.0 for k in OmegaConf.load(CONFIGS[config]) if str(k).endswith(("weight_decay", "_wd"))}


def advance(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], able: Capabilities) -> float:
    """One step by the protocol of vrbench.capabilities; returns the loss before it."""

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward(create_graph=able.create_graph)
        return value

    value = closure()
    if able.two_step:
        optimizer.first_step(zero_grad=True)  # type: ignore[attr-defined]
        closure()
        optimizer.second_step(zero_grad=False)  # type: ignore[attr-defined]
    else:
        optimizer.step()
    return float(value.detach())


def minimise(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor], steps: int) -> float:
    able = capabilities(optimizer)
    if able.train_eval:
        optimizer.train()  # type: ignore[attr-defined]
    for step in range(steps):
        advance(optimizer, loss, able)
        for group in optimizer.param_groups:  # linear decay, as a schedule would
            group["lr"] = group.setdefault("_peak", group["lr"]) * (1 - step / steps)
    if able.train_eval:
        optimizer.eval()  # type: ignore[attr-defined]
    with torch.no_grad():
        return float(loss())


def quadratic(dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], Callable[[], Tensor]]:
    """A bowl with curvatures 1 … 10 over a matrix and a vector, minimum 0; it starts at 27.5 for ones everywhere."""
    matrix = torch.ones(3, 2, dtype=dtype, requires_grad=True)
    vector = torch.ones(4, dtype=dtype, requires_grad=True)
    curvatures = torch.linspace(1, 10, 10, dtype=dtype)
    return [matrix, vector], lambda: 0.5 * (curvatures * torch.cat([matrix.reshape(-1), vector]) ** 2).sum()


def rosenbrock() -> tuple[list[Tensor], Callable[[], Tensor]]:
    point = torch.tensor([[-1.0], [1.5]], dtype=torch.float64, requires_grad=True)
    return [point], lambda: (1 - point[0, 0]) ** 2 + 10 * (point[1, 0] - point[0, 0] ** 2) ** 2


def network(seed: int = 0) -> tuple[nn.Module, Callable[[], Tensor]]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3))
    inputs, targets = torch.randn(8, 1, 4, 4), torch.arange(8) % 3
    return model, lambda: nn.functional.cross_entropy(model(inputs), targets)


# ---- the properties -------------------------------------------------------------------------------------------------


@each
def test_states_every_hyperparameter(config: str) -> None:
    """No default is left in the dark; Hydra refuses what the target does not take."""
    import inspect

    from hydra.utils import get_object

    stated = {k for k in OmegaConf.load(CONFIGS[config]) if not str(k).startswith("_")}
    signature = inspect.signature(get_object(OmegaConf.load(CONFIGS[config])["_target_"])).parameters
    wanted = {n for n, p in signature.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)} - {"params", "self"}
    assert wanted <= stated
    takes_more = any(p.kind == p.VAR_KEYWORD for p in signature.values())
    assert takes_more or stated <= wanted


@each
def test_converges_on_a_quadratic(config: str) -> None:
    params, loss = quadratic()
    start = float(loss())
    assert minimise(build(config, params, **RATES.get(config, {})), loss, 400) < 1e-3 * start


@each
def test_converges_on_rosenbrock(config: str) -> None:
    params, loss = rosenbrock()
    start = float(loss())
    assert minimise(build(config, params, **{"lr": 0.02} | SLOW.get(config, {})), loss, 1000) < 0.05 * start


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_keeps_the_dtype(config: str, dtype: torch.dtype) -> None:
    params, loss = quadratic(dtype)
    start = float(loss())
    optimizer = build(config, params, **RATES.get(config, {}))
    able = capabilities(optimizer)
    for _ in range(3):
        advance(optimizer, loss, able)
    assert all(p.dtype == dtype and torch.isfinite(p).all() for p in params)
    assert float(loss()) < start


@each
def test_groups_have_their_own_rate(config: str) -> None:
    params, loss = quadratic()
    optimizer = build(config, [{"params": params[:1], "lr": 0.0}, {"params": params[1:]}], **without_decay(config))
    able = capabilities(optimizer)
    for _ in range(2):
        advance(optimizer, loss, able)
    assert torch.equal(params[0], torch.ones_like(params[0]))
    assert not torch.equal(params[1], torch.ones_like(params[1]))


@each
@pytest.mark.parametrize("shape", [(), (1,), (3,)], ids=str)
def test_a_tasks_group_keeps_its_own_rate_and_decay(config: str, shape: tuple[int, ...]) -> None:
    """A task gives a scalar of its own (log Z, say) a rate beside the optimizer's, and no decay: both hold as given."""
    decays = dict.fromkeys(without_decay(config), 0.3)
    moved = []
    for lr in (1e-4, 3e-4):
        params, loss = quadratic()
        own = torch.ones(shape, dtype=torch.float64, requires_grad=True)
        groups = [{"params": params}, {"params": [own], "lr": lr, "weight_decay": 0.0}]
        optimizer = build(config, groups, **decays)
        (group,) = [g for g in optimizer.param_groups if any(p is own for p in g["params"])]
        assert float(group["lr"]) == lr
        assert [p.shape for p in group["params"]] == [shape]
        able = capabilities(optimizer)
        for _ in range(3):
            advance(optimizer, lambda: loss() + own.square().sum(), able)  # noqa: B023
        moved.append(float((1 - own.detach()).abs().max()))
        still = own.detach().clone()
        optimizer = build(
            config, [{"params": quadratic()[0]}, {"params": [own], "lr": lr, "weight_decay": 0.0}], **decays
        )
        for _ in range(3):
            advance(optimizer, lambda: 0 * own.square().sum(), able)  # noqa: B023
        assert torch.equal(own, still), "weight decay reached it"
    assert moved[0] > 0
    assert moved[1] / moved[0] == pytest.approx(3, rel=0.02)


@each
def test_obeys_a_scheduler(config: str) -> None:
    params, loss = quadratic()
    optimizer = build(config, params, **without_decay(config))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 if step < 2 else 0.0)
    able = capabilities(optimizer)
    for _ in range(2):
        advance(optimizer, loss, able)
        schedule.step()
    assert all(group["lr"] == 0 for group in optimizer.param_groups)
    if able.train_eval:
        return  # the averaged iterate still follows the weights of the steps already made
    held = [p.detach().clone() for p in params]
    advance(optimizer, loss, able)
    assert all(torch.allclose(p, h, rtol=0, atol=1e-15) for p, h in zip(params, held, strict=True))


@each
def test_runs_a_closure_with_gradients(config: str) -> None:
    params, loss = quadratic()
    optimizer = build(config, params)
    able = capabilities(optimizer)
    calls = []

    def closure() -> Tensor:
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward(create_graph=able.create_graph)
        return value

    start = float(closure().detach())
    returned = optimizer.step(closure)
    assert calls == [True, True]
    assert able.two_step or float(returned.detach()) == start
    closure()
    optimizer.step(closure)  # SOAP's first step only builds its preconditioner
    assert float(loss()) < start


@each
def test_leaves_gradients_alone(config: str) -> None:
    params, loss = quadratic()
    optimizer = build(config, params)
    able = capabilities(optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        loss().backward(create_graph=able.create_graph)
        before = [p.grad.detach().clone() for p in params]  # type: ignore[union-attr]
        if able.two_step:
            optimizer.first_step(zero_grad=False)  # type: ignore[attr-defined]
            optimizer.second_step(zero_grad=False)  # type: ignore[attr-defined]
        else:
            optimizer.step()
        assert all(torch.equal(p.grad, g) for p, g in zip(params, before, strict=True))  # type: ignore[arg-type]


@each
def test_resumes_bit_for_bit(config: str, tmp_path: Path) -> None:
    model, loss = network()
    optimizer = build(config, model.parameters())
    able = capabilities(optimizer)
    for _ in range(4):
        advance(optimizer, loss, able)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "checkpoint.pt")
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    twin, twin_loss = network()
    twin.load_state_dict(saved["model"])
    other = build(config, twin.parameters())
    other.load_state_dict(saved["optimizer"])
    for net_loss, opt in ((loss, optimizer), (twin_loss, other)):
        torch.manual_seed(7)
        for _ in range(4):
            advance(opt, net_loss, able)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


@each
def test_zero_gradients_move_nothing(config: str) -> None:
    params, loss = quadratic()
    optimizer = build(config, params, **without_decay(config))
    able = capabilities(optimizer)
    for _ in range(2):
        advance(optimizer, lambda: 0 * loss(), able)
    assert all(torch.equal(p, torch.ones_like(p)) for p in params)


@each
def test_skips_parameters_without_gradient(config: str) -> None:
    params, loss = quadratic()
    idle = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    optimizer = build(config, [params[0], idle, params[1]])
    able = capabilities(optimizer)
    for _ in range(2):
        advance(optimizer, loss, able)
    assert torch.equal(idle, torch.ones_like(idle))
    assert not torch.equal(params[1], torch.ones_like(params[1]))


@each
def test_maximizes(config: str) -> None:
    params, loss = quadratic()
    start = float(loss())
    optimizer = build(config, params, maximize=True, **without_decay(config))
    able = capabilities(optimizer)
    for _ in range(3):
        advance(optimizer, loss, able)
    if able.train_eval:
        optimizer.eval()  # type: ignore[attr-defined]
    assert float(loss()) > start


@each
def test_reports_a_rate_of_its_own(config: str) -> None:
    """`effective_lr`, where there is one, is a scalar tensor between 0 and lr, and it moved the parameters."""
    params, loss = quadratic()
    optimizer = build(config, params)
    advance(optimizer, loss, capabilities(optimizer))
    for group in optimizer.param_groups:
        assert isinstance(group["lr"], (float, Tensor))
        rates = {name: group[name] for name in ("effective_lr", "gate", "velocity_sq") if name in group}
        assert all(isinstance(r, Tensor) and r.shape == () and r.isfinite() for r in rates.values())
        if rates:
            assert 0 < float(rates["gate"]) < 1
            assert float(rates["effective_lr"]) == pytest.approx(float(group["lr"]) * float(rates["gate"]))
            assert float(rates["velocity_sq"]) > 0


RATES: dict[str, dict[str, Any]] = {
    name: {"lr": 0.05} for name in ("adam", "adamw", "adabelief", "lion", "nadam", "rmsprop", "soap", "radam", "vrlion")
} | {
    "vradam": {"lr": 0.1},
    "schedulefree_adamw": {"lr": 0.1},
    "adahessian": {"lr": 0.1},
    "sam": {"lr": 0.01, "rho": 0.01},
    "sgd": {"lr": 0.01},
    "muon": {"adamw_lr": 0.05},
}
"""Rates for the bowl, where a config's default is meant for a network."""
SLOW: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.002},
    "sam": {"lr": 0.002, "rho": 0.01},
    "schedulefree_adamw": {"lr": 0.1},
    "vradam": {"lr": 0.1},
    "vrlion": {"lr": 0.05},
    "adahessian": {"lr": 0.5},
}


def test_waivers_speak_of_what_is_there() -> None:
    for config, waived in WAIVERS.items():
        assert config in CONFIGS
        assert set(waived) <= set(PROPERTIES)
        assert all(len(reason.split()) > 4 for reason in waived.values())


def test_a_typo_is_refused() -> None:
    with pytest.raises(Exception, match="betta3"):
        build("vradam", quadratic()[0], betta3=2.0)


def test_capabilities_are_told_apart() -> None:
    found = {name: capabilities(build(name, quadratic()[0])) for name in CONFIGS}
    special = {name: able for name, able in found.items() if able != Capabilities(False, False, False)}
    assert special == {
        "sam": Capabilities(True, False, False),
        "adahessian": Capabilities(False, True, False),
        "schedulefree_adamw": Capabilities(False, False, True),
    }


def test_capabilities_survive_a_scheduler() -> None:
    optimizer = build("adahessian", quadratic()[0])
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    assert capabilities(optimizer).create_graph


def test_muon_splits_by_shape() -> None:
    model, _ = network()
    optimizer = build("muon", [{"params": list(model.parameters())[:2], "lr": 0.5}, {"params": model[3].weight},
                               {"params": [model[3].bias], "use_muon": False}])  # fmt: skip
    kinds = [(g["use_muon"], [p.ndim for p in g["params"]], g["lr"]) for g in optimizer.param_groups]
    assert kinds == [(True, [4], 0.5), (False, [1], 0.5), (True, [2], 0.02), (False, [1], 1e-3)]
    with pytest.raises(ValueError, match="params is empty"):
        build("muon", [])


def test_sam_sees_the_same_point_twice() -> None:
    """The two-step protocol and step(closure) are one algorithm."""
    results = []
    for with_closure in (False, True):
        params, loss = quadratic()
        optimizer = build("sam", params, lr=0.01)
        for _ in range(3):
            if not with_closure:
                advance(optimizer, loss, capabilities(optimizer))
                continue
            loss().backward()
            optimizer.step(lambda: loss().backward())  # noqa: B023
            optimizer.zero_grad()
        results.append(torch.cat([p.detach().reshape(-1) for p in params]))
    torch.testing.assert_close(*results, rtol=1e-14, atol=0)


def test_no_optimizer_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Using backward.. with create_graph")
        for name in CONFIGS:
            params, loss = quadratic()
            optimizer = build(name, params)
            advance(optimizer, loss, capabilities(optimizer))
