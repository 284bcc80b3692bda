"""One row a run, and the best arm of each side: rows recomputed from the records, choices by validation alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from made_runs import eight, make_run, report

from vrbench.report import compare
from vrbench.report.collect import collect
from vrbench.report.rivals import rivals


def read(told: str) -> list[dict[str, str]]:
    return list(csv.DictReader(told.splitlines()))


def test_every_run_is_a_row_with_all_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [
        make_run(tmp_path, 0.1 + 0.2, seed=1, settings={"lr": 0.01, "wd": 0.1}, seconds=3.5),
        make_run(tmp_path, 0.7, seed=0, settings={"wd": 0.1}),
        make_run(tmp_path, 0.6, optimizer="sgd", status="diverged", settings={"wd": 0.1, "momentum": 0.9}),
        make_run(tmp_path, 0.5, optimizer="sgd", seed=3, status="unfinished", settings={"wd": 0.1, "momentum": 0.9}),
        make_run(tmp_path, 2.5, task="pydoc", metric="perplexity", direction="min", overrides={"task.width": 3}),
    ]
    told = report(capsys, "runs", tmp_path)
    rows = read(told)
    assert len(rows) == len(folders)
    assert told.splitlines()[0].split(",") == [
        "study", "task", "model", "optimizer", "label", "seed", "status", "steps", "seconds",
        "test/accuracy", "test/loss", "test/perplexity", "val/accuracy", "val/loss", "val/perplexity",
        "best/val/accuracy", "best/val/loss", "best/val/perplexity", "optimizer.lr",
    ]  # fmt: skip
    by_seed = {(row["task"], row["optimizer"], row["seed"]): row for row in rows}
    first = by_seed["digits", "vradam", "1"]
    summary = json.loads((folders[0] / "summary.json").read_text())
    assert float(first["test/accuracy"]) == summary["metrics"]["test/accuracy"] == 0.1 + 0.2
    assert float(first["best/val/accuracy"]) == 0.1 + 0.2
    assert (first["label"], first["steps"], first["seconds"], first["optimizer.lr"]) == (
        "vradam lr=0.01",
        "30",
        "3.5",
        "0.01",
    )
    assert (first["study"], first["test/perplexity"]) == ("made", "")
    assert by_seed["digits", "sgd", "0"]["status"] == "diverged"
    assert by_seed["digits", "sgd", "0"]["test/accuracy"] == ""
    unfinished = by_seed["digits", "sgd", "3"]
    assert (unfinished["status"], unfinished["steps"], unfinished["seconds"]) == ("unfinished", "", "")
    told = json.loads(report(capsys, "runs", tmp_path, "--format", "json"))["rows"]
    assert {(row["optimizer.lr"], row["test/perplexity"]) for row in told[:4]} == {(0.001, None), (0.01, None)}
    assert "| made | digits | mlp | vradam | vradam lr=0.01 | 1 |" in report(
        capsys, "runs", tmp_path, "--format", "markdown"
    )


def test_a_method_tuned_twice_has_a_row_for_each_run_and_what_each_search_chose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for replicate, lr in enumerate((0.001, 0.002)):
        tuned: dict[str, Any] = {
            "search": f"s{replicate}", "method": "m", "replicate": replicate, "trials": 4, "budget": 4,
            "sampler": "random", "seeds": [0], "metric": "val/accuracy", "params": {"optimizer.lr": lr}, "space": {},
            "edges": [],
        }  # fmt: skip
        for seed in (1, 2):
            make_run(tmp_path, 0.5, seed=seed + 10 * replicate, settings={"lr": lr}, tuned=tuned)
    rows = read(report(capsys, "runs", tmp_path))
    assert [(row["seed"], row["optimizer.lr"]) for row in rows] == [
        ("1", "0.001"), ("2", "0.001"), ("11", "0.002"), ("12", "0.002"),
    ]  # fmt: skip


def test_trials_come_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path, 0.9, seed=10, study="mine")
    make_run(tmp_path, 0.8, seed=0, study="mine/tune")
    (tmp_path / "mine" / "search").mkdir()
    assert [row["seed"] for row in read(report(capsys, "runs", tmp_path))] == ["10"]
    assert {row["seed"] for row in read(report(capsys, "runs", tmp_path, "--tuning"))} == {"0", "10"}


def grid(root: Path) -> None:
    """vradam's best validation is at lr=0.1, the best test at lr=0.2; its luckiest seed at lr=0.3 is alone."""
    for lr, shift in ((0.1, 0.05), (0.2, 0.0)):
        eight(root, 0.8 + shift, "vradam", settings={"lr": lr})
    for folder in (root / "made").iterdir():
        text = (folder / "summary.json").read_text()
        if "lr: 0.2" in (folder / "config.yaml").read_text():
            summary = json.loads(text)
            summary["metrics"]["test/accuracy"] += 0.1
            (folder / "summary.json").write_text(json.dumps(summary))
    make_run(root, 0.99, settings={"lr": 0.3})
    eight(root, 0.7, "adamw")


def test_the_best_of_each_side_is_chosen_by_validation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid(tmp_path)
    assert "names 3 arms of digits mlp" in report(capsys, "compare", "vradam", "adamw", tmp_path, code=2)
    told = json.loads(report(capsys, "compare", "vradam", "adamw", tmp_path, "--best", "--format", "json"))
    (row,) = told["rows"]
    assert (row["a"], row["b"], row["verdict"]) == ("vradam lr=0.1", "adamw", "better")
    assert row["scope"] == "for these settings, best of 3 against 1"
    assert told["notes"][0] == (
        "digits mlp: the best by validation: vradam lr=0.1, of 3; adamw, of 1; of more arms a better best is to be "
        "expected."
    )
    assert not any("optimistic" in note for note in told["notes"][1:2])
    val = json.loads(
        report(capsys, "compare", "vradam", "adamw", tmp_path, "--best", "--split", "val", "--format", "json")
    )
    assert val["notes"][1] == "Chosen by the same validation that is compared: optimistic."


def test_a_studys_verdict_says_that_its_arms_were_chosen_among_several(tmp_path: Path) -> None:
    """A page or a published study compares the best of each optimizer without being asked to."""
    grid(tmp_path)
    (met,) = rivals(collect([tmp_path]), 8)
    (one,) = met.found
    assert (one.a.label, one.b.label, one.among) == ("vradam lr=0.1", "adamw", (3, 1))
    assert str(one.verdict).endswith("for these settings, best of 3 against 1")
    assert met.table.notes[0].startswith("digits mlp: the best by validation: vradam lr=0.1, of 3; adamw, of 1;")
    alone = [arm for arm in collect([tmp_path]) if arm.label in ("vradam lr=0.2", "adamw")]
    assert "best of" not in str(rivals(alone, 8)[0].table.notes) + str(rivals(alone, 8)[0].found[0].verdict)


def test_an_arm_with_a_diverged_run_is_not_the_best(tmp_path: Path) -> None:
    for seed in range(3):
        make_run(tmp_path, 0.9, seed=seed, settings={"lr": 0.1}, status="diverged" if seed == 0 else "finished")
        make_run(tmp_path, 0.5, seed=seed, settings={"lr": 0.2})
    (chosen,) = compare.pick(collect([tmp_path]), "vradam", best=True).values()
    assert chosen.label == "vradam lr=0.2"
