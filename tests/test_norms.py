"""Norms and inner products against float64, at the sizes where torch's own are off."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toy import trainer
from two_ranks import run_two_ranks
from vrbench.optimizers import gate
from vrbench.optimizers.gate import blended_power_sum, power_sum

from vrbench import norms
from vrbench.norms import clip, dot, global_norm, inner, norm
from vrbench.probes import curvature

LARGE = 120_000_000
"""Elements of a small language model; torch.linalg.vector_norm is 1.3 % low there."""


def exact_square(x: Tensor) -> float:
    """Σ x² in float64, a million elements at a time."""
    return math.fsum(float(part.double() @ part.double()) for part in x.reshape(-1).split(1 << 20))


@pytest.fixture(scope="module")
def large() -> Tensor:
    return torch.randn(LARGE, generator=torch.Generator().manual_seed(0))


def same(left: Tensor) -> Tensor:
    return torch.full_like(left, 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("change", [torch.clone, same], ids=["random", "equal"])
def test_large_sums_agree_with_float64(change: Callable[[Tensor], Tensor], large: Tensor) -> None:
    x = change(large)
    square = exact_square(x)
    assert float(torch.linalg.vector_norm(x)) != pytest.approx(square**0.5, rel=1e-3), "torch has mended it"
    assert float(norm(x)) == pytest.approx(square**0.5, rel=1e-6)
    assert float(global_norm([x[: LARGE // 3], x[LARGE // 3 :]])) == pytest.approx(square**0.5, rel=1e-6)
    assert float(dot(x, x)) == pytest.approx(square, rel=1e-6)
    assert float(inner(x[None], x[None])) == pytest.approx(square, rel=1e-6)
    for sparse in (torch.bfloat16, torch.float16):
        low = x[: LARGE // 4].to(sparse)
        assert float(global_norm([low])) == pytest.approx(exact_square(low) ** 0.5, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("change", [torch.clone, same], ids=["random", "equal"])
def test_the_gates_sums_are_right_on_a_large_model(
    change: Callable[[Tensor], Tensor], large: Tensor, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(gate, "_compiled", lambda: None)
    x = change(large)
    square = exact_square(x)
    assert float(power_sum([x], 2)) == pytest.approx(square, rel=1e-6)
    assert float(blended_power_sum([torch.zeros_like(x)], [x], 0.5, 2)) == pytest.approx(square / 4, rel=1e-6)
    small = list(x[: LARGE // 8].split(1000))
    square = exact_square(x[: LARGE // 8])
    assert float(power_sum(small, 2)) == pytest.approx(square, rel=1e-6)
    zeros = [torch.zeros(1000)] * (len(small) - 1) + [torch.zeros(len(small[-1]))]
    assert float(blended_power_sum(zeros, small, 0.5, 2)) == pytest.approx(square / 4, rel=1e-6)


@pytest.mark.slow
def test_a_thousand_million_elements_that_hold_no_memory() -> None:
    for x in (torch.tensor(0.1).expand(10**9), torch.full((1000, 1), 0.1).expand(1000, 10**6)):
        assert float(global_norm([x])) == pytest.approx(float(torch.tensor(0.1).double()) * 10**4.5, rel=1e-6)


@pytest.mark.slow
def test_the_curvature_of_a_large_model(large: Tensor) -> None:
    """H = diag(2): every direction has sharpness 2, and a Lanczos vector has length 1."""
    assert curvature.directional_sharpness(lambda v: 2 * v, large) == pytest.approx(2, rel=1e-6)
    space = curvature._SearchSpace(large[None], 2, 1)
    assert space.extend(large)
    assert exact_square(space.basis[0]) == pytest.approx(1, rel=1e-6)
    space.apply(lambda v: 2 * v)
    assert float(space.projected[0, 0]) == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 16])
def test_every_layout_is_summed_once(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "CHUNK", chunk)
    x = torch.randn(6, 5, 4, 3, generator=torch.Generator().manual_seed(1))
    tensors = [
        x, x.contiguous(memory_format=torch.channels_last), x.transpose(0, 3), x[:, ::2], x[0, 0, 0, 0],
        torch.zeros(0), x.bfloat16(), x.double(), torch.complex(x, x), x[:1].expand(4, 5, 4, 3),
    ]  # fmt: skip
    square = sum(float(t.to(torch.complex128).abs().square().sum()) for t in tensors)
    assert float(global_norm(tensors)) == pytest.approx(square**0.5, rel=1e-6)
    assert float(global_norm(iter(tensors[:1]))) == pytest.approx(float(x.double().norm()), rel=1e-6)
    assert float(dot(x.reshape(-1), x.reshape(-1))) == pytest.approx(float(x.double().square().sum()), rel=1e-6)
    assert float(global_norm([])) == 0
    assert global_norm([torch.full((3,), math.inf)]).isinf()
    assert global_norm([torch.full((3,), math.nan)]).isnan()


@pytest.mark.parametrize("columns", [5, norms.BLOCK, norms.BLOCK + 1, 5 * norms.BLOCK + 17])
def test_inner_products_of_rows(columns: int) -> None:
    rows, others = torch.randn(2, 3, columns, generator=torch.Generator().manual_seed(2))
    want = rows.double() @ others[:2].double().T
    torch.testing.assert_close(inner(rows, others[:2]), want, rtol=0, atol=1e-6 * columns)


@pytest.mark.slow
def test_the_trainer_clips_a_large_gradient_to_the_norm_it_was_given() -> None:
    subject = trainer(clip_norm=1e-3)
    weight = nn.Parameter(torch.zeros(LARGE))
    weight.grad = torch.ones(LARGE)
    subject.optimizer = torch.optim.SGD([weight], lr=1.0)
    subject._clip()
    assert exact_square(weight.grad) ** 0.5 == pytest.approx(1e-3, rel=1e-6)


def shares(rank: int, port: int, folder: str) -> None:
    """One of two processes: a matrix shared out by rows, one that both hold, and a plain one; then clipping."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    x = torch.arange(15.0).view(5, 3)
    tensors = [distribute_tensor(x, mesh, [Shard(0)]), distribute_tensor(x + 1, mesh, [Replicate()]), x + 2]
    parameters = [nn.Parameter(tensor) for tensor in tensors[:2]]
    for parameter in parameters:
        parameter.grad = parameter.detach().clone()
    factor = clip(parameters, 1.0)
    after = global_norm(p.grad for p in parameters)  # type: ignore[misc]
    numbers = [float(global_norm(tensors)), float(factor), float(after)]
    (Path(folder) / f"{rank}").write_text(" ".join(map(repr, numbers)))
    dist.destroy_process_group()


@pytest.mark.slow
def test_a_sharded_tensor_counts_whole(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run_two_ranks(shares, port, str(tmp_path))
    x = torch.arange(15.0).double()
    squares = [float((x + i).square().sum()) for i in range(3)]
    want = [sum(squares) ** 0.5, sum(squares[:2]) ** -0.5, 1.0]
    for rank in "01":
        assert [float(n) for n in (tmp_path / rank).read_text().split()] == pytest.approx(want, rel=1e-6)
