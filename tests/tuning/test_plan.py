"""A study's plan: what it comes to, its commands, what it can find, and that it is fixed once it was begun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import ROOT
from scipy import stats

from vrbench.tuning import plan as planning

CONTENT: dict[str, Any] = {
    "study": "s",
    "tasks": ["digits", {"task": "hypergrid", "overrides": ["trainer.fraction=0.5"]}],
    "optimizers": ["vradam", "adamw", "sgd"],
    "baseline": "adamw",
    "schedules": ["constant", "wsd"],
    "trials": 8,
    "replicates": 3,
    "seeds": 8,
    "smallest_effect": "1%",
}


def read(tmp_path: Path, **changes: Any) -> tuple[planning.Plan, str]:
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(CONTENT | changes))
    return planning.read_plan(path)


def test_a_plan_is_counted(tmp_path: Path) -> None:
    plan, _ = read(tmp_path)
    assert plan.arms == ["vradam", "sgd", "adamw"]
    assert (plan.settings, plan.tests) == (4, 8)
    assert plan.searches == 4 * (3 + 1) * 3
    assert plan.runs == 48 * (8 + 8)
    assert read(tmp_path, control=False)[0].searches == 36
    with pytest.raises(ValueError, match="budget_runs=767: the plan has 768 runs"):
        read(tmp_path, budget_runs=767)


@pytest.mark.parametrize(
    "wrong", [{"trails": 3}, {"trials": 0}, {"trials": "8"}, {"tasks": []}, {"tasks": [{"overrides": []}]}]
)
def test_a_wrong_plan_is_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"trails|trials|tasks|task"):
        read(tmp_path, **wrong)


@pytest.mark.parametrize(
    "path",
    sorted([*(ROOT / "results").glob("*/plan.yaml"), *(ROOT / "scripts" / "plans").glob("*.yaml")]),
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_every_committed_plan_can_be_begun(path: Path) -> None:
    plan, _ = planning.read_plan(path)
    assert plan.searches > 0
    if path.name == "plan.yaml":
        assert plan.study == path.parent.name


def test_the_layout_of_a_plan_is_no_part_of_it(tmp_path: Path) -> None:
    first = read(tmp_path)[1]
    (tmp_path / "other.yaml").write_text("# the same\n" + yaml.safe_dump(CONTENT, sort_keys=False))
    assert planning.read_plan(tmp_path / "other.yaml")[1] == first
    assert read(tmp_path, seeds=9)[1] != first


def test_commands(tmp_path: Path) -> None:
    plan, _ = read(
        tmp_path,
        space={"optimizer.weight_decay": [0.0, 0.1], "optimizer.lr": {"low": 0.01, "high": 0.1, "log": True}},
        overrides=["trainer.threads=1", "trainer.fraction=0.5", "logger=none", "hydra.sweeper.sampler=sobol"],
    )
    digits, hypergrid, control, _, confirm = planning.commands(plan)
    assert digits[:6] == ["-m", "sweep=tune", "study=s", "task=digits", "optimizer=vradam,sgd,adamw",
                          "schedule=constant,wsd"]  # fmt: skip
    assert {"hydra.sweeper.n_trials=8", "hydra.sweeper.replicates=3", "trainer.threads=1"} <= set(digits)
    assert "++hydra.sweeper.space.optimizer.weight_decay=[0.0,0.1]" in digits
    assert "++hydra.sweeper.space.optimizer.lr={high:0.1,log:true,low:0.01}" in digits
    assert hypergrid[-1] == "trainer.fraction=0.5"
    assert "optimizer=adamw" in control
    assert control[-1] == "hydra.sweeper.control=true"
    assert confirm == ["-m", "experiment=confirm", "study=s", "seed=range(2000,2008)", "trainer.threads=1",
                       "logger=none"]  # fmt: skip


@pytest.mark.parametrize(("units", "tests"), [(3, 1), (8, 1), (8, 4)])
def test_what_can_be_detected_is_found_four_times_of_five(units: int, tests: int) -> None:
    effect = planning.detectable(units, tests)
    samples = np.random.default_rng(0).normal(effect, 1, (40_000, units))
    found = stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05 / tests
    assert found.mean() == pytest.approx(0.8, abs=0.01)
    assert planning.detectable(1, 1) == float("inf")


def test_a_study_keeps_the_plan_that_it_was_begun_with(tmp_path: Path) -> None:
    plan, digest = read(tmp_path)
    noted = planning.register(tmp_path / "s", digest, plan)
    assert noted["tests"] == plan.tests == 8
    assert planning.register(tmp_path / "s", digest, plan) == noted
    with pytest.raises(ValueError, match=r"was begun on .* with plan \w+, and this is b"):
        planning.register(tmp_path / "s", "b", plan)
