"""What a run leaves behind: manifest.json, metrics.jsonl, summary.json; and the reader of run folders.

Every file but metrics.jsonl is written whole (temporary file, fsync, rename); metrics.jsonl only grows, and a
checkpoint notes its length, so that a resumed run cuts off rows that it will write again. Imports nothing heavy.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from vrbench.runs.redact import hide

SCHEMA = 2
SCHEMAS = (1, 2)
"""Versions that this vrbench reads. Runs of version 1 have another identity: they are shown, and trained again."""
OVER = ("finished", "diverged")
_BLOCK = 1 << 20
_SETTLED_NS = 2_000_000_000
"""A folder that was changed less long ago may change again without its time telling."""


class CannotWrite(OSError):
    """A record could not be written (no space, no right, no such disk); those that are there are whole."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}; records are whole, and once this is mended the same command goes on"


def write_whole(path: Path, write: Callable[[IO[bytes]], object], former: Path | None = None) -> None:
    """Let `write` fill a file so that a reader (and a crash) sees all of it or none of it. Raises CannotWrite.

    `former` is the name that the file of before gets; without it that file is gone.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")  # hosts may share a folder
    try:
        try:
            with open(temporary, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            if former is not None and path.exists():
                os.replace(path, former)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)
    except OSError as error:
        raise CannotWrite(error.errno, error.strerror or str(error), str(path)) from error


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
    """The append-only metrics.jsonl of a run being trained; every row is written whole or not at all."""

    def __init__(self, path: Path, length: int = 0) -> None:
        """Open for appending after the first `length` bytes: what lies behind them is cut off. Raises CannotWrite."""
        self.path = path
        self._length = length
        try:
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - lives as long as the run
            self._file.truncate(length)
        except OSError as error:
            raise CannotWrite(error.errno, error.strerror, str(path)) from error
        self._file.seek(0)
        self._hash = _hashed(self._file, length)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row; it is in the file, for other processes to read, when this returns. Raises CannotWrite."""
        line = (json.dumps(_jsonable(row), allow_nan=False) + "\n").encode()
        written = 0
        try:
            while written < len(line):
                written += self._file.write(line[written:]) or 0
        except OSError as error:
            self._file.truncate(self._length)
            raise CannotWrite(error.errno, error.strerror, str(self.path)) from error
        self._length += len(line)
        self._hash.update(line)

    def sync(self) -> dict[str, Any]:
        """Force the rows to disk and return what `check_rows` needs to know them again: their length and hash."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise CannotWrite(error.errno, error.strerror, str(self.path)) from error
        return {"length": self._length, "hash": self._hash.hexdigest()}

    def close(self) -> None:
        self._file.close()


def check_rows(path: Path, noted: Mapping[str, Any]) -> None:
    """Raises ValueError where a metrics.jsonl does not begin with the rows that `MetricsFile.sync` saw."""
    with open(path, "rb") if path.exists() else io.BytesIO() as file:
        found = _hashed(file, noted["length"]).hexdigest()
        length = file.tell()
    if length != noted["length"] or found != noted["hash"]:
        raise ValueError(f"{path.name} is not the one that it was written beside")


def _hashed(file: IO[bytes], length: int) -> hashlib.blake2b:
    """The hash of the next `length` bytes, or of as many as there are."""
    found = hashlib.blake2b(digest_size=16)
    while length > 0 and (block := file.read(min(length, _BLOCK))):
        found.update(block)
        length -= len(block)
    return found


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


class UnknownSchema(ValueError):
    """A run folder was written by a vrbench whose records this one does not know."""


@dataclass(frozen=True)
class Run:
    """A run folder, read lazily."""

    directory: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """manifest.json. Raises UnknownSchema for a version that this vrbench does not know, ValueError for no JSON."""
        manifest = _read_json(self.directory / "manifest.json")
        if manifest.get("schema") not in SCHEMAS:
            known = " and ".join(map(str, SCHEMAS))
            raise UnknownSchema(
                f"{self.directory}: schema version {manifest.get('schema')!r} is unknown to this vrbench "
                f"(it reads versions {known})"
            )
        return manifest

    @cached_property
    def summary(self) -> dict[str, Any] | None:
        """summary.json, or None while the run is unfinished."""
        path = self.directory / "summary.json"
        return _read_json(path) if path.exists() else None

    @property
    def status(self) -> str:
        """`finished`, `diverged`, `pruned` (given up by a search, see manifest.json) or `unfinished`."""
        if self.summary:
            return str(self.summary["status"])
        return "pruned" if self.manifest.get("status") == "pruned" else "unfinished"

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of metrics.jsonl, in order."""
        path = self.directory / "metrics.jsonl"
        return read_rows(path) if path.exists() else iter(())


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError where there is none, FileNotFoundError where there is no file."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds no JSON object")
    return content


