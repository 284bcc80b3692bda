"""Weights & Biases: the only import of wandb."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

from vrbench.contracts import RunInfo
from vrbench.runs import records
from vrbench.runs.redact import hide, hide_all

NOISE = ("force", "results_dir", "study", "seed")
"""Settings of a run as a command, which W&B's config does not repeat."""
LONGEST = 128
"""Characters of a run's name that W&B shows."""


class WandB:
    """Weights & Biases, by default offline: `wandb sync <run folder>/wandb/offline-run-*` uploads it later.

    metrics.jsonl stays the source of truth. A resumed offline run is written afresh from the recorded rows, because
    wandb cannot continue an offline run; online, rows that the server already has are left out. Where the server cannot
    be had (no network, a refused key) the run is kept offline, and so are this process's later runs without asking
    again; where it is lost in the middle, what is missing there is on disk. Both are said, with the command to upload.
    Under `wandb agent` the run's id, project and entity are the agent's.
    """

    _given_up: ClassVar[str | None] = None
    """Why this process asks the server no more."""

    def __init__(
        self,
        project: str,
        entity: str | None = None,
        mode: Literal["online", "offline", "disabled"] = "offline",
        tags: Iterable[str] = (),
        patience: float = 15.0,
    ) -> None:
        """`patience`: seconds that an online run waits for the server, at its start and at its end."""
        if mode not in ("online", "offline", "disabled"):
            raise ValueError(f"mode={mode!r}: must be online, offline or disabled")
        if not patience > 0:
            raise ValueError(f"patience={patience}: must be seconds above 0")
        self.project = project
        self.entity = entity
        self.mode = mode
        self.tags = tuple(tags)
        self.patience = patience

    def start(self, run: RunInfo, total_steps: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Open the W&B run: group = study, job_type = task, the config; then rows and pictures recorded so far."""
        self._name = run.name
        self._kept = False
        online = self.mode == "online"
        if online and WandB._given_up is None:
            try:
                self._run = self._open(run, "online")
            except Exception as error:
                WandB._given_up = hide(_first_line(error))
                import wandb

                wandb.teardown()
        if online and WandB._given_up is not None:
            self._say(f"no W&B server ({WandB._given_up}); the run is kept offline")
            online, self._kept = False, True
        if not online:
            if self.mode != "disabled":
                shutil.rmtree(run.directory / "wandb", ignore_errors=True)
            self._run = self._open(run, "disabled" if self.mode == "disabled" else "offline")
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        already = self._run.summary.get("step", 0) if online else 0
        drawn = {step: path for step, path in records.pictures(run.directory, total_steps).items() if step > already}
        for row in rows:
            if row["step"] > already:
                self.log(row)
            while drawn and min(drawn) <= row["step"]:
                self.image(step := min(drawn), drawn.pop(step))

    def _open(self, run: RunInfo, mode: Literal["online", "offline", "disabled"]) -> Any:
        import wandb

        agent = "WANDB_SWEEP_ID" in os.environ
        own: dict[str, Any] = {} if agent else {"project": self.project, "entity": self.entity}
        if not agent and "WANDB_RUN_ID" not in os.environ:
            # wandb may hold on to the id of a run that it could not open: the one that is kept instead has its own
            own["id"] = f"{run.id}-{run.suffix}{'-kept' if self._kept else ''}"
        with _hidden_arguments():
            return self._init(wandb, run, mode, own, agent)

    def _init(self, wandb: Any, run: RunInfo, mode: str, own: dict[str, Any], agent: bool) -> Any:
        return wandb.init(
            **own,
            mode=mode,
            dir=run.directory,
            name=_name(run),
            group=run.study,
            job_type=run.choices.get("task"),
            tags=[run.choices[group] for group in ("task", "model", "optimizer") if group in run.choices]
            + [*self.tags],
            config=hide_all(described(run)),
            resume="allow" if mode == "online" and not agent else None,
            reinit="finish_previous",
            settings=wandb.Settings(
                silent=True,
                x_disable_stats=True,
                console="off",
                **(self._limits() if mode == "online" else {}),
            ),
        )

    def _limits(self) -> dict[str, Any]:
        """How long to wait for a server. Offline there is none, and a busy machine may take its time."""
        waits = dict.fromkeys(("init_timeout", "login_timeout", "finish_timeout"), self.patience)
        return {**waits, "finish_timeout_raises": True}

    def log(self, row: Mapping[str, Any]) -> None:
        """One row, under its own `step`."""
        self._run.log(dict(row))

    def image(self, step: int, path: Path) -> None:
        """A sample picture, under `samples`."""
        import wandb

        self._run.log({"step": step, "samples": wandb.Image(str(path))})

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Close the run with summary.json's numbers as its summary; says what has to be uploaded by hand."""
        self._run.summary.update(flat_summary(summary))
        try:
            self._run.finish()
        except TimeoutError:
            WandB._given_up = "it was lost while a run was uploaded"
            self._kept = True
        if self._kept:
            folder = Path(self._run.dir).parent
            self._say(f"W&B has not got all of this run; when the server is back: wandb sync {folder}")

    def rebuild(self, run: RunInfo, rows: Iterable[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
        """Write the W&B run of a run that is over anew from its records; online, what is there already is left out."""
        self.start(run, summary["steps"], rows)
        self.finish(summary)

    def _say(self, line: str) -> None:
        print(f"vrbench: {self._name}: {line}", file=sys.stderr)


def _name(run: RunInfo) -> str:
    """`digits vradam lr=0.01 seed 2`: the task, the optimizer with what the command line gave, the seed."""
    end = f" seed {run.seed}"
    return f"{run.choices['task']} {run.label}"[: LONGEST - len(end)] + end


def described(run: RunInfo) -> dict[str, Any]:
    """What W&B's config holds: words that a legend or a filter can use, then the whole config under `config`.

    `optimizer`, `task`, `model`, `schedule`, … are the chosen YAMLs, `lr` the optimizer's rate, `label` the optimizer
    and what the command line gave.
    """
    parts = {key: value for key, value in run.config.items() if key not in ("logger", *NOISE)}
    words = {**run.choices, "lr": run.config.get("optimizer", {}).get("lr"), "label": run.label, "seed": run.seed}
    words |= {"id": run.id, "arm": run.arm, "study": run.study, "git": records.git_state(Path.cwd())["sha"]}
    return {**words, "versions": records.versions(), "command": shlex.join(sys.argv[1:]), "config": _plain(parts)}


def _plain(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {
            key: _plain(value) for key, value in node.items() if key not in ("_partial_", "_convert_", "_recursive_")
        }
    return [_plain(item) for item in node] if isinstance(node, (list, tuple)) else node


def flat_summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    """summary.json as W&B's summary, flat: `val/loss`, `best/val/loss`, `best/step`, `seconds/train`; null is nan."""
    found = {key: value for key, value in summary.items() if not isinstance(value, Mapping)}
    best = summary.get("best", {"step": None, "metrics": {}})
    found |= {"best/step": best["step"], **{f"best/{key}": _number(value) for key, value in best["metrics"].items()}}
    found |= {f"seconds/{key}": value for key, value in summary.get("seconds", {}).items()}
    return found | {key: _number(value) for key, value in summary["metrics"].items()}


def _number(value: Any) -> Any:
    return math.nan if value is None else value


@contextmanager
def _hidden_arguments() -> Iterator[None]:
    """wandb writes the command's words into its metadata: it shall see those without secrets."""
    words = sys.argv
    sys.argv = [hide(word) for word in words]
    try:
        yield
    finally:
        sys.argv = words


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]
