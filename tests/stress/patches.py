"""What children do to themselves before they run: stop at a step, say where they are, die in the middle of a write.

Every function is called in the child and changes vrbench there.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any


def stop_at(step: int) -> None:
    """A run is stopped at this step, with its checkpoint."""
    from vrbench.training.trainer import Trainer

    fit = Trainer.fit
    Trainer.fit = lambda self, writer, *_: fit(self, writer, lambda: self.step >= step)  # type: ignore[method-assign]


def stop_after(steps: int) -> None:
    """A run is stopped after so many steps more, with its checkpoint."""
    from vrbench.training.trainer import Trainer

    fit = Trainer.fit

    def some(self: Trainer, writer: Any, *_: Any) -> Any:
        calls = 0

        def stop() -> bool:
            nonlocal calls
            calls += 1
            return calls >= steps

        return fit(self, writer, stop)

    Trainer.fit = some  # type: ignore[method-assign, assignment]


def touch_when_training(path: Path) -> None:
    """The file is there once a run trains."""
    from vrbench.training.trainer import Trainer

    fit = Trainer.fit

    def fit_and_say(self: Trainer, *arguments: Any) -> Any:
        path.touch()
        return fit(self, *arguments)

    Trainer.fit = fit_and_say  # type: ignore[method-assign, assignment]


def note_finished(path: Path) -> None:
    """The names of runs that are trained to their end are added to the file."""
    from vrbench.runs.writer import RunWriter

    finish = RunWriter.finish

    def finish_and_note(self: RunWriter, *arguments: Any) -> None:
        finish(self, *arguments)
        with open(path, "a") as file:
            file.write(f"{self.run.name}\n")

    RunWriter.finish = finish_and_note  # type: ignore[method-assign, assignment]


# ---- ways to die in the middle of a write ----------------------------------------------------------------------------


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _in_checkpoint_write(countdown: int, after: bool) -> None:
    from vrbench.runs import checkpoint

    write, calls = checkpoint._Hashed.write, 0

    def half(self: Any, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == 10 * countdown:
            self._file.write(bytes(data)[: len(data) // 2])
            self._file.flush()
            _die()
        return write(self, data)

    checkpoint._Hashed.write = half  # type: ignore[method-assign]


def _in_metrics_row(countdown: int, after: bool) -> None:
    from vrbench.runs.records import MetricsFile

    append, calls = MetricsFile.append, 0

    def half(self: MetricsFile, row: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == countdown:
            self._file.write(b'{"step": 1, "train/lo')
            _die()
        append(self, row)

    MetricsFile.append = half  # type: ignore[method-assign]


def _at_rename(name: str) -> Callable[[int, bool], None]:
    """Die before or after a file of this name gets it."""

    def install(countdown: int, after: bool) -> None:
        replace, calls = os.replace, 0

        def deadly(source: Any, target: Any) -> None:
            nonlocal calls
            mine = Path(target).match(name)
            calls += mine
            if mine and calls == countdown and not after:
                _die()
            replace(source, target)
            if mine and calls == countdown:
                _die()

        os.replace = deadly  # type: ignore[assignment]

    return install


def _in_discard(countdown: int, after: bool) -> None:
    """Die when a finished run's checkpoint is half deleted."""
    from vrbench.runs import checkpoint

    discard, calls = checkpoint.discard, 0

    def half(folder: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == countdown:
            for path in list(folder.iterdir())[: 1 if after else None]:
                path.unlink()
            _die()
        discard(folder)

    checkpoint.discard = half


DEATHS: dict[str, Callable[[int, bool], None]] = {
    "checkpoint write": _in_checkpoint_write,
    "checkpoint rename": _at_rename("state*.pt"),
    "metrics row": _in_metrics_row,
    "summary rename": _at_rename("summary.json"),
    "manifest rename": _at_rename("manifest.json"),
    "picture rename": _at_rename("*.png"),
    "discard": _in_discard,
}


def die(kind: str, countdown: int, after: bool) -> None:
    """SIGKILL this process in the `countdown`-th such write: before or `after` a rename or deletion."""
    DEATHS[kind](countdown, after)
