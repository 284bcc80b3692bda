"""The command line: compose and check the config, fix the run's identity, build the parts, hand them to the trainer.

This file, its sweepers, launcher and refusals alone import hydra and know the config; past them go plain typed
arguments. torch is imported when a run really starts, so that help, `--cfg job`, refusals and finished runs are quick.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from vrbench import records, targets
from vrbench.contracts import RunInfo, RunSettings, TrainerSettings
from vrbench.ray_launcher import RayLauncher
from vrbench.redact import hide
from vrbench.refusals import ConfigError, blame, checked, explain, offer, one_line
from vrbench.runs.identity import decides, identify
from vrbench.runs.source import code_of
from vrbench.runs.standing import Standing, standing
from vrbench.signals import StopSignals
from vrbench.sweepers import Confirm, Grid, RunFailed, Tune, follows_seed, plain, typed
from vrbench.writer import RunIsTaken, cut_copies, repair, tidy

if TYPE_CHECKING:
    from vrbench.pruning import Watch
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


class StudyTable(Callback):
    """Hydra callback: after a multirun of a sweeper that is not ours, print the table of the study."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Read the study's folder and print it."""
        from vrbench.report.study import print_study

        ours = str(config.hydra.sweeper._target_).startswith("hydra_plugins.vrbench.")
        study = Path(str(config.results_dir)) / str(config.study)
        if not ours and study.exists():
            print_study(study)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Let go of the job's configs: Hydra would keep those of all jobs until the last is over."""
        job_return.cfg = job_return.hydra_cfg = None


def main() -> None:
    """Run `vrbench`. Exit codes: 0 done (diverged too), 2 wrong config, 1 broken run, 128 + n stopped by signal n."""
    if "OMP_WAIT_POLICY" not in os.environ:  # wait tens of microseconds at a barrier, then give way to other processes
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if "HYDRA_FULL_ERROR" not in os.environ:
        os.environ.update({"HYDRA_FULL_ERROR": "1", ONE_LINE: "1"})  # Hydra then raises, and we say it in one line
    # Hydra copies its whole store of plugin configs at every look for a group's options, and no look changes it.
    ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]
    for plugin in (Grid, Tune, Confirm, RayLauncher):  # Hydra takes plugins from this package name only
        Plugins.instance().class_name_to_class[f"hydra_plugins.vrbench.{plugin.__name__}"] = plugin
    _check_options()
    try:
        _job()
    except RunFailed as failure:
        sys.exit(failure.code)
    except KeyboardInterrupt:
        sys.exit(_say("stopped by Ctrl-C before training began", 128 + signal.SIGINT))
    except Exception as error:  # of Hydra, OmegaConf, YAML or the system, on the way to a config
        if ONE_LINE not in os.environ:
            raise
        sys.exit(_say(explain(error) or type(error).__name__, _code(error)))


def _check_options() -> None:
    """Read Hydra's options before Hydra does: it would say in several lines what is wrong with them."""
    parser = get_args_parser()
    parser.error = lambda message: sys.exit(_say(f"{message} (--help lists the options)", WRONG_CONFIG))  # type: ignore
    parser.parse_args()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _job(cfg: DictConfig) -> str:
    """One run, its folder: a failure is one line at once, and ends the process only when the run is the only one."""
    try:
        return str(run(cfg))
    except (ConfigError, ValidationError, OmegaConfBaseException, OSError) as error:
        if ONE_LINE not in os.environ:
            raise
        code = _say(explain(error), _code(error))
    except Exception:
        print(hide(traceback.format_exc()), file=sys.stderr, end="")
        code = _say("the run broke (traceback above); the same command resumes it from its last checkpoint", BROKEN_RUN)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise RunFailed(code)
    sys.exit(code)


def _say(line: str, code: int) -> int:
    print(f"vrbench: {one_line(hide(line))}", file=sys.stderr)
    return code


def _code(error: Exception) -> int:
    return BROKEN_RUN if isinstance(error, records.CannotWrite) else WRONG_CONFIG


