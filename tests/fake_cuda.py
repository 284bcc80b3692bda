"""CUDA tensors that have a device and a shape but no numbers, on a machine without CUDA: torch's own fake tensors.

An operation that mixes devices raises, and so does one whose result has a size that depends on numbers. What torch
cannot do without a driver is stood in for: generators, the fused AdamW kernel, and backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda", 0)


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Within the block `device="cuda"` makes fake tensors, and what a real tensor is moved to is one.

    A number that is read is 0.5, a whole one 1, on whichever device: who must not read any is found by waits.Waits.
    Backward gives the parameters that a loss depends on gradients of their own shapes.
    """
    with (
        pytest.MonkeyPatch.context() as patch,
        FakeTensorMode(allow_non_fake_inputs=True),
        _StandIns(),
    ):
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(torch.cuda, "default_generators", (_Generator(CUDA),))
        patch.setattr(Tensor, "backward", _backward)
        yield


def moved(model: nn.Module) -> nn.Module:
    """The model with fake CUDA tensors for its parameters and buffers (`Module.to` cannot put fake ones in place)."""
    new: dict[Tensor, Any] = {}  # tied weights stay one
    for module in model.modules():
        for name, parameter in [*module.named_parameters(recurse=False, remove_duplicate=False)]:
            if parameter not in new:
                new[parameter] = nn.Parameter(parameter.detach().to(CUDA), parameter.requires_grad)
            setattr(module, name, new[parameter])
        for name, buffer in [*module.named_buffers(recurse=False, remove_duplicate=False)]:
            setattr(module, name, buffer.to(CUDA))
    return model


class _Generator(torch.Generator):
    """A generator that says it is on another device; fake numbers need no draws."""

    _device: torch.device

    def __new__(cls, device: torch.device | str = "cpu") -> _Generator:
        made = super().__new__(cls, "cpu")
        made._device = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        return self._device


class _StandIns(TorchDispatchMode):
    """Answers what would need CUDA's driver, or a number."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name == "aten::_fused_adamw_":
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            assert {tensor.device.type for tensor in tensors} == {"cuda"}, "the kernel takes tensors of one device"
            rate = kwargs["lr"]
            assert not isinstance(rate, Tensor) or rate.dtype == torch.float32, "CUDA's kernel reads a float32 rate"
            return None
        if func._schema.name == "aten::_local_scalar_dense":
            return 0.5 if args[0].is_floating_point() else 1
        return func(*args, **(kwargs or {}))


def _backward(loss: Tensor, *args: Any, **kwargs: Any) -> None:
    """A gradient for every parameter that the graph of the loss ends in."""
    nodes, seen = [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            node.variable.grad = torch.zeros_like(node.variable)
        nodes += [following for following, _ in node.next_functions]
