"""From a config to live parts: task, model, optimizer, schedule, probes, loggers, and the trainer that holds them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from vrbench.app.refusals import ConfigError, errors_at, offer
from vrbench.contracts import RunInfo, TrainerSettings

if TYPE_CHECKING:
    from vrbench.training.trainer import Trainer
    from vrbench.tuning.pruning import Watch


def build(cfg: DictConfig, info: RunInfo, training: TrainerSettings) -> Trainer:
    """Instantiate the run's parts, on their device and with their seeds; raises ConfigError where they do not fit."""
    import torch

    from vrbench.randomness import Streams
    from vrbench.training.capabilities import capabilities
    from vrbench.training.compiler import wait_for_compiler
    from vrbench.training.distributed import Processes
    from vrbench.training.lengths import make_optimizer
    from vrbench.training.schedules import make_schedule
    from vrbench.training.trainer import Trainer, pick_device

    wait_for_compiler()
    with errors_at("trainer"):
        device = pick_device(training.device)
        processes = Processes.join(device)
        device = processes.device(device)
    streams = Streams(info.seed, device)
    task = instantiate(cfg.task, "task")
    make_model = instantiate(cfg.model, "model")
    streams.reseed_global("init")
    with errors_at("model"):
        model = make_model(task.input_shape, task.output_dim)
    if training.channels_last:
        if len(task.input_shape) != 3:
            raise ConfigError(f"trainer.channels_last=true: is for images, which task={info.choices['task']} has not")
        model = model.to(memory_format=torch.channels_last)
    model = model.to(device)
    with errors_at("task"):
        task.to(device)
    with errors_at("model", f"does not fit task={info.choices['task']}: "):
        _, batch = task.probe_batches(2, 2)[0]
        with torch.no_grad():
            task.loss(model.eval(), batch, streams.generator("trial"))
    if training.parallel == "fsdp":
        with errors_at("trainer"):
            processes.shard(model, lambda: task.loss(model, batch, streams.generator("trial")))
    with errors_at("optimizer"):
        groups = task.param_groups(model) if hasattr(task, "param_groups") else model.parameters()
        steps_per_epoch = max(1, task.batches_per_epoch // training.accumulate)
        total_steps = training.total_steps(task.batches_per_epoch)
        optimizer = make_optimizer(instantiate(cfg.optimizer, "optimizer"), groups, total_steps, steps_per_epoch)
    with errors_at("schedule"):
        schedule = make_schedule(instantiate(cfg.schedule, "schedule"), optimizer, total_steps, steps_per_epoch)
    probes = {name: instantiate(node, f"probe.{name}") for name, node in cfg.probe.items()}
    with errors_at("task"):
        processes.check(task, streams, capabilities(optimizer).create_graph)
    with errors_at("probe"):
        return Trainer(training, task, model, optimizer, schedule, probes, streams, processes)


def instantiate(node: DictConfig, key: str) -> Any:
    with errors_at(key):
        return hydra.utils.instantiate(node)


def watch_of(trainer: Trainer) -> Watch | None:
    """The pruner's eye on this run, where it is a trial of a search that prunes."""
    sweeper = HydraConfig.get().sweeper
    if sweeper.get("trial") is None or not trainer.processes.writes:
        return None
    from vrbench.tuning.pruning import Watch

    metric, direction = sweeper.metric or trainer.task.metric, sweeper.direction or trainer.task.direction
    evaluations = math.ceil(trainer.total_steps / trainer.eval_every)
    trial = sweeper.trial
    return Watch(Path(trial.folder), trial.number, sweeper.pruner, metric, direction, evaluations=evaluations)


def check_metric(trainer: Trainer, info: RunInfo) -> None:
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
