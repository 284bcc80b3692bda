"""One run of the command line: check its config, fix its identity, train it unless it is finished.

torch is imported when a run really starts, so that help, `--cfg job`, refusals and finished runs are quick.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from vrbench.app import targets
from vrbench.app.assembly import build, check_metric, instantiate, watch_of
from vrbench.app.config import GROUPS, KEYS, RUN_WIDE, follows_seed, other_seed, plain, typed
from vrbench.app.project import refuse_twins
from vrbench.app.refusals import ConfigError, NotInstalled, checked, errors_at, offer, say
from vrbench.app.signals import StopSignals
from vrbench.contracts import RunInfo, RunSettings, TrainerSettings
from vrbench.runs import records
from vrbench.runs.identity import decides, identify, local_data
from vrbench.runs.redact import hide
from vrbench.runs.source import code_of
from vrbench.runs.standing import Standing, check_study, standing
from vrbench.runs.writer import RunIsTaken, cut_copies, repair, tidy

PLUGINS = "hydra_plugins.vrbench"
"""What the module of our plugins is called in a config: Hydra takes plugins of the package `hydra_plugins` alone."""

_begun = itertools.count()
"""Of the runs that this process trains, one number each."""

NAMED = 48
"""Characters that a run's name has for what tells it from the defaults."""


@dataclass(frozen=True)
class Prepared:
    """A run that was checked as far as that goes without torch, and what is to be done with it."""

    info: RunInfo
    training: TrainerSettings
    found: Standing


def prepare(cfg: DictConfig) -> Prepared:
    """Check the config that a run has and give it its identity; nothing is written.

    Raises ConfigError, pydantic's ValidationError or omegaconf's errors for a wrong choice.
    """
    refuse_twins(HydraConfig.get())
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
    with errors_at(""):
        check_study(settings.study, Path(settings.results_dir))
    info = _identity(cfg, settings)
    with errors_at(""):
        return Prepared(info, training, standing(info, settings.force))


def can_have_another_seed(run: Prepared) -> bool:
    """Whether what follows the seed is the seed as it is, in a config of which `vrbench.app.config.seeded` is true."""
    info = run.info
    return repr(other_seed(info.config, info.follows_seed, info.seed)) == repr(info.config)


def with_seed(run: Prepared, seed: int) -> Prepared:
    """`prepare` of the same config with another seed, where it can have one. Raises as that does."""
    info = run.info
    config = other_seed(info.config, info.follows_seed, seed)
    settings = checked(RunSettings, {key: config[key] for key in RUN_WIDE}, "")
    alike = {key: getattr(info, key) for key in ("choices", "label", "follows_seed", "data", "code", "tuned")}
    other = _info(settings, config, **alike)
    with errors_at(""):
        return Prepared(other, run.training, standing(other, settings.force))


def run(cfg: DictConfig) -> Path:
    """Train the run that the config describes, unless it is finished already; returns its folder. Raises as `prepare`
    does, before any folder exists."""
    with _uncollected():
        prepared = prepare(cfg)
    info, found, training = prepared.info, prepared.found, prepared.training
    if found.action == "skip":
        return _skip(cfg, info, "" if in_our_sweep() else found.line)
    if found.line:
        print(f"{info.name}: {found.line}")
    with _threads(training.threads):
        _train(cfg, info, found, training)
    return info.directory


def in_our_sweep() -> bool:
    """Whether this is a job of a multirun whose sweeper is ours, and shows what becomes of its runs."""
    hydra = HydraConfig.get()
    return bool(hydra.mode == RunMode.MULTIRUN and str(hydra.sweeper._target_).startswith(f"{PLUGINS}."))


def left_out(error: Exception) -> bool:
    """Whether the error is a library that is not installed, of a job whose sweep leaves such runs out."""
    absent = isinstance(error, NotInstalled) and in_our_sweep()
    return absent and HydraConfig.get().sweeper.get("not_installed") == "leave_out"


def _identity(cfg: DictConfig, settings: RunSettings) -> RunInfo:
    follows = follows_seed(cfg)
    config = typed(cfg)
    with errors_at(""):
        data = local_data(config)
    chosen = HydraConfig.get()
    choices = {group: str(chosen.runtime.choices[group]) for group in GROUPS}
    label = _label(choices["optimizer"], chosen.overrides.task, follows)
    alike = {"choices": choices, "label": label, "follows_seed": follows, "data": data}
    return _info(settings, config, **alike, code=code_of(config), tuned=_tuned(chosen.sweeper))


