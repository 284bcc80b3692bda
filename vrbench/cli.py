"""The command line: compose and check the config, fix the run's identity, build the parts, hand them to the trainer.

The only file that imports hydra, and the only one that knows the config; past it go plain typed arguments. torch is
imported when a run really starts, so that help, `--cfg job`, refusals and finished runs are quick.
"""

from __future__ import annotations

import difflib
import os
import re
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import ConfigCompositionException, HydraException, InstantiationException, MissingConfigException
from hydra.experimental.callback import Callback
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import ValidationError

from vrbench import records
from vrbench.contracts import RunInfo, RunSettings, TrainerSettings
from vrbench.signals import StopSignals

if TYPE_CHECKING:
    from vrbench.search import Watch
    from vrbench.trainer import Trainer

_HERE = Path(__file__).parent
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"
"""The config folder: inside the installed package, or beside it in a checkout."""

GROUPS = ("task", "model", "optimizer", "schedule", "trainer", "probe", "logger")
RUN_WIDE = ("seed", "study", "results_dir", "force")
KEYS = {*GROUPS, *RUN_WIDE}

ONE_LINE = "VRBENCH_ONE_LINE_ERRORS"
"""Set while errors of the user are said in one line: unless the user asks for tracebacks with HYDRA_FULL_ERROR=1."""

WRONG_CONFIG = 2
BROKEN_RUN = 1

Settings = TypeVar("Settings")


class ConfigError(Exception):
    """A choice that cannot be run, said in one line."""


class RunFailed(Exception):
    """A run of a multirun failed and has said so; the others go on."""

    def __init__(self, code: int) -> None:
        super().__init__(f"exit code {code}")
        self.code = code


class StudyTable(Callback):
    """Hydra callback: after a multirun, print the table of the whole study, or of the part the sweeper names."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Read the study's folder and print it."""
        from vrbench.report.study import print_study

        part = config.hydra.sweeper.get("table", "")
        if part is None:
            return
        study = Path(str(config.results_dir)) / str(config.study) / str(part)
        if study.exists():
            print_study(study)


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


class Tune(_Combinations):
    """Hydra sweeper: a search for each combination of what the command line sweeps. conf/hydra/sweeper/search.yaml"""

    def __init__(self, params: dict[str, str] | None, table: None, trial: None, **settings: Any) -> None:
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
        config, chosen = _plain(composed), composed.hydra.runtime.choices
        choices = {str(group): str(choice) for group, choice in chosen.items() if choice and _decides(str(group))}
        named = OmegaConf.to_container(composed.hydra.sweeper, resolve=True, throw_on_missing=True)
        assert isinstance(named, dict)
        wanted = {str(key): named[key] for key in self.settings}
        settings = _checked(search.SearchSettings, wanted, "hydra.sweeper.")
        base = self.compose([*(f"{group}={choice}" for group, choice in choices.items()), f"sweep={chosen['sweep']}"])
        study = Path(config["results_dir"]) / config["study"]
        with _blame("hydra.sweeper"):
            trials = search.Search(study, choices, settings, config, _plain(base))
            return trials.spend(
                lambda jobs: self.launch([[*overrides, f"study={config['study']}/tune", *job] for job in jobs])
            )


class Confirm(_Combinations):
    """Hydra sweeper: the best configuration of every search of the study, on fresh seeds."""

    def __init__(self, params: dict[str, str] | None, table: str) -> None:
        super().__init__(params)
        self.table = table

    def sweep(self, arguments: list[str]) -> None:
        """Run them all. Raises RunFailed where a run failed, ConfigError where the study is not ready."""
        from vrbench import confirmation

        combinations = self.combinations(arguments)
        config = _plain(self.compose(combinations[0]))
        seeds = [int(word.removeprefix("seed=")) for job in combinations for word in job if word.startswith("seed=")]
        try:
            found = confirmation.candidates(Path(config["results_dir"]) / config["study"])
            confirmation.check_seeds(found, seeds)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        for line in confirmation.cautions(found, seeds):
            print(f"vrbench: {line}", file=sys.stderr)
        study = f"study={config['study']}/{self.table}"
        results = self.launch([[*best.overrides, *job, study] for best in found for job in combinations])
        if failed := [result for result in results if isinstance(result, int)]:
            raise RunFailed(max(failed))


def _decides(group: str) -> bool:
    """Whether the choice of a config group decides what a run computes."""
    return group.split("/")[0] not in ("hydra", "experiment", "sweep", "logger")


