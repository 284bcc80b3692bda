"""Figure 2 from published records: every optimizer's curves, and the rate that gradient norms would give."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from vrbench.report.publish import publish

sys.path.insert(0, str(ROOT / "scripts"))

import plot_figure2
from committed import Committed
from run_curves import with_shares


def test_the_rate_from_gradient_norms_is_that_of_the_published_formula() -> None:
    optimizer = {"lr": 0.1, "beta3": 2.0, "alpha1": 10.0}
    rows = [{"optim/effective_lr": 0.05, "optim/grad_norm": 1.0}, {"optim/effective_lr": 0.05, "optim/grad_norm": 9.0}]
    found = with_shares(rows, optimizer)
    assert [row["share"] for row in found] == [0.5, 0.5]
    assert [row["gradient_share"] for row in found] == pytest.approx([1 / 3, 1 / 11])
    assert "gradient_share" not in with_shares(rows, {"lr": 0.1})[0]


def test_the_figure_is_drawn_from_a_published_study(vrbench: Callable[..., int], tmp_path: Path) -> None:
    short = ("trainer.max_steps=20", "trainer.log_every=2", "trainer.eval_every=20", "probe.eos.every=10")
    small = ("probe.eos.size=16", "probe.eos.microbatch=16", "logger=none", "trainer.threads=1")
    assert vrbench("-m", "study=fig", "optimizer=vradam,adam", "probe=eos", *short, *small) == 0
    publish(tmp_path / "fig", tmp_path / "kept")
    plot_figure2.main([str(tmp_path / "kept"), "--output", str(tmp_path / "figure2.svg")])
    drawn = (tmp_path / "figure2.svg").read_text()
    for text in ("vradam, from gradient norms", "adam", "(c) sharpness", "(d) effective rate / largest"):
        assert f">{text}</text>" in drawn
    assert "adam, from gradient norms" not in drawn.replace("vradam, from", "")
    study = Committed(tmp_path / "kept")
    curves = study.curves
    assert {label: run.optimizer for label, run in curves.items()} == {"adam": "adam", "vradam": "vradam"}
    sharpness, loss = (curves["adam"].of(key) for key in ("eos/sharpness", "train/loss"))
    assert (list(sharpness), list(loss)) == ([10, 20], list(range(2, 21, 2)))
    assert curves["adam"].last_third("eos/sharpness") == [sharpness[20]]
    assert curves["adam"].last_third("train/loss") == [loss[step] for step in (14, 16, 18, 20)]
    assert curves["adam"].of("optim/gate") == {}
    assert curves["adam"].last_third("optim/gate") == []
    assert list(curves["vradam"].of("share").values()) == pytest.approx(
        list(curves["vradam"].of("optim/gate").values())
    )
