"""The one writer of a run's folder: locks it, and keeps manifest, metrics, pictures, checkpoint and summary in step."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout

from vrbench import checkpoint, records
from vrbench.contracts import Logger, RunInfo
from vrbench.redact import hide, hide_all

if TYPE_CHECKING:
    from torch import Tensor


class RunIsTaken(Exception):
    """Another process trains this run, or has finished it in the meantime."""


class RunWriter:
    """Open a run's folder with `RunWriter.open`; the lock is held until the `with` block ends."""

    def __init__(self, run: RunInfo, loggers: Mapping[str, Logger], manifest: dict[str, Any]) -> None:
        self.run = run
        self._loggers = dict(loggers)
        self._manifest = manifest
        self._metrics: records.MetricsFile | None = None

    @classmethod
    @contextmanager
    def open(
        cls, run: RunInfo, loggers: Mapping[str, Logger], *, force: bool, device: str, threads: int
    ) -> Iterator[RunWriter]:
        """Take the run's folder, made anew with `force`. Raises RunIsTaken, and OSError where it cannot be written."""
        working = run.directory / "checkpoint"
        working.mkdir(parents=True, exist_ok=True)
        lock = FileLock(working / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise RunIsTaken("another process is training this run") from error
        try:
            if records.is_over(run.directory):
                if not force:
                    raise RunIsTaken("another process has just finished this run")
                _empty(run.directory, keep=working)
            _remove_scraps(run.directory, working)
            manifest = records.new_manifest(["vrbench", *sys.argv[1:]], device, threads)
            writer = cls(run, loggers, manifest)
            try:
                yield writer
            finally:
                writer.close()
        finally:
            over = records.is_over(run.directory)
            if over:
                checkpoint.discard(working)
            lock.release()

    def resume(self, total_steps: int) -> dict[str, Any] | None:
        """Write the run's first files and return the state of its last good checkpoint, if it has one.

        Rows of metrics.jsonl that the checkpoint does not know are cut off: the run will write them again. Where no
        checkpoint is good the run starts at step 0 and comes to the same numbers; what was damaged is said.
        """
        folder = self.run.directory
        state, wrong = checkpoint.load(folder / "checkpoint", self.check)
        for name, reason in wrong.items():
            checkpoint.set_aside(folder / "checkpoint", name)
            self._say(f"checkpoint {name} is not used: {reason}")
        if wrong:
            step = 0 if state is None else state["step"]
            how = "starts again" if state is None else "goes on from the checkpoint before,"
            self._say(f"{how} at step {step}")
        length = 0 if state is None else state.pop("metrics")["length"]
        self._metrics = records.MetricsFile(folder / "metrics.jsonl", length)
        config = _yaml(hide_all(self.run.config))
        records.write_whole(folder / "config.yaml", lambda file: file.write(config))
        self._manifest = {
            "id": self.run.id,
            "arm": self.run.arm,
            "name": self.run.name,
            "study": self.run.study,
            "seed": self.run.seed,
            "choices": dict(self.run.choices),
            "resumed_from_step": None if state is None else state["step"],
            **self._manifest,
        }
        records.write_json(folder / "manifest.json", self._manifest)
        rows = list(records.read_rows(folder / "metrics.jsonl"))
        self._tell(lambda logger: logger.start(self.run, total_steps, rows))
        return state

    def check(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError for a checkpoint whose rows are no longer in metrics.jsonl."""
        if "metrics" not in state:
            raise ValueError("not the state of a run")
        records.check_rows(self.run.directory / "metrics.jsonl", state["metrics"])

    def _say(self, line: str) -> None:
        print(f"vrbench: {self.run.name}: {line}", file=sys.stderr)

    def log(self, row: Mapping[str, Any]) -> None:
        """One row of metrics, to metrics.jsonl and to every logger."""
        assert self._metrics is not None, "resume() comes first"
        self._metrics.append(row)
        self._tell(lambda logger: logger.log(row))

    def image(self, step: int, picture: Tensor, *, last: bool) -> None:
        """Write a uint8 picture of shape (height, width, 3) as `samples.png` (the last one) or `samples-<step>.png`."""
        from PIL import Image

        path = self.run.directory / ("samples.png" if last else f"samples-{step:07d}.png")
        image = Image.fromarray(picture.cpu().numpy())
        records.write_whole(path, lambda file: image.save(file, format="PNG"))
        self._tell(lambda logger: logger.image(step, path))

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Save the state of the unfinished run."""
        assert self._metrics is not None, "resume() comes first"
        checkpoint.save(self.run.directory / "checkpoint", {**state, "metrics": self._metrics.sync()})

    def finish(self, summary: Mapping[str, Any], device: Mapping[str, Any]) -> None:
        """Write the end of the run: manifest first, summary last, as the sign that the run is over."""
        assert self._metrics is not None, "resume() comes first"
        self._metrics.sync()
        closing = {"status": summary["status"], "ended": records.now(), "seconds": summary["seconds"], **device}
        records.write_json(self.run.directory / "manifest.json", {**self._manifest, **closing})
        records.write_json(self.run.directory / "summary.json", summary)
        self._tell(lambda logger: logger.finish(summary))

    def prune(self) -> None:
        """Note that a search has given the run up; trained all the same, it goes on from its checkpoint."""
        records.write_json(self.run.directory / "manifest.json", {**self._manifest, "status": "pruned"})

    def close(self) -> None:
        """Close metrics.jsonl."""
        if self._metrics is not None:
            self._metrics.close()

    def _tell(self, call: Callable[[Logger], None]) -> None:
        """A logger that fails is left out from then on, with a line that says so: it never stops a run."""
        for name, logger in list(self._loggers.items()):
            try:
                call(logger)
            except Exception as error:
                del self._loggers[name]
                reason = hide(f"{type(error).__name__}: {error}".splitlines()[0])
                line = f"vrbench: logger {name} failed and is left out ({reason}); metrics.jsonl goes on"
                print(line, file=sys.stderr)


def tidy(directory: Path) -> None:
    """Remove the checkpoint of a run that is over, where a crash came between its summary and this."""
    working = directory / "checkpoint"
    if not working.exists():
        return
    try:
        with FileLock(working / "lock", timeout=0):
            _remove_scraps(directory, working)
            checkpoint.discard(working)
    except (Timeout, OSError):
        return  # its process is about to do it, or this one may not


def _remove_scraps(*folders: Path) -> None:
    """Delete the temporary files of processes that died while they wrote; the caller has the run's lock."""
    for folder in folders:
        for scrap in folder.glob("*.tmp"):
            scrap.unlink()


def _yaml(config: Mapping[str, Any]) -> bytes:
    return yaml.safe_dump(dict(config), sort_keys=False).encode()


def _empty(folder: Path, keep: Path) -> None:
    """Delete a finished run's files, the summary first, so that a crash in between leaves an unfinished run."""
    (folder / "summary.json").unlink()
    for path in itertools.chain(folder.iterdir(), keep.iterdir()):
        if path == keep or path.name == "lock":
            continue
        shutil.rmtree(path) if path.is_dir() else os.unlink(path)
