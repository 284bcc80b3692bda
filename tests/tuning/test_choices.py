"""Config groups that a search chooses among: the YAML of a schedule or a model, and keys below it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytest.importorskip("optuna", reason="searches need Optuna (pip install 'vrbench[search]')")

from vrbench.report import main as report
from vrbench.runs.records import find_runs
from vrbench.tuning import confirmation, spaces

Call = Callable[..., int]
SHORT = ("logger=none", "trainer.max_steps=8", "trainer.eval_every=4", "trainer.log_every=4", "trainer.threads=1")
TUNE = ("-m", "sweep=tune", "study=s", "optimizer=adamw", "hydra.sweeper.n_trials=3", *SHORT)
BOTH = "+hydra.sweeper.space.schedule={choice:[wsd,linear],warmup:[0.25,0.5]}"


def test_a_choice_stands_for_its_group() -> None:
    node = {"schedule": {"choice": ["constant", "wsd"], "warmup": {"low": 0.0, "high": 0.2}}, "model": ["mlp", "lstm"]}
    space = spaces.read_space(node)
    assert list(space) == ["schedule", "schedule.warmup", "model"]
    assert list(space["schedule"].choices) == ["constant", "wsd"]
    assert confirmation.flat_space({"task": {"data": {"choice": [1]}}}) == {"task.data.choice": [1]}  # no group's


def test_schedule_and_warmup_are_searched_confirmed_and_reported(
    vrbench: Call, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vrbench(*TUNE, BOTH) == 0
    runs = find_runs(tmp_path / "s/tune")
    assert len(runs) == 3
    for run in runs:
        schedule = yaml.safe_load((run.directory / "config.yaml").read_text())["schedule"]
        assert run.manifest["choices"]["schedule"] in ("wsd", "linear")
        assert schedule["_target_"].endswith(run.manifest["choices"]["schedule"])
        assert schedule["warmup"] in (0.25, 0.5)
        assert ("decay" in schedule) == (run.manifest["choices"]["schedule"] == "wsd")
    (best,) = confirmation.candidates(tmp_path / "s")
    params = next(one["params"] for one in best.summary["trials"] if one["number"] == best.summary["best"])
    content = yaml.safe_load(confirmation.best_path(tmp_path / "s", best.name).read_text())
    assert {"override /schedule": params["schedule"]} in content["defaults"]
    assert content["schedule"] == {"warmup": float(params["schedule.warmup"])}

    assert vrbench("-m", "experiment=confirm", "study=s", "seed=2000,2001", "logger=none", "trainer.threads=1") == 0
    confirmed = find_runs(tmp_path / "s/confirm")
    assert [run.manifest["choices"]["schedule"] for run in confirmed] == [params["schedule"]] * 2
    assert confirmed[0].manifest["tuned"]["space"]["schedule"] == ["wsd", "linear"]
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        report.main(["table", str(tmp_path / "s/confirm"), "--format", "csv"])
    said = capsys.readouterr().out
    assert f"schedule={params['schedule']} schedule.warmup={params['schedule.warmup']}" in said
    assert "schedule: wsd, linear; schedule.warmup: 0.25, 0.5" in said


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["+hydra.sweeper.space.schedule=[wsd,cosin]"], "no such choice cosin; did you mean cosine? schedule has"),
        (
            ["+hydra.sweeper.space.task=[digits,mnist]"],
            "trials choose among schedule, model, trainer; sweep it: -m task=",
        ),
        (["+hydra.sweeper.space.schedule.choice=wsd"], "hydra.sweeper.space.schedule=wsd: must be a list of choices"),
        ([BOTH, "schedule=cosine"], "schedule=cosine: is searched by hydra.sweeper.space; leave it out"),
        (
            ["+hydra.sweeper.space.schedule={choice:[wsd,cosine],decay:[0.1,0.2]}"],
            "hydra.sweeper.space.schedule.decay=…: the config has no such key; there are _target_, ",
        ),
        (
            ["+hydra.sweeper.space.schedule={choice:[cosine,warmup_cosine],warmup:[0.1]}"],
            "hydra.sweeper.space.schedule.warmup=…: the config has no such key",
        ),
    ],
)
def test_a_wrong_choice_is_one_line(
    overrides: list[str], says: str, vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench(*TUNE, *overrides) == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert says in line
    assert list(tmp_path.glob("*/search/*")) == []
