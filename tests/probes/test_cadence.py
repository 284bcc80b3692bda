"""When a probe measures."""

from __future__ import annotations

import pytest

from vrbench.probes.cadence import Cadence


def test_cadence_by_steps_and_by_share(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = Cadence(every=10, max_share=None)
    assert [step for step in range(1, 26) if fixed.is_due(step, step == 25)] == [10, 20, 25]
    clock = [0.0]
    monkeypatch.setattr("vrbench.probes.cadence.time.perf_counter", lambda: clock[0])
    shared = Cadence(every=None, max_share=0.1)
    due = []
    for step in range(1, 101):  # steps of 1 s, measurements of 2 s, one evaluation of 50 s that counts for nothing
        measured = shared.is_due(step, step == 100)
        clock[0] += 1.0
        with shared.spending():
            clock[0] += 2.0 * measured
        due += [step] * measured
        clock[0] += 50.0 * (step == 30)
    assert due == [1, 36, 54, 72, 90]  # the n-th makes it 2n of 2n + step seconds
    resumed = Cadence(every=None, max_share=0.1)
    resumed.load_state_dict(shared.state_dict())
    assert resumed.state_dict() == shared.state_dict()
