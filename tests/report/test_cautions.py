"""What tables say of runs whose code has changed since, of arms of several codes, and of runs that read no test."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from made_runs import eight, make_run, report

from vrbench.report import arms as arms_module
from vrbench.report import cautions, figures, page
from vrbench.report.collect import collect
from vrbench.report.study import print_study

# ---- code -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The source of an optimizer in the folder that commands are given in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    source = tmp_path / "mine_for_reports.py"
    source.write_text("class Mine: ...\n")
    return source


def code_of_mine() -> dict[str, dict[str, str]]:
    from vrbench.runs.source import code_of

    return code_of({"optimizer": {"_target_": "mine_for_reports.Mine"}})


def test_stale_runs_are_marked(mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = code_of_mine()
    for seed in range(3):
        make_run(tmp_path, 0.5, optimizer="mine", seed=seed, code=now)
        make_run(tmp_path, 0.5, optimizer="adamw", seed=seed, code={"files": {}, "libraries": now["libraries"]})
    assert "†" not in report(capsys, "table", tmp_path)
    mine.write_text("class Mine: pass\n")
    markdown = report(capsys, "table", tmp_path)
    assert "| mine | † |" in markdown
    assert markdown.count("| † |") == 1
    assert "mine_for_reports.py (1 row). force=changed trains them again." in markdown
    latex = report(capsys, "table", tmp_path, "--format", "latex")
    assert r"& mine & \(\dagger\) &" in latex
    (first, second) = csv.DictReader(report(capsys, "table", tmp_path, "--format", "csv").splitlines())
    assert (first["optimizer"], first["stale"]) == ("adamw", "")
    assert (second["optimizer"], second["stale"]) == ("mine", "mine_for_reports.py")
    assert (
        json.loads(report(capsys, "table", tmp_path, "--format", "json"))["rows"][1]["stale"] == "mine_for_reports.py"
    )
    compared = report(capsys, "compare", "mine", "adamw", tmp_path)
    assert "| 0.5† | 0.5 |" in compared
    assert "mine_for_reports.py" in compared
    assert ">†<" in page.render(collect([tmp_path]))
    print_study(tmp_path / "made")
    assert "force=changed" in capsys.readouterr().out


def test_commands_look_for_code_where_they_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script `vrbench-report` begins with a path that has not the working directory on it."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_here.py").write_text("")
    make_run(tmp_path, 0.5, code={"files": {"mine_here.py": "0" * 16}, "libraries": {}})
    assert "mine_here.py" in report(capsys, "table", tmp_path)


def test_some_stale_seeds_are_named(mine: Path, tmp_path: Path) -> None:
    before = code_of_mine()
    make_run(tmp_path, 0.5, seed=4, code=before)
    mine.write_text("class Mine: pass\n")
    make_run(tmp_path, 0.5, seed=5, code=code_of_mine())
    (arm,) = collect([tmp_path])
    stale, mixed = cautions.notes([arm], "test")
    assert "Of digits mlp vradam, seed 4 alone." in stale
    assert mixed.startswith("digits mlp vradam: its runs are not of one code (mine_for_reports.py: ")
    old, new = (code["files"]["mine_for_reports.py"][:8] for code in (before, code_of_mine()))
    assert f"{old} in seed 4, {new} in seed 5" in mixed


def test_runs_of_one_code_have_no_note(mine: Path, tmp_path: Path) -> None:
    for seed in range(3):
        make_run(tmp_path, 0.5, seed=seed, code=code_of_mine())
    assert cautions.notes(collect([tmp_path]), "test") == []


def test_runs_that_went_on_with_other_code_are_named(tmp_path: Path) -> None:
    change = {"step": 780, "changed": ["mine.py"], "at": "2026-01-01T00:00:00+00:00"}
    make_run(tmp_path, 0.5, seed=0, code={"files": {"mine.py": "12"}, "libraries": {"torch": "0.1"}})
    make_run(tmp_path, 0.5, seed=1, code={"files": {"mine.py": "12"}, "libraries": {"torch": "0.2"}})
    make_run(tmp_path, 0.5, seed=2, code={}, code_changes=[change])
    (arm,) = collect([tmp_path])
    (note,) = [note for note in cautions.notes([arm], "test") if "not of one code" in note]
    assert "torch: 0.1 in seed 0, 0.2 in seed 1" in note
    assert "mine.py:" not in note
    assert "seed 2 not recorded" in note
    assert "seed 2 went on with other mine.py from step 780" in note


def test_arms_of_different_code_are_compared_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    eight(tmp_path, 0.9, "vradam", code={"files": {"vrbench_loop.py": "1", "a.py": "1"}, "libraries": {}})
    eight(tmp_path, 0.8, "adamw", code={"files": {"vrbench_loop.py": "2", "b.py": "2"}, "libraries": {}})
    markdown = report(capsys, "compare", "vradam", "adamw", tmp_path)
    assert "digits mlp: vradam and adamw ran different code: vrbench_loop.py." in markdown


def test_code_is_looked_at_once_however_many_runs_ran_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    monkeypatch.setattr(arms_module, "changed_since", lambda code: looked.append(code) or ["mine.py"])
    codes = [{"files": {"mine.py": name}, "libraries": {}} for name in ("1", "2")]
    for lr in (0.1, 0.2, 0.3):
        for seed in range(4):
            make_run(tmp_path, 0.5, seed=seed, settings={"lr": lr}, code=codes[seed % 2])
    arms = collect([tmp_path])
    cautions.notes(arms, "test")
    assert [cautions.mark(arm) for arm in arms] == ["†"] * 3
    assert looked == codes


# ---- test unread ----------------------------------------------------------------------------------------------------


def trials(root: Path) -> None:
    """A search's trials, one of them diverged, as they are since schema 2: none reads the test split."""
    for seed, status in ((1000, "finished"), (1001, "diverged")):
        make_run(root, 0.7, optimizer="vradam", seed=seed, study="mine/tune", test_read=False, status=status)
    (root / "mine" / "search").mkdir()


