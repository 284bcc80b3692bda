"""Splits: disjoint, complete, the same every time."""

from __future__ import annotations

import pytest
import torch

from vrbench.data.splits import Sizes, shuffled, split_off


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


THERE = {"train": 4000, "val": 1000, "test": 2000}


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        (Sizes(None, None, None), THERE),
        (Sizes(3000, None, None), THERE | {"train": 3000, "val": 750}),
        (Sizes(300, None, None), THERE | {"train": 300, "val": 500}),
        (Sizes(300, "all", None), THERE | {"train": 300}),
        (Sizes(300, 20, 7), {"train": 300, "val": 20, "test": 7}),
        (Sizes(None, "all", 7), THERE | {"test": 7}),
        (Sizes(4000, 1000, 2000), THERE),
    ],
)
def test_how_many_of_each_split_are_kept(sizes, kept):
    assert sizes.kept(THERE) == kept


def test_sizes_refuse():
    for given in ((0, None, None), (1.5, None, None), (None, -1, None), (None, "ALL", None), (None, None, "all")):
        with pytest.raises(ValueError, match=r"^(train|val|test)_size=\S+: give a number of examples"):
            Sizes(*given)
    with pytest.raises(ValueError, match=r"^test_size=2001: only 2000 letters are there; use null for all of them"):
        Sizes(None, None, 2001).kept(THERE, 1, "letters")
