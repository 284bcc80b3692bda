"""Curves that are thinned: equal stretches of steps, averaged seed by seed, to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from made_runs import make_run, write_rows

import vrbench
from vrbench.report import curves


def test_a_thinned_curve_has_the_means_of_equal_stretches(tmp_path: Path) -> None:
    steps = np.unique(np.random.default_rng(0).integers(1, 9000, 1000))
    drawn = np.random.default_rng(1).random((3, len(steps)))
    for seed, values in enumerate(drawn):
        rows = [{"step": int(step), "train/loss": value} for step, value in zip(steps, values.tolist(), strict=True)]
        write_rows(make_run(tmp_path, 0.5, seed=seed), rows)
    (arm,) = vrbench.load(tmp_path).arms
    found = curves.curve(arm, "train/loss", most=40)
    assert found is not None
    edges = np.linspace(steps[0], steps[-1], 41)
    part = np.clip(np.searchsorted(edges, steps, side="right") - 1, 0, 39)
    masks = [part == each for each in np.unique(part)]
    assert found.steps == [steps[mask].astype(float).mean() for mask in masks]
    by_seed = np.stack([curves._mean(drawn[:, mask]) for mask in masks], axis=1)
    assert found.mean == curves._mean(by_seed.T).tolist()
