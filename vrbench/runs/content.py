"""What local files hold: one hash of their names and bytes, remembered so that gigabytes are read once.

A file's hash is remembered under its path, together with device, inode, size and the times of its last change. Whoever
puts size and modification time back cannot put back the inode's change time (ctime), which the system keeps. A file
that changed within the last two seconds before it was read is not remembered: a clock's tick could hide another change.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

DIGEST_BYTES = 16
NO_DATA = frozenset({".git", ".DS_Store", "Thumbs.db", "desktop.ini"})
"""What version control and file managers leave in a folder of data: never part of it."""

_FRESH_NS = 2_000_000_000
_BLOCK = 1 << 20
_FILES_A_JOB = 256
_LONG = 4_000_000_000
"""Bytes that take some seconds to read: that is said."""

Found = tuple[str, os.stat_result]


def cache_folder() -> Path:
    """The folder `vrbench` of `$XDG_CACHE_HOME` (or `~/.cache`)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vrbench"


def content_hash(path: Path) -> str:
    """32 hex digits: of a folder the relative names and the bytes of all its files, of a file its suffix and bytes.

    The name of the file or folder itself does not count, nor where it lies. Links are followed. Raises OSError for a
    file that cannot be read, FileNotFoundError where there is nothing.
    """
    root = os.path.realpath(path)
    if not os.path.isdir(root):
        (digest,) = _hashes([(root, os.stat(root))])
        return _combine([(Path(path).suffix, digest)])
    found = sorted(_files(root))
    digests = _hashes([(path, state) for _, path, state in found])
    return _combine(list(zip((name for name, _, _ in found), digests, strict=True)))


def file_hashes(files: Sequence[Path]) -> list[bytes]:
    """The hash of each file's bytes alone: equal for copies. Raises OSError for a file that cannot be read."""
    real = [os.path.realpath(file) for file in files]
    return _hashes([(path, os.stat(path)) for path in real])


PYDOC = "vrbench.data.text.pydoc"
_FIRST_PYDOC = "29a042a7df7b3e8888b27eb47be5b86b"
"""The text that ships with CPython 3.11.7, on which all runs before this was counted were recorded."""


@lru_cache
def pydoc_hash() -> str | None:
    """32 hex digits of the text that `PYDOC` reads, which differs between versions of Python.

    None for the text that the first runs read: their ids stay.
    """
    from pydoc_data.topics import topics

    found = hashlib.blake2b(json.dumps(topics, sort_keys=True).encode(), digest_size=DIGEST_BYTES).hexdigest()
    return None if found == _FIRST_PYDOC else found


def _combine(parts: Sequence[tuple[str, bytes]]) -> str:
    total = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for name, digest in parts:
        encoded = os.fsencode(name)
        total.update(len(encoded).to_bytes(8, "big") + encoded + digest)
    return total.hexdigest()


def _files(root: str) -> Iterator[tuple[str, str, os.stat_result]]:
    """Every regular file below the folder: its name relative to it, its path, its state."""
    stack = [(root, "", frozenset({os.path.realpath(root)}))]
    while stack:
        folder, prefix, above = stack.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name in NO_DATA:
                    continue
                try:
                    state = entry.stat()
                except FileNotFoundError:
                    continue  # a link to nothing
                name = f"{prefix}{entry.name}"
                if stat.S_ISREG(state.st_mode):
                    yield name, entry.path, state
                elif stat.S_ISDIR(state.st_mode):
                    real = os.path.realpath(entry.path) if entry.is_symlink() else entry.path
                    if real not in above:  # a link to a folder above would never end
                        stack.append((entry.path, f"{name}/", above | {real}))


def _hashes(files: Sequence[Found]) -> list[bytes]:
    """The hash of each file's bytes, from memory where nothing has touched the file since."""
    with _memory() as memory:
        known = _recall(memory, [path for path, _ in files])
        missing = [(path, state) for path, state in files if known.get(path, ("",))[0] != _stamp(state)]
        if (size := sum(state.st_size for _, state in missing)) > _LONG:
            place = os.path.commonpath([path for path, _ in missing])
            print(f"vrbench: reading {size / 1e9:.1f} GB in {place} once, to know these data again", file=sys.stderr)
        fresh: dict[str, bytes] = {}
        jobs = [missing[start : start + _FILES_A_JOB] for start in range(0, len(missing), _FILES_A_JOB)]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for job, digests in zip(jobs, pool.map(_read_all, jobs), strict=True):
                rows = []
                for (path, _), (digest, stamp) in zip(job, digests, strict=True):
                    fresh[path] = digest
                    if stamp is not None:
                        rows.append((path, stamp, digest))
                _remember(memory, rows)
    return [fresh[path] if path in fresh else known[path][1] for path, _ in files]


def _read_all(files: Sequence[Found]) -> list[tuple[bytes, str | None]]:
    return [_read(path) for path, _ in files]


def _read(path: str) -> tuple[bytes, str | None]:
    """The hash of a file's bytes, and its stamp where the hash may be remembered."""
    found = hashlib.blake2b(digest_size=DIGEST_BYTES)
    with open(path, "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        began = time.time_ns()
        while block := file.read(_BLOCK):
            found.update(block)
        after = os.fstat(file.fileno())
    settled = max(before.st_ctime_ns, before.st_mtime_ns) < began - _FRESH_NS
    stamp = _stamp(before) if settled and _stamp(before) == _stamp(after) else None
    return found.digest(), stamp


def _stamp(state: os.stat_result) -> str:
    return f"{state.st_dev}:{state.st_ino}:{state.st_size}:{state.st_mtime_ns}:{state.st_ctime_ns}"


# ---- what is remembered ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _memory() -> Iterator[sqlite3.Connection | None]:
    """The database of hashes, made anew where it is damaged; None where there can be none: then all is read again."""
    file = cache_folder() / "content.sqlite"
    connection = None
    for _ in range(2):
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(file, timeout=10)
            connection.execute("CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, stamp TEXT, digest BLOB)")
            break
        except sqlite3.OperationalError:  # locked for too long, read-only, no space
            connection = None
            break
        except sqlite3.DatabaseError:
            with contextlib.suppress(OSError):
                file.unlink()
            connection = None
        except OSError:
            break
    try:
        yield connection
    finally:
        if connection is not None:
            connection.close()


def _recall(memory: sqlite3.Connection | None, paths: Sequence[str]) -> dict[str, tuple[str, bytes]]:
    known: dict[str, tuple[str, bytes]] = {}
    if memory is None:
        return known
    with contextlib.suppress(sqlite3.Error, UnicodeEncodeError):
        for start in range(0, len(paths), 500):
            some = paths[start : start + 500]
            marks = ",".join("?" * len(some))
            for path, stamp, digest in memory.execute(f"SELECT * FROM files WHERE path IN ({marks})", some):
                known[path] = (stamp, digest)
    return known


def _remember(memory: sqlite3.Connection | None, rows: Sequence[tuple[str, str, bytes]]) -> None:
    if memory is None or not rows:
        return
    with contextlib.suppress(sqlite3.Error, UnicodeEncodeError), memory:
        memory.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", rows)
