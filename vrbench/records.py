"""What a run leaves behind: its identity, manifest.json, metrics.jsonl, summary.json; and the reader of run folders.

Every file but metrics.jsonl is written whole (temporary file, fsync, rename); metrics.jsonl only grows, and a
checkpoint notes its length, so that a resumed run cuts off rows that it will write again. Imports nothing heavy.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

SCHEMA = 1
OVER = ("finished", "diverged")

NOT_IDENTITY = (
    ("study",),
    ("results_dir",),
    ("force",),
    ("logger",),
    ("trainer", "device"),
    ("trainer", "threads"),
    ("trainer", "checkpoint_seconds"),
)
"""What decides no number of a run: where it is written and shown, and the hardware that it happens to run on."""


def identify(config: Mapping[str, Any]) -> tuple[str, str]:
    """Return `(id, arm)`: 8-digit hashes of the resolved config, with and without its seed.

    Places, logging and hardware do not count. A `path` counts by its last component, so that moving a data set (or
    using a local copy, `…/cifar10` for `uoft-cs/cifar10`) keeps the identity and another data set changes it.
    """
    plain = _relevant(config)
    seedless = {key: value for key, value in plain.items() if key != "seed"}
    return _hash(plain), _hash(seedless)


def _relevant(node: Any, at: tuple[str, ...] = ()) -> Any:
    if isinstance(node, Mapping):
        kept = {key: _relevant(value, (*at, key)) for key, value in node.items() if (*at, key) not in NOT_IDENTITY}
        return dict(sorted(kept.items()))
    if isinstance(node, (list, tuple)):
        return [_relevant(value, at) for value in node]
    if at and at[-1] == "path" and isinstance(node, str):
        return Path(node).name
    return node


def _hash(plain: Any) -> str:
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2s(text.encode(), digest_size=4).hexdigest()


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let `write` fill a file so that a reader (and a crash) sees all of it or none of it. Raises OSError."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make a rename inside the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write strict JSON whole; numbers that JSON cannot say (nan, inf) become null."""
    text = json.dumps(_jsonable(content), indent=2, allow_nan=False) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class MetricsFile:
    """The append-only metrics.jsonl of a run being trained."""

    def __init__(self, path: Path, length: int = 0) -> None:
        """Open for appending after the first `length` bytes: what lies behind them is cut off."""
        self.path = path
        self._file = open(path, "ab")  # noqa: SIM115 - lives as long as the run
        self._file.truncate(length)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row; it is in the file, for other processes to read, when this returns."""
        self._file.write((json.dumps(_jsonable(row), allow_nan=False) + "\n").encode())
        self._file.flush()

    def sync(self) -> int:
        """Force the rows to disk and return the file's length in bytes."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._file.close()


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a metrics.jsonl; a torn last line is left out, null reads as nan.

    Raises ValueError where a line before the last is not JSON.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}: line {number} is not JSON ({error})") from error
            yield {key: math.nan if value is None else value for key, value in row.items()}


@dataclass(frozen=True)
class Run:
    """A run folder, read lazily."""

    directory: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """manifest.json. Raises ValueError for a schema version that this vrbench does not know."""
        manifest: dict[str, Any] = json.loads((self.directory / "manifest.json").read_bytes())
        if manifest.get("schema") != SCHEMA:
            raise ValueError(
                f"{self.directory}: schema version {manifest.get('schema')!r} is unknown to this vrbench "
                f"(it reads version {SCHEMA})"
            )
        return manifest

    @cached_property
    def summary(self) -> dict[str, Any] | None:
        """summary.json, or None while the run is unfinished."""
        path = self.directory / "summary.json"
        return json.loads(path.read_bytes()) if path.exists() else None

    @property
    def status(self) -> str:
        """`finished`, `diverged` or `unfinished`."""
        return str(self.summary["status"]) if self.summary else "unfinished"

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of metrics.jsonl, in order."""
        path = self.directory / "metrics.jsonl"
        return read_rows(path) if path.exists() else iter(())


def is_over(directory: Path) -> bool:
    """Whether the run of this folder has its summary, the last thing that a run writes."""
    return (directory / "summary.json").exists()


def find_runs(root: Path) -> list[Run]:
    """Every run folder at or below `root`, sorted by path. Raises FileNotFoundError where `root` is missing."""
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such folder")
    found = []
    for folder, subfolders, files in os.walk(root):
        if "manifest.json" in files:
            found.append(Run(Path(folder)))
            subfolders.clear()
    return sorted(found, key=lambda run: run.directory)


def new_manifest(command: Sequence[str], device: str, threads: int) -> dict[str, Any]:
    """The part of a manifest that describes the moment and the machine."""
    return {
        "schema": SCHEMA,
        "status": "running",
        "started": now(),
        "command": list(command),
        "git": git_state(Path(__file__).parent),
        "versions": versions(),
        "machine": {"device": device, "threads": threads, "cpu": platform.machine(), "system": platform.system()},
    }


def now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@lru_cache
def versions() -> dict[str, str]:
    """Versions of what computes a run's numbers."""
    found = {"python": platform.python_version()}
    for name in ("vrbench", "torch", "torchvision", "numpy", "hydra-core", "datasets", "transformers", "torchgfn"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@lru_cache
def git_state(folder: Path) -> dict[str, Any]:
    """`{"sha", "dirty"}` of the checkout that vrbench itself runs from; nulls when it is an installed wheel."""
    try:
        top = _git(folder, "rev-parse", "--show-toplevel")
        if Path(top).resolve() != folder.parent.resolve():
            return {"sha": None, "dirty": None}
        return {"sha": _git(folder, "rev-parse", "HEAD"), "dirty": bool(_git(folder, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return {"sha": None, "dirty": None}


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=20
    ).stdout.strip()


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far, in bytes (a multirun in one process shares it)."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
