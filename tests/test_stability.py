"""Thresholds against the eigenvalues of the optimizers' own step matrices, and the probe in real runs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import QUICK
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn
from toy import ToyTask

from optimizers.vradam import VRAdam
from optimizers.vrsgd import VRSGD
from vrbench import curvature
from vrbench.cadence import Cadence
from vrbench.contracts import Moment, RunInfo, Training
from vrbench.preconditioners import critical_curvature, edge_of
from vrbench.randomness import Streams
from vrbench.stability import EdgeOfStability, as_trained, oscillation

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


def test_oscillation_index_and_cadence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert oscillation([5.0, 4.0, 3.0, 2.0]) == 0.0
    assert oscillation([1.0, 2.0, 1.0, 2.0, 1.0]) == 1.0
    assert oscillation([1.0, 1.0]) == 0.0
    fixed = Cadence(every=10, max_share=None)
    assert [step for step in range(1, 26) if fixed.is_due(step, step == 25)] == [10, 20, 25]
    clock = [0.0]
    monkeypatch.setattr("vrbench.cadence.time.perf_counter", lambda: clock[0])
    shared = Cadence(every=None, max_share=0.1)
    due = []
    for step in range(1, 101):  # steps of 1 s, measurements of 2 s, one evaluation of 50 s that counts for nothing
        measured = shared.is_due(step, step == 100)
        clock[0] += 1.0
        with shared.spending():
            clock[0] += 2.0 * measured
        due += [step] * measured
        clock[0] += 50.0 * (step == 30)
    assert due == [1, 36, 54, 72, 90]  # the n-th makes it 2n of 2n + step seconds
    resumed = Cadence(every=None, max_share=0.1)
    resumed.load_state_dict(shared.state_dict())
    assert resumed.state_dict() == shared.state_dict()


def rows(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("*/*/metrics.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_with_the_probe_has_the_same_numbers(vrbench: Callable[..., int], tmp_path: Path) -> None:
    for folder, overrides in {"with": (*EOS, "probe.eos.tier=full"), "without": ()}.items():
        assert vrbench("task=digits", f"study={folder}", *overrides, *QUICK) == 0
    found = [json.loads(line) for p in sorted((tmp_path / "with").glob("*/metrics.jsonl")) for line in p.open()]
    plain = [json.loads(line) for p in sorted((tmp_path / "without").glob("*/metrics.jsonl")) for line in p.open()]
    assert any("eos/ratio" in row for row in found)

    def numbers(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if not k.startswith(("eos/", "time/"))} for row in table]

    assert numbers(found) == numbers(plain)


CONF = Path(__file__).parents[1] / "conf"


@pytest.mark.parametrize("optimizer", sorted(path.stem for path in (CONF / "optimizer").glob("*.yaml")))
def test_every_optimizer_is_probed(vrbench: Callable[..., int], tmp_path: Path, optimizer: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert vrbench("task=digits", f"optimizer={optimizer}", "study=s", *EOS, *QUICK) == 0
    measured = [row for row in rows(tmp_path) if "eos/sharpness" in row]
    assert [row["step"] for row in measured] == [5, 10, 15, 20]
    for row in measured:
        assert row["eos/sharpness"] > 0
        assert ("eos/ratio" in row) == ("eos/threshold" in row)


SHARED = CONF.parent / "../shared/data"
FOLDERS = {
    "uoft-cs/cifar10": "cifar10",
    "ylecun/mnist": "mnist",
    "Salesforce/wikitext": "wikitext2-mini",
}
"""Data sets of the hub that lie in the shared folder; tasks with other data are left to runs by hand."""
LARGE = 4_000_000
"""Models of more parameters are too slow for a test on two cores."""
TASKS = sorted(path.stem for path in (CONF / "task").glob("*.yaml"))
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
EMBEDDED = ("digits", "pydoc", "diffusion_digits", "hypergrid", "gridworld")


def build(*overrides: str) -> Any:
    """The trainer of a config, probe attached; raises ConfigError where its parts do not fit."""
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from vrbench import cli
    from vrbench.contracts import TrainerSettings

    small = ("probe=eos", "probe.eos.size=4", "probe.eos.microbatch=2", "probe.eos.every=1", "probe.eos.max_products=2")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [*small, "trainer.max_steps=1", *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    path = OmegaConf.select(config, "task.data.path")
    if path in FOLDERS:
        folder = SHARED / FOLDERS[path]
        if not folder.exists():
            pytest.skip(f"{folder} is not there")
        config.task.data.path = str(folder)
    for key in ("train_size", "test_size"):
        if key in config.task.get("data", {}):
            config.task.data[key] = 64
    if "batch_size" in config.task:
        config.task.batch_size = 4
    settings = TrainerSettings(**OmegaConf.to_container(config.trainer, resolve=True))
    choices = {group: str(config.hydra.runtime.choices[group]) for group in cli.GROUPS}
    info = RunInfo("", "", "", "test", Path(), {}, choices, 0)
    return cli.build(config, info, settings)


def measure(trainer: Any) -> None:
    parameters = sum(p.numel() for p in trainer.model.parameters())
    if parameters > LARGE:
        pytest.skip(f"{parameters:,} parameters: too slow here")
    probe, moment = trainer.probes["eos"], Moment(1, logged=True)
    trainer.model.train()
    trainer._backward([trainer._take_batch()])
    probe.before_step(moment)
    trainer.optimizer.step()
    row = probe.after_step(moment)
    assert row["eos/sharpness"] != 0
    assert row["eos/threshold"] > 0
    assert row["eos/preconditioned_sharpness"] / row["eos/threshold"] == pytest.approx(row["eos/ratio"])


def test_the_two_solves_of_a_measurement_never_explore_together(monkeypatch: pytest.MonkeyPatch) -> None:
    solve, explored = curvature.top_eigenpairs, []

    def seen(*arguments: Any, **options: Any) -> Any:
        explored.append(options["fresh"] is not None)
        return solve(*arguments, **options)

    monkeypatch.setattr(curvature, "top_eigenpairs", seen)
    trainer = build("task=digits")
    for _ in range(9):
        measure(trainer)
    pairs = list(zip(explored[::2], explored[1::2], strict=True))
    assert [sum(solves) for solves in zip(*pairs, strict=True)] == [2, 3]
    assert (True, True) not in pairs


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_probed(task: str) -> None:
    from vrbench.cli import ConfigError

    try:
        trainer = build(f"task={task}")
    except (ConfigError, OmegaConfBaseException) as refused:
        if task in EMBEDDED:
            raise
        pytest.skip(f"its data are not here: {refused}")
    measure(trainer)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_probed(model: str) -> None:
    from vrbench.cli import ConfigError

    for task in EMBEDDED:
        try:
            trainer = build(f"task={task}", f"model={model}")
        except ConfigError as refused:
            reason = str(refused)
        else:
            measure(trainer)
            return
    pytest.skip(f"fits no embedded task, or its weights are not here: {reason}")
