"""A part whose library is not installed: refused in one line that says what brings it, left out by the quickstart."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import QUICK
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from vrbench.extras import EXTRAS, needs

Call = Callable[..., int]
BASELINES = ("adabelief", "adahessian", "lion", "sam", "schedulefree_adamw", "soap", "muon", "normuon", "adopt")


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No library of an extra can be imported."""
    hidden = {library.replace("-", "_") for library in EXTRAS}
    for name in list(sys.modules):
        if name.partition(".")[0] in hidden:
            monkeypatch.delitem(sys.modules, name)
        elif name.startswith("vrbench.tuning."):  # it has imported optuna
            monkeypatch.delitem(sys.modules, name)
            monkeypatch.delattr(sys.modules["vrbench.tuning"], name.rpartition(".")[2], raising=False)
    for library in hidden:
        monkeypatch.setitem(sys.modules, library, None)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        *[((f"optimizer={name}",), f"optimizer: {needs('pytorch-optimizer')}") for name in BASELINES],
        (("task=pydoc", "model=gpt2"), f"model: {needs('transformers')}"),
        (("task=pydoc", "model=pretrained", "model.path=some/name"), f"model: {needs('transformers')}"),
        (("task=pydoc", "task/tokenizer=gpt2"), f"task.tokenizer: {needs('transformers')}"),
        (("task=diffusion_digits",), f"task.sampler: {needs('diffusers')}"),
        (("-m", "sweep=tune", "optimizer=sgd"), f"sweep: {needs('optuna')}"),
        (("-m", "seed=0,1", "hydra/launcher=ray"), f"hydra/launcher=ray: {needs('ray')}"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_part_names_its_extra(
    words: tuple[str, ...], line: str, vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench(*words, *QUICK) == 2
    assert capfd.readouterr().err.strip() == f"vrbench: {line}"


@pytest.mark.parametrize("choice", ["joblib", "submitit_local", "submitit_slurm"])
def test_a_launcher_of_a_plugin_names_its_extra(
    choice: str, vrbench: Call, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Plugins.instance()
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["launcher"], f"{choice}.yaml", raising=False)
    assert vrbench("-m", "seed=0,1", f"hydra/launcher={choice}", *QUICK) == 2
    library = f"hydra-{choice.partition('_')[0]}-launcher"
    assert capfd.readouterr().err.strip() == f"vrbench: hydra/launcher={choice}: {needs(library)}"


def test_a_wandb_command_names_its_extra(capfd: pytest.CaptureFixture[str]) -> None:
    from vrbench.app.wandb_commands import main

    assert main(["workspace"]) == 2
    assert main(["sweep", "sweep=tune", "optimizer=sgd"]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert lines == [
        f"vrbench: wandb workspace: {needs('wandb-workspaces')}",
        f"vrbench: wandb sweep: {needs('optuna')}",
    ]


FIRST = ("experiment=quickstart", "task=digits,diffusion_digits", "optimizer=sgd", "seed=0")


def test_the_quickstart_leaves_out_what_is_not_installed(vrbench: Call, capfd: pytest.CaptureFixture[str]) -> None:
    assert vrbench(*FIRST, *QUICK) == 0
    said = capfd.readouterr()
    (line,) = said.err.strip().splitlines()
    assert line.startswith("vrbench: 1 of 2 left out: task=diffusion_digits ")
    assert line.endswith(f"(task.sampler: {needs('diffusers')})")
    rows = [row.split() for row in said.out.splitlines() if "accuracy ↑" in row]
    assert [row[:6] for row in rows] == [["|", "digits", "|", "mlp", "|", "sgd"]], said.out


def test_another_sweep_refuses_it(vrbench: Call, capfd: pytest.CaptureFixture[str]) -> None:
    assert vrbench("-m", "optimizer=sgd,lion", *QUICK) == 2
    said = capfd.readouterr().err
    assert f"vrbench: optimizer: {needs('pytorch-optimizer')}\n" in said
    assert "1 of 2 broke: optimizer=lion" in said
    assert vrbench("-m", "optimizer=sgd,lion", "hydra.sweeper.not_installed=skip", *QUICK) == 2
    assert "hydra.sweeper.not_installed=skip: must be refuse or leave_out" in capfd.readouterr().err
