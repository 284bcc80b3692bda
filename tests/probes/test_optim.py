"""The probe that every run carries."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from toy import fit, trainer

from vrbench.contracts import Moment
from vrbench.probes.optim import OptimProbe, global_norm


def test_clipping_bounds_the_gradient_and_the_probe_sees_it_before() -> None:
    subject = trainer(probes={"optim": OptimProbe()}, clip_norm=1e-3, max_steps=1)
    row = fit(subject).rows[0]
    assert row["optim/grad_norm"] > 0.1
    assert row["optim/update_norm"] == pytest.approx(0.05 * 1e-3, rel=1e-3)


def test_the_optim_probe_reports_norms_and_rates() -> None:
    subject = trainer(probes={"optim": OptimProbe()}, max_steps=4, log_every=2)
    rows = fit(subject).rows
    assert [row["step"] for row in rows] == [2, 4]
    row = rows[-1]
    assert row["optim/lr"] == row["optim/effective_lr"] == 0.05
    assert row["optim/update_norm"] == pytest.approx(0.05 * row["optim/grad_norm"], rel=1e-5)
    assert row["optim/param_norm"] == pytest.approx(float(global_norm(subject.model.parameters())))
    assert "optim/gate" not in row


def test_a_logged_step_holds_one_copy_of_the_parameters() -> None:
    """And no second one for the update."""
    parameter = torch.zeros(1_000_000, requires_grad=True)
    parameter.grad = torch.ones_like(parameter)
    probe, moment = OptimProbe(), Moment(step=1, logged=True)
    training: Any = SimpleNamespace(optimizer=torch.optim.SGD([parameter], lr=0.5))
    probe.attach(training)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        probe.before_step(moment)
        training.optimizer.step()
        found = probe.after_step(moment)
    assert found["optim/update_norm"] == pytest.approx(500.0)
    taken = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    assert sum(size >= parameter.nbytes for size in taken) == 1
