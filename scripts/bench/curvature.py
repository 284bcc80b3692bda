"""Top eigenvalue of the Hessian: our solver against others, cold and warm, at one tolerance.

`python scripts/bench/curvature.py` prints a table and writes results/bench/curvature.json. A tanh MLP is trained at its
edge of stability (the set-up of conf/experiment/eos); at a row of moments every contender measures λ_max of
the same Hessian. Cold: from a random vector each time. Warm: from what it had the last time. All stop at the same
relative tolerance by their own rule; what they reached is judged by a solve to 1e-6. Contenders:

- vrbench: `vrbench.probes.curvature`, cached graph, Lanczos with warm block restarts.
- curvlinops + eigsh: curvlinops.HessianLinearOperator in scipy's eigsh (ARPACK), warm by its v0.
- cached graph + eigsh: the same eigsh on our cached-graph product.
- PyHessian: pyhessian's own power iteration (`pip install pyhessian`), which knows no warm start. Left out where the
  package is missing.
- power iteration: the iteration that PyHessian does, here on our cached-graph product, warm by its last vector.
- power iteration, told: the same, but stopped by the exact value, when it is within the tolerance (or after 200
  products): what the iteration needs. Its own rule, a small change from one product to the next, stops too early.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import timing
import torch
from torch import Tensor, nn

from vrbench.probes.curvature import HessianOperator, top_eigenpairs

Measurement = tuple[float, int, Any]
"""Eigenvalue, products, what to start from the next time."""


def digits_problem(kind: str, seed: int) -> tuple[nn.Module, Tensor, Tensor, torch.optim.Optimizer]:
    """1000 digits, the MLP of conf/experiment/eos/gd (`mlp`), or a small CNN with batch norm; their optimizer.

    The batch norm keeps no running statistics: curvlinops refuses a module that writes to its buffers, and PyHessian
    measures in eval mode.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.tensor(bunch.images[:1000], dtype=torch.float32).unsqueeze(1) / 16
    y = nn.functional.one_hot(torch.tensor(bunch.target[:1000]), 10).float()
    torch.manual_seed(seed)
    if kind == "mlp":
        layers = [nn.Flatten(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10)]
        model = nn.Sequential(*layers)
        return model, x, y, torch.optim.SGD(model.parameters(), lr=0.5)

    def norm() -> nn.Module:
        return nn.BatchNorm2d(8, track_running_stats=False)

    layers = [nn.Conv2d(1, 8, 3), norm(), nn.Tanh(), nn.Conv2d(8, 8, 3), norm(), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10))
    return model, x, y, torch.optim.SGD(model.parameters(), lr=0.1)


def halved_square(out: Tensor, target: Tensor) -> Tensor:
    """½ Σ_c (out_c - target_c)², mean over examples."""
    return 0.5 * (out - target).square().sum(1).mean()


class Problem:
    """One Hessian to measure, the same for every contender."""

    def __init__(self, model: nn.Module, x: Tensor, y: Tensor, tol: float, generator: torch.Generator) -> None:
        self.model, self.x, self.y, self.tol = model, x, y, tol
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.size = sum(p.numel() for p in self.parameters)
        self.exact = float("nan")
        self.random = torch.randn(1, self.size, generator=generator)

    def loss(self) -> Tensor:
        """The loss on all examples."""
        return halved_square(self.model(self.x), self.y)

    def operator(self) -> HessianOperator:
        """A fresh product: its graph is not built yet."""
        return HessianOperator([(1.0, self.loss)], self.parameters)


def ours(problem: Problem, last: Tensor | None) -> Measurement:
    """vrbench's solver."""
    start = problem.random if last is None else last
    pairs = top_eigenpairs(problem.operator(), start, tol=problem.tol)
    return float(pairs.values[0]), pairs.products, pairs.vectors


def arpack(product: Callable[[np.ndarray], np.ndarray], problem: Problem, last: np.ndarray | None) -> Measurement:
    """scipy's eigsh, its products counted."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    count = 0

    def counted(v: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        return product(v.ravel())

    operator = LinearOperator((problem.size, problem.size), matvec=counted, dtype=np.float32)
    start = problem.random[0].numpy() if last is None else last
    values, vectors = eigsh(operator, k=1, which="LA", tol=problem.tol, v0=start)
    return float(values[0]), count, vectors[:, 0]


def eigsh_cached(problem: Problem, last: np.ndarray | None) -> Measurement:
    """eigsh on the cached-graph product."""
    operator = problem.operator()
    return arpack(lambda v: operator(torch.from_numpy(v).float()).numpy(), problem, last)


def eigsh_curvlinops(problem: Problem, last: np.ndarray | None) -> Measurement:
    """eigsh on curvlinops' product."""
    from curvlinops import HessianLinearOperator

    data = [(problem.x, problem.y)]
    operator = HessianLinearOperator(
        problem.model, halved_square_module, problem.parameters, data, check_deterministic=False
    ).to_scipy()
    return arpack(operator.matvec, problem, last)


class _HalvedSquare(nn.MSELoss):
    """`halved_square` as a torch loss: the mean over elements times half their number per example."""

    def forward(self, out: Tensor, target: Tensor) -> Tensor:
        return halved_square(out, target)


