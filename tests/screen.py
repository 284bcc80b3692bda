"""A command on a terminal of a given size, and what stood on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence

import pyte


class Terminal:
    """A command that runs on a pseudo-terminal, and the terminal's screen with all that scrolled out of it."""

    def __init__(
        self, command: Sequence[str], columns: int, lines: int = 24, env: Mapping[str, str] | None = None
    ) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=1000, ratio=0.001)
        self._stream = pyte.ByteStream(self.screen)
        self.screens: list[list[str]] = []
        """Every screen that was seen, after each piece of output."""
        self.bytes = b""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        without = ("CI", "NO_COLOR", "COLUMNS", "LINES")
        around = {key: value for key, value in os.environ.items() if key not in without}
        self.child = subprocess.Popen(
            list(command), stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env={**around, "TERM": "xterm-256color", **(env or {})},
        )  # fmt: skip
        os.close(slave)
        self._master = master

    def read(self, until: Callable[[list[str]], bool] | None = None, seconds: float = 120) -> list[str]:
        """Read until the command ends, or until a screen is as asked for; the screen then."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not select.select([self._master], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(self._master, 1 << 16)
            except OSError:  # the command has closed it
                break
            if not data:
                break
            self.bytes += data
            self._stream.feed(data)
            self.screens.append(list(self.screen.display))
            if until is not None and until(self.screens[-1]):
                return self.screens[-1]
        else:
            self.child.send_signal(signal.SIGKILL)
            raise TimeoutError(f"after {seconds} s: {self.text}")
        self.child.wait(timeout=60)
        return list(self.screen.display)

    @property
    def text(self) -> str:
        """All lines that are to be seen when one scrolls up."""
        above = ["".join(line[x].data for x in range(self.screen.columns)) for line in self.screen.history.top]
        return "\n".join(line.rstrip() for line in [*above, *self.screen.display]).rstrip()
