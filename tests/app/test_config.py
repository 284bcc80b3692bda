"""Every YAML composes; a wrong choice is one line that names it, before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vrbench.app.config import GROUPS, KEYS

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf"
Call = Callable[..., int]


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides), return_hydra_config=True)


def choices(group: str) -> list[str]:
    found = (CONF / group).glob("**/*.yaml" if group == "experiment" else "*.yaml")
    return sorted(path.relative_to(CONF / group).with_suffix("").as_posix() for path in found)


@pytest.mark.parametrize("choice", [f"{group}={name}" for group in (*GROUPS, "experiment") for name in choices(group)])
def test_every_yaml_composes(choice: str) -> None:
    config = composed(choice)
    HydraConfig.instance().set_config(config)
    keys = {str(key) for key in config} - {"hydra"}
    assert keys == KEYS
    text = OmegaConf.to_yaml(config, resolve=False)
    assert "_target_" in text


@pytest.mark.parametrize("task", choices("task"))
def test_a_task_names_its_model_and_its_length(task: str) -> None:
    config = composed(f"task={task}")
    assert (CONF / "model" / f"{config.hydra.runtime.choices.model}.yaml").exists()
    assert config.trainer.epochs is not None or config.trainer.max_steps is not None
    replaced = composed(f"task={task}", "model=resnet32")
    assert replaced.hydra.runtime.choices.model == "resnet32"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("optimizer=vradm", "optimizer=vradm: no such choice; did you mean vradam?"),
        ("optimizer.lrr=1", "optimizer.lrr: no such key; did you mean lr?"),
        ("optimizer.lr=-1", "optimizer.lr=-1: must be a finite number"),
        ("optimizer.lr=fast", "optimizer.lr=fast: must be a finite number"),
        ("optimizer.betas=[0.9,1.5]", "optimizer"),
        ("optimizer.maximize=yes", "optimizer.maximize=yes: should be true or false"),
        ("optimizer=adamw optimizer.fused=2", "optimizer.fused=2: should be true, false or null"),
        ("+optimizer.lrr=1", "optimizer: "),
        ("trainer.epochs=-1", "trainer.epochs=-1: should be greater than or equal to 1"),
        ("trainer.precision=fp8", "trainer.precision=fp8: should be 'float32' or 'bfloat16'"),
        ("trainer.device=abacus", "trainer.device=abacus: "),
        ("+trainer.epoch=3", "trainer.epoch=3: Unexpected keyword argument"),
        ("seed=abc", "seed=abc: should be a valid integer"),
        ("seed=-1", "seed=-1: should be greater than or equal to 0"),
        ("study=../elsewhere", "study=../elsewhere: "),
        ("task=digit", "task=digit: no such choice; did you mean digits?"),
        ("task.batch_size=0", "task.batch_size=0: "),
        ("foo.bar=1", "foo: no such key"),
        ("~seed", "seed: Field required"),
        ("~optimizer", "optimizer=None: must be a group of settings"),
        ("+foo=1", "foo: no such key"),
        ("model=resnet18 task=pydoc", "vrbench: model: "),
        ("schedule=warmup_cosine trainer.epochs=1", "schedule.warmup_epochs=5.0: "),
        ("schedule=warmup_cosine trainer.epochs=2", "take schedule=cosine schedule.warmup=0.05, which warms up over"),
        ("~schedule.warmup schedule._target_=torch.optim.lr_scheduler.StepLR", "schedule: StepLR.__init__() missing"),
        (
            "schedule._target_=torch.optim.lr_scheduler.PolynomialLR",
            "schedule.warmup=0: PolynomialLR takes no such argument; leave it out: '~schedule.warmup'",
        ),
        ("schedule.warmup=1.0", "schedule.warmup=1.0: must be a share of the run, a float in [0, 1), or a whole "),
        (
            "~schedule.warmup schedule._target_=torch.optim.lr_scheduler.ReduceLROnPlateau",
            "schedule._target_=torch.optim.lr_scheduler.ReduceLROnPlateau: wants a metric at each step",
        ),
        (
            "optimizer._target_=optimizers.vradam.VRAdam",
            "optimizer._target_=optimizers.vradam.VRAdam: is called vrbench.optimizers.vradam.VRAdam today",
        ),
        ("task=cifar10 task.data.path=/nowhere", "task.data.path=/nowhere: "),
        ("study=a\x85b\x1b", r"study=a\x85b\x1b"),
        ("--epochs 3", "unrecognized arguments: --epochs"),
        (
            "hydra.mode=MULTIRUN optimizer.lr=interval(0,1)",
            "optimizer.lr=interval(0,1): must be values a,b, not an interval",
        ),
        ("hydra.mode=MULTIRUN hydra.sweeper.max_batch_size=0", "hydra.sweeper.max_batch_size=0: must be 1 or more"),
        ("hydra.job.nam=x", "hydra.job.nam: no such key; did you mean name?"),
        ("trainer.epochs==", "trainer.epochs==: cannot be read: quote the value"),
    ],
)
def test_bad_input_is_one_line(
    override: str, says: str, vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench("logger=none", *override.split(" ")) == 2
    printed = capfd.readouterr().err.strip().splitlines()
    assert len(printed) == 1, printed
    assert printed[0].startswith("vrbench: ")
    assert says in printed[0]
    assert list(tmp_path.iterdir()) == []
