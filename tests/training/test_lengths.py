"""Optimizers that are told how long the run is."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from vrbench.training.lengths import lengths, make_optimizer


class Told(torch.optim.SGD):
    def __init__(self, params: Any, lr: float, total_steps: int | None = None, *, steps_per_epoch: int = 7) -> None:
        super().__init__(params, lr)
        self.told = (total_steps, steps_per_epoch)


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ({}, (60, 20)),
        ({"total_steps": None}, (60, 20)),
        ({"total_steps": 5}, (5, 20)),
        ({"steps_per_epoch": 3}, (60, 3)),
    ],
)
def test_what_is_left_out_or_null_is_filled_in(given: dict[str, Any], want: tuple[int, int]) -> None:
    optimizer: Any = make_optimizer(partial(Told, lr=0.1, **given), [torch.ones(1)], 60, 20)
    assert optimizer.told == want


def test_others_are_told_nothing() -> None:
    assert lengths(partial(torch.optim.AdamW, lr=0.1)) == []
    assert isinstance(make_optimizer(partial(torch.optim.AdamW, lr=0.1), [torch.ones(1)], 60, 20), torch.optim.AdamW)


def test_ademamix_warms_up_over_the_run() -> None:
    from each_optimizer import build

    optimizer = build("ademamix", [torch.ones(1, requires_grad=True)])
    assert optimizer.param_groups[0]["t_alpha_beta3"] == 400
    optimizer = build("ademamix", [torch.ones(1, requires_grad=True)], t_alpha_beta3=9)
    assert optimizer.param_groups[0]["t_alpha_beta3"] == 9
