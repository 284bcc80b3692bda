"""Signals that ask runs to stop: in the process of a run, and in the one that launches runs in other processes."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from vrbench.runs.records import write_whole

STOP_FILE = "VRBENCH_STOP_FILE"
"""Variable of a job in a process of its own: the file that the launching process makes when the job is to stop."""

LOOK_EVERY = 0.2
"""Seconds between two looks for that file."""


class StopSignals:
    """Note the first SIGINT, SIGTERM or SIGUSR1 (SLURM's warning) for the trainer; a second one ends the process."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

    def __init__(self) -> None:
        self._noted: int | None = None
        self._looked = -math.inf
        self._before: dict[int, Any] = {}

    @property
    def received(self) -> int | None:
        """The signal that this process got, or that the process which launched it passes on."""
        if self._noted is None and time.monotonic() - self._looked > LOOK_EVERY:
            self._looked = time.monotonic()
            self._noted = passed_on()
        return self._noted

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __exit__(self, *exception: object) -> None:
        self._restore()


def launched() -> bool:
    """Whether this job was launched by a process that passes signals on to it."""
    return STOP_FILE in os.environ


def passed_on() -> int | None:
    """The signal that the launching process has got and passes on to its jobs."""
    if not launched():
        return None
    try:
        return int(Path(os.environ[STOP_FILE]).read_text())
    except FileNotFoundError:
        return None


def stopped_by(number: int) -> str:
    """The beginning of a line that says what stopped a command."""
    return f"stopped by {'Ctrl-C' if number == signal.SIGINT else signal.Signals(number).name}"


@contextlib.contextmanager
def sigterm_kept() -> Iterator[None]:
    """What handles SIGTERM is after the block what it was before."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def start_resource_trackers() -> None:
    """Start the helper processes of multiprocessing and joblib: whoever starts one later has SIGINT unblocked by it."""
    from multiprocessing import resource_tracker

    from joblib.externals.loky.backend import resource_tracker as of_joblib

    resource_tracker.ensure_running()
    of_joblib.ensure_running()


class StopJobs:
    """While jobs run in other processes, pass the first SIGINT, SIGTERM or SIGUSR1 on to them; a second one ends this.

    The signal's number is written to `file`, which every job looks for. SIGINT is blocked meanwhile in this thread, and
    so in every process that it starts: a terminal sends Ctrl-C to all processes of a command, and a worker that has no
    job would die of it, upon which its launcher kills the others before they have written their checkpoints. A thread
    that does nothing else takes it; Python handles it in this one.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.received: int | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._before: dict[int, Any] = {}
        self._mask: set[int] = set()

    def __enter__(self) -> StopJobs:
        if threading.current_thread() is threading.main_thread():
            self._mask = set(signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}))
            self._before = {number: signal.signal(number, self._pass_on) for number in StopSignals.SIGNALS}
            self._thread = threading.Thread(target=self._take_interrupts, daemon=True)
            self._thread.start()
        return self

    def _take_interrupts(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self._over.wait()

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.file, lambda file: file.write(b"%d" % number))

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Put all back. The file stays where an error ended the wait: jobs that are still queued find it."""
        self._restore()
        if self._thread is not None:
            self._over.set()
            self._thread.join()
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        if error is None:
            self.file.unlink(missing_ok=True)
