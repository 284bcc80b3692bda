"""Steps on CUDA against the same steps on the CPU in float64."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

pytestmark = pytest.mark.gpu

FORMS: dict[str, dict[str, bool]] = {
    "default": {},
    "fused": {"fused": True},
    "fused-capturable": {"fused": True, "capturable": True},
    "foreach": {"foreach": True},
    "foreach-capturable": {"foreach": True, "capturable": True},
    "reference": {"foreach": False, "fused": False},
    "reference-capturable": {"foreach": False, "fused": False, "capturable": True},
}
LOUD = {"lr": 0.01, "beta3": 0.5, "alpha1": 4.0, "weight_decay": 0.02}
STEPS = 8

YAMLS = sorted((Path(__file__).parents[2] / "conf/optimizer").glob("*.yaml"))
IN_HALVES = {"muon", "normuon"}
"""pytorch_optimizer's, whose products of matrices are in bfloat16."""
OURS = [p.stem for p in YAMLS if "_target_: vrbench.optimizers." in p.read_text() and p.stem not in IN_HALVES]


def copies(params: list[Tensor], **to: Any) -> list[Tensor]:
    """The same numbers elsewhere; a tensor of four dimensions lies in channels-last order."""
    import torch

    moved = [p.detach().to(**to) for p in params]
    moved = [p.to(memory_format=torch.channels_last) if p.ndim == 4 else p for p in moved]
    return [p.requires_grad_() for p in moved]


def start() -> list[Tensor]:
    from vradam_forms import SHAPES, make

    return make(shapes=[*(shape for shape in SHAPES if 0 not in shape), (8, 3, 3, 3), (400, 500)])


def train(params: list[Tensor], optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> None:
    """Steps at gradients that are drawn in float64, whatever the parameters are in."""
    import torch

    for step in range(first, first + steps):
        noise = torch.Generator().manual_seed(1000 + step)
        for p in params:
            drawn = (0.05 + (step % 7) / 7) * torch.randn(p.shape, generator=noise, dtype=torch.float64)
            p.grad = torch.empty_like(p).copy_(drawn)
        optimizer.step()


def worst(params: list[Tensor], oracle: list[Tensor]) -> float:
    """Largest difference, relative to the largest number."""
    from vradam_forms import difference

    return difference([p.detach().cpu().double() for p in params], [p.detach() for p in oracle])


@pytest.mark.parametrize("scope", ["global", "group", "tensor"])
@pytest.mark.parametrize("settings", [{}, {"gate_on": "gradient", "power": 3.0}, {"maximize": True}], ids=str)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_vradam(
    dtype: str, tolerance: float, form: str, settings: dict[str, Any], scope: str, cuda: torch.device
) -> None:
    import torch
    from vrbench.optimizers import VRAdam

    oracle = copies(start())
    params = copies(oracle, device=cuda, dtype=getattr(torch, dtype))
    wanted = VRAdam(oracle, gate_scope=scope, foreach=False, fused=False, **LOUD, **settings)
    optimizer = VRAdam(params, gate_scope=scope, **LOUD, **settings, **FORMS[form])
    train(oracle, wanted, STEPS)
    train(params, optimizer, STEPS)
    assert worst(params, oracle) < tolerance
    for name in ("gate", "velocity_sq", "effective_lr"):
        report = optimizer.param_groups[0][name]
        assert report.device == cuda
        assert float(report) == pytest.approx(float(wanted.param_groups[0][name]), rel=tolerance)
    assert float(wanted.param_groups[0]["gate"]) < 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", OURS)
def test_every_rule_of_ours(config: str, cuda: torch.device) -> None:
    import torch
    from each_optimizer import build

    oracle = copies(start())
    params = copies(oracle, device=cuda, dtype=torch.float64)
    train(oracle, build(config, oracle), STEPS)
    train(params, build(config, params), STEPS)
    assert worst(params, oracle) < 1e-6


def test_a_state_goes_from_one_device_to_the_other(cuda: torch.device) -> None:
    """Four steps on the CPU and four on CUDA are eight on the CPU."""
    import torch
    from vrbench.optimizers import VRAdam

    whole, first = copies(start()), copies(start())
    train(whole, VRAdam(whole, **LOUD), 8)
    before = VRAdam(first, **LOUD)
    train(first, before, 4)
    params = copies(first, device=cuda, dtype=torch.float64)
    after = VRAdam(params, **LOUD)
    after.load_state_dict(before.state_dict())
    train(params, after, 4, first=4)
    assert worst(params, whole) < 1e-10
    assert {one["step"].device for one in after.state.values()} == {cuda}


def test_a_grad_scaler_skips_a_step_that_overflows(cuda: torch.device) -> None:
    import torch
    from vradam_forms import set_grads
    from vrbench.optimizers import VRAdam

    params = copies(start(), device=cuda, dtype=torch.float32)
    optimizer = VRAdam(params, fused=True, **LOUD)
    scaler = torch.amp.GradScaler("cuda", init_scale=1024.0)
    scaler.scale(torch.ones((), device=cuda))
    set_grads(params, 0, scale=1024.0)
    scaler.step(optimizer)
    scaler.update()
    kept = [p.detach().clone() for p in params]
    set_grads(params, 1, scale=1024.0)
    params[0].grad[0] = torch.inf  # type: ignore[index]
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(p, k) for p, k in zip(params, kept, strict=True))
    assert scaler.get_scale() == 512.0
