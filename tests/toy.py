"""A task small enough to check the trainer by hand, and a writer that keeps everything in memory."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Generator, Tensor, nn

from vrbench.contracts import TrainerSettings
from vrbench.randomness import Streams
from vrbench.training.trainer import Trainer


class ToyTask:
    """Linear regression on 24 points; batches of 4; with noise on the targets where `noise` is not 0."""

    name = "toy"
    metric = "val/loss"
    direction = "min"
    input_shape = (3,)
    output_dim = 1
    batches_per_epoch = 6
    units_per_batch = {"examples": 4}  # noqa: RUF012

    def __init__(self, noise: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(24, 3, generator=generator)
        self.y = self.x @ torch.tensor([[1.0], [-2.0], [0.5]])
        self.noise = noise
        self.seen: list[list[int]] = []
        self.validations: list[float] = []

    def to(self, device: torch.device) -> None:
        pass

    def train_batches(self, order: Generator, augment: Generator, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for index in torch.randperm(24, generator=order).split(4)[start:]:
            self.seen.append(index.tolist())
            yield self.x[index] + 0.01 * torch.randn(4, 3, generator=augment), self.y[index]

    def loss(
        self, model: nn.Module, batch: tuple[Tensor, Tensor], generator: Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        x, y = batch
        noise = self.noise * torch.randn(y.shape, generator=generator)
        loss = (model(x) - y - noise).square().mean()
        return loss, {"rmse": loss.detach().sqrt()}

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        if split == "val" and self.validations:
            return {"loss": self.validations.pop(0)}
        return {"loss": float((model(self.x) - self.y).square().mean())}

    def probe_batches(self, size: int, microbatch: int) -> list[tuple[float, tuple[Tensor, Tensor]]]:
        return [(1.0, (self.x[:size], self.y[:size]))]


class ListWriter:
    """What RunWriter does, without files."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        self.state = state
        self.rows: list[dict[str, Any]] = []
        self.images: list[tuple[int, Any, bool]] = []
        self.states: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}

    def resume(self, total_steps: int) -> dict[str, Any] | None:
        return self.state

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def image(self, step: int, picture: Any, *, last: bool) -> None:
        self.images.append((step, picture, last))

    def checkpoint(self, state: dict[str, Any]) -> None:
        self.states.append(copy.deepcopy(state))

    def finish(self, summary: dict[str, Any], memory: dict[str, int]) -> None:
        self.summary = summary


def settings(**changes: Any) -> TrainerSettings:
    plain: dict[str, Any] = {
        "epochs": 3,
        "max_steps": None,
        "fraction": 1.0,
        "accumulate": 1,
        "zero_grad": True,
        "clip_norm": None,
        "precision": "float32",
        "eval_precision": None,
        "channels_last": False,
        "compile": False,
        "ema_decay": None,
        "parallel": "ddp",
        "log_every": 1,
        "eval_every": None,
        "render_every": None,
        "evaluate_test": True,
        "checkpoint_seconds": 1e9,
        "device": "cpu",
        "threads": None,
    }
    return TrainerSettings(**{**plain, **changes})


def trainer(
    task: ToyTask | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
    lr: float = 0.05,
    probes: dict[str, Any] | None = None,
    seed: int = 0,
    dropout: float = 0.0,
    norm: bool = False,
    **changes: Any,
) -> Trainer:
    streams = Streams(seed)
    streams.reseed_global("init")
    model = nn.Sequential(nn.Linear(3, 1), nn.Dropout(dropout))
    if norm:
        model = nn.Sequential(nn.Linear(3, 5), nn.Dropout(dropout), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1))
    optim = optimizer(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.ConstantLR(optim, factor=1.0)
    return Trainer(settings(**changes), task or ToyTask(), model, optim, schedule, probes or {}, streams)


def fit(subject: Trainer, state: dict[str, Any] | None = None) -> ListWriter:
    writer = ListWriter(state)
    subject.fit(writer)  # type: ignore[arg-type]
    return writer


class Diverging(ToyTask):
    """Its loss is not a number at one step, and finite again after it; its accuracy always looks well."""

    metric, direction = "val/accuracy", "max"

    def __init__(self, bad_step: int) -> None:
        super().__init__()
        self.bad_step = bad_step
        self.asked: list[tuple[str, int]] = []

    def loss(self, model: nn.Module, batch: Any, generator: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss, metrics = super().loss(model, batch, generator)
        return (loss * math.nan if len(self.seen) == self.bad_step else loss), metrics

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        self.asked.append((split, len(self.seen)))
        return {**super().evaluate(model, split), "accuracy": 0.1 * len(self.asked)}

    def render(self, model: nn.Module) -> torch.Tensor:
        self.asked.append(("picture", len(self.seen)))
        return torch.zeros(1, 1, 3, dtype=torch.uint8)
