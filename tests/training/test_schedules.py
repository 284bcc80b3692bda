"""Schedules from YAML: torch's classes and ours, their rates worked by hand, what is filled in, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as torchs

from vrbench.training import schedules as ours
from vrbench.training.schedules import make_schedule, steps_of, warmup_cosine

STEPS, EPOCH = 40, 8


def two_groups() -> torch.optim.SGD:
    return torch.optim.SGD([{"params": [torch.zeros(1)], "lr": 0.1}, {"params": [torch.zeros(1)], "lr": 0.01}])


def rates(schedule: Any, optimizer: torch.optim.Optimizer, steps: int = STEPS) -> list[tuple[float, ...]]:
    found = []
    for _ in range(steps):
        found.append(tuple(group["lr"] for group in optimizer.param_groups))
        optimizer.step()
        schedule.step()
    return found


CASES: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (torchs.CosineAnnealingLR, {"T_max": STEPS}),
    (torchs.PolynomialLR, {"total_iters": STEPS}),
    (partial(torchs.LinearLR, end_factor=0.1), {"total_iters": STEPS}),
    (partial(torchs.OneCycleLR, max_lr=None, total_steps=None), {"max_lr": [0.1, 0.01], "total_steps": STEPS}),
    (partial(torchs.OneCycleLR, pct_start=0.5), {"max_lr": [0.1, 0.01], "total_steps": STEPS}),
    (partial(torchs.OneCycleLR, max_lr=1.0, epochs=5), {"steps_per_epoch": EPOCH}),
    (partial(torchs.CyclicLR, base_lr=0.0), {"max_lr": [0.1, 0.01]}),
    (partial(torchs.StepLR, step_size=3), {}),
    (partial(torchs.CosineAnnealingLR, T_max=10), {}),
    (partial(torchs.CosineAnnealingWarmRestarts, T_0=7), {}),
]


@pytest.mark.parametrize(("make", "filled"), CASES)
def test_lengths_and_peaks_are_filled_in_where_the_config_leaves_them_out(make: Any, filled: dict[str, Any]) -> None:
    """`filled` is all that the class is given beside the config's own arguments: the rates are those of both."""
    mine, theirs = two_groups(), two_groups()
    schedule = make_schedule(make, mine, STEPS, EPOCH)
    assert rates(schedule, mine) == rates(make(theirs, **filled), theirs)


def test_a_function_gets_what_it_names() -> None:
    def mine(optimizer: torch.optim.Optimizer, steps_per_epoch: int, gamma: float) -> torchs.LRScheduler:
        assert (steps_per_epoch, gamma) == (EPOCH, 0.5)
        return torchs.StepLR(optimizer, steps_per_epoch, gamma)

    optimizer = two_groups()
    found = rates(make_schedule(partial(mine, gamma=0.5), optimizer, STEPS, EPOCH), optimizer)
    assert [found[step][0] for step in (0, 7, 8, 16)] == [0.1, 0.1, 0.05, 0.025]


