"""What was tuned stands beside every verdict: as a second table, as columns, as records, on the page."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_run, report

from vrbench.report import formats, page, tables, tuned
from vrbench.report.collect import collect
from vrbench.report.compare import compare
from vrbench.report.publish import publish
from vrbench.report.smallest import Smallest

SEARCH: dict[str, Any] = {
    "search": "digits-mlp-vradam-1",
    "trials": 16,
    "budget": 20,
    "sampler": "tpe",
    "seeds": [1000, 1001, 1002],
    "metric": "val/loss",
    "space": {
        "optimizer.lr": {"low": 0.0001, "high": 0.1, "log": True, "int": False},
        "optimizer.power": {"low": 2, "high": 6, "log": False, "int": True},
        "schedule.warmup": [1, 5],
    },
    "params": {"optimizer.lr": 0.0999, "optimizer.power": 3, "schedule.warmup": 5},
    "edges": ["optimizer.lr=0.0999 lies on the upper edge of 0.0001 to 0.1"],
}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Eight seeds of a tuned arm and of one that was not."""
    for seed in range(8):
        make_run(tmp_path, 0.9 + seed / 1000, optimizer="vradam", seed=seed, tuned=SEARCH)
        make_run(tmp_path, 0.8 + seed / 1000, optimizer="adamw", seed=seed)
    return tmp_path


def test_markdown_has_a_second_table(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["table"], ["table", "--baseline", "adamw"], ["compare", "vradam", "adamw"]):
        first, second = report(capsys, *words, study).split("**What was tuned**")
        assert "16 of 20" not in first
        adamw, vradam = sorted(line for line in second.splitlines() if line.startswith("| digits"))
        assert [cell.strip() for cell in adamw.split("|")[3:7]] == ["adamw", "", "not tuned", ""]
        assert [cell.strip() for cell in vradam.split("|")[3:-1]] == [
            "vradam",
            "",
            "16 of 20",
            "tpe",
            "1000-1002",
            "val/loss",
            "lr=0.0999 power=3 schedule.warmup=5",
            "lr: 0.0001 to 0.1, log; power: 2 to 6, int; schedule.warmup: 1, 5",
            "optimizer.lr=0.0999 lies on the upper edge of 0.0001 to 0.1",
        ]


def test_without_any_tuning_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, 0.5)
    make_run(tmp_path, 0.5, optimizer="old", schema=1)
    assert "tuned" not in report(capsys, "table", tmp_path)
    assert json.loads(report(capsys, "table", tmp_path, "--format", "json"))["tuned"] == []
    first, second = csv.DictReader(report(capsys, "table", tmp_path, "--format", "csv").splitlines())
    assert first["tuned_trials"] == second["tuned_trials"] == ""
    assert "Tuning" not in page.render(collect([tmp_path]))


def test_json_has_it_whole_and_csv_in_columns(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["table"], ["compare", "vradam", "adamw"]):
        told = {row["optimizer"]: row for row in json.loads(report(capsys, *words, study, "--format", "json"))["tuned"]}
        assert {key: told["vradam"][key] for key in SEARCH} == SEARCH
        assert (told["vradam"]["tuned"], told["adamw"]["tuned"]) == (True, "not tuned")
        assert told["adamw"]["params"] is None
    adamw, vradam = csv.DictReader(report(capsys, "table", study, "--format", "csv").splitlines())
    assert (adamw["tuned_trials"], adamw["tuned_params"]) == ("not tuned", "")
    assert (vradam["tuned_trials"], vradam["tuned_sampler"], vradam["tuned_seeds"]) == ("16 of 20", "tpe", "1000-1002")
    assert vradam["tuned_params"] == "lr=0.0999 power=3 schedule.warmup=5"
    assert "upper edge" in vradam["tuned_edges"]
    (row,) = csv.DictReader(report(capsys, "compare", "vradam", "adamw", study, "--format", "csv").splitlines())
    assert row["tuned_b"] == "not tuned"
    assert row["tuned_a"].startswith("16 of 20 trials, tpe, seeds 1000-1002, by val/loss: lr=0.0999 power=3")


