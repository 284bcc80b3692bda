"""The source of what a config builds: found without importing it, hashed with what it imports, compared later."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from vrbench.runs.source import changed_since, code_of, find_module, numbers_typed


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the user's own: an optimizer in one file, what it imports in others."""
    files = {
        "mine/__init__.py": "from mine.opt import Mine\n",
        "mine/opt.py": "from typing import TYPE_CHECKING\nfrom .rules import step\n"
        "if TYPE_CHECKING:\n    import mine.types\nclass Mine: ...\n",
        "mine/rules.py": "def step():\n    import mine.late\n",
        "mine/late.py": "X = 1\n",
        "mine/types.py": "T = int\n",
        "mine/unused.py": "X = 1\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def code(target: str) -> dict[str, dict[str, str]]:
    return code_of({"optimizer": {"_target_": target}})


def test_a_part_counts_with_all_of_its_project_that_it_imports(project: Path) -> None:
    for target in ("mine.opt.Mine", "mine.Mine"):
        found = {name for name in code(target)["files"] if name.startswith("mine/")}
        assert found == {"mine/__init__.py", "mine/opt.py", "mine/rules.py", "mine/late.py"}


@pytest.mark.parametrize("edited", ["mine/opt.py", "mine/rules.py", "mine/late.py"])
def test_an_edit_is_named_by_its_file(project: Path, edited: str) -> None:
    before = code("mine.Mine")
    assert changed_since(before) == []
    (project / "mine/unused.py").write_text("X = 2\n")
    assert changed_since(before) == []
    path = project / edited
    path.write_text(path.read_text() + "# edited\n")
    assert changed_since(before) == [edited]
    assert code("mine.Mine") != before


def test_what_cannot_be_found_is_not_known_to_have_changed(project: Path) -> None:
    before = code("mine.Mine")
    (project / "mine/late.py").unlink()
    assert changed_since(before) == []
    assert changed_since({}) == []
    assert code("nowhere.at.all")["files"].keys() == code("builtins.dict")["files"].keys()


def test_a_library_counts_by_version_and_the_file_that_defines_the_target() -> None:
    found = code("torch.optim.AdamW")
    assert "torch/optim/adamw.py" in found["files"]
    assert set(found["libraries"]) == {"torch"}
    found["libraries"]["torch"] = "1.0"
    found["files"]["torch/optim/adamw.py"] = "0"
    (line,) = changed_since(found)
    assert line.startswith("torch 1.0 → ")


def test_a_class_that_hydra_gets_by_name_counts() -> None:
    config = {"base": {"_target_": "hydra.utils.get_class", "path": "torch.optim.SGD"}}
    assert "torch/optim/sgd.py" in code_of(config)["files"]


def test_the_training_loop_counts_and_loggers_do_not() -> None:
    found = code_of({"logger": {"wandb": {"_target_": "vrbench.loggers.wandb.WandB"}}})["files"]
    assert {"vrbench/training/trainer.py", "vrbench/randomness.py"} <= found.keys()
    assert "vrbench/loggers/wandb.py" not in found


def test_broken_source_has_a_hash_too(project: Path) -> None:
    (project / "mine/opt.py").write_text("class Mine(:\n")
    assert "mine/opt.py" in code("mine.opt.Mine")["files"]


def test_nothing_is_imported() -> None:
    targets = [
        "vrbench.optimizers.vradam.VRAdam",
        "torch.optim.AdamW",
        "pytorch_optimizer.Lion",
        "vrbench.tasks.hypergrid.Hypergrid",
    ]
    script = (
        "import sys; from vrbench.runs.source import code_of, numbers_typed; "
        f"config = {{t: {{'_target_': t, 'lr': 1}} for t in {targets}}}; code_of(config); numbers_typed(config); "
        "print(sorted({'torch', 'pytorch_optimizer', 'tasks', 'optimizers'} & sys.modules.keys()))"
    )
    said = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_modules_are_found_as_python_finds_them(project: Path) -> None:
    module = find_module("mine.rules")
    assert module is not None
    assert (module.file, module.key, module.is_library) == (project / "mine/rules.py", "mine/rules.py", False)
    torch = find_module("torch.optim")
    assert torch is not None
    assert torch.is_library
    assert find_module("mine.rules.step") is None
    assert find_module("json.decoder").is_library  # type: ignore[union-attr]


def test_what_a_process_has_loaded_is_what_it_says(project: Path) -> None:
    """A file that is edited while a long sweep runs: the sweep goes on with the code that it has."""
    import importlib

    before = code("mine.Mine")
    importlib.import_module("mine")
    try:
        (project / "mine/opt.py").write_text("class Mine:\n    other = 1\n")
        assert code("mine.Mine") == before
        assert changed_since(before) == []
    finally:
        for name in ("mine", "mine.opt", "mine.rules"):
            sys.modules.pop(name, None)
    assert changed_since(before) == ["mine/opt.py"]


def test_what_a_function_calls_its_own_is_not_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of the target's name, in a function that stands below it, hid its annotations."""
    text = "def target(rate: float): ...\n\ndef other():\n    target = 1\n    return target\n"
    (tmp_path / "ours_named.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert numbers_typed({"part": {"_target_": "ours_named.target", "rate": 1}}) == {"part.rate": 1.0}
