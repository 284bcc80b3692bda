"""Private names of other packages are used where docs/dependencies.md lists them, and nowhere else."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.version import Version
from scipy import stats

from vrbench.metrics.image_quality import frechet_distance, moments
from vrbench.report.statistics import sign_flip

ROOT = Path(__file__).parents[1]
TREES = ("vrbench", "optimizers", "tasks", "scripts")
DOCUMENTED = {"_asdict", "_replace", "_fields", "_target_"}
"""Of named tuples, which document them, and the key of a config."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in DOCUMENTED


def defined(tree: ast.AST) -> set[str]:
    """Every name that a file defines: functions, classes, variables, attributes that are assigned on self or cls."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            names.add(node.attr)
    return names


def is_self(node: ast.AST) -> bool:
    called_super = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"
    return called_super or (isinstance(node, ast.Name) and node.id in ("self", "cls"))


def modules(tree: ast.AST) -> dict[str, str]:
    """What the names that a file imports stand for; those of relative imports begin with a point."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            names |= {alias.asname or alias.name: f"{module}.{alias.name}" for alias in node.names}
    return names


def is_foreign(module: str) -> bool:
    """Whether a module is neither ours nor of the standard library."""
    top = module.split(".")[0]
    return top not in (*TREES, "") and top not in sys.stdlib_module_names


def own_objects(tree: ast.AST) -> set[str]:
    """The classes of a file, and the variables that hold an object which the file makes of one of them."""
    classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    made = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name)
        for target in node.targets
        if isinstance(target, ast.Name) and node.value.func.id in (*classes, "cls")
    }
    return classes | made


def private_names(tree: ast.AST, ours: set[str]) -> Iterator[str]:
    """The private names that a file uses of other packages; `ours` are the names that any file of ours defines.

    A private attribute is ours on self and cls where a file of ours defines it, on modules of ours, on classes of the
    same file and on objects made of them. What else has one is taken for another package's.
    """
    imports, own = modules(tree), own_objects(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                module = f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
                level = node.level if isinstance(node, ast.ImportFrom) else 0
                if level == 0 and is_foreign(module) and any(is_private(part) for part in module.split(".")):
                    yield module
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            root = node.value.id if isinstance(node.value, ast.Name) else ""
            if is_self(node.value) and node.attr in ours:
                continue
            if root in own or (root in imports and not is_foreign(imports[root])):
                continue
            yield f"{root}.{node.attr}" if root in imports else node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
            by_name, name = node.func.id in ("getattr", "setattr", "hasattr", "delattr"), node.args[1]
            value = name.value if by_name and isinstance(name, ast.Constant) else None
            if isinstance(value, str) and is_private(value) and value not in ours:
                yield value


def listed() -> list[tuple[str, str]]:
    """The pairs (file, name) of the first table of docs/dependencies.md; both may be patterns."""
    text = (ROOT / "docs" / "dependencies.md").read_text()
    section = re.search(r"## Private names\n(.*?)\n## ", text, re.S)
    assert section is not None
    pairs = []
    for row in section[1].splitlines():
        if row.startswith("| `"):
            names, files = (re.findall(r"`([^`]+)`", cell) for cell in row.split("|")[1:3])
            pairs += [(file, name) for file in files for name in names]
    assert pairs
    return pairs


def used() -> set[tuple[str, str]]:
    trees = {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
        for folder in TREES
        for path in sorted((ROOT / folder).rglob("*.py"))
    }
    ours = set().union(*map(defined, trees.values()))
    return {(file, name) for file, tree in trees.items() for name in private_names(tree, ours)}


def test_private_names_of_other_packages_are_the_listed_ones() -> None:
    found, allowed = used(), listed()
    unlisted = {pair for pair in found if not any(all(map(fnmatchcase, pair, one)) for one in allowed)}
    assert not unlisted, "use a public name, or say in docs/dependencies.md why there is none"
    unused = {one for one in allowed if not any(all(map(fnmatchcase, pair, one)) for pair in found)}
    assert not unused, "docs/dependencies.md lists what is gone"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("from torch.nn.modules.batchnorm import _NormBase", "torch.nn.modules.batchnorm._NormBase"),
        ("import torch._dynamo as d", "torch._dynamo"),
        ("from hydra._internal import utils", "hydra._internal.utils"),
        ("import torch\ntorch._foreach_add_([], [])", "torch._foreach_add_"),
        ("for module in model.modules():\n    module._buffers.clear()", "_buffers"),
        ("print(trial._trial_id)", "_trial_id"),
        ("getattr(trial, '_trial_id')", "_trial_id"),
        ("class A(Optimizer):\n    def step(self):\n        self._health_check()", "_health_check"),
        ("class A:\n    _mine = 1\n\nprint(other._mine)", "_mine"),
    ],
)
def test_a_private_name_is_found(code: str, name: str) -> None:
    tree = ast.parse(code)
    assert list(private_names(tree, defined(tree))) == [name]


