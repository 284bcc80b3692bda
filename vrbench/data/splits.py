"""Deterministic train/validation/test splits: a pure function of the number of examples and a seed of their own.

The seed of a split is not the seed of a run: every run of a study, whatever its seed, trains and validates on the same
examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

ALL: Literal["all"] = "all"
Size = int | Literal["all"] | None
FLOOR = 500
"""Validation examples that a small `train_size` leaves at least: an accuracy of so many has a standard error of at most
2.3 points."""


@dataclass(frozen=True)
class Sizes:
    """How many examples of each split are kept: `train_size`, `val_size` and `test_size` of a task's data.

    None keeps all. Where `train_size` is given, a `val_size` of None keeps the same share of validation as of training,
    and `all` the whole. The test split is read once a run, and is cut for whoever asks alone. Raises ValueError for
    other values.
    """

    train: int | None
    val: Size
    test: int | None

    def __post_init__(self) -> None:
        check_size("train_size", self.train)
        if self.val != ALL:
            check_size("val_size", self.val, f", or {ALL} for every one")
        check_size("test_size", self.test)

    def kept(self, there: Mapping[str, int], floor: int = FLOOR, unit: str = "examples") -> dict[str, int]:
        """How many of those that are there each split keeps.

        Validation that follows `train_size` keeps `floor` or more, or all there are. Raises ValueError where more are
        asked for than are there.
        """
        wanted: dict[str, Size] = {"train": self.train, "val": self.val, "test": self.test}
        for split, size in wanted.items():
            if isinstance(size, int) and size > there[split]:
                remedy = "use null for all of them" if split != "val" else f"use {ALL} for all of them"
                raise ValueError(f"{split}_size={size}: only {there[split]} {unit} are there; {remedy}")
        if self.train is not None and self.val is None:
            share = round(there["val"] * self.train / there["train"])
            wanted["val"] = min(max(share, floor), there["val"])
        return {split: size if isinstance(size, int) else there[split] for split, size in wanted.items()}


def check_fraction(name: str, value: float) -> None:
    """Refuse (ValueError) a share of the examples that is not strictly between 0 and 1."""
    if not isinstance(value, (int, float)) or not 0 < value < 1:
        raise ValueError(f"{name}={value}: give a share of the examples between 0 and 1, such as 0.2")


def check_size(name: str, value: Size, other: str = " for all") -> None:
    """Refuse (ValueError) a number of examples that is neither null nor at least 1; `other` ends the sentence."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"{name}={value}: give a number of examples of at least 1, or null{other}")


def check_seed(name: str, value: int) -> None:
    """Refuse (ValueError) what torch does not take as a seed."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"{name}={value}: give a whole number from 0 to 2^63 - 1")


def shuffled(count: int, seed: int) -> Tensor:
    """The numbers 0 … count-1 in an order that only `seed` decides; int64, shape (count,)."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


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
