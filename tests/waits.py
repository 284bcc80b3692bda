"""What makes a program wait for its accelerator, found on a machine that has none.

Whatever a program reads of a device's numbers it has to wait for: a value, a size that depends on values, a copy back.
So does a copy to the device, unless it says `non_blocking=True`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ROOT = Path(__file__).parents[1]
OURS = tuple(f"{ROOT / folder}/" for folder in ("optimizers", "tasks", "vrbench"))

READS = {
    "_local_scalar_dense", "equal", "nonzero", "argwhere", "masked_select", "bincount", "_unique", "_unique2",
    "unique_dim", "unique_consecutive", "unique_dim_consecutive", "repeat_interleave", "_linalg_check_errors",
    "_linalg_eigh", "_linalg_svd", "linalg_eig", "linalg_lstsq",
}  # fmt: skip
"""Operations whose result, its size or its error the host has to see: linear algebra looks whether it converged."""
INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
"""Operations that first count what a mask lets through, where an index is one."""
TO_HOST = {Tensor.cpu, Tensor.numpy, Tensor.tolist, Tensor.__array__}
"""Methods that a tensor of the CPU answers by itself, without an operation."""
MADE_OF_NUMBERS = {torch.tensor, torch.as_tensor, torch.asarray}
"""Functions that put numbers of the host on a device."""


class Waits(TorchDispatchMode):
    """Notes in `found` what waits for the device inside the block: `"nonzero in tasks/gridworld.py:flow_errors"`.

    On the device are tensors of any device but the CPU (fake ones, where there is no other), and of those on the CPU
    the ones that stand for such: those given as `device`, those that were given a `torch.device` by `to` or when they
    were made inside a block of this object, and all that is computed with one. `host` are tensors that live on the host
    by design, whatever they were given. With `strict` a wait raises AssertionError where it happens.
    """

    def __init__(self, device: Iterable[Tensor] = (), host: Iterable[Tensor] = (), *, strict: bool = False) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.quiet = False
        self._strict = strict
        self._there: dict[int, StorageWeakRef] = {}
        self._host = {_key(tensor) for tensor in host}
        self._stacks: list[ExitStack] = []
        for tensor in device:
            self.put(tensor)

    def __enter__(self) -> Any:
        self._stacks.append(ExitStack())
        self._stacks[-1].enter_context(_Calls(self))
        self._stacks[-1].enter_context(
            mock.patch("vrbench.optimizers.gate._compiled", return_value=None)
        )  # for the CPU alone
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stacks.pop().close()

    def put(self, tensor: Tensor) -> None:
        """From now on the tensor, with all that shares its memory, stands for one on the device."""
        if _key(tensor) not in self._there:
            self._there[_key(tensor)] = StorageWeakRef(tensor.untyped_storage())

    def holds(self, tensor: Tensor) -> bool:
        """Whether the tensor is on the device, or stands for one that is."""
        if tensor.device.type != "cpu":
            return True
        return _key(tensor) in self._there and _key(tensor) not in self._host

    def note(self, what: str) -> None:
        """Something waits."""
        if not self.quiet:
            self.found.add(f"{what} in {_place()}")
            assert not self._strict, f"{what} waits for the device"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_device = any(map(self.holds, given))
        if on_device and name in READS and kwargs.get("output_size") is None:
            self.note(name)
        if name in INDEXED and any(_is_mask(index) and self.holds(index) for index in args[1]):
            self.note(f"{name} by a mask")
        if name == "_to_copy" and kwargs.get("device") is not None:
            self._copied(args[0].device, torch.device(kwargs["device"]), kwargs.get("non_blocking"))
        if name == "copy_":
            self._copied(args[1].device, args[0].device, kwargs.get("non_blocking") or args[2:])
        result = func(*args, **kwargs)
        if on_device:
            written = [given for given, of in zip(args, func._schema.arguments, strict=False) if _is_written(of)]
            for leaf in tree_leaves((result, written)):
                if isinstance(leaf, Tensor) and leaf.device.type == "cpu":
                    self.put(leaf)
        return result

    def _copied(self, source: torch.device, target: torch.device, non_blocking: object) -> None:
        if source.type != "cpu" and target.type == "cpu":
            self.note("copy to the host")
        if source.type == "cpu" and target.type != "cpu" and not non_blocking:
            self.note("blocking copy to the device")


class _Calls(TorchFunctionMode):
    """What of this a tensor of the CPU does without an operation."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, waits = kwargs or {}, self._waits
        if func in TO_HOST and args[0].device.type == "cpu" and waits.holds(args[0]):
            waits.note(func.__name__)
        quiet = waits.quiet
        waits.quiet = quiet or func is functional.one_hot  # it looks at its input on the CPU alone
        try:
            result = func(*args, **kwargs)
        finally:
            waits.quiet = quiet
        device = next((given for given in (*args, *kwargs.values()) if isinstance(given, torch.device)), None)
        if device is None or device.type != "cpu" or not isinstance(result, Tensor) or waits.holds(result):
            return result
        if func is Tensor.to:
            if not kwargs.get("non_blocking"):
                waits.note("blocking copy to the device")
            result = result.clone() if result is args[0] else result  # what stays on the host must not move with it
        if func in MADE_OF_NUMBERS and not isinstance(args[0], Tensor):
            waits.note("blocking copy to the device")
        waits.put(result)
        return result


def _key(tensor: Tensor) -> int:
    while torch._C._functorch.is_batchedtensor(tensor):  # inside torch.vmap
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.untyped_storage()._cdata


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def _place() -> str:
    """The innermost function of ours on the stack."""
    frame = sys._getframe(2)
    while frame is not None and not frame.f_code.co_filename.startswith(OURS):
        frame = frame.f_back  # type: ignore[assignment]
    if frame is None:
        return "a library"
    return f"{Path(frame.f_code.co_filename).relative_to(ROOT)}:{frame.f_code.co_name}"
