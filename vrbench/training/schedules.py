"""Learning-rate schedules, stepped once per optimizer step: ours and torch.optim.lr_scheduler's (docs/schedules.md).

A config names a class of torch.optim.lr_scheduler or a function `make(optimizer, total_steps, steps_per_epoch, …)`.
Of these arguments, those that it takes and that the config leaves out or gives as null are filled in:

- `total_steps`, `T_max` and `total_iters`: the optimizer steps of the whole run (`total_steps` not beside `epochs`);
- `steps_per_epoch`: the optimizer steps of an epoch;
- `max_lr`: each parameter group's own `lr`.

Ours share these rules. Step t counts from 0, T is `total_steps`, and a rate is stated as its share of the peak, which
is each parameter group's own `lr`. A length is a share of the run (a float in [0, 1), to the nearest step) or steps (an
int). A warm-up of w steps takes step t < w with (t+1)/(w+1) of the peak and step w with the peak itself. What decays
does so over p = (t-w)/(T-w), and has come to its `floor`, a share of the peak, when the last step is over.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from vrbench.contracts import Schedule

Length = float | int
"""A share of the run, a float in [0, 1); or a number of steps, an int."""

WHOLE_RUN = ("total_steps", "T_max", "total_iters")


def make_schedule(make: Callable[..., Any], optimizer: Optimizer, total_steps: int, steps_per_epoch: int) -> Schedule:
    """What `make` (a class, a function or a partial of one) gives for this optimizer and a run of this length.

    Raises ValueError for an argument that `make` does not take, for a schedule that wants a metric at each step, and
    for what is no schedule.
    """
    target, stated = _unwrapped(make)
    takes = inspect.signature(target).parameters
    if not any(argument.kind == argument.VAR_KEYWORD for argument in takes.values()):
        for name in stated.keys() - takes.keys():
            raise ValueError(
                f"{name}={stated[name]}: {target.__qualname__} takes no such argument; leave it out: '~schedule.{name}'"
            )
    known: dict[str, Any] = dict.fromkeys(WHOLE_RUN, total_steps)
    known |= {"steps_per_epoch": steps_per_epoch, "max_lr": [group["lr"] for group in optimizer.param_groups]}
    given = {name for name, value in stated.items() if value is not None}
    if "epochs" in given:
        del known["total_steps"]
    schedule = make(optimizer, **{name: known[name] for name in known if name in takes and name not in given})
    name = f"_target_={type(schedule).__module__}.{type(schedule).__qualname__}"
    if not all(hasattr(schedule, method) for method in ("step", "state_dict", "load_state_dict")):
        raise ValueError(f"{name}: is no schedule: it needs step, state_dict and load_state_dict")
    if any(argument.default is argument.empty for argument in inspect.signature(schedule.step).parameters.values()):
        raise ValueError(f"{name}: wants a metric at each step; choose a schedule that goes by steps alone")
    return schedule


def _unwrapped(make: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A class or function, and the arguments that partials of it state."""
    stated: dict[str, Any] = {}
    while isinstance(make, functools.partial):
        stated = {**make.keywords, **stated}
        make = make.func
    return make, stated


# ---- what ours are made of ------------------------------------------------------------------------------------------


def steps_of(name: str, length: Length, total_steps: int) -> int:
    """A length in steps: a float is a share of the run, to the nearest step; an int is steps.

    Raises ValueError, beginning with the argument's `name`, for a float outside [0, 1) and a negative int.
    """
    if isinstance(length, float) and 0 <= length < 1:
        return round(length * total_steps)
    if isinstance(length, int) and not isinstance(length, bool) and length >= 0:
        return length
    raise ValueError(f"{name}={length}: must be a share of the run, a float in [0, 1), or a whole number of steps")


def warmup_steps(warmup: Length, total_steps: int) -> int:
    """A warm-up in steps. Raises ValueError for one that leaves no step of the run."""
    steps = steps_of("warmup", warmup, total_steps)
    if steps >= total_steps:
        raise ValueError(
            f"warmup={warmup}: takes {steps} steps and the run has {total_steps}; "
            "give a share of the run, warmup=0.05, or fewer steps"
        )
    return steps