@pytest.mark.parametrize(
    "code",
    [
        "class A:\n    def f(self):\n        self._mine = 1\n        return self._mine",
        "class A:\n    _x = 1\n\n    @classmethod\n    def f(cls):\n        a = cls()\n        return a._x + A._x",
        "from vrbench.runs import checkpoint\ncheckpoint._Hashed",
        "from .gate import _add",
        "import os\nimport _thread\nos._exit(0)",
        "print(pair._asdict(), config._target_, model.__class__, torch.float32)",
    ],
)
def test_names_of_ours_and_of_python_are_left_alone(code: str) -> None:
    tree = ast.parse(code)
    assert list(private_names(tree, defined(tree))) == []


# ---- versions -------------------------------------------------------------------------------------------------------


def test_the_oldest_versions_tested_are_those_that_pyproject_allows() -> None:
    """Except of what needs no test of ours: ruff, mypy and type stubs."""
    project = (ROOT / "pyproject.toml").read_text().partition("[project]")[2].partition("[project.scripts]")[0]
    floors = dict(re.findall(r'"([\w-]+)>=([\d.]+)', project))
    oldest = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "constraints-oldest.txt").read_text(), re.M))
    assert {name: Version(version) for name, version in oldest.items()} == {
        name: Version(version) for name, version in floors.items() if name not in ("ruff", "mypy")
    }


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
def test_make_notices_a_venv_of_another_python(tmp_path: Path) -> None:
    """With an interpreter that was asked for; without, whatever made .venv will do."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho 3.6\n")
    python.chmod(0o755)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "MAKEFLAGS")}

    def make(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "--dry-run", "test", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)

    refused = make(f"PYTHON={sys.executable}")
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert f".venv was made by another Python than {sys.executable}: say make clean first" in line
    assert make().returncode == 0
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    assert make(f"PYTHON={sys.executable}").returncode == 0


@pytest.mark.parametrize("module", ["vrbench", "vrbench.app.main", "vrbench.optimizers.vradam", __name__])
def test_a_deprecated_name_that_we_use_is_an_error_in_tests(module: str) -> None:
    with pytest.raises(DeprecationWarning, match="old name"):
        warnings.warn_explicit("old name", DeprecationWarning, "file.py", 1, module=module)


# ---- what notices a change, where nothing else does -----------------------------------------------------------------


def test_a_table_of_datasets_says_what_it_holds() -> None:
    datasets = pytest.importorskip("datasets")
    one, same, other = (datasets.Dataset.from_dict({"x": [value]}) for value in (1, 1, 2))
    assert one._fingerprint == same._fingerprint != other._fingerprint


@pytest.mark.parametrize("pairs", [2, 5, 8])
def test_sign_flips_give_the_p_values_of_scipy(pairs: int) -> None:
    rng = np.random.default_rng(pairs)
    for differences in (rng.normal(0.3, 1, pairs), rng.integers(1, 5, pairs) * rng.choice([-0.1, 0.1], pairs)):
        expected = stats.permutation_test(
            (differences,), np.sum, permutation_type="samples", n_resamples=np.inf, vectorized=False
        ).pvalue
        assert sign_flip(differences) == pytest.approx(expected, rel=1e-12)


def test_the_frechet_distance_is_that_of_torchmetrics() -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")

    class Flat(torch.nn.Module):
        num_features = 4

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)

    one, other = torch.randn(2, 64, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    metric = fid.FrechetInceptionDistance(feature=Flat(), normalize=True)
    metric.update(one, real=False)
    metric.update(other + 0.5, real=True)
    ours = frechet_distance(moments(one.flatten(1)), moments(other.flatten(1) + 0.5))
    assert ours == pytest.approx(float(metric.compute()), rel=1e-6)
