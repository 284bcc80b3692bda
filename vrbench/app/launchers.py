"""Hydra launcher: the jobs of a multirun on Ray, on this machine or on a cluster. conf/hydra/launcher/ray.yaml

hydra-ray-launcher holds cloudpickle below 3, which is older than what else is used here; a multirun needs this much.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from vrbench.app.refusals import ConfigError, errors_at
from vrbench.app.signals import sigterm_kept

PASSED_ON = (
    "VRBENCH_TRACEBACKS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "WANDB_MODE",
    "HF_HUB_OFFLINE",
)
"""Variables of this process that the workers of a cluster get too; no key is among them."""


class RayLauncher(Launcher):
    """Every job is a task of Ray, in the folder that the command was given in (on a cluster: one that all share)."""

    def __init__(self, init: Mapping[str, Any], remote: Mapping[str, Any]) -> None:
        """`init` is what ray.init gets (null values left out), `remote` what ray.remote gets for each job.

        An `address` of null is `local`, a Ray of this command's own: ray.init would join one that runs here already.
        """
        given = {key: value for key, value in init.items() if value is not None}
        self.init = {"address": "local"} | given
        self.remote = dict(remote)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's way to hand over the context."""
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, as many at a time as the cluster holds. Raises ConfigError where Ray cannot be started."""
        with errors_at("hydra/launcher=ray"):
            import ray
        if not ray.is_initialized():
            try:
                with sigterm_kept():  # Ray would end itself at it, and the jobs before they are saved
                    ray.init(**self.init)
            except (ConnectionError, ValueError) as error:
                raise ConfigError(f"hydra.launcher.init={self.init}: Ray does not start ({error})") from error
        job = ray.remote(**self.remote)(_job)
        here = (os.getcwd(), {name: os.environ[name] for name in PASSED_ON if name in os.environ})
        state = Singleton.get_state()
        pending = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = str(number)
                config.hydra.job.num = number
            pending.append(job.remote(here, self.hydra_context, config, self.task_function, state))
        results: list[JobReturn] = ray.get(pending)
        return results


def _job(
    place: tuple[str, Mapping[str, str]],
    hydra_context: HydraContext,
    config: DictConfig,
    task_function: TaskFunction,
    state: dict[Any, Any],
) -> JobReturn:
    """One job, in a process of Ray's."""
    folder, environment = place
    os.chdir(folder)
    os.environ.update(environment)
    setup_globals()
    Singleton.set_state(state)
    return run_job(
        task_function, config, job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir",
        hydra_context=hydra_context,
    )  # fmt: skip
