"""scripts/control_rates.py: the rates of a null and of a difference that is there."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import control_rates


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_rates, "DRAWS", 300)


def units(shift: float, seed: int) -> dict[int, list[float]]:
    random = np.random.default_rng(seed)
    return {k: (shift + random.normal() + random.normal(size=8)).tolist() for k in range(32)}


def test_one_tuning_each_errs_more_often_than_several() -> None:
    """The spread from tuning to tuning is in no test over the seeds of one."""
    found = [control_rates.judged(units(0.0, seed)) for seed in range(8)]
    single = np.mean([one["single"]["different"] / one["pairs"] for one in found])
    assert single > 0.3
    for size in ("4", "8"):
        assert np.mean([one["replicates"][size]["share"] for one in found]) < 0.1


def test_a_difference_is_found_with_its_sign() -> None:
    found = control_rates.judged(units(5.0, 0))
    assert found["single"]["better"] == found["single"]["different"] > 30
    assert found["replicates"]["8"] == {"share": 1.0, "standard_error": 0.0}
    assert found["all"]["mean"] == pytest.approx(5.0, abs=0.7)


def test_the_standard_error_is_that_of_the_mean_where_a_subset_is_one_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """The jackknife of a mean of n is its standard error over √n."""
    monkeypatch.setattr(control_rates, "test_of", lambda own: 0.0 if own[0] > 0 else 1.0)
    monkeypatch.setattr(control_rates, "DRAWS", 20_000)
    values = [1.0] * 4 + [-1.0] * 12
    found = control_rates.rates(values, 1, np.random.default_rng(1))
    assert found["share"] == pytest.approx(0.25, abs=0.01)
    assert found["standard_error"] == pytest.approx(np.std([1] * 4 + [0] * 12, ddof=1) / 4, rel=0.05)
