"""The training loop against a task small enough to work by hand, and the promises of DESIGN on real tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import QUICK
from same_numbers import numbers
from torch import nn
from toy import Diverging, ListWriter, ToyTask, fit, settings, trainer

from vrbench.contracts import Moment, Training
from vrbench.probes.optim import OptimProbe
from vrbench.runs.records import find_runs
from vrbench.training.trainer import Stopped, Trainer, pick_device


def weights(subject: Trainer) -> str:
    blob = b"".join(p.detach().numpy().tobytes() for p in subject.model.parameters())
    return hashlib.sha256(blob).hexdigest()


def test_one_step_equals_a_step_by_hand() -> None:
    subject = trainer(max_steps=1)
    weight, bias = (p.detach().clone() for p in subject.model.parameters())
    x, y = next(ToyTask().train_batches(subject.streams.generator("order"), subject.streams.generator("augment")))
    error = x @ weight.T + bias - y
    fit(subject)
    new_weight, new_bias = subject.model.parameters()
    torch.testing.assert_close(new_weight, weight - 0.05 * 2 * (error * x).mean(0, keepdim=True))
    torch.testing.assert_close(new_bias, bias - 0.05 * 2 * error.mean(0))


def test_an_optimizer_that_evaluates_as_often_as_it_likes_has_one_batch_and_one_noise_a_step() -> None:
    """L-BFGS with dropout and noisy targets: its first evaluation is where the step begins, and its loss falls."""
    subject = trainer(ToyTask(noise=0.1), torch.optim.LBFGS, lr=0.5, dropout=0.3, epochs=1)
    losses: list[list[float]] = []
    whole = subject._backward

    def noted(batches: list[Any]) -> Any:
        loss, metrics = whole(batches)
        losses[-1].append(float(loss))
        return loss, metrics

    subject._backward = noted  # type: ignore[method-assign]
    take = subject._take_batch

    def begun() -> Any:
        losses.append([])
        return take()

    subject._take_batch = begun  # type: ignore[method-assign]
    rows = fit(subject).rows
    assert [row["train/loss"] for row in rows] == [step[0] for step in losses]
    assert all(len(step) > 5 for step in losses)
    assert all(step[1] == step[0] for step in losses)
    assert all(step[-1] < step[0] for step in losses)


def test_two_optimizers_start_equal_and_see_the_same_batches() -> None:
    tasks = [ToyTask(), ToyTask()]
    first = trainer(tasks[0], torch.optim.SGD)
    second = trainer(tasks[1], torch.optim.AdamW)
    assert weights(first) == weights(second)
    fit(first), fit(second)
    assert weights(first) != weights(second)
    assert tasks[0].seen == tasks[1].seen
    assert len(tasks[0].seen) == 18
    assert tasks[0].seen[:6] != tasks[0].seen[6:12]
    assert sorted(index for batch in tasks[0].seen[:6] for index in batch) == list(range(24))


def test_another_seed_starts_elsewhere_in_another_order() -> None:
    tasks = [ToyTask(), ToyTask()]
    first, second = trainer(tasks[0], seed=0), trainer(tasks[1], seed=1)
    assert weights(first) != weights(second)
    fit(first), fit(second)
    assert tasks[0].seen != tasks[1].seen


@pytest.mark.filterwarnings("ignore:trainer.zero_grad=false")
@pytest.mark.parametrize(("stop_at", "zero_grad"), [(1, True), (5, True), (6, True), (7, False), (13, True)])
def test_a_resumed_run_equals_an_unbroken_one(stop_at: int, zero_grad: bool) -> None:
    kind = {"optimizer": torch.optim.AdamW, "dropout": 0.3, "ema_decay": 0.9, "zero_grad": zero_grad}

    def build() -> Trainer:
        return trainer(ToyTask(noise=0.1), **kind)  # type: ignore[arg-type]

    unbroken = build()
    whole = fit(unbroken)
    broken, writer = build(), ListWriter()
    with pytest.raises(Stopped, match=f"stopped at step {stop_at} of 18"):
        broken.fit(writer, lambda: broken.step == stop_at)  # type: ignore[arg-type]
    (state,) = writer.states
    resumed = build()
    rest = fit(resumed, state)
    assert numbers(writer.rows + rest.rows, rest.summary) == numbers(whole.rows, whole.summary)
    assert weights(resumed) == weights(unbroken)


def test_accumulation_averages_the_gradients_of_its_batches() -> None:
    task = ToyTask()
    subject = trainer(task, accumulate=3, max_steps=1)
    model = nn.Linear(3, 1)
    model.load_state_dict({key.removeprefix("0."): value for key, value in subject.model.state_dict().items()})
    order, augment = subject.streams.generator("order"), torch.Generator()
    batches = task.train_batches(order, augment)
    losses = []
    for number in range(3):
        subject.streams.reseed(augment, "augment", number)
        x, y = next(batches)
        losses.append((model(x) - y).square().mean())
    torch.stack(losses).mean().backward()
    before = [p.detach().clone() for p in subject.model.parameters()]
    writer = fit(subject)
    for old, new, p in zip(before, subject.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old - 0.05 * p.grad)
    assert writer.rows[0]["train/loss"] == pytest.approx(torch.stack(losses).mean().item())


class NoisyProbe:
    """Draws from its own stream, as a probe should."""

    def attach(self, training: Training) -> None:
        self.training = training

    def before_step(self, moment: Moment) -> None:
        torch.rand(1, generator=self.training.streams.generator("probe", moment.step))

    def after_step(self, moment: Moment) -> dict[str, float]:
        torch.rand(3)  # even torch's own generator is seeded afresh for each step
        return {"probe/x": 1.0}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


def test_a_probe_changes_no_training_number() -> None:
    with_probe = fit(trainer(ToyTask(noise=0.1), dropout=0.5, probes={"noisy": NoisyProbe(), "optim": OptimProbe()}))
    without = fit(trainer(ToyTask(noise=0.1), dropout=0.5))
    assert numbers(with_probe.rows, without=("probe/", "optim/")) == numbers(without.rows)
    assert all(row["probe/x"] == 1.0 for row in with_probe.rows)


class Counting(NoisyProbe):
    """Counts steps over all parts of a run."""

    count = 0

    def before_step(self, moment: Moment) -> None:
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def test_a_run_may_be_resumed_with_other_probes() -> None:
    parts: tuple[list[str], ...] = (["kept", "left"], ["kept", "new"], [])
    probes, state = {}, None
    for part, stop_at in zip(parts, (5, 11, 18), strict=True):
        probes = {name: Counting() for name in part}
        subject, writer = trainer(ToyTask(noise=0.1), probes=probes, dropout=0.3), ListWriter(state)
        if stop_at < 18:
            with pytest.raises(Stopped):
                subject.fit(writer, lambda run=subject, at=stop_at: run.step == at)  # type: ignore[arg-type, misc]
            (state,) = writer.states
            assert {name: probe.count for name, probe in probes.items()} == {
                "kept": stop_at,
                part[1]: (5, 6)[stop_at == 11],
            }
        else:
            subject.fit(writer)  # type: ignore[arg-type]
    whole = trainer(ToyTask(noise=0.1), dropout=0.3)
    fit(whole)
    assert weights(subject) == weights(whole)


def test_test_is_measured_on_the_weights_that_were_best_by_validation() -> None:
    task = ToyTask()
    task.validations = [3.0, 1.0, 2.0]
    subject = trainer(task)
    at_best: dict[str, torch.Tensor] = {}
    validate = subject._validate

    def spy() -> dict[str, float]:
        found = validate()
        if subject.step == 12:
            at_best.update({key: value.clone() for key, value in subject.model.state_dict().items()})
        return found

    subject._validate = spy  # type: ignore[method-assign]
    summary = fit(subject).summary
    assert summary["best"] == {"step": 12, "metrics": {"val/loss": 1.0}}
    model = nn.Sequential(nn.Linear(3, 1))
    model.load_state_dict(at_best)
    assert summary["metrics"]["test/loss"] == pytest.approx(task.evaluate(model, "test")["loss"])
    assert summary["metrics"]["val/loss"] == 2.0


@pytest.mark.parametrize("evaluate_test", [True, False])
def test_the_test_split_is_read_where_that_is_asked_for_alone(evaluate_test: bool) -> None:
    task = Diverging(100)
    writer = fit(trainer(task, evaluate_test=evaluate_test))
    assert [what for what, _ in task.asked] == ["val", "val", "val"] + ["test", "picture"] * evaluate_test
    assert writer.summary["test_read"] is evaluate_test
    assert ("test/loss" in writer.summary["metrics"]) is evaluate_test
    assert [last for *_, last in writer.images] == [True] * evaluate_test
    assert fit(trainer(Diverging(3))).summary["test_read"] is False


def test_the_keys_of_a_validation_are_found_without_changing_a_number() -> None:
    asked, plain = trainer(ToyTask(noise=0.1), ema_decay=0.9), trainer(ToyTask(noise=0.1), ema_decay=0.9)
    assert asked.validation_metrics() == {"val/loss"}
    assert numbers(fit(asked).rows) == numbers(fit(plain).rows)


def test_the_average_is_what_is_measured() -> None:
    subject = trainer(ema_decay=0.5, epochs=1)
    start = [p.detach().clone() for p in subject.model.parameters()]
    seen = []
    update = subject._update

    def spy(batches: list[Any]) -> None:
        update(batches)
        seen.append([p.detach().clone() for p in subject.model.parameters()])

    subject._update = spy  # type: ignore[method-assign]
    fit(subject)
    expected = seen[0]
    for step in seen[1:]:
        expected = [0.5 * a + 0.5 * b for a, b in zip(expected, step, strict=True)]
    for got, want, first in zip(subject.measured_model.parameters(), expected, start, strict=True):
        torch.testing.assert_close(got.detach(), want)
        assert not torch.equal(got, first)


def test_nothing_is_read_from_the_device_between_logged_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    subject = trainer(probes={"optim": OptimProbe()}, log_every=6, epochs=1)
    for name in ("item", "__bool__", "__float__", "tolist"):
        original = getattr(torch.Tensor, name)

        def spy(self: torch.Tensor, *args: Any, original: Callable[..., Any] = original) -> Any:
            reads.append(subject.step)
            return original(self, *args)

        monkeypatch.setattr(torch.Tensor, name, spy)
    subject.task.train_batches = lambda *_: iter([(torch.ones(4, 3), torch.ones(4, 1))] * 6)  # type: ignore[method-assign]
    fit(subject)
    assert set(reads) == {6}


def test_max_steps_wins_over_epochs() -> None:
    assert settings(epochs=3).total_steps(10) == 30
    assert settings(epochs=3, accumulate=4).total_steps(10) == 7
    assert settings(epochs=3, max_steps=100).total_steps(10) == 100
    assert settings(epochs=3, max_steps=100, fraction=0.25).total_steps(10) == 25
    assert settings(epochs=1, fraction=0.001).total_steps(10) == 1


def test_gradients_add_up_only_when_asked_to() -> None:
    kept = trainer(zero_grad=False, max_steps=3, lr=0.0)
    with pytest.warns(UserWarning, match="trainer.zero_grad=false: gradients add up"):
        fit(kept)
    order, augment = kept.streams.generator("order"), torch.Generator()
    batches = ToyTask().train_batches(order, augment)
    model = nn.Linear(3, 1)
    model.load_state_dict({key.removeprefix("0."): value for key, value in kept.model.state_dict().items()})
    for number in range(3):
        kept.streams.reseed(augment, "augment", number)
        x, y = next(batches)
        (model(x) - y).square().mean().backward()
    for ours, summed in zip(kept.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, summed.grad)


def test_a_device_that_is_not_there_is_refused() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match="device=abacus: not available"):
        pick_device("abacus")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bf16_and_channels_last_train(precision: str, vrbench: Callable[..., int], tmp_path: Path) -> None:
    model = ("model=deeper_cnn", "model.channels=[8,16]", "model.hidden=32")
    options = (f"trainer.precision={precision}", "trainer.channels_last=true", *QUICK, "trainer.max_steps=4")
    assert vrbench("optimizer=adamw", *model, *options) == 0
    (run,) = find_runs(tmp_path)
    assert run.status == "finished"
