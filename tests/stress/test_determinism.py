"""The same command twice, and stopped and resumed: the same numbers, bit for bit, for every task."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import children
from conftest import ROOT
from same_numbers import numbers_of_folder
from stress import patches
from stress.short_runs import only_run, short, short_tasks
from stress.sizes import sizes

from vrbench.runs.records import Run

STEPS = 7
"""That a run trains before it is stopped again."""


@sizes(
    "tasks, optimizers, stops",
    short=(["diffusion_digits"], ["vradam"], 1),
    full=(short_tasks(), ["vradam", "adamw", "sgd"], 3),
)
def test_twice_and_resumed_is_the_same(
    tasks: list[str], optimizers: list[str], stops: int, tmp_path: Path, figures: dict[str, Any]
) -> None:
    equal = 0
    for task in tasks:
        for optimizer in optimizers:
            name = f"{task}-{optimizer}"
            output = tmp_path / f"{name}.txt"
            words = [*short(task), f"optimizer={optimizer}", f"results_dir={tmp_path}"]
            for study in ("once", "again"):
                assert children.run([[*words, f"study={name}/{study}"]], output) == 0, output.read_text()
            resumed = [*words, f"study={name}/resumed"]
            for _ in range(stops):
                assert children.run([resumed], output, partial(patches.stop_after, STEPS)) == 0, output.read_text()
            assert children.run([resumed], output) == 0, output.read_text()
            folders = {study: only_run(tmp_path / name / study) for study in ("once", "again", "resumed")}
            assert Run(folders["resumed"]).manifest["resumed_from_step"] == STEPS * stops
            once = numbers_of_folder(folders["once"])
            assert numbers_of_folder(folders["again"]) == once, name
            assert numbers_of_folder(folders["resumed"]) == once, name
            equal += 1
    there = {path.stem for path in (ROOT / "conf" / "task").glob("*.yaml")}
    figures |= {
        "tasks": tasks,
        "optimizers": optimizers,
        "bit_equal_twice_and_resumed": equal,
        "stops": stops,
        "not_run_for_want_of_data": sorted(there - {*short_tasks()}),
    }
