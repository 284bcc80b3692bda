"""As much of a W&B server as a run needs, to be refused by and to be lost."""

from __future__ import annotations

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


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
