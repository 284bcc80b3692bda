"""A report of a planned study follows the plan: baseline, family, smallest effect, and each schedule by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_runs import make_run

from vrbench.report import main, page
from vrbench.report.collect import collect
from vrbench.report.compare import pick_by_schedule
from vrbench.report.registered import registered

ADAMW, VRADAM = 0.8, {"constant": 0.9, "wsd": 0.7}
SCHEDULES = tuple(VRADAM)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two optimizers at two schedules, eight seeds each; VRAdam is ahead with one schedule, behind with the other."""
    for schedule, ours in VRADAM.items():
        target = {"schedule._target_": f"vrbench.training.schedules.{schedule}"}
        for seed in range(2000, 2008):
            for optimizer, value in (("adamw", ADAMW), ("vradam", ours)):
                make_run(
                    tmp_path, value + (seed % 5) * 1e-3, optimizer=optimizer, seed=seed, study="s/confirm",
                    overrides=target, choices={"schedule": schedule},
                )  # fmt: skip
    plan = {"study": "s", "baseline": "adamw", "smallest_effect": "error:5%", "schedules": list(SCHEDULES)}
    noted = {"digest": "0123456789abcdef", "when": "2026-11-26T10:00:00+00:00", "tests": 6, "plan": plan}
    (tmp_path / "s/plan.json").write_text(json.dumps(noted))
    for schedule in SCHEDULES:
        for optimizer in ("adamw", "vradam"):
            for replicate, costs in enumerate(([-0.5, -0.7], [-0.6, -0.8], [-0.7, -0.9])):
                _search(tmp_path / f"s/search/{optimizer}-{schedule}-{replicate}", optimizer, schedule, costs)
    _search(tmp_path / "s/search/again", "adamw", "wsd", [-0.1, -0.1], control=True)
    return tmp_path / "s/confirm"


def _search(folder: Path, optimizer: str, schedule: str, costs: list[float], control: bool = False) -> None:
    folder.mkdir(parents=True)
    trials = [{"state": "finished", "params": {"optimizer.lr": 0.1}, "cost": cost, "seconds": 1.0} for cost in costs]
    choices = {"task": "digits", "model": "mlp", "optimizer": optimizer, "schedule": schedule}
    settings = {"metric": None, "direction": None, "control": control}
    content = {"name": folder.name, "choices": choices, "settings": settings, "trials": trials}
    (folder / "trials.json").write_text(json.dumps(content))


def reported(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main.main(words)
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_table_compares_with_the_baseline_of_the_same_schedule(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = json.loads(reported(["table", str(study), "--baseline", "adamw", "--format", "json"], capsys))
    rows = {(row["optimizer"], row["settings"]): row for row in made["rows"]}
    better, worse = rows["vradam", "schedule=constant"], rows["vradam", "schedule=wsd"]
    assert (better["verdict"], worse["verdict"]) == ("better", "worse")
    assert better["difference"] == pytest.approx(0.1)
    assert worse["difference"] == pytest.approx(-0.1)
    assert better["family"] == worse["family"] == 6
    assert better["smallest_effect"] == pytest.approx(0.05 * (1 - better["mean"] + 0.1))
    assert rows["adamw", "schedule=wsd"]["verdict"] is None
    assert made["notes"][0].startswith("Study s: plan 0123456789abcdef, registered 2026-11-26T10:00:00+00:00, before")


def test_what_departs_from_the_plan_is_said(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["table", str(study), "--baseline", "adamw", "--smallest-effect", "1%", "--family", "2"]
    said = reported(words, capsys)
    assert "Not as planned: smallest effect 1 %, chosen for this report." in said
    assert "Not as planned: a family of 2 tests, chosen for this report." in said
    assert "Not as planned" not in reported([*words[:4], "--smallest-effect", "error:5%"], capsys)


def test_the_page_names_the_plan_and_shows_each_schedule_with_its_budget(study: Path) -> None:
    text = page.render(collect([study]))
    assert "plan 0123456789abcdef, registered 2026-11-26" in text
    assert "vradam against adamw" in text
    assert "<strong>better</strong> <span>digits, mlp, constant" in text
    assert "<strong>worse</strong> <span>digits, mlp, wsd" in text
    assert text.count("<h4>Best found against budget</h4>") == 1
    for schedule in SCHEDULES:
        assert f"<td>{schedule}</td>" in text, "each row says its schedule"
        assert f"<p>{schedule}: Overall: " in text, "one task at two schedules is no sample of two tasks"
    for schedule in SCHEDULES:
        expected = f"best found, digits mlp {schedule}: expected val/accuracy over trials. At the end: "
        assert f"{expected}adamw 0.8 [0.5865, 1.091], vradam 0.8 [0.5865, 1.091]" in text


def test_arms_of_several_studies_have_no_plan(study: Path, tmp_path: Path) -> None:
    arms = collect([study])
    assert registered(arms) is not None
    make_run(tmp_path, 0.9, study="other")
    assert registered(collect([tmp_path])) is None
    (tmp_path / "s/plan.json").write_text('{"digest": "0"}')
    with pytest.raises(ValueError, match=r"plan\.json: is no plan that vrbench study registered"):
        registered(arms)


def test_a_name_of_several_arms_that_schedules_do_not_part_is_refused(tmp_path: Path) -> None:
    for rate in (0.1, 0.01):
        make_run(tmp_path, 0.9, settings={"lr": rate})
    with pytest.raises(ValueError, match="vradam: names 2 arms of digits mlp"):
        pick_by_schedule(collect([tmp_path]), "vradam")
    with pytest.raises(ValueError, match="sgd: no such optimizer or label; there are vradam"):
        pick_by_schedule(collect([tmp_path]), "sgd")
