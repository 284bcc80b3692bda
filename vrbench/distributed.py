"""One run over several processes: `torchrun --nproc-per-node=N -m vrbench …`. Data parallel, the same global batch.

Every process makes the whole batch, which costs little (the data lie in memory), and trains on its share of the
examples; gradients are then averaged over the processes, in buckets. Unlike DistributedDataParallel this wraps no
module, so that a task may call its model as it likes, and any optimizer sees the same gradients in every process:
parameters, optimizer state and VRAdam's gate stay equal without being sent. Losses are means over equal shares, so that
their mean is the loss of the whole batch. What is not the same as in one process: batch normalisation (statistics of a
share), and noise and dropout, which are drawn anew for each share.

Evaluation runs whole in every process; process 0 alone writes records, checkpoints and the console.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vrbench import checkpoint
from vrbench.contracts import Batch, Logger, RunInfo
from vrbench.writer import RunIsTaken, RunWriter

BUCKET = 25 * 2**20
"""Bytes of gradients that are averaged in one message."""


class Processes:
    """The processes of one run, as one of them sees the others; a single process sees none, and nothing is sent."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self.sharded = False

    @classmethod
    def join(cls, device: torch.device | None = None) -> Processes:
        """The processes that torchrun started this one among (it sets RANK and WORLD_SIZE); alone without it."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        if not dist.is_initialized():
            on_gpu = device is not None and device.type == "cuda"
            dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=timedelta(minutes=30))
            atexit.register(dist.destroy_process_group)  # or its threads may abort the process as it ends
        return cls(int(os.environ["RANK"]), size)

    def device(self, device: torch.device) -> torch.device:
        """This process's own device, where there are several of the kind."""
        if self.size > 1 and device.type == "cuda" and device.index is None:
            return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        return device

    def check(self, units_per_batch: Mapping[str, int], create_graph: bool) -> None:
        """Raises ValueError where a run cannot be trained by so many processes."""
        if uneven := [f"{count} {unit}" for unit, count in units_per_batch.items() if count % self.size]:
            raise ValueError(f"a batch of {uneven[0]} cannot be shared evenly by {self.size} processes")
        if create_graph and self.size > 1:
            raise ValueError("an optimizer that differentiates gradients cannot be trained by several processes")

    def shard(self, model: nn.Module) -> None:
        """Share out the model's parameters (vrbench.sharding). Raises ValueError for a single process."""
        if self.size == 1:
            raise ValueError("parallel=fsdp: needs several processes (torchrun --nproc-per-node=N -m vrbench …)")
        from vrbench.sharding import shard

        shard(model)
        self.sharded = True

    def whole(self, state: dict[str, Any]) -> dict[str, Any]:
        """A run's state with nothing shared out; all processes call this together."""
        if not self.sharded:
            return state
        from vrbench.sharding import whole

        gathered: dict[str, Any] = whole(state)
        return gathered

    def spread(self, state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """A whole state, shared out as the model is."""
        if not self.sharded:
            return state
        from vrbench.sharding import spread

        return spread(state, model, optimizer)

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def stream(self, number: int) -> int:
        """The number of a batch for its noise: each share of it draws its own."""
        return number * self.size + self.rank

    def share(self, batch: Batch) -> Batch:
        """This process's examples. Raises ValueError where the batch cannot be shared out evenly."""
        if self.size == 1:
            return batch
        if isinstance(batch, Tensor):
            if batch.ndim == 0 or len(batch) % self.size:
                raise ValueError(
                    f"batch_size={len(batch) if batch.ndim else 1}: cannot be shared evenly by {self.size} processes"
                )
            return batch.chunk(self.size)[self.rank]
        if isinstance(batch, Mapping):
            return {key: self.share(value) for key, value in batch.items()}
        if isinstance(batch, (tuple, list)):
            return type(batch)(self.share(value) for value in batch)
        raise ValueError(
            f"a batch of {type(batch).__name__} cannot be shared by {self.size} processes: train it in one"
        )

    def average(self, parameters: Iterable[nn.Parameter], numbers: Iterable[Tensor]) -> list[Tensor]:
        """Average the gradients in place, and return the averages of the numbers (scalars).

        Shares of gradients are averages already: backward has seen to it.
        """
        numbers = list(numbers)
        if self.size == 1:
            return numbers
        grads = [] if self.sharded else [p.grad for p in parameters if p.grad is not None]
        for bucket in _buckets(grads):
            flat = torch.cat([grad.reshape(-1) for grad in bucket])
            dist.all_reduce(flat)
            flat.div_(self.size)
            parts = flat.split([grad.numel() for grad in bucket])
            torch._foreach_copy_(bucket, [part.view_as(grad) for part, grad in zip(parts, bucket, strict=True)])
        together = torch.stack([number.detach().to(torch.float64) for number in numbers])
        dist.all_reduce(together)
        return list(together / self.size)

    def any(self, *flags: bool) -> list[bool]:
        """For each flag whether any process says so: all of them get the same answers."""
        if self.size == 1:
            return list(flags)
        said = torch.tensor([int(flag) for flag in flags])
        dist.all_reduce(said, dist.ReduceOp.MAX)
        return [bool(flag) for flag in said.tolist()]

    @contextmanager
    def writer(self, run: RunInfo, loggers: Mapping[str, Logger], **how: Any) -> Iterator[RunWriter]:
        """`RunWriter.open` in process 0 and a writer of nothing in the others.

        Raises in every process what opening raises: RunIsTaken, OSError.
        """
        with ExitStack() as stack:
            failure: Exception | None = None
            writer: RunWriter = _Silent(run, {}, {})
            if self.writes:
                try:
                    writer = stack.enter_context(RunWriter.open(run, loggers, **how))
                except (RunIsTaken, OSError) as error:
                    failure = error
            if self.any(failure is not None)[0]:
                raise failure or RunIsTaken("process 0 could not take it")
            yield writer


def _buckets(grads: list[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one type and device, in order, at most BUCKET bytes at a time."""
    bucket: list[Tensor] = []
    size = 0
    for grad in grads:
        bytes_ = grad.numel() * grad.element_size()
        if bucket and (size + bytes_ > BUCKET or grad.dtype != bucket[0].dtype or grad.device != bucket[0].device):
            yield bucket
            bucket, size = [], 0
        bucket.append(grad)
        size += bytes_
    if bucket:
        yield bucket


class _Silent(RunWriter):
    """What the other processes hold: reads the checkpoint that process 0 reads, writes nothing."""

    def resume(self, total_steps: int) -> dict[str, Any] | None:
        state, _ = checkpoint.load(self.run.directory / "checkpoint", self.check)
        if state is not None:
            state.pop("metrics")
        return state

    def log(self, row: Mapping[str, Any]) -> None:
        pass

    def image(self, step: int, picture: Tensor, *, last: bool) -> None:
        pass

    def checkpoint(self, state: dict[str, Any]) -> None:
        pass

    def finish(self, summary: Mapping[str, Any], device: Mapping[str, Any]) -> None:
        pass

    def prune(self) -> None:
        pass
