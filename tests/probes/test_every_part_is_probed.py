"""The edge of stability of every optimizer, task and model of conf/, as small as they can be made."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import each_optimizer
import pytest
from omegaconf.errors import OmegaConfBaseException
from toy import fit, trainer

from vrbench.contracts import Moment, RunInfo
from vrbench.probes import curvature
from vrbench.probes.edge_of_stability import EdgeOfStability

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize("optimizer", each_optimizer.CONFIGS)
@pytest.mark.filterwarnings("ignore")
def test_every_optimizer_is_probed(optimizer: str) -> None:
    probe = EdgeOfStability("standard", 5, None, 24, 24, 0.01, 60, 5, 8, 4, "hessian")
    make = partial(each_optimizer.build, optimizer)
    rows = fit(trainer(optimizer=make, lr=1e-3, norm=True, probes={"eos": probe}, max_steps=20, log_every=5)).rows
    measured = [row for row in rows if "eos/sharpness" in row]
    assert [row["step"] for row in measured] == [5, 10, 15, 20]
    for row in measured:
        assert row["eos/sharpness"] > 0
        assert ("eos/ratio" in row) == ("eos/threshold" in row)


SHARED = CONF.parent / "../shared/data"

FOLDERS = {
    "uoft-cs/cifar10": "cifar10",
    "ylecun/mnist": "mnist",
    "Salesforce/wikitext": "wikitext2-mini",
}
"""Data sets of the hub that lie in the shared folder; tasks with other data are left to runs by hand."""

SMALL = {
    "deeper_cnn": ("model.channels=[8,16]", "model.hidden=16"),
    "gridworld_conv": ("model.channels=[4,8]", "model.hidden=16"),
    "paper_unet": ("model.base_channels=8", "model.multipliers=[1,2]"),
    "resnet32": ("model.depth=8", "model.width=4"),
    "unet2d": ("model.channels=[8,8,8]",),
}
"""Models that are probed with fewer channels than their YAML states."""

MODELS = [
    pytest.param(name, marks=[pytest.mark.slow] * (name == "resnet18"))  # 11 million parameters
    for name in sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
]

EMBEDDED = ("digits", "pydoc", "diffusion_digits", "hypergrid", "gridworld")
TASKS = [
    pytest.param(name, marks=[pytest.mark.slow] * (name not in EMBEDDED))  # their data sets are read whole
    for name in sorted(path.stem for path in (CONF / "task").glob("*.yaml"))
]


def build(*overrides: str) -> Any:
    """The trainer of a config, probe attached; raises ConfigError where its parts do not fit."""
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from vrbench.app.assembly import build
    from vrbench.app.config import GROUPS
    from vrbench.contracts import TrainerSettings

    small = ("probe=eos", "probe.eos.size=4", "probe.eos.microbatch=2", "probe.eos.every=1", "probe.eos.max_products=2")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [*small, "trainer.max_steps=1", *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    path = OmegaConf.select(config, "task.data.path")
    if path in FOLDERS:
        folder = SHARED / FOLDERS[path]
        if not folder.exists():
            pytest.skip(f"{folder} is not there")
        config.task.data.path = str(folder)
    for key in ("train_size", "test_size"):
        if key in config.task.get("data", {}):
            config.task.data[key] = 5000 if "windows" in config.task else 64  # characters, images
    if "batch_size" in config.task:
        config.task.batch_size = 4
    if "windows" in config.task:
        config.task.context = 16
    settings = TrainerSettings(**OmegaConf.to_container(config.trainer, resolve=True))
    choices = {group: str(config.hydra.runtime.choices[group]) for group in GROUPS}
    info = RunInfo("", "", "", "test", Path(), {}, choices, 0)
    return build(config, info, settings)


def measure(trainer: Any) -> None:
    probe, moment = trainer.probes["eos"], Moment(1, logged=True)
    trainer.model.train()
    trainer._backward([trainer._take_batch()])
    probe.before_step(moment)
    trainer.optimizer.step()
    row = probe.after_step(moment)
    assert row["eos/sharpness"] != 0
    assert row["eos/threshold"] > 0
    assert row["eos/preconditioned_sharpness"] / row["eos/threshold"] == pytest.approx(row["eos/ratio"])


def test_the_two_solves_of_a_measurement_never_explore_together(monkeypatch: pytest.MonkeyPatch) -> None:
    solve, explored = curvature.top_eigenpairs, []

    def seen(*arguments: Any, **options: Any) -> Any:
        explored.append(options["fresh"] is not None)
        return solve(*arguments, **options)

    monkeypatch.setattr(curvature, "top_eigenpairs", seen)
    trainer = build("task=digits")
    for _ in range(9):
        measure(trainer)
    pairs = list(zip(explored[::2], explored[1::2], strict=True))
    assert [sum(solves) for solves in zip(*pairs, strict=True)] == [2, 3]
    assert (True, True) not in pairs


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_probed(task: str) -> None:
    from vrbench.app.refusals import ConfigError

    try:
        trainer = build(f"task={task}")
    except (ConfigError, OmegaConfBaseException) as refused:
        if task in EMBEDDED:
            raise
        pytest.skip(f"its data are not here: {refused}")
    measure(trainer)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_probed(model: str) -> None:
    from vrbench.app.refusals import ConfigError

    for task in EMBEDDED:
        try:
            trainer = build(f"task={task}", f"model={model}", *SMALL.get(model, ()))
        except ConfigError as refused:
            reason = str(refused)
        else:
            measure(trainer)
            return
    pytest.skip(f"fits no embedded task, or its weights are not here: {reason}")
