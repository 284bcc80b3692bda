"""The contract of a schedule: vrbench.contracts.Schedule."""

from __future__ import annotations

import functools
import itertools
import math
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from vrbench.checks.contract import check_arguments, require
from vrbench.checks.short_run import through_file
from vrbench.contracts import Schedule
from vrbench.training.schedules import WHOLE_RUN, make_schedule

STEPS, EPOCH = 400, 40
PEAKS = (0.1, 0.02)
LENGTHS = (1, 2, 7, 50, 400, 2000)
WARMUPS = (0.05, 0.25)
"""Shares of the run to warm up over, and of STEPS a whole number."""


@dataclass(frozen=True)
class SchedulePart:
    """A schedule as its YAML has it."""

    make: Callable[..., Any]
    """What the YAML builds: a class or function with all but the filled arguments."""
    target: Callable[..., Any]
    settings: Mapping[str, Any]


def _warmed(part: SchedulePart, warmup: float | int) -> SchedulePart:
    """The same with another warm-up."""
    return replace(part, make=functools.partial(part.make, warmup=warmup), settings={**part.settings, "warmup": warmup})


def _variants(part: SchedulePart) -> list[SchedulePart]:
    """The part as it is and, where it has the key `warmup`, with other warm-ups."""
    return [part, *(_warmed(part, share) for share in WARMUPS if "warmup" in part.settings)]


def begin(part: SchedulePart, steps: int = STEPS, epoch: int = EPOCH) -> tuple[torch.optim.Optimizer, Schedule]:
    """An optimizer with two groups at rates of their own, and the schedule of a run of this length on it."""
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": peak} for peak in PEAKS]
    optimizer = torch.optim.SGD(groups, lr=PEAKS[0])
    return optimizer, make_schedule(part.make, optimizer, steps, epoch)


def rates(optimizer: torch.optim.Optimizer, schedule: Schedule, steps: int) -> list[tuple[float, ...]]:
    """The rates of each group that so many steps are taken with."""
    found = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*lr_scheduler", category=UserWarning)
        for _ in range(steps):
            found.append(tuple(float(group["lr"]) for group in optimizer.param_groups))
            optimizer.step()
            schedule.step()
    return found


def states_every_argument(part: SchedulePart) -> None:
    """The YAML leaves no default in the dark, and states nothing that the target does not take."""
    given = ("optimizer", "last_epoch", "epochs", "steps_per_epoch", "max_lr", *WHOLE_RUN)
    check_arguments(part.target, part.settings, given)


def is_never_negative(part: SchedulePart) -> None:
    """Nor NaN or infinite, in any step of the run."""
    for step, found in enumerate(rates(*begin(part), STEPS)):
        require(all(rate >= 0 and math.isfinite(rate) for rate in found), f"step {step} is taken with rates {found}")


