"""Curvature of a loss: Hessian- and Gauss-Newton-vector products, top eigenpairs, trace, directional sharpness.

Everything here is a function of loss closures and parameters; nothing knows of models, tasks or optimizers. A set of
examples that does not fit in memory is given as several weighted closures, the weighted sum of which is the loss.
Vectors are flat: shape (n,), all parameters one after the other in the order given, in the parameters' dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional

from vrbench.norms import dot, inner, norm

LossClosure = Callable[[], Tensor]
"""Returns a scalar loss with a graph back to the parameters."""
Operator = Callable[[Tensor], Tensor]
"""A symmetric linear map on flat vectors."""

CLUSTER = 8
"""Most eigenvalues beyond those asked for that are taken together when their distance to the rest is judged."""


EXPLORE = 2
"""Krylov steps from a fresh vector before a solve may end."""


class NoSecondDerivative(ValueError):
    """The loss cannot be differentiated twice; the message holds torch's reason."""


def flatten(tensors: Iterable[Tensor]) -> Tensor:
    """The tensors' elements one after the other, shape (n,)."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def unflatten(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Cut a flat vector into views with the shapes of `like`."""
    pieces = vector.split([tensor.numel() for tensor in like])
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, like, strict=True)]


class _ChunkedOperator:
    """v ↦ Σ_i w_i A_i v over weighted chunks.

    One chunk: its graph is built once and kept, a product is one backward pass. Several chunks: each graph is built and
    dropped within the product, so that memory is that of one chunk.
    """

    def __init__(self, chunks: Sequence[tuple[float, Callable[[], Any]]], parameters: Sequence[Tensor]) -> None:
        self.chunks = list(chunks)
        self.parameters = list(parameters)
        self.size = sum(parameter.numel() for parameter in self.parameters)
        self.products = 0
        """Number of products taken so far, each over the whole set of examples."""
        self._kept: Any = None

    def _graph(self, closure: Callable[[], Any]) -> Any:
        if len(self.chunks) > 1:
            return self._build(closure)
        if self._kept is None:
            self._kept = self._build(closure)
        return self._kept

    def _sum(self, term: Callable[[Any], Sequence[Tensor | None]]) -> Tensor:
        """Σ_i w_i term(graph_i), flat."""
        total: Tensor | None = None
        with torch.enable_grad():
            for weight, closure in self.chunks:
                pieces = term(self._graph(closure))
                filled = [torch.zeros_like(p) if t is None else t for t, p in zip(pieces, self.parameters, strict=True)]
                part = flatten(filled).detach()
                total = part.mul_(weight) if total is None else total.add_(part, alpha=weight)
        assert total is not None
        return total

    def __call__(self, vector: Tensor) -> Tensor:
        """The product with a flat vector of shape (n,). Raises NoSecondDerivative."""
        self.products += 1
        directions = unflatten(vector, self.parameters)
        try:
            return self._sum(lambda graph: self._apply(graph, directions))
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, NotImplementedError) as error:
            raise NoSecondDerivative(str(error).splitlines()[0]) from error

    def _build(self, closure: Callable[[], Any]) -> Any:
        raise NotImplementedError

    def _apply(self, graph: Any, directions: list[Tensor]) -> Sequence[Tensor | None]:
        raise NotImplementedError


class HessianOperator(_ChunkedOperator):
    """v ↦ ∇²L v for L = Σ_i w_i loss_i, by differentiating ⟨∇L, v⟩ (Pearlmutter 1994).

    `chunks` are (weight, loss closure). Parameters that a loss does not depend on have zero rows.
    """

    _looked = False

    def _build(self, closure: LossClosure) -> tuple[Tensor | None, ...]:
        gradients = torch.autograd.grad(closure(), self.parameters, create_graph=True, allow_unused=True)
        if not self._looked:
            self._looked = True
            if _differentiates_once(gradients):
                raise RuntimeError("part of it is marked once_differentiable")
        return gradients

    def _apply(self, graph: tuple[Tensor | None, ...], directions: list[Tensor]) -> Sequence[Tensor | None]:
        pairs = [(g, v) for g, v in zip(graph, directions, strict=True) if g is not None and g.requires_grad]
        if not pairs:
            raise RuntimeError("the gradient does not depend on the parameters: the loss is piecewise linear in them")
        gradients, along = zip(*pairs, strict=True)
        return torch.autograd.grad(
            gradients, self.parameters, along, retain_graph=len(self.chunks) == 1, allow_unused=True
        )

    def gradient(self) -> Tensor:
        """∇L, shape (n,); free of charge where the graph is kept."""
        return self._sum(lambda graph: graph)


