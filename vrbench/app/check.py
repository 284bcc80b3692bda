"""Parts of the config tried against their contracts (vrbench.checks): of conf/, and of a user's own config folder.

    vrbench check optimizer=mine task=mine task/tokenizer=mine

tries each part that is named; what is given besides (`task.batch_size=8`) holds for all. Parts are looked for in the
project in the working directory, in the folders of `--config-dir`, and in vrbench. A part that needs data of a
hub or a library that are not on this machine is said to be absent; everything else that goes wrong is a failure.
"""

from __future__ import annotations

import argparse
import functools
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import hydra
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vrbench.app import targets
from vrbench.app.config import typed
from vrbench.app.project import CONF, config_dirs, use
from vrbench.app.refusals import ConfigError, explain, say

GROUPS = ("optimizer", "task", "model", "schedule", "probe", "logger", "task/tokenizer")
"""The config groups whose parts have a contract."""
_HYDRAS = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")

Supply = Callable[[DictConfig], Mapping[str, Any]]


@dataclass(frozen=True)
class Result:
    """What came of one property of one part."""

    group: str
    choice: str
    name: str
    status: str
    """ok, failed, absent, waived, or unneeded: a waiver whose property holds."""
    reason: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether the part breaks its contract, or keeps it where it is excused."""
        return self.status in ("failed", "unneeded")


def checks_of(group: str) -> ModuleType:
    """The module of vrbench.checks that holds a group's properties."""
    import importlib

    return importlib.import_module(f"vrbench.checks.{group.rpartition('/')[2]}s")


def properties_of(group: str) -> dict[str, Callable[[Any], None]]:
    """A group's properties by name."""
    return {check.__name__: check for check in checks_of(group).PROPERTIES}


def waivers() -> dict[str, dict[str, dict[str, str]]]:
    """What a part of ours need not do, by group, choice and property, with the reason."""
    found: dict[str, dict[str, dict[str, str]]] = yaml.safe_load(
        (Path(__file__).parents[1] / "checks/waivers.yaml").read_bytes()
    )
    return found


class Kit:
    """The parts of conf/ and of further config folders, ready to be tried.

    `overrides` hold for every part; `supply` gives keys and values to put into a composed config (where made-up data
    lie, say).
    """

    def __init__(
        self, folders: Sequence[Path] = (), overrides: Sequence[str] = (), supply: Supply = lambda config: {}
    ) -> None:
        self.folders = [folder.resolve() for folder in folders]
        self.overrides = tuple(overrides)
        self.supply = supply
        self.compose = functools.cache(self._compose)
        self.part = functools.cache(self._part)
        self.task_part = functools.cache(self._task_part)

    def choices(self, group: str) -> list[str]:
        """The YAMLs of a group, those of the further folders too."""
        inner = [f"{other.removeprefix(f'{group}/')}/" for other in GROUPS if other.startswith(f"{group}/")]
        names = {
            path.relative_to(folder / group).with_suffix("").as_posix()
            for folder in (CONF, *self.folders)
            for path in (folder / group).rglob("*.yaml")
        }
        return sorted(name for name in names if not name.startswith(tuple(inner)))

    def _compose(self, *overrides: str) -> DictConfig:
        """The config of a run with these overrides and with what is supplied."""
        use(self.folders)
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose("config", [*overrides, *self.overrides], return_hydra_config=True)
        for key, value in self.supply(config).items():
            OmegaConf.update(config, key, value)
        return config

    def _part(self, group: str, choice: str) -> Any:
        """The part that a YAML makes, as the properties of its group take it. Raises ConfigError for a wrong config."""
        if group == "task":
            return self.task_part(f"task={choice}")
        if group == "task/tokenizer":
            return self._tokenizer(choice)
        config = _ready(self.compose(f"{group}={choice}"))
        node = config[group]
        if group in ("probe", "logger"):
            return self._several(group, config)
        checks = checks_of(group)
        if group == "optimizer":
            return checks.OptimizerPart(lambda params, **own: _made(_build(node, **own), params), *_stated(node))
        if group == "schedule":
            return checks.SchedulePart(_build(node), *_stated(node))
        make = lambda shape, outputs: _call(_build(node), shape, outputs)  # noqa: E731
        return checks.ModelPart(make, *_stated(node), lambda: self._tasks_for(choice))

    def _several(self, group: str, config: DictConfig) -> Any:
        """The probes or loggers of a YAML."""
        checks, nodes = checks_of(group), config[group]
        stated = {str(name): _stated(node) for name, node in nodes.items()}

        def make() -> dict[str, Any]:
            return {str(name): _build(node) for name, node in nodes.items()}

        if group == "logger":
            return checks.LoggerPart(make, stated)
        optimizer = config.optimizer
        task = self.task_part(f"{group}={config.hydra.runtime.choices[group]}")
        return checks.ProbePart(make, stated, task, lambda params: _made(_build(optimizer), params))

    def _task_part(self, *overrides: str) -> Any:
        """The task of a config with the model that it names."""
        from vrbench.checks.tasks import TaskPart

        config = _ready(self.compose(*overrides))
        node, model = config.task, config.model
        data = node.get("data")
        return TaskPart(
            lambda: _build(node),
            *_stated(node),
            lambda shape, outputs: _call(_build(model), shape, outputs),
            None if data is None else lambda: _build(data),
        )

    def _tokenizer(self, choice: str) -> Any:
        """A tokenizer in a task that names it, or else in one that needs no other data."""
        from vrbench.checks.tokenizers import TokenizerPart

        tasks = [name for name in self.choices("task") if "tokenizer" in self.compose(f"task={name}").task]
        own = [name for name in tasks if self._chosen(name, "task/tokenizer") == choice]
        embedded = [name for name in tasks if self._is_embedded(name)]
        config = _ready(self.compose(f"task={[*own, *embedded][0]}", f"task/tokenizer={choice}"))
        node = config.task.tokenizer
        return TokenizerPart(lambda: _build(node), *_stated(node))

    def _tasks_for(self, model: str) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Tasks to try a model in: those that name it, then those whose data need nothing else."""
        given = any(word.startswith("task=") for word in self.overrides)
        names = self.choices("task") if not given else [str(self._chosen("digits", "task"))]
        own = [name for name in names if self._chosen(name, "model") == model]
        others = [name for name in names if name not in own and (given or self._is_embedded(name))]
        for name in dict.fromkeys([*own, *others]):
            yield name, lambda name=name: self.task_part(f"task={name}").fresh()  # type: ignore[misc]

    def _chosen(self, task: str, group: str) -> Any:
        """The YAML that a task has chosen for another group."""
        return self.compose(f"task={task}").hydra.runtime.choices.get(group)

    def _is_embedded(self, task: str) -> bool:
        """Whether the data of a task come with vrbench: nothing of it has to be found by a path."""
        data = self.compose(f"task={task}").task.get("data")
        return data is None or "path" not in set(data)  # a value that is missing counts

    def check(self, group: str, choice: str) -> Iterator[Result]:
        """Every property of a part in turn. Raises what Hydra or Python raise where its YAML names nothing there is."""
        from vrbench.checks.contract import Absent, Broken

        excused = waivers().get(group, {}).get(choice, {})
        for name, check in properties_of(group).items():
            waiver = excused.get(name)
            try:
                part = self.part(group, choice)
            except Absent as absent:
                yield Result(group, choice, name, "absent", str(absent))
                continue
            try:
                try_property(check, part)
            except Absent as absent:
                yield Result(group, choice, name, "absent", str(absent))
            except Broken as broken:
                status = "failed" if waiver is None else "waived"
                yield Result(group, choice, name, status, waiver or str(broken))
            except Exception as error:
                yield Result(group, choice, name, "failed", f"{type(error).__name__}: {error}".splitlines()[0])
            else:
                yield Result(group, choice, name, "ok" if waiver is None else "unneeded")


def try_property(check: Callable[[Any], None], part: Any) -> None:
    """Try a property on a part, from one state of torch's generators, which are left as they were.

    Raises Absent where the part cannot be built on this machine, Broken where it has not the property, and whatever the
    part itself raises.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        check(part)


