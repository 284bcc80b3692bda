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


def test_a_device_is_waited_for_before_the_clock_is_read(turns: list[tuple[str, float]]) -> None:
    """What it still does when a side returns, 3 seconds here, is that side's; what it did before is nobody's."""
    owed: list[float] = []

    def launch(took: float) -> None:
        turns.append(("launched", took))
        owed.append(3.0)

    def wait() -> None:
        turns.extend(("waited", took) for took in owed)
        owed.clear()

    sides = {"a": partial(launch, 1.0), "b": partial(launch, 2.0)}
    taken = timing.in_turns(sides, 2, warm_up=1, calls={"b": 2}, clock="made", wait=wait)
    assert taken == {"a": [4.0, 4.0], "b": [5.0, 5.0]}  # b: 2 launches of 2 s and 2 × 3 s of work, by two calls


def test_a_figure_says_whether_it_meets_its_bar() -> None:
    import gpu

    def holds(median: float, bar: dict[str, float] | None) -> bool | None:
        return timing.figure("x", bar, {"ratio": median, "ratio_quartiles": [median, median]})["holds"]

    assert [holds(median, gpu.STEP_BAR) for median in (1.3, 1.31)] == [True, False]
    assert [holds(median, gpu.TRAINER_BAR) for median in (0.96, 0.97)] == [False, True]
    assert holds(2.0, None) is None
    line = timing.line(timing.figure("x", gpu.TRAINER_BAR, {"ratio": 0.9, "ratio_quartiles": [0.85, 0.95]}))
    assert line.split() == ["x", "0.900", "0.850", "0.950", "at", "least", "0.97", "does", "not", "hold"]


def test_without_cuda_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu
    import torch

    threads = torch.get_num_threads()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--threads", str(threads), "--output", str(tmp_path / "gpu.json")])
    with pytest.raises(SystemExit, match="no CUDA device on this machine"):
        gpu.main()
    assert list(tmp_path.iterdir()) == []


def test_a_step_is_measured_beside_one_read_of_what_it_reads() -> None:
    import optimizer_step
    import torch

    rows = list(optimizer_step.measure([torch.Size((8, 8))] * 3, list(optimizer_step.FORMS), 2))
    assert [row["form"] for row in rows] == list(optimizer_step.FORMS)
    assert all(row["floor"] > 1 and row["memory_ratio"] > 0.5 for row in rows)


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


def test_records_of_other_benchmarks_are_no_change_of_the_code(tmp_path: Path) -> None:
    from vrbench.runs.records import git_state

    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True)

    folder = tmp_path / "results" / "bench"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text("1")
    (tmp_path / "code.py").write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "begun")
    (folder / "a.json").write_text("2")
    (folder / "b.json").write_text("2")
    assert [git_state(tmp_path, *apart)["dirty"] for apart in ([], ["results/bench"])] == [True, False]
    git_state.cache_clear()
    (tmp_path / "code.py").write_text("2")
    assert git_state(tmp_path, "results/bench")["dirty"] is True


@pytest.mark.slow
@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_every_benchmark_starts(path: Path) -> None:
    said = subprocess.run([sys.executable, str(path), "--help"], cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "--output OUTPUT" in said.stdout
