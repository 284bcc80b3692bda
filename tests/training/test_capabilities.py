"""What an optimizer needs of the loop is read off the object: the optimizers that are special, and no others."""

from __future__ import annotations

import torch
from each_optimizer import CONFIGS, build, quadratic

from vrbench.training.capabilities import Capabilities, capabilities


def test_capabilities_are_told_apart() -> None:
    found = {name: capabilities(build(name, quadratic()[0])) for name in CONFIGS}
    special = {name: needs for name, needs in found.items() if needs != Capabilities(False, False, False)}
    assert special == {
        "sam": Capabilities(True, False, False),
        "adahessian": Capabilities(False, True, False),
        "schedulefree_adamw": Capabilities(False, False, True),
        "schedulefree_sgd": Capabilities(False, False, True),
        "sophiah": Capabilities(False, True, False),
        "splus": Capabilities(False, False, True),
    }


def test_capabilities_survive_a_scheduler() -> None:
    optimizer = build("adahessian", quadratic()[0])
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    assert capabilities(optimizer).create_graph
