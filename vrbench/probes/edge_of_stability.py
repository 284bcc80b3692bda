"""The edge-of-stability probe: sharpness as the optimizer sees it, against the threshold of the step it has just taken.

docs/edge_of_stability.md says what each number means. The curvature is that of the training loss on a fixed set of
examples, in float32, without dropout, batch normalisation in the mode the run trains in; the model, its buffers and
gradients and torch's generators are left as they were.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vrbench.contracts import Batch, Moment, Training
from vrbench.norms import norm
from vrbench.probes import curvature
from vrbench.probes.cadence import Cadence
from vrbench.probes.curvature import Eigenpairs, GaussNewtonOperator, HessianOperator, Operator
from vrbench.probes.thresholds import Edge, clipped, edge_of

TIERS = ("cheap", "standard", "full")
MATRICES = ("hessian", "ggn")
LOSSES_WATCHED = 5
"""Losses on the probe set that make one oscillation index: of this many steps in a row."""
COLD_TOLERANCE = 1e-3
"""Largest tolerance of a solve that has no vectors to start from; its vectors carry all later ones."""
FEW_PRODUCTS, EXPLORE_EVERY, EXPLORE_EVERY_COSTLY = 6, 3, 9
"""A warm solve also searches from a random vector, should all the last eigenvectors have been overtaken: each third
solve where the last took at most `FEW_PRODUCTS` products, else each ninth; two solves of a measurement take turns."""
STARTS = 3
"""Vectors that a solve keeps for the next to start from, where it is not asked for more."""
NOISE = 0.3
"""Part of a random direction in that vector, beside the gradient's 1."""


