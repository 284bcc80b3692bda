"""One run over several processes: `torchrun --nproc-per-node=N -m vrbench …`. Data parallel, the same global batch.

Each process trains on its share of every batch, and torch averages the gradients while backward runs:
DistributedDataParallel, or FSDP2 (vrbench.training.sharding). What DistributedDataParallel wraps is the task's loss on
the model, so that a task may call its model in parts and as often as it likes; evaluation, probes and checkpoints see
the bare model. Every process gets the same gradients to the last bit: parameters, optimizer state and VRAdam's gate
stay equal without being sent. Losses are means over equal shares, or weighted by `Task.weight`, so that their mean is
the loss of the whole batch. What is not the same as in one process: batch normalisation (statistics of a share), and
noise and dropout, which are drawn anew for each share.

Evaluation runs whole in every process, with the buffers of process 0, and its numbers are those of process 0, which
alone writes records, checkpoints and the console, and alone reads the checkpoint that a run goes on from.
"""

from __future__ import annotations

import atexit
import inspect
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from vrbench.contracts import Batch, Logger, RunInfo, Share, Task
from vrbench.randomness import Streams
from vrbench.runs.writer import RunIsTaken, RunWriter
from vrbench.training.recalibration import left_alone

ANSWERS_WITHIN = timedelta(seconds=10)
"""Time that the other processes are given, after an error, to show that they are there."""


class ProcessLost(Exception):
    """Another process of the run has ended."""


class Unsuited(ValueError):
    """What is trained turns out to be nothing for several processes; said once training is under way."""


