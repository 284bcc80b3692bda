"""Two processes for tests of what several ranks do."""

from __future__ import annotations

from collections.abc import Callable

import torch


def run_two_ranks(work: Callable[..., None], *arguments: object) -> None:
    """Call `work(rank, *arguments)` in two processes; raises where one fails. They share one import of torch."""
    torch.multiprocessing.set_forkserver_preload(["torch.distributed.fsdp", "torch.nn.parallel"])
    torch.multiprocessing.start_processes(work, arguments, nprocs=2, start_method="forkserver")
