"""Rows of many runs as one data frame: what a frame of dictionaries would be, without the dictionaries."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import pandas
import pytest
from made_runs import make_run, write_rows
from pandas.testing import assert_frame_equal

import vrbench

ROWS = [
    [{"step": 1, "train/loss": 0.5}, {"step": 2, "train/loss": math.inf, "val/loss": 0.25, "count": 3}],
    [{"step": 1, "epoch": 0.5, "count": 4}, {"step": 3, "epoch": 1, "word": "a", "count": 5}, {"step": 2**40}],
    [],
]


@pytest.fixture
def runs(tmp_path: Path) -> vrbench.Runs:
    for seed, rows in enumerate(ROWS):
        write_rows(make_run(tmp_path, 0.5, seed=seed), rows)
    return vrbench.load(tmp_path)


def test_rows_are_those_of_a_frame_of_dictionaries(runs: vrbench.Runs) -> None:
    (arm,) = runs.arms
    head = {"study": "made", "task": "digits", "model": "mlp", "optimizer": "vradam", "label": arm.label}
    rows = [
        {**head, "seed": seed, "run": run.directory.name, **row}
        for seed, (run, rows) in enumerate(zip(runs, ROWS, strict=True))
        for row in rows
    ]
    assert_frame_equal(runs.metrics(), pandas.DataFrame(rows))
    known = pandas.DataFrame(rows)[[*head, "seed", "run", "step", "val/loss", "count"]]
    known = known.dropna(subset=["val/loss", "count"], how="all").reset_index(drop=True)
    assert_frame_equal(runs.metrics("val/loss", "count"), known)


def test_no_rows_at_all_are_an_empty_frame(tmp_path: Path) -> None:
    write_rows(make_run(tmp_path, 0.5), [])
    assert vrbench.load(tmp_path).metrics().empty


def test_a_row_takes_little_more_than_its_numbers(tmp_path: Path) -> None:
    """Of 3,000 rows of 20 numbers; as dictionaries each takes some 3,000 bytes."""
    rows = [{"step": step, **{f"metric/{place}": step / (place + 1) for place in range(19)}} for step in range(3000)]
    write_rows(make_run(tmp_path, 0.5), rows)
    runs = vrbench.load(tmp_path)
    runs.metrics("metric/0")  # imports
    tracemalloc.start()
    runs.metrics()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < len(rows) * 20 * 8 * 6
