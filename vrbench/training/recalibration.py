"""Batch-norm statistics for averaged weights, taken from training batches.

A batch-norm layer keeps running statistics of its inputs, made by the weights that were trained. The weights that are
measured may be others: an average of them (`trainer.ema_decay`; Izmailov et al., arXiv 1803.05407, section 3.2), or the
`eval()` weights of a schedule-free optimizer (arXiv 2405.15682, section 4.3). What their layers put out has another
mean and spread, so that the old statistics belong to no model that exists.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from vrbench.contracts import Batch, Task
from vrbench.randomness import Streams

BATCHES = 50
"""Most training batches that the statistics of one evaluation are taken from; an epoch that has fewer is used whole."""
KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def has_statistics(model: nn.Module) -> bool:
    """Whether any layer of the model normalises by running statistics of batches."""
    return bool(_layers(model))


@contextlib.contextmanager
def recalibrated(
    model: nn.Module, task: Task, streams: Streams, step: int, prepare: Callable[[Batch], Batch]
) -> Iterator[None]:
    """The model, in eval mode, with the batch-norm statistics of its own weights; its old buffers after the block.

    The statistics are plain means over the first `BATCHES` training batches of an order drawn for this step, each
    brought into the model's memory format by `prepare`, in float32 and train mode (dropout is on, as it is in
    training). A layer that no batch went through in train mode (a frozen one) keeps its own. All draws come from
    streams that no other consumer has; torch's generators and the task's state are put back. Of several processes, each
    takes whole batches, and all come to the same statistics.
    """
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with left_alone(task, streams), torch.no_grad(), torch.compiler.set_stance("force_eager"):
            order = streams.generator("recalibrate", step, "cpu")
            augment = streams.generator("recalibrate/augment", step)
            noise = streams.generator("recalibrate/noise", step)
            streams.reseed_global("recalibrate/dropout", step)
            forward = _Forward(model, lambda batch: task.loss(model, prepare(batch), noise))
            batches = itertools.islice(task.train_batches(order, augment), BATCHES)
            update_bn(([batch] for batch in batches), forward.eval())
        fresh = {id(buffer) for layer in _layers(model) if layer.num_batches_tracked > 0 for buffer in layer.buffers()}
        for buffer, value in kept:
            if id(buffer) not in fresh:
                buffer.copy_(value)
        yield
    finally:
        for buffer, value in kept:
            buffer.copy_(value)


def _layers(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, KINDS) and module.running_mean is not None]


@contextlib.contextmanager
def left_alone(task: Task, streams: Streams) -> Iterator[None]:
    """Torch's generators and what the task itself keeps are after the block as they were before it."""
    state = copy.deepcopy(task.state_dict()) if hasattr(task, "state_dict") else None
    with torch.random.fork_rng([streams.device] if streams.device.type == "cuda" else []):
        yield
    if hasattr(task, "load_state_dict"):
        task.load_state_dict(state)


class _Forward(nn.Module):
    """Calls the model the way that its task does, for `update_bn`, which calls a module with each batch.

    `update_bn` takes the first member of a list or tuple for the batch, so that batches come in lists of one.
    """

    def __init__(self, model: nn.Module, forward: Callable[[Batch], object]) -> None:
        super().__init__()
        self.model = model
        self._forward = forward

    def forward(self, batch: Batch) -> None:
        self._forward(batch)
