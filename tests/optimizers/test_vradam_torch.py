"""VRAdam among torch's other machinery: compilers, scalers, autograd, ranks; and what a step may cost."""

from __future__ import annotations

import copy
import itertools
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from two_ranks import run_two_ranks
from vrbench.optimizers import VRAdam, gate
from waits import Waits

FORMS: dict[str, dict[str, Any]] = {
    "reference": {"foreach": False, "fused": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
SCOPES = ("global", "tensor")
LOUD = {"lr": 0.01, "beta3": 0.5, "alpha1": 4.0, "weight_decay": 0.02}
forms = pytest.mark.parametrize("form", FORMS)


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)


def backward(model: nn.Module, step: int, scale: float = 1.0) -> None:
    noise = torch.Generator().manual_seed(step)
    first = next(model.parameters())
    inputs = torch.randn(16, 6, generator=noise).to(first.dtype)
    (scale * 20 * model(inputs).square().mean()).backward()


def gap(a: nn.Module, b: nn.Module) -> float:
    return max(float((p - q).detach().abs().max()) for p, q in zip(a.parameters(), b.parameters(), strict=True))


# ---- what a step may cost -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["global", "group", "tensor"])
@pytest.mark.parametrize("settings", [{}, {"gate_on": "gradient", "power": 3.0}, {"maximize": True}], ids=str)
@pytest.mark.parametrize("flags", [{"fused": True}, {"foreach": True}, {"foreach": True, "capturable": True}], ids=str)
def test_no_value_is_read_back(flags: dict[str, bool], settings: dict[str, Any], scope: str) -> None:
    """Not even on the CPU, save step counters that the foreach form keeps on the host."""
    params = [torch.randn(30, 20).requires_grad_(), torch.randn(7).requires_grad_()]
    optimizer = VRAdam([{"params": params[:1]}, {"params": params[1:]}], gate_scope=scope, **settings, **flags)

    def step() -> None:
        for p in params:
            p.grad = torch.randn_like(p)
        optimizer.step()

    waits = Waits(params, strict=True)
    if "foreach" in flags:  # on the CPU its counters are on the host, capturable or not
        step()
        waits = Waits(params, host=[state["step"] for state in optimizer.state.values()], strict=True)
    with waits:
        for _ in range(3):
            step()
    with pytest.raises(AssertionError, match="waits for the device"), waits:
        optimizer.param_groups[0]["gate"].item()


@pytest.mark.parametrize("scope", ["global", "group", "tensor"])
@pytest.mark.parametrize("flags", [{}, {"foreach": True, "capturable": True}], ids=str)
def test_no_value_is_needed(flags: dict[str, bool], scope: str) -> None:
    """A step runs on the meta device, where tensors have shapes and no values at all."""
    params = [torch.empty(30, 20, device="meta").requires_grad_(), torch.empty(7, device="meta").requires_grad_()]
    optimizer = VRAdam([{"params": params[:1]}, {"params": params[1:]}], gate_scope=scope, **flags)
    for _ in range(2):
        for p in params:
            p.grad = torch.empty_like(p)
        optimizer.step()
    assert optimizer.param_groups[0]["gate"].is_meta
    with pytest.raises(RuntimeError):
        optimizer.param_groups[0]["gate"].item()


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that were made inside and are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.seen: set[int] = set()

    def _gone(self, key: int, size: int) -> None:
        self.now -= size
        self.seen.discard(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                self.seen.add(tensor.untyped_storage()._cdata)
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if not isinstance(tensor, Tensor) or tensor.untyped_storage()._cdata in self.seen:
                continue
            storage = tensor.untyped_storage()
            self.seen.add(storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return result


@pytest.mark.parametrize(
    "shapes", [[(64, 64)] * 50, [(1000, 900), (10,)], [(512, 300)] * 6], ids=["small", "big", "mid"]
)
@pytest.mark.parametrize("settings", [{}, {"gate_on": "gradient"}, {"gate_scope": "tensor"}], ids=str)
@pytest.mark.parametrize("compiled", [True, False])
def test_a_fused_step_allocates_next_to_nothing(
    shapes: list[tuple[int, ...]], settings: dict[str, Any], compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(gate, "_compiled", lambda: None)
    params = [torch.randn(s).requires_grad_() for s in shapes]
    optimizer = VRAdam(params, fused=True, **settings)
    for _ in range(2):
        for p in params:
            p.grad = torch.randn_like(p)
        with LiveBytes() as live:
            optimizer.step()
    held = 4 * sum(4 * p.numel() for p in params)
    assert 0 < live.peak <= 0.012 * held
    with LiveBytes() as live:
        [torch.zeros_like(p) for p in params]
    assert live.peak > 0.2 * held


# ---- GradScaler -----------------------------------------------------------------------------------------------------


@forms
@pytest.mark.parametrize("unscale_first", [False, True])
@pytest.mark.parametrize("gate_on", ["velocity", "gradient"])
def test_grad_scaler(form: str, unscale_first: bool, gate_on: str) -> None:
    plain, scaled = network(), network()
    first = VRAdam(plain.parameters(), gate_on=gate_on, **LOUD, **FORMS[form])
    second = VRAdam(scaled.parameters(), gate_on=gate_on, **LOUD, **FORMS[form])
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    for step in range(4):
        first.zero_grad()
        second.zero_grad()
        backward(plain, step)
        backward(scaled, step, scale=float(scaler.scale(torch.ones(()))))
        if step == 2:
            next(scaled.parameters()).grad[0] = torch.inf
            kept = [p.detach().clone() for p in scaled.parameters()]
            reports = [float(second.param_groups[0][k]) for k in ("gate", "velocity_sq", "effective_lr")]
        else:
            first.step()
        if unscale_first:
            scaler.unscale_(second)
        scaler.step(second)
        scaler.update()
        if step == 2:
            assert all(torch.equal(p, k) for p, k in zip(scaled.parameters(), kept, strict=True))
            assert [float(second.param_groups[0][k]) for k in ("gate", "velocity_sq", "effective_lr")] == reports
            assert scaler.get_scale() == 512.0
    assert gap(plain, scaled) < 1e-6
    assert float(second.param_groups[0]["gate"]) == pytest.approx(float(first.param_groups[0]["gate"]), rel=1e-5)
    assert {float(s["step"]) for s in second.state.values()} == {3.0}


# ---- autograd and the compiler --------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"power": 3.0, "gate_scope": "tensor"}, {"gate_on": "gradient"}], ids=str)
def test_differentiable(settings: dict[str, Any]) -> None:
    def end(start: Tensor, lr: Tensor) -> Tensor:
        p = start.clone()
        optimizer = VRAdam([p], lr=lr, beta3=0.7, eps=1e-3, weight_decay=0.1, differentiable=True, **settings)
        for factor in (1.0, 2.0, 3.0):
            p.grad = torch.sin(factor * start) + 2
            optimizer.step()
        return p

    start = torch.linspace(0.2, 1, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(end, (start, torch.tensor(0.1, dtype=torch.float64, requires_grad=True)))


COMPILED = [
    {},
    {"foreach": False, "fused": False},
    *(
        pytest.param(flags, marks=pytest.mark.slow)
        for flags in ({"fused": True}, {"capturable": True}, {"power": 3.0}, {"gate_scope": "tensor"})
    ),
]


@pytest.mark.parametrize("flags", COMPILED, ids=str)
def test_compiled_step(flags: dict[str, Any]) -> None:
    torch._dynamo.reset()
    eager, compiled = network(), network()
    first, second = VRAdam(eager.parameters(), **LOUD, **flags), VRAdam(compiled.parameters(), **LOUD, **flags)
    step_of_second = torch.compile(second.step, backend="aot_eager")
    for step in range(4):
        first.zero_grad()
        second.zero_grad()
        backward(eager, step)
        backward(compiled, step)
        first.step()
        step_of_second()
        report, other = second.param_groups[0], first.param_groups[0]
        assert float(report["gate"]) == pytest.approx(float(other["gate"]), rel=1e-5)
        assert float(report["gate"]) < 1
    assert gap(eager, compiled) < 1e-6


def test_compiled_step_does_not_recompile() -> None:
    torch._dynamo.reset()
    model = network()
    optimizer = VRAdam(model.parameters(), **LOUD)
    counter = CompileCounter()
    compiled = torch.compile(optimizer.step, backend=counter)
    for step in range(6):
        optimizer.zero_grad()
        backward(model, step)
        compiled()
        if step == 1:
            settled = counter.frame_count
    assert counter.frame_count == settled


# ---- ranks ----------------------------------------------------------------------------------------------------------


def _rank(rank: int, folder: str) -> None:
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor, init_device_mesh
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    results = {}
    for scope, (form, flags) in itertools.product(SCOPES, FORMS.items()):
        whole = network(torch.float64)
        optimizer = VRAdam(whole.parameters(), gate_scope=scope, **LOUD, **flags)
        parallel = DistributedDataParallel(network(torch.float64))
        replicated = VRAdam(parallel.parameters(), gate_scope=scope, **LOUD, **flags)
        sharded = fully_shard(network(torch.float64), mesh=mesh)
        split = VRAdam(sharded.parameters(), gate_scope=scope, **LOUD, **flags)
        for step in range(3):
            for model, opt in ((whole, optimizer), (parallel, replicated), (sharded, split)):
                opt.zero_grad()
                backward(model, step)
                opt.step()
        assert all(isinstance(p, DTensor) for p in sharded.parameters())
        assert all(isinstance(s["exp_avg"], DTensor) for s in split.state.values())
        gathered = [p.full_tensor() for p in sharded.parameters()]  # type: ignore[attr-defined]
        results[f"{scope} {form}"] = {
            "whole": [p.detach() for p in whole.parameters()],
            "ddp": [p.detach() for p in parallel.parameters()],
            "fsdp": [p.detach() for p in gathered],
            "gates": [float(o.param_groups[0]["gate"]) for o in (optimizer, replicated, split)],
        }
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_every_rank_takes_the_same_rate(tmp_path: Path) -> None:
    run_two_ranks(_rank, str(tmp_path))
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert len(ranks[0]) == len(SCOPES) * len(FORMS)
    for case, first in ranks[0].items():
        for result in (first, ranks[1][case]):
            torch.testing.assert_close(result["ddp"], result["whole"], rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(result["fsdp"], result["whole"], rtol=1e-12, atol=1e-14)
            assert result["gates"] == pytest.approx([first["gates"][0]] * 3, rel=1e-12)
            assert result["gates"][0] < 1


def test_it_goes_on_from_adamws_state_and_from_one_without_newer_keys() -> None:
    """Settings that the state's groups lack are this optimizer's own; with beta3 = 0 the steps are AdamW's."""
    start = [torch.ones(3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    old = torch.optim.AdamW([start[0]], lr=0.1)
    new = VRAdam([start[1]], lr=0.5, beta3=0.0, power=3.0)
    for step in range(3):
        start[0].grad = torch.full_like(start[0], 1.0 + step)
        old.step()
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    with torch.no_grad():
        start[1].copy_(start[0])
    for p, optimizer in zip(start, (old, new), strict=True):
        p.grad = torch.full_like(p, 2.0)
        optimizer.step()
    torch.testing.assert_close(start[0], start[1], rtol=1e-12, atol=0)
    assert (new.param_groups[0]["lr"], new.param_groups[0]["power"]) == (0.1, 3.0)

    state = new.state_dict()
    for key in ("power", "gate_scope", "effective_lr"):
        del state["param_groups"][0][key]
    again = VRAdam([start[1]], beta3=0.0)
    again.load_state_dict(state)
    again.step()
    assert again.param_groups[0]["power"] == 2.0


def test_the_state_of_another_kind_of_optimizer_is_refused_by_what_it_lacks() -> None:
    p = torch.ones(3, requires_grad=True)
    p.grad = torch.ones(3)
    sgd = torch.optim.SGD([p], lr=0.1, momentum=0.9)
    sgd.step()
    with pytest.raises(ValueError, match="state: lacks exp_avg, exp_avg_sq, step, which VRAdam keeps"):
        VRAdam([p]).load_state_dict(sgd.state_dict())
