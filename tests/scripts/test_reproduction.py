"""scripts/reproduce_paper.py end to end at its smallest, and what is published of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT

from vrbench.report.publish import publish
from vrbench.runs.records import find_runs
from vrbench.tuning.plan import commands, read_plan

SCRIPTS = ROOT / "scripts"
FAST = ("logger=none", "trainer.threads=1")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The script as a module, its studies in a temporary folder."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import reproduce_paper

    monkeypatch.setattr(reproduce_paper, "RUNS", tmp_path)
    return reproduce_paper


@pytest.mark.slow
def test_a_part_of_each_kind_runs_and_is_reported(
    vrbench: Callable[..., int], scripts: ModuleType, tmp_path: Path
) -> None:
    tune, *_, confirm = commands(read_plan(SCRIPTS / "plans/paper_smoke.yaml")[0])
    assert vrbench(*tune, *FAST) == 0
    assert vrbench(*confirm, *FAST) == 0
    (table4,) = scripts.table4("smoke", "smoke-table4")
    assert vrbench(*table4, *FAST) == 0
    (figure2,) = scripts.figure2("smoke", "smoke-figure2")
    assert vrbench(*figure2, *FAST) == 0
    assert sum(1 for _ in scripts.ablations("smoke", "smoke-ablations")) == 7
    scripts.report(tmp_path / "smoke-table1", "table1")
    reports = {path.name for path in (tmp_path / "smoke-table1" / "report").iterdir()}
    assert {"report.html", "paper.md"} <= reports

    for study, runs in (("table1", 6), ("table4", 10)):
        publish(tmp_path / f"smoke-{study}", tmp_path / "kept" / study)
        confirmed = [run for run in find_runs(tmp_path / f"smoke-{study}") if run.directory.parent.name != "tune"]
        assert len(confirmed) == runs
        text = (tmp_path / "kept" / study / "tables.md").read_text()
        assert "insufficient data" in text or study == "table4"
        kept = json.loads((tmp_path / "kept" / study / "verdicts.json").read_text())
        assert sum(row["n"] for row in kept["Every configuration"]) == runs


SMALLEST = {
    "edge": [
        *("task.data.train_size=100", "task.batch_size=100", "model.hidden=[8]"),
        *("probe.eos.size=100", "probe.eos.microbatch=100", "probe.eos.every=1"),
    ],
    "released": ["task.data.train_size=20000", "task.data.val_size=2000", "model.width=8", "model.leak_targets=true"],
}


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / "../shared/data").is_dir(), reason="../shared/data is not here")
@pytest.mark.parametrize("part", ["edge", "released"])
def test_a_part_on_real_data_runs_and_is_reported(
    vrbench: Callable[..., int], scripts: ModuleType, tmp_path: Path, part: str
) -> None:
    for words in scripts.PARTS[part]("small", part):
        first = [word.partition(",")[0] if "=" in word and "[" not in word else word for word in words]
        assert vrbench(*first, *SMALLEST[part], "trainer.max_steps=2", "trainer.eval_every=2") == 0, words
    scripts.report(tmp_path / part, part)
    assert (tmp_path / part / "report" / "report.html").exists()


@pytest.mark.parametrize("part", ["table4", "figure2", "released", "edge"])
def test_every_command_of_the_small_scale_composes(
    scripts: ModuleType, part: str, vrbench: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """A search is checked as its sweeper does; of others, what each sweeps stands at its first value."""
    commands = list(scripts.PARTS[part]("small", f"paper_{part}"))
    if part == "table4":
        *searches, confirm = commands
        assert "experiment=confirm" in confirm
        for words in (searches[0], searches[4], searches[6], searches[7], searches[-1]):
            assert vrbench(*words, "hydra.sweeper.check=true") == 0, words
        return
    for words in commands:
        single = [word.partition(",")[0] if "=" in word and "[" not in word else word for word in words if word != "-m"]
        plain = [word for word in single if not word.startswith(("hydra.", "sweep="))]
        assert vrbench("--cfg", "job", *plain) == 0, words
    assert f"study: paper_{part}" in capsys.readouterr().out


def test_a_part_says_which_scales_it_has(
    scripts: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["reproduce_paper", "edge", "--scale", "smoke"])
    with pytest.raises(SystemExit):
        scripts.main()
    assert "edge has the scales small, full" in capsys.readouterr().err


@pytest.mark.parametrize("scale", ["smoke", "cpu", "full"])
def test_the_plans_are_plans(scripts: ModuleType, scale: str) -> None:
    """Of four tasks each, and the larger ones with several tunings, fresh seeds and a control."""
    ((_, path, *_),) = scripts.table1(scale, "x")
    plan, _ = read_plan(Path(path))
    assert plan.study == f"{scale}-table1"
    assert (plan.baseline, plan.settings) == ("adamw", 4)
    if scale != "smoke":
        assert plan.replicates >= 3
        assert plan.seeds == 8
        assert plan.control


def test_full_scale_goes_on_with_yes_alone(
    scripts: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[tuple[str, ...]] = []
    monkeypatch.setattr(scripts, "vrbench", lambda words, extra: said.append(tuple(words)))
    monkeypatch.setattr(sys, "argv", ["reproduce_paper", "table1", "figure2", "--scale", "full"])
    with pytest.raises(SystemExit, match="nothing was run"):
        scripts.main()
    ((study, plan, *rest),) = said
    assert (study, Path(plan).name) == ("study", "paper_full.yaml")
    assert "--go" not in rest


def test_a_part_that_needs_table1_says_so(scripts: ModuleType) -> None:
    with pytest.raises(SystemExit, match="run table1 at this scale first"):
        list(scripts.table4("smoke", "smoke-table4"))