class EdgeOfStability:
    """`eos/` sharpness, preconditioned_sharpness, threshold, ratio, bound, hvps, oscillation; see conf/probe/eos.yaml.

    Measures after every `every`-th step and the last, as long as it stays under `max_share` of the time that steps and
    probe take together (null: no limit); `every` null means as often as the share allows. The probe set is the task's
    first `size` training examples, unaugmented, in chunks of `microbatch`: one chunk keeps its graph between products,
    several are recomputed one after the other. `tier` adds up: `cheap` is the oscillation index alone; `standard` has
    the sharpness too, preconditioned as the optimizer's law says; `full` the next `top_k` - 1 eigenvalues, the trace
    from `trace_samples` draws, the curvature along update and gradient, and the batch sharpness over mini-batches of
    `minibatch` examples. `matrix` ggn puts the Gauss-Newton matrix in the Hessian's place (not in the batch sharpness).
    `tolerance` is relative to the largest eigenvalue, `max_products` ends a solve that does not reach it.

    Raises ValueError for options out of range, and from `attach` where the loss cannot be differentiated twice.
    """

    def __init__(
        self,
        tier: Literal["cheap", "standard", "full"],
        every: int | None,
        max_share: float | None,
        size: int,
        microbatch: int,
        tolerance: float,
        max_products: int,
        top_k: int,
        trace_samples: int,
        minibatch: int,
        matrix: Literal["hessian", "ggn"],
    ) -> None:
        _check(tier in TIERS, f"tier={tier}: choose one of {', '.join(TIERS)}")
        _check(matrix in MATRICES, f"matrix={matrix}: choose one of {', '.join(MATRICES)}")
        _check(every is not None or max_share is not None, "every and max_share are both null: give one of them")
        _check(max_share is None or 0 < max_share < 1, f"max_share={max_share}: give a number between 0 and 1, or null")
        _check(0 < tolerance < 1, f"tolerance={tolerance}: give a number between 0 and 1")
        counts = {"size": size, "microbatch": microbatch, "max_products": max_products, "top_k": top_k}
        counts |= {"trace_samples": trace_samples, "minibatch": minibatch}
        cadence = {} if every is None else {"every": every}
        for name, value in {**counts, **cadence}.items():
            whole = isinstance(value, int) and not isinstance(value, bool)
            _check(whole and value >= 1, f"{name}={value}: give a whole number of at least 1")
        self.tier = tier
        self.size = size
        self.microbatch = microbatch
        self.tolerance = tolerance
        self.max_products = max_products
        self.top_k = top_k if tier == "full" else 1
        self.trace_samples = trace_samples
        self.minibatch = minibatch
        self.matrix = matrix
        self.cadence = Cadence(every, max_share)
        self._settings = {"tier": tier, **counts, "tolerance": tolerance, "matrix": matrix}
        self._vectors: dict[str, Tensor] = {}
        self._solves: dict[str, tuple[int, int]] = {}
        self._losses: deque[float] = deque(maxlen=LOSSES_WATCHED)
        self._watched = 0
        self._before: list[Tensor] = []
        self._warned = False

    # ---- the contract -----------------------------------------------------------------------------------------------

    def attach(self, training: Training) -> None:
        """Take the probe set, and one product on a few examples: raises ValueError where that is impossible."""
        self._training = training
        self._all = [p for group in training.optimizer.param_groups for p in group["params"]]
        self._parameters = [p for p in self._all if p.requires_grad]
        if any(hasattr(p, "full_tensor") for p in self._all):
            raise ValueError("the edge of stability of a sharded model cannot be probed: parallel=ddp, or probe=optim")
        self._batches = training.task.probe_batches(self.size, self.microbatch)
        if self.tier == "cheap":
            return
        few = min(self.size, 8)
        try:
            with as_trained(training.model, training.device):
                operator = self._operator(training.task.probe_batches(few, few))
                product = operator(curvature.flatten(p.detach() + 1 for p in self._parameters))
                if not bool(product.any()):
                    raise curvature.NoSecondDerivative("it is 0: the loss is piecewise linear in the parameters")
        except curvature.NoSecondDerivative as error:
            model, task = type(training.model).__name__, training.task.name
            raise ValueError(
                f"the loss of model {model} on task {task} has no second derivative ({error}): choose probe=optim"
            ) from error

    def before_step(self, moment: Moment) -> None:
        """On a step that will be measured, copy the parameters."""
        self._due = self.cadence.is_due(moment.step, moment.step == self._training.total_steps)
        if self._due and self.tier != "cheap":
            with self.cadence.spending():
                self._before = [p.detach().clone() for p in self._all]

    def after_step(self, moment: Moment) -> dict[str, float]:
        """Measure if it is time to; watch the loss for a few steps from there on."""
        with self.cadence.spending():
            row: dict[str, float] = {}
            if self._due:
                if len(self._losses) == LOSSES_WATCHED:
                    row["eos/oscillation"] = oscillation(list(self._losses))
                row |= {} if self.tier == "cheap" else self._measure(moment)
                self._before = []
                if self._watched == 0:
                    self._losses.clear()
                self._watched = LOSSES_WATCHED
            if self._watched > 0:
                self._losses.append(self._loss())
                self._watched -= 1
            return row

    def state_dict(self) -> dict[str, Any]:
        """Vectors to start from, losses watched, the clock, and the settings that they were made under."""
        return {
            "settings": dict(self._settings),
            "vectors": dict(self._vectors),
            "solves": dict(self._solves),
            "losses": list(self._losses),
            "watched": self._watched,
            "cadence": self.cadence.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the same vectors, losses and clock.

        A run may be resumed under other settings. Losses of another probe set are dropped, and with them, or of another
        matrix, the vectors to start from; `top_k` vectors and no fewer than three are used of those that there are.
        Costs of measurements of another kind say nothing of those to come; the time that they took was spent.
        """
        made = state.get("settings", {})
        same_losses = made.get("size") == self.size
        if same_losses:
            self._losses = deque(state["losses"], maxlen=LOSSES_WATCHED)
            self._watched = state["watched"]
        if same_losses and made.get("matrix") == self.matrix and self.tier != "cheap":
            size = sum(p.numel() for p in self._parameters)
            for name, rows in state["vectors"].items():
                if rows.shape[1] == size and bool(rows.isfinite().all()):
                    self._vectors[name] = rows[: max(self.top_k, STARTS)].to(self._training.device)
                    self._solves[name] = tuple(state["solves"][name])
        self.cadence.load_state_dict(state["cadence"])
        if made != self._settings:
            self.cadence.forget_costs()

    # ---- measuring --------------------------------------------------------------------------------------------------

    def _measure(self, moment: Moment) -> dict[str, float]:
        """One row of curvature; empty where the loss or its derivatives are not finite any more."""
        training, edge = self._training, self._edge(moment)
        generator = training.streams.generator("probe", moment.step)
        with as_trained(training.model, training.device):
            operator = self._operator(self._batches)
            try:
                row = self._edge_row(operator, edge, generator)
                if self.tier == "full":
                    row |= self._full_row(operator, generator)
            except ArithmeticError:
                return {}
        return row | {"eos/hvps": float(operator.products)}

    def _edge(self, moment: Moment) -> Edge | None:
        """The edge for the step just taken; None where there is none, which is said once, with the reason."""
        edge = None
        if moment.summed:
            reason = "trainer.zero_grad=false: steps follow the sum of all gradients so far, of which no law speaks"
        else:
            edge = edge_of(self._training.optimizer, self._before)
            reason = f"the law of {type(self._training.optimizer).__name__}'s step {moment.step} is not known"
        if edge is not None and moment.clip is not None:
            edge = clipped(edge, float(moment.clip))
            reason = f"step {moment.step} was clipped by a factor of {float(moment.clip):g}"
        if edge is None and not self._warned:
            self._warned = True
            warnings.warn(f"probe.eos: {reason}: sharpness without a threshold", stacklevel=2)
        return edge

    def _edge_row(
        self, operator: HessianOperator | GaussNewtonOperator, edge: Edge | None, generator: torch.Generator
    ) -> dict[str, float]:
        gradient = operator.gradient()
        pairs = self._solve("sharpness", operator, gradient, self.top_k, generator)
        row = {"eos/sharpness": float(pairs.values[0])}
        row |= {f"eos/sharpness_{i}": float(value) for i, value in enumerate(pairs.values[1:], 2)}
        if edge is not None and edge.root is not None:
            keep = torch.cat([torch.full((p.numel(),), p.requires_grad, device=p.device) for p in self._all])
            root = edge.root[keep].to(gradient)
            scaled = curvature.scaled(operator, root)
            pairs = self._solve("preconditioned", scaled, root * gradient, 1, generator)
            row["eos/preconditioned_sharpness"] = float(pairs.values[0])
        if edge is not None:
            row["eos/threshold"] = edge.threshold
            row["eos/ratio"] = float(pairs.values[0]) / edge.threshold
        row["eos/bound"] = float(pairs.bounds[0] / pairs.values[0].abs().clamp(min=1e-30))
        return row

    def _solve(self, name: str, operator: Operator, gradient: Tensor, k: int, generator: torch.Generator) -> Eigenpairs:
        """The top eigenpairs, from the last ones found under this name and a vector that has some of everything."""
        noise = torch.randn(gradient.shape, generator=generator, dtype=gradient.dtype, device=gradient.device)
        noise = noise / norm(noise)
        length = norm(gradient)
        downhill = gradient / length if bool(length > 0) else torch.zeros_like(gradient)
        generic = downhill + NOISE * noise
        last, (count, cost) = self._vectors.get(name), self._solves.get(name, (len(self._solves), 0))
        explore = count % (EXPLORE_EVERY if cost <= FEW_PRODUCTS else EXPLORE_EVERY_COSTLY) == 0
        pairs = curvature.top_eigenpairs(
            operator,
            (downhill + noise)[None] if last is None else last,
            fresh=generic if last is not None and explore else None,
            k=k,
            keep=STARTS,
            tol=self.tolerance if last is not None else min(self.tolerance, COLD_TOLERANCE),
            max_products=self.max_products,
            generator=generator,
        )
        self._solves[name] = (count + 1, pairs.products)
        self._vectors[name] = pairs.vectors
        return pairs

    def _full_row(
        self, operator: HessianOperator | GaussNewtonOperator, generator: torch.Generator
    ) -> dict[str, float]:
        gradient = operator.gradient()
        kept = [(p, before) for p, before in zip(self._all, self._before, strict=True) if p.requires_grad]
        update = curvature.flatten(p.detach() - before for p, before in kept)
        trace, error = curvature.hutchinson_trace(operator, gradient, self.trace_samples, generator)
        row = {
            "eos/trace": trace,
            "eos/directional_update": curvature.directional_sharpness(operator, update),
            "eos/directional_gradient": curvature.directional_sharpness(operator, gradient),
        }
        if self.trace_samples > 1:
            row["eos/trace_error"] = error
        chunks = self._training.task.probe_batches(self.size, self.minibatch)
        losses = [(weight, functools.partial(self._batch_loss, i, batch)) for i, (weight, batch) in enumerate(chunks)]
        row["eos/batch_sharpness"] = curvature.batch_sharpness(losses, self._parameters)
        operator.products += len(losses)
        return row

    def _operator(self, batches: list[tuple[float, Batch]]) -> HessianOperator | GaussNewtonOperator:
        kind, closure = (
            (HessianOperator, self._batch_loss)
            if self.matrix == "hessian"
            else (GaussNewtonOperator, self._loss_outputs)
        )
        chunks = [(weight, functools.partial(closure, i, batch)) for i, (weight, batch) in enumerate(batches)]
        return kind(chunks, self._parameters)

    def _batch_loss(self, number: int, batch: Batch) -> Tensor:
        """The loss of one chunk: its noise, where it has any, is the same at every step."""
        training = self._training
        return training.task.loss(training.model, batch, training.streams.generator("probe", number))[0]

    def _loss_outputs(self, number: int, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of one chunk and the model's outputs that it is computed from."""
        outputs: list[Any] = []
        hook = self._training.model.register_forward_hook(lambda module, args, result: outputs.append(result))
        try:
            loss = self._batch_loss(number, batch)
        finally:
            hook.remove()
        if len(outputs) != 1 or not isinstance(outputs[0], Tensor):
            raise RuntimeError("matrix=ggn needs a loss that calls the model once and gets one tensor")
        return loss, outputs[0]

    def _loss(self) -> float:
        with as_trained(self._training.model, self._training.device), torch.no_grad():
            return float(sum(weight * self._batch_loss(i, batch) for i, (weight, batch) in enumerate(self._batches)))


def oscillation(losses: list[float]) -> float:
    """1 - |L_n - L_1| / Σ |L_{i+1} - L_i|: 0 for losses that go one way, near 1 for ones that only swing.

    0 as well where nothing changes.
    """
    path = sum(abs(b - a) for a, b in itertools.pairwise(losses))
    return 1 - abs(losses[-1] - losses[0]) / path if path > 0 else 0.0


@contextlib.contextmanager
def as_trained(model: nn.Module, device: torch.device) -> Iterator[None]:
    """The model as its curvature is measured, and everything back to what it was afterwards.

    Every module in eval mode except normalisation by batch statistics, which stays as it is and updates copies of its
    buffers; float32, eager, double-differentiable attention; torch's generators are put back.
    """
    modules = list(model.modules())
    flags = [module.training for module in modules]
    buffers = [(module, name, value) for module in modules for name, value in _own_buffers(module)]
    devices = [device] if device.type == "cuda" else []
    recurrent = any(isinstance(module, nn.RNNBase) for module in modules)
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices))
        stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        if device.type == "cuda":
            stack.enter_context(_cudnn(enabled=not recurrent))  # its LSTM has one derivative only
        try:
            for module in modules:
                module.training = module.training and hasattr(module, "track_running_stats")
            for module, name, value in buffers:
                setattr(module, name, value.clone())
            yield
        finally:
            for module, flag in zip(modules, flags, strict=True):
                module.training = flag
            for module, name, value in buffers:
                setattr(module, name, value)


def _cudnn(enabled: bool) -> contextlib.AbstractContextManager[None]:
    """cuDNN as it is, except that its convolutions are in float32: torch lets them round to TF32's 10 bits."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(enabled, cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False)


def _own_buffers(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return module.named_buffers(recurse=False, remove_duplicate=False)


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
