"""What the properties of all kinds share: how one says that it does not hold, and that a part cannot be tried here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vrbench.extras import chain, missing

Property = Callable[[Any], None]
"""A function of one part that returns where the part has the property, and raises where it has not."""

_OFFLINE = ("ConnectionError", "LocalEntryNotFoundError", "OfflineModeIsEnabled")
"""Names of the errors by which the Hugging Face libraries say that data are not on this disk and cannot be fetched."""


class Broken(AssertionError):
    """A part has not a property that its contract promises; the message is one sentence."""


class Absent(Exception):
    """A part cannot be tried on this machine: data of a hub, or an optional library, are not here."""


def require(holds: object, message: str) -> None:
    """Raises Broken with the message unless the condition holds."""
    if not holds:
        raise Broken(message)


def absence(error: BaseException) -> str | None:
    """What is absent, where that is why a part could not be built; None for any other error.

    Absent is what a hub's library could not fetch (no network, or it is told to stay offline), and a library of an
    extra that is not installed. The error itself counts, and those that it was raised from.
    """
    if reason := missing(error):
        return reason
    for one in chain(error):
        if type(one).__name__ in _OFFLINE:
            return f"not on this machine: {str(one).strip().splitlines()[0]}"
    return None


def check_arguments(target: Callable[..., Any], settings: Mapping[str, Any], given: Sequence[str]) -> None:
    """Raises Broken where a YAML leaves an argument of its target unsaid, or states one that it does not take.

    `settings` are the keys of the YAML, without those of Hydra; `given` are the arguments that vrbench hands over.
    """
    signature = inspect.signature(target).parameters
    named = {name for name, one in signature.items() if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)}
    missing = sorted(named - set(given) - settings.keys())
    require(not missing, f"the YAML does not state {', '.join(missing)}: every argument is to be seen there")
    takes_more = any(one.kind == one.VAR_KEYWORD for one in signature.values())
    wrong = sorted(settings.keys() - named)
    require(takes_more or not wrong, f"the YAML states {', '.join(wrong)}, which {target.__qualname__} does not take")


def same(a: Any, b: Any) -> bool:
    """Whether two nested structures of tensors and plain values are equal, bit for bit; NaN equals NaN."""
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        both = isinstance(a, Tensor) and isinstance(b, Tensor)
        return both and a.dtype == b.dtype and a.shape == b.shape and _same_bits(a.detach(), b.detach())
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        pairs = isinstance(b, (list, tuple)) and len(a) == len(b)
        return pairs and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b) or (a != a and b != b)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    if a.is_floating_point():
        return bool(torch.equal(a.nan_to_num(), b.nan_to_num()) and torch.equal(a.isnan(), b.isnan()))
    return torch.equal(a, b)