@contextmanager
def _absent_or_raised() -> Iterator[None]:
    """Within the block an error that comes of absent data or libraries is Absent."""
    from vrbench.checks.contract import Absent, absence

    try:
        yield
    except Exception as error:
        if reason := absence(error):
            raise Absent(reason) from error
        raise


def _ready(config: DictConfig) -> DictConfig:
    """The config with its numbers typed, after the rules of what it may build."""
    targets.check(typed(config))
    return config


def _build(node: DictConfig, **settings: Any) -> Any:
    with _absent_or_raised():
        return hydra.utils.instantiate(node, **settings)


def _made(make: Callable[..., Any], params: Any) -> Any:
    """The optimizer of a run of 400 steps in epochs of 10."""
    from vrbench.training.lengths import make_optimizer

    return make_optimizer(make, params, 400, 10)


def _call(make: Callable[..., Any], *arguments: Any) -> Any:
    with _absent_or_raised():
        return make(*arguments)


def _stated(node: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """What a YAML names, and the arguments that it states."""
    with _absent_or_raised():
        return pkgutil.resolve_name(node["_target_"]), {k: v for k, v in node.items() if k not in _HYDRAS}


def main(arguments: list[str] | None = None) -> int:
    """Try the parts that are named; returns 1 where one breaks its contract, 2 for a wrong config, else 0."""
    parser = argparse.ArgumentParser(
        prog="vrbench check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-dir", type=Path, action="append", default=[], help="a config folder of your own")
    parser.add_argument("parts", nargs="+", help="<group>=<choice>, and overrides that hold for all of them")
    options = parser.parse_args(arguments)
    words = [word.partition("=") for word in options.parts]
    named = [(group, choice) for group, _, choice in words if group in GROUPS]
    if not named:
        return say(f"name a part: {', '.join(f'{group}=…' for group in GROUPS)}", 2)
    try:
        folders = config_dirs(options.config_dir)
    except ConfigError as error:
        return say(str(error), 2)
    kit = Kit(folders, [word for word in options.parts if word.partition("=")[0] not in GROUPS])
    wrong = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for group, choice in named:
            try:
                for result in kit.check(group, choice):
                    wrong += result.is_wrong
                    print(f"{group}={choice} {result.name}: {result.status} {result.reason}".rstrip(), flush=True)
            except (
                ConfigError,
                ValueError,
                ImportError,
                AttributeError,
                HydraException,
                OmegaConfBaseException,
            ) as error:
                return say(explain(error), 2)
    print(
        f"{wrong} of the properties do not hold" if wrong else "all of the properties hold, where they could be tried"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
