"""Runs that are killed at any moment, and runs that several processes want at once."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chaos_common as common
from chaos_common import TASKS, expect, short

KINDS = (
    "time", "time", "time", "start", "checkpoint write", "checkpoint rename", "metrics row", "summary rename",
    "manifest rename", "picture rename", "discard",
)  # fmt: skip
ARMS = {
    1: ("optimizer=vradam", "seed=0"),
    3: ("optimizer=vradam", "seed=0,1,2"),
    6: ("optimizer=vradam,adamw", "seed=0,1,2"),
}
"""Overrides that make so many runs of each task."""


def kill(folder: Path, each: int, kills: int, seed: int) -> dict[str, Any]:
    """A sweep of `each` runs of every task, killed `kills` times, and what it comes to in the end.

    Where a sweep is over before the last kill, another one of the same runs takes the rest.
    """
    choose = random.Random(seed)
    log = folder / "log"
    log.mkdir(parents=True)
    expect(
        common.in_child(lambda: _sweep(folder, "unbroken", each), log / "unbroken") == 0, "the unbroken sweep failed"
    )
    landed: Counter[str] = Counter()
    ended: dict[Path, int] = {}
    attempts = again = equal = sweeps = 0
    while landed.total() < kills or ended:
        attempts += 1
        expect(attempts < 8 * kills, f"only {landed.total()} kills in {attempts} attempts")
        study, output, kind = f"broken-{sweeps}", log / f"{attempts:03d}", choose.choice(KINDS)
        if landed.total() == kills:
            code = common.in_child(lambda: _sweep(folder, study, each), output)  # noqa: B023
        elif attempts % 9 == 0:
            kind, code = "fresh process", _kill_fresh(folder, study, each, choose.uniform(3, 10), output)
        else:
            code = _kill_fork(folder, study, each, kind, choose, output)
        expect(code in (0, -signal.SIGKILL), f"attempt {attempts} ended with {code}: {output}")
        landed[kind] += code == -signal.SIGKILL
        now = {path: path.stat().st_mtime_ns for path in folder.glob(f"{study}/*/summary.json")}
        again += sum(now.get(path) != before for path, before in ended.items())
        ended = now
        if code == 0 and len(ended) == 4 * each:
            equal += common.check_equal(folder / study, folder / "unbroken", 4 * each)
            ended, sweeps = {}, sweeps + 1
    expect(again == 0, f"finished runs were trained again {again} times")
    outputs = sorted(log.iterdir())
    expect(common.traceback_in(outputs) is None, f"a traceback in {common.traceback_in(outputs)}")
    return {
        "sweeps": sweeps,
        "runs": sweeps * 4 * each,
        "kills": landed.total(),
        "by_kind": dict(sorted(landed.items())),
        "attempts": attempts,
        "trained_twice": again,
        "finished_bit_equal_without_strays": equal,
        "checkpoints_found_damaged": sum("is not used" in path.read_text() for path in outputs),
    }


def _sweep(folder: Path, study: str, each: int, tasks: tuple[str, ...] = tuple(TASKS), first: int = 0) -> int:
    """The same commands every time, one a task, beginning with the `first`."""
    ordered = [*tasks[first:], *tasks[:first]]
    where = (f"results_dir={folder}", f"study={study}")
    return max(common.vrbench("-m", *ARMS[each], *where, *short(task)) for task in ordered)


def _kill_fork(folder: Path, study: str, each: int, kind: str, choose: random.Random, output: Path) -> int:
    """A child that is killed by its parent after a random time, or by itself in the middle of a write."""
    training, tell = os.pipe()
    countdown = choose.randint(1, 2 if kind == "summary rename" else 6)
    after = choose.random() < 0.5
    first = choose.randrange(len(TASKS))

    def work() -> int:
        _tell_when_training(tell)
        if kind not in ("time", "start"):
            ASSASSINS[kind](countdown, after)
        return _sweep(folder, study, each, first=first)

    child = common.fork(work, output)
    os.close(tell)
    if kind in ("time", "start"):
        if kind == "time":
            select.select([training], [], [], 60)
        time.sleep(choose.uniform(0, 1.2))
        with contextlib.suppress(ProcessLookupError):
            common.kill(child)
    code = common.wait(child)
    os.close(training)
    return code


def _tell_when_training(pipe: int) -> None:
    from vrbench.trainer import Trainer

    fit = Trainer.fit

    def told(self: Trainer, *arguments: Any) -> Any:
        os.write(pipe, b"x")
        return fit(self, *arguments)

    Trainer.fit = told  # type: ignore[method-assign, assignment]


def _kill_fresh(folder: Path, study: str, each: int, seconds: float, output: Path) -> int:
    """A process of its own, as a user starts it, on the first task that has unfinished runs."""
    done = [path.parent.name for path in folder.glob(f"{study}/*/summary.json")]
    task = next(task for task in [*TASKS, "digits"] if sum(name.startswith(f"{task}-") for name in done) < each)
    command = [*common.PYTHON, "-m", *ARMS[each], f"results_dir={folder}", f"study={study}", *short(task)]
    with open(output, "w") as file:
        process = subprocess.Popen(command, cwd=common.ROOT, stdout=file, stderr=file)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.kill()
        return process.wait()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _in_checkpoint_write(countdown: int, after: bool) -> None:
    from vrbench import checkpoint

    write, calls = checkpoint._Hashed.write, 0

    def half(self: Any, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == 10 * countdown:
            self._file.write(bytes(data)[: len(data) // 2])
            self._file.flush()
            _die()
        return write(self, data)

    checkpoint._Hashed.write = half  # type: ignore[method-assign]


def _in_metrics_row(countdown: int, after: bool) -> None:
    from vrbench.records import MetricsFile

    append, calls = MetricsFile.append, 0

    def half(self: MetricsFile, row: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == countdown:
            self._file.write(b'{"step": 1, "train/lo')
            _die()
        append(self, row)

    MetricsFile.append = half  # type: ignore[method-assign]


def _at_rename(name: str) -> Callable[[int, bool], None]:
    """Die before or after a file of this name gets it."""

    def install(countdown: int, after: bool) -> None:
        replace, calls = os.replace, 0

        def deadly(source: Any, target: Any) -> None:
            nonlocal calls
            mine = Path(target).match(name)
            calls += mine
            if mine and calls == countdown and not after:
                _die()
            replace(source, target)
            if mine and calls == countdown:
                _die()

        os.replace = deadly  # type: ignore[assignment]

    return install


def _in_discard(countdown: int, after: bool) -> None:
    """Die when a finished run's checkpoint is half deleted."""
    from vrbench import checkpoint

    discard, calls = checkpoint.discard, 0

    def half(folder: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == countdown:
            for path in list(folder.iterdir())[: 1 if after else None]:
                path.unlink()
            _die()
        discard(folder)

    checkpoint.discard = half


ASSASSINS: dict[str, Callable[[int, bool], None]] = {
    "checkpoint write": _in_checkpoint_write,
    "checkpoint rename": _at_rename("state*.pt"),
    "metrics row": _in_metrics_row,
    "summary rename": _at_rename("summary.json"),
    "manifest rename": _at_rename("manifest.json"),
    "picture rename": _at_rename("*.png"),
    "discard": _in_discard,
}
"""Ways to die in the middle of a write: patches that a child puts on itself."""


def concurrency(folder: Path) -> dict[str, Any]:
    """Two, then eight, processes on one sweep folder; a dead holder's lock, and a live one's."""
    folder.mkdir(parents=True)
    alone = common.in_child(lambda: _sweep(folder, "alone", 6, ("digits", "hypergrid")), folder / "alone.txt")
    expect(alone == 0, f"one process ended with {alone}")
    figures: dict[str, Any] = {}
    for count in (2, 8):
        study = f"shared-{count}"
        trained = folder / f"trained-{count}"
        children = [
            common.fork(lambda: _count_trained(trained, folder, study), folder / f"{study}-{number}.txt")  # noqa: B023
            for number in range(count)
        ]
        codes = [common.wait(child) for child in children]
        expect(codes == [0] * count, f"{count} processes ended with {codes}")
        names = trained.read_text().splitlines()
        expect(len(names) == len(set(names)) == 12, f"{len(names)} trainings of {len(set(names))} runs, not 12 of 12")
        equal = common.check_equal(folder / study, folder / "alone", 12)
        figures[f"{count}_processes"] = {"runs": len(names), "trained_once": len(set(names)), "bit_equal": equal}
    return figures | _locks(folder)


def _count_trained(trained: Path, folder: Path, study: str) -> int:
    from vrbench.writer import RunWriter

    finish = RunWriter.finish

    def counted(self: RunWriter, *arguments: Any) -> None:
        finish(self, *arguments)
        with open(trained, "a") as file:
            file.write(f"{self.run.name}\n")

    RunWriter.finish = counted  # type: ignore[method-assign, assignment]
    return _sweep(folder, study, 6, ("digits", "hypergrid"))


def _locks(folder: Path) -> dict[str, Any]:
    """A stopped process keeps its run; a killed one's is taken over at once."""
    words = (f"results_dir={folder}", "study=locks", *short("digits"), "trainer.max_steps=100000")
    output = folder / "locks.txt"
    holder = common.fork(lambda: common.vrbench(*words), output)
    deadline = time.monotonic() + 60
    while not list(folder.glob("locks/*/checkpoint/state.pt")):
        expect(time.monotonic() < deadline, "the holder of the lock does not train")
        time.sleep(0.01)
    os.kill(holder, signal.SIGSTOP)
    second = folder / "second.txt"
    expect(common.in_child(lambda: common.vrbench(*words), second) == 0, "the second process failed")
    expect("another process is training this run; left to it" in second.read_text(), "the live lock was not respected")
    os.kill(holder, signal.SIGKILL)
    common.wait(holder)
    started = time.monotonic()
    heir = folder / "heir.txt"
    child = common.fork(lambda: common.vrbench(*words), heir)
    run = next(folder.glob("locks/*"))
    before = (run / "metrics.jsonl").stat().st_size
    while (run / "metrics.jsonl").stat().st_size <= before + 1000:
        expect(time.monotonic() < started + 60, "the dead process's lock was not taken over")
        time.sleep(0.01)
    seconds = time.monotonic() - started
    os.kill(child, signal.SIGTERM)
    expect(common.wait(child) == 143, "SIGTERM did not end with 143")
    expect("SIGTERM at step" in heir.read_text(), "SIGTERM said nothing")
    return {"live_lock_respected": True, "dead_lock_taken_over_s": round(seconds, 2)}
