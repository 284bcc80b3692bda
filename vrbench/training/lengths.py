"""Optimizers that know how long the run is: of their arguments, what the run alone can say is filled in.

A config names a class or a function `make(params, …)`. Of these arguments, those that it takes and that the config
leaves out or gives as null are filled in, as they are for schedules:

- `total_steps` and `t_alpha_beta3` (AdEMAMix): the optimizer steps of the whole run;
- `steps_per_epoch`: the optimizer steps of an epoch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.optim import Optimizer

WHOLE_RUN = ("total_steps", "t_alpha_beta3")
EPOCH = ("steps_per_epoch",)


def make_optimizer(make: Callable[..., Optimizer], params: Any, total_steps: int, steps_per_epoch: int) -> Optimizer:
    """What `make` (a class, a function or a partial of one) gives for these parameters and a run of this length."""
    known = dict.fromkeys(WHOLE_RUN, total_steps) | dict.fromkeys(EPOCH, steps_per_epoch)
    given = {name for name, value in getattr(make, "keywords", {}).items() if value is not None}
    return make(params, **{name: known[name] for name in lengths(make) if name not in given})


def lengths(make: Callable[..., Any]) -> list[str]:
    """The arguments of `make` that the run's length or its epoch's decides, unless they are given."""
    takes = inspect.signature(make).parameters
    return [name for name in (*WHOLE_RUN, *EPOCH) if name in takes]
