"""A state of before or of another optimizer: taken, or refused with what is missing; never a KeyError in a step."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
import vrbench.optimizers
from torch.optim import Optimizer

Make = Callable[..., Optimizer]
SETTINGS: dict[str, dict[str, Any]] = {
    "ActiveLR": {"base_optimizer": torch.optim.SGD, "steps_per_epoch": 2},
    "RAD": {"total_steps": 10},
}
BASES = ("GatedOptimizer", "Rule")


def ours() -> list[type[Optimizer]]:
    """Every optimizer class of the folder that looks at the states it is given: the torch class takes any."""
    modules = [
        import_module(f"vrbench.optimizers.{name}") for _, name, _ in pkgutil.iter_modules(vrbench.optimizers.__path__)
    ]
    return [
        kind
        for module in modules
        for name, kind in vars(module).items()
        if inspect.isclass(kind)
        and issubclass(kind, Optimizer)
        and kind.__module__ == module.__name__
        and name not in BASES
        and (kind.load_state_dict, kind.__setstate__) != (Optimizer.load_state_dict, Optimizer.__setstate__)
    ]


def test_all_that_keep_a_state_of_their_own_look_at_it() -> None:
    assert len(ours()) >= 12


def made(kind: type[Optimizer]) -> Optimizer:
    parameters = [torch.nn.Parameter(torch.ones(4, 3)), torch.nn.Parameter(torch.ones(3))]
    return kind(parameters, lr=0.01, **SETTINGS.get(kind.__name__, {}))  # type: ignore[call-arg]


def stepped(optimizer: Optimizer) -> Optimizer:
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.linspace(-1, 1, p.numel()).reshape(p.shape)
    optimizer.step()
    return optimizer


FOREIGN: dict[str, Make] = {
    "SGD": lambda: torch.optim.SGD([torch.nn.Parameter(torch.ones(4, 3)), torch.nn.Parameter(torch.ones(3))], 0.1, 0.9),
    "AdamW": lambda: torch.optim.AdamW([torch.nn.Parameter(torch.ones(4, 3)), torch.nn.Parameter(torch.ones(3))]),
    **{kind.__name__: (lambda kind=kind: made(kind)) for kind in ours()},
}


@pytest.mark.parametrize("foreign", sorted(FOREIGN))
@pytest.mark.parametrize("kind", ours(), ids=lambda kind: kind.__name__)
def test_the_state_of_another_optimizer(kind: type[Optimizer], foreign: str) -> None:
    state = stepped(FOREIGN[foreign]()).state_dict()
    optimizer = made(kind)
    try:
        optimizer.load_state_dict(state)
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = ""
        stepped(optimizer)
    if refusal:
        assert kind.__name__ != foreign
        assert re.fullmatch(rf"state: lacks [a-z_, ]+, which {kind.__name__} keeps", refusal)
    assert all(torch.isfinite(p).all() for group in optimizer.param_groups for p in group["params"])
