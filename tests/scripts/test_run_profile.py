"""The profile of a run: sections by a clock that can be worked out by hand, and one short run measured for real."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts" / "bench"))

import run_profile
from run_profile import SECTIONS, Sections, library

SHORT = ("trainer.max_steps=3", "trainer.threads=1")


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds


def test_time_belongs_to_the_innermost_section() -> None:
    hand = Hand()
    sections = Sections("first", hand)

    def broken(seconds: float) -> None:
        hand.work(seconds)
        raise TypeError

    hand.work(1)
    with sections.section("outer"):
        hand.work(2)
        sections.wrapped("inner", hand.work)(4)
        with pytest.raises(TypeError):
            sections.wrapped("inner", broken)(8)
        hand.work(16)
    hand.work(32)
    assert sections.switch("last") == "first"
    assert sections.seconds == {"first": 1 + 32, "outer": 2 + 16, "inner": 4 + 8}


def test_a_wrapped_function_is_itself_in_other_threads_and_says_what_it_is() -> None:
    hand = Hand()
    sections = Sections("first", hand)
    part = SimpleNamespace(work=hand.work)
    sections.wrap(part, "work", "part")
    assert part.work.__wrapped__ == hand.work
    thread = threading.Thread(target=part.work, args=(3,))
    thread.start()
    thread.join()
    sections.switch("last")
    assert sections.seconds == {"first": 3}


def test_a_module_belongs_to_its_library() -> None:
    names = ("torch.nn.functional", "vrbench.app.main", "optimizers.vradam", "json.decoder", "_heapq", "hydra")
    assert [*map(library, names)] == ["torch", "vrbench", "vrbench", "Python", "Python", "hydra"]


def test_a_run_is_told_whole() -> None:
    """Every section of a run's own is there, all of them are its time, and so are the libraries that it imports."""
    found = run_profile.profile(("task=digits", *SHORT))
    assert found["steps"] == 3
    assert found["seconds"].keys() == SECTIONS.keys()
    assert sum(found["seconds"].values()) == pytest.approx(found["total"])
    never = {name for name, seconds in found["seconds"].items() if seconds <= 0}
    assert never == set()
    assert found["imports"]["torch"] == found["seconds"][run_profile.TORCH] == max(found["imports"].values())
    assert found["imports"].keys() > {"torch", "hydra", "omegaconf", "numpy", "vrbench", "Python"}


def test_an_optimizer_without_a_gate_has_no_pass() -> None:
    found = run_profile.profile(("task=digits", "optimizer=sgd", *SHORT))
    assert found["seconds"]["gate"] == 0 < found["seconds"]["optimizer"]


def made(words: tuple[str, ...]) -> dict[str, Any]:
    """A profile without a run: each section takes a second."""
    return {
        "words": list(words),
        "steps": 7,
        "total": float(len(SECTIONS)),
        "seconds": dict.fromkeys(SECTIONS, 1.0),
        "imports": {},
    }


def test_what_is_absent_is_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_profile, "profile", made)
    output = tmp_path / "profile.json"
    command = ["run_profile.py", "--output", str(output), "--cifar10", "no/such/folder"]
    monkeypatch.setattr(sys, "argv", command)
    run_profile.main()
    record = json.loads(output.read_text())
    assert record["skipped"] == {"cifar10": "no folder no/such/folder"}
    assert record["runs"].keys() == run_profile.RUNS.keys() - {"cifar10"}
    assert "cifar10: skipped: no folder no/such/folder" in capsys.readouterr().out
    drawn = output.with_suffix(".svg").read_text()
    assert all(label in drawn for label in SECTIONS.values() if "'" not in label)
    output.with_suffix(".svg").unlink()
    monkeypatch.setattr(sys, "argv", [*command, "--draw"])
    run_profile.main()
    assert output.with_suffix(".svg").read_text() == drawn
