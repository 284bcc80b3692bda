"""One run of the command line leaves the process as it found it."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from children import call
from conftest import QUICK

from vrbench.app import run as run_module
from vrbench.runs.records import find_runs

Call = Callable[..., int]


def test_threads_are_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run has the threads that it asks for, and the next run of the process those of before."""
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    options = (f"trainer.threads={before + 1}", "trainer.max_steps=1", "trainer.device=cpu", "model.hidden=[]")
    assert call("logger=none", "study=threads", f"results_dir={tmp_path}", *options) == 0
    (manifest,) = tmp_path.glob("threads/*/manifest.json")
    assert json.loads(manifest.read_text())["machine"]["threads"] == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("on", [True, False])
def test_garbage_is_looked_for_as_before(on: bool, vrbench: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while a run is prepared, but while it trains, and after it; and never where the process does not want it."""
    seen: dict[str, bool] = {}
    for name in ("identify", "build"):
        work = getattr(run_module, name)
        told = partial(_told, seen, name, work)
        monkeypatch.setattr(run_module, name, told)
    (gc.enable if on else gc.disable)()
    try:
        assert vrbench("trainer.max_steps=1", "logger=none") == 0
        assert seen == {"identify": False, "build": on}
        assert gc.isenabled() == on
        assert vrbench("trainer.max_steps=0", "logger=none") == 2
        assert gc.isenabled() == on
    finally:
        gc.enable()


def _told(seen: dict[str, bool], name: str, work: Callable[..., object], *given: object, **named: object) -> object:
    seen[name] = gc.isenabled()
    return work(*given, **named)


def test_an_optimizer_with_a_line_search_runs(vrbench: Call, tmp_path: Path) -> None:
    """torch's L-BFGS, by a YAML of one's own: its step is called with a closure."""
    (tmp_path / "conf/optimizer").mkdir(parents=True)
    lbfgs = "_target_: torch.optim.LBFGS\n_partial_: true\nlr: 1.0\nline_search_fn: strong_wolfe\n"
    (tmp_path / "conf/optimizer/lbfgs.yaml").write_text(lbfgs)
    assert vrbench(f"--config-dir={tmp_path / 'conf'}", "optimizer=lbfgs", *QUICK) == 0
    (run,) = find_runs(tmp_path)
    assert run.summary is not None
    assert run.summary["best"]["metrics"]["val/accuracy"] > 0.5