def main() -> None:
    """Run `vrbench`. Exit codes: 0 done (diverged too), 2 wrong config, 1 broken run, 128 + n stopped by signal n."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin at barriers starve a busy machine
    if "HYDRA_FULL_ERROR" not in os.environ:
        os.environ.update({"HYDRA_FULL_ERROR": "1", ONE_LINE: "1"})  # Hydra then raises, and we say it in one line
    for sweeper in (Tune, Confirm):  # Hydra takes plugins from this package name only
        Plugins.instance().class_name_to_class[f"hydra_plugins.vrbench.{sweeper.__name__}"] = sweeper
    try:
        _job()
    except RunFailed as failure:
        sys.exit(failure.code)
    except KeyboardInterrupt:
        sys.exit(_say("stopped by Ctrl-C before training began", 128 + signal.SIGINT))
    except (HydraException, OmegaConfBaseException, OSError, ConfigError) as error:
        if ONE_LINE not in os.environ:
            raise
        sys.exit(_say(explain(error), WRONG_CONFIG))


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _job(cfg: DictConfig) -> str:
    """One run, its folder: a failure is one line at once, and ends the process only when the run is the only one."""
    try:
        return str(run(cfg))
    except (ConfigError, ValidationError, OmegaConfBaseException, OSError) as error:
        if ONE_LINE not in os.environ:
            raise
        code = _say(explain(error), WRONG_CONFIG)
    except Exception:
        traceback.print_exc()
        code = _say("the run broke (traceback above); the same command resumes it from its last checkpoint", BROKEN_RUN)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise RunFailed(code)
    sys.exit(code)


def _say(line: str, code: int) -> int:
    print(f"vrbench: {line}", file=sys.stderr)
    return code


def run(cfg: DictConfig) -> Path:
    """Train the run that the config describes, unless it is finished already; returns its folder.

    Raises ConfigError, pydantic's ValidationError or omegaconf's errors for a wrong choice, before any folder exists.
    """
    config = _plain(cfg)
    unknown = sorted(config.keys() - KEYS)
    if unknown:
        raise ConfigError(f"{unknown[0]}: no such key; {_offer(unknown[0], sorted(KEYS), 'the config')}")
    top = {key: config[key] for key in RUN_WIDE}
    settings = _checked(RunSettings, top, "")
    training = _checked(TrainerSettings, config["trainer"], "trainer.")
    _check_lr(config["optimizer"])
    info = _identity(config, settings)
    if records.is_over(info.directory) and not settings.force:
        print(f"{info.name}: {records.Run(info.directory).status} already, skipped (force=true trains it again)")
        return info.directory
    _train(cfg, info, settings, training)
    return info.directory


def _plain(cfg: DictConfig) -> dict[str, Any]:
    """The config's own part, resolved, as plain values."""
    own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    plain = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _identity(config: dict[str, Any], settings: RunSettings) -> RunInfo:
    run_id, arm = records.identify(config)
    chosen = HydraConfig.get().runtime.choices
    choices = {group: str(chosen[group]) for group in GROUPS}
    parts = [choices[group].replace("/", "_") for group in ("task", "model", "optimizer")]
    name = "-".join([*parts, f"s{settings.seed}", run_id])
    directory = Path(settings.results_dir) / settings.study / name
    return RunInfo(run_id, arm, name, settings.study, directory, config, choices, settings.seed)


def _train(cfg: DictConfig, info: RunInfo, settings: RunSettings, training: TrainerSettings) -> None:
    import torch

    from vrbench.trainer import Stopped
    from vrbench.writer import RunIsTaken

    if training.threads is not None:
        torch.set_num_threads(training.threads)
    trainer = build(cfg, info, training)
    processes = trainer.processes
    nodes = cfg.logger.items() if processes.writes else ()
    loggers = {name: _instantiate(node, f"logger.{name}") for name, node in nodes}
    watch = _watch(trainer)
    if watch is not None:
        loggers["search"] = watch
    device, threads = str(trainer.device), torch.get_num_threads()
    try:
        with (
            processes.writer(info, loggers, force=settings.force, device=device, threads=threads) as writer,
            StopSignals() as stop,
        ):
            trainer.fit(writer, lambda: stop.received is not None or (watch is not None and watch.pruned))
    except RunIsTaken as taken:
        if processes.writes:
            print(f"{info.name}: {taken}; left to it")
    except Stopped as stopped:
        if stop.received is None:
            if watch is not None and watch.pruned:
                print(f"{info.name}: pruned at step {stopped.step} of {stopped.total_steps}")
            return
        name = signal.Signals(stop.received).name
        line = (
            f"{info.name}: {name} at step {stopped.step} of {stopped.total_steps}; the same command goes on from there"
        )
        sys.exit(_say(line, 128 + stop.received))


def _watch(trainer: Trainer) -> Watch | None:
    """The pruner's eye on this run, where it is a trial of a search that prunes."""
    sweeper = HydraConfig.get().sweeper
    if sweeper.get("trial") is None or not trainer.processes.writes:
        return None
    from vrbench.search import Watch

    metric, direction = sweeper.metric or trainer.task.metric, sweeper.direction or trainer.task.direction
    return Watch(Path(sweeper.trial.folder), sweeper.trial.number, sweeper.pruner, metric, direction)


