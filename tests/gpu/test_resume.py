"""A run that is broken off and resumed on CUDA, under deterministic algorithms, ends bit for bit as an unbroken one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

    from vrbench.app.check import Kit

pytestmark = pytest.mark.gpu

STEPS, STOP = 6, 3
MODELS = [("model=mlp",), ("model=resnet32", "model.depth=8", "model.width=4")]
"""Models all of whose operations are deterministic on CUDA, convolutions among them."""


@pytest.fixture
def deterministic(cuda: torch.device) -> Iterator[None]:
    """Operations that would not come to the same numbers each time raise within the test."""
    import torch

    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(
    "changes", [{}, {"precision": "bfloat16", "channels_last": True}, {"ema_decay": 0.9, "clip_norm": 1.0}], ids=str
)
@pytest.mark.parametrize("model", MODELS, ids=" ".join)
@pytest.mark.usefixtures("deterministic")
def test_a_resumed_run_equals_an_unbroken_one(
    model: tuple[str, ...], changes: dict[str, Any], kit: Kit, cuda: torch.device
) -> None:
    from same_numbers import numbers
    from toy import ListWriter
    from unlogged import trainer_of
    from vrbench.optimizers import VRAdam

    from vrbench.checks.contract import same
    from vrbench.checks.short_run import through_file
    from vrbench.training.trainer import Stopped

    lengths = {"max_steps": STEPS, "log_every": 1, "eval_every": STOP}

    def trainer() -> Any:
        return trainer_of(kit.task_part("task=digits", *model), VRAdam, cuda, **lengths, **changes)

    unbroken, whole = trainer(), ListWriter()
    unbroken.fit(whole)
    broken, first = trainer(), ListWriter()
    with pytest.raises(Stopped):
        broken.fit(first, lambda: broken.step == STOP)
    resumed, rest = trainer(), ListWriter(through_file(first.states[-1]))
    resumed.fit(rest)
    assert numbers(first.rows + rest.rows, rest.summary) == numbers(whole.rows, whole.summary)
    assert same(resumed.model.state_dict(), unbroken.model.state_dict())
    assert same(resumed.optimizer.state_dict(), unbroken.optimizer.state_dict())
