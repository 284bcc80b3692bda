"""The console: a progress bar on a terminal, and one line when a run is over."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrbench.contracts import RunInfo

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Console:
    """A progress bar on a terminal, and one line when the run is over."""

    def __init__(self) -> None:
        from rich.console import Console as RichConsole

        self._console = RichConsole(highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._line: TaskID | None = None
        self._shown: dict[str, float] = {}

    def start(self, run: RunInfo, total_steps: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Show the bar (terminals only), at the step that a resumed run starts from."""
        self._run = run
        done = max((row["step"] for row in rows), default=0)
        if done:
            self._console.print(f"{run.name}: resumed at step {done} of {total_steps}")
        if self._console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn(run.name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[shown]}"), console=self._console, transient=True)
            self._line = self._bar.add_task(run.name, total=total_steps, completed=done, shown="")
            self._bar.start()

    def log(self, row: Mapping[str, Any]) -> None:
        """Move the bar, with the last training and validation loss beside it."""
        if self._bar is None or self._line is None:
            return
        self._shown.update({key: row[key] for key in ("train/loss", "val/loss") if key in row})
        shown = "  ".join(f"{key} {value:.4g}" for key, value in self._shown.items())
        self._bar.update(self._line, completed=row["step"], shown=shown)

    def image(self, step: int, path: Path) -> None:
        """Pictures are not shown on the console."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """One line: status, the main numbers, seconds, the folder."""
        if self._bar is not None:
            self._bar.stop()
        metrics = {key: value for key, value in summary["metrics"].items() if key.split("/")[0] in ("val", "test")}
        numbers = "  ".join(f"{key} {_short(value)}" for key, value in metrics.items())
        seconds = sum(summary["seconds"].values())
        self._console.print(
            f"{self._run.name}: {summary['status']} after {summary['steps']} steps, {seconds:.1f} s  {numbers}\n"
            f"  → {self._run.directory}",
        )


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) and math.isfinite(value) else str(value)
