"""What one of several processes of a test does: trains small models as its arguments say, and writes down what it has.

`both(folder, …)` starts two of them, which do all jobs one after another, and returns what each has found.
"""

from __future__ import annotations

import contextlib
import copy
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from same_numbers import numbers
from torch import Generator, Tensor, nn
from toy import ListWriter, ToyTask, settings

from vrbench.contracts import WHOLE, Share
from vrbench.probes.optim import OptimProbe
from vrbench.randomness import Streams
from vrbench.training.distributed import Processes
from vrbench.training.trainer import Stopped, Trainer

ROOT = Path(__file__).parents[1]


def start(size: int, command: list[str], **environment: str) -> list[subprocess.Popen[str]]:
    """The command in `size` processes that find each other as torchrun's do, with nobody to look after them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
    shared |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "OMP_NUM_THREADS": "1", **environment}
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]


def both(folder: Path, resumed: str, sharded: str) -> list[dict[str, Any]]:
    """What each of two processes finds: see `main`."""
    started = start(2, [__file__, str(folder), resumed, sharded])
    said = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


# ---- what is trained ------------------------------------------------------------------------------------------------


class InParts(ToyTask):
    """Calls the layers of its model one by one, the last of them twice."""

    def loss(self, model: Any, batch: tuple[Tensor, Tensor], generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        hidden = batch[0]
        for layer in list(model)[:-1]:
            hidden = layer(hidden)
        loss = ((model[-1](hidden) + model[-1](hidden.tanh())) / 2 - batch[1]).square().mean()
        return loss, {"rmse": loss.detach().sqrt()}


class Weighted(ToyTask):
    """Its loss is a mean over the examples whose first feature is above -0.5: not as many in each share."""

    def loss(self, model: Any, batch: tuple[Tensor, Tensor], generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        counted = (batch[0][:, :1] > -0.5).float()
        loss = ((model(batch[0]) - batch[1]).square() * counted).sum() / counted.sum().clamp(min=1)
        return loss, {"mse": loss.detach()}

    def weight(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (batch[0][:, 0] > -0.5).sum()


class Reading(ToyTask):
    """Makes the rows of its share alone, and notes which."""

    def train_batches(
        self, order: Generator, augment: Generator, start: int = 0, share: Share = WHOLE
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for index in torch.randperm(24, generator=order).split(4)[start:]:
            rows = share.of(index)
            self.seen.append(rows.tolist())
            yield self.x[rows] + 0.01 * share.of(torch.randn(4, 3, generator=augment)), self.y[rows]


class Uneven(ToyTask):
    """The last layer is left out of the loss from the third step on."""

    def loss(self, model: Any, batch: tuple[Tensor, Tensor], generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls = getattr(self, "calls", 0) + 1
        hidden = model[:-1](batch[0])
        output = model[-1](hidden) if self.calls < 4 else hidden.mean(1, keepdim=True)
        return (output - batch[1]).square().mean(), {}


class Varying(ToyTask):
    """Calls its model once in the first process and twice in the second."""

    rank = 0

    def loss(self, model: Any, batch: tuple[Tensor, Tensor], generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        for _ in range(self.rank):
            model(batch[0])
        return super().loss(model, batch, generator)


class Partial(nn.Sequential):
    """A model with a layer that no loss reaches."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.unused = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        for name, layer in self.named_children():
            x = x if name == "unused" else layer(x)
        return x


def configured(name: str, **changes: Any) -> Callable[[Any], torch.optim.Optimizer]:
    """Make the optimizer of conf/optimizer/<name>.yaml."""
    config = OmegaConf.load(ROOT / "conf" / "optimizer" / f"{name}.yaml")
    return lambda params: instantiate(config, **changes)(params)


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "in_parts": {"task": InParts},
    "weighted": {"task": Weighted},
    "reading": {"task": Reading},
    "accumulated": {"accumulate": 3, "max_steps": 6},
    "summed": {"zero_grad": False, "lr": 0.002},
    "clipped": {"clip_norm": 0.1},
    "averaged": {"ema_decay": 0.7},
    "partial": {"model": Partial},
    "sam": {"optimizer": "sam"},
    "vradam": {"optimizer": "vradam"},
    "muon": {"optimizer": "muon"},
    "schedulefree": {"optimizer": "schedulefree_adamw"},
    "momentumless": {"optimizer": "sgd", "momentum": 0.0, "nesterov": False},
    "norm": {"norm": True, "optimizer": "vradam", "lr": 0.05},
    "bfloat16": {"precision": "bfloat16"},
}
"""What is trained: settings of the trainer, and `task`, `model`, `optimizer` and its settings."""
OPTIMIZER_KEYS = ("momentum", "nesterov", "lr")


