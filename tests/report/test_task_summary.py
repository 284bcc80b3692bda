"""Tables over all tasks: times, good shares and one setting for all, from made-up runs whose numbers are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.made_runs import make_run, report, write_rows
from vrbench.report import task_summary
from vrbench.report.collect import collect


def timed(root: Path, optimizer: str, task: str, seconds: float, *, seed: int = 0, never: bool = False) -> None:
    """A run that is at 0.9 after so many seconds, in steps of ten, ten a second."""
    folder = make_run(root, 0.5 if never else 0.9, task=task, optimizer=optimizer, seed=seed)
    last = {"step": int(10 * seconds), "time/steps_per_s": 10.0, "val/accuracy": 0.5 if never else 0.9}
    write_rows(folder, [last])


def test_profiles_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """sgd needs twice adamw's time on one task and never arrives on the other: (4 - 2) / 3 of one task in two."""
    timed(tmp_path, "adamw", "digits", 10)
    timed(tmp_path, "sgd", "digits", 20)
    timed(tmp_path, "adamw", "hypergrid", 5)
    timed(tmp_path, "sgd", "hypergrid", 5, never=True)
    first, second = task_summary.time_profiles(collect([tmp_path])).records
    assert (first["optimizer"], first["score"], first["tasks_reached"]) == ("adamw", 1.0, 2)
    assert (second["optimizer"], second["tasks_reached"]) == ("sgd", 1)
    assert second["score"] == pytest.approx(second["score_steps"]) == pytest.approx((4 - 2) / 3 / 2)
    assert (second["ratios"], second["shares"]) == ([2.0], [0.5])
    shown = report(capsys, "tasks", tmp_path)
    assert "| sgd | 0.333 | 0.333 | 1 of 2 |" in shown
    assert "digits mlp: accuracy ≥ 0.9" in shown


def test_the_good_share_is_over_all_searches_of_an_optimizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two searches, the best 0.9: of six trials 0.9, 0.88 and 0.86 are within 5 %; the diverged one is none."""
    timed(tmp_path, "vradam", "digits", 1)
    for number, costs in enumerate(([-0.9, -0.5, None], [-0.88, -0.86, -0.3])):
        folder = tmp_path / "made" / "search" / f"s{number}"
        folder.mkdir(parents=True)
        trials = [
            {"number": place, "state": "diverged" if cost is None else "finished", "params": {}, "cost": cost,
             "seconds": 1.0} for place, cost in enumerate(costs)
        ]  # fmt: skip
        choices = {"task": "digits", "model": "mlp", "optimizer": "vradam"}
        settings = {"metric": None, "direction": None}
        content = {"name": f"s{number}", "choices": choices, "settings": settings, "trials": trials}
        (folder / "trials.json").write_text(json.dumps(content))
    table = task_summary.robustness(collect([tmp_path]))
    assert table is not None
    (row,) = table.records
    assert (row["share"], row["trials"]) == (0.5, 6)
    assert "| digits | mlp | vradam | 50 [" in report(capsys, "tasks", tmp_path)
    assert "16.7 [" in report(capsys, "tasks", tmp_path, "--within", "1%")
    assert report(capsys, "tasks", tmp_path, "--within", "far", code=2).endswith("must be a share of the best (5%)")


def test_one_setting_for_all_tasks(tmp_path: Path) -> None:
    """0.01 is best on one task and far off on the other; 0.001 is near the best on both."""
    values = {("digits", 0.01): 1.0, ("digits", 0.001): 0.99, ("hypergrid", 0.01): 0.5, ("hypergrid", 0.001): 0.98}
    for (task, lr), value in values.items():
        make_run(tmp_path, value, task=task, settings={"lr": lr})
    (told,) = task_summary.one_setting(collect([tmp_path]))
    assert told == "vradam: of 2 settings run on all 2 tasks, optimizer.lr=0.001 has the smallest largest regret."


def test_without_searches_there_is_no_share(tmp_path: Path) -> None:
    make_run(tmp_path, 0.9)
    assert task_summary.robustness(collect([tmp_path])) is None
    assert task_summary.one_setting(collect([tmp_path])) == []
