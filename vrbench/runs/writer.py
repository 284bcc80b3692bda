"""The one writer of a run's folder: locks it, and keeps manifest, metrics, pictures, checkpoint and summary in step."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import Timeout

from vrbench.contracts import Logger, RunInfo
from vrbench.runs import checkpoint, records
from vrbench.runs.locks import Lock
from vrbench.runs.redact import hide, hide_all

if TYPE_CHECKING:
    from torch import Tensor


PARTIAL, WHOLE = "partial", "whole"
"""States of a logger's copy of a run, in the manifest of a run that is over."""


class RunIsTaken(Exception):
    """Another process trains this run, or has finished it in the meantime."""


class RunWriter:
    """Open a run's folder with `RunWriter.open`; the lock is held until the `with` block ends."""

    def __init__(
        self, run: RunInfo, loggers: Mapping[str, Logger], manifest: dict[str, Any], changed: Sequence[str] = ()
    ) -> None:
        self.run = run
        self._loggers = dict(loggers)
        self._copies = {name: PARTIAL for name, logger in loggers.items() if hasattr(logger, "rebuild")}
        self._manifest = manifest
        self._changed = list(changed)
        self._metrics: records.MetricsFile | None = None

    @classmethod
    @contextmanager
    def open(
        cls,
        run: RunInfo,
        loggers: Mapping[str, Logger],
        *,
        anew: bool,
        machine: Mapping[str, Any],
        changed: Sequence[str] = (),
    ) -> Iterator[RunWriter]:
        """Take the run's folder; with `anew` what is in it goes. `changed` is code that is knowingly not what it was.

        Raises RunIsTaken, and OSError where it cannot be written.
        """
        working = run.directory / "checkpoint"
        with _locked(working):
            if anew:
                _empty(run.directory, keep=working)
            elif records.is_over(run.directory):
                raise RunIsTaken("another process has just finished this run")
            _remove_scraps(run.directory, working)
            manifest = records.new_manifest(["vrbench", *sys.argv[1:]], machine)
            writer = cls(run, loggers, manifest, changed)
            try:
                yield writer
            finally:
                writer.close()

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
        former = _former(folder)
        self._metrics = records.MetricsFile(folder / "metrics.jsonl", length)
        config = _yaml(hide_all(self.run.config))
        records.write_whole(folder / "config.yaml", lambda file: file.write(config))
        same = state is not None or former.get("code") == self.run.code
        self.run = replace(self.run, suffix=(same and former.get("suffix")) or secrets.token_hex(4))
        changes = [] if state is None else list(former.get("code_changes", []))
        if state is not None and self._changed:
            changes.append({"step": state["step"], "changed": self._changed, "at": records.now()})
        self._manifest = {
            "id": self.run.id,
            "arm": self.run.arm,
            "suffix": self.run.suffix,
            "name": self.run.name,
            "label": self.run.label,
            "study": self.run.study,
            "seed": self.run.seed,
            "choices": dict(self.run.choices),
            "follows_seed": list(self.run.follows_seed),
            "data": dict(self.run.data),
            "code": dict(self.run.code),
            "code_changes": changes,
            "tuned": self.run.tuned,
            "total_steps": total_steps,
            "resumed_from_step": None if state is None else state["step"],
            **self._manifest,
        }
        records.write_json(folder / "manifest.json", self._manifest)
        rows = records.Run(folder).rows  # read anew for each: a million are gigabytes
        self._tell(lambda logger: logger.start(self.run, total_steps, rows()))
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
        """Write the end of the run: manifest first, summary as the sign that the run is over, then the loggers' ends.

        Where the process dies among those, the manifest still calls their copies partial, and `repair` mends them.
        """
        assert self._metrics is not None, "resume() comes first"
        self._metrics.sync()
        closing = {"status": summary["status"], "ended": records.now(), "seconds": summary["seconds"], **device}
        self._manifest |= {**closing, "copies": dict(self._copies)}
        records.write_json(self.run.directory / "manifest.json", self._manifest)
        records.write_json(self.run.directory / "summary.json", summary)
        self._tell(lambda logger: logger.finish(summary))
        if whole := self._copies.keys() & self._loggers.keys():
            self._manifest["copies"] = {name: WHOLE if name in whole else PARTIAL for name in self._copies}
            records.write_json(self.run.directory / "manifest.json", self._manifest)

    def prune(self) -> None:
        """Note that a search has given the run up; trained all the same, it goes on from its checkpoint."""
        records.write_json(self.run.directory / "manifest.json", {**self._manifest, "status": "pruned"})

    def close(self) -> None:
        """Close metrics.jsonl, and the loggers that are to be closed."""
        self._tell(lambda logger: logger.close() if hasattr(logger, "close") else None)
        if self._metrics is not None:
            self._metrics.close()

    def _tell(self, call: Callable[[Logger], None]) -> None:
        """A logger that fails is closed and left out from then on, with a line that says so: it never stops a run."""
        for name, logger in list(self._loggers.items()):
            try:
                call(logger)
            except Exception as error:
                del self._loggers[name]
                reason = hide(_first_line(error))
                line = f"vrbench: logger {name} failed and is left out ({reason}); metrics.jsonl goes on"
                print(line, file=sys.stderr)
                with contextlib.suppress(Exception):
                    if hasattr(logger, "close"):
                        logger.close()


