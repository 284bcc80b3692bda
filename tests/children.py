"""`vrbench` in processes of their own that start at once: a server imports everything, and is forked for each."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from unittest import mock

PRELOADED = [
    "sklearn.datasets", "sklearn.model_selection", "diffusers.schedulers.scheduling_ddim",
    "vrbench.tasks.image_classification", "vrbench.tasks.language_modeling", "vrbench.tasks.diffusion",
    "vrbench.tasks.hypergrid", "vrbench.training.trainer", "vrbench.tuning.search", "vrbench.tuning.pruning",
    "vrbench.report.study", "vrbench.app.main",
]  # fmt: skip
"""What runs import, so that no child has to; those that are not installed are left out."""

Patch = Callable[[], object]


def call(*words: str) -> int:
    """`vrbench` with these words in this process; its exit code."""
    from vrbench.app.main import main

    sys.argv = ["vrbench", *words]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def start(commands: Sequence[Sequence[str]], output: Path, *patches: Patch) -> ForkServerProcess:
    """Start a child that runs the commands one after another; what it says is added to the file.

    The child calls `patches` first (functions of modules that it can import). Its `exitcode` is the highest of the
    commands', or negative for the signal that ended it.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    child = server.Process(target=_work, args=(commands, output, patches), daemon=True)
    with mock.patch.dict(os.environ, OMP_NUM_THREADS="1"):  # the server's, which the first child starts
        child.start()
    return child


def run(commands: Sequence[Sequence[str]], output: Path, *patches: Patch) -> int:
    """`start` a child and wait for it; its exit code."""
    child = start(commands, output, *patches)
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def _work(commands: Sequence[Sequence[str]], output: Path, patches: Sequence[Patch]) -> None:
    with open(output, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for patch in patches:
        patch()
    sys.exit(max(call(*words) for words in commands))
