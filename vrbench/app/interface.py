"""What `vrbench` does from the command line, called from Python: `vrbench.run`, `vrbench.sweep`, `vrbench.check`."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from vrbench.app import command_line, project
from vrbench.app.check import GROUPS, Kit, Result
from vrbench.app.jobs import RunFailed
from vrbench.app.main import job
from vrbench.app.plugins import add_plugins
from vrbench.app.refusals import ConfigError
from vrbench.app.run import run as train
from vrbench.runs.records import Run

if TYPE_CHECKING:
    from vrbench.report.loading import Runs

Words = Sequence[str] | str
Folders = Sequence[str | Path]


def run(overrides: Words = (), config_dir: Folders = ()) -> Run:
    """Train the run that these overrides describe, unless it is over already, and return it.

        vrbench.run(["task=digits", "optimizer=vradam", "optimizer.lr=0.01"])

    The project in the working directory is used as on the command line; `config_dir` are further config folders.
    Raises ConfigError (a ValueError) for a wrong choice, in one line, and what the run itself raises; KeyboardInterrupt
    once it has saved its state, where it was interrupted: the same call goes on from there.
    """
    words = _words(overrides)
    with _hydra(words, config_dir):
        config = compose("config", words, return_hydra_config=True)
        if config.hydra.mode == RunMode.MULTIRUN:
            raise ConfigError(f"{' '.join(words)}: is a multirun: call vrbench.sweep")
        hydra = HydraConfig.instance()
        before = hydra.cfg
        hydra.set_config(config)
        try:
            return Run(train(config))
        finally:
            hydra.cfg = before


def sweep(overrides: Words, config_dir: Folders = ()) -> Runs:
    """Run a multirun (`seed=0,1,2`), a search (`sweep=tune`) or a confirmation, and return its runs.

        vrbench.sweep(["task=digits", "optimizer=vradam,adamw", "seed=range(3)"])

    Raises ConfigError before anything is trained, RunFailed where a run broke or was stopped: the others are over, and
    the same call goes on. KeyboardInterrupt as in `run`.
    """
    from vrbench.report.loading import load

    words = _words(overrides)
    with _hydra(words, config_dir):
        engine = GlobalHydra.instance().hydra
        assert engine is not None
        multirun = [*words, "hydra.mode=MULTIRUN"]
        folders = engine.multirun("config", job, multirun, with_log_configuration=False)
    return load(*folders, tuning=True)


def check(part: str, *overrides: str, config_dir: Folders = ()) -> list[Result]:
    """Try a part against the contract of its kind: `vrbench.check("optimizer=mine")`.

    Every property gives a result; `result.is_wrong` says whether the part breaks it, `result.reason` how. `overrides`
    hold besides. Raises ConfigError where there is no such part.
    """
    group, _, choice = part.partition("=")
    if group not in GROUPS:
        raise ConfigError(f"{part}: name a part: {', '.join(f'{group}=…' for group in GROUPS)}")
    project.enter(project.current())
    with _refusals([part, *overrides]):
        kit = Kit(project.config_dirs(map(Path, config_dir)), overrides)
        return list(kit.check(group, choice))


def _words(overrides: Words) -> list[str]:
    return [command_line.at_home(word) for word in ([overrides] if isinstance(overrides, str) else overrides)]


@contextlib.contextmanager
def _hydra(words: Sequence[str], config_dir: Folders) -> Iterator[None]:
    """Within the block Hydra composes from vrbench's config folders, and errors are those that `run` promises."""
    project.enter(project.current())
    project.use(project.config_dirs(map(Path, config_dir)))
    add_plugins()
    with _refusals(words), initialize_config_dir(str(project.CONF), version_base="1.3"):
        try:
            yield
        except SystemExit as stop:
            if stop.code == 128 + signal.SIGINT:
                raise KeyboardInterrupt from None
            raise RunFailed(int(stop.code or 0), "stopped") from None


@contextlib.contextmanager
def _refusals(words: Sequence[str]) -> Iterator[None]:
    """Within the block every error of the user is a ConfigError of one line."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, ValidationError) as error:
        raise ConfigError(command_line.told(error, words)) from error
