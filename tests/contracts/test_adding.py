"""Adding a part is one file and one YAML, for each of the seven kinds: in a checkout, and outside with the wheel."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from vrbench.app.new import GROUPS

NAME = "homemade"
MAKE = f"from pathlib import Path; from vrbench.app import new; [new.part(k, {NAME!r}, Path.cwd()) for k in new.GROUPS]"
"""As `vrbench new` seven times, in one process."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RUN = ("trainer.max_steps=4", "trainer.eval_every=2", "trainer.log_every=2", "trainer.threads=1", "trainer.device=cpu")
CHOSEN = tuple(f"{group}={NAME}" for group in ("optimizer", "task", "model", "schedule", "probe", "logger"))
SPOILED = {
    "optimizers/spoiled.py": "class Spoiled:\n    def __init__(self, params, lr): raise NameError('lost')\n",
    "conf/optimizer/spoiled.yaml": "_target_: vrbench.optimizers.spoiled.Spoiled\n_partial_: true\nlr: 0.1\n",
    "tasks/spoiled.py": "class Spoiled:\n    def __init__(self, name): raise NameError('lost')\n",
    "conf/task/spoiled.yaml": "# @package _global_\ntask: {_target_: vrbench.tasks.spoiled.Spoiled, name: spoiled}\n",
    "vrbench/models/spoiled.py": "def spoiled(input_shape, output_dim): raise RuntimeError('lost')\n",
    "conf/model/spoiled.yaml": "_target_: vrbench.models.spoiled.spoiled\n_partial_: true\n",
}


def environment_of(wheel: Path | None) -> dict[str, str]:
    """The variables of a process in this environment; with a wheel, for its dependencies and without this checkout."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VRBENCH_PROJECT")}
    environment |= {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    if wheel is not None:
        libraries = [path for path in sys.path if path.endswith("site-packages")]
        environment["PYTHONPATH"] = os.pathsep.join([str(wheel), *libraries])
    return environment


def python(where: Path, *words: str, wheel: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, as in this environment; or with the wheel and its dependencies and without this checkout.

    A .pth file puts the checkout on the path of this environment: -S leaves such files unread.
    """
    flags = [] if wheel is None else ["-S"]
    return subprocess.run(
        [sys.executable, *flags, *words], cwd=where, env=environment_of(wheel), capture_output=True, text=True
    )


def succeeded(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, f"{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
    return result.stdout


def is_a_whole_run(folder: Path) -> bool:
    """All seven parts have done their work: the loop, the probe, the logger."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    probed = [row["step"] for row in rows if "homemade/largest" in row]
    steps = [int(line) for line in (folder / f"{NAME}.txt").read_text().split()]
    return summary["status"] == "finished" and probed == [2, 4] and steps == [row["step"] for row in rows]


def space_of(results: Path) -> dict[str, object]:
    """The space of the only search below a folder, after all of its trials."""
    (path,) = results.glob("*/search/*/trials.json")
    found = json.loads(path.read_text())
    assert found["finished"] == found["budget"] == 2
    return dict(found["settings"]["space"]["optimizer"])


SPACE = {"lr": {"low": 1e-3, "high": 0.1, "log": True}, "momentum": [0.0, 0.9]}


# ---- in a checkout --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree, itself a repository, with the seven parts added."""
    root: Path = tmp_path_factory.mktemp("checkout") / "copy"
    tracked = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split("\n")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    before = set(files_of(root))
    succeeded(python(root, "-c", MAKE))
    added = {path for path in files_of(root) if "__pycache__" not in path.parts} - before
    assert len(added) == 3 * len(GROUPS) == 21  # a file, a YAML, a test
    assert {path.stem for path in added} == {NAME, *(f"test_{NAME}_{kind}" for kind in GROUPS)}
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    subprocess.run(["git", "add", "."], cwd=root, check=True)
    return root


def files_of(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.is_file())


def test_every_test_of_the_copy_that_speaks_of_an_added_part_passes(copy: Path) -> None:
    pytest_ = ("-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow", "-rfE")
    said = succeeded(python(copy, *pytest_, "tests", "-k", NAME, "--deselect", "tests/contracts/test_adding.py"))
    assert "failed" not in said
    kit = succeeded(python(copy, *pytest_, "tests/contracts/test_contracts.py", "-k", NAME, "--collect-only"))
    for group in GROUPS.values():
        assert f"{group}={NAME}-" in kit
    succeeded(python(copy, *pytest_, "tests/test_house.py", "-k", "one_way or map"))
    succeeded(python(copy, *pytest_, "tests/app/test_listing.py", "tests/scripts/test_plot_schedules.py"))


def test_the_copy_runs_and_searches_with_them(copy: Path, tmp_path: Path) -> None:
    vrbench = ("-m", "vrbench")
    where = f"results_dir={tmp_path}"
    succeeded(python(copy, *vrbench, *CHOSEN, *RUN, where, "study=plain"))
    (run,) = (tmp_path / "plain").iterdir()
    assert is_a_whole_run(run)
    succeeded(python(copy, *vrbench, "-m", *CHOSEN, *RUN, where, "sweep=tune", "hydra.sweeper.n_trials=2", "study=t"))
    assert space_of(tmp_path) == SPACE
    text = ("task=pydoc", f"task/tokenizer={NAME}", "model=lstm", "model.width=16", "task.context=16")
    succeeded(python(copy, *vrbench, *text, *RUN, where, "logger=none", "study=text"))


def test_the_kit_fails_on_what_is_spoiled(copy: Path) -> None:
    """A part whose constructor raises is a failure, and no skip."""
    for name, text in SPOILED.items():
        (copy / name).write_text(text)
    try:
        pytest_ = ("-m", "pytest", "-p", "no:cacheprovider", "-rsf", "tests/contracts/test_contracts.py")
        result = python(copy, *pytest_, "-k", "spoiled and (says_what_it_is or does_for_a_task or quadratic)")
        assert result.returncode == 1, result.stdout
        for part in ("optimizer", "task", "model"):
            assert f"FAILED tests/contracts/test_contracts.py::test_contract[{part}=spoiled" in result.stdout
        assert "SKIPPED" not in result.stdout
    finally:
        for name in SPOILED:
            (copy / name).unlink()


# ---- from outside ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel in it, as `pip install --target` lays it out."""
    folder: Path = tmp_path_factory.mktemp("wheel")
    build = ("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist"), str(ROOT))
    succeeded(python(folder, *build))
    (wheel,) = (folder / "dist").glob("*.whl")
    install = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target")
    succeeded(python(folder, *install, str(folder / "site"), str(wheel)))
    assert {"optimizers", "tasks"}.isdisjoint(path.name for path in (folder / "site").iterdir())
    for file in ("vrbench/py.typed", "vrbench/app/references.bib", "vrbench-*.dist-info/licenses/LICENSE"):
        assert list((folder / "site").glob(file)), file
    return folder / "site"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the user's: conf/, and folders for each kind, some called as ours (tasks/, optimizers/)."""
    root: Path = tmp_path_factory.mktemp("project")
    succeeded(python(root, "-c", MAKE))
    for name in ("optimizers", "tasks"):
        (root / name / "__init__.py").write_text("")
    return root


