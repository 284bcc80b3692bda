"""The console: a bar on a terminal or a line now and then elsewhere while a run trains, and a line when it is over."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrbench.contracts import RunInfo
from vrbench.runs.remarks import costly_evaluation

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress

QUIET = 2.0
"""Seconds without a step after which the bar of a run pulses: it evaluates, compiles or loads."""

HEARTBEAT = 30.0
"""Seconds between two lines about a run that goes on, where no bar can be drawn."""

MOST_OF_A_CORE = 0.02
"""Share of its time that a ticker spends in its calls at most: long ones are made less often."""


class Console:
    """One run's bar or heartbeat, and a line when it is over."""

    on_terminal = True

    def __init__(self) -> None:
        self._console = plain_console()
        self._bar: Progress | None = None
        self._shown: dict[str, float] = {}
        self._beat = Ticker(HEARTBEAT, self._say_where)

    def start(self, run: RunInfo, total_steps: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Show the bar (terminals only), at the step that a resumed run starts from."""
        self._run = run
        self._title = title(run.choices["task"], run.label or run.choices["optimizer"], run.seed)
        self._total, self._step = total_steps, max((row["step"] for row in rows), default=0)
        self._began, self._began_at = time.monotonic(), self._step
        if self._step:
            self._console.print(f"{self._title}: goes on at step {self._step} of {total_steps}")
        if draws(self._console):
            self._bar = run_bars(self._console)
            self._bar.add_task(self._title, total=total_steps, completed=self._step, shown="", moved=time.monotonic())
            self._bar.start()
        else:
            self._beat.start()

    def log(self, row: Mapping[str, Any]) -> None:
        """Move the bar, with the last training and validation loss beside it."""
        self._step = row["step"]
        self._shown.update({key: row[key] for key in ("train/loss", "val/loss") if key in row})
        if self._bar is not None:
            shown = "  ".join(f"{key} {short(value)}" for key, value in self._shown.items())
            self._bar.update(self._bar.task_ids[0], completed=self._step, shown=shown, moved=time.monotonic())

    def image(self, step: int, path: Path) -> None:
        """Pictures are not shown on the console."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """What came of it and its seconds, and the folder."""
        self.close()
        seconds = duration(sum(summary["seconds"].values()))
        self._console.print(f"{self._title}\n  {outcome(summary)}   {seconds}\n  → {self._run.directory}")
        if costly := costly_evaluation(summary["seconds"], self._run.config):
            self._console.print(f"  {costly}")

    def close(self) -> None:
        """Take the bar away, or end the heartbeat."""
        self._beat.stop()
        if self._bar is not None:
            self._bar.stop()

    def _say_where(self) -> None:
        done, since = self._step - self._began_at, time.monotonic() - self._began
        left = f", left {duration(since * (self._total - self._step) / done)}" if done else ""
        self._console.print(f"{self._title}: step {self._step} of {self._total}, {duration(since)}{left}")


class Ticker:
    """Calls a function every so many seconds, from `start` to `stop`; one that costs much, less often."""

    def __init__(self, seconds: float, call: Callable[[], object]) -> None:
        self._seconds = seconds
        self._call = call
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin; the first call is one interval from now."""
        self._thread.start()

    def stop(self) -> None:
        """End; a call that is under way is waited for. Nothing happens where it never began."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # nobody reads what it prints: the run goes on without it
            wait = self._seconds
            while not self._ended.wait(wait):
                began = time.thread_time()  # not the wall's: a call that waited for an import's end has cost nothing
                self._call()
                wait = max(self._seconds, (time.thread_time() - began) / MOST_OF_A_CORE)


def plain_console() -> RichConsole:
    """A console that prints text as it is: no markup, no highlighting, no wrapping of its own."""
    from rich.console import Console as RichConsole

    return RichConsole(highlight=False, markup=False, emoji=False, soft_wrap=True)


def draws(console: RichConsole) -> bool:
    """Whether bars may be drawn: on a terminal that can (not TERM=dumb) and is nobody's CI log, or in a notebook."""
    if console.is_jupyter:
        return importlib.util.find_spec("ipywidgets") is not None
    return console.is_interactive and not os.environ.get("CI")


def run_bars(console: RichConsole) -> Progress:
    """Bars of single runs: title, bar, step, time left, losses where there is room. One pulses while no step ends."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressBar,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    class Bar(BarColumn):
        def render(self, task: Task) -> ProgressBar:
            bar = super().render(task)
            bar.pulse = time.monotonic() - task.fields["moved"] > QUIET
            return bar

    whole = Column(no_wrap=True)
    columns = [
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=2, no_wrap=True, overflow="ellipsis")),
        Bar(bar_width=None, table_column=Column(ratio=1)),
        MofNCompleteColumn(table_column=whole),
        TimeRemainingColumn(compact=True, table_column=whole),
    ]
    if console.width >= 100:
        columns.append(TextColumn("{task.fields[shown]}", markup=False, table_column=whole))
    return Progress(*columns, console=console, transient=True, expand=True)


def title(task: str, label: str, seed: int) -> str:
    """What a run is called in a line: `digits · adamw lr=0.01 · seed 2`."""
    return f"{task} · {label} · seed {seed}"


def outcome(summary: Mapping[str, Any]) -> str:
    """What came of a run: `accuracy 0.9777 best at step 400`, or that it diverged.

    The best validation, whose weights the test was read with; never the last one.
    """
    if summary["status"] != "finished":
        return f"{summary['status']} at step {summary['steps']}"
    metric, best = summary["primary"]["metric"], summary["best"]
    if metric not in best["metrics"]:
        return f"finished after {summary['steps']} steps"
    return f"{metric.removeprefix('val/')} {short(best['metrics'][metric])} best at step {best['step']}"


def short(value: Any) -> str:
    """A number to four digits."""
    return f"{value:.4g}" if isinstance(value, (int, float)) and math.isfinite(value) else str(value)


def duration(seconds: float) -> str:
    """`1.2 s`, `45 s`, `3 min`, `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
