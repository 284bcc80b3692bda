"""The axes of scripts/bench/scaling.py: what is measured, at which sizes, on what made-up work.

Run as a script it takes one measurement in this process and writes it as JSON:
`python scripts/bench/scaling_axes.py <measure> <size> <folder> <answer>`.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import scaling_records as records
import scaling_training as training
from scaling_records import Work

from vrbench.runs.records import peak_memory_bytes

AXES: dict[str, tuple[int, ...]] = {
    "runs": (10, 100, 1_000, 10_000),
    "parameters": (100_000, 1_000_000, 10_000_000, 100_000_000),
    "tensors": (10, 100, 1_000, 5_000),
    "seeds": (8, 32, 128, 512),
    "tokens": (100_000, 1_000_000, 10_000_000, 100_000_000),
    "steps": (1_000, 10_000, 100_000, 1_000_000),
}
"""Sizes by axis. `runs` are of a study, `parameters` of a model in ten tensors, `tensors` of 1,000 parameters each,
`seeds` of either arm of a comparison, `tokens` of a text's training split, `steps` the rows of a metrics.jsonl."""


@dataclass(frozen=True)
class Measure:
    """One thing that is measured along an axis."""

    axis: str
    prepare: Callable[[int, Path], Work]
    """The work for a size, in the folder of that size; what it does before it returns is not measured."""
    rounds: int = 3
    """The least of so many calls counts."""
    warm_up: int = 1
    """Calls before those that count; none where a call makes many small objects: Python keeps their memory, and a
    second call would seem to need less than the first."""
    whole: bool = False
    """Whether it is a command: its process counts from its start, with all that it imports."""


SET_UP: dict[str, Callable[[int, Path], None]] = {"runs": records.study, "steps": records.run_of_rows}
"""What an axis needs on disk before its measures."""

MEASURES: dict[str, Measure] = {
    "multirun that is over": Measure("runs", records.again, whole=True),
    "where new runs lie": Measure("runs", records.new_runs, rounds=1, warm_up=0),
    "index, first": Measure("runs", records.first_index, rounds=1, warm_up=0),
    "index, again": Measure("runs", records.index, rounds=1, warm_up=0),
    "report table, 5 seeds an arm": Measure("runs", records.report("table", "arms"), whole=True),
    "report table, 2 arms": Measure("runs", records.report("table", "seeds"), whole=True),
    "report compare, 2 arms": Measure("runs", records.report("compare", *records.OPTIMIZERS, "seeds"), whole=True),
    "load(…).summary()": Measure("runs", records.summary, rounds=1, warm_up=0),
    "VRAdam step": Measure("parameters", training.step("vradam")),
    "AdamW step": Measure("parameters", training.step("adamw")),
    "probe=optim": Measure("parameters", lambda size, folder: training.norms(10, size // 10)),
    "checkpoint written": Measure("parameters", training.write_checkpoint, rounds=2),
    "checkpoint read": Measure("parameters", training.read_checkpoint, rounds=2, warm_up=0),
    "VRAdam step, many tensors": Measure("tensors", training.step_of_tensors("vradam"), rounds=5),
    "AdamW step, many tensors": Measure("tensors", training.step_of_tensors("adamw"), rounds=5),
    "probe=optim, many tensors": Measure(
        "tensors", lambda size, folder: training.norms(size, training.TENSOR), rounds=5
    ),
    f"trainer, {training.STEPS} steps": Measure(
        "tensors", lambda size, folder: training.loops(size, folder)["trainer"], rounds=2
    ),
    f"bare loop, {training.STEPS} steps": Measure(
        "tensors", lambda size, folder: training.loops(size, folder)["bare"], rounds=2
    ),
    "comparison": Measure("seeds", records.comparison),
    "bootstrap interval": Measure("seeds", records.of_differences("bootstrap")),
    "sign-flip test": Measure("seeds", records.of_differences("sign-flip")),
    "signed-rank test": Measure("seeds", records.of_differences("signed-rank")),
    "tokenizing": Measure("tokens", training.tokenizing, rounds=1, warm_up=0),
    "task, tokens cached": Measure("tokens", training.cached_task, rounds=1, warm_up=0),
    "batches of an epoch": Measure("tokens", training.epoch, rounds=1, warm_up=0),
    "rows read": Measure("steps", records.reading, rounds=1, warm_up=0),
    "curve thinned": Measure("steps", records.thinning, rounds=1),
    "table of rows": Measure("steps", records.table_of_rows, rounds=1, warm_up=0),
    "run goes on": Measure("steps", records.going_on, rounds=1, warm_up=0),
}


# ---- one measurement ------------------------------------------------------------------------------------------------


def measured(measure: Measure, size: int, folder: Path) -> dict[str, float]:
    """`seconds`, the least processor time of a call, and `peak_mb`, what it needs beyond what the process held before.

    Of a command, both are of the whole process.
    """
    work = measure.prepare(size, folder)
    if measure.whole:
        work()
        return {"seconds": time.process_time(), "peak_mb": peak() / 1e6}
    for _ in range(measure.warm_up):
        work()
    gc.collect()
    give_back()
    held, taken = reset_peak(), []
    for _ in range(measure.rounds):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return {"seconds": min(taken), "peak_mb": max(0.0, peak() - held) / 1e6}


def give_back() -> None:
    """Let the allocators return what is free, which the next calls would use again unseen."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    if (arrow := sys.modules.get("pyarrow")) is not None:
        arrow.default_memory_pool().release_unused()


def peak() -> float:
    """The most bytes that this process has held since `reset_peak`, or ever; what it inherited of its parent is not in
    it where the system tells."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024.0 * int(line.split()[1])
    return float(peak_memory_bytes())


def reset_peak() -> float:
    """Let the peak begin anew where the system can do that; the bytes that are held now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak()


def main(words: Sequence[str]) -> None:
    """Take one measurement and write it."""
    name, size, folder, answer = words
    Path(answer).write_text(json.dumps(measured(MEASURES[name], int(size), Path(folder))))


if __name__ == "__main__":
    main(sys.argv[1:])