def after_warmup(optimizer: Optimizer, warm: int, share: Callable[[int], float]) -> LRScheduler:
    """Linear warm-up over `warm` steps (arXiv 1706.02677), then `share(t)` of each group's own `lr` at step t."""
    from torch.optim.lr_scheduler import LambdaLR

    return LambdaLR(optimizer, lambda now: (now + 1) / (warm + 1) if now < warm else share(now))


def progress(step: int, begin: int, end: int) -> float:
    """How far the step is from `begin` (0) to `end` (1); 1 past the end."""
    return min(1.0, (step - begin) / (end - begin)) if end > begin else 1.0


def half_cosine(done: float, start: float, end: float) -> float:
    """From `start` to `end` along half a cosine: `end + (start - end) · (1 + cos(π · done)) / 2`."""
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def straight(done: float, start: float, end: float) -> float:
    """From `start` to `end` along a line."""
    return start + (end - start) * done


def one_minus_sqrt(done: float, start: float, end: float) -> float:
    """From `start` to `end`, fast first: `start + (end - start) · √done` (arXiv 2405.18392, section 4)."""
    return start + (end - start) * math.sqrt(done)


Shape = Callable[[float, float, float], float]
DECAYS: dict[str, Shape] = {"1-sqrt": one_minus_sqrt, "linear": straight, "cosine": half_cosine}
"""Ways from one share of the peak to another."""


def shape_of(shape: str) -> Shape:
    """The way of this name. Raises ValueError where there is none."""
    if shape not in DECAYS:
        raise ValueError(f"shape={shape}: must be one of {', '.join(DECAYS)}")
    return DECAYS[shape]


