"""The probe of the edge of stability: known quadratics, what it puts back, what it refuses, and a real run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import QUICK
from same_numbers import numbers_of_folder
from torch import Tensor, nn
from toy import ToyTask

from vrbench.contracts import Moment, Training
from vrbench.probes.edge_of_stability import EdgeOfStability, _cudnn, as_trained, oscillation
from vrbench.randomness import Streams
from vrbench.runs.records import Run

OPTIONS: dict[str, Any] = {
    "tier": "standard",
    "every": 1,
    "max_share": None,
    "size": 24,
    "microbatch": 24,
    "tolerance": 1e-6,
    "max_products": 100,
    "top_k": 3,
    "trace_samples": 4,
    "minibatch": 4,
    "matrix": "hessian",
}
EOS = ("probe=eos", "probe.eos.every=5", "probe.eos.size=64", "probe.eos.microbatch=64")


def training(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 50) -> Training:
    return Training(model, optimizer, ToyTask(), Streams(0), torch.device("cpu"), steps)


def test_full_tier_on_a_quadratic_whose_numbers_are_known() -> None:
    """Mean squared error of a linear model: H = 2 [x 1]ᵀ[x 1] / N, at every point."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = training(model, optimizer)
    probe = EdgeOfStability(**{**OPTIONS, "tier": "full"})
    probe.attach(run)
    x = torch.cat([run.task.x, torch.ones(24, 1)], 1).double()  # type: ignore[attr-defined]
    hessian = 2 * x.T @ x / 24
    eigenvalues = torch.linalg.eigvalsh(hessian).flip(0)
    row: dict[str, float] = {}
    for step in range(1, 8):
        optimizer.zero_grad()
        loss = run.task.loss(model, run.task.probe_batches(24, 24)[0][1], torch.Generator())[0]
        loss.backward()
        moment = Moment(step, logged=False)
        probe.before_step(moment)
        optimizer.step()
        row = probe.after_step(moment)
    names = ("eos/sharpness", "eos/sharpness_2", "eos/sharpness_3")
    torch.testing.assert_close(torch.tensor([row[name] for name in names]).double(), eigenvalues[:3], rtol=1e-4, atol=0)
    assert row["eos/threshold"] == pytest.approx(20)
    assert row["eos/ratio"] == pytest.approx(float(eigenvalues[0]) / 20, rel=1e-4)
    assert row["eos/oscillation"] == pytest.approx(0, abs=1e-6), "the loss falls all the way"
    assert "eos/preconditioned_sharpness" not in row
    assert abs(row["eos/trace"] - float(hessian.trace())) < 4 * row["eos/trace_error"] + 1e-4
    # the update is -lr times the gradient from before it
    gradient = (optimizer.param_groups[0]["params"][0].grad, optimizer.param_groups[0]["params"][1].grad)
    g = torch.cat([part.reshape(-1) for part in gradient]).double()
    assert row["eos/directional_update"] == pytest.approx(float(g @ hessian @ g / (g @ g)), rel=1e-3)
    assert row["eos/batch_sharpness"] > 0
    assert row["eos/directional_gradient"] <= row["eos/sharpness"] * 1.001
    again = EdgeOfStability(**{**OPTIONS, "tier": "full"})
    again.attach(run)
    again.load_state_dict(probe.state_dict())
    torch.testing.assert_close(again._vectors["sharpness"], probe._vectors["sharpness"])


