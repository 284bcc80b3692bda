"""`vrbench new`: what it writes, and where; nothing is written over. tests/contracts/test_adding.py runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vrbench.app import check, new
from vrbench.app.refusals import ConfigError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_kind_with_a_contract_can_be_made() -> None:
    assert set(new.GROUPS.values()) == set(check.GROUPS)
    assert new.GROUPS.keys() == new.IN_CHECKOUT.keys()


def files_of(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_without_a_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert new.main(["tokenizer", "spelled"]) == 0
    made = ["tokenization/spelled.py", "conf/task/tokenizer/spelled.yaml", "tests/test_spelled_tokenizer.py"]
    assert capsys.readouterr().out.splitlines() == [*made, "next: vrbench check task/tokenizer=spelled"]
    assert files_of(tmp_path) == set(made)
    assert "_target_: tokenization.spelled.Spelled\n" in (tmp_path / made[1]).read_text()


@pytest.mark.parametrize("source", ["my_lab", "src/my_lab"])
def test_in_a_projects_package_and_its_config_folder(source: str, tmp_path: Path) -> None:
    (tmp_path / source).mkdir(parents=True)
    (tmp_path / source / "__init__.py").touch()
    (tmp_path / "yaml").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "my-lab"\n[tool.vrbench]\nconfig-dir = "yaml"\n')
    assert new.main(["optimizer", "my_rule"]) == 0
    assert (tmp_path / source / "optimizers/my_rule.py").exists()
    assert "_target_: my_lab.optimizers.my_rule.MyRule\n" in (tmp_path / "yaml/optimizer/my_rule.yaml").read_text()


def test_a_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert new.main(["project", "my_lab"]) == 0
    assert files_of(tmp_path / "my_lab") == {
        ".gitignore",
        "README.md",
        "my_lab/__init__.py",
        "plan.yaml",
        "pyproject.toml",
    }
    assert new.main(["project", "my_lab"]) == 2
    assert capsys.readouterr().err == "vrbench: new project my_lab: there is something of that name here\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("optimiser mine", "new optimiser: no such kind; did you mean optimizer? vrbench new has optimizer, task, "),
        ("model Mine", "new model Mine: must be small letters, digits and _"),
        ("model class", "new model class: must be small letters, digits and _, and no word of Python's"),
        ("schedule cosine", "new schedule cosine: schedule=cosine is vrbench's own: take another name"),
        ("task there", "new task there: tests/test_there_task.py: is there already"),
    ],
)
def test_what_cannot_be_made_is_one_line(
    words: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_there_task.py").write_text("mine\n")
    assert new.main(words.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vrbench: {says}")
    assert files_of(tmp_path) == {"tests/test_there_task.py"}


def test_a_module_in_a_folder_without_init_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a package that nobody has imported: its number types and its hash are read without running it."""
    from vrbench.runs.source import find_module

    assert new.main(["project", "some_lab"]) == 0
    monkeypatch.chdir(tmp_path / "some_lab")
    assert new.main(["model", "flat"]) == 0
    monkeypatch.syspath_prepend(str(tmp_path / "some_lab"))
    found = find_module("some_lab.models.flat")
    assert found is not None
    assert found.file == tmp_path / "some_lab/some_lab/models/flat.py"
    assert find_module("some_lab.nothing.flat") is None
    with pytest.raises(ConfigError, match="another name"):
        new.part("model", "mlp", Path.cwd())
