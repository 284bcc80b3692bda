"""A sweep over four tasks that is killed again and again: in the end its runs are those of an unbroken one."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import children
from conftest import ROOT
from stress import patches
from stress.short_runs import TASKS, check_equal, short
from stress.sizes import SEED, sizes

KINDS = (
    "time", "time", "time", "start", "checkpoint write", "checkpoint rename", "metrics row", "summary rename",
    "manifest rename", "picture rename", "discard",
)  # fmt: skip
ARMS = {1: ("optimizer=vradam", "seed=0"), 6: ("optimizer=vradam,adamw", "seed=0,1,2")}
"""Overrides that make so many runs of each task."""


@sizes("each, kills", short=(1, 3), full=(6, 50))
def test_killed_runs_end_as_unbroken_ones(each: int, kills: int, tmp_path: Path, figures: dict[str, Any]) -> None:
    """A sweep of `each` runs of every task is killed `kills` times; once it is over, another one takes the rest."""
    choose = random.Random(SEED)
    log = tmp_path / "log"
    log.mkdir()
    assert children.run(sweep(tmp_path, "unbroken", each), log / "unbroken") == 0
    landed: Counter[str] = Counter()
    ended: dict[Path, int] = {}
    attempts = again = equal = sweeps = 0
    begun = False
    while landed.total() < kills or begun:
        begun = True
        attempts += 1
        assert attempts < 8 * kills, f"only {landed.total()} kills in {attempts} attempts"
        study, output, kind = f"broken-{sweeps}", log / f"{attempts:03d}", choose.choice(KINDS)
        if landed.total() == kills:
            code = children.run(sweep(tmp_path, study, each), output)
        elif attempts % 9 == 0:
            kind, code = "fresh process", kill_fresh(tmp_path, study, each, choose.uniform(3, 10), output)
        else:
            code = kill_child(tmp_path, study, each, kind, choose, output)
        assert code in (0, -signal.SIGKILL), f"attempt {attempts}: {output.read_text()}"
        landed[kind] += code == -signal.SIGKILL
        now = {path: path.stat().st_mtime_ns for path in tmp_path.glob(f"{study}/*/summary.json")}
        again += sum(now.get(path) != before for path, before in ended.items())
        ended = now
        if code == 0 and len(ended) == 4 * each:
            equal += check_equal(tmp_path / study, tmp_path / "unbroken", 4 * each)
            ended, begun, sweeps = {}, False, sweeps + 1
    said = [path.read_text() for path in sorted(log.iterdir())]
    figures |= {
        "sweeps": sweeps,
        "runs": sweeps * 4 * each,
        "kills": landed.total(),
        "by_kind": dict(sorted(landed.items())),
        "attempts": attempts,
        "trained_twice": again,
        "finished_bit_equal_without_strays": equal,
        "checkpoints_found_damaged": sum("is not used" in text for text in said),
    }
    assert landed.total() == kills
    assert again == 0
    assert equal == sweeps * 4 * each >= 4
    assert [text for text in said if "Traceback (most recent" in text] == []


def sweep(folder: Path, study: str, each: int, first: int = 0) -> list[list[str]]:
    """The same commands every time, one a task, beginning with the `first`."""
    ordered = [*TASKS][first:] + [*TASKS][:first]
    return [["-m", *ARMS[each], f"results_dir={folder}", f"study={study}", *short(task)] for task in ordered]


def kill_child(folder: Path, study: str, each: int, kind: str, choose: random.Random, output: Path) -> int:
    """Exit code of a child that is killed by its parent after a random time, or by itself in the middle of a write."""
    countdown = choose.randint(1, 2 if kind == "summary rename" else 6)
    after = choose.random() < 0.5
    commands = sweep(folder, study, each, first=choose.randrange(len(TASKS)))
    if kind not in ("time", "start"):
        return children.run(commands, output, partial(patches.die, kind, countdown, after))
    training = folder / "training"
    training.unlink(missing_ok=True)
    child = children.start(commands, output, partial(patches.touch_when_training, training))
    if kind == "time":
        wait_for(training, child)
    time.sleep(choose.uniform(0, 1.2))
    child.kill()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def wait_for(path: Path, child: ForkServerProcess) -> None:
    """Until the file is there, or the child is over."""
    deadline = time.monotonic() + 60
    while child.is_alive() and not path.exists():
        assert time.monotonic() < deadline, f"no {path.name}"
        time.sleep(0.005)


def kill_fresh(folder: Path, study: str, each: int, seconds: float, output: Path) -> int:
    """A process as a user starts it, on the first task that has unfinished runs; its exit code."""
    done = [path.parent.name for path in folder.glob(f"{study}/*/summary.json")]
    left = (number for number, task in enumerate(TASKS) if sum(name.startswith(f"{task}-") for name in done) < each)
    command = [sys.executable, "-m", "vrbench", *sweep(folder, study, each, first=next(left, 0))[0]]
    with open(output, "w") as file, subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file) as process:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()
