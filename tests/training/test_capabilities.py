"""What an optimizer needs of the loop is read off the object: the optimizers that are special, and no others."""

from __future__ import annotations

import torch
from each_optimizer import CONFIGS, build, quadratic

from vrbench.training.capabilities import Capabilities, capabilities


def test_capabilities_are_told_apart() -> None:
    found = {name: capabilities(build(name, quadratic()[0])) for name in CONFIGS}
    special = {name: needs for name, needs in found.items() if needs != Capabilities()}
    assert special == {
        "sam": Capabilities(two_step=True),
        "adahessian": Capabilities(create_graph=True),
        "schedulefree_adamw": Capabilities(train_eval=True),
        "schedulefree_sgd": Capabilities(train_eval=True),
        "sophiah": Capabilities(create_graph=True),
        "splus": Capabilities(train_eval=True),
    }


def test_a_closure_that_is_needed_is_asked_for() -> None:
    assert capabilities(torch.optim.LBFGS(quadratic()[0])) == Capabilities(closure=True)


def test_capabilities_survive_a_scheduler() -> None:
    optimizer = build("adahessian", quadratic()[0])
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    assert capabilities(optimizer) == Capabilities(create_graph=True)
