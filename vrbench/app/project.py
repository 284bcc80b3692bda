"""The project in the working directory: its config folders join vrbench's own, its modules can be imported.

A folder `conf/` that has any of vrbench's groups in it (conf/optimizer, say) makes a project; nothing has to be set up.
Where the YAMLs or the modules lie elsewhere, its pyproject.toml says so:

    [tool.vrbench]
    config-dir = ["conf", "../shared_conf"]
    python-path = ["src"]
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig

from vrbench.app.refusals import ConfigError, offer

_PACKAGE = Path(__file__).parents[1]
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""vrbench's own config folder: inside the installed package, or beside it in a checkout."""

TABLE = "[tool.vrbench]"
_SAID = "VRBENCH_PROJECT"
"""Variable that holds the project that this process or the one that started it has spoken of."""
_FOLDERS = ("config-dir", "python-path")


@dataclass(frozen=True)
class Project:
    """What a working directory adds to vrbench; nothing where it is no project."""

    root: Path
    config_dirs: tuple[Path, ...] = ()
    python_path: tuple[Path, ...] = ()
    """Folders to import from, besides the root."""


def find(root: Path) -> Project:
    """The project in a folder. Raises ConfigError for a wrong `[tool.vrbench]` in its pyproject.toml."""
    stated = _stated(root)
    conf = root / "conf"
    own = {path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra"}
    if "config-dir" in stated:
        config_dirs = _folders(root, "config-dir", stated["config-dir"])
    elif conf.is_dir() and any((conf / group).is_dir() for group in own):
        config_dirs = [conf]
    else:
        config_dirs = []
    others = tuple(folder for folder in config_dirs if folder.resolve() != CONF.resolve())
    return Project(root, others, tuple(_folders(root, "python-path", stated.get("python-path", []))))


def _stated(root: Path) -> dict[str, Any]:
    """The table [tool.vrbench] of the folder's pyproject.toml, empty where there is none."""
    file = root / "pyproject.toml"
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    if TABLE not in text:
        return {}
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        stated = tomllib.loads(text)["tool"]["vrbench"]
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: {error}") from error
    for key in stated:
        if key not in _FOLDERS:
            raise ConfigError(f"{file}: {TABLE} {key}: no such key; {offer(key, [*_FOLDERS], TABLE)}")
    return dict(stated)


def _folders(root: Path, key: str, names: Any) -> list[Path]:
    """Folders that pyproject.toml names, in the root. Raises ConfigError where one is not there."""
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{root / 'pyproject.toml'}: {TABLE} {key}={names}: must be a folder, or a list of folders")
    for name in names:
        if not (root / name).is_dir():
            raise ConfigError(f"{root / 'pyproject.toml'}: {TABLE} {key}={name}: no such folder")
    return [root / name for name in names]


def enter(project: Project) -> None:
    """Make the project's modules importable, here and in processes that are started from here, and say so once."""
    paths = [str(path.resolve()) for path in project.python_path]
    if project.config_dirs or paths:
        inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        wanted = [path for path in (str(project.root), *paths) if path not in inherited]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [*wanted, *inherited]))
    safe = getattr(sys.flags, "safe_path", False)  # python -P, where a person wants no folder but those given
    for path in [*reversed(paths), *([] if safe else [str(project.root)])]:
        if path not in sys.path:
            sys.path.insert(0, path)
    root = str(project.root)
    if project.config_dirs and os.environ.get(_SAID) != root and os.environ.get("RANK", "0") == "0":
        names = ", ".join(os.path.relpath(folder, project.root) for folder in project.config_dirs)
        print(f"vrbench: uses {names} and the modules of this folder", file=sys.stderr)
    os.environ[_SAID] = root


def current() -> Project:
    """The project in the working directory. Raises as `find` does."""
    return find(Path.cwd())


def config_dirs(given: Iterable[Path] = ()) -> list[Path]:
    """The config folders besides vrbench's own: those given, then the project's.

    Raises ConfigError for one that is not there.
    """
    folders = []
    for folder in given:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir={folder}: no such folder")
        folders.append(folder)
    every = {folder.resolve(): None for folder in [*folders, *current().config_dirs]}
    every.pop(CONF.resolve(), None)
    return list(every)


class ConfigDirs(SearchPathPlugin):
    """Hydra plugin: the config folders besides vrbench's own."""

    folders: ClassVar[Sequence[Path]] = ()

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Hydra's way to ask for them."""
        for folder in self.folders:
            search_path.append(ConfigDirs.__name__, f"file://{folder}")


def use(folders: Sequence[Path]) -> None:
    """Make Hydra look into these config folders too, and into none of an earlier call."""
    ConfigDirs.folders = folders
    Plugins.instance().register(ConfigDirs)


def given_dirs(cfg: DictConfig) -> list[str]:
    """The config folders that a composed config has besides vrbench's own and the project's: from --config-dir."""
    own = {str(folder.resolve()) for folder in current().config_dirs}
    sources = cfg.hydra.runtime.config_sources
    return [source.path for source in sources if source.provider == ConfigDirs.__name__ and source.path not in own]


def refuse_twins(hydra: Any) -> None:
    """Raises ConfigError where a chosen YAML lies in two config folders: Hydra takes the first and says nothing."""
    sources = [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]
    if len(sources) < 2:
        return
    for key, choice in hydra.runtime.choices.items():
        group = str(key).partition("@")[0]
        files = [path for folder in sources if (path := folder / group / f"{choice}.yaml").is_file()]
        if len(files) > 1:
            raise ConfigError(f"{group}={choice}: is in two config folders, {files[0]} and {files[1]}: rename yours")
