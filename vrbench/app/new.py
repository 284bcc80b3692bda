"""`vrbench new <kind> NAME`: a part to begin with, and it runs: its file, its YAML, its test. docs/your_own_project.md

    vrbench new optimizer my_rule       also: task, model, schedule, probe, logger, tokenizer
    vrbench new project my_lab          a folder for parts of your own

In a project the file lies in its package, `my_lab/optimizers/my_rule.py`; where there is no package, in
`optimizers/my_rule.py`; in a checkout of vrbench, where parts of that kind lie there. Nothing is ever written over.
"""

from __future__ import annotations

import argparse
import keyword
import re
from collections.abc import Sequence
from pathlib import Path

from vrbench.app.project import CONF, current
from vrbench.app.refusals import ConfigError, offer, say

TEMPLATES = Path(__file__).with_name("templates")

GROUPS = {kind: kind for kind in ("optimizer", "task", "model", "schedule", "probe", "logger")} | {
    "tokenizer": "task/tokenizer"
}
"""The kinds of parts, with their config groups."""
IN_CHECKOUT = {
    "optimizer": ("optimizers", "tests/optimizers"),
    "task": ("tasks", "tests/tasks"),
    "model": ("vrbench/models", "tests/models"),
    "schedule": ("vrbench/training", "tests/training"),
    "probe": ("vrbench/probes", "tests/probes"),
    "logger": ("vrbench/loggers", "tests/loggers"),
    "tokenizer": ("vrbench/data", "tests/data"),
}
"""Where the parts of each kind lie in a checkout, and their tests."""
PROJECT = "project"


def part(kind: str, name: str, root: Path) -> list[Path]:
    """Write a part of this kind below `root`; its files. Raises ConfigError where one of them or the name is taken."""
    group = GROUPS[kind]
    checkout = (root / "conf").resolve() == CONF.resolve()
    source, tests = IN_CHECKOUT[kind] if checkout else (_folder(kind, root), "tests")
    module = f"{source}/{name}".replace("/", ".")
    if checkout and not module.startswith("vrbench."):
        module = f"vrbench.{module}"
    values = {
        "name": name,
        "Name": "".join(word.capitalize() for word in name.split("_")),
        "module": module.removeprefix("src."),
        "group": group,
    }
    conf = Path("conf") if checkout else _conf(root)
    if (CONF / group / f"{name}.yaml").exists():
        raise ConfigError(f"{group}={name} is vrbench's own: take another name")
    return _write(
        root,
        {
            f"{source}/{name}.py": (f"{kind}.py", values),
            f"{conf}/{group}/{name}.yaml": (f"{kind}.yaml", values),
            f"{tests}/test_{name}_{kind}.py": ("test.py", values),
        },
    )


def project(name: str, root: Path) -> list[Path]:
    """Write a project of this name into `root`; the files. Raises ConfigError where the folder is there already."""
    if (root / name).exists():
        raise ConfigError("there is something of that name here")
    values = {"name": name}
    files = {"pyproject.toml": "pyproject.toml", "README.md": "README.md", "plan.yaml": "plan.yaml",
             ".gitignore": "gitignore", f"{name}/__init__.py": "init.py"}  # fmt: skip
    written = _write(root, {f"{name}/{file}": (f"project/{text}", values) for file, text in files.items()})
    for folder in ("conf", "tests"):
        (root / name / folder).mkdir()
    return written


def _folder(kind: str, root: Path) -> str:
    """Where a project keeps parts of this kind: in its package, if it has one."""
    name = _package_name(root)
    package = next((one for one in (name, f"src/{name}") if (root / one / "__init__.py").is_file()), "")
    folder = "tokenization" if kind == "tokenizer" else f"{kind}s"  # `tokenizers` is a library's
    return f"{package}/{folder}".lstrip("/")


def _package_name(root: Path) -> str:
    """What a package of the project is called: as pyproject.toml says, or as the folder is."""
    file = root / "pyproject.toml"
    found = re.search(r'^name = "([^"]+)"', file.read_text(encoding="utf-8"), re.MULTILINE) if file.is_file() else None
    return re.sub(r"[-.]+", "_", found[1] if found else root.resolve().name).lower()


def _conf(root: Path) -> Path:
    """The project's first config folder."""
    folders = current().config_dirs
    return folders[0].relative_to(root) if folders and folders[0].is_relative_to(root) else Path("conf")


def _write(root: Path, files: dict[str, tuple[str, dict[str, str]]]) -> list[Path]:
    """Write each file from its template and the values in it. Raises ConfigError, before any, where one is there."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    for file in files:
        if (root / file).exists():
            raise ConfigError(f"{file}: is there already")
    for file, (template, values) in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(environment.get_template(f"{template}.jinja").render(values), encoding="utf-8")
    return [root / file for file in files]


def main(words: Sequence[str]) -> int:
    """Answer `vrbench new` with these words after it; the exit code."""
    parser = argparse.ArgumentParser(
        prog="vrbench new", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", help=", ".join([*GROUPS, PROJECT]))
    parser.add_argument("name", help="a name as Python's: letters, digits and _")
    options = parser.parse_args(list(words))
    kind, name, root = options.kind, options.name, Path.cwd()
    if kind not in (*GROUPS, PROJECT):
        return say(f"new {kind}: no such kind; {offer(kind, [*GROUPS, PROJECT], 'vrbench new')}", 2)
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        return say(f"new {kind} {name}: must be small letters, digits and _, and no word of Python's", 2)
    try:
        written = project(name, root) if kind == PROJECT else part(kind, name, root)
    except (ConfigError, OSError) as error:
        return say(f"new {kind} {name}: {error}", 2)
    print(*(path.relative_to(root) for path in written), sep="\n")
    if kind == PROJECT:
        print(f"next: cd {name}, then vrbench new optimizer my_rule")
    else:
        print(f"next: vrbench check {GROUPS[kind]}={name}")
    return 0
