"""W&B sweeps are made from our own searches: same ranges, and a command that vrbench understands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from vrbench.app import wandb_commands, wandb_sweeps
from vrbench.app.refusals import ConfigError

pytest.importorskip("optuna", reason="searches need Optuna (pip install 'vrbench[search]')")
BY_LOSS = ["hydra.sweeper.metric=val/loss", "hydra.sweeper.direction=min"]


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", list(overrides), return_hydra_config=True)


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The paper's sweeps, as the script writes them."""
    folder = tmp_path_factory.mktemp("sweeps")
    wandb_sweeps.main(["--paper", str(folder)])
    return {path.stem: yaml.safe_load(path.read_text()) for path in folder.glob("*.yaml")}


def test_every_task_of_the_paper_has_its_sweeps(paper: dict[str, Any]) -> None:
    tasks = ("cifar10", "wikitext2", "diffusion_mnist", "gridworld")
    assert paper.keys() == {
        f"{task}_{name}" for task in tasks for name in ("vradam", "adamw", "sgd", "radam", "rmsprop")
    }
    assert paper["wikitext2_rmsprop"]["command"][3:6] == [
        "optimizer=rmsprop", "optimizer.alpha=0.1", "optimizer.momentum=0.2",
    ]  # fmt: skip
    assert paper["gridworld_vradam"]["parameters"] == {
        "optimizer.lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 0.1},
        "optimizer.beta3": {"distribution": "uniform", "min": 0.1, "max": 5.0},
        "optimizer.alpha1": {"distribution": "int_uniform", "min": 5, "max": 30},
        "task.entropy_weight": {"distribution": "uniform", "min": 0.0, "max": 1.0},
    }


def test_every_command_composes_and_every_parameter_exists(paper: dict[str, Any]) -> None:
    for name, sweep in paper.items():
        task, optimizer = name.rsplit("_", 1)
        program, *arguments = sweep["command"]
        assert program == sweep["program"] == "vrbench"
        assert arguments.pop() == "${args_no_hyphens}"
        assert (sweep["method"], sweep["run_cap"]) == ("bayes", 20)
        assert sweep["metric"] == {"name": "val/loss", "goal": "minimize"}
        chosen = {
            key: leaf["values"][0] if "values" in leaf else leaf["min"] for key, leaf in sweep["parameters"].items()
        }
        config = composed(*arguments, *(f"{key}={value}" for key, value in chosen.items()))
        assert {key: OmegaConf.select(config, key, throw_on_missing=True) for key in chosen} == chosen
        assert config.hydra.runtime.choices["task"] == task
        assert config.hydra.runtime.choices["optimizer"] == optimizer
        assert config.logger.wandb.mode == "online"
        assert config.trainer.evaluate_test is False


def test_a_search_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "optimizer"
    folder.mkdir()
    (folder / "mine.yaml").write_text("_target_: torch.optim.SGD\n_partial_: true\nlr: 0.1\n")
    words = ["--config-dir", str(tmp_path), "sweep=tune", "optimizer=mine", "study=s", *BY_LOSS, "trainer.epochs=2"]
    wandb_sweeps.main([*words, "hydra.sweeper.sampler=random", "++hydra.sweeper.space.optimizer.lr.high=1"])
    sweep = yaml.safe_load(capsys.readouterr().out)
    assert sweep["method"] == "random"
    assert sweep["parameters"] == {"optimizer.lr": {"distribution": "log_uniform_values", "min": 1e-3, "max": 1}}
    assert sweep["command"] == [
        "vrbench", f"--config-dir={tmp_path}", "optimizer=mine", "study=s", "trainer.epochs=2", "seed=1000",
        "trainer.evaluate_test=false", "logger.wandb.mode=online", "${args_no_hyphens}",
    ]  # fmt: skip


def test_a_choice_of_schedules_is_a_parameter() -> None:
    space = "+hydra.sweeper.space.schedule={choice: [constant, wsd], warmup: {low: 0.0, high: 0.2}}"
    words = ["sweep=tune", "optimizer=adamw", *BY_LOSS, space]
    found = wandb_sweeps.sweep(words)["parameters"]
    assert found["schedule"] == {"values": ["constant", "wsd"]}
    assert found["schedule.warmup"] == {"distribution": "uniform", "min": 0.0, "max": 0.2}
    with pytest.raises(ConfigError, match=r"^schedule=wsd: is searched"):
        wandb_sweeps.sweep([*words, "schedule=wsd"])


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["optimizer=sgd"], "sweep=null: "),
        (["sweep=tune"], r"hydra\.sweeper\.metric=null: "),
        (["sweep=tune", *BY_LOSS, "hydra.sweeper.sampler=grid"], r"hydra\.sweeper\.sampler=grid: "),
        (["sweep=tune", *BY_LOSS, "hydra.sweeper.seeds=[1,2]"], r"hydra\.sweeper\.seeds=\[1, 2\]: "),
        (
            ["sweep=tune", *BY_LOSS, "+hydra.sweeper.space.task.batch_size={low: 1, high: 9, int: true, log: true}"],
            "space={'low': 1",
        ),
    ],
)
def test_what_wandb_cannot_search_is_refused(overrides: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=f"^{says}"):
        wandb_sweeps.sweep(overrides)


def test_the_command_is_of_one_piece(capsys: pytest.CaptureFixture[str]) -> None:
    assert wandb_commands.main([]) == 0
    assert "vrbench wandb sweep" in capsys.readouterr().out
    assert wandb_commands.main(["sweep", "sweep=tune", "task=digits", "optimizer=nope"]) == 2
    assert capsys.readouterr().err.startswith("vrbench: wandb sweep: optimizer=nope: no such choice")
    assert wandb_commands.main(["swep"]) == 2
    assert capsys.readouterr().err == "vrbench: wandb swep: no such command; there are rebuild, workspace, sweep\n"