def test_latex_has_a_second_tabular(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = report(capsys, "table", study, "--format", "latex")
    assert shown.count(r"\begin{tabular}") == shown.count(r"\end{tabular}") == 2
    assert shown.count(r" \\") + shown.count(r" \tabularnewline") == 3 + 3
    assert shown.count("needs \\usepackage{booktabs}") == 1
    assert shown.count(r"\begin{table}") == shown.count(r"\end{table}") == 2
    assert shown.index("What was tuned") < shown.rindex(r"\begin{tabular}")
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex on this machine")
    body = f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}\n{shown}\\end{{document}}\n"
    (tmp_path / "x.tex").write_text(body)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "x.tex"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:]


def test_the_page_has_a_section_for_each_task(study: Path) -> None:
    make_run(study, 0.5, task="pydoc")
    text = page.render(collect([study]))
    assert text.count("<h3>Tuning</h3>") == 1
    assert "digits, mlp: what was tuned" in text
    assert "lr=0.0999 power=3 schedule.warmup=5" in text
    assert '<td class="number">not tuned</td>' in text


def test_the_trials_themselves_are_not_called_untuned(study: Path) -> None:
    make_run(study, 0.5, seed=1000, study="made/tune", test_read=False)
    (study / "made" / "search").mkdir()
    table = tuned.appendix(collect([study], tuning=True))
    assert table is not None
    assert [(cells[2], cells[4]) for cells in table.cells] == [("adamw", "not tuned"), ("vradam", "16 of 20")]


def test_two_searches_of_one_configuration_are_two_rows(tmp_path: Path) -> None:
    for seed, trials in ((0, 16), (1, 16), (2, 20)):
        make_run(tmp_path, 0.5, seed=seed, tuned={**SEARCH, "trials": trials, "metric": None, "edges": []})
    arms = collect([tmp_path])
    table = tuned.appendix(arms)
    assert table is not None
    assert [(cells[4], cells[7], cells[10]) for cells in table.cells] == [
        ("16 of 20", "the task's metric", "no"),
        ("20", "the task's metric", "no"),
    ]
    assert tuned.compact(arms[0], True)["tuned_trials"] == "16 of 20 | 20"


def test_published_verdicts_say_what_was_tuned(tmp_path: Path) -> None:
    """Of a study whose arms may not all be compared."""
    for seed in range(8):
        same = {"task": "pydoc", "metric": "loss", "direction": "min", "study": "s", "seed": seed}
        make_run(tmp_path / "runs", 4.0 + seed / 100, optimizer="vradam", tuned=SEARCH, **same)
        make_run(tmp_path / "runs", 5.0 + seed / 100, optimizer="adamw", overrides={"trainer.epochs": 2}, **same)
    publish(tmp_path / "runs/s", tmp_path / "kept")
    verdicts = json.loads((tmp_path / "kept/verdicts.json").read_text())
    told = {row["optimizer"]: row["tuned_trials"] for row in verdicts["Every configuration"]}
    assert told == {"adamw": "not tuned", "vradam": "16 of 20"}
    (row,) = verdicts["vradam against adamw"]
    assert (row["verdict"], row["not_comparable"]) == ("not comparable", "trainer.epochs: 1 against 2")
    assert "**What was tuned**" in (tmp_path / "kept/tables.md").read_text()


def test_a_comparison_tells_what_was_tuned_of_its_own_arms_alone(study: Path) -> None:
    make_run(study, 0.5, optimizer="sgd")
    arms = {arm.optimizer: arm for arm in collect([study])}
    found = compare([(arms["sgd"], arms["adamw"])], "test", Smallest())
    made = tables.comparison(found, "sgd", "adamw", "test", Smallest(), "t")
    assert made.appendix is None
    assert "tuned" not in formats.markdown(made)
