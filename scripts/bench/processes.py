"""Two processes on a transformer of 21 M parameters, one thread each. Writes results/bench/processes.json.

    python scripts/bench/processes.py

Three sides train the same model on the same batches with the same optimizer, in blocks of steps that take turns in one
pair of processes:

    after backward            the trainer, with gradients averaged bucket by bucket once backward is over
    vrbench                   the trainer as it is
    DistributedDataParallel   a bare loop around torch's wrapped model

The trainer logs every tenth step, with the gradients' norms, and asks every step whether it is to stop; a bare loop
does neither. A ratio is taken within each round, of the seconds of two sides.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import timing
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from trainer import DEFAULTS, NoWriter
from vrbench.tasks.language_modeling import LanguageModeling

from vrbench.contracts import TrainerSettings
from vrbench.data.text import pydoc
from vrbench.data.tokenization import BPE
from vrbench.models.transformer_lm import TransformerLM
from vrbench.probes.optim import OptimProbe
from vrbench.randomness import Streams
from vrbench.training.distributed import Loss, Processes
from vrbench.training.trainer import Trainer

CONTEXT, VOCABULARY = 64, 4096
BUCKET = 25 * 2**20
"""Bytes of gradients in one message, after backward: as many as DistributedDataParallel has by default."""


class AfterBackward(Processes):
    """Averages gradients in buckets, one after another, when backward is over."""

    def averaging(self, loss: Loss, generator: torch.Generator) -> nn.Module:
        """The loss as it is."""
        return loss

    @contextmanager
    def backward(self, loss: nn.Module, last: bool) -> Iterator[None]:
        """A forward and backward pass, and the averages."""
        yield
        for bucket in buckets([p.grad for p in loss.parameters() if p.grad is not None]):
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            dist.all_reduce(flat)
            flat.div_(self.size)
            parts = flat.split([gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))


def buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """The gradients in order, at most BUCKET bytes at a time."""
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        bytes_ = gradient.numel() * gradient.element_size()
        if bucket and size + bytes_ > BUCKET:
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += bytes_
    if bucket:
        yield bucket


class Turns:
    """A trainer that does `block` steps of one long run with each call, and waits in between."""

    def __init__(self, trainer: Trainer, block: int) -> None:
        self._trainer, self._block = trainer, block
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        threading.Thread(target=self._run, daemon=True).start()

    def __call__(self) -> None:
        self._go.release()
        self._done.acquire()

    def _run(self) -> None:
        writer: Any = NoWriter()
        try:
            self._go.acquire()
            self._trainer.fit(writer, self._between_steps)
        finally:  # an error, or the run is over: neither is to happen
            sys.stderr.flush()
            os._exit(1)

    def _between_steps(self) -> bool:
        if self._trainer.step % self._block == 0:
            self._done.release()
            self._go.acquire()
        return False


def make_model(task: LanguageModeling) -> tuple[nn.Module, torch.optim.Optimizer]:
    """The same weights for every side, and their optimizer."""
    torch.manual_seed(0)
    model = TransformerLM(task.input_shape, task.output_dim, 6, 512, 8, 2048, 0.0, True)
    return model, torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)


def trained_by_vrbench(task: LanguageModeling, processes: Processes, block: int) -> Callable[[], None]:
    """A block of the trainer's steps."""
    model, optimizer = make_model(task)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    steps = {"max_steps": 10**9, "eval_every": 10**9}
    settings = TrainerSettings(**{**DEFAULTS, **steps})
    probes = {"optim": OptimProbe()}
    return Turns(Trainer(settings, task, model, optimizer, schedule, probes, Streams(0), processes), block)


def trained_by_loop(task: LanguageModeling, processes: Processes, block: int) -> Callable[[], None]:
    """A block of steps of a bare loop."""
    model, optimizer = make_model(task)
    model = DistributedDataParallel(model, gradient_as_bucket_view=True)
    batches = endless(task, processes)

    def run() -> None:
        for _ in range(block):
            batch = next(batches)
            optimizer.zero_grad(set_to_none=True)
            logits = model(batch[:, :-1])
            functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
            optimizer.step()

    return run


def endless(task: LanguageModeling, processes: Processes) -> Iterator[Tensor]:
    """The process's share of the training batches, epoch after epoch."""
    streams, epoch = Streams(0), 0
    while True:
        order, augment = streams.generator("order", epoch), streams.generator("augment", epoch)
        yield from task.train_batches(order, augment, share=processes.share)
        epoch += 1


def measure(processes: Processes, options: Any) -> dict[str, Any]:
    """Blocks of steps in turns, in this process and the others together."""
    task = LanguageModeling(
        name="pydoc",
        batch_size=processes.size * options.batch,
        eval_batch_size=1,
        context=CONTEXT,
        windows="random",
        stride=None,
        data=pydoc(0.1, 0.1),
        tokenizer=BPE(VOCABULARY),
    )
    others = AfterBackward(processes.rank, processes.size)
    sides = {
        "after backward": trained_by_vrbench(task, others, options.block),
        "vrbench": trained_by_vrbench(task, processes, options.block),
        "DistributedDataParallel": trained_by_loop(task, processes, options.block),
    }
    taken = timing.in_turns(sides, options.rounds, swap=True)
    tokens = options.block * processes.size * options.batch * CONTEXT
    return {
        "parameters": sum(p.numel() for p in make_model(task)[0].parameters()),
        "processes": processes.size,
        "tokens_per_step": processes.size * options.batch * CONTEXT,
        "block_steps": options.block,
        "rounds": options.rounds,
        "tokens_per_s": {name: tokens / statistics.median(seconds) for name, seconds in taken.items()},
        "vrbench over after backward": timing.ratio(taken["after backward"], taken["vrbench"]),
        "vrbench over DistributedDataParallel": timing.ratio(taken["DistributedDataParallel"], taken["vrbench"]),
    }


def report(results: dict[str, Any]) -> None:
    """Print rates, and ratios of rates with their quartiles."""
    for name, rate in results["tokens_per_s"].items():
        print(f"{name:52s} {rate:8.0f} tokens/s")
    for name, value in results.items():
        if isinstance(value, dict) and "ratio" in value:
            low, high = value["ratio_quartiles"]
            print(f"{name:52s} {value['ratio']:8.3f} (quartiles {low:.3f} and {high:.3f})")


def main() -> int:
    """Start the processes, or be one of them: measure, print, write."""
    assert __doc__ is not None
    parser = timing.parser(__doc__, "processes.json", threads=1)
    parser.add_argument("--processes", type=int, default=2, help="how many processes")
    parser.add_argument("--rounds", type=int, default=11, help="how many blocks of each side")
    parser.add_argument("--block", type=int, default=10, help="steps of a block: the trainer logs every tenth")
    parser.add_argument("--batch", type=int, default=4, help="sequences of 64 tokens of a process in a step")
    options = timing.parse(parser)
    if "RANK" in os.environ:
        processes = Processes.join()
        results = measure(processes, options)
        dist.barrier()
        if processes.writes:
            report(results)
            timing.write(options, {"results": results})
            sys.stdout.flush()
        os._exit(0)  # the trainers wait for ever
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": str(options.threads),
    }
    started = [
        subprocess.Popen(
            [sys.executable, *sys.argv],
            env={**shared, "WORLD_SIZE": str(options.processes), "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(options.processes)
    ]
    return max(process.wait() for process in started)


if __name__ == "__main__":
    sys.exit(main())
