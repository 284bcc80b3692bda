"""What Hydra calls between and after the jobs of a multirun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from vrbench.app.run import PLUGINS


class StudyTable(Callback):
    """Hydra callback: after a multirun of a sweeper that is not ours, print the table of the study."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Read the study's folder and print it."""
        from vrbench.report.study import print_study

        ours = str(config.hydra.sweeper._target_).startswith(f"{PLUGINS}.")
        study = Path(str(config.results_dir)) / str(config.study)
        if not ours and study.exists():
            print_study(study)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Let go of the job's configs: Hydra would keep those of all jobs until the last is over."""
        job_return.cfg = job_return.hydra_cfg = None
