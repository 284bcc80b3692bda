"""How growth is told from made-up values, and that every measure of the scaling benchmark measures, at tiny sizes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "bench"))

import many_runs
import scaling
import scaling_axes

SIZES = [10, 100, 1000, 10_000]
TINY = {"runs": 3, "parameters": 1000, "tensors": 3, "seeds": 8, "tokens": 20_000, "steps": 20}


@pytest.mark.parametrize(("power", "fixed"), [(1, 0.0), (1, 50.0), (2, 0.0), (2, 50.0), (0.5, 1.0)])
def test_growth_is_the_power_whatever_the_fixed_cost(power: float, fixed: float) -> None:
    values = [fixed + 0.01 * size**power for size in SIZES]
    assert scaling.growth(SIZES, values, 1e-3, 1e-3) == pytest.approx(power, abs=0.08)


def test_what_does_not_grow_beyond_its_noise_has_no_growth() -> None:
    assert scaling.growth(SIZES, [1.0, 1.01, 0.99, 1.05], 0.03, 0.01) is None
    assert scaling.growth([10], [1.0], 0.03, 0.01) is None
    # a rise within the noise, then one beyond it, is no steep one
    assert scaling.growth(SIZES, [1.0, 1.0, 1.001, 1.3], 0.03, 0.01) == pytest.approx(1.0, abs=0.01)


def test_a_measure_that_is_worse_than_linear_is_named() -> None:
    found = {
        name: scaling.summary(SIZES, [{"seconds": (size / 1e3) ** power, "peak_mb": size / 10} for size in SIZES])
        for name, power in (("even", 1.0), ("square", 2.0))
    }
    assert scaling.worse(found.items()) == ["square"]
    assert found["square"]["seconds_slopes"] == pytest.approx([2.0] * 3)
    assert "WORSE THAN LINEAR" in scaling.line("square", {"axis": "runs", **found["square"]})
    assert "WORSE" not in scaling.line("even", {"axis": "runs", **found["even"]})


def test_sizes_are_those_between_the_least_and_the_largest() -> None:
    assert scaling.chosen("runs", 50, 1000) == [100, 1000]
    with pytest.raises(ValueError, match="runs: has no size from 1 to 5"):
        scaling.chosen("runs", 1, 5)


def test_every_measure_has_an_axis_and_every_axis_measures() -> None:
    assert {measure.axis for measure in scaling_axes.MEASURES.values()} == set(scaling_axes.AXES)


@pytest.mark.slow
@pytest.mark.parametrize("axis", list(TINY))
def test_every_measure_measures(axis: str, tmp_path: Path) -> None:
    if axis in scaling_axes.SET_UP:
        scaling_axes.SET_UP[axis](TINY[axis], tmp_path)
    for name in (name for name, measure in scaling_axes.MEASURES.items() if measure.axis == axis):
        found = scaling.take(name, TINY[axis], tmp_path, 1)
        assert found["seconds"] >= 0, name
        assert found["peak_mb"] >= 0, name


def test_a_measure_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)rows read at 3:.*FileNotFoundError"):
        scaling.take("rows read", 3, tmp_path, 1)


def test_the_record_and_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of measurements that are made up, in place of processes, the first of three with something on top."""
    taken: list[tuple[str, int]] = []

    def take(name: str, size: int, folder: Path, threads: int) -> dict[str, float]:
        disturbed = 1.0 if (name, size) not in taken else 0.0
        taken.append((name, size))
        return {"seconds": size / 100 + disturbed, "peak_mb": 0.0 if size < 20 else float(size) + disturbed}

    monkeypatch.setattr(scaling, "take", take)
    words = ["--axes", "seeds", "tensors", "--largest", "128", "--only", "comparison", "AdamW step, many tensors"]
    monkeypatch.setattr(sys, "argv", ["scaling.py", *words, "--output", str(tmp_path / "made.json")])
    scaling.main()
    sizes = {"comparison": (8, 32, 128), "AdamW step, many tensors": (10, 100)}
    assert taken == [(name, size) for name, own in sizes.items() for size in own for _ in range(3)]
    results = json.loads((tmp_path / "made.json").read_text())["results"]
    assert results["comparison"]["seconds_growth"] == pytest.approx(1.0)
    assert results["comparison"]["seconds_at_most_linear"]
    picture = (tmp_path / "made.svg").read_text()
    assert all(f">{text}<" in picture for text in ("seeds", "tensors", "seconds", "MB", "comparison"))


def test_other_axes_stay_in_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"value": 1.0}
    monkeypatch.setattr(scaling, "take", lambda *_: {"seconds": seconds["value"], "peak_mb": 0.0})
    output = tmp_path / "made.json"
    for axes, value in ((["seeds", "tensors"], 1.0), (["tensors"], 2.0)):
        seconds["value"] = value
        monkeypatch.setattr(sys, "argv", ["scaling.py", "--largest", "128", "--output", str(output), "--axes", *axes])
        scaling.main()
    results = json.loads(output.read_text())["results"]
    assert results["comparison"]["seconds"] == [1.0] * 3
    assert results["AdamW step, many tensors"]["seconds"] == [2.0] * 2
    assert all(set(one["git"]) == {"sha", "dirty"} for one in results.values())


@pytest.mark.slow
def test_copies_are_the_runs_that_their_command_would_train(tmp_path: Path) -> None:
    """Asked for, none of them is trained."""
    many_runs.copies(many_runs.trained(tmp_path), tmp_path / "seeds", [(0, 0.001), (5, 0.001), (5, 0.002)])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("seeds/*/*")}
    words = [f"results_dir={tmp_path}", "study=seeds", *many_runs.WORDS]
    scaling_axes.records.vrbench("-m", *words, "seed=0,5")
    scaling_axes.records.vrbench(*words, "seed=5", "optimizer.lr=0.002")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("seeds/*/*")} == before
