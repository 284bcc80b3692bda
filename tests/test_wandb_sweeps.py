"""Every W&B sweep calls vrbench with overrides that exist, over the ranges of our own search of the same task."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

CONF = ROOT / "conf"
SWEEPS = sorted((CONF / "sweep" / "wandb").glob("*.yaml"))
OURS = {
    "cifar10": "paper_images",
    "wikitext2": "paper_language",
    "diffusion_mnist": "paper_diffusion",
    "gridworld": "paper_gridworld",
}


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides), return_hydra_config=True)


@lru_cache
def our_ranges(task: str, optimizer: str) -> dict[str, Any]:
    """`{key: what W&B calls the range of our search}`."""
    config = composed(f"task={task}", f"optimizer={optimizer}", f"sweep={OURS[task]}")
    space = OmegaConf.to_container(config.hydra.sweeper.space)
    assert isinstance(space, dict)
    found: dict[str, Any] = {}
    for group, parameters in space.items():
        for name, leaf in parameters.items():
            if isinstance(leaf, list):
                found[f"{group}.{name}"] = {"values": leaf}
            elif leaf is not None:
                kind = "log_uniform_values" if leaf.get("log") else "int_uniform" if leaf.get("int") else "uniform"
                found[f"{group}.{name}"] = {"distribution": kind, "min": leaf["low"], "max": leaf["high"]}
    return found


def test_every_task_of_the_paper_has_its_sweeps() -> None:
    optimizers = ("vradam", "adamw", "sgd", "radam", "rmsprop")
    assert {path.stem for path in SWEEPS} == {f"{task}_{optimizer}" for task in OURS for optimizer in optimizers}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_composes_and_every_parameter_exists(path: Path) -> None:
    sweep = yaml.safe_load(path.read_text())
    task, optimizer = path.stem.rsplit("_", 1)
    program, *arguments = sweep["command"]
    assert program == sweep["program"] == "vrbench"
    assert arguments.pop() == "${args_no_hyphens}"
    assert sweep["method"] == "bayes"
    assert sweep["metric"] == {"name": "val/loss", "goal": "minimize"}
    assert sweep["run_cap"] == 20
    assert sweep["parameters"] == our_ranges(task, optimizer)
    chosen = {
        key: parameter["values"][0] if "values" in parameter else parameter["min"]
        for key, parameter in sweep["parameters"].items()
    }
    config = composed(*arguments, *(f"{key}={value}" for key, value in chosen.items()))
    assert {key: OmegaConf.select(config, key, throw_on_missing=True) for key in chosen} == chosen
    assert config.hydra.runtime.choices["task"] == task
    assert config.hydra.runtime.choices["optimizer"] == optimizer
    assert config.logger.wandb.mode == "online"
