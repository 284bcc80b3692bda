"""What a search may do: rank by validation alone, by a metric that there is, on one code; what it leaves to know."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from own_rule import OWN, edit

pytest.importorskip("optuna", reason="searches need Optuna (pip install 'vrbench[search]')")

from vrbench.runs.records import find_runs

Call = Callable[..., int]
SHORT = ("logger=none", "trainer.max_steps=4", "trainer.eval_every=2", "trainer.log_every=2", "trainer.threads=1")
SEARCH = ("-m", "sweep=tune", "study=s", "hydra.sweeper.sampler=random", *SHORT)


@pytest.fixture
def splits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits that image classification is evaluated on."""
    from vrbench.tasks.image_classification import ImageClassification

    seen: list[str] = []
    really = ImageClassification.evaluate

    def evaluate(self: Any, model: Any, split: Any) -> Any:
        seen.append(split)
        return really(self, model, split)

    monkeypatch.setattr(ImageClassification, "evaluate", evaluate)
    return seen


def test_trials_never_touch_the_test_split(
    vrbench: Call, tmp_path: Path, splits: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert vrbench(*SEARCH, "optimizer=adamw", "hydra.sweeper.n_trials=2") == 0
    assert set(splits) == {"val"}
    runs = find_runs(tmp_path / "s" / "tune")
    assert len(runs) == 2
    for run in runs:
        assert run.summary is not None
        assert run.summary["test_read"] is False
        assert not [key for key in run.summary["metrics"] if key.startswith("test/")]
    assert "test/" not in capfd.readouterr().out

    assert vrbench("-m", "experiment=confirm", "study=s", "seed=0,1", *SHORT) == 0
    confirmed = find_runs(tmp_path / "s" / "confirm")
    assert [run.summary["test_read"] for run in confirmed if run.summary] == [True, True]
    assert splits.count("test") == 2


def test_trials_draw_no_picture(vrbench: Call, tmp_path: Path) -> None:
    assert vrbench(*SEARCH, "task=hypergrid", "optimizer=adamw", "hydra.sweeper.n_trials=1") == 0
    assert find_runs(tmp_path / "s" / "tune")
    assert not list(tmp_path.rglob("samples*.png"))


@pytest.mark.parametrize("metric", ["val/acuracy", "accuracy", "test/accuracy"])
def test_a_metric_that_is_not_there_is_refused_before_the_first_trial_trains(
    metric: str, vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = (f"hydra.sweeper.metric={metric}", "hydra.sweeper.direction=max", "hydra.sweeper.n_trials=2")
    assert vrbench(*SEARCH, "optimizer=adamw", *words) == 2
    said = capfd.readouterr().err
    assert f"hydra.sweeper.metric={metric}: no such metric; " in said
    assert "the task has val/accuracy, val/loss" in said
    assert find_runs(tmp_path / "s") == []
    words = ("hydra.sweeper.metric=val/loss", *words[1:])
    assert vrbench(*SEARCH, "optimizer=adamw", *words) == 0


@pytest.mark.slow
def test_a_search_and_its_confirmation_notice_edited_code(
    vrbench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rule = tmp_path / "project" / "my_rule.py"
    rule.parent.mkdir()
    rule.write_text(OWN.replace("SIGN", "1"))
    monkeypatch.syspath_prepend(rule.parent)
    sys.modules.pop("my_rule", None)
    mine = (*SEARCH, "optimizer=sgd", "optimizer._target_=my_rule.Mine")
    confirm = ("-m", "experiment=confirm", "study=s", "seed=0,1", *SHORT)
    assert vrbench(*mine, "hydra.sweeper.n_trials=2") == 0
    edit(rule)

    capfd.readouterr()
    assert vrbench(*confirm) == 2
    assert (
        "was tuned with other code (my_rule.py changed since): tune again with force=changed" in capfd.readouterr().err
    )
    assert vrbench(*mine, "hydra.sweeper.n_trials=3") == 2
    assert "its code has changed since it began (my_rule.py): force=changed" in capfd.readouterr().err
    assert vrbench(*mine, "hydra.sweeper.n_trials=2") == 0
    assert "its code has changed since it began (my_rule.py): force=changed searches again" in capfd.readouterr().out

    assert vrbench(*mine, "hydra.sweeper.n_trials=3", "force=changed") == 0
    assert "begun anew" in capfd.readouterr().out
    (trials,) = tmp_path.glob("s/search/*/trials.json")
    assert len(json.loads(trials.read_text())["trials"]) == 3
    assert list(trials.parent.glob("replaced-*/journal.log"))
    assert vrbench(*confirm) == 0


def test_a_confirmed_run_says_how_it_was_tuned(vrbench: Call, tmp_path: Path) -> None:
    space = ("+hydra.sweeper.space.optimizer.weight_decay={low: 0.001, high: 0.1, log: true}",)
    assert vrbench(*SEARCH, "optimizer=adamw", "hydra.sweeper.n_trials=3", *space) == 0
    assert vrbench("-m", "experiment=confirm", "study=s", "seed=0", *SHORT) == 0
    (run,) = find_runs(tmp_path / "s" / "confirm")
    tuned = run.manifest["tuned"]
    assert (tuned["trials"], tuned["budget"], tuned["sampler"], tuned["seeds"]) == (3, 3, "random", [1000])
    assert tuned["space"]["optimizer.weight_decay"] == {"low": 0.001, "high": 0.1, "log": True}
    assert set(tuned["params"]) == set(tuned["space"]) == {"optimizer.lr", "optimizer.weight_decay"}
    assert isinstance(tuned["edges"], list)
    (plain,) = [one for one in find_runs(tmp_path / "s" / "tune") if one.manifest["tuned"] is not None] or [None]
    assert plain is None


def test_a_damaged_journal_is_named(vrbench: Call, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = (*SEARCH, "optimizer=adamw", "hydra.sweeper.n_trials=1")
    assert vrbench(*command) == 0
    (journal,) = tmp_path.glob("s/search/*/journal.log")
    first, *rest = journal.read_bytes().splitlines(keepends=True)
    capfd.readouterr()
    for line in (b'{"op_co\n', b"\xff\xfe\n", b"[]\n", b'{"op_code": 4}\n'):
        journal.write_bytes(b"".join([first, line, *rest]))
        assert vrbench(*command) == 2
        (said,) = capfd.readouterr().err.splitlines()
        assert f"{journal}: a line is damaged (" in said


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import fcntl

    from vrbench.runs.locks import Lock

    def refuses(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuses)
    with pytest.raises(OSError, match=r"No locks available: '.*/lock'"):
        Lock(tmp_path / "lock", timeout=0).acquire()