class Loss(nn.Module):
    """A task's loss as a module over its model, called with a batch and a generator: what is trained.

    With several processes, `factor` is what the loss and the metrics of this process's share of a batch count for in
    their mean, given the share's own weight.
    """

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.task = task
        self.model = model
        self.factor: Callable[[Tensor], Tensor] | None = None
        self._reached: set[str] = set()

    def forward(self, batch: Batch, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss over the batch and detached scalar metrics: `Task.loss`."""
        loss, metrics = self.task.loss(self.model, batch, generator)
        if self.factor is None:
            return loss, metrics
        factor = self.factor(self.task.weight(batch))  # type: ignore[attr-defined]
        return loss * factor, {key: value * factor for key, value in metrics.items()}

    def watch(self) -> None:
        """Note from now on which parameters get a gradient."""
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(lambda _, name=name: self._reached.add(name))

    @contextmanager
    def reaching_all(self) -> Iterator[None]:
        """A forward and backward pass. Raises Unsuited where a parameter gets no gradient in it."""
        self._reached.clear()
        yield
        wanted = [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]
        if missing := [name for name in wanted if name not in self._reached]:
            raise Unsuited(
                f"model: {len(missing)} parameters, {missing[0]} the first, got no gradient from a batch and did from "
                "others: several processes can train it where each batch reaches the same parameters"
            )

    def reaches_all(self, generator: Generator) -> bool:
        """Whether two examples give every parameter a gradient; buffers and gradients stay as they are."""
        _, batch = self.task.probe_batches(2, 2)[0]
        kept = [(buffer, buffer.clone()) for buffer in self.model.buffers()]
        with torch.enable_grad(), torch.compiler.set_stance("force_eager"):
            loss, _ = self.task.loss(self.model, batch, generator)
            parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
        return all(gradient is not None for gradient in gradients)


class Processes:
    """The processes of one run, as one of them sees the others; a single process sees none, and nothing is sent."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self.share = Share(rank, size)
        self.sharded = False
        self._roll_call: Any = None

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
        processes = cls(int(os.environ["RANK"]), size)
        processes._roll_call = dist.new_group(backend="gloo", timeout=ANSWERS_WITHIN)
        return processes

    def device(self, device: torch.device) -> torch.device:
        """This process's own device, where there are several of the kind."""
        if self.size > 1 and device.type == "cuda" and device.index is None:
            return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        return device

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    # ---- what is trained --------------------------------------------------------------------------------------------

    def check(self, task: Task, streams: Streams, create_graph: bool) -> None:
        """Raises ValueError where a run cannot be trained by so many processes."""
        if self.size == 1:
            return
        if create_graph:
            raise ValueError("an optimizer that differentiates gradients cannot be trained by several processes")
        if uneven := [f"{count} {unit}" for unit, count in task.units_per_batch.items() if count % self.size]:
            raise ValueError(f"a batch of {uneven[0]} cannot be shared evenly by {self.size} processes")
        with left_alone(task, streams):
            next(self.batches(task, streams.generator("trial", 0, "cpu"), streams.generator("trial"), 0))

    def shard(self, model: nn.Module, try_out: Callable[[], object]) -> None:
        """Share out the model's parameters (vrbench.training.sharding); `try_out` calls the model as its task does.

        Raises ValueError for a single process, and where the model cannot be called as it is, shared out.
        """
        if self.size == 1:
            raise ValueError("parallel=fsdp: needs several processes (torchrun --nproc-per-node=N -m vrbench …)")
        from vrbench.training.sharding import at_rest, shard

        shard(model)
        self.sharded = True
        try:
            with torch.no_grad():
                try_out()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"parallel=fsdp: needs a task that calls its model as a whole ({reason}); take parallel=ddp"
            ) from error
        at_rest(model)

    def batches(self, task: Task, order: Generator, augment: Generator, start: int) -> Iterator[Batch]:
        """This process's share of the task's training batches from `start` on.

        Raises ValueError where a batch cannot be shared out evenly.
        """
        if self.size == 1:
            return iter(task.train_batches(order, augment, start))
        if "share" in inspect.signature(task.train_batches).parameters:
            return iter(task.train_batches(order, augment, start, share=self.share))  # type: ignore[call-arg]
        return map(self.part, task.train_batches(order, augment, start))

    def part(self, batch: Batch) -> Batch:
        """This process's examples of a whole batch. Raises ValueError where it cannot be shared out evenly."""
        if isinstance(batch, Tensor):
            return self.share.of(batch)
        if isinstance(batch, Mapping):
            return {key: self.part(value) for key, value in batch.items()}
        if isinstance(batch, (tuple, list)):
            return type(batch)(self.part(value) for value in batch)
        raise ValueError(
            f"a batch of {type(batch).__name__} cannot be shared by {self.size} processes: train it in one"
        )

    def stream(self, number: int) -> int:
        """The number of a batch for its noise: each share of it draws its own."""
        return number * self.size + self.rank

    def averaging(self, loss: Loss, generator: Generator) -> nn.Module:
        """The loss, such that its backward averages gradients over the processes; all of them call this together.

        Parameters become those of process 0. A model with parameters that get no gradient is searched for them in every
        step. Sharded models average by themselves, and a single process has nothing to average.
        """
        if self.size > 1 and hasattr(loss.task, "weight"):
            loss.factor = self._factor
        if self.sharded:
            from vrbench.training.sharding import InStep

            return InStep(loss, self._announce)
        if self.size == 1:
            return loss
        searches = self.any(not loss.reaches_all(generator))[0]
        if not searches:
            loss.watch()
        return DistributedDataParallel(loss, gradient_as_bucket_view=True, find_unused_parameters=searches)

    def _factor(self, weight: Tensor) -> Tensor:
        """This process's weight over the mean of all."""
        total = weight.detach().clone()
        dist.all_reduce(total)
        return self.size * weight / total

    def _announce(self, calls: bool) -> None:
        """Tell the others whether this process is about to call its model. Raises Unsuited where they do otherwise."""
        some_call, some_do_not = self.any(calls, not calls)
        if some_call and some_do_not:
            raise Unsuited(
                "task: calls its model more often in one process than in another, which trainer.parallel=fsdp cannot "
                "follow; take trainer.parallel=ddp"
            )

    @contextmanager
    def backward(self, loss: nn.Module, last: bool) -> Iterator[None]:
        """A forward and backward pass; gradients are sent in the last one of a step, with what the others added up.

        A sharded model sends them in each, so that no process ever holds them whole.
        """
        if not isinstance(loss, DistributedDataParallel):
            yield
        elif not last:
            with loss.no_sync():
                yield
        elif loss.find_unused_parameters:
            yield
        else:
            with loss.module.reaching_all():
                yield

    # ---- what they tell each other ----------------------------------------------------------------------------------

    def mean(self, *numbers: Tensor) -> list[Tensor]:
        """The averages over the processes of scalars."""
        if self.size == 1:
            return list(numbers)
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

    def of_first(self, value: Any) -> Any:
        """The value that process 0 has, in every process: plain values, and tensors on the CPU."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box)
        return box[0]

    def share_buffers(self, model: nn.Module) -> None:
        """Give the model, in every process, the buffers that process 0 has: batch-norm statistics, say."""
        if self.size == 1:
            return
        for buffer in model.buffers():
            sent = buffer.contiguous()
            dist.broadcast(sent, 0)
            if sent is not buffer:
                buffer.copy_(sent)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raises ProcessLost where an error in the block comes of another process's end."""
        try:
            yield
        except RuntimeError as error:
            if self.size > 1 and self._is_alone():
                line = f"process {self.rank} of {self.size} ends, because another one has ended before its time"
                raise ProcessLost(line) from error
            raise

    def _is_alone(self) -> bool:
        """Whether another process has closed its connections: then asking it fails at once, and not after a wait."""
        began = time.monotonic()
        try:
            dist.barrier(self._roll_call)
        except RuntimeError:
            return time.monotonic() - began < ANSWERS_WITHIN.total_seconds()
        return False

    # ---- a run's state ----------------------------------------------------------------------------------------------

    def weights(self, model: nn.Module) -> dict[str, Any]:
        """The model's state, whole; of a sharded model in process 0 alone, on the CPU. All processes call this."""
        if not self.sharded:
            return model.state_dict()
        from vrbench.training.sharding import weights

        return weights(model)

    def optimizer_state(self, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
        """The optimizer's state, whole; of a sharded model in process 0 alone, on the CPU. All processes call this."""
        if not self.sharded:
            return optimizer.state_dict()
        from vrbench.training.sharding import optimizer_state

        return optimizer_state(model, optimizer)

    def load_weights(self, model: nn.Module, weights: Mapping[str, Any]) -> None:
        """Take back what `weights` gave, on any number of processes; all of them call this together."""
        if not self.sharded:
            model.load_state_dict(weights)
            return
        from vrbench.training.sharding import load_weights

        load_weights(model, weights)

    def load_optimizer_state(self, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
        """Take back what `optimizer_state` gave, on any number of processes; all of them call this together."""
        if not self.sharded:
            optimizer.load_state_dict(dict(state))
            return
        from vrbench.training.sharding import load_optimizer_state

        load_optimizer_state(optimizer, state)

    def resumed(self, state: dict[str, Any] | None) -> dict[str, Any] | None:
        """The state that process 0 resumes from, in every process; of a sharded model without what is shared out."""
        shared_out: dict[str, Any] = {"model": {}, "optimizer": {}, "best_weights": {}} if self.sharded else {}
        sent: dict[str, Any] | None = self.of_first(None if state is None else {**state, **shared_out})
        return state if self.writes else sent

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


class _Silent(RunWriter):
    """What the other processes hold: it reads and writes nothing."""

    def resume(self, total_steps: int) -> None:
        return None

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
