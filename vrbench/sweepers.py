"""Hydra's sweepers of ours: searches and confirmations. cli.py puts them where Hydra finds plugins."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from vrbench.contracts import TrainerSettings
from vrbench.refusals import ConfigError, blame, checked
from vrbench.runs.identity import FOLLOWS, leaves
from vrbench.runs.source import numbers_typed


class RunFailed(Exception):
    """A run of a multirun failed and has said so; the others go on."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


class _Combinations(Sweeper):
    """What our sweepers share: the combinations of what the command line sweeps, and the launcher to run them with."""

    def __init__(self, params: dict[str, str] | None) -> None:
        self.params = params or {}
        self.launched = 0

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's way to hand over the context."""
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def combinations(self, arguments: list[str]) -> list[list[str]]:
        """The overrides of every combination of `hydra.sweeper.params` and `arguments`, as in Hydra's own sweeper."""
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*(f"{key}={value}" for key, value in self.params.items()), *arguments])
        (batch,) = BasicSweeper.split_arguments(overrides, None)
        return [list(combination) for combination in batch]

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The config, hydra's part included, that a job with these overrides gets."""
        assert self.hydra_context is not None
        assert self.config is not None
        return self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))

    def launch(self, jobs: list[list[str]]) -> list[Path | int]:
        """Run the jobs with the chosen launcher: the folder of each, or the exit code of one that failed."""
        assert self.launcher is not None
        results = self.launcher.launch(jobs, initial_job_idx=self.launched)
        self.launched += len(jobs)
        done: list[Path | int] = []
        for result in results:
            failure = result._return_value
            done.append(failure.code if isinstance(failure, RunFailed) else Path(result.return_value))
        return done


class Grid(_Combinations):
    """Hydra sweeper, and the default: every combination, then the table of each study that they belong to."""

    def __init__(self, params: dict[str, str] | None, max_batch_size: int | None) -> None:
        super().__init__(params)
        self.max_batch_size = max_batch_size

    def sweep(self, arguments: list[str]) -> None:
        """Run them all, at most `max_batch_size` at a time. Raises the first error of a run: each has said its own."""
        assert self.launcher is not None
        jobs = self.combinations(arguments)
        size = self.max_batch_size or len(jobs)
        results: list[Any] = []
        for start in range(0, len(jobs), size):
            results += self.launcher.launch(jobs[start : start + size], initial_job_idx=start)
        done = [result._return_value for result in results]
        from vrbench.report.study import print_study

        for study in dict.fromkeys(Path(folder).parent for folder in done if isinstance(folder, str)):
            print_study(study)
        for failure in done:
            if isinstance(failure, BaseException):
                raise failure


class Tune(_Combinations):
    """Hydra sweeper: a search for each combination of what the command line sweeps. conf/hydra/sweeper/search.yaml"""

    def __init__(self, params: dict[str, str] | None, trial: None, **settings: Any) -> None:
        super().__init__(params)
        self.settings = settings

    def sweep(self, arguments: list[str]) -> None:
        """Spend every search's budget. Raises RunFailed where a config is wrong or a run broke."""
        codes = [self._search(overrides) for overrides in self.combinations(arguments)]
        if any(codes):
            raise RunFailed(max(codes))

    def _search(self, overrides: list[str]) -> int:
        try:
            from vrbench import search
        except ImportError as error:
            raise ConfigError(f"sweep: a search needs Optuna: pip install 'vrbench[search]' ({error})") from error
        if any(override.startswith("seed=") for override in overrides):
            raise ConfigError("seed: a search has seeds of its own; give hydra.sweeper.seeds=[…]")
        composed = self.compose(overrides)
        follows = follows_seed(composed)
        config, chosen = typed(composed), composed.hydra.runtime.choices
        choices = {str(group): str(choice) for group, choice in chosen.items() if choice and _decides(str(group))}
        named = OmegaConf.to_container(composed.hydra.sweeper, resolve=True, throw_on_missing=True)
        assert isinstance(named, dict)
        wanted = {str(key): named[key] for key in self.settings}
        settings = checked(search.SearchSettings, wanted, "hydra.sweeper.")
        base = self.compose([*(f"{group}={choice}" for group, choice in choices.items()), f"sweep={chosen['sweep']}"])
        study = Path(config["results_dir"]) / config["study"]
        here = [f"study={config['study']}/tune", "trainer.evaluate_test=false"]
        with blame("hydra.sweeper"):
            trials = search.Search(study, choices, settings, config, plain(base), follows)
            return trials.spend(lambda jobs: self.launch([[*overrides, *here, *job] for job in jobs]))


class Confirm(_Combinations):
    """Hydra sweeper: the best configuration of every search of the study, on fresh seeds."""

    def __init__(self, params: dict[str, str] | None, table: str, tuned: None) -> None:
        super().__init__(params)
        self.table = table

    def sweep(self, arguments: list[str]) -> None:
        """Run them all. Raises RunFailed where a run failed, ConfigError where the study is not ready."""
        from vrbench import confirmation
        from vrbench.confirmation import literal
        from vrbench.report.study import print_study

        combinations = self.combinations(arguments)
        config = plain(self.compose(combinations[0]))
        seeds = [int(word.removeprefix("seed=")) for job in combinations for word in job if word.startswith("seed=")]
        try:
            found = confirmation.candidates(Path(config["results_dir"]) / config["study"])
            confirmation.check_seeds(found, seeds)
            if config["force"] != "resume":
                confirmation.check_code(found)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        for line in confirmation.cautions(found, seeds):
            print(f"vrbench: {line}", file=sys.stderr)
        study = f"study={config['study']}/{self.table}"
        results = self.launch(
            [[*best.overrides, *job, study, f"hydra.sweeper.tuned={literal(str(best.folder))}"]
             for best in found for job in combinations]
        )  # fmt: skip
        for folder in dict.fromkeys(result.parent for result in results if isinstance(result, Path)):
            print_study(folder)
        if failed := [result for result in results if isinstance(result, int)]:
            raise RunFailed(max(failed))


def _decides(group: str) -> bool:
    """Whether the choice of a config group decides what a run computes."""
    return group.split("/")[0] not in ("hydra", "experiment", "sweep", "logger")


def follows_seed(cfg: DictConfig) -> tuple[str, ...]:
    """The keys that a user set to the seed, `task.data.split_seed=${seed}`: they differ within one arm."""
    raw = OmegaConf.to_container(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"]))
    return tuple(".".join(path) for path, value in leaves(raw) if value == FOLLOWS)


def typed(cfg: DictConfig) -> dict[str, Any]:
    """The config's own part as `plain` gives it, its numbers with the types that its parts state: in `cfg` too.

    Raises ConfigError for trainer settings that are out of range.
    """
    config = plain(cfg)
    training = asdict(checked(TrainerSettings, config["trainer"], "trainer."))
    for key, value in ({f"trainer.{name}": value for name, value in training.items()} | numbers_typed(config)).items():
        OmegaConf.update(cfg, key, value)
    return plain(cfg)


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The config's own part, resolved, as plain values."""
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    plain = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
