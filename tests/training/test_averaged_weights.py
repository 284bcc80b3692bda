"""Measured weights that are not those that were trained: the mode they are in, and their batch-norm statistics."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from each_optimizer import CONFIGS, build, quadratic
from hydra.utils import instantiate
from omegaconf import OmegaConf
from same_numbers import numbers
from torch import Generator, Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from toy import ListWriter, ToyTask, trainer

from vrbench.checks.contract import same
from vrbench.contracts import Moment
from vrbench.probes.optim import OptimProbe
from vrbench.training.averaging import MovingAverage
from vrbench.training.capabilities import capabilities
from vrbench.training.recalibration import BATCHES
from vrbench.training.trainer import Stopped, Trainer

Make = Callable[..., torch.optim.Optimizer]


def configured(name: str) -> Make:
    return lambda params, lr: instantiate(OmegaConf.load(CONFIGS[name]), lr=lr)(params)


SWITCHING = {name: configured(name) for name in CONFIGS if capabilities(build(name, quadratic()[0])).train_eval}
"""Every optimizer of conf/optimizer whose weights to evaluate are not those that it trains."""
AVERAGED: dict[str, tuple[Make, dict[str, Any]]] = {
    "ema": (torch.optim.SGD, {"ema_decay": 0.7}),
    **{name: (make, {}) for name, make in SWITCHING.items()},
    **{f"{name}+ema": (make, {"ema_decay": 0.7}) for name, make in SWITCHING.items()},
}
MEASURED = {"plain": (torch.optim.SGD, {}), **AVERAGED}
each_measured = pytest.mark.parametrize("how", MEASURED)
each_averaged = pytest.mark.parametrize("how", AVERAGED)


class Watching(ToyTask):
    """Keeps what it was asked: splits with the model's state, and the state that its pictures were drawn of."""

    def __init__(self, validations: tuple[float, ...] = ()) -> None:
        super().__init__(noise=0.1)
        self.validations = list(validations)
        self.asked: list[tuple[str, dict[str, Tensor]]] = []
        self.visited = torch.zeros(24)
        self.sections: list[str] = []
        self.subject: Trainer | None = None

    def loss(self, model: nn.Module, batch: Any, generator: Generator) -> tuple[Tensor, dict[str, Tensor]]:
        if self.subject is not None and not torch.is_grad_enabled():
            self.sections.append(self.subject.clock._section)
        self.visited[:4] += batch[0][:, 0].detach()
        return super().loss(model, batch, generator)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        assert not model.training
        self.asked.append((split, copy.deepcopy(model.state_dict())))
        return super().evaluate(model, split)

    def render(self, model: nn.Module) -> Tensor:
        self.asked.append(("picture", copy.deepcopy(model.state_dict())))
        return torch.zeros(1, 1, 3, dtype=torch.uint8)

    def state_dict(self) -> dict[str, Tensor]:
        return {"visited": self.visited}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.visited = state["visited"]


def subject(how: str, task: ToyTask | None = None, **changes: Any) -> Trainer:
    make, options = MEASURED[how]
    options = {"norm": True, "dropout": 0.2, "eval_every": 5, "lr": 0.1, **options, **changes}
    return trainer(task or Watching(), make, **options)


def fit(subject: Trainer, state: dict[str, Any] | None = None) -> ListWriter:
    writer = ListWriter(state)
    subject.fit(writer)  # type: ignore[arg-type]
    return writer


def equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[key]) for key, value in ours.items())


# ---- the mode they were taken in -----------------------------------------------------------------------------------


@each_measured
@pytest.mark.parametrize("norm", [False, True])
def test_the_test_split_and_the_last_picture_see_the_best_weights_as_validation_saw_them(how: str, norm: bool) -> None:
    task = Watching((3.0, 1.0, 2.0, 2.5))
    run = subject(how, task, norm=norm)
    writer = fit(run)
    assert [split for split, _ in task.asked] == ["val", "val", "val", "val", "test", "picture"]
    best, test, picture = (task.asked[i][1] for i in (1, 4, 5))
    assert equal(test, best)
    assert equal(picture, best)
    assert equal(run.best_weights, best)
    assert not equal(task.asked[3][1], best)
    fresh = copy.deepcopy(run.model)
    fresh.load_state_dict(run.best_weights)
    assert writer.summary["metrics"]["test/loss"] == pytest.approx(
        float(ToyTask().evaluate(fresh.eval(), "test")["loss"])
    )
    assert [(step, last) for step, _, last in writer.images] == [(18, True)]


# ---- batch-norm statistics -----------------------------------------------------------------------------------------


def by_hand(run: Trainer, weights: dict[str, Tensor], step: int) -> tuple[Tensor, Tensor]:
    """Mean of the batch means and of the unbiased batch variances, over the batches drawn for this step."""
    model = copy.deepcopy(run.model)
    model.load_state_dict(weights)
    order, augment = run.streams.generator("recalibrate", step), run.streams.generator("recalibrate/augment", step)
    inputs = [model[0](x) for x, _ in ToyTask().train_batches(order, augment)]
    means, spreads = torch.stack([x.mean(0) for x in inputs]), torch.stack([x.var(0) for x in inputs])
    return (means.mean(0).detach(), spreads.mean(0).detach())


