"""Curvature against dense float64: the full Hessian and torch.linalg.eigvalsh."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from vrbench.probes import curvature
from vrbench.probes.curvature import GaussNewtonOperator, HessianOperator, scaled, top_eigenpairs
from vrbench.probes.edge_of_stability import as_trained


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 5, batch_first=True)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class UNet(nn.Module):
    """Down, attention at the bottom, up, skip connection; GroupNorm and SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2, padding=1)
        self.norm, self.mix = nn.GroupNorm(2, 4), nn.Conv2d(4, 12, 1)
        self.up, self.leave = nn.ConvTranspose2d(4, 4, 2, stride=2), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skip = functional.silu(self.enter(x))
        low = self.norm(self.down(skip))
        q, k, v = self.mix(low).flatten(2).transpose(1, 2).chunk(3, -1)
        low = low + functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(low.shape)
        return self.leave(torch.cat([skip, self.up(functional.silu(low))], 1))


def mlp() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 10), nn.Tanh(), nn.Linear(10, 4)), torch.randn(
        40, 6
    )


def cnn() -> tuple[nn.Module, Tensor]:
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)]
    return nn.Sequential(*layers, nn.GELU(), nn.Flatten(), nn.Linear(16, 4)), torch.randn(24, 1, 6, 6)


def lstm() -> tuple[nn.Module, Tensor]:
    return Recurrent(), torch.randn(16, 6, 3)


def transformer() -> tuple[nn.Module, Tensor]:
    layer = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.1, batch_first=True)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(40, 4)), torch.randn(16, 5, 8)


def unet() -> tuple[nn.Module, Tensor]:
    return UNet(), torch.randn(8, 1, 8, 8)


MODELS = [mlp, cnn, lstm, transformer, unet]


def problem(
    make: Callable[[], tuple[nn.Module, Tensor]], dtype: torch.dtype
) -> tuple[nn.Module, list[Tensor], Callable[[], Tensor]]:
    torch.manual_seed(1)
    model, x = make()
    target = torch.randint(0, 4, (len(x),))
    model, x = model.to(dtype), x.to(dtype)

    def loss() -> Tensor:
        out = model(x)
        return functional.cross_entropy(out, target) if out.ndim == 2 else (out - x.flip(3)).square().mean()

    return model, list(model.parameters()), loss


def dense(operator: Callable[[Tensor], Tensor], n: int) -> Tensor:
    return torch.stack([operator(row) for row in torch.eye(n, dtype=torch.float64)])


