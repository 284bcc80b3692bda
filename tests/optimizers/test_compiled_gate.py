"""The norm in one compiled pass: the numbers of the torch form, and the torch form wherever it does not suit."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from vrbench.optimizers import gate
from vrbench.optimizers.gate import blended_power_sum

pytest.importorskip("numba", reason="numba is not installed: pip install 'vrbench[fast]'")
compiled_gate = pytest.importorskip("vrbench.optimizers.compiled_gate")

Pairs = tuple[list[Tensor], list[Tensor]]


@pytest.fixture(autouse=True)
def _few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "COMPILED_FROM", 1)


def pairs(dtype: torch.dtype) -> Pairs:
    """Velocities and gradients of many shapes: empty, one element, around a block and a piece, channels last."""
    noise = torch.Generator().manual_seed(0)
    sizes = (0, 1, compiled_gate.BLOCK - 1, compiled_gate.BLOCK + 1, compiled_gate.PIECE + 7)
    shapes = [(size,) for size in sizes] + [(64, 64), (), (3, 5, 7, 7)]
    vs, gs = ([torch.randn(shape, generator=noise, dtype=dtype) for shape in shapes] for _ in range(2))
    vs[-1], gs[-1] = (x[-1].to(memory_format=torch.channels_last) for x in (vs, gs))
    return vs, gs


def torch_form(vs: Sequence[Tensor], gs: Sequence[Tensor], weight: float) -> float:
    return math.fsum(
        float((v.double() + weight * (g.double() - v.double())).square().sum()) for v, g in zip(vs, gs, strict=True)
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-7)], ids=["64", "32"])
@pytest.mark.parametrize("threads", [1, 2])
def test_it_is_the_sum(dtype: torch.dtype, tolerance: float, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        vs, gs = pairs(dtype)
        for weight in (0.1, 0.0, 1.0, 0.9):
            found = gate._in_one_pass(vs, gs, weight)
            assert found is not None
            assert found.dtype == torch.float64
            assert float(found) == pytest.approx(torch_form(vs, gs, weight), rel=tolerance)
            assert float(blended_power_sum(vs, gs, weight, 2.0)) == float(found)
    finally:
        torch.set_num_threads(before)


def test_what_is_not_a_number_stays_so() -> None:
    for bad, wanted in ((math.nan, math.isnan), (math.inf, math.isinf)):
        found = gate._in_one_pass([torch.zeros(5000)], [torch.zeros(5000).index_fill_(0, torch.tensor(4000), bad)], 0.5)
        assert found is not None
        assert wanted(float(found))
    low = torch.full((9,), 1e30)
    assert math.isinf(float(gate._in_one_pass([low], [low], 0.5)))  # type: ignore[arg-type]


ALONE = """
import torch
from vrbench.optimizers.gate import blended_power_sum
assert torch.get_num_threads() == 1
noise = torch.randn(300_000, generator=torch.Generator().manual_seed(0))
before = noise.sum()
blended_power_sum([noise], [noise], 0.5, 2.0)
assert torch.get_num_threads() == 1, torch.get_num_threads()
assert torch.equal(before, noise.sum())
"""


def test_torch_keeps_its_threads() -> None:
    """numba's threads set the number of OpenMP's, which a process of one thread then had for torch as well."""
    around = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", ALONE], env=around, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Tagged(Tensor):
    """A tensor of another kind, whose memory may not be what it stands for."""


@pytest.mark.parametrize(
    "row",
    [
        (torch.zeros(4, dtype=torch.bfloat16), torch.zeros(4, dtype=torch.bfloat16)),
        (torch.zeros(4), torch.zeros(4, dtype=torch.float64)),
        (torch.zeros(4, 4), torch.zeros(4, 4).t()),
        (torch.zeros(8)[::2], torch.zeros(8)[::2]),
        (torch.zeros(4, device="meta"), torch.zeros(4, device="meta")),
        (torch.zeros(4).as_subclass(Tagged), torch.zeros(4)),
    ],
    ids=["low precision", "two types", "two layouts", "gaps", "no memory", "another kind"],
)
def test_what_does_not_suit_is_left_to_torch(row: tuple[Tensor, Tensor]) -> None:
    plain = (torch.ones(3), torch.ones(3))
    for rows in ((row,), (plain, row)):
        vs, gs = zip(*rows, strict=True)
        assert gate._in_one_pass(vs, gs, 0.5) is None
    assert gate._in_one_pass([], [], 0.5) is None


def test_a_small_model_does_not_load_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "COMPILED_FROM", 100)
    monkeypatch.setattr(gate, "_compiled", lambda: pytest.fail("numba was asked"))
    assert float(blended_power_sum([torch.ones(33)] * 3, [torch.ones(33)] * 3, 0.5, 2.0)) == 99


def test_signs_and_other_powers_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "_in_one_pass", lambda *_: pytest.fail("numba was asked"))
    vs, gs = [torch.ones(3)], [torch.full((3,), 2.0)]
    assert float(blended_power_sum(vs, gs, 0.5, 2.0, maximize=True)) == pytest.approx(0.75)
    assert float(blended_power_sum(vs, gs, 0.5, 3.0)) == pytest.approx(3 * 1.5**3)
    assert float(blended_power_sum(vs, gs, 0.5, 2.0, grad_scale=torch.tensor(2.0))) == pytest.approx(3)


@pytest.fixture
def _asked_anew() -> object:
    gate._compiled.cache_clear()
    yield
    gate._compiled.cache_clear()


@pytest.mark.usefixtures("_asked_anew")
def test_without_numba_nothing_is_said(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert gate._compiled() is None
    assert float(blended_power_sum([torch.ones(3)], [torch.ones(3)], 0.5, 2.0)) == 3
    assert not recwarn.list


@pytest.mark.usefixtures("_asked_anew")
@pytest.mark.parametrize("error", [ValueError("No threading layer could be loaded"), ImportError("numpy is too new")])
def test_a_numba_that_cannot_run_is_said_once(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(sys.modules["vrbench.optimizers.compiled_gate"], "square_sum", fails)
    with pytest.warns(UserWarning, match=f"numba is installed but cannot be used for VRAdam's norm: {error}"):
        assert gate._compiled() is None
    assert float(blended_power_sum([torch.ones(3)], [torch.ones(3)], 0.5, 2.0)) == 3