def fits_runs_of_any_length(part: SchedulePart) -> None:
    """Or refuses a length in one sentence that begins with an argument; one length at least has to do."""
    done = []
    for steps in LENGTHS:
        try:
            optimizer, schedule = begin(part, steps, max(1, steps // 10))
        except ValueError as error:
            named = re.match(r"\w+=\S+: ", str(error)) and "\n" not in str(error)
            require(named, f"a run of {steps} steps is refused without naming an argument: {error}")
            continue
        found = rates(optimizer, schedule, steps)
        require(all(rate >= 0 for step in found for rate in step), f"a run of {steps} steps has negative rates")
        done.append(steps)
    require(done, f"no run of {', '.join(map(str, LENGTHS))} steps can be scheduled")


def all_groups_follow(part: SchedulePart) -> None:
    """Every group goes up where the first does, and down where it does."""
    found = rates(*begin(part), STEPS)
    for step, (before, after) in enumerate(itertools.pairwise(found), 1):
        ways = {(b > a) - (b < a) for a, b in zip(before, after, strict=True)}
        require(len(ways) == 1, f"at step {step} the groups' rates go from {before} to {after}: not the same way")


def groups_keep_their_own_peak(part: SchedulePart) -> None:
    """Each group's highest rate is the same share of its own `lr`."""
    for one in _variants(part):
        found = rates(*begin(one), STEPS)
        shares = [max(rate) / peak for rate, peak in zip(zip(*found, strict=True), PEAKS, strict=True)]
        require(shares[0] > 0, "the rate is 0 in every step")
        message = f"the groups reach {shares} of their own lr: each has to keep its own"
        require(math.isclose(*shares, rel_tol=1e-3), message)


def never_exceeds_the_peak(part: SchedulePart) -> None:
    """`lr` is the highest rate of its group, so that searching it means the same whatever the schedule."""
    for one in _variants(part):
        for step, found in enumerate(rates(*begin(one), STEPS)):
            above = [rate for rate, peak in zip(found, PEAKS, strict=True) if rate > peak * (1 + 1e-9)]
            require(not above, f"step {step} is taken with rates {found}, above the groups' lr {PEAKS}")


def warms_up_as_it_says(part: SchedulePart) -> None:
    """With the key `warmup`: rises over that share of the run, or so many steps, and is then at the peak.

    A share means as much in a run of any length; 0 is no warm-up. Nothing is asked of a schedule without the key.
    """
    if "warmup" not in part.settings:
        return
    for none in (0, 0.0):
        first = rates(*begin(_warmed(part, none)), 1)[0]
        require(_close(first, PEAKS), f"warmup={none}: the first step is taken with {first}, not the lr {PEAKS}")
    for share, run in itertools.product(WARMUPS, (STEPS, 2 * STEPS)):
        steps = round(share * run)
        found = rates(*begin(_warmed(part, share), run), run)
        up = all(
            after > before for one in zip(*found[: steps + 1], strict=True) for before, after in itertools.pairwise(one)
        )
        require(up, f"warmup={share}: does not rise with each of the first {steps} of {run} steps")
        require(_close(found[steps], PEAKS), f"warmup={share}: step {steps} of {run} is taken with {found[steps]}")
        same = rates(*begin(_warmed(part, steps), run), run)
        require(same == found, f"warmup={steps}: is not warmup={share} in a run of {run} steps")


def ends_at_its_floor(part: SchedulePart) -> None:
    """With the key `floor`: never rises after the peak, and when the last step is over each rate is floor · lr."""
    if "floor" not in part.settings:
        return
    for one in _variants(part):
        optimizer, schedule = begin(one)
        found = rates(optimizer, schedule, STEPS)
        end = tuple(float(group["lr"]) for group in optimizer.param_groups)
        asked = tuple(float(part.settings["floor"]) * peak for peak in PEAKS)
        require(_close(end, asked), f"ends with rates {end}, and the floor is {asked}")
        down = [rate[0] for rate in [*found, end]][max(range(STEPS), key=lambda step: found[step][0]) :]
        require(all(a >= b for a, b in itertools.pairwise(down)), "rises again after its peak")


def _close(rates: tuple[float, ...], asked: tuple[float, ...]) -> bool:
    return all(math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) for a, b in zip(rates, asked, strict=True))


def resumes_exactly(part: SchedulePart) -> None:
    """The state goes through a file that is read with weights_only=True; the rates go on as if unbroken."""
    for one, cut in itertools.product(_variants(part), (1, EPOCH, STEPS // 2 + 3)):
        optimizer, schedule = begin(one)
        rates(optimizer, schedule, cut)
        states = through_file([optimizer.state_dict(), schedule.state_dict()])
        rest = rates(optimizer, schedule, STEPS - cut)
        other, again = begin(one)
        other.load_state_dict(states[0])
        again.load_state_dict(states[1])
        require(rates(other, again, STEPS - cut) == rest, f"resumed after {cut} steps its rates are others")


def is_the_same_every_time(part: SchedulePart) -> None:
    """Two of one configuration give the same rates."""
    require(rates(*begin(part), STEPS) == rates(*begin(part), STEPS), "two schedules of one YAML have other rates")


PROPERTIES = (
    states_every_argument,
    is_never_negative,
    fits_runs_of_any_length,
    all_groups_follow,
    groups_keep_their_own_peak,
    never_exceeds_the_peak,
    warms_up_as_it_says,
    ends_at_its_floor,
    resumes_exactly,
    is_the_same_every_time,
)
