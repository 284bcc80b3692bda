"""W&B online with a server that is not there, refuses the key, or goes away in the middle of a run.

Looks at the wall's clock: run it alone.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from conftest import ROOT
from same_numbers import numbers_of_folder
from stress.short_runs import only_run
from stress.sizes import sizes
from stress.wandb_server import Server, closed_port

KEY = "0123456789abcdef0123456789abcdef01234567"
LOG_EVERY = 10
MOST_SLOWER = 2.0
"""Per cent of the training time that a fault may add to what W&B's calls take offline."""
OFFLINE = "none (offline)"
FAULTS = (OFFLINE, "no network", "refused key", "lost midway")


@sizes("steps, rounds, faults, timed", short=(200, 1, (OFFLINE, "refused key"), False), full=(2000, 3, FAULTS, True))
def test_a_fault_of_the_server_costs_no_number(
    steps: int, rounds: int, faults: Sequence[str], timed: bool, tmp_path: Path, figures: dict[str, Any]
) -> None:
    """The same run with W&B offline and under each fault, in turn: numbers, seconds, and what it says at the end.

    How much slower a fault makes training is told by the time spent in W&B's calls: whole runs differ by more
    than 2 % from one time to the next on a shared machine, and are reported beside it.
    """
    seconds: dict[str, list[dict[str, float]]] = {fault: [] for fault in faults}
    last_line: dict[str, str] = {}
    reference: Any = None
    for number in range(rounds):
        for fault in faults:
            study = f"{fault.split(' ')[0]}-{number}"
            seconds[fault].append(train(fault, tmp_path, study, steps))
            found = numbers_of_folder(only_run(tmp_path / study))
            reference = found if reference is None else reference
            assert found == reference, f"{fault}: numbers differ from the offline run's"
            if fault == OFFLINE:
                continue
            (line,) = (line for line in said(tmp_path, study).splitlines() if "wandb sync" in line)
            kept = Path(line.rsplit("wandb sync ", 1)[1])
            assert any(path.stat().st_size > 1000 for path in kept.glob("*.wandb")), f"{fault}: nothing in {kept}"
            last_line[fault] = line.split(": ", 2)[2].replace(str(tmp_path), "…")
    shares = {fault: [100 * took["waited"] / took["train"] for took in all_] for fault, all_ in seconds.items()}
    offline = statistics.median(shares[OFFLINE])
    by_fault = {
        fault: {
            "train_s": [round(took["train"], 2) for took in seconds[fault]],
            "waited_for_wandb_percent": [round(share, 2) for share in shares[fault]],
            "wall_s": [round(took["wall"], 1) for took in seconds[fault]],
            "slower_percent": round(statistics.median(shares[fault]) - offline, 2),
        }
        for fault in faults
    }
    figures |= {"rows": steps // LOG_EVERY, "faults": by_fault, "numbers_equal": True, "says": last_line}
    assert not timed or max(found["slower_percent"] for found in by_fault.values()) <= MOST_SLOWER


def said(folder: Path, study: str) -> str:
    """All that the study's process said."""
    return (folder / f"{study}.txt").read_text()


def train(fault: str, folder: Path, study: str, steps: int) -> dict[str, float]:
    """Train once under the fault; seconds on the training clock, waiting in W&B's calls, and on the wall's."""
    server = Server(refuse=fault == "refused key") if fault in ("refused key", "lost midway") else None
    url = closed_port() if server is None else server.url
    environment = {**os.environ, "WANDB_API_KEY": KEY, "WANDB_BASE_URL": url, "WANDB_SILENT": "true"}
    environment.pop("WANDB_MODE", None)
    mode = "offline" if fault == OFFLINE else "online"
    waited = folder / f"{study}.waited"
    command = [
        sys.executable, str(Path(__file__).with_name("timed_wandb.py")), str(waited), "logger=default",
        "~logger.console", f"logger.wandb.mode={mode}", "trainer.threads=1", "trainer.device=cpu",
        f"trainer.max_steps={steps}", f"trainer.log_every={LOG_EVERY}", f"trainer.eval_every={steps // 4}",
        f"results_dir={folder}", f"study={study}",
    ]  # fmt: skip
    started = time.monotonic()
    with open(folder / f"{study}.txt", "w") as file:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=file, stderr=file)
        if server is not None and fault == "lost midway":
            wait_for_rows(folder / study, 5, process)
            server.lose()
        code = process.wait(600)
    wall = time.monotonic() - started
    assert code == 0, said(folder, study)
    assert server is None or server.requests > 0
    train = json.loads((only_run(folder / study) / "summary.json").read_text())["seconds"]["train"]
    return {"train": train, "waited": float(waited.read_text()), "wall": wall}


def wait_for_rows(study: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Until a run of the study has so many rows."""
    deadline = time.monotonic() + 120
    while sum(len(path.read_bytes().splitlines()) for path in study.glob("*/metrics.jsonl")) < count:
        assert process.poll() is None, "the run ended before the network was lost"
        assert time.monotonic() < deadline, "the run does not start"
        time.sleep(0.02)