@functools.cache
def exact(make: Callable[[], tuple[nn.Module, Tensor]]) -> tuple[Tensor, Tensor]:
    """The Hessian by float64 double backward, row by row, without the operators; and a preconditioner's root."""
    model, parameters, loss = problem(make, torch.float64)
    with as_trained(model, torch.device("cpu")):
        gradient = curvature.flatten(torch.autograd.grad(loss(), parameters, create_graph=True))
        n = len(gradient)
        rows = [
            curvature.flatten(torch.autograd.grad(gradient, parameters, row, retain_graph=True, materialize_grads=True))
            for row in torch.eye(n, dtype=torch.float64)
        ]
    root = (0.1 + torch.rand(n, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).rsqrt()
    return torch.stack(rows), root


def start(n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(1, n, generator=torch.Generator().manual_seed(3), dtype=dtype)


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize(
    ("dtype", "solve", "agree"),
    [(torch.float64, 1e-9, 1e-8), pytest.param(torch.float32, 1e-4, 1e-3, marks=pytest.mark.slow)],
)
def test_top_eigenvalues_are_those_of_the_dense_hessian(
    make: Callable[[], tuple[nn.Module, Tensor]], dtype: torch.dtype, solve: float, agree: float
) -> None:
    hessian, root = exact(make)
    assert torch.allclose(hessian, hessian.T, atol=1e-10)
    model, parameters, loss = problem(make, dtype)
    with as_trained(model, torch.device("cpu")):
        operator = HessianOperator([(1.0, loss)], parameters)
        plain = top_eigenpairs(operator, start(len(hessian), dtype), k=3, tol=solve, max_products=400)
        pre = top_eigenpairs(scaled(operator, root.to(dtype)), start(len(hessian), dtype), tol=solve, max_products=400)
    want = torch.linalg.eigvalsh(hessian).flip(0)[:3]
    assert plain.converged
    assert pre.converged
    assert operator.products == plain.products + pre.products
    torch.testing.assert_close(plain.values, want, rtol=0, atol=agree * float(want[0]))
    want_pre = torch.linalg.eigvalsh(root[:, None] * hessian * root)[-1]
    torch.testing.assert_close(pre.values[0], want_pre, rtol=agree, atol=0)
    vector = plain.vectors[0].double()
    assert torch.linalg.vector_norm(hessian @ vector - want[0] * vector) < max(100 * solve, 1e-6) * want[0]


def test_products_over_chunks_are_those_over_the_whole() -> None:
    _, parameters, loss = problem(mlp, torch.float64)
    _, others, other = problem(lambda: mlp(), torch.float64)
    v = start(sum(p.numel() for p in parameters))[0]
    whole = HessianOperator([(1.0, loss)], parameters)
    parts = HessianOperator([(0.25, loss), (0.75, loss)], parameters)
    torch.testing.assert_close(parts(v), whole(v), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(parts.gradient(), whole.gradient(), rtol=1e-12, atol=1e-14)
    assert parts._kept is None, "several chunks keep no graph"
    torch.testing.assert_close(whole(v), exact(mlp)[0] @ v, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(HessianOperator([(2.0, other)], others)(v), 2 * whole(v), rtol=1e-12, atol=1e-14)


def test_warm_start_costs_little_and_finds_the_same() -> None:
    hessian, _ = exact(mlp)
    cold = top_eigenpairs(lambda v: hessian @ v, start(len(hessian)), tol=1e-6)
    warm = top_eigenpairs(lambda v: hessian @ v, cold.vectors, tol=1e-6)
    assert warm.products <= len(cold.vectors) + 1 < cold.products
    torch.testing.assert_close(warm.values, cold.values, rtol=1e-6, atol=0)


def test_bound_holds_and_a_stale_start_is_left() -> None:
    """Started at the second eigenvector (with a trace of everything), the search still ends at the first."""
    spectrum = torch.cat([torch.tensor([5.0, 4.9, 3.0]), torch.linspace(1, -4, 197)]).double()
    q = torch.linalg.qr(torch.randn(200, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    matrix = (q * spectrum) @ q.T
    stale = q[:, 1][None] + 1e-3 * start(200)
    pairs = top_eigenpairs(lambda v: matrix @ v, stale, k=2, tol=1e-4)
    assert pairs.converged
    for value, bound, want in zip(pairs.values, pairs.bounds, spectrum, strict=False):
        assert abs(float(value - want)) <= float(bound) + 1e-12


def test_a_fresh_vector_finds_what_overtook_the_last_eigenvectors() -> None:
    """Exact eigenvectors of 3, 2, 1 have no residual to follow; 4 is orthogonal to them all."""
    spectrum = torch.cat([torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.linspace(0.5, -1, 96)]).double()
    last = torch.eye(100, dtype=torch.float64)[1:4]
    stuck = top_eigenpairs(lambda v: spectrum * v, last, tol=1e-3)
    assert float(stuck.values[0]) == pytest.approx(3.0)
    found = top_eigenpairs(lambda v: spectrum * v, last, fresh=start(100)[0], tol=1e-3)
    assert float(found.values[0]) == pytest.approx(4.0, rel=1e-3)


def test_small_bases_restart_and_exhausted_spaces_end() -> None:
    hessian, _ = exact(mlp)
    small = top_eigenpairs(lambda v: hessian @ v, start(len(hessian)), tol=1e-6, max_basis=6, max_products=300)
    want = torch.linalg.eigvalsh(hessian)[-1]
    torch.testing.assert_close(small.values[0], want, rtol=1e-6, atol=0)
    identity = top_eigenpairs(lambda v: 2 * v, start(5), k=3, tol=1e-9)
    torch.testing.assert_close(identity.values, torch.full((3,), 2.0, dtype=torch.float64))
    cut = top_eigenpairs(lambda v: hessian @ v, start(len(hessian)), tol=1e-12, max_products=3)
    assert not cut.converged
    assert cut.products == 3
    with pytest.raises(ValueError, match="k=9"):
        top_eigenpairs(lambda v: v, start(5), k=9)
    with pytest.raises(ArithmeticError, match="not finite"):
        top_eigenpairs(lambda v: v / 0, start(5))


def test_gauss_newton_is_jacobian_transposed_output_hessian_jacobian() -> None:
    _, parameters, _ = problem(mlp, torch.float64)
    torch.manual_seed(1)
    model, x = mlp()
    model, x = model.double(), x.double()
    target = torch.randint(0, 4, (len(x),))
    parameters = list(model.parameters())

    def closure() -> tuple[Tensor, Tensor]:
        out = model(x)
        return functional.cross_entropy(out, target), out

    operator = GaussNewtonOperator([(1.0, closure)], parameters)
    jacobian = torch.stack(
        [curvature.flatten(torch.autograd.grad(entry, parameters, retain_graph=True)) for entry in model(x).reshape(-1)]
    )
    p = model(x).softmax(1).detach()
    blocks = (torch.diag_embed(p) - p[:, :, None] * p[:, None, :]) / len(x)
    want = jacobian.T @ torch.block_diag(*blocks) @ jacobian
    torch.testing.assert_close(dense(operator, operator.size), want, rtol=1e-9, atol=1e-12)
    loss, _ = closure()
    torch.testing.assert_close(operator.gradient(), curvature.flatten(torch.autograd.grad(loss, parameters)))


def test_trace_and_directional_and_batch_sharpness() -> None:
    hessian, _ = exact(mlp)
    n = len(hessian)
    generator = torch.Generator().manual_seed(0)
    diagonal = torch.arange(1.0, 6.0).double()
    assert curvature.hutchinson_trace(lambda v: diagonal * v, diagonal, 2, generator) == (15.0, 0.0)
    trace, error = curvature.hutchinson_trace(lambda v: hessian @ v, start(n)[0], 400, generator)
    assert abs(trace - float(hessian.trace())) < 4 * error < float(hessian.trace())
    d = start(n)[0]
    assert curvature.directional_sharpness(lambda v: hessian @ v, d) == pytest.approx(float(d @ hessian @ d / (d @ d)))
    assert curvature.directional_sharpness(lambda v: hessian @ v, 0 * d) == 0.0
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    first, second = lambda: (w * w * torch.tensor([1.0, 0.0])).sum(), lambda: (w * w * torch.tensor([0.0, 3.0])).sum()
    # g = (2, 0), H = diag(2, 0) and g = (0, 12), H = diag(0, 6): (8 + 864)/2 over (4 + 144)/2
    assert curvature.batch_sharpness([(0.5, first), (0.5, second)], [w]) == pytest.approx(872 / 148)


def test_a_loss_without_second_derivative_is_refused() -> None:
    w = torch.ones(3, requires_grad=True)
    with pytest.raises(curvature.NoSecondDerivative, match="piecewise linear"):
        HessianOperator([(1.0, lambda: (w * 2).sum())], [w])(torch.ones(3))

    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return (x**3).sum()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return 3 * ctx.saved_tensors[0] ** 2 * g

    with pytest.raises(curvature.NoSecondDerivative, match="once_differentiable"):
        HessianOperator([(1.0, lambda: Once.apply(w) ** 2)], [w])(torch.ones(3))