def trainer(processes: Processes, kind: str, sharded: bool = False) -> Trainer:
    """A trainer of this kind, in one of the processes."""
    changes = {**KINDS[kind]}
    task = changes.pop("task", ToyTask)()
    streams = Streams(0)
    streams.reseed_global("init")
    normal = [nn.BatchNorm1d(6)] if changes.pop("norm", False) else []
    model = changes.pop("model", nn.Sequential)(nn.Linear(3, 6), *normal, nn.Tanh(), nn.Linear(6, 1))
    if sharded:
        _, batch = task.probe_batches(2, 2)[0]
        processes.shard(model, lambda: task.loss(model, batch, torch.Generator()))
    own = {key: changes.pop(key) for key in OPTIMIZER_KEYS if key in changes}
    optimizer = configured(changes.pop("optimizer", "sgd"), **own)(model.parameters())
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.5, total_iters=18)
    plain = settings(eval_every=7, parallel="fsdp" if sharded else "ddp", **changes)
    return Trainer(plain, task, model, optimizer, schedule, {"optim": OptimProbe()}, streams, processes)


def trained(subject: Trainer, state: dict[str, Any] | None = None, stop_at: int | None = None) -> dict[str, Any]:
    """Rows, pictures of the weights, and the last state of a run, whole."""
    writer = ListWriter(copy.deepcopy(state) if subject.processes.writes else None)
    with contextlib.suppress(Stopped):
        subject.fit(writer, lambda: subject.step == stop_at)  # type: ignore[arg-type]
    if subject.processes.sharded:
        weights: dict[str, Any] = {
            key: value.full_tensor() if hasattr(value, "full_tensor") else value
            for key, value in subject.model.state_dict().items()
        }
    else:
        weights = subject.model.state_dict()
    return {
        "rows": numbers(writer.rows)["rows"],
        "weights": {key: value.clone() for key, value in weights.items()},
        "best_weights": subject.best_weights,
        "gradients": [parameter.grad is not None for parameter in subject.model.parameters()],
        "metrics": writer.summary.get("metrics"),
        "state": writer.states[-1] if writer.states else None,
        "seen": subject.task.seen,  # type: ignore[attr-defined]
    }


# ---- jobs -----------------------------------------------------------------------------------------------------------


def kinds(processes: Processes, names: Iterable[str]) -> dict[str, Any]:
    """A run of each kind, to its end."""
    return {name: trained(trainer(processes, name)) for name in names}


def doubled(processes: Processes) -> dict[str, Any]:
    """The same in double precision, where no kind of CPU rounds as much as is looked for."""
    torch.set_default_dtype(torch.float64)
    try:
        return kinds(processes, KINDS)
    finally:
        torch.set_default_dtype(torch.float32)


def broken(processes: Processes, names: Iterable[str]) -> dict[str, Any]:
    """A run of each kind that is broken off at step 7, and another that goes on from there."""
    found = {}
    for name in names:
        first = trained(trainer(processes, name), stop_at=7)
        found[name] = {"first": first, "rest": trained(trainer(processes, name), first["state"])}
    return found


def sharded(processes: Processes, names: Iterable[str], left: dict[str, Any]) -> dict[str, Any]:
    """Sharded runs: unbroken, broken off at step 7, resumed from that, and from the state that one process left."""
    found = {}
    for name in names:
        first = trained(trainer(processes, name, sharded=True), stop_at=7)
        found[name] = {
            "whole": trained(trainer(processes, name, sharded=True)),
            "first": first,
            "rest": trained(trainer(processes, name, sharded=True), first["state"]),
            "of_one": trained(trainer(processes, name, sharded=True), left[name]),
        }
    return found


def uneven(processes: Processes) -> str:
    """What a run says whose batches do not all reach the same parameters."""
    subject = trainer(processes, "plain")
    subject.task = subject._loss.task = Uneven()
    with pytest.raises(ValueError, match="model") as said:
        subject.fit(ListWriter())  # type: ignore[arg-type]
    return f"{subject.step}: {said.value}"


def unshareable(processes: Processes) -> dict[str, str]:
    """What is said of tasks that do not call a sharded model as a whole, and equally often in all processes."""
    with pytest.raises(ValueError, match="parallel=fsdp") as in_parts:
        trainer(processes, "in_parts", sharded=True)
    subject = trainer(processes, "plain", sharded=True)
    subject.task = subject._loss.task = Varying()
    subject.task.rank = processes.rank
    with pytest.raises(ValueError, match="task") as varying:
        subject.fit(ListWriter())  # type: ignore[arg-type]
    return {"in_parts": str(in_parts.value), "varying": str(varying.value)}


def main() -> None:
    """One of the processes: does every job, and writes down what each has found."""
    folder, resumed, to_shard = sys.argv[1:]
    torch.set_num_threads(1)
    processes = Processes.join()
    sharing = Processes(processes.rank, processes.size)
    found = {
        "kinds": kinds(processes, KINDS),
        "double": doubled(processes),
        "broken": broken(processes, resumed.split(",")),
        "uneven": uneven(processes),
        "sharded": sharded(sharing, to_shard.split(","), torch.load(f"{folder}/left.pt", weights_only=False)),
        "unshareable": unshareable(sharing),
    }
    torch.save(found, f"{folder}/{processes.rank}.pt")


if __name__ == "__main__":
    main()
