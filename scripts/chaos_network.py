"""W&B online with a server that is not there, refuses the key, or goes away in the middle of a run."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import chaos_common as common
from chaos_common import expect

KEY = "0123456789abcdef0123456789abcdef01234567"


class Server:
    """As much of a W&B server as a run needs, on a port of this machine; `lose()` and it answers no more."""

    def __init__(self, refuse: bool = False) -> None:
        self.requests = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                self.do_POST()

            def do_POST(self) -> None:
                server.requests += 1
                asked = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, answer = (401, {"errors": [{"message": "unauthorized"}]}) if refuse else (200, _answer(asked))
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_PUT = do_POST

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def lose(self) -> None:
        """Close the port."""
        self._server.shutdown()
        self._server.server_close()


def _answer(asked: bytes) -> dict[str, Any]:
    """GraphQL answers to what a run asks: who am I, what server is this, here is my run, under the id it asks for."""
    try:
        run = json.loads(asked)["variables"]["name"]
    except (ValueError, KeyError, TypeError):
        run = "run"
    project = {"id": "p", "name": "vrbench", "entity": {"id": "e", "name": "me"}}
    bucket = {
        "id": "run", "name": run, "displayName": run, "description": "", "config": "{}", "sweepName": "",
        "project": project, "historyLineCount": 0,
    }  # fmt: skip
    return {
        "data": {
            "viewer": {"id": "v", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}},
            "serverInfo": {
                "cliVersionInfo": {"max_cli_version": "99.0.0"},
                "latestLocalVersionInfo": None,
                "features": [],
            },
            "upsertBucket": {"bucket": bucket, "inserted": True},
            "model": {"bucket": None},
            "project": None,
        },
        "exitcode": None,
        "limits": {},
    }


def closed_port() -> str:
    """The address of a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


LOG_EVERY = 10
MOST_SLOWER = 2.0
"""Per cent of the training time that a fault may add to what W&B's calls take offline."""
FAULTS = ("none (offline)", "no network", "refused key", "lost midway")


def network(folder: Path, steps: int, rounds: int, faults: Sequence[str] = FAULTS) -> dict[str, Any]:
    """The same run with W&B offline and under each fault, in turn: numbers, seconds, and what it says at the end.

    How much slower a fault makes training is told by the time spent in W&B's calls: whole runs differ by more
    than 2 % from one time to the next on a shared machine, and are reported beside it.
    """
    folder.mkdir(parents=True)
    seconds: dict[str, dict[str, list[float]]] = {}
    said: dict[str, str] = {}
    reference: Any = None
    for number in range(rounds):
        for fault in faults:
            study = f"{fault.split(' ')[0]}-{number}"
            output = folder / f"{study}.txt"
            entry = seconds.setdefault(fault, {"train": [], "waited": [], "wall": []})
            for key, value in _run(fault, folder, study, output, steps).items():
                entry[key].append(value)
            (run,) = common.run_folders(folder / study)
            found = common.numbers(run)
            reference = found if reference is None else reference
            expect(found == reference, f"{fault}: numbers differ from the offline run's")
            text = output.read_text()
            if fault != "none (offline)":
                expect("wandb sync" in text, f"{fault}: {output} does not say how to sync")
                closing = next(line for line in text.splitlines() if "wandb sync" in line)
                kept = Path(closing.rsplit("wandb sync ", 1)[1])
                expect(any(path.stat().st_size > 1000 for path in kept.glob("*.wandb")), f"{fault}: nothing in {kept}")
                said[fault] = closing.split(": ", 2)[2].replace(str(folder), "…")
    figures: dict[str, dict[str, Any]] = {
        fault: {
            "train_s": [round(value, 2) for value in entry["train"]],
            "waited_for_wandb_percent": [
                round(100 * waited / train, 2) for waited, train in zip(entry["waited"], entry["train"], strict=True)
            ],
            "wall_s": [round(value, 1) for value in entry["wall"]],
        }
        for fault, entry in seconds.items()
    }
    offline = statistics.median(figures[faults[0]]["waited_for_wandb_percent"])
    for fault, figure in figures.items():
        figure["slower_percent"] = round(statistics.median(figure["waited_for_wandb_percent"]) - offline, 2)
        expect(figure["slower_percent"] <= MOST_SLOWER, f"{fault}: training waits for W&B: {figures}")
    return {"rows": steps // LOG_EVERY, "faults": figures, "numbers_equal": True, "says": said}


def _run(fault: str, folder: Path, study: str, output: Path, steps: int) -> dict[str, float]:
    """Train once under the fault; seconds on the training clock, waiting in W&B's calls, and on the wall's."""
    server = None
    environment = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": closed_port(), "WANDB_MODE": "", "WANDB_SILENT": "true"}
    if fault in ("refused key", "lost midway"):
        server = Server(refuse=fault == "refused key")
        environment["WANDB_BASE_URL"] = server.url
    mode = "offline" if fault.startswith("none") else "online"
    words = [
        "logger=default", "~logger.console", f"logger.wandb.mode={mode}", "trainer.threads=1", "trainer.device=cpu",
        f"trainer.max_steps={steps}", f"trainer.log_every={LOG_EVERY}", f"trainer.eval_every={steps // 4}",
        f"results_dir={folder}", f"study={study}",
    ]  # fmt: skip
    started = time.monotonic()
    code = _process(words, environment, output, server if fault == "lost midway" else None, folder / study)
    wall = time.monotonic() - started
    expect(code == 0, f"{fault}: ended with {code}: {output}")
    if server is not None:
        expect(server.requests > 0, f"{fault}: the server was never asked")
    (run,) = common.run_folders(folder / study)
    train = json.loads((run / "summary.json").read_text())["seconds"]["train"]
    return {"train": train, "waited": float(output.with_suffix(".waited").read_text()), "wall": wall}


def _process(words: list[str], extra: dict[str, str], output: Path, server: Server | None, study: Path) -> int:
    environment = {key: value for key, value in {**os.environ, **extra}.items() if value != ""}
    with open(output, "w") as file:
        command = [sys.executable, __file__, str(output.with_suffix(".waited")), *words]
        process = subprocess.Popen(command, env=environment, cwd=common.ROOT, stdout=file, stderr=file)
        if server is not None:
            _until(lambda: any(study.glob("*/metrics.jsonl")) and _rows(study) >= 5, process)
            server.lose()
        return process.wait(600)


def _rows(study: Path) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in study.glob("*/metrics.jsonl"))


def _until(holds: Callable[[], bool], process: Any) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        expect(process.poll() is None, "the run ended before the network was lost")
        expect(time.monotonic() < deadline, "the run does not start")
        time.sleep(0.02)


def main() -> None:
    """`chaos_network.py FILE WORD …`: vrbench with these words; the seconds spent in W&B's calls go to the file."""
    from vrbench.loggers import WandB

    file, *words = sys.argv[1:]
    waited = 0.0
    log = WandB.log

    def timed(self: WandB, row: Any) -> None:
        nonlocal waited
        started = time.perf_counter()
        log(self, row)
        waited += time.perf_counter() - started

    WandB.log = timed  # type: ignore[method-assign]
    code = common.vrbench(*words)
    Path(file).write_text(str(waited))
    sys.exit(code)


if __name__ == "__main__":
    main()