halved_square_module = _HalvedSquare(reduction="mean")


def power_iteration(problem: Problem, last: Tensor | None) -> Measurement:
    """v ← Hv/‖Hv‖ until vᵀHv changes by less than the tolerance."""
    operator = problem.operator()
    v = problem.random[0] if last is None else last
    value = float("inf")
    products = 0
    while products < 100:
        products += 1
        v = v / v.norm()
        image = operator(v)
        before, value = value, float(v @ image)
        v = image
        if abs(value - before) < problem.tol * abs(value):
            break
    return value, products, v


def power_iteration_warm(problem: Problem, last: Tensor | None) -> Measurement:
    """The same, told by the exact value when to stop."""
    operator = problem.operator()
    v = problem.random[0] if last is None else last
    value, products = float("nan"), 0
    while products < 200 and not abs(value / problem.exact - 1) <= problem.tol:
        v = v / v.norm()
        image = operator(v)
        value, v, products = float(v @ image), image, products + 1
    return value, products, v


def pyhessian_iteration(problem: Problem, last: None) -> Measurement:
    """PyHessian's own, its products counted. It measures in eval mode and leaves gradients behind: undone here."""
    from pyhessian import hessian

    implementation: Any = sys.modules[hessian.__module__]
    count = 0
    original = implementation.hessian_vector_product

    def counted(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        return original(*arguments)

    implementation.hessian_vector_product = counted
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            measured = hessian(problem.model, halved_square, data=(problem.x, problem.y), cuda=False)
            values, _ = measured.eigenvalues(maxIter=100, tol=problem.tol, top_n=1)
    finally:
        implementation.hessian_vector_product = original
        problem.model.train()
        problem.model.zero_grad(set_to_none=True)
    return float(values[0]), count, None


def contenders() -> dict[str, Callable[[Problem, Any], Measurement]]:
    """Who takes part here."""
    found: dict[str, Callable[[Problem, Any], Measurement]] = {
        "vrbench": ours,
        "curvlinops + eigsh": eigsh_curvlinops,
        "cached graph + eigsh": eigsh_cached,
        "power iteration": power_iteration,
        "power iteration, told": power_iteration_warm,
    }
    try:
        import pyhessian  # noqa: F401
    except ImportError:
        print("pyhessian is not installed: its row is left out (`power iteration` is the same iteration)")
    else:
        found["PyHessian"] = pyhessian_iteration
    return found


def bench(kind: str, steps: int, every: int, tol: float) -> list[dict[str, Any]]:
    """One row per contender and start: products and seconds a measurement, error against the exact value."""
    model, x, y, optimizer = digits_problem(kind, seed=0)
    generator = torch.Generator().manual_seed(0)
    running = contenders()
    states: dict[tuple[str, str], Any] = {}
    found: dict[tuple[str, str], list[tuple[int, float, float]]] = {}
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        halved_square(model(x), y).backward()
        optimizer.step()
        if step % every != 0:
            continue
        problem = Problem(model, x, y, tol, generator)
        exact = float(top_eigenpairs(problem.operator(), problem.random, tol=1e-6, max_products=400).values[0])
        problem.exact = exact
        for name, measure in running.items():
            for start in ("cold", "warm"):
                if start == "warm" and name == "PyHessian":
                    continue
                last = states.get((name, start)) if start == "warm" else None
                measured, seconds = timing.timed(partial(measure, problem, last))
                value, products, states[name, start] = measured
                if step > every:  # the first time is nobody's warm start, and pays for imports
                    found.setdefault((name, start), []).append((products, seconds, abs(value / exact - 1)))
    rows = []
    for (name, start), cells in found.items():
        table = np.array(cells)
        counts, times, errors = table[:, 0], table[:, 1], table[:, 2]
        rows.append(
            {
                "problem": kind,
                "contender": name,
                "start": start,
                "products_mean": float(counts.mean()),
                "products_max": int(counts.max()),
                "milliseconds_median": float(1e3 * np.median(times)),
                "error_mean": float(errors.mean()),
                "error_max": float(errors.max()),
                "missed": int((errors > tol).sum()),
                "measurements": len(cells),
            }
        )
    return rows


def main() -> None:
    """Run both problems, print, write."""
    parser = timing.parser(__doc__, "curvature.json", threads=1)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--every", type=int, default=25)
    parser.add_argument("--tolerance", type=float, default=0.01)
    options = timing.parse(parser)
    rows = [row for kind in ("mlp", "cnn") for row in bench(kind, options.steps, options.every, options.tolerance)]
    print(f"{'problem':8} {'contender':21} {'start':5} {'products':>14} {'ms':>8} {'error mean':>11} {'max':>8} missed")
    for row in rows:
        print(
            f"{row['problem']:8} {row['contender']:21} {row['start']:5} {row['products_mean']:8.1f}"
            f" ≤{row['products_max']:4}"
            f" {row['milliseconds_median']:8.1f} {row['error_mean']:11.5f} {row['error_max']:8.5f}"
            f" {row['missed']}/{row['measurements']}"
        )
    settings = {"tolerance": options.tolerance, "steps": options.steps, "every": options.every}
    timing.write(options, {**settings, "rows": rows})


if __name__ == "__main__":
    main()
