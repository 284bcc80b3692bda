"""Old names of parts: a pointer where a run is started with one, unless it is the user's own; the same in reports."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import QUICK
from made_runs import make_run

from vrbench.app import targets
from vrbench.report import comparable
from vrbench.report.collect import collect
from vrbench.runs.renamed import RENAMED, new_name, today
from vrbench.runs.source import find_module

Call = Callable[..., int]


@pytest.mark.parametrize("old", RENAMED)
def test_every_new_name_is_there(old: str) -> None:
    module, _, name = RENAMED[old].rpartition(".")
    found = find_module(module)
    assert found is not None
    assert f"class {name}" in found.file.read_text() or f"def {name}" in found.file.read_text()
    assert today(old) == RENAMED[old] == today(RENAMED[old])
    with pytest.raises(ValueError, match=f"^task._target_={old}: is called {RENAMED[old]} today$"):
        targets.check({"task": {"_target_": old}})


def test_a_run_with_an_old_name_is_refused_in_one_line(
    vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench(*QUICK, "schedule._target_=vrbench.schedules.constant") == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line == (
        "vrbench: schedule._target_=vrbench.schedules.constant: is called vrbench.training.schedules.constant today"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of the user's with a package `tasks` and in it a module that has the name of one of ours."""
    package = tmp_path / "project" / "tasks"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "diffusion.py").write_text("class Diffusion: ...\n")
    monkeypatch.syspath_prepend(package.parent)
    for name in [name for name in sys.modules if name.split(".")[0] == "tasks"]:
        monkeypatch.delitem(sys.modules, name)
    return package.parent


def test_a_users_own_package_keeps_its_name(project: Path) -> None:
    assert new_name("tasks.diffusion.Diffusion") is None
    targets.check({"task": {"_target_": "tasks.diffusion.Diffusion"}})
    assert new_name("tasks.hypergrid.HyperGrid") == "vrbench.tasks.hypergrid.HyperGrid"
    assert new_name("tasks.mine.Mine") is None
    for name in ("tasks", "tasks.diffusion"):
        sys.modules.pop(name, None)


def test_the_folders_of_a_checkout_are_ours_under_any_name() -> None:
    """They are on the path of these tests, as of any Python that is started in the checkout."""
    found = find_module("optimizers.gate")
    assert found is not None
    assert not found.is_library
    assert new_name("optimizers.gate.Gate") == "vrbench.optimizers.gate.Gate"
    assert new_name("torch.optim.SGD") is None
    assert new_name("SGD") is None


def test_runs_under_old_and_new_names_may_be_compared(tmp_path: Path) -> None:
    for study, target in (("old", "tasks.diffusion.Diffusion"), ("new", "vrbench.tasks.diffusion.Diffusion")):
        make_run(tmp_path, 0.5, study=study, optimizer=f"of_{study}", overrides={"task._target_": target})
    make_run(tmp_path, 0.5, study="else", optimizer="of_else", overrides={"task._target_": "tasks.mine.Mine"})
    old, new, other = (collect([tmp_path / study])[0] for study in ("old", "new", "else"))
    assert comparable.obstacles(old, new) == []
    assert [one.key for one in comparable.obstacles(old, other)] == ["task._target_"]
