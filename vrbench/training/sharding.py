"""Sharded training, FSDP2: every process holds a share of each parameter and of the optimizer's state of it.

A block of the model is gathered whole while it computes and freed after; gradients come back as shares, averaged. In
checkpoints everything is whole and as a single process has it, so that a run may go on with any number of processes,
sharded or not. Process 0 alone holds what is whole, on the CPU, gathered and shared out tensor by tensor.

torch.distributed.checkpoint.state_dict does this for the model, and gathers the optimizer's state. Its
`set_optimizer_state_dict` does not fit (docs/scaling.md says where it fails), so that `distribute_tensor` shares the
optimizer's state out here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
)
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from vrbench.contracts import Batch


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


def at_rest(model: nn.Module) -> None:
    """Free what a forward pass without a backward pass has left gathered: parameters are shared out again."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


class InStep(nn.Module):
    """A loss on a sharded model, whose processes have to call it equally often, or their messages are mixed up.

    `announce` is told before each call of the model (True) and after the last (False), in all processes together.
    """

    def __init__(self, loss: nn.Module, announce: Callable[[bool], None]) -> None:
        super().__init__()
        self.loss: Any = loss
        self.announce = announce

    def forward(self, batch: Batch, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """What the loss returns."""
        before_each_call = self.loss.model.register_forward_pre_hook(lambda *_: self.announce(True), prepend=True)
        try:
            result: tuple[Tensor, dict[str, Tensor]] = self.loss(batch, generator)
        finally:
            before_each_call.remove()
        self.announce(False)
        return result


def weights(model: nn.Module) -> dict[str, Any]:
    """The model's whole state on the CPU in process 0, `{}` in the others; all processes call this together."""
    at_rest(model)
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def load_weights(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Share out what `weights` gave; all processes call this together."""
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, dict(state), options=options)


def optimizer_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """The whole `optimizer.state_dict()` on the CPU in process 0, `{}` in the others; all processes call this together.

    Parameters are numbered, as one process numbers them, and not named.
    """
    at_rest(model)
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    named: dict[str, Any] = get_optimizer_state_dict(model, optimizer, options=options)
    if not named:
        return {}
    numbers = {name: number for number, name in enumerate(_names(model, optimizer))}
    groups = [{**group, "params": [numbers[name] for name in group["params"]]} for group in named["param_groups"]]
    return {"state": {numbers[name]: own for name, own in named["state"].items()}, "param_groups": groups}


def _names(model: nn.Module, optimizer: Optimizer) -> list[str]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [names[parameter] for parameter in _parameters(optimizer)]


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def load_optimizer_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Share out the whole state that process 0 holds (what the others give does not matter); all call this together.

    A tensor of its parameter's shape is shared out as the parameter is; whatever else is the same in every process.
    """
    parameters = _parameters(optimizer)
    shared = {
        number: {name: _outline(value, parameters[number]) for name, value in own.items()}
        for number, own in state.get("state", {}).items()
    }
    box: list[Any] = [{**state, "state": shared}]
    dist.broadcast_object_list(box)
    whole = state.get("state", {})
    for number, own in box[0]["state"].items():
        for name, value in own.items():
            if isinstance(value, _Outline):
                own[name] = value.share_out(whole[number][name] if whole else None, parameters[number])
    optimizer.load_state_dict(box[0])


def _outline(value: Any, parameter: Tensor) -> Any:
    if isinstance(value, Tensor) and isinstance(parameter, DTensor) and value.shape == parameter.shape:
        return _Outline(value.dtype)
    return value


@dataclass(frozen=True)
class _Outline:
    """What the other processes are told of a tensor that is shared out as its parameter is."""

    dtype: torch.dtype

    def share_out(self, value: Tensor | None, parameter: Any) -> DTensor:
        """`value` is looked at in process 0 alone, which sends each process its part."""
        empty = torch.empty(parameter.shape, dtype=self.dtype, device=parameter.device)
        whole = empty if value is None else value.to(parameter.device)
        return distribute_tensor(whole, parameter.device_mesh, parameter.placements)
