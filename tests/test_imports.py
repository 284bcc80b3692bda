"""Imports run one way (DESIGN, the house), and the light entry points stay light."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"optimizers", "tasks", "vrbench", "scripts", "tests"}

ALLOWED = {
    "optimizers": ("optimizers",),
    "vrbench/models": ("vrbench.models",),
    "vrbench/report": ("vrbench.report", "vrbench.records", "vrbench.index", "vrbench.runs"),
    "vrbench/runs": ("vrbench.runs", "vrbench.records", "vrbench.contracts", "vrbench.redact"),
    "tasks": ("tasks", "vrbench.contracts", "vrbench.data", "vrbench.models"),
    "vrbench": ("vrbench",),
}
"""What of our own each folder may import; the first folder that holds a file decides."""


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def broken_rules(folder: str, path: Path) -> list[str]:
    ours = [name for name in imported(path) if name.split(".")[0] in OURS]
    return [name for name in ours if not any(f"{name}.".startswith(f"{allowed}.") for allowed in ALLOWED[folder])]


def house() -> list[tuple[str, Path]]:
    files = []
    for path in sorted(ROOT.glob("*/**/*.py")):
        relative = path.relative_to(ROOT).as_posix()
        folder = next((folder for folder in ALLOWED if relative.startswith(f"{folder}/")), None)
        if folder is not None:
            files.append((folder, path))
    return files


@pytest.mark.parametrize(("folder", "path"), house(), ids=lambda value: str(value).removeprefix(str(ROOT)))
def test_imports_run_one_way(folder: str, path: Path) -> None:
    assert broken_rules(folder, path) == []


def test_the_rules_catch_a_breach(tmp_path: Path) -> None:
    guilty = tmp_path / "x.py"
    guilty.write_text("from vrbench.trainer import Trainer\n")
    assert broken_rules("tasks", guilty) == ["vrbench.trainer.Trainer"]


HOMES = {"hydra": {"cli.py", "sweepers.py", "ray_launcher.py", "refusals.py"}, "wandb": {"loggers.py"}}


@pytest.mark.parametrize("library", HOMES)
def test_only_these_files_import(library: str) -> None:
    importers = {p.name for _, p in house() if any(name.split(".")[0] == library for name in imported(p))}
    assert importers == HOMES[library]


def cpu_seconds_of_children() -> float:
    """Processor time, which other work on the machine does not stretch; on an idle one it is the wall's."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("arguments", [["--cfg", "job"], ["--help"]], ids=" ".join)
def test_looking_at_the_config_is_light(arguments: list[str]) -> None:
    script = (
        "import sys; sys.argv = ['vrbench', *sys.argv[1:]]\n"
        "from vrbench.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'wandb', 'matplotlib', 'torchvision', 'transformers', 'diffusers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    best = float("inf")
    for _ in range(3):
        before = cpu_seconds_of_children()
        result = subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True)
        best = min(best, cpu_seconds_of_children() - before)
        assert result.returncode == 0, result.stderr
    assert "optimizer" in result.stdout
    assert best < 1.5
