"""Two sizes of every stress test, and the report of the full ones: results/chaos/report.json. docs/reliability.md"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from stress.sizes import SEED

pytest.register_assert_rewrite("stress.short_runs", "stress.watch")
REPORT = ROOT / "results" / "chaos" / "report.json"


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> dict[str, Any]:
    """What the test measures goes in here; in full size it is kept in the report."""
    found: dict[str, Any] = {}
    record_property("figures", found)
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    """A stress test's section of the report is called like its file."""
    made = yield
    if call.when == "call" and item.get_closest_marker("stress"):
        found: dict[str, Any] = {"passed": made.passed, "figures": dict(item.user_properties).get("figures", {})}
        if call.excinfo is not None:
            assert isinstance(item, pytest.Function)
            found["why"] = call.excinfo.exconly().replace(str(item.funcargs["tmp_path"]), "…")[:3000]
        write_section(item.path.stem.removeprefix("test_"), {**found, "seconds": round(made.duration, 1)})
    return made


def write_section(name: str, found: dict[str, Any]) -> None:
    """Put a section into the report, which keeps the others; each says from which commit it is."""
    from filelock import FileLock

    from vrbench.runs.records import git_state, now, versions, write_json

    REPORT.parent.mkdir(parents=True, exist_ok=True)
    made = {"git": git_state(ROOT), "when": now()}
    machine = {"cpus": os.cpu_count(), "load": [round(load, 1) for load in os.getloadavg()]}
    with FileLock(Path(tempfile.gettempdir()) / "vrbench-chaos-report.lock"):
        sections = json.loads(REPORT.read_text())["sections"] if REPORT.exists() else {}
        sections[name] = {**found, "made": made, "machine": machine}
        write_json(REPORT, {"command": "make chaos", "seed": SEED, "versions": versions(), "sections": sections})