def test_a_table_of_trials_is_of_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials(tmp_path)
    (row,) = json.loads(report(capsys, "table", tmp_path, "--tuning", "--format", "json"))["rows"]
    assert (row["split"], row["mean"], row["n"], row["diverged"], row["unfinished"]) == ("val", 0.7, 2, 1, 0)
    markdown = report(capsys, "table", tmp_path, "--tuning")
    assert "| val |" in markdown
    assert "| test |" not in markdown
    assert "No run here was to read the test split" in markdown
    page.render(collect([tmp_path / "mine" / "tune"]))
    print_study(tmp_path / "mine" / "tune")
    assert "test" not in capsys.readouterr().out.splitlines()[2]


def test_trials_have_no_test_value_beside_confirmed_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials(tmp_path)
    for seed, status in ((0, "finished"), (1, "diverged")):
        make_run(tmp_path, 0.8, seed=seed, study="mine/confirm", status=status)
    shown = json.loads(report(capsys, "table", tmp_path, "--tuning", "--format", "json"))
    others, tuning = shown["rows"]
    assert (others["mean"], others["n"], others["diverged"]) == (0.8, 2, 1)
    assert (tuning["mean"], tuning["n"], tuning["diverged"], tuning["unfinished"]) == (None, 0, 0, 0)
    assert "Where test is empty, no run of the row was to read the test split." in shown["notes"]
    markdown = report(capsys, "table", tmp_path, "--tuning")
    (line,) = [line for line in markdown.splitlines() if "runs=tuning |" in line]
    assert "| runs=tuning | accuracy ↑ |  |  | 0 | 0 | 0 |" in line
    print_study(tmp_path / "mine")
    assert "test" in capsys.readouterr().out.splitlines()[2]


def test_trials_are_not_compared_on_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for optimizer in ("vradam", "adamw"):
        eight(tmp_path, 0.7, optimizer, test_read=False)
    line = report(capsys, "compare", "vradam", "adamw", tmp_path, code=2)
    assert line == (
        "vrbench-report: digits mlp vradam and digits mlp adamw: no run was to read the test split; "
        "--split val compares validation"
    )
    assert "equivalent" in report(capsys, "compare", "vradam", "adamw", tmp_path, "--split", "val")
    assert '<li class="equivalent">' in page.render(collect([tmp_path]))


def test_trials_are_no_tests_of_a_table_with_a_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials(tmp_path)
    for optimizer, value in (("vradam", 0.9), ("adamw", 0.8)):
        eight(tmp_path, value, optimizer, study="mine/confirm")
    arguments = ("table", tmp_path, "--tuning", "--baseline", "adamw")
    rows = json.loads(report(capsys, *arguments, "--format", "json"))["rows"]
    assert [(row["verdict"], row["p"], row["p_holm"]) for row in rows] == [
        (None, None, None), ("better", 2 / 256, 2 / 256), (None, None, None)
    ]  # fmt: skip
    assert report(capsys, *arguments).count("| test not read |") == 1


def test_of_two_runs_the_one_that_read_test_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, 0.5, study="a", test_read=False)
    make_run(tmp_path, 0.5, study="b")
    make_run(tmp_path, 0.5, study="c", status="unfinished")
    (arm,) = collect([tmp_path])
    assert [run.manifest["study"] for run in arm.runs] == ["b"]
    assert [line.split(" left out")[0] for line in capsys.readouterr().err.splitlines()] == [
        "vrbench: digits mlp vradam: seed 0 of study a",
        "vrbench: digits mlp vradam: seed 0 of study c",
    ]


def test_seeds_that_did_not_read_test_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for optimizer in ("vradam", "adamw"):
        eight(tmp_path, 0.7, optimizer)
    make_run(tmp_path, 0.7, seed=9, test_read=False)
    rows = json.loads(report(capsys, "table", tmp_path, "--format", "json"))
    assert [row["n"] for row in rows["rows"]] == [8, 8]
    assert any("digits mlp vradam, seed 9." in note for note in rows["notes"])
    assert "Without a test value" in report(capsys, "compare", "vradam", "adamw", tmp_path)


def test_a_performance_profile_takes_no_trials(tmp_path: Path) -> None:
    for task in ("a", "b"):
        for optimizer in ("good", "bad", "blind"):
            make_run(tmp_path, 0.5, task=task, optimizer=optimizer, test_read=optimizer != "blind")
    (axis,) = figures.performance_profile(collect([tmp_path])).axes
    assert sorted(str(line.get_label()) for line in axis.lines) == ["bad", "good"]