def _info(settings: RunSettings, config: dict[str, Any], **alike: Any) -> RunInfo:
    """The run of a config; `alike` is what runs that differ in the seed alone have in common."""
    identity = identify(config, follows_seed=alike["follows_seed"], data=alike["data"])
    directory = _directory(settings, alike["choices"], alike["label"], identity.id)
    return RunInfo(
        id=identity.id,
        arm=identity.arm,
        name=directory.name,
        study=settings.study,
        directory=directory,
        config=config,
        seed=settings.seed,
        **alike,
    )


def _directory(settings: RunSettings, choices: Mapping[str, str], label: str, run_id: str) -> Path:
    """`digits-mlp-sgd-lr0.01-s0-<id>`: what a person tells runs by, then the id, which alone makes it the run's own."""
    pairs = [word.partition("=") for word in label.split(" ")[1:]]
    pairs.sort(key=lambda pair: "." in pair[0])  # the optimizer's own come first
    given = [value if key in GROUPS else key.rpartition(".")[2] + value for key, _, value in pairs]
    readable = re.sub(r"[^A-Za-z0-9.,_-]+", "", "-".join(given))[:NAMED].strip("-.,")
    parts = [choices[group].replace("/", "_") for group in ("task", "model", "optimizer")]
    name = "-".join([*parts, *filter(None, [readable]), f"s{settings.seed}", run_id])
    return records.run_folder(Path(settings.results_dir) / settings.study, name, run_id)


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
    from vrbench.tuning.confirmation import provenance

    with errors_at("hydra.sweeper.tuned"):
        return provenance(Path(str(folder)))


def _skip(cfg: DictConfig, info: RunInfo, line: str) -> Path:
    """Say that the run is over, unless there is no line, and mend what a crash after its end has left."""
    tidy(info.directory)
    if line:
        print(f"{info.name}: {records.Run(info.directory).status} {line}")
    cut = [name for name in cut_copies(info.directory) if name in cfg.logger]
    if cut:
        with contextlib.suppress(RunIsTaken):
            failed = repair(info, {name: instantiate(cfg.logger[name], f"logger.{name}") for name in cut})
            for name in cut:
                state = "could not be mended" if name in failed else "was cut short, and is made anew from the records"
                print(f"{info.name}: its copy of {name} {state}")
    return info.directory


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Within the block no garbage is looked for, again and again, among what is read and imported there and stays."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


@contextlib.contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """torch's CPU threads for this run; the next one of a multirun has those of before."""
    with _uncollected():
        import torch

    before = torch.get_num_threads()
    torch.set_num_threads(before if number is None else number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(cfg: DictConfig, info: RunInfo, found: Standing, training: TrainerSettings) -> None:
    import torch

    from vrbench.training.distributed import ProcessLost, Unsuited
    from vrbench.training.trainer import Stopped

    try:
        targets.check(info.config)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    trainer = build(cfg, info, training)
    check_metric(trainer, info)
    processes = trainer.processes
    nodes = cfg.logger.items() if processes.writes else ()
    loggers = {name: instantiate(node, f"logger.{name}") for name, node in nodes}
    if in_our_sweep():
        loggers = {name: logger for name, logger in loggers.items() if not getattr(logger, "on_terminal", False)}
    watch = watch_of(trainer)
    if watch is not None:
        loggers["search"] = watch
    device = trainer.device
    machine = {
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
        "processes": processes.size,
        "runs_before": next(_begun),  # whose memory is in this process' peak too
    }
    try:
        with (
            StopSignals() as stop,  # outermost: torchrun sends a signal as soon as another process has died
            processes.together(),
            processes.writer(
                info, loggers, anew=found.action == "anew", machine=machine, changed=found.changed
            ) as writer,
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
    except Unsuited as error:
        raise ConfigError(str(error)) from error
    except ProcessLost as lost:
        sys.exit(say(f"{info.name}: {lost}; the same command goes on from the last checkpoint", 1))
    except Stopped as stopped:
        if stop.received is None:
            if watch is not None and watch.pruned:
                print(f"{info.name}: pruned at step {stopped.step} of {stopped.total_steps}")
            return
        name = signal.Signals(stop.received).name
        line = (
            f"{info.name}: {name} at step {stopped.step} of {stopped.total_steps}; the same command goes on from there"
        )
        sys.exit(say(line, 128 + stop.received))


def _check_lr(optimizer: Mapping[str, Any]) -> None:
    lr = optimizer.get("lr")
    if isinstance(lr, bool) or not isinstance(lr, (int, float)) or not 0 <= lr < float("inf"):
        raise ConfigError(f"optimizer.lr={lr}: must be a finite number, 0 or more")