def check_folder(directory: Path) -> None:
    """Raises ValueError where a folder holds a run that this vrbench can neither take as over nor go on with.

    That is: one of another schema version, or a finished one with records missing or unreadable. An unfinished run's
    manifest is written anew when the run goes on, whatever state it is in.
    """
    run = Run(directory)
    over = is_over(directory)
    missing = [name for name in ("config.yaml", "manifest.json", "metrics.jsonl") if not (directory / name).exists()]
    if over and missing:
        raise ValueError(f"{directory}: is finished, and {', '.join(missing)} is gone; force=true trains it again")
    try:
        _ = run.manifest, run.summary
    except UnknownSchema:
        raise
    except (FileNotFoundError, ValueError):
        if over:
            raise


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


def run_folder(study: Path, name: str, run_id: str) -> Path:
    """Where the run of this id lies in its study: its folder, whatever that is called, or else one of this name."""
    folder = study / name
    if folder.exists() or not study.is_dir():
        return folder
    changed = study.stat().st_mtime_ns
    settled = changed < time.time_ns() - _SETTLED_NS
    same = (_names_by_id if settled else _names_by_id.__wrapped__)(str(study), changed).get(run_id)
    return folder if same is None else study / same


@lru_cache(maxsize=16)
def _names_by_id(study: str, changed: int) -> dict[str, str]:
    """The names in a study's folder by the id that they end with; `changed` tells the memory that there are others."""
    return {name.rpartition("-")[2]: name for name in sorted(os.listdir(study), reverse=True) if "-" in name}


def pictures(folder: Path, last_step: int) -> dict[int, Path]:
    """The sample pictures of a run by their step; `samples.png` is that of the last one."""
    found = {int(path.stem.removeprefix("samples-")): path for path in sorted(folder.glob("samples-*.png"))}
    if (folder / "samples.png").exists():
        found[last_step] = folder / "samples.png"
    return found


def new_manifest(command: Sequence[str], machine: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a manifest that describes the moment and the machine."""
    return {
        "schema": SCHEMA,
        "status": "running",
        "started": now(),
        "command": [hide(word) for word in command],
        "git": git_state(Path.cwd()),
        "vrbench_git": checkout_state(),
        "versions": versions(),
        "machine": {**machine, "cpu": cpu_model(), "system": platform.system()},
    }


def now() -> str:
    """The time as ISO 8601 in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


COMPUTES = (
    "vrbench", "torch", "torchvision", "numpy", "scipy", "hydra-core", "omegaconf", "datasets", "pyarrow", "pillow",
    "tokenizers", "transformers", "diffusers", "torchmetrics", "pytorch-optimizer", "scikit-learn",
    "numba", "optuna", "wandb",
)  # fmt: skip
"""Distributions that compute, load, search or send a run's numbers."""


@lru_cache
def versions() -> dict[str, str]:
    """Versions of what is installed of `COMPUTES`, and of Python."""
    found = {"python": platform.python_version()}
    for name in COMPUTES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@lru_cache
def cpu_model() -> str:
    """The processor's name where the system tells it (`AMD EPYC 7B13`), else its architecture."""
    try:
        if sys.platform == "darwin":
            return _output("sysctl", "-n", "machdep.cpu.brand_string")
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except (OSError, subprocess.SubprocessError):
        pass
    return platform.processor() or platform.machine()


@lru_cache
def git_state(folder: Path, apart_from: str = "") -> dict[str, Any]:
    """`{"sha", "dirty"}` of the git checkout that the folder lies in; nulls where there is none.

    What lies below `apart_from`, a path in the checkout, does not make it dirty.
    """
    try:
        sha = _git(folder, "rev-parse", "HEAD")
        rest = ["--", ":/", f":(top,exclude){apart_from}"] if apart_from else []
        return {"sha": sha, "dirty": bool(_git(folder, "status", "--porcelain", *rest))}
    except (OSError, subprocess.SubprocessError):
        return {"sha": None, "dirty": None}


@lru_cache
def checkout_state() -> dict[str, Any]:
    """`git_state` of the checkout that vrbench itself runs from; nulls when it is an installed wheel."""
    package = Path(__file__).parent
    try:
        if Path(_git(package, "rev-parse", "--show-toplevel")).resolve() == package.parent.resolve():
            return git_state(package)
    except (OSError, subprocess.SubprocessError):
        pass
    return {"sha": None, "dirty": None}


def _git(folder: Path, *words: str) -> str:
    return _output("git", "-C", str(folder), *words)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def peak_memory_bytes() -> int:
    """Largest resident size of this process so far, in bytes (a multirun in one process shares it)."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
