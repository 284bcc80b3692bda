"""The project in the working directory: found without PYTHONPATH and --config-dir, and what is wrong with one."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vrbench.app import check, listing, project, study
from vrbench.app.refusals import ConfigError

Call = Callable[..., int]
SHORT = ("task=digits", "logger=none", "trainer.max_steps=4", "trainer.eval_every=2", "trainer.threads=1")
MODULE = """
import torch


class {name}(torch.optim.SGD):
    def __init__(self, params, lr):
        super().__init__(params, lr)
"""
YAML = "_target_: {module}.{name}\n_partial_: true\n_convert_: all\nlr: 0.1\n"


def add(conf: Path, name: str, module: Path, target: str) -> None:
    """An optimizer of the user's."""
    for path, text in ((conf / f"optimizer/{name}.yaml", YAML), (module, MODULE)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(module=target, name=name.title()))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; what a project adds to this process is taken away again."""
    folder = tmp_path / "a project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("PYTHONPATH", "VRBENCH_PROJECT"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("ours", "theirs", "optimizers", "tasks", "conf"):
            del sys.modules[name]


def test_a_folder_with_conf_is_a_project(here: Path, vrbench: Call, capfd: pytest.CaptureFixture[str]) -> None:
    add(here / "conf", "ours", here / "ours.py", "ours")
    assert vrbench("optimizer=ours", *SHORT) == 0
    assert capfd.readouterr().err == "vrbench: uses conf and the modules of this folder\n"
    assert vrbench("-m", "optimizer=ours", "seed=1,2", *SHORT) == 0
    assert capfd.readouterr().err == ""  # once is enough
    assert listing.main(["schedules"]) == check.main(["optimizer=ours"]) == 0


def test_folders_that_are_called_as_ours_are_the_users(here: Path, vrbench: Call, tmp_path: Path) -> None:
    """A package `optimizers` and a package `tasks` in the working directory, and vrbench's own beside them."""
    add(here / "conf", "ours", here / "optimizers/vradam.py", "optimizers.vradam")
    (here / "optimizers/__init__.py").write_text("")
    (here / "tasks").mkdir()
    (here / "tasks/__init__.py").write_text("raise RuntimeError('nobody asked for it')\n")
    (here / "conf/__init__.py").write_text("raise RuntimeError('nobody asked for it')\n")
    assert vrbench("-m", "optimizer=ours,vradam", *SHORT) == 0
    found = [json.loads(path.read_text())["code"]["files"] for path in tmp_path.glob("default/*/manifest.json")]
    assert sorted(sum("vradam.py" in file for file in files) for files in found) == [1, 1]
    assert len({digest for files in found for file, digest in files.items() if "vradam.py" in file}) == 2


def test_a_conf_of_another_program_is_left_alone(here: Path, vrbench: Call, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "conf/db").mkdir(parents=True)
    (here / "conf/config.yaml").write_text("seed: 9\n")
    assert vrbench("--cfg", "job") == 0
    said = capfd.readouterr()
    assert said.err == ""
    assert "seed: 0\n" in said.out


def test_pyproject_names_the_folders(here: Path, vrbench: Call, tmp_path: Path) -> None:
    add(here / "yaml", "ours", here / "src/ours/__init__.py", "ours")
    add(tmp_path / "shared conf", "theirs", here / "src/theirs.py", "theirs")
    (here / "pyproject.toml").write_text(
        '[project]\nname = "ours"\n[tool.vrbench]\nconfig-dir = ["yaml", "../shared conf"]\npython-path = "src"\n'
    )
    assert vrbench("-m", "optimizer=ours,theirs", *SHORT) == 0
    assert len(list(tmp_path.glob("default/*/summary.json"))) == 2
    subprocess.run([sys.executable, "-c", "import ours, theirs"], cwd=tmp_path, check=True)  # as a launcher's workers


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_a_launchers_workers_find_the_project(launcher: str, here: Path, tmp_path: Path) -> None:
    add(here / "yaml", "ours", here / "src/ours/__init__.py", "ours")
    (here / "pyproject.toml").write_text("[tool.vrbench]\nconfig-dir = 'yaml'\npython-path = 'src'\n")
    words = ["-m", "optimizer=ours", "seed=1,2", f"hydra/launcher={launcher}", *SHORT, f"results_dir={tmp_path}"]
    done = subprocess.run([sys.executable, "-m", "vrbench", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("default/*/summary.json"))) == 2


