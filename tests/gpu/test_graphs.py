"""VRAdam(capturable=True) recorded in a CUDA graph: replayed, it takes the steps that it takes without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

pytestmark = pytest.mark.gpu

FORMS: dict[str, dict[str, bool]] = {
    "fused": {"fused": True},
    "foreach": {"foreach": True},
    "reference": {"foreach": False, "fused": False},
}
LOUD = {"lr": 0.01, "beta3": 0.5, "alpha1": 4.0, "weight_decay": 0.02}
WARM_UP, STEPS = 2, 6


def put_gradients(params: list[Tensor], step: int) -> None:
    """Gradients of the step, in the memory that the graph was recorded with."""
    import torch

    noise = torch.Generator().manual_seed(1000 + step)
    for p in params:
        drawn = torch.randn(p.shape, generator=noise, dtype=p.dtype).to(p.device)
        if p.grad is None:
            p.grad = drawn
        else:
            p.grad.copy_(drawn)


@pytest.mark.parametrize("scope", ["global", "group", "tensor"])
@pytest.mark.parametrize("form", FORMS)
def test_a_recorded_step(form: str, scope: str, cuda: torch.device) -> None:
    import torch
    from vradam_forms import difference, make
    from vrbench.optimizers import VRAdam

    kinds = [[p.detach().to(cuda).requires_grad_() for p in make(torch.float32)] for _ in range(2)]
    eager, recorded = (
        VRAdam(params, gate_scope=scope, capturable=True, **LOUD, **FORMS[form])  # type: ignore[arg-type]
        for params in kinds
    )
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for step in range(WARM_UP):
            put_gradients(kinds[1], step)
            recorded.step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded.step()
    for step in range(STEPS):
        put_gradients(kinds[0], step)
        eager.step()
    for step in range(WARM_UP, STEPS):
        put_gradients(kinds[1], step)
        graph.replay()
    assert difference(kinds[1], kinds[0]) < 1e-6
    gates = [float(optimizer.param_groups[0]["gate"]) for optimizer in (eager, recorded)]
    assert gates[1] == pytest.approx(gates[0], rel=1e-6)
    assert gates[0] < 1
    assert {float(state["step"]) for state in recorded.state.values()} == {STEPS}
