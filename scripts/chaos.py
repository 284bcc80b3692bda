"""Faults, load and bad input, with figures: `make chaos`. Writes results/chaos/report.json. docs/reliability.md

python scripts/chaos.py                      # everything, two sections at a time, under half an hour on two cores
python scripts/chaos.py --only kill,disk     # some of it; the report keeps what it holds of the others
python scripts/chaos.py --scale 0.1          # a tenth of every count
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
REPORT = ROOT / "results" / "chaos" / "report.json"
SEED = 20261124


def sections(scale: float) -> dict[str, Callable[[Path], dict[str, Any]]]:
    """Every section with its counts: longest first, so that two lanes end together; those in ALONE last."""

    def count(whole: int) -> int:
        return max(1, round(whole * scale))

    def load(name: str, **how: int) -> Callable[[Path], dict[str, Any]]:
        def run(folder: Path) -> dict[str, Any]:
            module = __import__(f"chaos_{MODULES[name]}")
            figures: dict[str, Any] = getattr(module, name)(folder, **how)
            return figures

        return run

    return {
        "many": load("many", runs=max(200, count(2000))),
        "kill": load("kill", each=6 if scale >= 1 else 3 if scale >= 0.5 else 1, kills=count(50), seed=SEED),
        "fuzz": load("fuzz", cases=count(2000), seed=SEED),
        "disk": load("disk", damages=count(24), fills=count(36), seed=SEED),
        "determinism": load("determinism", stops=count(3)),
        "concurrency": load("concurrency"),
        "long": load("long", steps=max(20_000, count(200_000))),
        "network": load("network", steps=max(400, count(2000)), rounds=max(1, count(3))),
    }


ALONE = ("long", "network")
"""Sections that look at the wall's clock: nothing runs beside them."""
MODULES = {
    "many": "load", "long": "load", "determinism": "load", "kill": "kill", "concurrency": "kill", "fuzz": "fuzz",
    "network": "network", "disk": "disk",
}  # fmt: skip


def one(name: str, scale: float) -> dict[str, Any]:
    """Run a section in this process; what it found, or why it failed, with its seconds."""
    import chaos_common as common

    if name not in ("fuzz", "network"):  # they fork nothing
        common.warm_up(gflownets=name in ("kill", "concurrency", "determinism"))
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{name}-"))
    try:
        result: dict[str, Any] = {"passed": True, "figures": sections(scale)[name](folder / "work")}
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".replace(str(folder), "…")
        print(f"{name} left its files in {folder}", file=sys.stderr)
        result = {"passed": False, "why": reason[:3000]}
    return {**result, "seconds": round(time.monotonic() - started, 1)}


def in_process(name: str, scale: float) -> dict[str, Any]:
    """The section in a process of its own: patches and limits stay there."""
    command = [sys.executable, str(Path(__file__)), "--section", name, "--scale", str(scale)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
    lines = result.stdout.splitlines()
    try:
        found: dict[str, Any] = json.loads(lines[-1])
    except (ValueError, IndexError):
        found = {"passed": False, "why": f"the section ended with {result.returncode}", "seconds": 0.0}
    print(f"{name:<12} {'held' if found['passed'] else 'FAILED'}  {found['seconds']:>7.1f} s", flush=True)
    write_report(name, found, scale)
    return found


def main() -> None:
    """Run the sections and write the report; exit code 1 where something does not hold."""
    parser = argparse.ArgumentParser(description="Faults, load and bad input, with figures.")
    parser.add_argument("--only", default="", help=f"comma-separated: {','.join(MODULES)}")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--lanes", type=int, default=2, help="sections that run at the same time")
    parser.add_argument("--section", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.section:
        print(json.dumps(one(arguments.section, arguments.scale)))
        return
    names = [name for name in sections(1.0) if not arguments.only or name in arguments.only.split(",")]
    started = time.monotonic()
    beside = [name for name in names if name not in ALONE]
    with ThreadPoolExecutor(arguments.lanes) as lanes:
        found = dict(zip(beside, lanes.map(lambda name: in_process(name, arguments.scale), beside), strict=True))
    found |= {name: in_process(name, arguments.scale) for name in names if name in ALONE}
    print(f"{(time.monotonic() - started) / 60:.1f} minutes; {REPORT.relative_to(ROOT)}")
    failed = [name for name in names if not found[name]["passed"]]
    for name in failed:
        print(f"{name}: {found[name]['why']}", file=sys.stderr)
    sys.exit(1 if failed else 0)


def write_report(name: str, found: dict[str, Any], scale: float) -> None:
    """Put a section into the report, which keeps the others; each says from which commit it is."""
    from filelock import FileLock

    from vrbench.records import git_state, now, versions, write_json

    REPORT.parent.mkdir(parents=True, exist_ok=True)
    made = {"git": git_state(ROOT / "vrbench"), "when": now(), "scale": scale}
    machine = {"cpus": os.cpu_count(), "load": [round(load, 1) for load in os.getloadavg()]}
    with FileLock(Path(tempfile.gettempdir()) / "vrbench-chaos-report.lock"):
        sections = json.loads(REPORT.read_text())["sections"] if REPORT.exists() else {}
        sections[name] = {**found, "made": made, "machine": machine}
        report = {"command": "python scripts/chaos.py", "seed": SEED, "versions": versions(), "sections": sections}
        write_json(REPORT, report)


if __name__ == "__main__":
    main()