class NoSchedule:
    def __init__(self, optimizer: torch.optim.Optimizer) -> None: ...


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (torchs.ReduceLROnPlateau, "^_target_=torch.optim.lr_scheduler.ReduceLROnPlateau: wants a metric at each step"),
        (NoSchedule, r"^_target_=\S+NoSchedule: is no schedule"),
    ],
)
def test_what_is_no_schedule_for_this_run_is_refused(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make_schedule(make, two_groups(), STEPS, EPOCH)


ROOT2, ROOT3 = math.sqrt(2), math.sqrt(3)
WORKED: dict[str, tuple[Callable[..., Any], int, list[float]]] = {
    # the run's steps, and the share of the peak at each of them and after the last
    "constant": (partial(ours.constant, warmup=0), 3, [1, 1, 1, 1]),
    "warmup": (partial(ours.constant, warmup=3), 5, [1 / 4, 2 / 4, 3 / 4, 1, 1, 1]),
    "cosine": (
        partial(ours.cosine, warmup=1, floor=0.2),  # 0.2 + 0.4 (1 + cos πp), p = 0, 1/4, 1/2, 3/4, 1
        5,
        [1 / 2, 1, 0.6 + 0.2 * ROOT2, 0.6, 0.6 - 0.2 * ROOT2, 0.2],
    ),
    "linear": (partial(ours.linear, warmup=2, floor=0.0), 6, [1 / 3, 2 / 3, 1, 3 / 4, 2 / 4, 1 / 4, 0]),
    "linear to a floor": (partial(ours.linear, warmup=0, floor=0.5), 4, [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8]),
    "wsd": (
        partial(ours.wsd, warmup=1, decay=0.5, shape="1-sqrt", floor=0.0),  # 1 - √(k/4)
        8,
        [1 / 2, 1, 1, 1, 1, 1 / 2, 1 - ROOT2 / 2, 1 - ROOT3 / 2, 0],
    ),
    "wsd linear": (partial(ours.wsd, decay=2, shape="linear", floor=0.2), 4, [1, 1, 1, 0.6, 0.2]),
    "wsd without decay": (partial(ours.wsd, decay=0, shape="linear"), 2, [1, 1, 0]),
    "inverse_sqrt": (
        partial(ours.inverse_sqrt, warmup=1, timescale=2),  # √(2 / (2 + k))
        8,
        [1 / 2, 1, ROOT2 / ROOT3, 1 / ROOT2, math.sqrt(2 / 5), 1 / ROOT3, math.sqrt(2 / 7), 1 / 2, math.sqrt(2 / 9)],
    ),
    "step": (partial(ours.step, warmup=1, at=[0.5, 6], factor=0.1), 8, [0.5, 1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01]),
    "onecycle": (
        partial(ours.onecycle, warmup=0.5, start=0.2, floor=0.0, shape="cosine"),  # up: 0.6 - 0.4 cos(πk/4)
        8,
        [0.2, 0.6 - 0.2 * ROOT2, 0.6, 0.6 + 0.2 * ROOT2, 1, (2 + ROOT2) / 4, 0.5, (2 - ROOT2) / 4, 0],
    ),
    "onecycle linear": (
        partial(ours.onecycle, warmup=2, start=0.2, floor=0.1, shape="linear"), 5, [0.2, 0.6, 1, 0.7, 0.4, 0.1]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WORKED)
def test_a_rule_worked_by_hand(name: str) -> None:
    make, steps, shares = WORKED[name]
    optimizer = two_groups()
    found = rates(make_schedule(make, optimizer, steps, 1), optimizer, steps + 1)
    for peak, of_group in zip((0.1, 0.01), zip(*found, strict=True), strict=True):
        assert of_group == pytest.approx([share * peak for share in shares], rel=1e-14, abs=1e-17)


def test_cosine_without_warmup_is_torchs() -> None:
    mine, theirs = two_groups(), two_groups()
    found = rates(ours.cosine(mine, STEPS), mine, STEPS + 1)
    wanted = rates(torchs.CosineAnnealingLR(theirs, STEPS), theirs, STEPS + 1)
    for a, b in zip(found, wanted, strict=True):
        assert a == pytest.approx(b, rel=1e-12, abs=1e-16)


def test_one_cycle_is_torchs_of_one_step_more() -> None:
    mine, theirs = two_groups(), two_groups()
    found = rates(ours.onecycle(mine, STEPS, warmup=0.3, start=0.04, floor=4e-6, shape="cosine"), mine)
    torch_ = torchs.OneCycleLR(theirs, [0.1, 0.01], STEPS + 1, pct_start=13 / (STEPS + 1), cycle_momentum=False)
    for a, b in zip(found, rates(torch_, theirs), strict=True):
        assert a == pytest.approx(b, rel=1e-12)


def test_inverse_sqrt_with_the_timescale_of_its_warmup_is_the_transformers() -> None:
    """Section 5.3 of arXiv 1706.03762: rate ∝ min(n^-1/2, n · w^-3/2) at step n, counted from 1."""
    optimizer, warm = two_groups(), 9
    found = rates(ours.inverse_sqrt(optimizer, STEPS, warmup=warm, timescale=warm + 1), optimizer)
    paper = [min(n**-0.5, n * (warm + 1) ** -1.5) for n in range(1, STEPS + 1)]
    assert [rate[0] / 0.1 for rate in found] == pytest.approx([rate / paper[warm] for rate in paper], rel=1e-12)


@pytest.mark.parametrize(
    ("length", "steps"), [(0, 0), (0.0, 0), (0.05, 2), (0.06, 2), (0.07, 3), (1, 1), (40, 40), (300, 300), (0.99, 40)]
)
def test_a_length_is_a_share_or_steps(length: float, steps: int) -> None:
    assert steps_of("warmup", length, 40) == steps


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (partial(ours.constant, warmup=40), "^warmup=40: takes 40 steps and the run has 40; give a share of the run"),
        (partial(ours.cosine, warmup=0.999), "^warmup=0.999: takes 40 steps"),
        (partial(ours.linear, warmup=1.0), "^warmup=1.0: must be a share of the run, a float in "),
        (partial(ours.linear, warmup=-1), "^warmup=-1: must be a share"),
        (partial(ours.linear, warmup=True), "^warmup=True: must be a share"),
        (partial(ours.linear, warmup=None), "^warmup=None: must be a share"),
        (partial(ours.linear, floor=1.5), r"^floor=1.5: must be a share of the peak, in \[0, 1\]"),
        (partial(ours.cosine, floor=-0.1), "^floor=-0.1: "),
        (partial(ours.wsd, decay=30, shape="linear", warmup=11), "^decay=30: takes 30 steps after a warm-up of 11"),
        (partial(ours.wsd, decay=0.2, shape="sqrt"), "^shape=sqrt: must be one of 1-sqrt, linear, cosine"),
        (partial(ours.inverse_sqrt, timescale=-2), "^timescale=-2: "),
        (partial(ours.step, at=[0.1, 0.5], factor=0.1, warmup=5), r"^at=\[0.1, 0.5\]: has a place in the warm-up"),
        (partial(ours.step, at=[0.5], factor=10), "^factor=10: must be a share"),
        (partial(ours.onecycle, warmup=0.3, start=2, floor=0, shape="linear"), "^start=2: "),
    ],
)
def test_a_rule_that_cannot_be_is_refused(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make_schedule(make, two_groups(), STEPS, EPOCH)


def test_warmup_cosine_is_table_6() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.0846)
    schedule = warmup_cosine(optimizer, 1000, 10, warmup_epochs=5, warmup_factor=0.1, min_lr=1e-5)
    rates = []
    for _ in range(1000):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.00846)
    assert rates[25] == pytest.approx(0.0846 * 0.55)
    assert rates[50] == pytest.approx(0.0846)
    half = 1e-5 + (0.0846 - 1e-5) / 2
    assert rates[525] == pytest.approx(half)
    assert rates[-1] == pytest.approx(1e-5, abs=1e-6)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"warmup_epochs": 100}, "warmup_epochs=100: .* 1000 steps .* schedule=cosine schedule.warmup=0.05"),
        ({"warmup_epochs": -1}, "warmup_epochs=-1: "),
        ({"warmup_factor": 0.0}, "warmup_factor=0.0: "),
    ],
)
def test_a_warmup_that_cannot_be_is_refused(changes: dict[str, float], says: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ValueError, match=says):
        warmup_cosine(optimizer, 1000, 10, **{"warmup_epochs": 5, "warmup_factor": 0.1, "min_lr": 0.0, **changes})
