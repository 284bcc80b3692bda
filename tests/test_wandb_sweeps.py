"""Every W&B sweep calls vrbench with overrides that exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

CONF = ROOT / "conf"


def values(parameter: dict[str, Any]) -> list[Any]:
    return list(parameter["values"]) if "values" in parameter else [parameter["min"], parameter["max"]]


@pytest.mark.parametrize("path", sorted((CONF / "sweep" / "wandb").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_sweep_composes_and_every_parameter_exists(path: Path) -> None:
    sweep = yaml.safe_load(path.read_text())
    program, *arguments = sweep["command"]
    assert program == sweep["program"] == "vrbench"
    assert arguments.pop() == "${args_no_hyphens}"
    assert sweep["metric"]["goal"] == "minimize"
    assert sweep["run_cap"] == 20
    assert len(sweep["parameters"]) >= 1
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for end in (0, -1):
            chosen = {key: values(parameter)[end] for key, parameter in sweep["parameters"].items()}
            config = compose("config", [*arguments, *(f"{key}={value}" for key, value in chosen.items())])
            assert {key: OmegaConf.select(config, key, throw_on_missing=True) for key in chosen} == chosen
