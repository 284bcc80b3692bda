"""The house (DESIGN, CONTRIBUTING): imports run one way, the map is true, and the light entry points stay light."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"optimizers", "tasks", "vrbench", "scripts", "tests"}

CONTRACTS, NORMS, RANDOMNESS = "vrbench.contracts", "vrbench.norms", "vrbench.randomness"
EXTRAS, TERMINAL, VERSION = "vrbench.extras", "vrbench.terminal", "vrbench.__version__"
ALLOWED = {
    "optimizers": (),
    "tasks": (CONTRACTS, *(f"vrbench.{room}" for room in ("data", "environments", "objectives", "metrics", "models"))),
    "vrbench/models": (),
    "vrbench/environments": (),
    "vrbench/objectives": ("vrbench.environments",),
    "vrbench/metrics": ("vrbench.data", "vrbench.runs"),
    "vrbench/data": ("vrbench.runs",),
    "vrbench/probes": (CONTRACTS, NORMS),
    "vrbench/loggers": (CONTRACTS, TERMINAL, "vrbench.runs"),
    "vrbench/runs": (CONTRACTS, TERMINAL),
    "vrbench/training": (CONTRACTS, NORMS, RANDOMNESS, "vrbench.runs"),
    "vrbench/tuning": (CONTRACTS, "vrbench.runs"),
    "vrbench/checks": (CONTRACTS, EXTRAS, RANDOMNESS, "vrbench.training"),
    "vrbench/report": (TERMINAL, VERSION, "vrbench.runs"),
    "vrbench/app": (
        CONTRACTS,
        EXTRAS,
        RANDOMNESS,
        TERMINAL,
        *(f"vrbench.{room}" for room in ("training", "runs", "tuning", "report", "checks", "loggers")),
    ),
    "vrbench/__init__.py": ("vrbench.app", "vrbench.report", "vrbench.runs"),
    "vrbench": (RANDOMNESS, "vrbench.app.main"),
}
"""What of ours each folder may import beside itself; the first folder that holds a file decides."""


@functools.cache
def imported(path: Path) -> set[str]:
    """Full names of all that a file imports; relative imports as names that begin with a point."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def broken_rules(folder: str, path: Path) -> list[str]:
    beside = [folder.replace("/", ".")] if "/" in folder and (ROOT / folder).is_dir() else []
    allowed = [*ALLOWED[folder], *beside]
    names = imported(path)
    broken = [name for name in names if name.startswith("..")]
    for name in names:
        if name.split(".")[0] in OURS and not any(f"{name}.".startswith(f"{one}.") for one in allowed):
            broken.append(name)
    return broken


def house() -> list[tuple[str, Path]]:
    files = []
    for path in sorted(path for top in ("optimizers", "tasks", "vrbench") for path in (ROOT / top).rglob("*.py")):
        relative = path.relative_to(ROOT).as_posix()
        folder = next((folder for folder in ALLOWED if f"{relative}/".startswith(f"{folder}/")), None)
        if folder is not None:
            files.append((folder, path))
    return files


@pytest.mark.parametrize(("folder", "path"), house(), ids=lambda value: str(value).removeprefix(str(ROOT)))
def test_imports_run_one_way(folder: str, path: Path) -> None:
    assert broken_rules(folder, path) == []


@pytest.mark.parametrize(
    ("folder", "line", "name"),
    [
        ("tasks", "from vrbench.training.trainer import Trainer", "vrbench.training.trainer.Trainer"),
        ("tasks", "from tasks.diffusion import Diffusion", "tasks.diffusion.Diffusion"),
        ("vrbench/app", "from vrbench.optimizers import VRAdam", "vrbench.optimizers.VRAdam"),
        ("vrbench/report", "import vrbench.training.trainer", "vrbench.training.trainer"),
        ("optimizers", "from ..vrbench import contracts", "..vrbench.contracts"),
    ],
)
def test_the_rules_catch_a_breach(folder: str, line: str, name: str, tmp_path: Path) -> None:
    guilty = tmp_path / "x.py"
    guilty.write_text(f"{line}\n")
    assert broken_rules(folder, guilty) == [name]


HOMES = {"hydra": "vrbench/app/", "wandb": "vrbench/loggers/wandb.py"}


@pytest.mark.parametrize("library", HOMES)
def test_only_these_files_import(library: str) -> None:
    importers = [
        path.relative_to(ROOT).as_posix()
        for _, path in house()
        if any(name.split(".")[0] == library for name in imported(path))
    ]
    assert importers
    assert [path for path in importers if not path.startswith(HOMES[library])] == []


