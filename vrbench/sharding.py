"""Sharded training, FSDP2: every process holds a share of each parameter and of the optimizer's state of it.

A block of the model is gathered whole while it computes and freed after; gradients come back as shares, averaged. In
checkpoints everything is whole, so that a run may go on with any number of processes, sharded or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


def shard(model: nn.Module) -> None:
    """Share out the model's parameters in place: block by block, then what lies outside of blocks.

    A model must be called as a module (`model(x)`) to find its parameters gathered.
    """
    for block in _blocks(model):
        fully_shard(block)
    fully_shard(model)


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The members of the model's outermost lists and sequences that have parameters."""
    for child in model.children():
        if isinstance(child, (nn.ModuleList, nn.Sequential)):
            yield from (block for block in child if any(True for _ in block.parameters()))
        else:
            yield from _blocks(child)


def whole(value: Any) -> Any:
    """The same state with every shared tensor gathered; all processes have to call this together."""
    if isinstance(value, DTensor):
        return value.full_tensor()
    if isinstance(value, Mapping):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(whole(item) for item in value)
    return value


def spread(state: Mapping[str, Any], model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """A state that `whole` gathered, shared out again as the model and its optimizer are."""
    now = model.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    slots = state["optimizer"]["state"]
    shared = {
        index: {name: _like(value, parameters[index]) for name, value in slot.items()} for index, slot in slots.items()
    }
    weights = {
        part: {key: _like(value, now[key]) for key, value in state[part].items()} for part in ("model", "best_weights")
    }
    return {**state, **weights, "optimizer": {**state["optimizer"], "state": shared}}


def _like(value: Any, shared: Tensor) -> Any:
    if not isinstance(shared, DTensor) or not isinstance(value, Tensor) or value.shape != shared.shape:
        return value
    return distribute_tensor(value.to(shared.device), shared.device_mesh, shared.placements)
