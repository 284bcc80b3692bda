"""Every optimizer of conf/ on fake CUDA tensors: where its state lies, and what it waits for the device for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from each_optimizer import CONFIGS, build
from fake_cuda import CUDA, fake_cuda, moved
from torch import Tensor, nn
from vrbench.optimizers import VRAdam
from waits import Waits

from vrbench.training.capabilities import capabilities

FORMS: dict[str, dict[str, bool]] = {
    "default": {},
    "fused": {"fused": True},
    "foreach": {"foreach": True},
    "foreach-capturable": {"foreach": True, "capturable": True},
    "reference": {"foreach": False, "fused": False},
    "reference-capturable": {"foreach": False, "fused": False, "capturable": True},
}

READS, UPLOADS = "_local_scalar_dense in a library", "blocking copy to the device in a library"
WAITING = {
    "adafactor": {READS},
    "dadaptadam": {READS, UPLOADS},
    "laprop": {UPLOADS},
    "prodigy": {READS, UPLOADS},
    "shampoo": {f"{name} in optimizers/shampoo.py:inverse_root" for name in ("_local_scalar_dense", "_linalg_eigh")},
}
"""What an optimizer waits for in a step, where it does: a number or one of its own that a library's sends, and whether
the eigenvalues of a finite matrix have converged."""


def network() -> nn.Module:
    """A convolution, a matrix, a vector and a scalar; conv layers with more than one channel."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    model.register_parameter("scale", nn.Parameter(torch.ones(())))
    return model


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """One step at gradients of noise, with whatever the optimizer asks for."""

    def gradients() -> Tensor:
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        return torch.zeros((), device=CUDA)

    gradients()
    needs = capabilities(optimizer)
    if needs.create_graph:
        optimizer.step(hessian=[torch.ones_like(p) for p in model.parameters()])  # type: ignore[call-arg]
    elif needs.two_step or needs.closure:
        optimizer.step(gradients)  # type: ignore[arg-type]
    else:
        optimizer.step()


def waits_of(make: Callable[[Any], torch.optim.Optimizer]) -> tuple[set[str], torch.optim.Optimizer]:
    """What the second and third step wait for."""
    model = network()
    with fake_cuda():
        model = moved(model)
        optimizer = make(model.parameters())
        if capabilities(optimizer).train_eval:
            optimizer.train()  # type: ignore[attr-defined]
        step(model, optimizer)
        with Waits() as waits:
            for _ in range(2):
                step(model, optimizer)
        state = [one for own in optimizer.state.values() for one in own.values() if isinstance(one, Tensor)]
        large = [one for one in state if one.numel() > 1]
        assert {one.device for one in (*model.parameters(), *large)} == {CUDA}
    return waits.found, optimizer


@pytest.mark.parametrize("scope", ["global", "group", "tensor"])
@pytest.mark.parametrize("settings", [{}, {"gate_on": "gradient", "power": 3.0}, {"maximize": True}], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_no_form_of_vradam_waits(form: str, settings: dict[str, Any], scope: str) -> None:
    """Step counters lie beside the data where the form counts there, else on the host; reports beside the data."""
    flags = FORMS[form]
    found, optimizer = waits_of(lambda params: VRAdam(params, gate_scope=scope, **settings, **flags))
    assert found == set()
    on_host = form in ("foreach", "reference")
    assert {one["step"].device.type for one in optimizer.state.values()} == {"cpu" if on_host else "cuda"}
    (group,) = optimizer.param_groups
    assert {group[name].device for name in ("effective_lr", "gate", "velocity_sq")} == {CUDA}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.filterwarnings("ignore")
def test_what_each_optimizer_waits_for(config: str) -> None:
    found, _ = waits_of(lambda params: build(config, params))
    assert found == WAITING.get(config, set())
