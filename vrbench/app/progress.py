"""What a multirun shows while it runs: a line for each run that ends; on a terminal, a live view below them.

It looks at the runs' folders, so it is the same with every launcher, and other workers' runs are counted too.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from vrbench.loggers.console import HEARTBEAT, Ticker, draws, duration, outcome, plain_console, run_bars, short
from vrbench.runs import records
from vrbench.runs.remarks import costly_evaluation

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress

WIDTH = 120
"""Columns that a line has at most."""

LEAST_TITLE = 40
"""Columns below which a longer title gets a line of its own."""

LOOK_EVERY = 0.5
"""Seconds between two looks at the folders."""

TAIL = 1 << 14
"""Bytes at the end of metrics.jsonl in which its last row is looked for."""


@dataclass(eq=False)
class Job:
    """A run of the multirun, as it is watched."""

    directory: Path
    title: str
    arm: str
    """The title without the seed."""
    before: dict[str, int | None] = field(init=False)
    """When its files were last written before it was watched: what they say is of before."""

    def __post_init__(self) -> None:
        self.before = {name: self._written(name) for name in ("manifest.json", "summary.json")}

    def _written(self, name: str) -> int | None:
        try:
            return (self.directory / name).stat().st_mtime_ns
        except OSError:
            return None

    def _is_new(self, name: str) -> bool:
        return self._written(name) not in (None, self.before[name])

    @property
    def ended(self) -> dict[str, Any] | None:
        """What it came to since it is watched: the summary, or that a search has given it up."""
        try:
            run = records.Run(self.directory)
            if self._is_new("summary.json"):
                return run.summary
            if self._is_new("manifest.json") and run.manifest.get("status") == "pruned":
                row = last_row(self.directory / "metrics.jsonl")
                return {"status": "pruned", "steps": int(row.get("step", 0)), "seconds": {"eval": 0.0}}
        except (OSError, ValueError):  # it is being written
            pass
        return None

    @property
    def config(self) -> dict[str, Any]:
        """Its resolved config."""
        return dict(yaml.safe_load((self.directory / "config.yaml").read_bytes()))

    @property
    def place(self) -> tuple[int, int] | None:
        """The step that it is at, of how many; None where it has not begun since it is watched."""
        if not self._is_new("manifest.json"):
            return None
        try:
            total = records.Run(self.directory).manifest["total_steps"]
        except (OSError, ValueError, KeyError):
            return None
        return int(last_row(self.directory / "metrics.jsonl").get("step", 0)), total


class SweepView:
    """Within its block, shows the runs that it is told to `watch`. `total` runs are to end in all, `over` have."""

    def __init__(self, total: int, over: int = 0) -> None:
        self.total = total
        self.over = over
        self._console = plain_console()
        self._open: list[Job] = []
        self._found: dict[tuple[str, str], list[float]] = {}
        self._at_work: dict[Job, tuple[int, int]] = {}
        self._ended_here = 0
        self._costly: list[str] = []
        """What there is to say of runs that were over half evaluation."""
        self._pad = 0
        self._lock = threading.Lock()
        self._began: float | None = None
        """When the first run began, so that what comes before it is in no estimate."""
        self._said = time.monotonic()
        self._ticker = Ticker(LOOK_EVERY, self.look)
        self._bars: Progress | None = None

    def __enter__(self) -> SweepView:
        if draws(self._console):
            from rich.live import Live

            self._bars = run_bars(self._console)
            # drawn by `look` alone: a thread that draws while another prints leaves empty lines
            self._live = Live(get_renderable=self._drawn, console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._ticker.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ticker.stop()
        self.look()
        if self._bars is not None:
            self._live.stop()
        if self._costly:
            self._print(f"{len(self._costly)} of {self._ended_here} runs: {self._costly[0]}")

    def watch(self, jobs: Sequence[Job], over: int | None = None) -> None:
        """Say when each of these runs ends. `over`, where it is given, is how many of all have ended by now."""
        self.look()  # those that have ended are counted before `over` says so
        with self._lock:
            self._open += jobs
            self.over = self.over if over is None else over
            self._pad = max([self._pad, *(len(job.title) for job in jobs)])

    def look(self) -> None:
        """Look at the folders once: print the lines of runs that have ended, or how far the others are."""
        with self._lock:
            for job in list(self._open):
                if (summary := job.ended) is not None:
                    self._open.remove(job)
                    self._end(job, summary)
            self._at_work = {job: place for job in self._open if (place := job.place) is not None}
            if self._at_work and self._began is None:
                self._began = time.monotonic()
            if self._bars is not None:
                self._draw()
                self._live.refresh()
            elif time.monotonic() - self._said > HEARTBEAT:
                self._print(self._heartbeat())

    def _end(self, job: Job, summary: dict[str, Any]) -> None:
        self.over += 1
        self._ended_here += 1
        seconds = sum(summary["seconds"].values())
        if self._began is None:
            self._began = time.monotonic() - seconds
        if costly := costly_evaluation(summary["seconds"], job.config):
            self._costly.append(costly)
        if summary["status"] != "pruned":
            metric = summary["primary"]["metric"]
            best = summary["best"]["metrics"].get(metric, math.nan)
            self._found.setdefault((job.arm, metric.removeprefix("val/")), []).append(best)
        count = f"{self.over:>{len(str(self.total))}}/{self.total}"
        left = self._left() if self._bars is None else ""  # the bar of all says it
        tail = "   ".join(filter(None, [outcome(summary), duration(seconds), left]))
        width = WIDTH if self._bars is None else min(WIDTH, self._console.width)
        room = width - len(count) - len(tail) - 5
        if room < min(self._pad, LEAST_TITLE):
            self._print(f"{count}  {cut(job.title, width - len(count) - 2)}\n{'':{len(count) + 2}}{tail}")
        else:
            self._print(f"{count}  {cut(job.title, room):<{min(self._pad, room)}}   {tail}")

    def _left(self) -> str:
        """How long the rest takes at the speed so far, the runs at work counted by their share."""
        shares = sum(step / total for step, total in self._at_work.values() if total)
        done, to_do = self._ended_here + shares, self.total - self.over - shares
        if self._began is None or not done or to_do <= 0:
            return ""
        return f"left {duration((time.monotonic() - self._began) * to_do / done)}"

    def _heartbeat(self) -> str:
        works = [f"{job.title} at step {step} of {total}" for job, (step, total) in self._at_work.items()]
        parts = [f"{self.over} of {self.total} over", *works[-2:], self._left()]
        return cut("; ".join(filter(None, parts)), WIDTH)

    def _print(self, line: str) -> None:
        self._console.print(line)
        self._said = time.monotonic()

    def _draw(self) -> None:
        """Bring the bars to where the runs are: those that began last, three at most."""
        assert self._bars is not None
        shown = dict(list(self._at_work.items())[-3:])
        known = {task.description: task for task in self._bars.tasks}
        for description, task in known.items():
            if description not in {job.title for job in shown}:
                self._bars.remove_task(task.id)
        for job, (step, total) in shown.items():
            if job.title not in known:
                self._bars.add_task(job.title, total=total, completed=step, shown="", moved=time.monotonic())
            elif known[job.title].completed != step:
                self._bars.update(known[job.title].id, completed=step, moved=time.monotonic())

    def _drawn(self) -> RenderableType:
        """The table so far, the bars of the runs at work, and the bar of all."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        from vrbench.report.study import mean_and_spread

        assert self._bars is not None
        room = max(0, shutil.get_terminal_size().lines - 8)
        rows = list(self._found.items())[-min(10, room) :] if room else []
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True, overflow="ellipsis")
        table.add_column(justify="right", no_wrap=True)
        table.add_column(no_wrap=True)
        for (arm, metric), values in rows:
            table.add_row(arm, f"n {len(values)}", f"{metric} {mean_and_spread(values)}")
        whole = Table.grid(padding=(0, 1), expand=True)
        whole.add_column(no_wrap=True)
        whole.add_column(ratio=1)
        whole.add_column(no_wrap=True)
        bar = ProgressBar(total=self.total, completed=self.over)
        whole.add_row(f"{self.over}/{self.total} runs", bar, self._left())
        return Group("", table, self._bars, whole)


def last_row(path: Path) -> dict[str, Any]:
    """The last whole row of a metrics.jsonl, empty where there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL))
            lines = file.read().split(b"\n")[:-1]
        return dict(json.loads(lines[-1])) if lines else {}
    except (OSError, ValueError):
        return {}


def words_of(overrides: Sequence[str], without: Sequence[str]) -> str:
    """Overrides as a title has them: keys of the optimizer without its name, numbers to four digits."""
    words = [word.lstrip("+~").removeprefix("optimizer.") for word in overrides]
    shown = " ".join(word for word in words if word.partition("=")[0] not in without)
    return re.sub(r"\d+\.\d{4,}(e-?\d+)?", lambda number: short(float(number[0])), shown)


def cut(text: str, length: int) -> str:
    """The text, its middle left out where it is longer."""
    if len(text) <= length:
        return text
    half = (length - 1) // 2
    return f"{text[: length - 1 - half]}…{text[len(text) - half :]}"
