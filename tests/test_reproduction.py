"""scripts/reproduce_paper.py end to end at its smallest, and what scripts/publish_results.py keeps of it."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from vrbench.records import Run, find_runs

SCRIPTS = Path(__file__).parents[1] / "scripts"
PATHS = {"cifar10": "somewhere/cifar10", "wikitext2": "somewhere/wikitext2", "mnist": "somewhere/mnist"}
FAST = ("logger=none", "trainer.threads=1")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script as a module, its studies in a temporary folder."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import reproduce_paper

    monkeypatch.setattr(reproduce_paper, "RUNS", tmp_path)
    return reproduce_paper


def test_a_part_of_each_kind_runs_and_is_reported(
    vrbench: Callable[..., int], scripts: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune, *_, confirm = scripts.table1("smoke", "smoke-table1", {})
    assert vrbench(*tune, *FAST) == 0
    assert vrbench(*confirm, *FAST) == 0
    (table4,) = scripts.table4("smoke", "smoke-table4", {})
    assert vrbench(*table4, *FAST) == 0
    (figure2,) = scripts.figure2("smoke", "smoke-figure2", {})
    assert vrbench(*figure2, *FAST) == 0
    assert sum(1 for _ in scripts.ablations("smoke", "smoke-ablations", {})) == 7
    scripts.report(tmp_path / "smoke-table1")
    reports = {path.name for path in (tmp_path / "smoke-table1" / "report").iterdir()}
    assert {"report.html", "paper.md"} <= reports

    import publish_results

    monkeypatch.setattr(publish_results, "RUNS", tmp_path)
    monkeypatch.setattr(publish_results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(sys, "argv", ["publish_results", "smoke"])
    publish_results.main()
    kept = tmp_path / "results" / "smoke"
    rows = list(csv.DictReader((kept / "runs.csv").open()))
    confirmed = [run for run in find_runs(tmp_path) if run.directory.parent.name != "tune"]
    folders = {(run.directory.relative_to(tmp_path).parts[0], run.manifest["id"]): run for run in confirmed}
    assert sorted((f"smoke-{row['study']}", row["id"]) for row in rows) == sorted(folders)
    for row in rows:
        run: Run = folders[f"smoke-{row['study']}", row["id"]]
        assert run.summary is not None
        assert float(row["test"]) == run.summary["metrics"][f"test/{row['metric']}"]
    searches = json.loads((kept / "searches.json").read_text())["smoke-table1"]
    assert sorted(search["choices"]["optimizer"] for search in searches) == ["adamw", "sgd", "vradam"]
    assert all(search["finished"] == search["budget"] == 2 for search in searches)
    assert "insufficient data" in (kept / "tables.md").read_text()
    assert "Table 4" in (kept / "paper.md").read_text()
    assert json.loads((kept / "provenance.json").read_text())["runs"] == len(folders) + 6


@pytest.mark.parametrize("scale", ["cpu", "full"])
def test_larger_scales_tune_and_confirm_with_equal_budgets(scripts: ModuleType, scale: str) -> None:
    *searches, confirm = scripts.table1(scale, "x", PATHS)
    assert "seed=range(0,8)" in confirm
    assert len(searches) == 4
    budgets = {word for words in searches for word in words if word.startswith("hydra.sweeper.n_trials=")}
    assert len(budgets) == 1


def test_full_scale_says_what_it_needs(
    scripts: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["reproduce_paper", "table4", "--scale", "full"])
    with pytest.raises(SystemExit) as stop:
        scripts.main()
    assert stop.value.code == 2
    assert "--scale full needs --cifar10 PATH" in capsys.readouterr().err


def test_a_part_that_needs_table1_says_so(scripts: ModuleType) -> None:
    with pytest.raises(SystemExit, match="run table1 at this scale first"):
        list(scripts.table4("smoke", "smoke-table4", {}))
