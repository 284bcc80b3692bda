"""The contract of a logger: vrbench.contracts.Logger."""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vrbench.checks.contract import check_arguments, require, same
from vrbench.contracts import Logger, RunInfo

TOTAL = 20
ROWS = [
    {"step": 10, "epoch": 0.5, "train/loss": 1.5, "optim/lr": 0.1},
    {"step": 15, "epoch": 0.75, "val/loss": 1.25, "val/accuracy": 0.5},
    {"step": 20, "epoch": 1.0, "train/loss": 1.0, "val/loss": 1.0, "val/accuracy": 0.75},
]
SUMMARY: dict[str, Any] = {
    "status": "finished", "metrics": {"val/loss": 1.0, "val/accuracy": 0.75, "test/loss": 1.125}, "steps": TOTAL,
    "best": {"step": 20, "metrics": {"val/loss": 1.0, "val/accuracy": 0.75}}, "test_read": True,
    "primary": {"metric": "val/accuracy", "direction": "max"}, "seconds": {"train": 1.0, "eval": 0.5, "probe": 0.25},
}  # fmt: skip
DIVERGED = SUMMARY | {"status": "diverged", "metrics": {}, "best": {"step": None, "metrics": {}}, "steps": 15}


@dataclass(frozen=True)
class LoggerPart:
    """The loggers of a YAML."""

    make: Callable[[], dict[str, Logger]]
    targets: Mapping[str, tuple[Callable[..., Any], Mapping[str, Any]]]
    """Of each logger: what its YAML names, and its arguments."""


@contextmanager
def folder_of_a_run() -> Iterator[tuple[RunInfo, Path]]:
    """A run and a picture of it in a folder that is gone afterwards."""
    from PIL import Image

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as parent:
        folder = Path(parent) / "run"
        folder.mkdir()
        picture = folder / "samples-0000015.png"
        Image.new("RGB", (4, 4)).save(picture)
        choices = {"task": "digits", "model": "mlp", "optimizer": "sgd"}
        config = {"seed": 0, "optimizer": {"lr": 0.1, "betas": [0.9, 0.999]}, "task": {"name": "digits"}}
        yield RunInfo("0" * 16, "1" * 16, "a-run", "a/study", folder, config, choices, 0, suffix="abcdefgh"), picture


def _whole(part: LoggerPart, rows: list[dict[str, Any]], summary: dict[str, Any], known: int = 0) -> None:
    """A run of these rows from start to end, the first `known` of them recorded before."""
    with folder_of_a_run() as (run, picture):
        loggers = part.make()
        try:
            for logger in loggers.values():
                logger.start(run, TOTAL, iter(rows[:known]))
            for row in rows[known:]:
                for logger in loggers.values():
                    logger.log(row)
            for logger in loggers.values():
                logger.image(15, picture)
                logger.finish(summary)
        finally:
            for logger in loggers.values():
                if hasattr(logger, "close"):
                    logger.close()


# ---- the properties -------------------------------------------------------------------------------------------------


def states_every_argument(part: LoggerPart) -> None:
    """The YAML leaves no default in the dark, and states nothing that the target does not take."""
    for target, settings in part.targets.values():
        check_arguments(target, settings, ("self",))


def takes_a_whole_run(part: LoggerPart) -> None:
    """Start, rows, a picture and the end, without an error."""
    _whole(part, ROWS, SUMMARY)


def takes_a_resumed_run(part: LoggerPart) -> None:
    """Started with rows that were recorded before, as often as a run is broken."""
    _whole(part, ROWS, SUMMARY, known=2)
    _whole(part, ROWS, SUMMARY, known=len(ROWS))


def takes_a_diverged_run(part: LoggerPart) -> None:
    """Numbers that are not finite, and a summary without any."""
    wild = [{**ROWS[0], "train/loss": math.nan, "optim/grad_norm": math.inf}]
    _whole(part, wild, DIVERGED)


def leaves_what_it_is_given(part: LoggerPart) -> None:
    """Rows and summary are the same afterwards, and so is the state of torch's generator."""
    rows, summary = copy.deepcopy(ROWS), copy.deepcopy(SUMMARY)
    state = torch.get_rng_state()
    _whole(part, rows, summary)
    require(same(rows, ROWS), "it changes the rows that it is given")
    require(same(summary, SUMMARY), "it changes the summary that it is given")
    require(torch.equal(state, torch.get_rng_state()), "it draws from torch's generator")


def rebuilds_its_copy(part: LoggerPart) -> None:
    """Where it can make its copy of a run anew from the records: twice, without an error."""
    with folder_of_a_run() as (run, _):
        for logger in part.make().values():
            if hasattr(logger, "rebuild"):
                for _ in range(2):
                    logger.rebuild(run, iter(copy.deepcopy(ROWS)), copy.deepcopy(SUMMARY))


PROPERTIES = (
    states_every_argument,
    takes_a_whole_run,
    takes_a_resumed_run,
    takes_a_diverged_run,
    leaves_what_it_is_given,
    rebuilds_its_copy,
)