def tidy(directory: Path) -> None:
    """Remove the checkpoint of a run that is over, where a crash came between its summary and this."""
    working = directory / "checkpoint"
    if not working.exists():
        return
    with contextlib.suppress(RunIsTaken, OSError), _locked(working):  # its process is about to do it, or this may not
        _remove_scraps(directory, working)


def cut_copies(directory: Path) -> list[str]:
    """The loggers whose copy of a run that is over was cut short: by a kill, a full disk, a server that was away."""
    copies = records.Run(directory).manifest.get("copies", {})
    return [name for name, state in copies.items() if state == PARTIAL]


def repair(run: RunInfo, loggers: Mapping[str, Logger]) -> list[str]:
    """Let each logger rebuild its copy of a run that is over from the records; returns those that could not.

    Raises RunIsTaken where another process is at it, OSError where the folder cannot be written.
    """
    failed = []
    with _locked(run.directory / "checkpoint"):
        record = records.Run(run.directory)
        manifest, summary = dict(record.manifest), record.summary
        assert summary is not None, "the run is over"
        run = replace(run, suffix=manifest["suffix"])
        for name, logger in loggers.items():
            try:
                logger.rebuild(run, record.rows(), summary)  # type: ignore[attr-defined]
            except Exception as error:
                failed.append(name)
                print(f"vrbench: {run.name}: {name}: {hide(_first_line(error))}", file=sys.stderr)
                continue
            manifest["copies"] = {**manifest["copies"], name: WHOLE}
            records.write_json(run.directory / "manifest.json", manifest)
    return failed


@contextmanager
def _locked(working: Path) -> Iterator[None]:
    """Hold a run's lock; where the run is over at the end, its checkpoint folder goes. Raises RunIsTaken."""
    working.mkdir(parents=True, exist_ok=True)
    lock = Lock(working / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunIsTaken("another process is training this run") from error
    try:
        yield
    finally:
        if records.is_over(working.parent):
            checkpoint.discard(working)
        lock.release()


def _former(folder: Path) -> dict[str, Any]:
    """The manifest of a run that goes on; empty where it cannot be read, as after a power cut."""
    try:
        return records.Run(folder).manifest
    except (FileNotFoundError, ValueError):
        return {}


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _remove_scraps(*folders: Path) -> None:
    """Delete the temporary files of processes that died while they wrote; the caller has the run's lock."""
    for folder in folders:
        for scrap in folder.glob("*.tmp"):
            scrap.unlink()


def _yaml(config: Mapping[str, Any]) -> bytes:
    return yaml.safe_dump(dict(config), sort_keys=False).encode()


def _empty(folder: Path, keep: Path) -> None:
    """Delete a run's files, the summary first, so that a crash in between leaves an unfinished run."""
    (folder / "summary.json").unlink(missing_ok=True)
    for path in itertools.chain(folder.iterdir(), keep.iterdir()):
        if path == keep or path.name == "lock":
            continue
        shutil.rmtree(path) if path.is_dir() else os.unlink(path)
