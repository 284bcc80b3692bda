"""What is said of a run whose evaluation dwarfed its training."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from vrbench.app.project import CONF
from vrbench.runs.remarks import costly_evaluation

DEAR = {"train": 2.0, "eval": 7.8, "probe": 0.2}


def config_of(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_container(compose("config", list(overrides)))
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


@pytest.mark.parametrize(
    ("overrides", "remedies"),
    [
        (["task=cifar10"], "task.data.val_size=…, task.data.test_size=… or trainer.eval_every=…"),
        (["task=cifar10", "trainer.evaluate_test=false"], "task.data.val_size=… or trainer.eval_every=…"),
        (["task=wikitext2"], "task.data.val_size=…, task.data.test_size=… or trainer.eval_every=…"),
        (["task=diffusion_digits"], "task.eval_examples=…, task.quality.samples=… or trainer.eval_every=…"),
        (["task=diffusion_digits", "task.quality=null"], "task.eval_examples=… or trainer.eval_every=…"),
        (["task=gridworld"], "task.eval_walks=… or trainer.eval_every=…"),
    ],
)
def test_what_makes_it_cheaper_is_a_key_of_the_run(overrides: list[str], remedies: str) -> None:
    said = costly_evaluation(DEAR, config_of(*overrides))
    assert said == f"evaluation took 78% of its time; {remedies} makes it cheaper"


def test_a_task_without_such_keys_still_has_the_trainers() -> None:
    config = {"task": {"name": "mine"}, "trainer": {"evaluate_test": True}}
    assert costly_evaluation(DEAR, config) == "evaluation took 78% of its time; trainer.eval_every=… makes it cheaper"


@pytest.mark.parametrize(
    "seconds",
    [
        {"train": 10.0, "eval": 10.0, "probe": 0.0},
        {"train": 5.0, "eval": 9.0, "probe": 6.0},
        {"train": 0.1, "eval": 4.9, "probe": 0.0},
        {"train": 0.0, "eval": 0.0, "probe": 0.0},
    ],
)
def test_nothing_is_said_of_half_a_run_or_of_a_few_seconds(seconds: dict[str, float]) -> None:
    assert costly_evaluation(seconds, {"task": {}, "trainer": {"evaluate_test": True}}) is None