def check_share(name: str, value: float) -> None:
    """Raises ValueError for what is no share of the peak."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value}: must be a share of the peak, in [0, 1]")


# ---- the schedules --------------------------------------------------------------------------------------------------


def constant(optimizer: Optimizer, total_steps: int, *, warmup: Length = 0) -> LRScheduler:
    """The configured `lr`, after a warm-up if there is one. Raises ValueError for a length that cannot be."""
    return after_warmup(optimizer, warmup_steps(warmup, total_steps), lambda now: 1.0)


def cosine(optimizer: Optimizer, total_steps: int, *, warmup: Length = 0, floor: float = 0.0) -> LRScheduler:
    """Half a cosine from the peak down to `floor`: `floor + (1 - floor) · (1 + cos(πp)) / 2`.

    Source: arXiv 1608.03983, equation 5, without restarts. Without a warm-up it is torch's CosineAnnealingLR with
    T_max = T and eta_min = floor · lr. Raises ValueError for a length or a floor that cannot be.
    """
    warm = warmup_steps(warmup, total_steps)
    check_share("floor", floor)
    return after_warmup(optimizer, warm, lambda now: half_cosine(progress(now, warm, total_steps), 1.0, floor))


def linear(optimizer: Optimizer, total_steps: int, *, warmup: Length = 0, floor: float = 0.0) -> LRScheduler:
    """A line from the peak down to `floor`: `1 - (1 - floor) · p`.

    Source: arXiv 2502.15938 (to zero, for language models). Raises ValueError for a length or a floor that cannot be.
    """
    warm = warmup_steps(warmup, total_steps)
    check_share("floor", floor)
    return after_warmup(optimizer, warm, lambda now: straight(progress(now, warm, total_steps), 1.0, floor))


def wsd(
    optimizer: Optimizer, total_steps: int, *, decay: Length, shape: str, warmup: Length = 0, floor: float = 0.0
) -> LRScheduler:
    """Warm-up, stable, decay (a trapezoid): the peak, then down to `floor` over the last `decay` of the run.

    With q from 0 to 1 over the decay the rate is `1 - (1 - floor) · √q` for shape 1-sqrt, `1 - (1 - floor) · q` for
    linear, half a cosine for cosine. Source: arXiv 2404.06395 (WSD), 2405.18392 (1-sqrt). Raises ValueError for
    lengths, a shape or a floor that cannot be.
    """
    warm, down = warmup_steps(warmup, total_steps), shape_of(shape)
    check_share("floor", floor)
    begin = total_steps - steps_of("decay", decay, total_steps)
    if begin < warm:
        raise ValueError(
            f"decay={decay}: takes {total_steps - begin} steps after a warm-up of {warm}, and the run has {total_steps}"
        )
    return after_warmup(
        optimizer, warm, lambda now: down(progress(now, begin, total_steps), 1.0, floor) if now >= begin else 1.0
    )


def inverse_sqrt(optimizer: Optimizer, total_steps: int, *, timescale: Length, warmup: Length = 0) -> LRScheduler:
    """Down with the root of the steps: `√(s / (s + t - w))`, s the steps of `timescale`, one at least.

    Source: arXiv 1706.03762, section 5.3, whose timescale is the warm-up. There is no floor: s, 3s and 15s steps after
    the warm-up the rate is 1/√2, 1/2 and 1/4 of the peak. Raises ValueError for lengths that cannot be.
    """
    warm, scale = warmup_steps(warmup, total_steps), max(1, steps_of("timescale", timescale, total_steps))
    return after_warmup(optimizer, warm, lambda now: math.sqrt(scale / (scale + now - warm)))


def step(
    optimizer: Optimizer, total_steps: int, *, at: Sequence[Length], factor: float, warmup: Length = 0
) -> LRScheduler:
    """The peak times `factor` at each of the places `at`, counted from the begin of the run; the first step has none.

    Source: arXiv 1512.03385, section 4.2: a tenth at 32,000 and at 48,000 of 64,000 steps. Raises ValueError for a
    factor that is no share, and for a place in the warm-up.
    """
    warm = warmup_steps(warmup, total_steps)
    check_share("factor", factor)
    places = [max(1, steps_of("at", place, total_steps)) for place in at]
    if any(place < warm for place in places):
        raise ValueError(f"at={list(at)}: has a place in the warm-up, which takes {warm} of {total_steps} steps")
    return after_warmup(optimizer, warm, lambda now: factor ** sum(now >= place for place in places))


def onecycle(
    optimizer: Optimizer, total_steps: int, *, warmup: Length, start: float, floor: float, shape: str
) -> LRScheduler:
    """One cycle: from `start` up to the peak over `warmup`, and down to `floor` over the rest.

    Both ways have one shape, as in `wsd`. Source: arXiv 1708.07120. With shape cosine it is torch's OneCycleLR with
    div_factor = 1 / start and final_div_factor = start / floor for a run of T + 1 steps; momentum stays as it is.
    Raises ValueError for a length, a shape or a share that cannot be.
    """
    from torch.optim.lr_scheduler import LambdaLR

    warm, way = warmup_steps(warmup, total_steps), shape_of(shape)
    check_share("start", start)
    check_share("floor", floor)

    def share(now: int) -> float:
        if now < warm:
            return way(progress(now, 0, warm), start, 1.0)
        return way(progress(now, warm, total_steps), 1.0, floor)

    return LambdaLR(optimizer, share)


def warmup_cosine(
    optimizer: Optimizer,
    total_steps: int,
    steps_per_epoch: int,
    *,
    warmup_epochs: float,
    warmup_factor: float,
    min_lr: float,
) -> LRScheduler:
    """Linear warm-up from `warmup_factor · lr` over `warmup_epochs`, then half a cosine down to `min_lr`.

    Source: Table 6 of arXiv 2505.13196 (5 epochs from factor 0.1, cosine to 1e-5), there stepped by the epoch.
    Raises ValueError where the warm-up leaves no step to decay in.
    """
    from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

    if warmup_epochs < 0:
        raise ValueError(f"warmup_epochs={warmup_epochs}: must be 0 or more")
    if not 0 < warmup_factor <= 1:
        raise ValueError(f"warmup_factor={warmup_factor}: must be in (0, 1]")
    warmup = round(warmup_epochs * steps_per_epoch)
    if warmup >= total_steps:
        raise ValueError(
            f"warmup_epochs={warmup_epochs}: the warm-up takes {warmup} steps and the run has {total_steps}; take "
            "schedule=cosine schedule.warmup=0.05, which warms up over a share of the run, or train longer"
        )
    down = CosineAnnealingLR(optimizer, T_max=total_steps - warmup, eta_min=min_lr)
    if warmup == 0:
        return down
    up = LinearLR(optimizer, start_factor=warmup_factor, total_iters=warmup)
    return SequentialLR(optimizer, [up, down], milestones=[warmup])