def run(cfg: DictConfig) -> Path:
    """Train the run that the config describes, unless it is finished already; returns its folder.

    Raises ConfigError, pydantic's ValidationError or omegaconf's errors for a wrong choice, before any folder exists.
    """
    config = plain(cfg)
    unknown = sorted(config.keys() - KEYS)
    if unknown:
        raise ConfigError(f"{unknown[0]}: no such key; {offer(unknown[0], sorted(KEYS), 'the config')}")
    for group in GROUPS:
        if not isinstance(config.get(group), Mapping):
            raise ConfigError(f"{group}={config.get(group)}: must be a group of settings")
    top = {key: config[key] for key in RUN_WIDE if key in config}
    settings = checked(RunSettings, top, "")
    training = checked(TrainerSettings, config["trainer"], "trainer.")
    _check_lr(config["optimizer"])
    info = _identity(cfg, settings)
    with blame(""):
        found = standing(info, settings.force)
    if found.action == "skip":
        return _skip(cfg, info, found.line)
    if found.line:
        print(f"{info.name}: {found.line}")
    _train(cfg, info, found, training)
    return info.directory


def _identity(cfg: DictConfig, settings: RunSettings) -> RunInfo:
    follows = follows_seed(cfg)
    config = typed(cfg)
    with blame(""):
        identity = identify(config, follows_seed=follows)
    chosen = HydraConfig.get()
    choices = {group: str(chosen.runtime.choices[group]) for group in GROUPS}
    parts = [choices[group].replace("/", "_") for group in ("task", "model", "optimizer")]
    name = "-".join([*parts, f"s{settings.seed}", identity.id])
    return RunInfo(
        identity.id,
        identity.arm,
        name,
        settings.study,
        Path(settings.results_dir) / settings.study / name,
        config,
        choices,
        settings.seed,
        label=_label(choices["optimizer"], chosen.overrides.task, follows),
        follows_seed=follows,
        data=identity.data,
        code=code_of(config),
        tuned=_tuned(chosen.sweeper),
    )


def _label(optimizer: str, overrides: Sequence[str], follows: Sequence[str]) -> str:
    """The optimizer and what else was given: `vradam lr=0.01 schedule=warmup_cosine`; what follows the seed is not."""
    shown = {}
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if decides(key) and key not in ("task", "model", "optimizer", "seed", "experiment", "sweep", *follows):
            shown[key.removeprefix("optimizer.")] = value
    return hide(" ".join([optimizer, *(f"{key}={value}" for key, value in shown.items())]))


def _tuned(sweeper: DictConfig) -> dict[str, Any] | None:
    """Where the run confirms a search: what that search was, and what it chose."""
    folder = sweeper.get("tuned")
    if folder is None:
        return None
    from vrbench.confirmation import provenance

    with blame("hydra.sweeper.tuned"):
        return provenance(Path(str(folder)))


def _skip(cfg: DictConfig, info: RunInfo, line: str) -> Path:
    """Say that the run is over, and mend what a crash after its end has left."""
    tidy(info.directory)
    print(f"{info.name}: {records.Run(info.directory).status} {line}")
    cut = [name for name in cut_copies(info.directory) if name in cfg.logger]
    if cut:
        with contextlib.suppress(RunIsTaken):
            failed = repair(info, {name: _instantiate(cfg.logger[name], f"logger.{name}") for name in cut})
            for name in cut:
                state = "could not be mended" if name in failed else "was cut short, and is made anew from the records"
                print(f"{info.name}: its copy of {name} {state}")
    return info.directory


