"""Splits: disjoint, complete, the same every time."""

from __future__ import annotations

import pytest
import torch

from vrbench.data.splits import shuffled, split_off


def test_a_split_is_disjoint_complete_and_the_same_every_time():
    parts = split_off(shuffled(101, 7), {"test": 0.2, "val": 0.1})
    again = split_off(shuffled(101, 7), {"test": 0.2, "val": 0.1})
    assert {split: len(part) for split, part in parts.items()} == {"test": 20, "val": 10, "train": 71}
    assert torch.cat(list(parts.values())).sort().values.tolist() == list(range(101))
    assert all(torch.equal(parts[split], again[split]) for split in parts)
    assert not torch.equal(shuffled(101, 7), shuffled(101, 8))


def test_a_split_without_examples_is_refused():
    with pytest.raises(ValueError, match=r"val_fraction=0.01: leaves no val example of 10"):
        split_off(shuffled(10, 0), {"val": 0.01})
    with pytest.raises(ValueError, match="leaves no train example"):
        split_off(shuffled(10, 0), {"test": 0.5, "val": 0.5})