def test_the_map_in_contributing_is_the_tree() -> None:
    """It names the top-level folders, the rooms of vrbench/ and their modules.

    A module that a YAML of conf/ names is a part: its YAML shows where it is, and the map may leave it out.
    """
    section = re.search(r"## Where things belong\n\n(.*?)\n\n", (ROOT / "CONTRIBUTING.md").read_text(), re.S)
    assert section is not None
    named = set()
    above = ["", "", ""]
    for line in section[1].splitlines():
        depth = (len(line) - len(line.lstrip())) // 2 - 2
        above[depth] = "".join(above[:depth][-1:]) + line.split()[0]
        named.add(above[depth])
    there = {f"{path.parts[0]}/" for path in tracked() if len(path.parts) > 1 and not path.parts[0].startswith(".")}
    ours = tracked("vrbench/*.py")
    there |= {f"{path.parent}/" for path in ours if len(path.parts) > 2}
    there |= {f"{path}" for path in ours if path.parts[1] != "models" and not path.name.startswith("__")}
    yamls = [(ROOT / path).read_text() for path in tracked("conf/*.yaml") if (ROOT / path).exists()]
    targets = re.findall(r"_target_: (vrbench\.\S+)\.\w+", "\n".join(yamls))
    parts = {f"{target.replace('.', '/')}.py" for target in targets}
    assert named - there == set()
    assert there - named - parts == set()


def tracked(pattern: str = "*") -> list[Path]:
    """The files in git that match, relative to the root, but for those that are being deleted."""
    found = subprocess.check_output(["git", "ls-files", pattern], cwd=ROOT, text=True).splitlines()
    return [Path(name) for name in found if (ROOT / name).exists()]


def test_no_python_file_has_more_than_400_lines() -> None:
    lengths = {str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in tracked("*.py")}
    assert len(lengths) > 200
    assert {name: length for name, length in lengths.items() if length > 400} == {}


OTHER_TESTS = {"optimizers", "tasks", "scripts", "contracts", "gpu", "stress"}
"""Folders of tests/ that are no room of vrbench/."""


def test_tests_are_laid_out_as_vrbench_is() -> None:
    """Each folder with tests is a room; a module at the top is of one at the top of vrbench/, or of the whole tree."""
    rooms = {path.parts[1] for path in tracked("vrbench/*.py") if len(path.parts) > 2}
    modules = {path.stem for path in tracked("vrbench/*.py") if len(path.parts) == 2}
    tests = [path for path in tracked("tests/*.py") if path.name.startswith("test_")]
    folders = {"/".join(path.parts[1:-1]) for path in tests if len(path.parts) > 2}
    assert "probes" in folders
    assert folders - rooms - OTHER_TESTS == set()
    top = {path.stem.removeprefix("test_") for path in tests if len(path.parts) == 2}
    assert top - modules - {"house", "dependencies"} == set()


HEAVY = {
    "torch", "torchvision", "transformers", "diffusers", "datasets", "wandb", "matplotlib", "numpy", "scipy",
    "sklearn", "pandas", "pyarrow", "optuna", "ray",
}  # fmt: skip
"""Libraries that take long to import."""


def modules_after(arguments: list[str]) -> tuple[set[str], str]:
    """The modules that a process has imported in which `vrbench` ran with these arguments, and what it printed."""
    script = (
        "import sys; sys.argv = ['vrbench', *sys.argv[1:]]\n"
        "from vrbench.app.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print(*sys.modules, file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return set(result.stderr.split()), result.stdout


def libraries(modules: set[str]) -> set[str]:
    return {name.split(".")[0] for name in modules}


@pytest.mark.parametrize("arguments", [["--cfg", "job"], ["--help"]], ids=" ".join)
def test_looking_at_the_config_is_light(arguments: list[str]) -> None:
    modules, printed = modules_after(arguments)
    assert "optimizer" in printed
    assert "hydra" in modules
    assert libraries(modules) & HEAVY == set()


@pytest.mark.parametrize("optimizer", ["vradam", "adamw"])
def test_a_run_imports_what_it_needs(optimizer: str, tmp_path: Path) -> None:
    """Of the heavy libraries torch and numpy, and numba for VRAdam where it is installed; not torch's compiler."""
    short = ["trainer.max_steps=1", "logger=none", f"results_dir={tmp_path}"]
    modules, _ = modules_after(["task=digits", f"optimizer={optimizer}", *short])
    assert list(tmp_path.glob("*/*/summary.json"))
    numba = {"scipy"} if "numba" in libraries(modules) else set()  # it looks for scipy's linear algebra
    assert libraries(modules) & {*HEAVY, "sympy"} == {"torch", "numpy"} | numba
    assert {name for name in modules if name.startswith(("torch._dynamo.", "torch._inductor"))} == set()