def _train(cfg: DictConfig, info: RunInfo, found: Standing, training: TrainerSettings) -> None:
    import torch

    from vrbench.trainer import Stopped

    try:
        targets.check(info.config)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if training.threads is not None:
        torch.set_num_threads(training.threads)
    trainer = build(cfg, info, training)
    _check_metric(trainer, info)
    processes = trainer.processes
    nodes = cfg.logger.items() if processes.writes else ()
    loggers = {name: _instantiate(node, f"logger.{name}") for name, node in nodes}
    watch = _watch(trainer)
    if watch is not None:
        loggers["search"] = watch
    device = trainer.device
    machine = {
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "processes": processes.size,
    }
    try:
        with (
            processes.writer(
                info, loggers, anew=found.action == "anew", machine=machine, changed=found.changed
            ) as writer,
            StopSignals() as stop,
        ):
            try:
                trainer.fit(writer, lambda: stop.received is not None or (watch is not None and watch.pruned))
            except Stopped:
                if watch is not None and watch.pruned:
                    writer.prune()
                raise
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
    from vrbench.pruning import Watch

    metric, direction = sweeper.metric or trainer.task.metric, sweeper.direction or trainer.task.direction
    evaluations = math.ceil(trainer.total_steps / trainer.eval_every)
    trial = sweeper.trial
    return Watch(Path(trial.folder), trial.number, sweeper.pruner, metric, direction, evaluations=evaluations)


def _check_metric(trainer: Trainer, info: RunInfo) -> None:
    """Raises ConfigError where a search ranks by a metric that the task has not, before its first trial trains."""
    metric = HydraConfig.get().sweeper.get("metric")
    if metric is None:
        return
    for summary in info.directory.parent.glob("*/summary.json"):
        if metric in json.loads(summary.read_bytes())["best"]["metrics"]:
            return
    known = sorted(trainer.validation_metrics())
    if metric not in known:
        raise ConfigError(f"hydra.sweeper.metric={metric}: no such metric; {offer(metric, known, 'the task')}")


def build(cfg: DictConfig, info: RunInfo, training: TrainerSettings) -> Trainer:
    """Instantiate the run's parts, on their device and with their seeds; raises ConfigError where they do not fit."""
    import torch

    from vrbench.capabilities import capabilities
    from vrbench.distributed import Processes
    from vrbench.randomness import Streams
    from vrbench.trainer import Trainer, pick_device

    with blame("trainer"):
        device = pick_device(training.device)
        processes = Processes.join(device)
        device = processes.device(device)
    streams = Streams(info.seed, device)
    task = _instantiate(cfg.task, "task")
    make_model = _instantiate(cfg.model, "model")
    streams.reseed_global("init")
    with blame("model"):
        model = make_model(task.input_shape, task.output_dim)
    if training.channels_last:
        if len(task.input_shape) != 3:
            raise ConfigError(f"trainer.channels_last=true: is for images, which task={info.choices['task']} has not")
        model = model.to(memory_format=torch.channels_last)
    model = model.to(device)
    if training.parallel == "fsdp":
        with blame("trainer"):
            processes.shard(model)
    with blame("task"):
        task.to(device)
    with blame("model", f"does not fit task={info.choices['task']}: "):
        _, batch = task.probe_batches(2, 2)[0]
        with torch.no_grad():
            task.loss(model.eval(), batch, streams.generator("trial"))
    with blame("optimizer"):
        groups = task.param_groups(model) if hasattr(task, "param_groups") else model.parameters()
        optimizer = _instantiate(cfg.optimizer, "optimizer")(groups)
    with blame("schedule"):
        steps_per_epoch = max(1, task.batches_per_epoch // training.accumulate)
        make_schedule = _instantiate(cfg.schedule, "schedule")
        schedule = make_schedule(optimizer, training.total_steps(task.batches_per_epoch), steps_per_epoch)
    probes = {name: _instantiate(node, f"probe.{name}") for name, node in cfg.probe.items()}
    with blame("task"):
        processes.check(task.units_per_batch, capabilities(optimizer).create_graph)
    with blame("probe"):
        return Trainer(training, task, model, optimizer, schedule, probes, streams, processes)


def _instantiate(node: DictConfig, key: str) -> Any:
    with blame(key):
        return hydra.utils.instantiate(node)


def _check_lr(optimizer: Mapping[str, Any]) -> None:
    lr = optimizer.get("lr")
    if isinstance(lr, bool) or not isinstance(lr, (int, float)) or not 0 <= lr < float("inf"):
        raise ConfigError(f"optimizer.lr={lr}: must be a finite number, 0 or more")