def test_several_config_folders_compose(
    here: Path, vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    add(here / "conf", "ours", here / "ours.py", "ours")
    add(tmp_path / "b, c", "theirs", here / "theirs.py", "theirs")
    (tmp_path / "d/experiment").mkdir(parents=True)
    (tmp_path / "d/experiment/both.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      optimizer: ours,theirs\n"
    )
    folders = ("--config-dir", str(tmp_path / "b, c"), f"--config-dir={tmp_path / 'd'}")
    assert vrbench(*folders, "experiment=both", *SHORT) == 0
    assert len(list(tmp_path.glob("default/*/summary.json"))) == 2
    capfd.readouterr()
    search = ("-m", *folders, "sweep=tune", "optimizer=theirs", "hydra.sweeper.n_trials=1", "study=s", *SHORT)
    assert vrbench(*search) == 0
    (line,) = [line for line in capfd.readouterr().out.splitlines() if line.startswith("confirm on fresh seeds: ")]
    given = [word for word in shlex.split(line.partition("vrbench ")[2]) if word.startswith("--config-dir=")]
    assert given == [f"--config-dir={tmp_path / 'b, c'}", f"--config-dir={tmp_path / 'd'}"]  # conf/ is found by itself
    assert vrbench("--config-dir=nowhere", *SHORT) == 2
    assert capfd.readouterr().err == "vrbench: --config-dir=nowhere: no such folder\n"


def test_a_name_that_is_taken_is_refused(
    here: Path, vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    add(here / "conf", "adamw", here / "ours.py", "ours")
    assert vrbench("optimizer=sgd", *SHORT) == 0
    capfd.readouterr()
    assert vrbench("optimizer=adamw", *SHORT) == 2
    said = capfd.readouterr().err
    assert said.startswith(
        f"vrbench: optimizer=adamw: is in two config folders, {project.CONF}/optimizer/adamw.yaml and "
    )
    assert said.endswith("conf/optimizer/adamw.yaml: rename yours\n")


def test_a_study_of_ones_own_project(here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    add(tmp_path / "other", "ours", here / "ours.py", "ours")
    (here / "plan.yaml").write_text(
        "study: s\ntasks: [digits]\noptimizers: [ours, sgd]\nbaseline: sgd\nspace: {}\ntrials: 1\nreplicates: 1\n"
        "seeds: 2\nsmallest_effect: 1%\noverrides: [trainer.max_steps=4, trainer.threads=1]\n"
    )
    assert study.main(["plan.yaml", f"--config-dir={tmp_path / 'other'}", f"--results-dir={tmp_path}"]) == 0
    assert "task=digits optimizer=ours: about" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("config_dir = 'conf'", "config_dir: no such key; did you mean config-dir?"),
        ("config-dir = 'nowhere'", "config-dir=nowhere: no such folder"),
        ("python-path = 3", "python-path=3: must be a folder, or a list of folders"),
        ("config-dir = [", "Invalid value"),
    ],
)
def test_a_wrong_pyproject_is_one_line(
    text: str, says: str, here: Path, vrbench: Call, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "pyproject.toml").write_text(f"[tool.vrbench]\n{text}\n")
    with pytest.raises(ConfigError, match=r"pyproject\.toml"):
        project.find(here)
    assert vrbench("--cfg", "job") == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert says in line


def test_a_module_that_is_not_found_says_where_it_was_looked_for(
    here: Path, vrbench: Call, capfd: pytest.CaptureFixture[str]
) -> None:
    add(here / "conf", "ours", here / "elsewhere/ours.py", "ours")
    assert vrbench("optimizer=ours", *SHORT) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("vrbench: optimizer._target_=ours.Ours: No module named 'ours' (looked for in this folder, ")
    assert "[tool.vrbench] python-path" in line
