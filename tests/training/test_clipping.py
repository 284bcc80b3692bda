"""Clipping as the probes see it: its factor, and the edge of stability of clipped steps."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from toy import ListWriter, ToyTask, trainer

from vrbench.norms import clip
from vrbench.probes.cadence import Cadence
from vrbench.probes.edge_of_stability import EdgeOfStability
from vrbench.probes.optim import OptimProbe
from vrbench.probes.thresholds import Edge, clipped
from vrbench.training.trainer import Trainer

OPTIONS: dict[str, Any] = {
    "tier": "standard", "every": 1, "max_share": None, "size": 24, "microbatch": 24, "tolerance": 1e-6,
    "max_products": 100, "top_k": 1, "trace_samples": 4, "minibatch": 4, "matrix": "hessian",
}  # fmt: skip


class FullBatch(ToyTask):
    """All 24 points in every step, without noise: H = 2 [x 1]ᵀ[x 1]/24 is the curvature of every step."""

    batches_per_epoch = 1

    def train_batches(self, order: Generator, augment: Generator, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        yield self.x, self.y

    @property
    def sharpness(self) -> float:
        x = torch.cat([self.x, torch.ones(24, 1)], 1).double()
        return float(torch.linalg.eigvalsh(2 * x.T @ x / 24)[-1])


def rows(subject: Trainer) -> list[dict[str, Any]]:
    writer = ListWriter()
    subject.fit(writer)  # type: ignore[arg-type]
    return writer.rows


def descend(lr: float, steps: int, make: Any = torch.optim.SGD, **changes: Any) -> list[dict[str, Any]]:
    probes = {"eos": EdgeOfStability(**OPTIONS), "optim": OptimProbe()}
    options = {"epochs": steps, "eval_every": steps, **changes}
    return rows(trainer(FullBatch(), make, lr, probes=probes, **options))


def test_the_threshold_is_divided_by_the_factor() -> None:
    root = torch.ones(2)
    found = clipped(Edge(4.0, root), 0.25)
    assert found is not None
    assert (found.threshold, found.root) == (16.0, root)
    assert clipped(Edge(4.0, None), 1.0) == Edge(4.0, None)
    for factor in (0.0, math.nan, math.inf):
        assert clipped(Edge(4.0, None), factor) is None


@pytest.mark.slow
def test_clipped_gradient_descent_hops_about_its_edge() -> None:
    """With lr = 10/λ it hops between a and a − lr·clip_norm: |g| is λa and λ(lr·clip_norm − a) in turn, 5 clip_norm on
    average, so that 1/c is 5 on average and the harmonic mean of the ratio lr·c·λ/2 is 1 (5 without c)."""
    lr = 10 / FullBatch().sharpness
    found = descend(lr, 600, clip_norm=1e-2)
    late = found[-50:]
    assert statistics.mean(1 / row["optim/clip_factor"] for row in late) == pytest.approx(5, rel=0.01)
    assert statistics.harmonic_mean([row["eos/ratio"] for row in late]) == pytest.approx(1, rel=0.01)
    assert all(0.5 < row["eos/ratio"] < 2 for row in late)
    for row in found:
        assert row["eos/threshold"] == pytest.approx(2 / lr / row["optim/clip_factor"], rel=1e-5)
        assert row["optim/clip_factor"] == pytest.approx(min(1, 1e-2 / (row["optim/grad_norm"] + 1e-6)), rel=1e-6)


def test_a_clip_that_does_nothing_changes_no_threshold() -> None:
    for make, want in ((torch.optim.SGD, 20.0), (torch.optim.Adam, 380.0)):
        loose, plain = descend(0.1, 5, make, clip_norm=1e9), descend(0.1, 5, make)
        assert [row["eos/threshold"] for row in loose] == [row["eos/threshold"] for row in plain]
        assert plain[-1]["eos/threshold"] == pytest.approx(want)
        assert [row["optim/clip_factor"] for row in loose] == [1.0] * 5
        assert "optim/clip_factor" not in plain[0]


def test_adam_hardly_feels_a_clip() -> None:
    """m and P shrink alike, by c while c hardly changes: P⁻¹H grows by 1/c, and so does the threshold."""
    loose, tight = (descend(1e-4, 3, torch.optim.Adam, clip_norm=norm) for norm in (None, 1e-3))
    assert tight[-1]["eos/preconditioned_sharpness"] > 100 * loose[-1]["eos/preconditioned_sharpness"]
    assert tight[-1]["eos/ratio"] == pytest.approx(loose[-1]["eos/ratio"], rel=1e-2)


def test_the_factor_of_a_two_step_method_is_that_of_the_gradient_it_steps_with() -> None:
    subject = trainer(clip_norm=1e-2)
    norms = iter([4.0, 2.0])

    def backward(batches: list[Any]) -> tuple[Tensor, dict[str, Tensor]]:
        size = next(norms)
        for p in subject.model.parameters():
            p.grad = torch.zeros_like(p)
        p.grad.view(-1)[0] = size  # type: ignore[union-attr]
        return torch.zeros(()), {}

    subject._backward = backward  # type: ignore[method-assign]
    subject.needs = type(subject.needs)(two_step=True, create_graph=False, train_eval=False)
    subject.optimizer.step = lambda closure: closure()  # type: ignore[method-assign]
    backward([])
    factor = subject._update([])
    assert factor is not None
    assert float(factor) == pytest.approx(1e-2 / 2)


def test_no_factor_for_gradients_that_are_not_finite() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    for value, want in ((math.inf, 0.0), (math.nan, math.nan)):
        weight.grad = torch.full((2,), value)
        assert float(clip([weight], 1.0)) == pytest.approx(want, nan_ok=True)
    weight.grad = None
    assert float(clip([weight], 1.0)) == 1


@pytest.mark.filterwarnings("ignore:trainer.zero_grad=false")
def test_gradients_that_add_up_have_no_edge() -> None:
    with pytest.warns(
        UserWarning, match=r"probe\.eos: trainer\.zero_grad=false: steps follow the sum of all gradients"
    ):
        found = descend(1e-3, 4, zero_grad=False)
    assert all(row["eos/sharpness"] == pytest.approx(FullBatch().sharpness, rel=1e-4) for row in found)
    assert not any(key in row for row in found for key in ("eos/threshold", "eos/ratio"))


def test_accumulated_batches_are_averaged_and_keep_the_edge() -> None:
    found = descend(0.1, 8, accumulate=2)
    assert [row["eos/threshold"] for row in found] == pytest.approx([20.0] * 4)


# ---- state that was made under other settings -----------------------------------------------------------------------


def probe(state: dict[str, Any] | None = None, **changes: Any) -> EdgeOfStability:
    """A probe of a run of 8 steps; resumed from a state of its kind where there is one."""
    made = EdgeOfStability(**{**OPTIONS, **changes})
    subject = trainer(FullBatch(), torch.optim.Adam, 1e-3, probes={"eos": made}, epochs=8, eval_every=8)
    if state is not None:
        made.load_state_dict(state)
    rows(subject)
    return made


def loaded(state: dict[str, Any], **changes: Any) -> EdgeOfStability:
    made = EdgeOfStability(**{**OPTIONS, **changes})
    trainer(FullBatch(), torch.optim.Adam, 1e-3, probes={"eos": made})
    made.load_state_dict(state)
    return made


def test_a_state_under_the_same_settings_is_taken_back_whole() -> None:
    made = probe(tier="full", top_k=4)
    state, again = made.state_dict(), loaded(made.state_dict(), tier="full", top_k=4, every=3).state_dict()
    assert {name: len(rows) for name, rows in state["vectors"].items()} == {"sharpness": 4, "preconditioned": 3}
    assert all(torch.equal(rows, state["vectors"][name]) for name, rows in again.pop("vectors").items())
    assert again == {key: value for key, value in state.items() if key != "vectors"}


@pytest.mark.parametrize(
    ("before", "after", "vectors", "losses"),
    [
        ({"tier": "full", "top_k": 4}, {"top_k": 2}, 3, True),
        ({"tier": "full", "top_k": 4}, {"tier": "full", "top_k": 2}, 3, True),
        ({"top_k": 1}, {"tier": "full", "top_k": 4}, 3, True),
        ({}, {"tolerance": 1e-2, "microbatch": 5}, 3, True),
        ({}, {"tier": "cheap"}, 0, True),
        ({"tier": "cheap"}, {}, 0, True),
        ({"tier": "cheap"}, {"tier": "full", "top_k": 4}, 0, True),
        ({}, {"matrix": "ggn"}, 0, True),
        ({}, {"size": 12}, 0, False),
    ],
)
def test_of_a_state_under_other_settings_what_fits_is_taken(
    before: dict[str, Any], after: dict[str, Any], vectors: int, losses: bool
) -> None:
    state = probe(**before).state_dict()
    taken = loaded(state, **after).state_dict()
    assert {len(rows) for rows in taken["vectors"].values()} == ({vectors} if vectors else set())
    assert taken["solves"].keys() == taken["vectors"].keys()
    assert taken["losses"] == (state["losses"] if losses else [])
    assert taken["cadence"]["costs"] == []
    assert taken["cadence"]["spent"] == state["cadence"]["spent"] > 0
    probe(state, **after)  # and the run goes on with it


def test_vectors_of_another_length_or_not_finite_are_dropped() -> None:
    state = probe().state_dict()
    state["vectors"]["sharpness"] = torch.ones(3, 99)
    state["vectors"]["preconditioned"][0, 0] = math.nan
    assert loaded(state).state_dict()["vectors"] == {}
    state.pop("settings")
    assert loaded(state).state_dict()["losses"] == []


def test_a_cost_that_is_not_known_holds_no_measurement_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("vrbench.probes.cadence.time.perf_counter", lambda: clock[0])
    shared = Cadence(every=None, max_share=0.1)
    for step in range(1, 41):
        clock[0] += 1.0
        if shared.is_due(step, False):
            with shared.spending():
                clock[0] += 2.0
    assert not shared.is_due(41, False)
    shared.forget_costs()
    clock[0] += 1.0
    assert shared.is_due(42, False)
