"""One run of the command line leaves the process as it found it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from children import call


def test_threads_are_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run has the threads that it asks for, and the next run of the process those of before."""
    monkeypatch.chdir(tmp_path)
    before = torch.get_num_threads()
    options = (f"trainer.threads={before + 1}", "trainer.max_steps=1", "trainer.device=cpu", "model.hidden=[]")
    assert call("logger=none", "study=threads", f"results_dir={tmp_path}", *options) == 0
    (manifest,) = tmp_path.glob("threads/*/manifest.json")
    assert json.loads(manifest.read_text())["machine"]["threads"] == before + 1
    assert torch.get_num_threads() == before