def _differentiates_once(gradients: Iterable[Tensor | None]) -> bool:
    """Whether a `once_differentiable` backward is in the graph: torch would pass over it in silence."""
    waiting = [g.grad_fn for g in gradients if g is not None and g.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if type(node).__name__ == "Error":
            return True
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return False


class GaussNewtonOperator(_ChunkedOperator):
    """v ↦ Σ_i w_i J_iᵀ (∂²loss_i/∂out²) J_i v, the generalised Gauss-Newton matrix (Schraudolph 2002).

    `chunks` are (weight, closure returning (loss, outputs)), the loss computed from the tensor `outputs`.
    """

    def _build(self, closure: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        loss, outputs = closure()
        (slope,) = torch.autograd.grad(loss, outputs, create_graph=True)
        dual = torch.zeros_like(outputs, requires_grad=True)
        pulled = torch.autograd.grad(outputs, self.parameters, dual, create_graph=True, materialize_grads=True)
        return outputs, slope, dual, list(pulled)

    def _apply(
        self, graph: tuple[Tensor, Tensor, Tensor, list[Tensor]], directions: list[Tensor]
    ) -> Sequence[Tensor | None]:
        outputs, slope, dual, pulled = graph
        if not slope.requires_grad:
            raise RuntimeError("the loss is piecewise linear in the model's outputs")
        pairs = [(p, v) for p, v in zip(pulled, directions, strict=True) if p.requires_grad]
        (pushed,) = torch.autograd.grad([p for p, _ in pairs], dual, [v for _, v in pairs], retain_graph=True)
        (curved,) = torch.autograd.grad(slope, outputs, pushed, retain_graph=True)
        return torch.autograd.grad(
            outputs, self.parameters, curved, retain_graph=len(self.chunks) == 1, allow_unused=True
        )

    def gradient(self) -> Tensor:
        """∇L, shape (n,)."""
        return self._sum(
            lambda graph: torch.autograd.grad(
                graph[0], self.parameters, graph[1], retain_graph=len(self.chunks) == 1, allow_unused=True
            )
        )


def scaled(operator: Operator, root: Tensor) -> Operator:
    """v ↦ S^{1/2} A S^{1/2} v with diag(S^{1/2}) = `root` > 0: the same eigenvalues as S A, and symmetric."""
    return lambda vector: root * operator(root * vector)


# ---- top eigenpairs -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Eigenpairs:
    """Largest eigenvalues of a symmetric operator."""

    values: Tensor
    """Shape (k,), float64 on the CPU, largest first."""
    vectors: Tensor
    """Shape (m, n), m ≥ k orthonormal rows; the first k belong to `values`, the rest help the next warm start."""
    bounds: Tensor
    """Shape (k,): bound on the distance of each value to an eigenvalue (see `top_eigenpairs`)."""
    products: int
    converged: bool
    """Whether every bound is within the tolerance."""


def top_eigenpairs(
    operator: Operator,
    start: Tensor,
    *,
    fresh: Tensor | None = None,
    k: int = 1,
    tol: float = 1e-2,
    max_products: int = 100,
    keep: int = 3,
    max_basis: int = 24,
    generator: Generator | None = None,
) -> Eigenpairs:
    """The `k` largest (algebraic) eigenvalues by Lanczos with full re-orthogonalisation, warm-started.

    `start` has shape (m, n): the vectors of the last measurement, or one vector to begin with. The search space begins
    with them and grows by the residual of the first Ritz pair that has not converged. From one vector this is Lanczos
    in exact arithmetic (every residual of a Krylov space points along its next vector); from several it is a block
    restart. Eigenvalues that have overtaken all of those hide from it: `fresh`, of shape (n,), is a random vector,
    which overlaps with every eigenvector; its Krylov space then grows by `EXPLORE` steps at least, in turn with the
    residuals. Since the products of the basis are stored, residuals are true ones, and a full basis of `max_basis`
    vectors is folded onto its best Ritz vectors at no product (thick restart, Wu & Simon 2000).

    Stops when each bound is ≤ `tol` · (largest |Ritz value|). A bound is 2ρ²/(γ + sqrt(γ² + 4ρ²)) ≤ min(ρ, ρ²/γ), with
    ρ the norm of the residuals of the first c Ritz pairs together and γ the value's distance to the disc of radius ‖r‖
    around Ritz value c + 1, best over c (Li & Li 2005, Linear Algebra Appl. 395): a cluster of eigenvalues has to be
    told from the rest of the spectrum, not from itself. With γ = 0 it holds always; with γ > 0 as long as no
    eigenvalue that the space has not seen lies above that disc. `generator` (on the device) draws a new direction when
    the space is exhausted before it has converged.

    Raises ValueError for `k` or `start` that do not fit, ArithmeticError when a product is not finite.
    """
    n = start.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"k={k}: 1 to the number of parameters, {n}, would do")
    space = _SearchSpace(start, min(max(max_basis, 2 * k + 4), n), max(k, keep))
    waiting = [*start] if fresh is None else [*start, fresh]
    products, follow, unexplored = 0, False, 0 if fresh is None else EXPLORE
    while True:
        follow = not waiting and space.chain is not None and (unexplored > 0 or not follow)
        grown = space.images[space.chain] if follow else None
        direction = waiting.pop(0) if waiting else space.residual(space.worst) if grown is None else grown
        if not space.extend(direction):
            if waiting:
                continue
            random = torch.randn(n, generator=generator, dtype=start.dtype, device=start.device)
            if not space.extend(random):
                raise ArithmeticError("the search space cannot grow: the vectors are not finite")
        space.apply(operator)
        products += 1
        if follow or (fresh is not None and direction is fresh):
            space.chain = space.size - 1
            unexplored -= follow
        bounds = space.ritz(k, tol)
        explored = not waiting and (unexplored <= 0 or space.chain is None)
        if space.size == n or (bounds is not None and explored and bool((bounds <= tol * space.scale).all())):
            converged = True
        elif products >= max_products:
            converged = False
        else:
            continue
        bounds = torch.full((k,), torch.inf, dtype=torch.float64) if bounds is None else bounds
        values = functional.pad(space.values[:k], (0, max(0, k - space.size)), value=torch.nan)
        return Eigenpairs(values, space.ritz_vectors(max(k, keep)), bounds, products, converged)


class _SearchSpace:
    """An orthonormal basis V with stored products W = A V, and its Ritz pairs. Rows are vectors."""

    def __init__(self, like: Tensor, capacity: int, keep: int) -> None:
        self.basis = like.new_empty(capacity, like.shape[1])
        self.images = torch.empty_like(self.basis)
        self.projected = torch.zeros(capacity, capacity, dtype=torch.float64)
        self.keep = keep
        self.size = 0
        self.chain: int | None = None
        """Row of the last vector of the Krylov space that is followed, while there is one."""
        self.values = torch.empty(0, dtype=torch.float64)
        self.rotation = torch.empty(0, 0, dtype=torch.float64)
        self.worst = 0
        self.scale = 0.0

    def extend(self, direction: Tensor) -> bool:
        """Add the part of `direction` that is new to the space, normalised; False where there is none."""
        rest = direction / norm(direction)
        if self.size == len(self.basis) and self.size < self.basis.shape[1]:
            self._fold()
        if self.size == len(self.basis):
            return False
        used = self.basis[: self.size]
        for _ in range(3):
            before = norm(rest)
            rest = rest - used.T @ inner(used, rest[None])[:, 0].to(rest)
            after = norm(rest)
            if not bool(after > 16 * torch.finfo(rest.dtype).eps):
                return False
            if bool(after > 0.7 * before):
                break
        self.basis[self.size] = rest / after
        return True

    def apply(self, operator: Operator) -> None:
        """Take the product with the vector that `extend` added."""
        image = operator(self.basis[self.size])
        self.images[self.size] = image
        self.size += 1
        column = inner(self.basis[: self.size], image[None])[:, 0].cpu().double()
        if not bool(torch.isfinite(column).all()):
            raise ArithmeticError("a curvature product is not finite: the loss or its derivatives overflow")
        self.projected[: self.size, self.size - 1] = column
        self.projected[self.size - 1, : self.size] = column

    def ritz(self, k: int, tol: float) -> Tensor | None:
        """Solve the projected problem; the bounds of the first k values, or None while there are fewer."""
        values, rotation = torch.linalg.eigh(self.projected[: self.size, : self.size])
        self.values, self.rotation = values.flip(0), rotation.flip(1)
        self.scale = float(self.values.abs().max())
        bounds = self._bounds(min(k, self.size))
        self.worst = next((i for i, bound in enumerate(bounds) if bound > tol * self.scale), 0)
        return torch.tensor(bounds, dtype=torch.float64) if self.size >= k else None

    def residual(self, i: int) -> Tensor:
        """A y − θ y of the i-th Ritz pair, from stored products."""
        weights = self.rotation[:, i].to(self.basis)
        return weights @ self.images[: self.size] - float(self.values[i]) * (weights @ self.basis[: self.size])

    def _bounds(self, k: int) -> list[float]:
        """The bound on each of the first k values that `top_eigenpairs` describes."""
        count = min(k + CLUSTER, self.size)
        residuals = torch.stack([self.residual(i) for i in range(count)])
        gram = inner(residuals, residuals).cpu().double()
        values, radii = self.values.tolist(), gram.diagonal().sqrt().tolist()
        joint = [float(torch.linalg.matrix_norm(gram[:c, :c], 2)) for c in range(1, count + 1)]
        bounds = []
        for i in range(k):
            best = radii[i]
            for c in range(i + 1, count):
                gap = max(0.0, values[i] - values[c] - radii[c])
                if joint[c - 1] > 0:
                    best = min(best, 2 * joint[c - 1] / (gap + (gap**2 + 4 * joint[c - 1]) ** 0.5))
            bounds.append(best)
        return bounds

    def ritz_vectors(self, count: int) -> Tensor:
        """The first `count` Ritz vectors (fewer when the space is smaller), shape (count, n)."""
        return self.rotation[:, :count].T.to(self.basis) @ self.basis[: self.size]

    def _fold(self) -> None:
        """Shrink the space onto its best Ritz vectors, their products with them."""
        count = min(self.size - 1, max(self.keep, self.size // 2))
        turn = self.rotation[:, :count].T.to(self.basis)
        self.basis[:count] = turn @ self.basis[: self.size]
        self.images[:count] = turn @ self.images[: self.size]
        self.projected.zero_()
        self.projected[:count, :count] = inner(self.basis[:count], self.images[:count]).cpu().double()
        self.projected = (self.projected + self.projected.T) / 2
        self.size = count
        self.chain = None


# ---- numbers that need no eigenvectors ------------------------------------------------------------------------------


def hutchinson_trace(operator: Operator, like: Tensor, samples: int, generator: Generator) -> tuple[float, float]:
    """tr A as the mean of zᵀAz over Rademacher z (Hutchinson 1989), and its standard error (nan for one sample).

    `like` is any flat vector of the space (shape, dtype, device); one product a sample.
    """
    draws = []
    for _ in range(samples):
        signs = torch.randint(0, 2, like.shape, generator=generator, device=like.device).to(like.dtype) * 2 - 1
        draws.append(dot(signs, operator(signs)))
    estimates = torch.stack(draws)
    error = float(estimates.std() / samples**0.5) if samples > 1 else float("nan")
    return float(estimates.mean()), error


def directional_sharpness(operator: Operator, direction: Tensor) -> float:
    """dᵀAd / ‖d‖² along a flat direction; 0 where the direction is zero. One product."""
    length = norm(direction)
    if not bool(length > 0):
        return 0.0
    unit = direction / length
    return float(dot(unit, operator(unit)))


def batch_sharpness(losses: Sequence[tuple[float, LossClosure]], parameters: Sequence[Tensor]) -> float:
    """E_B[gᵀHg] / E_B[‖g‖²], g and H of one mini-batch B (Andreyev & Beneventano, arXiv 2412.20553); 0 if all g are 0.

    `losses` are the mini-batches with their weights. SGD's counterpart of the sharpness: this, and not λ_max of the
    full loss, is what settles at 2/lr. One product a mini-batch.
    """
    curvature = square = 0.0
    for weight, closure in losses:
        operator = HessianOperator([(1.0, closure)], parameters)
        gradient = operator.gradient()
        curvature += weight * float(dot(gradient, operator(gradient)))
        square += weight * float(dot(gradient, gradient))
    return curvature / square if square > 0 else 0.0