def test_everything_is_put_back() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    probe = EdgeOfStability(**{**OPTIONS, "tier": "full", "microbatch": 8})
    run = training(model, optimizer)
    run.task.loss(model, run.task.probe_batches(24, 24)[0][1], torch.Generator())[0].backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    buffers = dict(model.named_buffers())
    contents = {name: buffer.clone() for name, buffer in buffers.items()}
    random = torch.get_rng_state()
    model[2].eval()
    probe.attach(run)
    moment = Moment(1, logged=True)
    probe.before_step(moment)
    optimizer.step()
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert probe.after_step(moment)["eos/preconditioned_sharpness"] > 0
    assert [m.training for m in model] == [True, True, False, True]
    for name, buffer in model.named_buffers():
        assert buffer is buffers[name]
        assert torch.equal(buffer, contents[name])
    for name, p in model.named_parameters():
        assert torch.equal(p, weights[name])
        assert torch.equal(p.grad, gradients[name])
    assert torch.equal(torch.get_rng_state(), random)
    with as_trained(model, torch.device("cpu")):
        assert [m.training for m in model] == [False, True, False, False]


@pytest.mark.parametrize("enabled", [True, False])
def test_cudnn_rounds_nothing_while_it_is_measured(enabled: bool) -> None:
    def flags() -> tuple[bool, ...]:
        cudnn = torch.backends.cudnn
        return cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32

    with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=True, allow_tf32=True):
        with _cudnn(enabled):
            assert flags() == (enabled, True, True, False)
        assert flags() == (True, True, True, True)


def test_a_compiled_model_is_measured_eagerly_and_stays_compiled() -> None:
    """A compiled model cannot be differentiated twice."""

    class Wrapped(nn.Module):
        """Some versions of torch compile no forward of their own modules."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    model = Wrapped()
    model.compile(backend="aot_eager")
    weights = list(model.parameters())

    def curvature() -> Tensor:
        (gradient,) = torch.autograd.grad(model(torch.ones(2, 3)).square().sum(), weights[:1], create_graph=True)
        return torch.autograd.grad(gradient.sum(), weights[0])[0]

    with pytest.raises(RuntimeError, match="double backward"):
        curvature()
    with as_trained(model, torch.device("cpu")):
        assert curvature().any()
    with pytest.raises(RuntimeError, match="double backward"):
        curvature()


def test_refusals_name_the_argument(vrbench: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in {
        "tier": "big",
        "every": 0,
        "max_share": 1.5,
        "tolerance": 0.0,
        "top_k": 0,
        "matrix": "x",
    }.items():
        with pytest.raises(ValueError, match=f"{name}={value}"):
            EdgeOfStability(**{**OPTIONS, name: value})
    with pytest.raises(ValueError, match="every and max_share"):
        EdgeOfStability(**{**OPTIONS, "every": None})

    class Absolute(ToyTask):
        def loss(self, model: nn.Module, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            return (model(batch[0]) - batch[1]).abs().mean(), {}

    model = nn.Linear(3, 1)
    run = Training(model, torch.optim.SGD(model.parameters()), Absolute(), Streams(0), torch.device("cpu"), 5)
    with pytest.raises(ValueError, match="model Linear on task toy has no second derivative"):
        EdgeOfStability(**OPTIONS).attach(run)
    assert vrbench("task=digits", "probe=eos", "probe.eos.tier=big", *QUICK) == 2
    assert "probe.eos.tier=big: choose one of cheap, standard, full" in capsys.readouterr().err


def test_oscillation_index() -> None:
    assert oscillation([5.0, 4.0, 3.0, 2.0]) == 0.0
    assert oscillation([1.0, 2.0, 1.0, 2.0, 1.0]) == 1.0
    assert oscillation([1.0, 1.0]) == 0.0


def rows(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("*/*/metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_with_the_probe_has_the_same_numbers(vrbench: Callable[..., int], tmp_path: Path) -> None:
    for folder, overrides in {"with": (*EOS, "probe.eos.tier=full"), "without": ()}.items():
        assert vrbench("task=digits", f"study={folder}", *overrides, *QUICK) == 0
    (probed,), (plain,) = ((tmp_path / study).glob("digits-*") for study in ("with", "without"))
    assert any("eos/ratio" in row for row in Run(probed).rows())
    assert numbers_of_folder(probed, without=("eos/",)) == numbers_of_folder(plain)