@each_averaged
def test_statistics_are_those_of_the_weights_that_are_measured(how: str) -> None:
    task = Watching()
    run = subject(how, task, render_every=5, dropout=0.0)
    fit(run)
    seen = [(kind, state) for kind, state in task.asked if kind != "test"][:-1]
    assert [kind for kind, _ in seen] == ["val", "picture"] * 3 + ["val"]
    for place, (_, state) in enumerate(seen):
        step = (5, 5, 10, 10, 15, 15, 18)[place]
        mean, spread = by_hand(run, state, step)
        torch.testing.assert_close(state["2.running_mean"], mean)
        torch.testing.assert_close(state["2.running_var"], spread)
        assert int(state["2.num_batches_tracked"]) == 6


@each_averaged
def test_recalculation_changes_no_training_number(how: str) -> None:
    """Against the same run without it: weights, buffers, rows, the task's own state."""
    runs, rows = [], []
    for on in (True, False):
        run = subject(how, evaluate_test=False, log_every=1)
        assert run.recalibrates
        run.recalibrates = on
        rows.append([{k: v for k, v in row.items() if k.startswith("train/")} for row in fit(run).rows])
        runs.append(run)
    first, second = runs
    assert rows[0] == rows[1]
    assert len(rows[0]) == 18
    assert equal(first.model.state_dict(), second.model.state_dict())
    assert torch.equal(first.task.visited, second.task.visited)  # type: ignore[attr-defined]
    assert first.best["metrics"] != second.best["metrics"]


@each_averaged
@pytest.mark.parametrize("stop_at", [4, 5, 11])
def test_a_resumed_run_recalculates_the_same(how: str, stop_at: int) -> None:
    whole = fit(unbroken := subject(how, render_every=3))
    broken, writer = subject(how, render_every=3), ListWriter()
    with pytest.raises(Stopped):
        broken.fit(writer, lambda: broken.step == stop_at)  # type: ignore[arg-type]
    rest = fit(resumed := subject(how, render_every=3), writer.states[0])
    assert numbers(writer.rows + rest.rows, rest.summary) == numbers(whole.rows, whole.summary)
    assert equal(resumed.model.state_dict(), unbroken.model.state_dict())
    assert equal(resumed.best_weights, unbroken.best_weights)


class Drawing(OptimProbe):
    """Draws from torch's own generator, more at each step."""

    def after_step(self, moment: Moment) -> dict[str, float]:
        torch.rand(moment.step)
        return {}


def test_recalculation_draws_from_streams_of_its_own() -> None:
    seen = [fit(subject("ema", probes=probes)).summary["metrics"] for probes in ({}, {"drawing": Drawing()})]
    assert seen[0] == seen[1]
    run = subject("ema")
    before = torch.get_rng_state()
    with run._measuring():
        assert torch.equal(torch.get_rng_state(), before)


def test_recalculation_is_off_the_training_clock_and_not_done_for_the_test_split() -> None:
    task = Watching()
    run = task.subject = subject("ema", task)
    fit(run)
    assert task.sections == ["eval"] * 6 * 4


def test_long_epochs_are_not_used_whole() -> None:
    class Long(Watching):
        drawn = 0
        batches_per_epoch = 10 * BATCHES

        def train_batches(self, order: Generator, augment: Generator, start: int = 0) -> Iterator[Any]:
            for _ in range(start, self.batches_per_epoch):
                Long.drawn += 1
                yield self.x[:4], self.y[:4]

    fit(subject("ema", Long(), max_steps=3, eval_every=3))
    assert Long.drawn == 3 + BATCHES


def test_a_run_whose_measured_weights_are_those_trained_is_as_it_was() -> None:
    for how, norm in (("plain", True), ("ema", False), *((name, False) for name in SWITCHING)):
        task = Watching()
        run = subject(how, task, norm=norm)
        assert not run.recalibrates
        fit(run)
        assert len(task.seen) == 18, "no batch beside those that it trained on"


def test_a_frozen_layer_keeps_its_statistics() -> None:
    class Frozen(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> Frozen:
            return super().train(False)

    run = subject("plain")
    run.model[2] = Frozen(5)  # type: ignore[index, operator]
    run.model[2].running_mean.fill_(7.0)  # type: ignore[union-attr, index]
    run.recalibrates = True
    with run._measuring() as model:
        assert model[2].running_mean.tolist() == [7.0] * 5  # type: ignore[index, union-attr]


def test_a_stale_statistic_would_be_seen() -> None:
    """What the rule is worth: with a slow average, the statistics of the trained weights misread the average."""
    losses = {}
    for on in (True, False):
        run = subject("ema", ema_decay=0.97, epochs=10, eval_every=60, dropout=0.0)
        run.recalibrates = on
        losses[on] = fit(run).summary["metrics"]["val/loss"]
    assert losses[True] < 0.8 * losses[False]


@pytest.mark.parametrize("kind", [torch.float32, torch.int64])
def test_the_moving_average_is_torchs_bit_for_bit(kind: torch.dtype) -> None:
    """Weights, buffers, count and state; a parameter of whole numbers is averaged as torch averages it."""
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    model.register_parameter("whole", nn.Parameter(torch.ones(2, dtype=kind), requires_grad=False))
    ours, theirs = MovingAverage(model, 0.7), AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.7))
    for step in range(4):
        with torch.no_grad():
            for value in (*model.parameters(), *model.buffers()):
                value.add_(step if value.dtype == torch.int64 else torch.randn_like(value))
        ours.update_parameters(model)
        theirs.update_parameters(model)
    assert same(ours.state_dict(), theirs.state_dict())
    assert int(ours.n_averaged) == 4
    assert not same(ours.module.state_dict(), model.state_dict())
