"""The short form of `make chaos`'s fuzzing: commands and YAML files that run, or end in one line and leave nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import ROOT

pytest.importorskip("hypothesis", reason="fuzzing needs hypothesis (pip install 'vrbench[dev]')")
sys.path.insert(0, str(ROOT / "scripts"))

import chaos_fuzz
from chaos_common import Failed

pytestmark = pytest.mark.filterwarnings("ignore")


def test_sixty_cases(tmp_path: Path) -> None:
    found = chaos_fuzz.fuzz(tmp_path / "fuzz", cases=60, seed=1)
    assert found["cases"] >= 60
    assert {key.split(", ")[0] for key in found["outcomes"]} == {"overrides", "yaml"}
    assert {key.split(", ")[1] for key in found["outcomes"]} == {"ran", "refused"}


def test_a_traceback_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vrbench.trainer import Trainer

    def breaks(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(Trainer, "fit", breaks)
    with pytest.raises(Failed, match="a traceback"):
        chaos_fuzz.case(tmp_path / "fuzz", ["optimizer.lr=0.5"])
