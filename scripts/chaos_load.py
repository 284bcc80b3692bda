"""Two thousand runs in one process, one run of 200,000 steps, and the same command twice."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chaos_common as common
import psutil
from chaos_common import expect, short

OPTIMIZERS = ("vradam", "adamw", "sgd")


def many(folder: Path, runs: int) -> dict[str, Any]:
    """So many tiny runs in one multirun: memory, file handles and time per run, looked at from outside."""
    folder.mkdir(parents=True)
    words = [
        "-m", "logger=none", "optimizer=sgd", "model.hidden=[]", "trainer.max_steps=1", "trainer.threads=1",
        "trainer.device=cpu", f"seed=range(0,{runs})", f"results_dir={folder}", "study=many",
    ]  # fmt: skip
    seen = _watch(lambda: common.vrbench(*words), folder / "many.txt", lambda: _count(folder / "many"), "many")
    done = len(list(folder.glob("many/*/summary.json")))
    expect(done == runs, f"{done} of {runs} runs are finished")
    seen = [sample for sample in seen if sample["done"] < runs]
    settled = [sample for sample in seen if sample["done"] >= 100]
    memory = [sample["rss_mb"] for sample in settled]
    handles = [sample["handles"] for sample in settled]
    early = _rate([sample for sample in settled if sample["done"] < runs * 0.3])
    late = _rate([sample for sample in settled if sample["done"] >= runs * 0.7])
    base = statistics.median(memory[:5])
    figures = {
        "runs": done,
        "rss_mb_after_100": base,
        "rss_mb_at_end": statistics.median(memory[-5:]),
        "rss_growth_percent": round(100 * (statistics.median(memory[-5:]) / base - 1), 2),
        "rss_peak_percent": round(100 * (max(memory) / base - 1), 2),
        "handles_after_100_and_at_end": [handles[0], handles[-1]],
        "cpu_s_per_run_first_and_last_third": [early, late],
        "wall_s": round(seen[-1]["time"] - seen[0]["time"], 1),
    }
    expect(max(memory) / base < 1.05, f"memory grows: {figures}")
    expect(max(handles) - handles[0] <= 2, f"file handles grow: {figures}")
    expect(late < 1.15 * early, f"time per run grows: {figures}")
    return figures


def _count(study: Path) -> int:
    return sum(1 for _ in study.iterdir()) if study.exists() else 0


def _rate(samples: list[dict[str, float]]) -> float:
    """Processor seconds a run between the first and the last sample."""
    first, last = samples[0], samples[-1]
    return round((last["cpu"] - first["cpu"]) / max(1, last["done"] - first["done"]), 4)


def _watch(
    work: Callable[[], int], output: Path, done: Callable[[], int], what: str, every: float = 0.5
) -> list[dict[str, float]]:
    """Run in a child, and look at it: its memory, file handles, processor time, and how much is done."""
    child = common.fork(work, output)
    process = psutil.Process(child)
    seen = []
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
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
        time.sleep(every)
    code = os.waitstatus_to_exitcode(status)
    expect(code == 0, f"{what} ended with {code}: {output.read_text()[-300:]}")
    return seen


def long(folder: Path, steps: int) -> dict[str, Any]:
    """One run of so many steps of the smallest model: metrics.jsonl, memory and speed must be flat."""
    folder.mkdir(parents=True)
    words = [
        "logger=none", "optimizer=sgd", "optimizer.lr=0.01", "model.hidden=[]", "task.batch_size=8",
        "task.data.train_size=64", f"trainer.max_steps={steps}", "trainer.log_every=100",
        f"trainer.eval_every={steps // 10}", "trainer.threads=1", "trainer.device=cpu",
        "trainer.checkpoint_seconds=2", f"results_dir={folder}", "study=long",
    ]  # fmt: skip
    seen = _watch(lambda: common.vrbench(*words), folder / "long.txt", lambda: 0, "the long run")
    (run,) = common.run_folders(folder / "long")
    lines = (run / "metrics.jsonl").read_bytes().splitlines()
    expect(len(lines) == steps // 100, f"{len(lines)} rows for {steps} steps")
    rows = [json.loads(line) for line in lines]
    rates = [row["time/steps_per_s"] for row in rows]
    tenth = len(rows) // 10
    first, last = statistics.median(rates[tenth : 3 * tenth]), statistics.median(rates[-2 * tenth :])
    memory = [sample["rss_mb"] for sample in seen if sample["time"] > seen[0]["time"] + 5]
    figures = {
        "steps": rows[-1]["step"],
        "rows": len(rows),
        "bytes_per_row_first_and_last_tenth": [
            round(statistics.fmean(map(len, part))) for part in (lines[:tenth], lines[-tenth:])
        ],
        "steps_per_s_early_and_late": [round(first), round(last)],
        "rss_mb_early_and_at_end": [memory[0], memory[-1]],
        "handles_early_and_at_end": [seen[len(seen) // 4]["handles"], seen[-1]["handles"]],
    }
    expect(memory[-1] / memory[0] < 1.05, f"memory grows: {figures}")
    expect(last > 0.85 * first, f"the run gets slower: {figures}")
    return figures


def determinism(folder: Path, stops: int) -> dict[str, Any]:
    """Every task with every optimizer: once, once more, and stopped so many times and resumed."""
    folder.mkdir(parents=True)
    equal = 0
    tasks = common.short_tasks()
    for task in tasks:
        for optimizer in OPTIMIZERS:
            words = [*short(task), f"optimizer={optimizer}", f"results_dir={folder}"]
            output = folder / f"{task}-{optimizer}.txt"
            name = f"{task}-{optimizer}"
            for study in ("once", "again"):
                code = common.in_child(lambda: common.vrbench(*words, f"study={name}/{study}"), output)  # noqa: B023
                expect(code == 0, f"{name} {study} ended with {code}")
            for _ in range(stops):
                code = common.in_child(lambda: _some_steps([*words, f"study={name}/resumed"]), output)  # noqa: B023
                expect(code == 0, f"{name} resumed ended with {code}")
            code = common.in_child(lambda: common.vrbench(*words, f"study={name}/resumed"), output)  # noqa: B023
            expect(code == 0, f"{name} resumed ended with {code}")
            once, again, resumed = (
                common.run_folders(folder / name / study)[0] for study in ("once", "again", "resumed")
            )
            expect(json.loads((resumed / "manifest.json").read_text())["resumed_from_step"] > 0, f"{name}: not resumed")
            expect(common.numbers(once) == common.numbers(again), f"{name}: the same command twice differs")
            expect(common.numbers(once) == common.numbers(resumed), f"{name}: a resumed run differs")
            equal += 1
    absent = sorted({path.stem for path in (common.ROOT / "conf" / "task").glob("*.yaml")} - {*tasks})
    return {
        "tasks": tasks,
        "optimizers": list(OPTIMIZERS),
        "bit_equal_twice_and_resumed": equal,
        "stops": stops,
        "not_run_for_want_of_data": absent,
    }


def _some_steps(command: list[str]) -> int:
    """Seven steps more, then a checkpoint and an end."""
    from vrbench.trainer import Trainer

    fit = Trainer.fit

    def some(self: Trainer, writer: Any, *_: Any) -> Any:
        calls = 0

        def stop() -> bool:
            nonlocal calls
            calls += 1
            return calls >= 7

        return fit(self, writer, stop)

    Trainer.fit = some  # type: ignore[method-assign, assignment]
    return common.vrbench(*command)
