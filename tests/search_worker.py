"""What a worker of a search is, for tests that start many: everything imported once, then a fork for each."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import sklearn.datasets
import sklearn.model_selection
import torch._dynamo

import tasks.image_classification
import vrbench.pruning
import vrbench.report.study
import vrbench.search
import vrbench.trainer
from vrbench import cli

USED = (sklearn, torch, tasks, vrbench)
"""Loaded by the server that forks (multiprocessing's forkserver), so that no worker has to."""


def work(arguments: list[str], log: Path) -> None:
    """`vrbench` with these arguments, in a process of its own; what it says goes to the file."""
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["vrbench", *arguments]
    cli.main()