def build(cfg: DictConfig, info: RunInfo, training: TrainerSettings) -> Trainer:
    """Instantiate the run's parts, on their device and with their seeds; raises ConfigError where they do not fit."""
    import torch

    from vrbench.capabilities import capabilities
    from vrbench.distributed import Processes
    from vrbench.randomness import Streams
    from vrbench.trainer import Trainer, pick_device

    with _blame("trainer"):
        device = pick_device(training.device)
        processes = Processes.join(device)
        device = processes.device(device)
    streams = Streams(info.seed, device)
    task = _instantiate(cfg.task, "task")
    make_model = _instantiate(cfg.model, "model")
    streams.reseed_global("init")
    with _blame("model"):
        model = make_model(task.input_shape, task.output_dim)
    if training.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model = model.to(device)
    with _blame("task"):
        task.to(device)
    with _blame("model", f"does not fit task={info.choices['task']}: "):
        _, batch = task.probe_batches(2, 2)[0]
        with torch.no_grad():
            task.loss(model.eval(), batch, streams.generator("trial"))
    with _blame("optimizer"):
        groups = task.param_groups(model) if hasattr(task, "param_groups") else model.parameters()
        optimizer = _instantiate(cfg.optimizer, "optimizer")(groups)
    with _blame("schedule"):
        steps_per_epoch = max(1, task.batches_per_epoch // training.accumulate)
        make_schedule = _instantiate(cfg.schedule, "schedule")
        schedule = make_schedule(optimizer, training.total_steps(task.batches_per_epoch), steps_per_epoch)
    probes = {name: _instantiate(node, f"probe.{name}") for name, node in cfg.probe.items()}
    with _blame("task"):
        processes.check(task.units_per_batch, capabilities(optimizer).create_graph)
    with _blame("probe"):
        return Trainer(training, task, model, optimizer, schedule, probes, streams, processes)


def _instantiate(node: DictConfig, key: str) -> Any:
    with _blame(key):
        return hydra.utils.instantiate(node)


class _blame:
    """Turn any error of the block into a ConfigError that begins with the config key to blame."""

    def __init__(self, key: str, prefix: str = "") -> None:
        self.key = key
        self.prefix = prefix

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, ConfigError) or not isinstance(error, Exception):
            return
        key = self.key
        if isinstance(error, InstantiationException):
            found = re.search(r"full_key: (\S+)", str(error))
            key = found.group(1) if found else key
            while isinstance(error, InstantiationException) and error.__cause__ is not None:
                error = error.__cause__
        message = _one_line(str(error)) or type(error).__name__
        names_argument = not self.prefix and re.match(r"\w+(\.\w+)*=", message)
        raise ConfigError(f"{key}.{message}" if names_argument else f"{key}: {self.prefix}{message}") from error


def _checked(settings: type[Settings], values: Mapping[str, Any], prefix: str) -> Settings:
    """Build a settings dataclass; a wrong value becomes one line that names key, value and what would do."""
    try:
        return settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
        shown = f"={first['input']}" if key and not isinstance(first["input"], Mapping) else ""
        raise ConfigError(f"{prefix}{key}{shown}: {message}") from error


def _check_lr(optimizer: Mapping[str, Any]) -> None:
    lr = optimizer.get("lr")
    if isinstance(lr, bool) or not isinstance(lr, (int, float)) or not 0 <= lr < float("inf"):
        raise ConfigError(f"optimizer.lr={lr}: must be a finite number, 0 or more")


def explain(error: Exception) -> str:
    """One line for an error of Hydra, OmegaConf or the operating system: the key, the value, what would do."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, choice = error.missing_cfg_file.rpartition("/")
        return f"{group}={choice}: no such choice; {_offer(choice, list(error.options), group)}"
    if isinstance(error, MissingMandatoryValue):
        key = getattr(error, "full_key", None) or text
        return f"{key}: must be given ({key}=…)"
    if isinstance(error, ConfigCompositionException):
        found = re.search(r"Could not override '([^']+)'", text)
        cause = error.__cause__
        if found and isinstance(cause, OmegaConfBaseException) and "not in struct" in str(cause):
            parent = cause.parent_node
            siblings = [str(name) for name in parent if name != "hydra"] if isinstance(parent, DictConfig) else []
            where = parent._get_full_key(None) if parent is not None else ""
            return f"{found.group(1)}: no such key; {_offer(str(cause.key), siblings, where or 'the config')}"
        if cause is not None and "Could not override" in text:
            text = f"{text.splitlines()[0]} {cause}"
    return _one_line(text)


def _offer(wrong: str, options: list[str], where: str) -> str:
    options = [option for option in options if not option.startswith("_")]
    near = difflib.get_close_matches(wrong, options, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{hint}{where} has {', '.join(options)}" if options else f"{where} has no such thing"


def _one_line(text: str) -> str:
    return re.sub(r"\s*\n\s*", "; ", text.strip())
