"""The timer that the benchmarks share, by a clock that can be worked out by hand; and that every benchmark starts."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "bench"))

import timing

BENCHMARKS = sorted(path for path in (ROOT / "scripts" / "bench").glob("*.py") if "timing.parser(" in path.read_text())


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """The calls so far; each takes the seconds that it names, on a clock of its own."""
    called: list[tuple[str, float]] = []
    monkeypatch.setitem(timing.CLOCKS, "made", lambda: sum(took for _, took in called))
    return called


def test_sides_take_turns_and_the_warm_up_is_not_timed(turns: list[tuple[str, float]]) -> None:
    sides = {name: partial(turns.append, (name, took)) for name, took in (("a", 2.0), ("b", 5.0))}
    taken = timing.in_turns(sides, 3, calls={"b": 2}, swap=True, clock="made")
    assert [name for name, _ in turns] == ["a", "b", "a", "b", "b", "b", "b", "a", "a", "b", "b"]
    assert taken == {"a": [2.0, 2.0, 2.0], "b": [5.0, 5.0, 5.0]}


def test_a_ratio_is_taken_within_each_round() -> None:
    found = timing.ratio([2.0, 30.0, 4.0, 5.0, 60.0], [1.0, 10.0, 1.0, 1.0, 10.0])
    assert found == {"ratio": 4.0, "ratio_quartiles": [2.5, 5.5]}  # of 2, 3, 4, 5, 6
    assert timing.ratio([3.0], [2.0]) == {"ratio": 1.5, "ratio_quartiles": [1.5, 1.5]}


def test_a_record_says_where_its_numbers_come_from(tmp_path: Path) -> None:
    output = tmp_path / "new" / "x.json"
    timing.write(argparse.Namespace(threads=3, output=output), {"rows": [1]})
    record = json.loads(output.read_text())
    assert record["rows"] == [1]
    assert record["machine"]["threads"] == 3
    assert record["versions"]["torch"]
    assert record.keys() == {"command", "when", "git", "versions", "machine", "rows"}


@pytest.mark.slow
@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_every_benchmark_starts(path: Path) -> None:
    said = subprocess.run([sys.executable, str(path), "--help"], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "--output OUTPUT" in said.stdout