def test_the_wheel_runs_and_searches_with_parts_of_a_project(site: Path, project: Path) -> None:
    where = ("-c", "import vrbench; print(vrbench.__file__)")
    assert succeeded(python(project, *where, wheel=site)).startswith(str(site))
    vrbench = (str(site / "bin/vrbench"),)
    succeeded(python(project, *vrbench, *CHOSEN, *RUN, "study=plain", wheel=site))
    (run,) = (project / "results/runs/plain").iterdir()
    assert is_a_whole_run(run)
    code = json.loads((run / "manifest.json").read_text())["code"]["files"]
    assert {f"{kind}s/{NAME}.py" for kind in ("optimizer", "task", "model", "schedule", "probe")} <= code.keys()
    search = ("sweep=tune", "hydra.sweeper.n_trials=2", "study=searched")
    succeeded(python(project, *vrbench, "-m", *CHOSEN, *RUN, *search, wheel=site))
    assert space_of(project / "results/runs") == SPACE
    text = ("task=pydoc", f"task/tokenizer={NAME}", "model=lstm", "model.width=16", "task.context=16", "logger=none")
    succeeded(python(project, *vrbench, *text, *RUN, "study=text", wheel=site))


def test_the_wheel_is_small_and_claims_one_name(site: Path) -> None:
    (wheel,) = (site.parent / "dist").glob("*.whl")
    assert wheel.stat().st_size < 1_000_000
    with zipfile.ZipFile(wheel) as archive:
        names = {name.partition("/")[0] for name in archive.namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"vrbench"}


def test_the_wheels_quickstart_leaves_out_what_is_not_installed(site: Path, tmp_path: Path) -> None:
    bare = "import sys; sys.modules['diffusers'] = None; from vrbench.app.main import main; main()"
    words = ("experiment=quickstart", "task=digits,diffusion_digits", "optimizer=sgd", "seed=0", *RUN)
    result = python(tmp_path, "-c", bare, *words, wheel=site)
    assert "| accuracy ↑ " in succeeded(result)
    (line,) = result.stderr.splitlines()
    assert line.endswith("(task.sampler: needs diffusers: pip install 'vrbench[diffusion]')")


def test_the_wheel_tries_them_against_their_contracts(site: Path, project: Path) -> None:
    check = (str(site / "bin/vrbench"), "check")
    everything = tuple(f"{group}={NAME}" for group in GROUPS.values())
    said = succeeded(python(project, *check, *everything, wheel=site))
    for group in GROUPS.values():
        assert f"{group}={NAME} states_every_argument: ok" in said
    assert ": absent" not in said
    file = project / f"optimizers/{NAME}.py"
    text = file.read_text()
    file.write_text(text.replace('alpha=-group["lr"]', "alpha=-0.01"))
    try:
        result = python(project, *check, f"optimizer={NAME}", wheel=site)
        assert result.returncode == 1, result.stdout
        assert f"optimizer={NAME} groups_have_their_own_rate: failed a group with lr 0 has moved" in result.stdout
    finally:
        file.write_text(text)


def test_the_page_on_a_project_of_ones_own_as_it_stands(site: Path, tmp_path: Path) -> None:
    """Its commands, from an empty folder with the wheel alone to a verdict."""
    page = (ROOT / "docs/your_own_project.md").read_text()
    commands = [line.strip() for line in page.splitlines() if re.match(r"    (vrbench|cd|python) ", line)]
    assert len(commands) > 8
    bin = tmp_path / "bin"
    bin.mkdir()
    for name, what in (("vrbench", f"-S {site / 'bin/vrbench'}"), ("python", "-S")):
        (bin / name).write_text(f'#!/bin/sh\nexec {sys.executable} {what} "$@"\n')
        (bin / name).chmod(0o755)
    (tmp_path / "empty").mkdir()
    environment = environment_of(site) | {"PATH": os.pathsep.join([str(bin), os.environ["PATH"]])}
    script = "\n".join(["set -ex", *commands])
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path / "empty", env=environment, capture_output=True, text=True
    )
    succeeded(done)
    assert "all of the properties hold" in done.stdout
    assert re.search(r"2 passed", done.stdout)
    assert re.search(r"\| digits \| mlp \| accuracy ↑ .* for this tuning \|$", done.stdout, re.MULTILINE)
