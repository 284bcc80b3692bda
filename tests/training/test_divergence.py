"""Losses that are not finite: where a run ends, and what it keeps."""

from __future__ import annotations

import math

import pytest
from same_numbers import numbers
from toy import Diverging, ListWriter, ToyTask, fit, trainer


def test_a_loss_that_is_not_finite_ends_the_run_at_its_step() -> None:
    writer = fit(trainer(lr=1e30, log_every=3, epochs=3))
    assert writer.summary["status"] == "diverged"
    assert writer.summary["steps"] <= 3
    assert writer.rows[-1]["step"] == 3
    assert not math.isfinite(writer.rows[-1]["train/loss"])
    assert not any(key.startswith("test/") for key in writer.summary["metrics"])


@pytest.mark.parametrize(("bad_step", "validations"), [(2, 0), (4, 0), (5, 1), (8, 1), (9, 2), (18, 4)])
def test_where_a_run_diverges_does_not_depend_on_what_is_logged(bad_step: int, validations: int) -> None:
    found = []
    for log_every in (1, 3, 5, 100):
        task = Diverging(bad_step)
        writer = fit(trainer(task, log_every=log_every, eval_every=4, render_every=4))
        found.append(numbers([], writer.summary)["summary"])
        assert task.asked == [(what, 4 * i) for i in range(1, validations + 1) for what in ("val", "picture")]
    assert found[0]["status"] == "diverged"
    assert found[0]["steps"] == bad_step
    assert found[0]["best"]["step"] == (4 * validations or None)
    assert all(summary == found[0] for summary in found)


def test_divergence_is_noticed_before_a_checkpoint_forgets_it() -> None:
    subject = trainer(Diverging(5), log_every=100, eval_every=18)
    writer = ListWriter()
    subject.fit(writer, lambda: subject.step == 7)  # type: ignore[arg-type]
    assert writer.states == []
    assert (writer.summary["status"], writer.summary["steps"]) == ("diverged", 5)


def test_a_validation_that_is_not_finite_is_never_the_best() -> None:
    task = Diverging(100)
    task.validations = [1.0, math.nan]
    assert fit(trainer(task)).summary["best"] == {"step": 6, "metrics": {"val/loss": 1.0, "val/accuracy": 0.1}}


def test_a_validation_loss_that_is_not_finite_is_divergence_too() -> None:
    task = ToyTask()
    task.validations = [math.nan]
    assert fit(trainer(task)).summary["status"] == "diverged"
