"""Deterministic train/validation/test splits: a pure function of the number of examples and a seed of their own.

The seed of a split is not the seed of a run: every run of a study, whatever its seed, trains and validates on the same
examples.
"""

from __future__ import annotations

import torch
from torch import Tensor


def check_fraction(name: str, value: float) -> None:
    """Refuse (ValueError) a share of the examples that is not strictly between 0 and 1."""
    if not isinstance(value, (int, float)) or not 0 < value < 1:
        raise ValueError(f"{name}={value}: give a share of the examples between 0 and 1, such as 0.2")


def check_size(name: str, value: int | None) -> None:
    """Refuse (ValueError) a number of examples that is neither null nor at least 1."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"{name}={value}: give a number of examples of at least 1, or null for all")


def check_seed(name: str, value: int) -> None:
    """Refuse (ValueError) what torch does not take as a seed."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"{name}={value}: give a whole number from 0 to 2^63 - 1")


def shuffled(count: int, seed: int) -> Tensor:
    """The numbers 0 … count-1 in an order that only `seed` decides; int64, shape (count,)."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def cut(name: str, indices: Tensor, size: int | None) -> Tensor:
    """The first `size` of the indices; ValueError where there are fewer."""
    if size is None:
        return indices
    if size > len(indices):
        raise ValueError(f"{name}={size}: only {len(indices)} examples are there; use null for all of them")
    return indices[:size]


def split_off(indices: Tensor, fractions: dict[str, float]) -> dict[str, Tensor]:
    """Cut shares off the front of `indices`, in the order of `fractions`; what is left is called `train`.

    `fractions` maps a split's name to its share of `indices`, rounded to whole examples. Raises ValueError where a
    split (train included) would be empty.
    """
    parts: dict[str, Tensor] = {}
    start = 0
    for split, fraction in fractions.items():
        stop = start + round(len(indices) * fraction)
        parts[split] = indices[start:stop]
        start = stop
    parts["train"] = indices[start:]
    for split, part in parts.items():
        if len(part) == 0:
            shares = ", ".join(f"{name}_fraction={share}" for name, share in fractions.items())
            raise ValueError(f"{shares}: leaves no {split} example of {len(indices)}; choose other shares")
    return parts
