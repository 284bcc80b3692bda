"""A child looked at from outside while it works."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import children
import psutil

Sample = dict[str, float]


def watch(command: Sequence[str], output: Path, done: Callable[[], int], every: float = 0.5) -> list[Sample]:
    """Run `vrbench` in a child; samples of its time, memory (MB), file handles, processor seconds, and what is done."""
    child = children.start([command], output)
    process = psutil.Process(child.pid)
    seen = []
    while child.is_alive():
        try:
            with process.oneshot():
                times = process.cpu_times()
                seen.append(
                    {
                        "time": time.monotonic(),
                        "done": done(),
                        "rss_mb": round(process.memory_info().rss / 2**20, 1),
                        "handles": process.num_fds(),
                        "cpu": times.user + times.system,
                    }
                )
        except psutil.NoSuchProcess:
            break
        time.sleep(every)
    child.join()
    assert child.exitcode == 0, output.read_text()
    return seen
