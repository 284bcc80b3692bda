"""Parts that break their contract, each in one way: what the kit has to find."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Generator, Tensor, nn
from vrbench.tasks.image_classification import ImageClassification

from vrbench.data.tokenization import Char, CharEncoder, Encoded
from vrbench.loggers.console import Console
from vrbench.models.mlp import MLP
from vrbench.probes.optim import OptimProbe

# ---- optimizers -----------------------------------------------------------------------------------------------------


class OneRate(torch.optim.SGD):
    """Moves every group by the first one's rate."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, lr=lr)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter -= self.param_groups[0]["lr"] * parameter.grad
        return loss


class Forgetful(OneRate):
    """Counts its steps where no state_dict sees it."""

    count = 0

    def step(self, closure: Any = None) -> Any:
        self.count += 1
        for group in self.param_groups:
            group["lr"] /= self.count
        loss = super().step(closure)
        for group in self.param_groups:
            group["lr"] *= self.count
        return loss


class UndefinedOptimizer(OneRate):
    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, no_such_name)  # type: ignore[name-defined]  # noqa: F821


# ---- schedules ------------------------------------------------------------------------------------------------------


def negative(optimizer: Any, total_steps: int, warmup: float, floor: float) -> Any:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - 2 * step / total_steps)


def one_peak(optimizer: Any, total_steps: int, warmup: float, floor: float) -> Any:
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=total_steps)


def too_high(optimizer: Any, total_steps: int, warmup: float, floor: float) -> Any:
    """Rises past the peak, whatever its warm-up, and ends there."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 + step / total_steps)


class StatelessSchedule(torch.optim.lr_scheduler.LambdaLR):
    def __init__(self, optimizer: Any, total_steps: int, warmup: float, floor: float) -> None:
        super().__init__(optimizer, lambda step: 1 - step / (total_steps + 1))

    def state_dict(self) -> dict[str, Any]:
        return {}


# ---- tasks ----------------------------------------------------------------------------------------------------------


class UndefinedTask(ImageClassification):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.size = no_such_name  # type: ignore[name-defined]  # noqa: F821


class Leaking(ImageClassification):
    """Validates on what it trains on."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._images["val"], self._labels["val"] = self._images["train"], self._labels["train"]


class OwnOrder(ImageClassification):
    """Shuffles by torch's own generator."""

    def train_batches(self, order: Generator, augment: Generator, start: int = 0) -> Iterator[Any]:
        yield from super().train_batches(torch.Generator().manual_seed(torch.initial_seed()), augment, start)


class DeafToStart(ImageClassification):
    def train_batches(self, order: Generator, augment: Generator, start: int = 0) -> Iterator[Any]:
        yield from super().train_batches(order, augment, 0)


class OwnNoise(ImageClassification):
    def loss(self, model: nn.Module, batch: Any, generator: Generator) -> Any:
        loss, metrics = super().loss(model, batch, generator)
        return loss + 0.1 * torch.rand(()), metrics


class Undifferentiable(ImageClassification):
    def loss(self, model: nn.Module, batch: Any, generator: Generator) -> Any:
        loss, metrics = super().loss(model, batch, generator)
        return loss.detach(), metrics


class RandomEvaluation(ImageClassification):
    def evaluate(self, model: nn.Module, split: Any) -> dict[str, float]:
        return {key: value + float(torch.rand(())) for key, value in super().evaluate(model, split).items()}


class HeavyProbeSet(ImageClassification):
    def probe_batches(self, size: int, microbatch: int) -> Any:
        return [(1.0, batch) for _, batch in super().probe_batches(size, microbatch)]


# ---- models ---------------------------------------------------------------------------------------------------------


class BrokenModel(nn.Module):
    def __init__(self, input_shape: tuple[int, ...], output_dim: int) -> None:
        super().__init__()
        raise RuntimeError("no such thing")


class Unseeded(MLP):
    """Draws its weights from Python's generator."""

    def __init__(self, input_shape: tuple[int, ...], output_dim: int) -> None:
        super().__init__(input_shape, output_dim, [4], "tanh")
        with torch.no_grad():
            next(self.parameters()).fill_(random.random())


class IdleParameter(MLP):
    def __init__(self, input_shape: tuple[int, ...], output_dim: int) -> None:
        super().__init__(input_shape, output_dim, [4], "tanh")
        self.idle = nn.Parameter(torch.zeros(3))


class HiddenState(MLP):
    """Has a number that is not in its state."""

    def __init__(self, input_shape: tuple[int, ...], output_dim: int) -> None:
        super().__init__(input_shape, output_dim, [4], "tanh")
        self.scale = torch.rand(())

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.scale * super().forward(*inputs)


# ---- probes ---------------------------------------------------------------------------------------------------------


class Meddling(OptimProbe):
    """Halves the gradients that the step is taken with."""

    def before_step(self, moment: Any) -> None:
        super().before_step(moment)
        for parameter in self._parameters:
            parameter.grad = parameter.grad / 2  # type: ignore[operator]


class Counting(OptimProbe):
    """Counts steps and does not keep the count."""

    count = 0

    def after_step(self, moment: Any) -> dict[str, float]:
        self.count += 1
        return super().after_step(moment) | ({"mine/count": float(self.count)} if moment.logged else {})


class Unprefixed(OptimProbe):
    def after_step(self, moment: Any) -> dict[str, float]:
        return {key.removeprefix("optim/"): value for key, value in super().after_step(moment).items()}


# ---- loggers --------------------------------------------------------------------------------------------------------


class FailsOnRows(Console):
    def log(self, row: Any) -> None:
        raise OSError("disk full")


class FailsOnDivergence(Console):
    def finish(self, summary: Any) -> None:
        float(summary["metrics"]["val/loss"])


class ChangesRows(Console):
    def log(self, row: Any) -> None:
        row.pop("step")


# ---- tokenizers -----------------------------------------------------------------------------------------------------


class Changing(Char):
    """Another key each time."""

    def __init__(self) -> None:
        self.key = f"mine/{random.random()}"


class Endless(Char):
    """No separator at the end of a document."""

    key = "endless"

    def fit(self, documents: Sequence[str]) -> CharEncoder:
        return _Endless(super().fit(documents).ids)


class _Endless(CharEncoder):
    def encode(self, document: str) -> Encoded:
        ids, text_bytes = super().encode(document)
        return Encoded(ids[:-1], text_bytes)


class Outside(Char):
    """Ids as large as the vocabulary."""

    key = "outside"

    def fit(self, documents: Sequence[str]) -> CharEncoder:
        encoder = super().fit(documents)
        encoder.vocab_size -= 1
        return encoder
