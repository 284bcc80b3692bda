"""Runs that several processes want at once, and the locks of processes that are stopped or dead."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import children
from stress import patches
from stress.short_runs import check_equal, short
from stress.sizes import sizes


@sizes("tasks, counts", short=(["digits"], [2]), full=(["digits", "hypergrid"], [2, 8]))
def test_processes_share_a_sweep(tasks: list[str], counts: list[int], tmp_path: Path, figures: dict[str, Any]) -> None:
    """Each run is trained once, whoever comes first; and a run belongs to the process that lives."""

    def sweep(study: str) -> list[list[str]]:
        arms = ["-m", "optimizer=vradam,adamw", "seed=0,1,2", f"results_dir={tmp_path}", f"study={study}"]
        return [[*arms, *short(task)] for task in tasks]

    runs = 6 * len(tasks)
    assert children.run(sweep("alone"), tmp_path / "alone.txt") == 0
    for count in counts:
        study, trained = f"shared-{count}", tmp_path / f"trained-{count}"
        note = partial(patches.note_finished, trained)
        workers = [children.start(sweep(study), tmp_path / f"{study}-{number}.txt", note) for number in range(count)]
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0] * count
        names = trained.read_text().splitlines()
        assert len(names) == len(set(names)) == runs
        equal = check_equal(tmp_path / study, tmp_path / "alone", runs)
        figures[f"{count}_processes"] = {"runs": len(names), "trained_once": len(set(names)), "bit_equal": equal}
    figures |= hold_and_take_over(tmp_path)


def hold_and_take_over(folder: Path) -> dict[str, Any]:
    """A stopped process keeps its run; a killed one's is taken over at once."""
    command = [f"results_dir={folder}", "study=locks", *short("digits"), "trainer.max_steps=100000"]
    holder = children.start([command], folder / "locks.txt")
    deadline = time.monotonic() + 60
    while not list(folder.glob("locks/*/checkpoint/state.pt")):
        assert time.monotonic() < deadline, "the holder of the lock does not train"
        time.sleep(0.01)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGSTOP)
    try:
        assert children.run([command], folder / "second.txt") == 0
    finally:
        holder.kill()
        holder.join()
    assert "another process is training this run; left to it" in (folder / "second.txt").read_text()

    (rows,) = folder.glob("locks/*/metrics.jsonl")
    before, started = rows.stat().st_size, time.monotonic()
    heir = children.start([command], folder / "heir.txt")
    while rows.stat().st_size <= before + 1000:
        assert time.monotonic() < started + 60, "the dead process's lock was not taken over"
        time.sleep(0.01)
    seconds = time.monotonic() - started
    heir.terminate()
    heir.join()
    assert heir.exitcode == 128 + signal.SIGTERM
    assert "SIGTERM at step" in (folder / "heir.txt").read_text()
    return {"live_lock_respected": True, "dead_lock_taken_over_s": round(seconds, 2)}
